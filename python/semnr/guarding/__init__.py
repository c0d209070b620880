"""The gate: rules on the profiles of two candidates and on the evidence of one, and the verdict that they add up to.

A rule without evidence is `unknown`, `not_evaluated` or `not_comparable`, and never clear. If it is required, it keeps
the gate shut (exit code 3) until somebody waives it by name, and the waiver is recorded.

`Rules` is the type of a set of rules: a mapping of names to `Comparison`, `Transfer`, `Range` or `Conformal`.
`DEFAULT_RULES` are those of `rules.toml`; docs/trust.md says what each of them reads and how often they are right.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..profiles import Profile, pairing
from ..runs.comparison import read_changes
from ..runs.scored import as_profile
from ..runs.verdict import ON_THE_RUN, Signal, Verdict
from ..trust.worth import DoseEquivalence
from . import conformal, evaluate, flowchart
from .baseline import read_baseline, write_baseline
from .basis import axes, needs, not_comparable, notes, without_wrong_references
from .calibration import Stratum, Term, discovered, needed
from .conformal import PValues, calibrate, p_values
from .evaluate import Inputs
from .inputs import measured
from .junit_xml import junit
from .rules import (
    DEFAULT_RULES,
    AnyRule,
    Bound,
    Comparison,
    Condition,
    Conformal,
    Range,
    Rules,
    Transfer,
    as_rules,
    dump_rules,
    load_rules,
)
from .sites import Site, rescan, write_sites

__all__ = [
    "DEFAULT_RULES",
    "Bound",
    "Comparison",
    "Condition",
    "Conformal",
    "PValues",
    "Range",
    "Rules",
    "Signal",
    "Site",
    "Stratum",
    "Term",
    "Transfer",
    "Verdict",
    "alone",
    "calibrate",
    "discovered",
    "dump_rules",
    "guard",
    "junit",
    "load_rules",
    "needed",
    "p_values",
    "read_baseline",
    "rescan",
    "tile_flags",
    "write_baseline",
    "write_sites",
]


def guard(
    before: Any,
    after: Any,
    inputs: Any = None,
    rules: Any = DEFAULT_RULES,
    allow_unknown: Iterable[str] | str = (),
    strict: bool = True,
) -> Verdict:
    """Judge a candidate: hold its profile against that of the released or baseline denoiser, and against its input.

    Parameters
    ----------
    before : Profile, Run, path or None
        Scores of the baseline, on the same tiles and reference: a `semnr.Profile`, a `semnr.Run`, the folder of a run,
        or the file that `write_baseline` wrote. None: the comparing rules are `unknown`. The profile of the noisy input
        itself (kind "noisy"): they are `not_comparable`, because any denoising raises PSNR and SSIM against it.
    after : Profile, Run or path
        Scores of the candidate.
    inputs : mapping or Evidence, optional
        What the rules on one candidate read. Either the images of the tiles of `after` in their order: "noisy",
        "denoised", and "reference" or "second_frame" (also "mask", "bands", "block", "nan", "scan_axis", as for
        `semnr.evidence`). Or what `semnr.evidence` returned, which serves the transfer rules alone. Default: the
        columns of `after`, where a run has them.
    rules : mapping or path
        What `load_rules` returns, a TOML file, or the same as plain data.
    allow_unknown : str or iterable of str
        Names of required rules that may lack evidence. "tiles_scored" waives tiles that could not be scored and a run
        that was cut off; "identical_tiles" waives tiles whose reference is the candidate or the noisy input itself.
        Recorded in the verdict.
    strict : bool
        Whether a required rule without evidence holds the gate: exit code 3, or 0 where False. It passes in no case.

    Returns
    -------
    Verdict

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted; or says what differs between `before` and `after`.

    Examples
    --------
    >>> released = semnr.profile(semnr.denoise(noisy, model="median"), clean, metrics=("psnr", "ssim"), label="median")
    >>> candidate = semnr.profile(denoised, clean, metrics=("psnr", "ssim"), label="gaussian")
    >>> verdict = semnr.guard(released, candidate, inputs={"noisy": noisy, "denoised": denoised, "reference": clean})
    >>> print(verdict)
    guard: failed (gaussian against median, 1 tiles)
    ...
      FIRED: evidence_transfer
          PSNR over the noisy input improves? on 1 of 1 tiles; T + 2 SE below 0.88? ...
    >>> [signal.name for signal in verdict.fired]
    ['evidence_transfer', 'lost_detail', 'transfer_bound']
    """
    rules = as_rules(rules)
    waived = _waived(allow_unknown, rules)
    before, after = _compared(before, after)
    evidence, after = measured(inputs, after)
    whole = after
    evidence, after = without_wrong_references(evidence, after)
    on_the_run = (evaluate.tiles_scored(before, whole), evaluate.identical_tiles(before, whole))
    findings = [finding for finding in on_the_run if finding is not None]
    findings += [_judged(rule, before, after, evidence) for rule in rules.values()]
    signals = tuple(f.signal for f in findings)
    return Verdict(
        signals=signals,
        path=tuple(f.line for f in findings),
        waived=waived,
        before=None if before is None else before.label or "before",
        after=after.label or "after",
        tiles=len(after),
        flowchart=flowchart.walk(rules, signals, before, after, waived),
        axes=axes(after),
        strict=strict,
        notes=notes(whole),
        worth=_worth(after),
        profile=whole,
        run=whole.run,
        **_beside(rules, before, after),
    )


def _worth(after: Profile) -> dict[str, Any]:
    """What a denoised frame is worth in noisy ones, where the rows tell."""
    found = None if after.kind == "noisy" else DoseEquivalence.of(after)
    if found is None:
        return {}
    names = ("frames", "low", "high", "basis", "units", "confidence")
    return {**{name: getattr(found, name) for name in names}, "said": str(found)}


def _compared(before: Any, after: Any) -> tuple[Profile | None, Profile]:
    """The rows of both, those of the baseline in the order of the candidate's."""
    candidate = as_profile("after", after)
    if before is None:
        return None, candidate
    is_file = isinstance(before, str | os.PathLike) and Path(before).is_file()
    baseline = read_baseline(before) if is_file else as_profile("before", before)
    return pairing.align(baseline, candidate), candidate


def _beside(rules: Rules, before: Profile | None, after: Profile) -> dict[str, Any]:
    """The baseline by the rules on one candidate, and how what the rules read changed from it."""
    if before is None or "noisy" in (before.kind, after.kind):
        return {}
    own, before = without_wrong_references(*measured(None, before))
    alone_rules = [rule for rule in rules.values() if not isinstance(rule, Comparison)]
    columns = dict.fromkeys(metric for rule in rules.values() for metric in rule.metrics)
    return {
        "baseline": tuple(_judged(rule, None, before, own).signal for rule in alone_rules),
        "changes": read_changes(before, after, tuple(columns)),
    }


def _judged(rule: AnyRule, before: Profile | None, after: Profile, evidence: Inputs) -> evaluate.Finding:
    if isinstance(rule, Comparison):
        finding = evaluate.compare(rule, before, after, evidence)
    elif isinstance(rule, Range):
        finding = evaluate.ranged(rule, after)
    elif isinstance(rule, Conformal):
        finding = conformal.judged(rule, after)
    else:
        finding = evaluate.transfer(rule, after, evidence)
    finding = not_comparable(rule, finding, after)
    signal = dataclasses.replace(finding.signal, needs=needs(rule, finding.signal, before, after))
    return dataclasses.replace(finding, signal=signal)


def alone(rules: Any = DEFAULT_RULES) -> Rules:
    """The same rules for a candidate that is compared with no other: those between two candidates are not required.

    Parameters
    ----------
    rules : mapping or path
        What `guard` takes.

    Returns
    -------
    Rules

    Examples
    --------
    >>> semnr.guarding.alone()["over_smoothing"].required
    False
    """
    return MappingProxyType(
        {
            name: dataclasses.replace(rule, required=False) if isinstance(rule, Comparison) else rule
            for name, rule in as_rules(rules).items()
        }
    )


def tile_flags(
    before: Any, after: Any, inputs: Any = None, rules: Any = DEFAULT_RULES
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What each rule says of each tile.

    These are the tests that `guard` counts. What it decides on the run as a whole (shares, means) is not in them.

    Parameters
    ----------
    before, after, inputs, rules
        As for `guard`.

    Returns
    -------
    dict of str to (ndarray, ndarray)
        By the name of the rule, two bool arrays (N,): whether the tile has the evidence, and whether it shows the
        fault.

    Examples
    --------
    >>> candidate = semnr.profile(denoised, clean, metrics=("psnr", "ssim"))
    >>> inputs = {"noisy": noisy, "denoised": denoised, "reference": clean}
    >>> known, shows = semnr.guarding.tile_flags(None, candidate, inputs)["lost_detail"]
    >>> known.tolist(), shows.tolist()
    ([True], [True])
    """
    rules = as_rules(rules)
    before, after = _compared(before, after)
    evidence, after = measured(inputs, after)
    flags = {}
    for name, rule in rules.items():
        none = np.zeros(len(after), dtype=bool)
        if isinstance(rule, Range):
            known, fired, _ = evaluate.ranged_tiles(rule, after)
        elif isinstance(rule, Conformal):
            known, fired = conformal.flags(rule, after)
        elif isinstance(rule, Comparison):
            known, fired = none, none
            if before is not None and "noisy" not in (before.kind, after.kind):
                _, known, fired = evaluate.compared_tiles(rule, before, after)
        else:
            known, meets, low = evaluate.transfer_tiles(rule, evidence)
            fired = low & meets
        flags[name] = (known, fired)
    return flags


def _waived(names: Iterable[str] | str, rules: Rules) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
    accepted = (*rules, *ON_THE_RUN)
    for name in names:
        if name not in accepted:
            raise ValueError(f"allow_unknown has {name!r}; accepted: {', '.join(map(repr, accepted))}")
    return names
