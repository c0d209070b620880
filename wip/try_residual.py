import sys, time, math
sys.path[:0] = ["/work/v/fast/dev", "/work/v/fast/golden", "/work/v/fast/old/python", "/work/v/fast/old"]
import numpy as np, torch, _dev
torch.set_num_threads(1)
from semnr.trust.residual import scanning, marking, spread, templates
import semnr.trust.residual as R
from semnr.trust.bands import _fast_size
pass
CODES = {torch.uint8: 0, torch.uint16: 1, torch.float32: 4, torch.float64: 5}
class Planes:
    def __init__(s, image):
        n, c, h, w = image.shape; s.n, s.h, s.w = n, h, w
        s.pitch = _dev.evidence_pitch(w)
        s.data = torch.empty(n, h, s.pitch); s.stats = torch.empty(n, 5, dtype=torch.float64)
        _dev.evidence_planes((image.data_ptr(), *image.stride()), CODES[image.dtype], tuple(image.shape), 1, s.data.data_ptr(), s.stats.data_ptr())
        pass
    def arg(s): return (s.data.data_ptr(), s.stats.data_ptr(), s.n, s.h, s.w)
from functools import lru_cache
@lru_cache(4)
def plan_of(h, w, sizes=R.SIZES):
    shapes = templates.bank(sizes)
    cuts = [scanning._cuts(n) for n in (h, w)]
    room = max(templates.template(s).shape[0] for s in shapes) + 8
    rows, cols = (_fast_size(max(e - b for _, (b, e) in cut) + room) for cut in cuts)
    p = _dev.ResidualPlan(*[[(c.start, c.stop, b, e) for c, (b, e) in cut] for cut in cuts], (rows, cols))
    g = lambda f: np.exp(-2 * (math.pi * scanning.BACKGROUND) ** 2 * f**2)
    p.surroundings_down, p.surroundings_right = g(np.fft.fftfreq(rows)).tolist(), g(np.fft.rfftfreq(cols)).tolist()
    n = 4096; f = np.fft.fftfreq(n); s = np.exp(-2 * (math.pi * 1.5) ** 2 * f**2)
    p.smooth = np.fft.ifft(s).real[:9].tolist()
    dd = np.fft.ifft(s * 2j * math.pi * f).real[:9]; dd[0] = 0; p.slope = dd.tolist()
    radius = max(templates.template(s).shape[0] // 2 for s in shapes)
    q = np.zeros((len(shapes), radius + 1, radius + 1), np.float32); reach = []
    for k, s in enumerate(shapes):
        t = templates.template(s); r = t.shape[0] // 2; reach.append(r); q[k, : r + 1, : r + 1] = t[r:, r:]
    p.radius = radius; p.bumps = q.ravel().tolist(); p.size = [s.size for s in shapes]; p.reach = reach
    p.level = [0 if s.size < marking._LARGE else 1 for s in shapes]
    p.middle = [marking.middle_of(shapes, 5.0), marking.middle_of(shapes, 8.0)]
    p.step = 2 if h * w >= 2**16 else 1
    numel = -(-h // p.step) * -(-w // p.step)
    shares = [s for s in marking._LEVELS if (1 - s) * h * w >= marking._LEVEL_PIXELS]
    p.bounds = [0, *(round(s * numel) for s in shares), numel]
    p.within, p.share, p.quantile, p.calmest, p.block, p.around = marking._WITHIN, marking._SHARE, marking._QUANTILE, marking._CALMEST, 32, marking._AROUND
    spectra, high = scanning._spectra(shapes, rows, cols)
    return shapes, p, rows, cols, spectra, high
def bands_weight(high):
    rows, columns = high.shape
    y = (np.abs(np.fft.fftfreq(rows)) * 16).astype(int).clip(max=7); x = (np.arange(columns) * 8 // columns).clip(max=7)
    out = np.zeros(64); np.add.at(out, (y[:, None] * 8 + x).ravel(), high.double().numpy().ravel()); return out
def native(x, d, models, want_map=False, valid=None):
    px, pd = Planes(x), Planes(d)
    shapes, p, rows, cols, spectra, high = plan_of(px.h, px.w)
    n = px.n
    fx = np.fft.rfftfreq(cols)
    taps = [m.whitening() for m in models]
    white = np.stack([np.abs(np.exp(-2j * np.pi * np.outer(fx, np.arange(a.size))) @ a) ** 2 for a in taps])
    twice = np.full(fx.size, 2.0); twice[0] = 1.0
    if cols % 2 == 0: twice[-1] = 1.0
    s2 = spectra.square().double().numpy()
    along = s2.sum(1) * twice
    gain = torch.from_numpy(np.sqrt(along @ white.T / (rows * cols)).T.copy())
    density = scanning._density(spectra, white, twice, (rows, cols))
    limit = torch.tensor([scanning.threshold(float(v), px.h * px.w, 0.005) for v in density], dtype=torch.float64)
    law = torch.tensor([[m.gain, m.offset, m.floor] for m in models], dtype=torch.float64)
    w32 = torch.from_numpy(white.astype(np.float32))
    out = torch.zeros(n, _dev.RESIDUAL_ROW, dtype=torch.float64); marks = torch.zeros(n, 16, 5, dtype=torch.float64)
    mp = torch.empty(n, px.h, px.w) if want_map else None
    f = lambda: _dev.residual_scan(px.arg(), pd.arg(), 0 if valid is None else valid.data_ptr(), law.data_ptr(), w32.data_ptr(), gain.data_ptr(), limit.data_ptr(), p, 1, out.data_ptr(), marks.data_ptr(), 0 if mp is None else mp.data_ptr())
    f()
    power = (out[:, 3:].numpy() / bands_weight(high) / (len(scanning._cuts(px.h)) * len(scanning._cuts(px.w)))).reshape(n, 8, 8)
    return dict(variance=out[:, 0].numpy(), structure_z=out[:, 1].numpy(), spectrum=spread.spectrum_distance(torch.from_numpy(power)), marks=marks, count=out[:, 2], limit=limit, map=mp, shapes=shapes, time=f)
if __name__ == "__main__":
    from tiles import tiles
    for name, images, options in tiles():
        x, d = (torch.from_numpy(np.ascontiguousarray(images[k])) for k in ("noisy", "denoised"))
        if x.ndim == 2: x, d = x[None], d[None]
        x, d = x[None], d[None]
        if "nan" in name or min(x.shape[-2:]) < 32 or "scan2" in name or "masked" in name: continue
        try:
            old = R.residual_tests(x, d, return_maps=True, data_range=options.get("data_range"))
        except Exception as e:
            print(name, "old fails", e); continue
        new = native(x, d, old.noise, True)
        boxes = []
        for m in new["marks"][0][: int(new["count"][0])].tolist():
            if abs(m[3]) > float(new["limit"][0]): boxes.append((m[0], m[1], round(new["shapes"][int(m[2])].size, 1), round(m[3], 2), "invented" if m[4] else "removed"))
        oldb = [(b["row"], b["col"], b["height"], b["z"], b["kind"]) for b in old.boxes[0]]
        same = [(a[0], a[1], a[2], a[4]) for a in boxes] == [(a[0], a[1], a[2], a[4]) for a in oldb]
        dz = max((abs(a[3] - b[3]) for a, b in zip(boxes, oldb)), default=0)
        dm = np.abs(np.abs(new["map"][0].numpy()) - np.abs(old.maps["evidence"][0])).max()
        print(f"{name:24s} var {new['variance'][0] / old.variance[0] - 1:+.1e} spec {new['spectrum'][0] - old.spectrum[0]:+.1e} edge {new['structure_z'][0]:+.3f} {new['structure_z'][0] - old.structure_z[0]:+.1e} map {dm:.1e} of {np.abs(old.maps['evidence']).max():.1f} marks {len(boxes)} {len(oldb)} {same} {dz:.2f} limit {float(new['limit'][0]) - old.threshold[0]:.1e}")
        if not same: print("   ", boxes[:6], "\n    ", oldb[:6])
        if name in ("lines-1.2",):
            t = []
            for _ in range(15):
                a = time.thread_time(); new["time"](); t.append(time.thread_time() - a)
            print("   scan ms", 1e3 * min(t), 1e3 * sorted(t)[7])
            t = []
            for _ in range(15):
                a = time.thread_time(); Planes(x); t.append(time.thread_time() - a)
            print("   planes ms", 1e3 * min(t))
