import sys, time
sys.path[:0]=["/work/v/fast/golden"]
import numpy as np, torch
torch.set_num_threads(1)
from tiles import *
import semnr.synth
def noisy_of(clean, rng, dtype="uint8"):
    from semnr.synth.detector import Detector, quantise
    return quantise(Detector().apply(np.clip(clean, 0, 1), rng), dtype)
rng = np.random.default_rng(3)
clean = pattern("lines", (512, 512), 31)
x = noisy_of(clean, rng).astype(float); d = np.rint(soft(x, 1.0)); r = 255 * clean
from semnr.trust import comparable as C
for name, f in {"reference_problem": lambda: C.reference_problem(x, r), "notes": lambda: C.notes(x, d), "jpeg": lambda: C.jpeg_grid(d), "likeness": lambda: C.likeness(x, r), "shift": lambda: C.shift(x, r)}.items():
    f(); t=[]
    for _ in range(5):
        a=time.thread_time(); f(); t.append(time.thread_time()-a)
    print(name, "%.1f ms" % (1e3*min(t)))
