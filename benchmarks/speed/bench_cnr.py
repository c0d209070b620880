"""CNR and its map, whole public calls with two given regions, beside NumPy and SciPy versions of the same map.

The peers, from the plain one to the best that NumPy was brought to:
- uniform filter: scipy.ndimage.uniform_filter of the six planes (region, value, square; two regions), sliced by stride;
- summed area: cumulative sums of the six planes, any window and stride;
- blocks: sums of 32 × 32 blocks of whole planes, 2 × 2 of them a window: only where the stride divides the window;
- blocks by strips: the same, 32 rows at a time, so that every temporary stays in the cache.
All shift by the mean first, as a 16-bit pedestal needs. NumPy runs on one core, SciPy's filter too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from peers import images, measure
from scipy.ndimage import uniform_filter

import semnr
from semnr_kernels.cnr import Masks, native, reference

WINDOW, STRIDE = 64, 32
Sums = list[np.ndarray]  # count, Σ z, Σ z² of a region by windows


def regions(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lines of 16 pixels with three pixels between signal and background, as a guard band leaves them."""
    at = torch.arange(side) % 32
    signal, background = (at < 13), (at >= 16) & (at < 29)
    return signal.expand(side, side).contiguous(), background.expand(side, side).contiguous()


def lines(side: int, dtype: torch.dtype) -> torch.Tensor:
    """Noise on two levels, the signal's and the background's."""
    x = 0.5 * images(side)[0][0, 0] + 0.4 * (torch.arange(side) % 32 < 16)
    return (255 * x).to(dtype) if dtype == torch.uint8 else x.to(dtype)


def ratio(signal: Sums, background: Sums) -> np.ndarray:
    (n, a, aa), (m, b, bb) = signal, background
    a, b = a / n, b / m
    return np.abs(a - b) / np.sqrt((aa / n - a * a + bb / m - b * b) / 2)


def planes(z: np.ndarray, region: np.ndarray) -> Sums:
    v = np.where(region, z, 0)
    return [region.astype(np.float64), v, v * v]


def by_uniform_filter(x: np.ndarray, *of: np.ndarray) -> np.ndarray:
    z, half = x - x.mean(dtype=np.float64), WINDOW // 2
    inside = slice(half, x.shape[0] - half + 1, STRIDE)
    return ratio(*([uniform_filter(p, WINDOW, mode="constant")[inside, inside] for p in planes(z, r)] for r in of))


def by_summed_area(x: np.ndarray, *of: np.ndarray) -> np.ndarray:
    z, found = x - x.mean(dtype=np.float64), []
    for region in of:
        sums = []
        for plane in planes(z, region):
            s = np.zeros((x.shape[0] + 1, x.shape[1] + 1))
            np.cumsum(np.cumsum(plane, 0), 1, out=s[1:, 1:])
            low, high = slice(0, -WINDOW, STRIDE), slice(WINDOW, None, STRIDE)
            sums.append(s[high, high] - s[low, high] - s[high, low] + s[low, low])
        found.append(sums)
    return ratio(*found)


def windows(cells: np.ndarray) -> np.ndarray:
    return cells[:-1, :-1] + cells[1:, :-1] + cells[:-1, 1:] + cells[1:, 1:]


def by_blocks(x: np.ndarray, *of: np.ndarray) -> np.ndarray:
    n, z = x.shape[0] // STRIDE, x - x.mean(dtype=np.float64)
    return ratio(*([windows(p.reshape(n, STRIDE, n, STRIDE).sum((1, 3))) for p in planes(z, r)] for r in of))


def by_strips(x: np.ndarray, *of: np.ndarray) -> np.ndarray:
    n, pivot = x.shape[0] // STRIDE, x[:STRIDE].mean(dtype=np.float64)
    cells = np.empty((len(of), 3, n, n))
    whole = x.dtype == np.uint8  # 16 and 32 bits hold the sums of a column: exact, and half the bytes
    for i in range(n):
        rows = slice(STRIDE * i, STRIDE * (i + 1))
        z = x[rows].astype(np.uint16) if whole else x[rows] - pivot
        for k, region in enumerate(of):
            v = z * region[rows]
            count = region[rows].view(np.uint8).sum(0, dtype=np.uint8)
            if whole:
                columns = [count, v.sum(0, dtype=np.uint16), (v * v).sum(0, dtype=np.uint32)]
            else:
                columns = [count, v.sum(0), np.einsum("ij,ij->j", v, v)]
            for j, column in enumerate(columns):
                cells[k, j, i] = column.reshape(n, STRIDE).sum(1)
    return ratio(*([windows(c) for c in r] for r in cells))


PEERS: dict[str, Callable[..., np.ndarray]] = {
    "SciPy uniform filter": by_uniform_filter,
    "NumPy summed area": by_summed_area,
    "NumPy blocks": by_blocks,
    "NumPy blocks by strips": by_strips,
}


def one_map(side: int, dtype: torch.dtype) -> dict:
    x = lines(side, dtype)
    signal, background = regions(side)
    arrays = [v.numpy() for v in (x, signal, background)]

    def own() -> torch.Tensor:
        return semnr.cnr_map(x, signal=signal, background=background, window=WINDOW, stride=STRIDE)

    wanted = semnr.cnr_map(x, signal=signal, background=background, window=WINDOW, stride=STRIDE, backend="reference")
    torch.testing.assert_close(own(), wanted, rtol=1e-11, atol=0)
    calls: dict[str, Callable[[], object]] = {"semnr": own}
    for name, peer in PEERS.items():
        np.testing.assert_allclose(peer(*arrays), wanted.numpy(), rtol=1e-9, err_msg=name)
        calls[name] = lambda peer=peer: peer(*arrays)
    return {"work": f"cnr_map {WINDOW}/{STRIDE}, {str(dtype)[6:]}, {side}²", "pixels": side * side, **calls}


def two_roi(side: int, dtype: torch.dtype) -> dict:
    x = lines(side, dtype)
    signal, background = regions(side)
    pixels, s, b = (v.numpy() for v in (x, signal, background))

    def own() -> torch.Tensor:
        return semnr.cnr(x, signal=signal, background=background)

    def numpy() -> float:
        p, q = pixels[s], pixels[b]
        noise = (p.var(dtype=np.float64) + q.var(dtype=np.float64)) / 2
        return abs(p.mean(dtype=np.float64) - q.mean(dtype=np.float64)) / np.sqrt(noise)

    wanted = semnr.cnr(x, signal=signal, background=background, backend="reference").item()
    assert abs(own().item() / wanted - 1) < 1e-11
    assert abs(numpy() / wanted - 1) < 1e-9
    return {"work": f"cnr, {str(dtype)[6:]}, {side}²", "pixels": side * side, "semnr": own, "NumPy": numpy}


def kernel(side: int, window: int, stride: int) -> dict:
    """The kernel alone, one region: its time does not follow the window."""
    x = images(side)[0]
    region = regions(side)[0][None, None]
    corner = (x[..., :200, :200], region[..., :200, :200])
    grid = reference.Settings((window, window), (stride, stride))
    found, wanted = (f.of_regions(*corner, settings=grid)[0] for f in (native, reference))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)
    return {
        "work": f"moments {window}/{stride}, one region, float32, {side}²",
        "pixels": side * side,
        "semnr": lambda: native.of_regions(x, region, settings=grid),
    }


def masks(side: int, dtype: torch.dtype) -> dict:
    """Regions built on an image; the definition, and the same steps by SciPy and scikit-image beside it."""
    from scipy.ndimage import binary_dilation, gaussian_filter
    from skimage.filters import threshold_otsu

    x = lines(side, dtype)
    pixels, square = x.numpy(), np.ones((5, 5), dtype=bool)

    def own() -> Masks:
        return semnr.otsu_masks(x)

    def definition() -> Masks:
        with semnr.use_backend("reference"):
            return semnr.otsu_masks(x)

    def libraries() -> tuple[np.ndarray, np.ndarray]:
        smooth = gaussian_filter(pixels.astype(np.float64), 1.0)
        bright = smooth > threshold_otsu(smooth, nbins=256)
        return bright & ~binary_dilation(~bright, square), ~bright & ~binary_dilation(bright, square)

    found, wanted, theirs = own(), definition(), libraries()
    for a, b, c in zip((found.signal, found.background), (wanted.signal, wanted.background), theirs, strict=True):
        assert a.any()
        assert torch.equal(a, b)
        assert (a.numpy() == c)[8:-8, 8:-8].mean() > 0.999  # they extend the image over its borders
    work = f"otsu_masks, {str(dtype)[6:]}, {side}²"
    calls = {"semnr": own, "the definition in torch": definition, "SciPy and scikit-image": libraries}
    return {"work": work, "pixels": side * side, **calls}


CASES = {
    "map-float32": (one_map, 4096, torch.float32),
    "map-uint8": (one_map, 4096, torch.uint8),
    "map-512-float32": (one_map, 512, torch.float32),
    "roi-float32": (two_roi, 4096, torch.float32),
    "roi-uint8": (two_roi, 4096, torch.uint8),
    "roi-512-float32": (two_roi, 512, torch.float32),
    "masks-float32": (masks, 1024, torch.float32),
    "masks-uint8": (masks, 1024, torch.uint8),
    "masks-2048-float32": (masks, 2048, torch.float32),
    **{f"moments-{w}-{s}": (kernel, 1024, w, s) for w, s in ((8, 1), (32, 1), (128, 1), (64, 24), (64, 32))},
}


@pytest.mark.parametrize("case", CASES)
def test_cnr(case: str, benchmark) -> None:  # type: ignore[no-untyped-def]
    measure(CASES[case], benchmark)


if __name__ == "__main__":
    from table import write

    write("cnr", CASES)
