"""Windows in float32: taps and weight are chosen together, so that rounding them does not bias the variance.

A kernel's variance is E[v²] − E[v]² with E[·] = weight · Σ Σ tap tap ·. Where the weights do not add up to 1 but to
1 + e, −e times the squared mean leaks into it: e = 8e-8, which rounding each tap by itself leaves, moves the SSIM of
two-level lines by 4e-7. Here each tap takes over what the ones before it were rounded by, coarse steps first.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np


@functools.cache
def normalised(taps: tuple[float, ...]) -> tuple[float, ...]:
    """The symmetric 1-D window as float32 numbers whose sum is 1."""
    return _mirrored(_rounded(taps[: len(taps) // 2 + 1], Fraction(1), len(taps)), len(taps))


@functools.cache
def over_first(taps: tuple[float, ...]) -> tuple[tuple[float, ...], float]:
    """The window over its first tap, as float32 numbers, and the float32 weight that makes it whole: (Σ tap)² · weight
    is 1 to 1e-8. The first tap is exactly 1.
    """
    ratios = [t / taps[0] for t in taps[: len(taps) // 2 + 1]]
    nearest = np.float32(taps[0] * taps[0])
    candidates = []
    for step in (0, -1, 1, -2, 2):  # the weight's neighbours: steps of the taps are finer on one side of 1
        weight = float(nearest + np.float32(step) * np.spacing(nearest))
        chosen = _mirrored(_rounded(ratios, Fraction(1 / math.sqrt(weight)), len(taps), fixed=1), len(taps))
        candidates.append((chosen, weight))
    return min(candidates, key=lambda f: abs(excess(*f)))


def excess(taps: Sequence[float], weight: float = 1.0) -> float:
    """(Σ taps)² · weight − 1 of these very numbers."""
    return float(sum(map(Fraction, taps)) ** 2 * Fraction(weight) - 1)


def _rounded(half: Sequence[float], total: Fraction, size: int, fixed: int = 0) -> list[float]:
    """Half a window in float32, the centre last, that adds up to `total`; the first `fixed` taps stay as they are."""
    out, times = list(half), [2] * (len(half) - 1) + [1]
    rest = total - sum(n * Fraction(t) for n, t in zip(times, half, strict=True))
    for k in sorted(range(fixed, len(half)), key=lambda k: -times[k] * np.spacing(np.float32(half[k]))):
        out[k] = float(np.float32(float(Fraction(half[k]) + rest / times[k])))
        rest += times[k] * (Fraction(half[k]) - Fraction(out[k]))
    return out


def _mirrored(half: Sequence[float], size: int) -> tuple[float, ...]:
    return tuple(half[min(k, size - 1 - k)] for k in range(size))
