"""The article's decision flowchart, answered with the numbers of a run: each question, its answer, the next step.

The questions and their order are those of "SEMNR: Why I stopped trusting clean images and treated metrics as
guardrails" (M. K., December 2025): is PSNR up at all; then, is one of the disagreements there that PSNR hides; then
what no score of a whole tile shows. A question that is answered "yes" names its signal, and the walk goes on, because
one fault does not rule out another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..profiles import Profile
from ..runs.verdict import CLEAR, FIRED, NO_EVIDENCE, Signal
from .rules import Comparison, Conformal, Range, Rules, Transfer

_ANSWERS = {FIRED: "yes", CLEAR: "no"}


def walk(
    rules: Rules, signals: Sequence[Signal], before: Profile | None, after: Profile, waived: Sequence[str] = ()
) -> tuple[Mapping[str, Any], ...]:
    """Steps in order: "question", "answer" (yes, no, unknown, not evaluated, not comparable), "numbers", "next" (the
    next question, or the outcome) and "signal" (what a "yes" raises, else None)."""
    by_name = {s.name: s for s in signals}
    steps = [_psnr(before, after)]
    for name, rule in rules.items():
        signal = by_name[name]
        steps.append(
            {
                "question": rule.question or _question(rule),
                "answer": _ANSWERS.get(signal.status, signal.status.replace("_", " ")),
                "numbers": _numbers(signal),
                "signal": name if signal.status == FIRED else None,
            }
        )
    ends = [*(s["question"] for s in steps[1:]), _outcome(signals, waived)]
    return tuple({**step, "next": end} for step, end in zip(steps, ends, strict=True))


def _psnr(before: Profile | None, after: Profile) -> dict[str, Any]:
    step: dict[str, Any] = {"question": "PSNR up?", "answer": "unknown", "numbers": {}, "signal": None}
    if before is None and np.isfinite(after.psnr_noisy).any():
        step["question"] = "PSNR up over the noisy input?"
        change = after.psnr - after.psnr_noisy
    elif before is not None:
        with np.errstate(invalid="ignore"):
            change = np.where(after.psnr == before.psnr, 0.0, after.psnr - before.psnr)
    else:
        return step
    finite = change[np.isfinite(change)]
    if not finite.size:
        return step
    mean = float(finite.mean())
    se = float(finite.std(ddof=1) / np.sqrt(finite.size)) if finite.size > 1 else float("nan")
    up = mean > 2 * se if np.isfinite(se) else mean > 0
    return {**step, "answer": "yes" if up else "no", "numbers": {"psnr_change": mean, "psnr_change_se": se}}


def _question(rule: Comparison | Transfer | Range | Conformal) -> str:
    if isinstance(rule, Comparison):
        return " and ".join(map(str, rule.conditions)).replace("_", " ") + "?"
    if isinstance(rule, Transfer):
        return f"Evidence transfer below {rule.below:g}?"
    if isinstance(rule, Conformal):
        return f"p of a wafer at or below {rule.wafer_level:g}?"
    return " or ".join(map(str, rule.bounds)).replace("_", " ") + "?"


def _numbers(signal: Signal) -> dict[str, Any]:
    """The means behind the answer and how many tiles show it."""
    keys = [k for k in signal.evidence if k in signal.metrics or k.removesuffix("_relative_change") in signal.metrics]
    keys += [k for k in signal.evidence if k.removesuffix("_change") in signal.metrics and k not in keys]
    keys += [k for k in ("p_value", "p_wafer", "tiles_fired", "tiles_judged", "tiles_compared") if k in signal.evidence]
    return {k: signal.evidence[k] for k in keys}


def _outcome(signals: Sequence[Signal], waived: Sequence[str]) -> str:
    fired = [s.name.replace("_", " ") for s in signals if s.status == FIRED and s.gate]
    if fired:
        return f"reject: {', '.join(fired)}"
    lacking = [s for s in signals if s.required and s.status in NO_EVIDENCE]
    if missing := [s.name.replace("_", " ") for s in lacking if s.name not in waived]:
        return f"hold: no evidence on {', '.join(missing)}"
    if lacking:
        return f"accept: without evidence, but waived by name: {', '.join(s.name.replace('_', ' ') for s in lacking)}"
    return "accept: nothing that PSNR would hide was found"
