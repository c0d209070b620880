import sys, time
exec(open("/work/v/fast/dev/try_residual.py").read().split("if __name__")[0])
from semnr.trust import transfer as T, bands, blocks
def taps(sigma): 
    t = bands._taps(sigma, torch.zeros(1, dtype=torch.float64)).tolist() if sigma else [1.0]
    return t[len(t) // 2:]
def native_transfer(x, d, r, valid=None, second=False, drop=True):
    p = [Planes(v) for v in (x, d, r)]
    rows = torch.zeros(x.shape[0], 5, dtype=torch.float64)
    side = blocks.block_side(p[0].h, p[0].w, 4.0)
    f = lambda: _dev.transfer_rows(*(v.arg() for v in p), 0 if valid is None else valid.data_ptr(), (taps(1.0), taps(4.0)), side, 4.0, second, drop, 1, rows.data_ptr())
    f(); return rows[0].tolist(), f
if __name__ == "__main__":
    from tiles import tiles
    for name, images, options in tiles():
        if "nan" in name or name == "rgb" or len(images) < 3: continue
        second = "reference" not in images
        x, d, r = (torch.from_numpy(np.ascontiguousarray(images[k]))[None, None] for k in ("noisy", "denoised", "second_frame" if second else "reference"))
        mask = options.get("mask"); mask = None if mask is None else torch.from_numpy(mask)
        e = T.evidence(x, d, **{"second_frame" if second else "reference": r}, mask=mask, hints=False)
        new, f = native_transfer(x, d, r, None if mask is None else mask.to(torch.uint8).contiguous(), second, False)
        new, _ = native_transfer(x, d, r, None if mask is None else mask.to(torch.uint8).contiguous(), second, True)
        old = [e.transfer[0, 0], e.se[0, 0], e.structure_z[0, 0], e.energy[0, 0], e.mse_drop[0]]
        print(f"{name:28s} {old[0]:.4f} z {old[2]:.1f} ", " ".join(f"{b / a - 1:+.1e}" if a else f"{b}" for a, b in zip(old, new)))
        if name == "lines-1.2":
            t = []
            for _ in range(30):
                s = time.thread_time(); f(); t.append(time.thread_time() - s)
            print("  ms", 1e3 * min(t), 1e3 * sorted(t)[15])
