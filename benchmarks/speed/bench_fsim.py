"""FSIM beside piq, frame-analytics and the transforms alone: 34 complex FFTs a pair, the least that the textbook's
algorithm does (a spectrum an image, 16 responses each), by torch.fft in the batch that suits it best."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from peers import alternate, measure, median, peer

from semnr_kernels.fsim import features, fsim, similarity

FFTS = 34


def pair(images: int, side: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy and clean line patterns with a little texture, (N, 1, side, side)."""
    generator = torch.Generator().manual_seed(side)
    shape = (images, 1, side, side)
    y = 0.5 + 0.3 * torch.tanh(4 * torch.sin(torch.arange(side) * 0.39)).expand(shape)
    y = (y + 0.02 * torch.randn(shape, generator=generator)).clamp(0, 1)
    return (y + 0.08 * torch.randn(shape, generator=generator)).clamp(0, 1).to(dtype), y.to(dtype)


def transforms(count: int, side: int, batch: int) -> None:
    """So many complex inverse transforms, the batch being what one call takes."""
    planes = _planes(batch, side)
    done = 0
    while done < count:
        now = min(batch, count - done)
        torch.fft.ifft2(planes[:now])
        done += now


_kept: dict[tuple[int, int], torch.Tensor] = {}


def _planes(batch: int, side: int) -> torch.Tensor:
    if (batch, side) not in _kept:
        _kept[batch, side] = torch.randn((batch, side, side), dtype=torch.complex64)
    return _kept[batch, side]


def best_batch(side: int, count: int) -> int:
    """The batch with the shortest time a transform, of those whose planes fit 256 MiB."""
    batches = [b for b in (1, 2, 4, 8, 16, 34) if b * side * side * 8 <= 2**28 and b <= count] or [1]
    times = alternate({str(b): partial(transforms, b, side, b) for b in batches}, seconds=1.0, most=40)
    return min(batches, key=lambda b: median(times[str(b)]) / b)


def check(found: torch.Tensor, x: torch.Tensor, y: torch.Tensor, bound: float, **options: object) -> None:
    wanted = fsim(x[:1], y[:1], data_range=1.0, reduction="none", backend="reference", **options)
    assert (found[:1] - wanted).abs().max() <= bound, (found[:1], wanted)


def whole(images: int, side: int, precision: str = "float32", native_resolution: bool = False) -> dict:
    x, y = pair(images, side)
    options: dict = {"downsample": 1} if native_resolution else {}
    run = partial(fsim, x, y, data_range=1.0, reduction="none", precision=precision, **options)
    check(run(), x, y, 1e-6, **options)
    calls: dict[str, Callable[[], object]] = {"semnr": run}
    factor = 1 if native_resolution else max(1, round(side / 256))
    at, count = side // factor, FFTS * images
    batch = best_batch(at, count)
    calls[f"the {FFTS} FFTs a pair alone, torch.fft, batch {batch}"] = partial(transforms, count, at, batch)
    if not native_resolution:
        if piq := peer("piq"):
            calls["piq"] = partial(piq.fsim, x, y, chromatic=False, reduction="none")
        if fa := peer("frame_analytics"):
            calls["frame-analytics"] = partial(fa.fsim, x, y, data_range=1.0, reduction="none")
    size = f"{images} x {side}²" if images > 1 else f"{side}²"
    where = "native resolution" if native_resolution else f"downsampled by {factor}" if factor > 1 else ""
    work = ", ".join(part for part in ("FSIM", size, precision, where) if part)
    return {"work": work, "pixels": images * side * side, **calls}


def cached(images: int, side: int) -> dict:
    x, y = pair(images, side)
    kept = features(y, data_range=1.0)

    def run() -> torch.Tensor:
        return similarity(features(x, data_range=1.0), kept).rows

    check(run(), x, y, 1e-6)
    calls: dict[str, Callable[[], object]] = {"semnr": run}
    if piq := peer("piq"):
        calls["piq"] = partial(piq.fsim, x, y, chromatic=False, reduction="none")
    return {
        "work": f"FSIM, {images} x {side}², a candidate of a cached reference",
        "pixels": images * side * side,
        **calls,
    }


def step(images: int, side: int) -> dict:
    x, y = pair(images, side)
    x.requires_grad_(True)

    def gradient(score: Callable[[], torch.Tensor]) -> torch.Tensor:
        return torch.autograd.grad(score(), x)[0]

    def own(backend: str) -> torch.Tensor:
        return gradient(lambda: fsim(x, y, data_range=1.0, backend=backend))

    wanted = own("reference")
    assert (own("native") - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    calls: dict[str, Callable[[], object]] = {"semnr": partial(own, "native"), "reference": partial(own, "reference")}
    if piq := peer("piq"):
        calls["piq, float32"] = lambda: gradient(lambda: piq.fsim(x, y, chromatic=False))
    return {"work": f"FSIM, {images} x {side}², forward and backward", "pixels": images * side * side, **calls}


CASES: dict[str, tuple] = {
    "16x256": (whole, 16, 256),
    "16x256-float64": (whole, 16, 256, "float64"),
    "4x1024": (whole, 4, 1024),
    "16x512": (whole, 16, 512),
    "cached": (cached, 16, 256),
    "step": (step, 4, 256),
    "512-native": (whole, 1, 512, "float32", True),
    "1024-native": (whole, 1, 1024, "float32", True),
    "2048-native": (whole, 1, 2048, "float32", True),
}


@pytest.mark.parametrize("case", CASES)
def test_fsim(case: str, benchmark) -> None:  # type: ignore[no-untyped-def]
    measure(CASES[case], benchmark)


if __name__ == "__main__":
    from table import write

    write("fsim", CASES)
