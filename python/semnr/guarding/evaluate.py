"""From rules and profiles to signals: paired differences per tile, their means and standard errors over tiles."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..profiles import Profile
from ..runs.identity import same_pixels
from ..runs.verdict import CLEAR, FIRED, NOT_COMPARABLE, NOT_EVALUATED, UNKNOWN, Signal
from .calibration import Term
from .rules import AnyRule, Bound, Comparison, Condition, Range, Rule, Transfer

_PLACE = ("die_x", "die_y", "x_um", "y_um", "wafer_x_um", "wafer_y_um")
_MAX_REGIONS = 2000
_SHOWN_WITHOUT_A_FIRING_TILE = 5
_REASONS = 3  # why tiles were not scored: the commonest


@dataclass(frozen=True)
class Inputs:
    """Per tile, what the transfer rules read; NaN where nothing is known."""

    transfer: np.ndarray
    se: np.ndarray
    gain: np.ndarray  # above 0 where PSNR improved over the noisy input
    energy: np.ndarray | None = None  # noise-corrected band energy of the candidate
    reason: str = ""


@dataclass(frozen=True)
class Finding:
    """A signal and the line that it adds to the path."""

    signal: Signal
    line: str


def finding(
    rule: AnyRule,
    status: str,
    evidence: Mapping[str, Any],
    route: str,
    regions: tuple[Mapping[str, Any], ...] = (),
) -> Finding:
    advice = rule.advice if status == FIRED else ""
    if status not in (FIRED, CLEAR):
        advice = str(evidence.get("reason", ""))
    signal = Signal(
        rule.name, status, rule.severity, rule.metrics, evidence, regions, advice, rule.required, rule.gate,
        question=rule.question, limits=rule.limits,
    )  # fmt: skip
    return Finding(signal, f"{rule.name}: {route} -> {status.replace('_', ' ')}")


def without_evidence(rule: AnyRule, status: str, reason: str, **evidence: Any) -> Finding:
    return finding(rule, status, {"reason": reason, **evidence}, reason)


def compare(rule: Comparison, before: Profile | None, after: Profile, inputs: Inputs) -> Finding:
    """A rule between two candidates, rows aligned."""
    if before is None:
        return without_evidence(rule, UNKNOWN, "no baseline to compare with")
    if "noisy" in (before.kind, after.kind):
        which = "before" if before.kind == "noisy" else "after"
        return without_evidence(
            rule, NOT_COMPARABLE, f"{which} is the noisy input: this rule holds between two denoised candidates only"
        )
    if "dists" in rule.metrics and False in (before.calibrated, after.calibrated):
        return without_evidence(rule, NOT_EVALUATED, "DISTS is uncalibrated (random weights)", **_stand_in(inputs))
    changes, seen, per_tile = compared_tiles(rule, before, after)
    scored = _scored(before) & _scored(after)
    n, total = int(seen.sum()), int(scored.sum())
    if n == 0:
        lacking = [c.metric for c, d in zip(rule.conditions, changes, strict=True) if np.isnan(d).all()]
        names = ", ".join(dict.fromkeys(lacking)) or ", ".join(rule.metrics)
        return without_evidence(rule, UNKNOWN, f"no tile has {names} before and after")

    evidence: dict[str, Any] = {}
    steps, all_hold = [], n > 1
    open_route = True
    for condition, change in zip(rule.conditions, changes, strict=True):
        mean, se, infinite = _mean(change[seen])
        key = f"{condition.metric}_{'relative_' if condition.relative else ''}change"
        evidence[key] = mean
        evidence[f"{key}_se"] = se
        if infinite:
            evidence[f"{condition.metric}_infinite_tiles"] = infinite
        holds = _mean_holds(condition, mean, se, rule.z)
        all_hold &= holds
        if open_route:  # the route ends at the first "no"
            steps.append(f"{condition}? {'yes' if holds else 'no'}, {_value(mean, se, '+')}")
        open_route &= holds
    share = float(per_tile.sum()) / n
    evidence |= {"tiles_compared": n, "tiles_fired": int(per_tile.sum()), "share_fired": share}
    fired = bool(all_hold) or share > rule.share
    steps.append(f"{int(per_tile.sum())} of {n} tiles meet all of it")
    status = FIRED if fired else CLEAR
    if not fired and n < rule.min_coverage * total:
        status = UNKNOWN
        evidence["reason"] = f"only {n} of {total} tiles have the evidence, {rule.min_coverage:.0%} are required"
    excess = np.abs(changes[-1])
    keys = {f"{c.metric}_change": d for c, d in zip(rule.conditions, changes, strict=True)}
    if rule.conditions[-1].change != "stable":
        excess = changes[-1] * (1 if rule.conditions[-1].change == "up" else -1)
    regions = regions_of(after, per_tile, seen, excess, keys) if fired else ()
    return finding(rule, status, evidence, "; ".join(steps), regions)


def transfer(rule: Transfer, after: Profile, inputs: Inputs) -> Finding:
    """Evidence transfer of one candidate."""
    t, se = inputs.transfer, inputs.se
    known, meets, low = transfer_tiles(rule, inputs)
    n, total = int(known.sum()), int(_scored(after).sum())
    if n == 0:
        return without_evidence(rule, UNKNOWN, inputs.reason or "no tile has transfer and the PSNR of the noisy input")
    per_tile = low & meets
    share = float(per_tile.sum()) / n
    relevant = known & meets
    mean, mean_se, _ = _mean(t[relevant]) if relevant.any() else (math.nan, math.nan, 0)
    all_low = int(relevant.sum()) > 1 and relevant.sum() > rule.share * n and mean + rule.z * mean_se < rule.below
    fired = bool(all_low) or share > rule.share
    status = FIRED if fired else CLEAR
    overall, overall_se, _ = _mean(t[known])
    evidence: dict[str, Any] = {"transfer": overall, "transfer_se": overall_se}
    evidence |= {"lowest_transfer": float(t[known].min()), "tiles_judged": n, "tiles_fired": int(per_tile.sum())}
    evidence |= {"share_fired": share}
    if not fired and n < rule.min_coverage * total:
        status = UNKNOWN
        evidence["reason"] = f"only {n} of {total} tiles have the evidence, {rule.min_coverage:.0%} are required"
    steps = []
    if rule.psnr != "any":
        steps.append(f"PSNR over the noisy input {rule.psnr}? on {int(relevant.sum())} of {n} tiles")
    steps.append(
        f"T + {rule.z:g} SE below {rule.below:g}? on {int(per_tile.sum())} of {int(relevant.sum())}"
        + (f" (mean T {_value(mean, mean_se)})" if relevant.any() else "")
    )
    regions = regions_of(after, per_tile, relevant, -t, {"transfer": t, "transfer_se": se}) if fired else ()
    return finding(rule, status, evidence, "; ".join(steps), regions)


def ranged(rule: Range, after: Profile) -> Finding:
    """Columns of one candidate that must stay within bounds."""
    known, per_tile, excess = ranged_tiles(rule, after)
    n, total = int(known.sum()), int(_scored(after).sum())
    names = ", ".join(rule.metrics)
    if n == 0:
        return without_evidence(rule, UNKNOWN, f"no tile has {names}")
    fired = float(per_tile.sum()) / n > rule.share
    evidence: dict[str, Any] = {}
    steps = []
    columns: dict[str, np.ndarray] = {}
    for bound in rule.bounds:
        values, errors = columns_of(bound, after)
        columns |= {bound.column: values} | ({f"{bound.column}_se": errors} if errors.any() else {})
        seen = np.isfinite(values) & known & applies(bound, after)
        if not seen.any():
            continue
        mean, se, _ = _mean(values[seen])
        evidence |= {bound.column: mean, f"{bound.column}_se": se}
        evidence[f"{bound.column}_furthest"] = _furthest(values[seen], bound)
        if seen.sum() > max(1.0, rule.share * n):  # tiles that are each unsure can be sure together
            fired |= mean - rule.z * se > bound.above or mean + rule.z * se < bound.below
        with np.errstate(invalid="ignore"):
            fired |= bool((values - rule.z * errors > bound.certain)[seen].any())
        inside = int((_beyond(bound, values, errors, rule.z) & known & applies(bound, after)).sum())
        steps.append(f"{bound}? on {inside} of {int(seen.sum())} tiles (mean {_value(mean, se)})")
    evidence |= {"tiles_judged": n, "tiles_fired": int(per_tile.sum()), "share_fired": float(per_tile.sum()) / n}
    status = FIRED if fired else CLEAR
    if not fired and n < rule.min_coverage * total:
        status = UNKNOWN
        evidence["reason"] = f"only {n} of {total} tiles have the evidence, {rule.min_coverage:.0%} are required"
    regions = regions_of(after, per_tile, known, excess, columns, rule.metrics) if fired else ()
    return finding(rule, status, evidence, "; ".join(steps), regions)


def compared_tiles(
    rule: Comparison, before: Profile, after: Profile
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Changes of each condition, tiles that have all of them, tiles on which all conditions hold."""
    changes = [_change(c, before, after) for c in rule.conditions]
    seen = ~np.isnan(np.stack(changes)).any(axis=0)
    holds = np.stack([_holds(c, d) for c, d in zip(rule.conditions, changes, strict=True)]).all(axis=0)
    return changes, seen, holds & seen


def transfer_tiles(rule: Transfer, inputs: Inputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles that have the evidence, tiles whose PSNR went as the rule asks, tiles with lost structure."""
    known = np.isfinite(inputs.transfer) & np.isfinite(inputs.se)
    meets = np.ones(len(known), dtype=bool)
    if rule.psnr != "any":
        known &= ~np.isnan(inputs.gain)
        meets = inputs.gain > 0 if rule.psnr == "improves" else inputs.gain <= 0
    return known, meets, (inputs.transfer + rule.z * inputs.se < rule.below) & known


def ranged_tiles(rule: Range, after: Profile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tiles with any of the columns, tiles beyond a bound by z standard errors, and how far beyond."""
    known, fired = np.zeros(len(after), dtype=bool), np.zeros(len(after), dtype=bool)
    excess = np.full(len(after), -np.inf)
    for bound in rule.bounds:
        values, errors = columns_of(bound, after)
        known |= ~np.isnan(values)
        fired |= _beyond(bound, values, errors, rule.z) & applies(bound, after)
        above = min(bound.above, bound.certain)
        scale = max(abs(v) for v in (bound.below, above) if math.isfinite(v)) or 1.0
        over = np.fmax(values - above, bound.below - values) / scale
        excess = np.fmax(excess, over)
    return known, fired, excess


def columns_of(bound: Bound | Term, profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    """The column's values and their standard errors, 0 where the column has none."""
    return profile.column(bound.column), np.nan_to_num(profile.column(f"{bound.column}_se"), nan=0.0)


def applies(bound: Bound, profile: Profile) -> np.ndarray:
    """Tiles on which the bound's other column exceeds what it must; without one, all of them."""
    if not bound.where:
        return np.ones(len(profile), dtype=bool)
    with np.errstate(invalid="ignore"):
        return profile.column(bound.where) > bound.exceeds


def _beyond(bound: Bound, values: np.ndarray, errors: np.ndarray, z: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (values - z * errors > min(bound.above, bound.certain)) | (values + z * errors < bound.below)


def _furthest(values: np.ndarray, bound: Bound) -> float:
    """The value on the bound's side that strays most; between two bounds, from their middle."""
    if math.isinf(bound.below):
        return float(values.max())
    if math.isinf(bound.above):
        return float(values.min())
    return float(values[np.abs(values - (bound.below + bound.above) / 2).argmax()])


def tiles_scored(before: Profile | None, after: Profile) -> Finding | None:
    """Where tiles could not be scored, or a run was cut off, the gate has no evidence: a signal of its own."""
    profiles = {name: p for name, p in (("before", before), ("after", after)) if p is not None}
    cut = [f"{name} is {p.unfinished}" for name, p in profiles.items() if p.unfinished]
    missing = ~np.logical_and.reduce([_scored(p) for p in profiles.values()])
    count = int(missing.sum())
    if not count and not cut:
        return None
    said = f"{count} of {len(after)} tiles were not scored" + _why(profiles.values())
    reason = "; ".join([*([said] if count else []), *cut])
    evidence = {"tiles": len(after), "tiles_not_scored": count}
    return _on_the_run("tiles_scored", "completeness", after, missing, reason, evidence)


def _why(profiles: Iterable[Profile]) -> str:
    """The commonest reasons, each with how many tiles it holds for."""
    reasons = Counter(
        f"{status}, {reason}" if reason else status
        for profile in profiles
        for status, reason in zip(profile.status, profile.texts.get("reason") or (None,) * len(profile), strict=True)
        if status != "ok"
    )
    said = [f"{text} ({count} tiles)" if count > 1 else text for text, count in reasons.most_common(_REASONS)]
    return f": {'; '.join(said)}{'; ...' if len(reasons) > _REASONS else ''}" if said else ""


def identical_tiles(before: Profile | None, after: Profile) -> Finding | None:
    """Tiles whose reference is the candidate itself, or the noisy input: they prove nothing, and say so."""
    said = {"candidate": "the candidate", "noisy": "the noisy input"}
    where, reasons = np.zeros(len(after), dtype=bool), []
    profiles = {name: p for name, p in (("before", before), ("after", after)) if p is not None}
    for name, profile in profiles.items():
        for image, alike in same_pixels(profile.column).items():
            tiles = alike & _scored(profile)
            if count := int(tiles.sum()):
                reasons.append(f"{said[image]} of {name} is the reference itself on {count} of {len(after)} tiles")
                where |= tiles
    untouched = (after.column("residual_variance") == 0) & (after.column("denoised_std") > 0) & _scored(after)
    if count := int((untouched & ~where).sum()):
        reasons.append(f"the candidate is the noisy input itself on {count} of {len(after)} tiles: nothing was removed")
        where |= untouched
    copies = _copies(after)
    if copies.any():
        names = ", ".join(after.tiles[i] for i in np.flatnonzero(copies)[:_REASONS])
        reasons.append(
            f"the candidate is one and the same image on {int(copies.sum())} of {len(after)} tiles of different noisy "
            f"images ({names}, ...)"
        )
        where |= copies
    if not reasons:
        return None
    evidence = {"tiles": len(after), "tiles_identical": int(where.sum())}
    return _on_the_run("identical_tiles", "identity", after, where, "; ".join(reasons), evidence)


def _copies(profile: Profile) -> np.ndarray:
    """Tiles whose denoised image is that of another tile to the last bit, though their noisy images differ."""
    mean, spread, noisy = (profile.column(name) for name in ("denoised_mean", "denoised_std", "noisy_mean"))
    tiles: dict[tuple[float, float], list[int]] = {}
    for i in np.flatnonzero(np.isfinite(mean) & (spread > 0)):
        tiles.setdefault((float(mean[i]), float(spread[i])), []).append(int(i))
    copied = np.zeros(len(profile), dtype=bool)
    for same in tiles.values():
        if len({float(noisy[i]) for i in same}) > 1:
            copied[same] = True
    return copied


def _on_the_run(
    name: str, kind: str, after: Profile, where: np.ndarray, reason: str, evidence: Mapping[str, Any]
) -> Finding:
    """A signal that no rule asks for: the gate has no evidence, whatever the rules say."""
    rule = Rule(name, kind, "high")
    regions = tuple({"tile": after.tiles[i], **_place(after, i)} for i in np.flatnonzero(where)[:_MAX_REGIONS])
    signal = Signal(rule.name, UNKNOWN, rule.severity, (), {"reason": reason, **evidence}, regions, reason)
    return Finding(signal, f"{rule.name}: {reason} -> unknown")


def _scored(profile: Profile) -> np.ndarray:
    return np.array([s == "ok" for s in profile.status], dtype=bool)


def _change(condition: Condition, before: Profile, after: Profile) -> np.ndarray:
    """after − before per tile. Infinite in both is no change; NaN where either is not known."""
    a, b = before.column(condition.metric), after.column(condition.metric)
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.where(a == b, 0.0, b - a)
        if condition.relative:
            change = np.where((a == b) | np.isinf(a), change, change / np.abs(a))
    return change


def _holds(condition: Condition, change: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        if condition.change == "stable":
            return np.abs(change) <= condition.by
        return (change if condition.change == "up" else -change) > condition.by


def _mean(values: np.ndarray) -> tuple[float, float, int]:
    """Mean and its standard error over the finite values, and how many are infinite; all infinite: their sign."""
    finite = values[np.isfinite(values)]
    infinite = int(np.isinf(values).sum())
    if not finite.size:
        signs = np.unique(values)
        return (float(signs[0]) if len(signs) == 1 else math.nan), math.nan, infinite
    se = float(finite.std(ddof=1)) / math.sqrt(finite.size) if finite.size > 1 else math.nan
    return float(finite.mean()), se, infinite


def _mean_holds(condition: Condition, mean: float, se: float, z: float) -> bool:
    """Beyond the threshold, and more than z standard errors away from no change."""
    if condition.change == "stable":
        return abs(mean) <= condition.by
    along = mean if condition.change == "up" else -mean
    return along > condition.by and (math.isinf(along) or along > z * se)


def regions_of(
    after: Profile,
    per_tile: np.ndarray,
    seen: np.ndarray,
    excess: np.ndarray,
    columns: Mapping[str, np.ndarray],
    metrics: tuple[str, ...] = (),
) -> tuple[Mapping[str, Any], ...]:
    """The tiles that fire, worst first; where only the mean does, the few that weigh most."""
    chosen = np.flatnonzero(per_tile)
    limit = _MAX_REGIONS
    if not chosen.size:
        chosen, limit = np.flatnonzero(seen), _SHOWN_WITHOUT_A_FIRING_TILE
    order = chosen[np.argsort(-excess[chosen], kind="stable")][:limit]
    return tuple(
        {
            "tile": after.tiles[i],
            **_place(after, i),
            **{k: float(v[i]) for k, v in columns.items()},
            **_boxes(after, i, metrics),
        }
        for i in order
    )


def _boxes(profile: Profile, i: int, metrics: tuple[str, ...]) -> dict[str, Any]:
    """Where in the tile: the run's boxes of the kinds that the rule reads ("removed" for removed_z)."""
    text = (profile.texts.get("evidence_boxes") or (None,) * len(profile))[i]
    kinds = {m.split("_")[0] for m in metrics}
    boxes = [box for box in json.loads(text) if box.get("kind") in kinds] if text else []
    return {"boxes": boxes} if boxes else {}


def _place(profile: Profile, i: int) -> dict[str, float]:
    place = {k: float(profile.columns[k][i]) for k in _PLACE if k in profile.columns}
    return {k: v for k, v in place.items() if not math.isnan(v)}


def _stand_in(inputs: Inputs) -> dict[str, Any]:
    """The band energy that stands in for DISTS: shown and labelled, it decides nothing."""
    if inputs.energy is None or not np.isfinite(inputs.energy).any():
        return {}
    mean, se, _ = _mean(inputs.energy[np.isfinite(inputs.energy)])
    return {
        "stand_in": "noise-corrected band energy, 1 as in the scene, below 1 washed out",
        "band_energy": mean,
        "band_energy_se": se,
    }


def _value(mean: float, se: float, sign: str = "") -> str:
    return f"{mean:{sign}.4g}" + (f" ± {se:.2g}" if math.isfinite(se) else "")
