import sys, time
sys.argv += ["6"]
exec(open("/work/v/fast/dev/try_residual.py").read().split("if __name__")[0])
sys.path.insert(0, "/work/v/fast/golden")
from tiles import pattern, noisy_of, quant, soft
rng = np.random.default_rng(3)
clean = pattern("lines", (512, 512), 31)
x = noisy_of(clean, rng); d = quant(soft(x, 1.0), np.uint8)
x, d = (torch.from_numpy(v)[None, None] for v in (x, d))
from semnr.noise import fit_noise
from semnr.noise.model import array_windows
m = fit_noise(array_windows(x[0, 0].numpy(), limit=2), data_range=255.0)
new = native(x, d, [m])
t = []
for _ in range(int(sys.argv[1])):
    a = time.thread_time(); new["time"](); t.append(time.thread_time() - a)
print("scan ms min %.2f median %.2f" % (1e3 * min(t), 1e3 * sorted(t)[len(t) // 2]))
