"""The five axes of a profile, their ranges, and the area of the radar that they span."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..base.plots import pyplot

# The article's order. (value at 0, value at 1): a starting point that puts SEM tiles inside, in physical terms.
#   psnr   15 dB: an RMS error of 18 % of the range; 45 dB: 0.56 %, about one and a half grey levels of 8 bit
#   ssim   0: no common structure; 1: identical
#   fsim   0.5: about what unrelated textures reach; 1: identical
#   dists  a distance: 0 is identical, 0.5 is beyond any denoiser that one would look at twice
#   cnr    0: nothing stands out; 10: twice Rose's limit of 5 for certain detection
RANGES: Mapping[str, tuple[float, float]] = {
    "psnr": (15.0, 45.0),
    "ssim": (0.0, 1.0),
    "fsim": (0.5, 1.0),
    "dists": (0.5, 0.0),
    "cnr": (0.0, 10.0),
}
ORDER = tuple(RANGES)


def checked_ranges(ranges: Mapping[str, tuple[float, float]] | None) -> dict[str, tuple[float, float]]:
    """`RANGES` with those of the caller in their place."""
    merged = dict(RANGES)
    for name, value in (ranges or {}).items():
        if name not in RANGES:
            raise ValueError(f"ranges has {name!r}; accepted: {', '.join(map(repr, ORDER))}")
        try:
            low, high = (float(v) for v in value)
        except (TypeError, ValueError):
            raise ValueError(f"ranges[{name!r}] is {value!r}; accepted: (value at 0, value at 1)") from None
        if not (math.isfinite(low) and math.isfinite(high)) or low == high:
            raise ValueError(f"ranges[{name!r}] is ({low:g}, {high:g}); accepted: two different finite numbers")
        merged[name] = (low, high)
    return merged


def on_axis(value: Any, ends: tuple[float, float]) -> Any:
    """`value` mapped to [0, 1], clipped; infinities land on an end, NaN stays."""
    low, high = ends
    return np.clip((np.asarray(value, dtype=np.float64) - low) / (high - low), 0.0, 1.0)


def area(values: Any) -> Any:
    """Area of the radar polygon over that of the full one: the mean product of neighbours, along the last axis.

    It depends on the order of the axes, which is why the mean of the axes stands beside it.
    """
    v = np.asarray(values, dtype=np.float64)
    return (v * np.roll(v, 1, axis=-1)).mean(axis=-1)


def plot(profiles: Mapping[str, Mapping[str, float]], ax: Any = None) -> Any:
    """Radar of one or more profiles on a polar matplotlib axes, which is returned."""
    plt = pyplot("Profile.plot")
    if ax is None:
        ax = plt.figure(figsize=(5, 5)).add_subplot(projection="polar")
    angles = np.arange(len(ORDER)) * 2 * math.pi / len(ORDER)
    for label, axes in profiles.items():
        values = np.array([axes.get(name, math.nan) for name in ORDER])
        (line,) = ax.plot(np.append(angles, angles[0]), np.append(values, values[0]), marker="o", label=label)
        if np.isfinite(values).all():
            ax.fill(angles, values, color=line.get_color(), alpha=0.15)
    ax.set_theta_offset(math.pi / 2)
    ax.set_theta_direction(-1)
    ax.set_xticks(angles, [name.upper() for name in ORDER])
    ax.set_ylim(0, 1)
    if any(profiles):
        ax.legend(loc="lower right")
    return ax
