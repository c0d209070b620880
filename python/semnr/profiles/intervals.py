"""Intervals of a profile's axes, and its tiles by die, wafer and lot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import radar
from . import statistics as statistics

if TYPE_CHECKING:
    from .rows import Profile

_LEVELS: Mapping[str, tuple[str, ...]] = {
    "tile": (),
    "die": ("lot_id", "wafer_id", "die_x", "die_y"),
    "wafer": ("lot_id", "wafer_id"),
    "lot": ("lot_id",),
}


def intervals(
    profile: Profile, confidence: float, seed: int, resamples: int, ranges: Mapping[str, tuple[float, float]] | None
) -> dict[str, Any]:
    """See `Profile.intervals`."""
    checked = radar.checked_ranges(ranges)
    names = ["mse", *(profile.cnr_axis if k == "cnr" else k for k in checked if k != "psnr")]
    group = profile.clusters()
    have_mse = np.isfinite(profile.mse).any()
    rows = np.stack([profile.column("psnr" if n == "mse" and not have_mse else n) for n in names], axis=1)

    def of(means: np.ndarray) -> np.ndarray:
        values = means.copy()
        if have_mse:
            with np.errstate(divide="ignore"):
                values[:, 0] = 10 * np.log10(profile.data_range**2 / means[:, 0])
        on = np.stack([radar.on_axis(values[:, k], e) for k, e in enumerate(checked.values())], axis=1)
        return np.concatenate([on, np.asarray(radar.area(on))[:, None], on.mean(axis=1)[:, None]], axis=1)

    low, high = statistics.ends(statistics.bootstrap(rows, group, of, seed=seed, resamples=resamples), confidence)
    values = profile.axes(ranges)
    centre = [*(values.get(k, math.nan) for k in checked), math.nan, math.nan]
    if len(values) == len(checked):
        centre[-2:] = [float(radar.area(list(values.values()))), float(np.mean(list(values.values())))]
    triples = [(float(c), float(a), float(b)) for c, a, b in zip(centre, low, high, strict=True)]
    return {
        "axes": dict(zip(checked, triples, strict=False)),
        "area": triples[-2],
        "mean_axis": triples[-1],
        "tiles": len(profile),
        "clusters": len(np.unique(group)),
        "confidence": confidence,
    }


def grouped(profile: Profile, level: str) -> dict[str, list[int]]:
    """Rows of each die, wafer, lot or tile, by name."""
    if level not in _LEVELS:
        raise ValueError(f"level is {level!r}; accepted: {', '.join(map(repr, _LEVELS))}")
    keys = [profile.key(name) for name in _LEVELS[level]]
    groups: dict[str, list[int]] = {}
    for i, tile in enumerate(profile.tiles):
        groups.setdefault("/".join(filter(None, (k[i] for k in keys))) if keys else tile, []).append(i)
    return groups
