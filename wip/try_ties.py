import sys, math
sys.path[:0] = ["/work/v/fast/golden", "/work/v/fast/old/python", "/work/v/fast/old"]
import numpy as np
import semnr.noise.model as M
old = M._fields
def rows(x, r):  # sum of 2r+1 rows, edges repeated
    p = np.pad(x, ((r, r), (0, 0)), mode="edge"); return sum(p[i : i + x.shape[0]] for i in range(2 * r + 1))
def cols(x, r): return rows(x.T, r).T
def fields(x):
    second = np.zeros_like(x); second[1:-1] = x[:-2] - 2 * x[1:-1] + x[2:]
    level = cols(rows(x, 1), 2) / 15
    side = np.pad(cols(x, 2), ((1, 1), (0, 0)), mode="edge"); across = (side[2:] - side[:-2])
    side = np.pad(rows(x, 2), ((0, 0), (2, 2)), mode="edge"); along = side[:, 3:-1] + side[:, 4:] - side[:, :-4] - side[:, 1:-3]
    p = np.pad(second, ((0, 0), (7, 7)), mode="edge"); w = x.shape[1]
    bend = sum(p[:, 7 + o : 7 + o + w] for o in (-7, -6, -5, -4, -3, 3, 4, 5, 6, 7))
    structure = np.maximum(np.maximum(across**2 / 50, along**2 / 100), bend**2 / 300)
    inner = (slice(1, -1), slice(2, -2))
    return level[inner], second[inner] / math.sqrt(6.0), structure[inner]
from tiles import tiles
for name, images, options in tiles():
    x = images["noisy"]
    if x.ndim == 3: x = x.astype(np.float32).mean(0)
    if "nan" in name or name == "rows-only" or min(x.shape)<32: continue
    x = x.astype(np.float32)
    r = options.get("data_range") or 255.0
    a = M.fit_noise(M.array_windows(x, limit=2), data_range=r)
    f = M._fields; M._fields = fields
    b = M.fit_noise(M.array_windows(x, limit=2), data_range=r)
    M._fields = f
    e = [np.abs(u - v).max() for u, v in zip(old(x.astype(float)), fields(x.astype(float)))]
    la, lb = a.sigma(np.array([60., 120., 200.])), b.sigma(np.array([60., 120., 200.]))
    print(f"{name:28s} gain {a.gain:.5f} {b.gain / a.gain - 1 if a.gain else 0:+.1e} sigma {np.abs(lb/la-1).max():.1e} corr {np.abs(np.array(a.correlation)-np.array(b.correlation)).max():.1e}  fields {max(e):.1e} points {len(a.levels)} {len(b.levels)}")
