import sys, time
exec(open("/work/v/fast/dev/try_residual.py").read().split("if __name__")[0])
from semnr.trust import changes as C, spectra as S
from scipy import ndimage
from functools import lru_cache
@lru_cache(8)
def cplan(h, w):
    p = S.plan_of((h, w))
    sides = []
    for n in (h, w):
        t = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / (S._TAPER * n); sides.append((np.sin(np.pi / 2 * np.minimum(t, 1.0)) ** 2).tolist())
    g = np.digitize(np.sqrt(p.fy**2 + p.fx**2), S.EDGES).astype(np.uint8)
    from scipy.ndimage._filters import _gaussian_kernel1d
    s0 = _gaussian_kernel1d(1.5, 0, 6)[6:].tolist(); s1 = np.abs(_gaussian_kernel1d(1.5, 1, 6)[6:]).tolist()
    return _dev.ChangesPlan(*sides, g.ctypes.data, [S.BAND, S.HIGH, S.TEXTURE], p.inflation, S.MIN_Z, s0, s1, 4), p
def native_changes(x, d, r, data_range):
    px, pd = Planes(x), Planes(d); pr = Planes(r) if r is not None else pd
    plan, p = cplan(px.h, px.w)
    rows = torch.zeros(1, _dev.CHANGES_ROW, dtype=torch.float64); lines = torch.zeros(1, 3, px.h, dtype=torch.float64)
    span = torch.tensor([data_range], dtype=torch.float64)
    f = lambda: _dev.changes_rows(px.arg(), pd.arg(), pr.arg(), True, r is not None, span.data_ptr(), False, plan, 1, rows.data_ptr(), lines.data_ptr())
    f()
    v = rows[0].numpy()
    out = {"gain_change": v[0:2], "offset_change": v[2:4]}
    delta, h, s = v[4:6], v[6:9], v[9:12]
    hessian = np.array([[h[0], h[1]], [h[1], h[2]]]); spread = np.array([[s[0], s[1]], [s[1], s[2]]])
    inverse = np.linalg.pinv(hessian)
    with np.errstate(all="ignore"): se = np.sqrt(np.diag(inverse @ spread @ inverse.T))
    for k, name in enumerate(("shift_y_px", "shift_x_px")):
        c = hessian[k, k] / max(float(np.abs(np.diag(hessian)).max()), 1e-300)
        out[name] = (delta[k], se[k]) if se[k] < C._MAX_SHIFT_SE and c > 1e-4 and abs(delta[k]) <= 8 else (np.nan, np.nan)
    if r is not None:
        out["transfer_high"] = v[12:14]; rings = v[14:38].reshape(12, 2); out["transfer_texture"] = v[38:40]
        ratios = iter([tuple(q) for q in rings])
        old = C.ratio; C.ratio = lambda *a: next(ratios)
        try: out |= C._curve(p, None, None, None)
        finally: C.ratio = old
    return out, f
if __name__ == "__main__":
    from tiles import tiles
    for name, images, options in tiles():
        if "nan" in name or "scan2" in name: continue
        x, d, r = (None if k not in images else np.ascontiguousarray(images[k]) for k in ("noisy", "denoised", "reference"))
        if min(x.shape[-2:]) < 32: continue
        r0 = r if r is not None else images.get("second_frame")
        old = C.columns(x, d, r0, data_range=options.get("data_range"))
        t4 = lambda v: None if v is None else torch.from_numpy(np.ascontiguousarray(v if v.ndim == 3 else v[None]))[None]
        new, f = native_changes(t4(x), t4(d), t4(r0), options.get("data_range") or 255.0)
        text = []
        for k, (v, se) in new.items():
            a, b = old[k][0], old[k + "_se"][0]
            if np.isnan(a) and np.isnan(v): continue
            dv = abs(v - a) / max(abs(a), 1e-3 if "shift" in k or "change" in k else 1e-12)
            text.append(f"{k}:{dv:.0e}/{abs(se - b) / max(b, 1e-300):.0e}")
        print(f"{name:26s}", " ".join(text).replace("_change", "").replace("transfer_", "T_"))
        if name == "lines-1.2":
            t = []
            for _ in range(30):
                s = time.thread_time(); f(); t.append(time.thread_time() - s)
            print("  ms", 1e3 * min(t), 1e3 * sorted(t)[15])
