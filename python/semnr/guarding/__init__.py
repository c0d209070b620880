"""The gate: rules over two candidates' profiles and one candidate's evidence, and a verdict that never passes on faith.

A rule without evidence is `unknown`, `not_evaluated` or `not_comparable`, never clear; a required one then keeps the
gate shut (exit code 3) until somebody waives it by name, which is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .._profile import Profile
from . import _evaluate, _pairing
from ._evaluate import Inputs
from ._rules import DEFAULT_RULES, Comparison, Condition, Rules, Transfer, as_rules, dump_rules, load_rules
from ._verdict import Signal, Verdict

__all__ = [
    "DEFAULT_RULES",
    "Comparison",
    "Condition",
    "Rules",
    "Signal",
    "Transfer",
    "Verdict",
    "dump_rules",
    "guard",
    "load_rules",
]

_PIXELS = ("noisy", "denoised", "reference", "second_frame")
_OPTIONS = ("mask", "bands", "block", "nan")


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
        For the transfer rules: what `semnr.evidence` returned for the tiles of `after` in their order, or its
        arguments by name: "noisy", "denoised" and "reference" or "second_frame" ("mask", "bands", "block", "nan").
        Without it the columns `transfer`, `transfer_se` and `psnr_noisy` of `after`, where a run has them.
    rules : Rules, path or mapping
        What `load_rules` returns, a TOML file, or the same as plain data.
    allow_unknown : names of rules
        Required rules that may lack evidence; "tiles_scored" waives tiles that could not be scored. Recorded.

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
        before = _pairing.align(before, after)
    found = _inputs(inputs, after)
    findings = []
    if (incomplete := _evaluate.tiles_scored(before, after)) is not None:
        findings.append(incomplete)
    for rule in rules.values():
        if isinstance(rule, Comparison):
            findings.append(_evaluate.compare(rule, before, after, found))
        else:
            findings.append(_evaluate.transfer(rule, after, found))
    return Verdict(
        signals=tuple(f.signal for f in findings),
        path=tuple(f.line for f in findings),
        waived=waived,
        before=None if before is None else before.label or "before",
        after=after.label or "after",
        tiles=len(after),
    )


def _waived(names: Iterable[str] | str, rules: Rules) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
    accepted = (*rules, "tiles_scored")
    for name in names:
        if name not in accepted:
            raise ValueError(f"allow_unknown has {name!r}; accepted: {', '.join(map(repr, accepted))}")
    return names


def _inputs(inputs: Any, after: Profile) -> Inputs:
    if inputs is None:
        gain = _difference(after.psnr, after.psnr_noisy)
        reason = "" if np.isfinite(after.transfer).any() else "no evidence transfer: neither inputs nor such a column"
        return Inputs(after.transfer, after.transfer_se, gain, reason=reason)
    from ..transfer import Evidence, evidence

    if isinstance(inputs, Mapping):
        unknown = [k for k in inputs if k not in (*_PIXELS, *_OPTIONS)]
        if unknown or not {"noisy", "denoised"} <= set(inputs):
            accepted = ", ".join(map(repr, (*_PIXELS, *_OPTIONS)))
            raise ValueError(f"inputs has {list(inputs)}; accepted: 'noisy' and 'denoised', and of {accepted}")
        inputs = evidence(**inputs, data_range=after.data_range, hints=False)
    if not isinstance(inputs, Evidence):
        raise TypeError(f"inputs is {type(inputs).__name__}; accepted: a mapping of images, or a semnr Evidence")
    if len(inputs) != len(after):
        raise ValueError(f"inputs has {len(inputs)} tiles and after {len(after)}; accepted: the same, in order")
    # Several bands: the one that lost most, beyond its own uncertainty, speaks for the tile.
    upper = np.where(np.isfinite(inputs.transfer), inputs.transfer + 2 * inputs.se, np.inf)
    band = upper.argmin(axis=1)[:, None]
    t, se, energy = (np.take_along_axis(v, band, axis=1)[:, 0] for v in (inputs.transfer, inputs.se, inputs.energy))
    return Inputs(t, se, inputs.mse_drop, energy, inputs.reason)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a − b with infinity minus infinity as 0."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)
