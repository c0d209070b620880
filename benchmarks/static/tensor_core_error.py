"""The error of SSIM on tensor cores, as designed in semnr_kernels/ssim/README.md and not built: emulated in NumPy.

`python benchmarks/static/tensor_core_error.py` prints the error against float64 by image. Rounding is what the design
would meet at worst: products are exact, and each matrix instruction cuts its float32 sum towards zero.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

Array = np.ndarray
Filter = Callable[[Array, Array], Array]
TILE = 32  # windows that share a shift
DEEP = {"fp16": 16, "tf32": 8}  # products that one instruction adds


def taps(size: int = 11, sigma: float = 1.5) -> Array:
    weights = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def half(values: Array) -> Array:
    return values.astype(np.float16).astype(np.float64)


def tf32(values: Array) -> Array:
    """To 10 bits behind the point, to nearest even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0xFFF + ((bits >> 13) & 1)) & ~np.uint64(0x1FFF)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def cut(values: Array) -> Array:
    """To float32, towards zero."""
    near = values.astype(np.float32)
    over = np.abs(near.astype(np.float64)) > np.abs(values)
    return np.where(over, np.nextafter(near, np.float32(0)), near).astype(np.float64)


def accumulated(total: Array, values: Array, weights: Array, deep: int) -> Array:
    """`total` and the products along the last axis, a matrix instruction after another."""
    count = total.shape[-1]
    for first in range(0, len(weights), deep):
        some = range(first, min(first + deep, len(weights)))
        total = cut(total + sum(weights[k] * values[..., k : k + count] for k in some))
    return total


def rows_in_halves(values: Array, weights: Array) -> Array:
    """The first pass: integers below 2¹⁶ as two numbers of 8 bits, which fp16 holds, times taps as two of 11 bits."""
    high = np.floor(values / 256)
    coarse = half(weights)
    fine = half((weights - coarse) * 2**11) / 2**11
    zero = np.zeros((*values.shape[:-1], values.shape[-1] - len(weights) + 1))
    total = zero
    for part, scale in ((values - 256 * high, 1.0), (high, 256.0)):
        if not (half(part) == part).all():
            raise ArithmeticError("a part is no number of fp16")
        found = zero
        for some in (fine, coarse):
            found = accumulated(found, part, some, DEEP["fp16"])
        total = cut(total + scale * found)
    return total


def columns_in_tf32(values: Array, weights: Array) -> Array:
    """The second pass: float32 as the sum of two tf32 (22 bits), three of the four products."""
    values = np.swapaxes(values, -1, -2)
    coarse, coarse_taps = tf32(values), tf32(weights)
    fine, fine_taps = tf32(values - coarse), tf32(weights - coarse_taps)
    total = np.zeros((*values.shape[:-1], values.shape[-1] - len(weights) + 1))
    for some, by in ((fine, coarse_taps), (coarse, fine_taps), (coarse, coarse_taps)):
        total = accumulated(total, some, by, DEEP["tf32"])
    return np.swapaxes(total, -1, -2)


def on_tensor_cores(values: Array, weights: Array) -> Array:
    return columns_in_tf32(rows_in_halves(values, weights), weights)


def exact(values: Array, weights: Array) -> Array:
    for _ in range(2):
        count = values.shape[-1] - len(weights) + 1
        values = np.swapaxes(sum(w * values[..., k : k + count] for k, w in enumerate(weights)), -1, -2)
    return values


def windows(x: Array, y: Array, filtered: Filter, shift: float, scale: float = 255.0) -> Array:
    """SSIM of each window, from moments about `shift`; all but the filters is float64."""
    weights, c1, c2 = taps(), (0.01 * scale) ** 2, (0.03 * scale) ** 2
    a, b = x.astype(np.float64) - shift, y.astype(np.float64) - shift
    mean_a, mean_b, aa, bb, ab = (filtered(v, weights) for v in (a, b, a * a, b * b, a * b))
    mean_x, mean_y = mean_a + shift, mean_b + shift
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * (ab - mean_a * mean_b) + c2) / (aa - mean_a**2 + bb - mean_b**2 + c2)


def errors(x: Array, y: Array, shift: float | None = None) -> tuple[float, float]:
    """Of the mean and of the map. shift: of all pixels; None: the mean of each tile, to the nearest integer."""
    found = []
    height, width = x.shape[0] - 10, x.shape[1] - 10
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            some = (slice(top, min(top + TILE, height) + 10), slice(left, min(left + TILE, width) + 10))
            at = float(np.rint((x[some].mean() + y[some].mean()) / 2)) if shift is None else shift
            got = windows(x[some], y[some], on_tensor_cores, at)
            found.append((got - windows(x[some], y[some], exact, 0.0)).ravel())
    apart = np.concatenate(found)
    return abs(float(apart.mean())), float(np.abs(apart).max())


def images(side: int = 128) -> dict[str, tuple[Array, Array]]:
    """Pairs of uint8: those of the project's bounds on accuracy."""
    rng = np.random.default_rng(0)
    lines = np.repeat(np.where((np.arange(side) // 8) % 2, 200.0, 60.0)[None], side, 0)
    ramp = np.add.outer(np.arange(side), np.arange(side)).astype(np.float64)

    def u8(values: Array) -> Array:
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)

    return {
        "random": (rng.integers(0, 256, (side, side)), rng.integers(0, 256, (side, side))),
        "lines with noise": (u8(lines + rng.normal(0, 10, lines.shape)), u8(lines)),
        "two-level lines": (u8(np.roll(lines, 1, 1)), u8(lines)),
        "flat, white": (255 - rng.integers(0, 2, (side, side)), np.full((side, side), 254)),
        "flat, black": (rng.integers(0, 2, (side, side)), np.zeros((side, side))),
        "ramp": (u8(ramp + rng.normal(0, 3, ramp.shape)), u8(ramp)),
    }


def main() -> int:
    print(f"{'error against float64':20s}  mean     map      (one shift of 128: mean, map)")
    for name, pair in images().items():
        figures = (*errors(*pair), *errors(*pair, shift=128.0))
        print(f"{name:20s}" + "".join(f"{value:9.1e}" for value in figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
