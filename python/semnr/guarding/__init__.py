"""The gate: rules over two candidates' profiles and one candidate's evidence, and a verdict that never passes on faith.

A rule without evidence is `unknown`, `not_evaluated` or `not_comparable`, never clear; a required one then keeps the
gate shut (exit code 3) until somebody waives it by name, which is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..profiles import Profile, pairing
from ..runs.verdict import Signal, Verdict
from . import evaluate, flowchart
from .baseline import read_baseline, write_baseline
from .inputs import measured
from .junit_xml import junit
from .rules import DEFAULT_RULES, Bound, Comparison, Condition, Range, Rules, Transfer, as_rules, dump_rules, load_rules

__all__ = [
    "DEFAULT_RULES",
    "Bound",
    "Comparison",
    "Condition",
    "Range",
    "Rules",
    "Signal",
    "Transfer",
    "Verdict",
    "dump_rules",
    "guard",
    "junit",
    "load_rules",
    "read_baseline",
    "tile_flags",
    "write_baseline",
]


ON_THE_RUN = ("tiles_scored", "identical_tiles")  # signals that no rule asks for


def guard(
    before: Profile | None,
    after: Profile,
    inputs: Any = None,
    rules: Any = DEFAULT_RULES,
    allow_unknown: Iterable[str] | str = (),
) -> Verdict:
    """Hold a candidate's profile against that of the released or baseline denoiser.

    Parameters
    ----------
    before : Profile or None
        Of the baseline, on the same tiles and reference. None: the comparing rules are `unknown`. The noisy input's
        own profile (kind "noisy"): they are `not_comparable`, because any denoising raises PSNR and SSIM against it.
    after : Profile
        Of the candidate.
    inputs : mapping or Evidence, optional
        For the rules on one candidate: the arguments of `semnr.evidence` by name, for the tiles of `after` in their
        order: "noisy", "denoised" and "reference" or "second_frame" ("mask", "bands", "block", "nan"). Or what
        `semnr.evidence` returned, which serves the transfer rules alone. Without it the columns of `after`, where a
        run has them.
    rules : Rules, path or mapping
        What `load_rules` returns, a TOML file, or the same as plain data.
    allow_unknown : names of rules
        Required rules that may lack evidence; "tiles_scored" waives tiles that could not be scored and a run that was
        cut off, "identical_tiles" tiles whose reference is the candidate or the noisy input itself. Recorded.

    Returns
    -------
    Verdict

    Raises
    ------
    TypeError, ValueError
        The argument, what it was, what is accepted; or what differs between `before` and `after`.
    """
    for name, value in (("before", before), ("after", after)):
        if not isinstance(value, Profile) and not (name == "before" and value is None):
            raise TypeError(f"{name} is {type(value).__name__}; accepted: a semnr.Profile")
    rules = as_rules(rules)
    waived = _waived(allow_unknown, rules)
    if before is not None:
        before = pairing.align(before, after)
    found, after = measured(inputs, after)
    on_the_run = (evaluate.tiles_scored(before, after), evaluate.identical_tiles(before, after))
    findings = [finding for finding in on_the_run if finding is not None]
    for rule in rules.values():
        if isinstance(rule, Comparison):
            findings.append(evaluate.compare(rule, before, after, found))
        elif isinstance(rule, Range):
            findings.append(evaluate.ranged(rule, after))
        else:
            findings.append(evaluate.transfer(rule, after, found))
    signals = tuple(f.signal for f in findings)
    return Verdict(
        signals=signals,
        path=tuple(f.line for f in findings),
        waived=waived,
        before=None if before is None else before.label or "before",
        after=after.label or "after",
        tiles=len(after),
        flowchart=flowchart.walk(rules, signals, before, after, waived),
    )


def tile_flags(
    before: Profile | None, after: Profile, inputs: Any = None, rules: Any = DEFAULT_RULES
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each rule, tile by tile: (has the evidence, shows the fault), each (N,) bool.

    The same tests that `guard` counts; what it decides on the run as a whole (shares, means) is not in it.
    Parameters as for `guard`.
    """
    rules = as_rules(rules)
    if before is not None:
        before = pairing.align(before, after)
    found, after = measured(inputs, after)
    flags = {}
    for name, rule in rules.items():
        none = np.zeros(len(after), dtype=bool)
        if isinstance(rule, Range):
            known, fired, _ = evaluate.ranged_tiles(rule, after)
        elif isinstance(rule, Comparison):
            known, fired = none, none
            if before is not None and "noisy" not in (before.kind, after.kind):
                _, known, fired = evaluate.compared_tiles(rule, before, after)
        else:
            known, meets, low = evaluate.transfer_tiles(rule, found)
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
