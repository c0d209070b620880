import sys, time
exec(open("/work/v/fast/dev/try_residual.py").read().split("if __name__")[0])
import inspect, semnr.noise.model as M
from dataclasses import replace
src = inspect.getsource(M._fit)
src = src.replace("edges = np.linspace(low, high, _BINS + 1)", "edges = np.linspace(low, high, _BINS + 1) - 4e-4 * (high - low) / _BINS")
src = src.replace("keep = slope <= np.quantile(slope, 0.25)", "keep = slope <= np.quantile(slope, 0.25) * (1 + 1e-5)")
d = dict(M.__dict__); exec(src, d); M._fit = d["_fit"]
def wins(p, k, r):
    out = []
    def read(plane, rows, columns):
        out.append((p.data.data_ptr() + 4 * ((k * p.h + rows.start) * p.pitch + columns.start), p.pitch, rows.stop - rows.start, columns.stop - columns.start, float(p.stats[k, 0])))
        return np.zeros(1)
    M.sample_windows([(p.h, p.w)], read, 2); return out
def native_fit(p, r):
    rows = torch.zeros(p.n, _dev.NOISE_ROW, dtype=torch.float64)
    w = [wins(p, k, r) for k in range(p.n)]
    f = lambda: _dev.noise_fit(w, [(0.0, r, 0.0)] * p.n, 1, rows.data_ptr())
    f(); v = rows[0].numpy(); n = int(v[5]); B = _dev.NOISE_BINS
    pts = v[6 : 6 + 3 * B].reshape(3, B)[:, :n]
    m = M.NoiseModel(gain=v[0], offset=v[1], gain_se=v[2], clipped_low=v[3], clipped_high=v[4], levels=tuple(pts[0]), variances=tuple(pts[1]), counts=tuple(pts[2].astype(int)), floor=.5 * pts[1].min(), correlation=M.correlations(v[6 + 3 * B :].reshape(-1, 2)))
    return m, f
if __name__ == "__main__":
    from tiles import tiles
    for name, images, options in tiles():
        x = torch.from_numpy(np.ascontiguousarray(images["noisy"]))
        if "nan" in name or min(x.shape[-2:]) < 32: continue
        if x.ndim == 2: x = x[None]
        p = Planes(x[None]); r = options.get("data_range") or 255.0
        g = x.double().mean(0).numpy()
        try: a = M.fit_noise(M.array_windows(g, limit=2), data_range=r)
        except Exception as e: print(name, e); a = None
        b, f = native_fit(p, r)
        if a is None: print(b); continue
        lv = np.quantile(g, (.1, .5, .9))
        print(f"{name:28s} gain {a.gain:+.5f} {b.gain / a.gain - 1 if a.gain else b.gain:+.1e} se {b.gain_se/a.gain_se-1:+.0e} sigma {np.abs(b.sigma(lv)/a.sigma(lv)-1).max():.1e} corr {np.abs(np.array(a.correlation)-np.array(b.correlation)).max():.1e} points {len(a.levels)} {len(b.levels)} counts {np.abs(np.array(a.counts)-np.array(b.counts)).max() if len(a.counts)==len(b.counts) else '?'} clip {a.clipped_low-b.clipped_low} {a.clipped_high-b.clipped_high}")
        if name == "lines-1.2":
            t = []
            for _ in range(30):
                s = time.thread_time(); f(); t.append(time.thread_time() - s)
            print("  fit ms", 1e3 * min(t), 1e3 * sorted(t)[15])
