"""Windowed moments (what a CNR map is made of) beside vectorised NumPy: summed-area tables, and block sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peers import alternate, images, median

from semnr_kernels.cnr import native, reference


def moments(side: int) -> dict:
    x, _, _ = images(side)
    roi = torch.rand((1, 1, side, side), generator=torch.Generator().manual_seed(0)) > 0.5
    corner = (x[..., :256, :256], roi[..., :256, :256])
    for a, b in zip(
        native.window_moments(*corner, (64, 64), (32, 32)),
        reference.window_moments(*corner, (64, 64), (32, 32)),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-11)
    pixels, inside = x[0, 0].numpy(), roi[0, 0].numpy()

    def planes() -> list[np.ndarray]:
        z = np.where(inside, pixels.astype(np.float64) - pixels.mean(), 0)
        return [inside.astype(np.float64), z, z * z]

    def summed_area() -> list[np.ndarray]:
        found = []
        for plane in planes():
            s = np.zeros((side + 1, side + 1))
            np.cumsum(np.cumsum(plane, 0), 1, out=s[1:, 1:])
            found.append(s[64::32, 64::32] - s[:-64:32, 64::32] - s[64::32, :-64:32] + s[:-64:32, :-64:32])
        return found

    def blocks() -> list[np.ndarray]:  # only where the stride divides the window
        n = side // 32
        sums = [plane.reshape(n, 32, n, 32).sum((1, 3)) for plane in planes()]
        return [b[:-1, :-1] + b[1:, :-1] + b[:-1, 1:] + b[1:, 1:] for b in sums]

    return {
        "work": f"window moments 64/32, one region, {side}",
        "pixels": side * side,
        "semnr": lambda: native.window_moments(x, roi, (64, 64), (32, 32)),
        "numpy summed area": summed_area,
        "numpy blocks": blocks,
    }


CASES = {f"moments-{side}": (moments, side) for side in (1024, 4096)}


@pytest.mark.parametrize("case", CASES)
def test_cnr(case: str, benchmark) -> None:  # type: ignore[no-untyped-def]
    make, *arguments = CASES[case]
    calls = make(*arguments)
    work, _ = calls.pop("work"), calls.pop("pixels")
    peers = {name: median(times) for name, times in alternate(calls, seconds=1.0).items()}
    benchmark.extra_info |= {"work": work, "alternating_medians": peers, "threads": torch.get_num_threads()}
    benchmark(calls["semnr"])


if __name__ == "__main__":
    from table import write

    write("cnr", CASES)
