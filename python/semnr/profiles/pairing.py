"""Are two profiles of the same tiles, against the same reference, by the same measure?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .rows import FINGERPRINT, Profile

# Settings that change what a number means. `dists` is compared entry by entry, less how many tiles it ran on.
_SETTINGS = ("fsim_downsample", "ssim", "convention", "window", "crop", "masks")
_DISTS = ("weights_sha256", "calibrated", "resize")


def align(before: Profile, after: Profile) -> Profile:
    """`before` with its rows in the order of `after`.

    Raises
    ------
    ValueError
        The two were not scored on the same tiles, against the same reference, with the same settings: what differs.
    """
    differences = [*_tiles(before, after), *_measures(before, after)]
    if not differences:
        before = _reordered(before, after)
        differences = _references(before, after)
    if differences:
        raise ValueError(
            f"before and after differ in {'; '.join(differences)}; accepted: the same tiles, reference and settings"
        )
    return before


def _tiles(before: Profile, after: Profile) -> list[str]:
    ours, theirs = set(before.tiles), set(after.tiles)
    if ours == theirs:
        return []
    only = [(name, sorted(a - b)) for name, a, b in (("before", ours, theirs), ("after", theirs, ours)) if a - b]
    said = [f"{len(t)} only in {name} ({', '.join(t[:3])}{', ...' * (len(t) > 3)})" for name, t in only]
    return ["tiles: " + ", ".join(said)]


def _measures(before: Profile, after: Profile) -> list[str]:
    unequal = []
    if not _same(before.data_range, after.data_range):
        unequal.append(f"data_range: {before.data_range:g} and {after.data_range:g}")
    pairs: list[tuple[str, Any, Any]] = [(k, before.settings.get(k), after.settings.get(k)) for k in _SETTINGS]
    a, b = before.settings.get("dists") or {}, after.settings.get("dists") or {}
    if before.calibrated is not None and after.calibrated is not None:
        pairs += [(f"dists {k}", a.get(k), b.get(k)) for k in _DISTS if k in a and k in b]
    for name, one, other in pairs:
        if one is not None and other is not None and one != other:
            unequal.append(f"{name}: {_short(one, other)} and {_short(other, one)}")
    return unequal


def _references(before: Profile, after: Profile) -> list[str]:
    """By the reference's moments where both have them, else by its name where both give one."""
    moments = [(before.column(k), after.column(k)) for k in FINGERPRINT]
    both = [np.isfinite(a) & np.isfinite(b) for a, b in moments]
    if both[0].any():
        off = [~np.isclose(a, b, rtol=1e-6, atol=1e-9) & m for (a, b), m in zip(moments, both, strict=True)]
        wrong = np.logical_or(*off)
        return [f"reference: its mean or σ differs on {int(wrong.sum())} tiles"] if wrong.any() else []
    names = [p.settings.get("reference") for p in (before, after)]
    if None in names or _resolved(names[0]) == _resolved(names[1]):
        return []
    return [f"reference: {names[0]} and {names[1]}"]


def _reordered(profile: Profile, like: Profile) -> Profile:
    if profile.tiles == like.tiles:
        return profile
    at = {tile: i for i, tile in enumerate(profile.tiles)}
    order = np.array([at[tile] for tile in like.tiles], dtype=int)
    return dataclasses.replace(
        profile,
        tiles=like.tiles,
        columns={k: v[order] for k, v in profile.columns.items()},
        status=tuple(profile.status[i] for i in order),
        texts={k: tuple(v[i] for i in order) for k, v in profile.texts.items()},
    )


def _resolved(name: Any) -> Any:
    return name if "://" in str(name) else Path(str(name)).resolve()


def _same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9)


def _short(one: Any, other: Any) -> str:
    """Of two mappings, only the entries that differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return repr({k: v for k, v in one.items() if other.get(k) != v})
    return repr(one)
