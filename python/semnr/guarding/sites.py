"""Sites where a second frame could change the verdict, and a KLARF file of them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr

from ..base.outputs import holds, replaceable
from ..profiles import Profile
from ..runs.flagged import write_flagged
from ..runs.scored import as_profile
from ..wafers import Wafer, read_wafer
from . import evaluate
from .conformal import p_values
from .rules import DEFAULT_RULES, Conformal, Range, Rules, Transfer, as_rules

_MARKS = ("removed_z", "invented_z")  # strengths of a place in σ of the noise: they grow with the frames
_FALLBACK = 5.5  # the z from which a place is marked, in a run that has no mark to tell it
_ALPHA = 0.005  # how often noise alone is marked in a tile
_SPREAD = 5.0  # σ: strengths of structure, any of them alike
_LEAST = 0.02  # of a changed verdict, below which a site is not worth the dose


@dataclass(frozen=True)
class Site:
    """A tile that a second frame should be taken of.

    Attributes
    ----------
    tile : str
        Its id.
    why : str
        "low_p" (unlike harmless tiles), "uncertain_RULE" (near the limit of that rule, by its own error), or
        "no_evidence" (what the tile shows was not told).
    p : float
        Conformal p of the tile; NaN without a rule that has one.
    change : float
        Probability that the mean of two frames would change what a rule says of the tile.

    Examples
    --------
    >>> semnr.guarding.Site("t1", "low_p", 0.01, 0.2).why
    'low_p'
    """

    tile: str
    why: str
    p: float
    change: float


def rescan(scores: Any, rules: Any = DEFAULT_RULES, sites: int = 50) -> tuple[Site, ...]:
    """The sites of a run where a second frame could change the verdict, the most rewarding first.

    Three lists are taken in turn: tiles by their conformal p, lowest first (with a rule of kind "conformal": those at
    ten times its level or below); tiles by the probability that the mean of two frames changes what a rule says of
    them, largest first; tiles without evidence for a required rule, on which other tiles have it.

    Parameters
    ----------
    scores : Profile, Run or path
        Scores of the candidate.
    rules : mapping or path
        What `semnr.guard` takes.
    sites : int
        At most so many.

    Returns
    -------
    tuple of Site

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.

    Notes
    -----
    The probability is that of a normal error: with the tile's value v of standard error se, the mean of two frames has
    se/√2 and lies, as far as the one frame tells, around v with se/√2. The strongest place of a tile, z, is structure
    or the strongest of the noise, one as likely as the other before it was seen: noise reaches z somewhere in a tile
    with 0.005 exp((t² − z²)/2), where t is the weakest mark of the run; structure has any strength alike. A second
    frame takes back a mark that was noise, and marks structure whose √2 z it lifts over t.

    Examples
    --------
    >>> columns = {"gain_change": [0.0, 0.049, 0.2], "gain_change_se": [0.01] * 3}
    >>> near = semnr.guarding.rescan(semnr.Profile(("a", "b", "c"), columns, data_range=1.0))
    >>> [(site.tile, site.why, round(site.change, 2)) for site in near]
    [('b', 'uncertain_brightness_shift', 0.75)]
    """
    if isinstance(sites, bool) or not isinstance(sites, int) or sites < 1:
        raise ValueError(f"sites is {sites!r}; accepted: an integer of at least 1")
    profile, held = as_profile("scores", scores), as_rules(rules)
    n = len(profile)
    scored = np.array([status == "ok" for status in profile.status], dtype=bool)
    bounded = next((rule for rule in held.values() if isinstance(rule, Conformal)), None)
    p = np.full(n, np.nan) if bounded is None else p_values(profile, bounded).tile
    change, by = changes(held, profile)
    near = bounded is not None and 10 * bounded.level
    low = [i for i in np.argsort(p, kind="stable") if scored[i] and p[i] <= near]
    unsure = [i for i in np.argsort(-np.nan_to_num(change), kind="stable") if scored[i] and change[i] >= _LEAST]
    blind = np.flatnonzero(scored & _without_evidence(held, profile))
    named = (
        [(i, "low_p") for i in low], [(i, f"uncertain_{by[i]}") for i in unsure], [(i, "no_evidence") for i in blind]
    )  # fmt: skip
    chosen: dict[int, str] = {}
    for pair in chain.from_iterable(zip_longest(*named)):
        if pair is not None and len(chosen) < sites:
            chosen.setdefault(int(pair[0]), pair[1])
    return tuple(Site(profile.tiles[i], why, float(p[i]), float(change[i])) for i, why in chosen.items())


def write_sites(
    scores: Any, path: str | os.PathLike[str], rules: Any = DEFAULT_RULES, sites: int = 50, *,
    version: str = "1.2", wafer: Wafer | str | Path | None = None,
) -> tuple[tuple[Site, ...], int]:  # fmt: skip
    """Write the sites of `rescan` as KLARF, for the review tool that images them again.

    Parameters
    ----------
    scores : Profile of a run, Run or path
        Scores of the candidate, with the places of its tiles.
    path : path
        File to write. An earlier file of this kind is replaced, another one is not.
    rules, sites
        As for `rescan`.
    version : {"1.2", "1.8"}
        Version of KLARF.
    wafer : semnr.wafers.Wafer or path, optional
        Layout of the wafer, or its TOML file. Default: that of the run.

    Returns
    -------
    (tuple of Site, int)
        The sites, and how many of them have no coordinates and are left out.

    Raises
    ------
    ValueError
        No folder of a run is behind the scores, no layout is known, or another version.

    Examples
    --------
    >>> layout = semnr.wafers.Wafer(pitch_um=(8000, 6500))
    >>> run = semnr.score(noisy, reference=clean, out="run", metrics="psnr", tests=False)
    >>> semnr.guarding.write_sites(run, "again.klarf", wafer=layout)[1]
    0
    """
    profile = as_profile("scores", scores)
    if profile.run is None:
        raise ValueError("scores are no run on disk; accepted: a Run or its folder, which know where the tiles lie")
    place = replaceable("path", path, "a run's sites to image again", holds(b'"semnr"'))
    chosen = rescan(profile, rules, sites)
    info = profile.run.info
    given = read_wafer(wafer) if isinstance(wafer, str | Path) else wafer
    layout = given or (Wafer(**info["wafer"]) if info.get("wafer") else None)
    why = {site.tile: [site.why] for site in chosen}
    return chosen, write_flagged(profile.run.path, place, version, layout, info, why)


def changes(rules: Rules, profile: Profile) -> tuple[np.ndarray, list[str]]:
    """Of each tile the largest probability that a second frame changes what a rule says of it, and that rule."""
    largest, by = np.full(len(profile), np.nan), [""] * len(profile)
    for name, rule in rules.items():
        if isinstance(rule, Transfer):
            pairs = [(profile.transfer, profile.transfer_se, rule.below, -1.0)]
        elif isinstance(rule, Range):
            pairs = [
                (*evaluate.columns_of(bound, profile), end, side)
                for bound in rule.bounds
                for end, side in ((bound.below, -1.0), (min(bound.above, bound.certain), 1.0))
                if math.isfinite(end) and bound.column not in _MARKS
            ]
            pairs += [
                (profile.column(bound.column), None, _marked_from(profile, bound.column), 0.0)
                for bound in rule.bounds
                if bound.column in _MARKS
            ]
        else:
            continue
        for values, errors, end, side in pairs:
            p = _mark(values, end) if errors is None else _changed(values, errors, end, side, rule.z)
            better = p > np.nan_to_num(largest, nan=-1.0)
            largest[better] = p[better]
            by = [name if yes else old for yes, old in zip(better, by, strict=True)]
    return largest, by


def _changed(values: np.ndarray, errors: np.ndarray, end: float, side: float, z: float) -> np.ndarray:
    """That the mean of two frames lies on the other side of what fires; NaN without a standard error."""
    errors = np.where(errors > 0, errors, np.nan)
    half = errors / math.sqrt(2)
    fires = side * (values - end) > z * errors
    later = ndtr((side * (values - end) - z * half) / half)
    return np.where(np.isnan(later), np.nan, np.where(fires, 1 - later, later))


def _mark(z: np.ndarray, end: float) -> np.ndarray:
    """That a mark was noise, or that a place below the marks is structure which a second frame lifts over them."""
    with np.errstate(invalid="ignore", over="ignore"):
        noise = np.abs(z) * np.minimum(1.0, _ALPHA * np.exp((end**2 - z**2) / 2))
        structure = 1 / (1 + _SPREAD * noise)
        return np.where(z >= end, 1 - structure, structure * ndtr(math.sqrt(2) * z - end))


def _marked_from(profile: Profile, column: str) -> float:
    """The weakest mark of the run."""
    strengths = profile.column(column)[profile.column(column.replace("_z", "_count")) > 0]
    return float(np.nanmin(strengths)) if np.isfinite(strengths).any() else _FALLBACK


def _without_evidence(rules: Rules, profile: Profile) -> np.ndarray:
    """Tiles that lack what a required rule reads and other tiles have."""
    lacking = np.zeros(len(profile), dtype=bool)
    for rule in rules.values():
        if isinstance(rule, Range | Transfer) and rule.required:
            known = ~np.isnan(np.stack([profile.column(name) for name in rule.metrics])).all(axis=0)
            lacking |= ~known & known.any()
    return lacking
