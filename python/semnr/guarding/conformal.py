"""Rules with a bound on their false alarms: calibrated on harmless fields, and what they say of a run."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..columns import PREFIX
from ..profiles import Profile
from ..runs.scored import as_profile
from ..runs.verdict import CLEAR, FIRED, UNKNOWN
from . import evaluate
from .calibration import ALL, Stratum, Term, digest, discovered, needed
from .rules import DEFAULT_RULES, Conformal, Range, Rules, Transfer, as_rules

NAME = "conformal"
UNITS = {"die": ("lot_id", "wafer_id", "die_x", "die_y"), "wafer": ("lot_id", "wafer_id"), "lot": ("lot_id",)}
SCALE_SHARE = 0.15  # of the harmless fields: they set the scales of the scores and are not counted
_LEAST_TO_SCALE = 2  # fields of a stratum
_KNOWN = (
    0.95  # of the tiles that set the scales: rules with less evidence have a p of their own, and no part in the whole
)
_QUESTION = "More unlike harmless tiles than one harmless wafer in {}?"
_ADVICE = (
    "A field of this wafer is unlike any harmless one: the signal named at each tile says what differs. Look at these "
    "tiles, or image the sites again (--rescan)."
)
# A column says "nothing happened" at this value; others at 0.
NEUTRAL: Mapping[str, float] = dict.fromkeys(
    ("transfer", "transfer_bound", "transfer_high", "transfer_peak", "transfer_texture", "feature_contrast"), 1.0
)


@dataclass(frozen=True)
class PValues:
    """The conformal p-values of a run, and what they are of.

    Attributes
    ----------
    tile : ndarray, (N,)
        p of each tile: under a rule's `level` it is flagged. NaN where evidence is missing.
    rules : mapping of str to ndarray, (N,)
        The same of each rule's own score.
    score : ndarray, (N,)
        The combined score.
    leading : tuple of str, (N,)
        The rule whose score is the largest.
    stratum, field, wafer : tuple of str, (N,)
        The kind of field, "" where it is none that was calibrated; the field; the wafer.
    field_p : mapping of str to float
        p of each field, by its largest score.
    wafer_p : mapping of str to float
        p of each wafer, by its strongest field.
    found : frozenset of str
        Fields that are discoveries at the rule's false-discovery rate (Benjamini and Hochberg, wafer by wafer).
    short : mapping of str to str
        Of a wafer whose level cannot be held: how many calibration fields are needed.

    Examples
    --------
    >>> harmless = semnr.Profile(tuple(map(str, range(40))), {"removed_z": np.linspace(3, 5, 40)}, data_range=1.0)
    >>> rule = semnr.guarding.calibrate([harmless], level=0.05, wafer_level=0.05, unit="tile")
    >>> p = semnr.guarding.p_values(harmless.take([3, 30]), rule)
    >>> p.tile.round(2).tolist(), p.leading
    ([0.91, 0.26], ('erased_structure', 'erased_structure'))
    """

    tile: np.ndarray
    rules: Mapping[str, np.ndarray]
    score: np.ndarray
    leading: tuple[str, ...]
    stratum: tuple[str, ...]
    field: tuple[str, ...]
    wafer: tuple[str, ...]
    field_p: Mapping[str, float]
    wafer_p: Mapping[str, float]
    found: frozenset[str]
    short: Mapping[str, str]


def calibrate(
    harmless: Iterable[Any],
    *,
    rules: Any = DEFAULT_RULES,
    level: float = 0.01,
    wafer_level: float = 0.05,
    discovery: float = 0.1,
    unit: str = "die",
    strata: Sequence[str] = (),
    fields_per_wafer: int = 1,
    seed: int = 0,
    whole: Sequence[Any] | None = None,
) -> Conformal:
    """Learn a rule with a bound on its false alarms from runs that are known to be harmless.

    Parameters
    ----------
    harmless : iterable of Profile, Run or path
        Accepted lots, or harmless re-imagings. What they hold is taken for harmless.
    rules : mapping or path
        Whose columns count: the rules on one candidate. What it takes `semnr.guard` for, except their thresholds.
    level, wafer_level : float
        Bounds of false alarms: of a random tile of a harmless field, of a harmless wafer.
    discovery : float
        False-discovery rate of the fields that are listed.
    unit : str
        What is exchangeable: "die", "wafer", "lot", "tile" (each tile is a field of its own), or a column that names
        the field. Tiles of one unit are alike and count as one.
    strata : sequence of str
        Columns by which fields are told apart, each stratum with a calibration of its own: "pattern", "dose", or with
        edges of bins "psnr_noisy:18,22".
    fields_per_wafer : int
        How many fields a wafer to be judged has, all of one stratum; with units of "wafer" or "lot", 1. A wafer of more
        fields, or of several strata, which share the level, needs more: `guard` then says how many.
    seed : int
        Which fields set the scales of the scores: 15 % of each stratum.
    whole : sequence of bool arrays, optional
        Of each profile, the tiles that count for the largest score of a field, see `Stratum.of`.

    Returns
    -------
    Conformal

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted; too few fields of a stratum: how many are needed.

    Examples
    --------
    >>> harmless = semnr.Profile(tuple(map(str, range(40))), {"removed_z": np.linspace(3, 5, 40)}, data_range=1.0)
    >>> semnr.guarding.calibrate([harmless], level=0.05, wafer_level=0.05, unit="tile").sha256[:4]
    'bf68'
    >>> semnr.guarding.calibrate([harmless], level=0.01, unit="tile")
    Traceback (most recent call last):
    ...
    ValueError: harmless has 34 calibration fields of all (6 more set the scales); accepted for level 0.01: at least ...
    """
    profiles = [as_profile("harmless", one) for one in harmless]
    if not profiles:
        raise ValueError("harmless is empty; accepted: at least one run")
    if fields_per_wafer < 1:
        raise ValueError(f"fields_per_wafer is {fields_per_wafer!r}; accepted: an integer of at least 1")
    if any(unit not in (*UNITS, "tile") and not any(p.key(unit)) for p in profiles):
        raise ValueError(
            f"unit is {unit!r}, which is no column of a run; accepted: {_listed((*UNITS, 'tile'))}, a column"
        )
    fields = [f"{i}\t{name}" if name else "" for i, p in enumerate(profiles) for name in fields_of(p, unit)]
    if "" in fields:
        missing = ", ".join(UNITS.get(unit, (unit,))[-2:])
        raise ValueError(f"unit is {unit!r}, and tiles have no {missing}; accepted: 'tile' where each tile is a field")
    kinds = np.array([name for p in profiles for name in strata_of(p, strata)])
    if "" in kinds:
        raise ValueError(f"strata is {_listed(strata)}, and {int((kinds == '').sum())} tiles have no value; accepted: "
                         "columns that every tile has")  # fmt: skip
    names, codes = np.unique(fields, return_inverse=True)
    mixed = [names[c] for c in np.unique(codes) if len(set(kinds[codes == c])) > 1] if len(set(kinds)) > 1 else []
    if mixed:
        raise ValueError(f"strata is {_listed(strata)}, and unit {unit!r} has fields of several kinds "
                         f"({mixed[0].replace(chr(9), ' ').strip()}); accepted: a smaller unit")  # fmt: skip
    scaling = _to_scale(codes, kinds, seed)
    terms, combined = _terms(as_rules(rules), profiles, scaling, kinds)
    rows = [scores_of(terms, combined, p) for p in profiles]
    scores = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    counted = np.ones(len(codes), bool) if whole is None else np.concatenate([np.asarray(w, bool) for w in whole])
    calibration = {}
    for kind in dict.fromkeys(map(str, kinds)):
        held = (kinds == kind) & ~scaling
        tiles = {name: row[held] for name, row in scores.items()}
        calibration[kind] = Stratum.of(tiles, np.asarray(fields)[held].tolist(), counted[held])
    asked = {"level": (level, needed(level)), "wafer_level": (wafer_level, needed(wafer_level, fields_per_wafer))}
    for name, (value, need) in asked.items():
        for kind, kept in calibration.items():
            if len(kept.field) < need:
                aside = len(set(codes[(kinds == kind) & scaling]))
                parts = f" with {fields_per_wafer} fields a wafer" if name == "wafer_level" else ""
                raise ValueError(
                    f"harmless has {len(kept.field)} calibration fields of {kind} ({aside} more set the scales); "
                    f"accepted for {name} {value:g}{parts}: at least {need} ({_in_all(need)} in all), or a higher level"
                )
    return Conformal(
        NAME, "conformal", advice=_ADVICE, question=_QUESTION.format(f"{1 / wafer_level:.3g}"),
        level=float(level), wafer_level=float(wafer_level), discovery=float(discovery), unit=unit,
        strata=tuple(strata), combined=combined, terms=terms, calibration=calibration,
        sha256=digest(terms, calibration, unit, list(strata), list(combined)),
    )  # fmt: skip


def p_values(scores: Any, rule: Any) -> PValues:
    """The conformal p-values of a run.

    Parameters
    ----------
    scores : Profile, Run or path
        Scores of the candidate.
    rule : Conformal, rules or path
        The rule, or rules that have one.

    Returns
    -------
    PValues

    Raises
    ------
    ValueError
        The rules have none with a calibration.

    Examples
    --------
    >>> harmless = semnr.Profile(tuple(map(str, range(40))), {"removed_z": np.linspace(3, 5, 40)}, data_range=1.0)
    >>> rule = semnr.guarding.calibrate([harmless], level=0.05, wafer_level=0.05, unit="tile")
    >>> round(semnr.guarding.p_values(harmless.take([39]), rule).wafer_p[""], 3)
    0.057
    """
    if not isinstance(rule, Conformal):
        given = as_rules(rule)
        rule = next((one for one in given.values() if isinstance(one, Conformal)), None)
        if rule is None:
            raise ValueError("rule is none of kind 'conformal'; accepted: what semnr guard --learn --level wrote")
    profile = as_profile("scores", scores)
    n = len(profile)
    rows = scores_of(rule.terms, rule.combined, profile)
    kinds = [kind if kind in rule.calibration else "" for kind in strata_of(profile, rule.strata)]
    fields, wafers = fields_of(profile, rule.unit), wafers_of(profile, rule.unit)
    found: dict[str, np.ndarray] = {name: np.full(n, np.nan) for name in rows}
    for kind, kept in rule.calibration.items():
        at = np.array([one == kind and bool(name) for one, name in zip(kinds, fields, strict=True)], dtype=bool)
        for name, row in rows.items():
            found[name][at] = kept.tile_p(row[at], name)
    own = np.stack([rows[name] for name in rule.combined])
    leading = tuple(
        "" if math.isnan(s) else rule.combined[int(np.nanargmax(column))]
        for s, column in zip(rows[ALL], own.T, strict=True)
    )
    field_p: dict[str, float] = {}
    largest: dict[str, tuple[str, str, float]] = {}
    for i, (name, kind) in enumerate(zip(fields, kinds, strict=True)):
        if kind and name and not math.isnan(rows[ALL][i]):
            old = largest.get(name)
            largest[name] = (wafers[i], kind, max(rows[ALL][i], -math.inf if old is None else old[2]))
    for name, (_, kind, score) in largest.items():
        field_p[name] = float(rule.calibration[kind].field_p([score])[0])
    wafer_p: dict[str, float] = {}
    short: dict[str, str] = {}
    listed: set[str] = set()
    for wafer in dict.fromkeys(wafers):
        mine = {name: (kind, score) for name, (at, kind, score) in largest.items() if at == wafer}
        parts = {kind: [s for k, s in mine.values() if k == kind] for kind, _ in mine.values()}
        p = [rule.calibration[kind].wafer_p(max(some), len(some)) for kind, some in parts.items()]
        wafer_p[wafer] = min(1.0, len(p) * min(p)) if p else math.nan
        for kind, some in parts.items():
            kept, need = len(rule.calibration[kind].field), needed(rule.wafer_level, len(some), len(parts))
            if kept < need:
                short[wafer] = (
                    f"{len(some)} fields of {kind} on a wafer: level {rule.wafer_level:g} needs {need} calibration "
                    f"fields, there are {kept}"
                )
        names = list(mine)
        is_found = discovered([field_p[name] for name in names], rule.discovery)
        listed |= {name for name, yes in zip(names, is_found, strict=True) if yes}
    return PValues(
        found.pop(ALL), found, rows[ALL], leading, tuple(kinds), fields, wafers, field_p, wafer_p, frozenset(listed),
        short,
    )  # fmt: skip


def judged(rule: Conformal, after: Profile) -> evaluate.Finding:
    """A rule with a bound on its false alarms, on one run."""
    p = p_values(after, rule)
    scored = np.array([s == "ok" for s in after.status], dtype=bool)
    known = ~np.isnan(p.tile) & scored
    n, total = int(known.sum()), int(scored.sum())
    if n == 0:
        return evaluate.without_evidence(rule, UNKNOWN, _why_unknown(rule, after, p, scored))
    flagged = known & (p.tile <= rule.level)
    lowest = min((v for v in p.wafer_p.values() if v == v), default=math.nan)
    fired = lowest <= rule.wafer_level
    fields = sum(len(kept.field) for kept in rule.calibration.values())
    evidence: dict[str, Any] = {
        "p_value": float(np.nanmin(p.tile[known])), "p_wafer": lowest,
        "level_held_per_tile": rule.level, "level_held_per_wafer": rule.wafer_level,
        "wafers_judged": len(p.wafer_p), "fields_judged": len(p.field_p), "calibration_fields": fields,
        f"fields_found_at_false_discovery_rate_{rule.discovery:g}": len(p.found),
        "tiles_judged": n, "tiles_fired": int(flagged.sum()), "share_fired": float(flagged.sum()) / n,
    }  # fmt: skip
    reasons = list(dict.fromkeys(p.short.values()))[:3]
    if n < rule.min_coverage * total:
        reasons.insert(0, f"{total - n} of {total} tiles have no p: {_why_unknown(rule, after, p, scored & ~known)}")
    status = FIRED if fired else UNKNOWN if reasons else CLEAR
    if reasons:
        evidence["reason"] = "; ".join(reasons)
    steps = [
        f"p of the wafer {lowest:.3g} {'at or below' if fired else 'above'} {rule.wafer_level:g}?",
        f"{int(flagged.sum())} of {n} tiles at p ≤ {rule.level:g} ({rule.level:.3g} of harmless tiles may be)",
    ]
    regions: tuple[Mapping[str, Any], ...] = ()
    if fired:
        at = {tile: i for i, tile in enumerate(after.tiles)}
        listed = evaluate.regions_of(after, flagged, known, p.score, {"p_value": p.tile, "score": p.score})
        regions = tuple(
            {**one, "signal": p.leading[i], "field": p.field[i], "found": p.field[i] in p.found}
            for one, i in ((one, at[str(one["tile"])]) for one in listed)
        )
    return evaluate.finding(rule, status, evidence, "; ".join(steps), regions)


def flags(rule: Conformal, after: Profile) -> tuple[np.ndarray, np.ndarray]:
    """Tiles that have a p, tiles whose p is at the level or below."""
    tile = p_values(after, rule).tile
    known = ~np.isnan(tile)
    return known, known & (np.where(known, tile, 1.0) <= rule.level)


def _why_unknown(rule: Conformal, after: Profile, p: PValues, tiles: np.ndarray) -> str:
    """Why these tiles have no p: the commonest reason first."""
    said = []
    lost = [i for i in np.flatnonzero(tiles) if np.isnan(p.tile[i])]
    strange = [i for i in lost if not p.stratum[i]]
    if strange:
        kinds = strata_of(after, rule.strata)
        said.append(f"no calibration of {kinds[strange[0]] or 'tiles without ' + _listed(rule.strata)}")
    if any(not p.field[i] for i in lost):
        said.append(f"no {rule.unit} is known of them")
    lacking = [
        name for name in rule.combined if any(p.stratum[i] and np.isnan(p.rules[name][i]) for i in lost)
    ]  # fmt: skip
    columns = dict.fromkeys(t.column for t in rule.terms if t.rule in lacking)
    return "; ".join([*said, *([f"no {', '.join(columns)}"] if columns else [])]) or "no tile was scored"


# --- scores ---


def scores_of(terms: Sequence[Term], combined: Sequence[str], profile: Profile) -> dict[str, np.ndarray]:
    """By rule its score, (N,), and "combined", which is known where that of every rule in it is."""
    rows: dict[str, np.ndarray] = {}
    for term in terms:
        values, errors = evaluate.columns_of(term, profile)
        score = term.score(values, errors)
        if term.where:
            other = profile.column(term.where)
            with np.errstate(invalid="ignore"):
                score = np.where(np.isnan(other), np.nan, np.where(other > term.exceeds, score, -np.inf))
        rows[term.rule] = np.fmax(rows[term.rule], score) if term.rule in rows else score
    whole = np.stack([rows[name] for name in combined]) if combined else np.full((1, len(profile)), np.nan)
    rows[ALL] = whole.max(axis=0)  # NaN where one of them is
    return rows


def _terms(
    rules: Rules, profiles: Sequence[Profile], scaling: np.ndarray, kinds: np.ndarray
) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """The terms of the rules on one candidate, scaled by tiles that are not counted; the rules that make the whole."""
    drafts: list[tuple[Term, float]] = []
    for name, rule in rules.items():
        if isinstance(rule, Transfer):
            drafts.append((Term(name, "transfer", "below", z=rule.z), 1 - rule.below))
        for bound in rule.bounds if isinstance(rule, Range) else ():
            neutral, above = NEUTRAL.get(bound.column, 0.0), min(bound.above, bound.certain)
            both = math.isfinite(above) and math.isfinite(bound.below)
            side = "either" if both else "below" if math.isinf(above) else "above"
            limit = abs((bound.below if side == "below" else above) - neutral) or 1.0
            drafts.append((Term(name, bound.column, side, neutral if both else 0.0, rule.z, where=bound.where,
                                exceeds=bound.exceeds), limit))  # fmt: skip
    seen: set[tuple[str, str]] = set()
    terms: list[Term] = []
    for draft, limit in drafts:
        if (draft.column, draft.side) in seen:  # evidence_ruined reads what evidence_transfer reads
            continue
        seen.add((draft.column, draft.side))
        pairs = [evaluate.columns_of(draft, p) for p in profiles]
        values, errors = (np.concatenate(v)[scaling] for v in zip(*pairs, strict=True))
        excess = draft.excess(values, errors)
        excess = excess[np.isfinite(excess)]
        if excess.size:
            middle, high = np.quantile(excess, (0.5, 0.9))
            scale = high - middle or excess.std() or limit
            place = {"location": float(f"{middle:.6g}"), "scale": float(f"{scale:.6g}")}
            terms.append(Term(**{**vars(draft), **place}))
    rows = [scores_of(terms, (), p) for p in profiles]
    combined = []
    for name in dict.fromkeys(t.rule for t in terms):
        known = ~np.isnan(np.concatenate([row[name] for row in rows]))[scaling]
        if all(known[kinds[scaling] == kind].mean() >= _KNOWN for kind in set(kinds[scaling])):
            combined.append(name)
    if not combined:
        raise ValueError("harmless has no tile with the evidence of a rule on one candidate; accepted: runs with the "
                         "noisy input")  # fmt: skip
    return tuple(terms), tuple(combined)


def _to_scale(codes: np.ndarray, kinds: np.ndarray, seed: int) -> np.ndarray:
    """Tiles of the fields that set the scales: a share of each stratum, drawn by the seed."""
    rng = np.random.default_rng(seed)
    chosen: set[int] = set()
    for kind in dict.fromkeys(map(str, kinds)):
        fields = np.unique(codes[kinds == kind])
        count = min(max(_LEAST_TO_SCALE, math.ceil(SCALE_SHARE * len(fields))), len(fields))
        chosen |= set(rng.permutation(fields)[:count].tolist())
    return np.isin(codes, sorted(chosen))


def _in_all(need: int) -> int:
    """How many fields of a stratum leave so many for the calibration."""
    total = need
    while total - max(_LEAST_TO_SCALE, math.ceil(SCALE_SHARE * total)) < need:
        total += 1
    return total


# --- fields, wafers, strata ---


def fields_of(profile: Profile, unit: str) -> tuple[str, ...]:
    """The field of each tile; "" where it is not known."""
    if unit == "tile":
        return tuple(profile.tiles)
    names = UNITS.get(unit, ("lot_id", "wafer_id", unit))
    keys = [_key(profile, name) for name in names]
    own = slice(2, None) if unit not in ("wafer", "lot") else slice(0, None)
    return tuple("/".join(row) if all(row[own]) else "" for row in zip(*keys, strict=True))


def wafers_of(profile: Profile, unit: str) -> tuple[str, ...]:
    """The wafer of each tile; of a run that names none, the run; of lots as units, the lot."""
    names = ("lot_id",) if unit == "lot" else UNITS["wafer"]
    return tuple("/".join(filter(None, row)) for row in zip(*(_key(profile, name) for name in names), strict=True))


def strata_of(profile: Profile, strata: Sequence[str]) -> tuple[str, ...]:
    """The stratum of each tile: "pattern=lines, dose=40"; "" where a column is missing; "all" without strata."""
    if not strata:
        return ("all",) * len(profile)
    parts = [_binned(profile, spec) for spec in strata]
    return tuple(", ".join(row) if all(row) else "" for row in zip(*parts, strict=True))


def _binned(profile: Profile, spec: str) -> list[str]:
    name, _, text = spec.partition(":")
    if not text:
        return [value and f"{name}={value}" for value in _key(profile, name)]
    try:
        edges = [float(edge) for edge in text.split(",")]
    except ValueError:
        edges = []
    if not edges or edges != sorted(set(edges)):
        raise ValueError(f"strata has {spec!r}; accepted: a column, or a column with rising edges, 'psnr_noisy:18,22'")
    ends = ["-∞", *text.split(","), "∞"]
    bins = [f"{name} {a} to {b}" for a, b in itertools.pairwise(ends)]
    return ["" if math.isnan(v) else bins[bisect.bisect_right(edges, v)] for v in profile.column(name)]


def _key(profile: Profile, name: str) -> tuple[str, ...]:
    """A column as text, under its own name or that of a plan."""
    own = profile.key(name)
    return own if any(own) else profile.key(PREFIX + name)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
