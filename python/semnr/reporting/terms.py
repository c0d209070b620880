"""Every term of the page in a sentence: metrics from the catalogue of columns, guardrails from their rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..columns import BY_NAME, Column, shown
from ..runs.readings import limit_words
from .metrics import words
from .runs import RunData

# What is no column and no rule.
GENERAL = {
    "fired": ("fired", "The evidence speaks against the candidate by more than the rule's limit."),
    "clear": ("clear", "The rule had evidence on enough tiles and found nothing."),
    "unknown": ("unknown", "The evidence that the rule needs is not there; it counts neither for nor against."),
    "skipped": (
        "not evaluated",
        "There are numbers, but they mean nothing here: DISTS on random weights, or a comparison with the noisy input.",
    ),
    "waived": ("waived", "Somebody allowed this rule by name to have no evidence; it is on the record."),
    "not-refuted": (
        "not refuted",
        "Nothing fired, but rules had no evidence. It is no pass: bring a second noisy frame or a clean reference.",
    ),
    "area": (
        "radar area",
        "Area of the five axes' polygon, 1 at its largest. It depends on the order of the axes; their mean does not.",
    ),
    "mean-axis": ("mean axis", "Mean of the five axes, each from 0 (worst) to 1 (best)."),
    "interval": (
        "95 % interval",
        "Where the mean would lie in 95 of 100 such samples of tiles (bootstrap, by die where dies are known).",
    ),
    "holm": ("p (Holm)", "Chance of such a difference with no change at all, corrected for the number of metrics."),
    "residual": (
        "residual",
        "Noisy − denoised: what the denoiser took away. It should look like noise and show nothing of the pattern.",
    ),
    "evidence-map": (
        "evidence map",
        "How far the residual stands out of the noise at each place, in σ: structure removed, or invented.",
    ),
    "marks": ("marked places", "Places where the residual holds more than noise can; the number is its z, in σ."),
    "measured": ("measured", "Computed against a clean reference, a second frame or the noisy input itself."),
    "estimated": ("estimated", "Worked out from further noisy frames, or with random network weights."),
    "psnr-mean-mse": (
        "PSNR of mean MSE",
        "PSNR of all tiles together, from their mean squared error. A mean of dB values would favour the best tiles.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Term:
    """One entry of the glossary."""

    title: str
    text: str


def terms(runs: Sequence[RunData], judged: Sequence[Mapping[str, Any]]) -> dict[str, Term]:
    """By key: a column's name, "rule-NAME", or one of `GENERAL`; in the order of the page's glossary."""
    limits = limits_of(judged)
    explained: dict[str, Term] = {}
    for signal in (s for verdict in judged for s in verdict["signals"]):
        explained.setdefault(f"rule-{signal['key']}", _rule(signal))
    for column in shown(name for run in runs for name in run.numbers if run.has(name)):
        explained[column.name] = _column(column, limits.get(column.name, ()))
    return explained | {key: Term(*entry) for key, entry in GENERAL.items()}


def limits_of(judged: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Column -> where rules fire on it, each limit once, with the rule's name in words."""
    limits: dict[str, list[Mapping[str, Any]]] = {}
    for signal, before in ((s, verdict["before"]) for verdict in judged for s in verdict["signals"]):
        for limit in signal["limits"]:
            entry = {**limit, "rule": signal["name"], **({"before": before} if "change" in limit else {})}
            if entry not in limits.setdefault(str(limit.get("column")), []):
                limits[str(limit.get("column"))].append(entry)
    return limits


def _column(column: Column, limits: Sequence[Mapping[str, Any]]) -> Term:
    text = column.note[:1].upper() + column.note[1:]
    parts = [text] if text else []
    parts += [f"{column.direction[:1].upper()}{column.direction[1:]}"] if column.direction else []
    parts += [f"{limit['rule']} fires {said}" for limit in limits if (said := limit_words(limit))]
    return Term(column.heading, ". ".join(parts) + "." if parts else "")


def _rule(signal: Mapping[str, Any]) -> Term:
    parts = [signal["question"]] if signal["question"] else []
    if signal["metrics"]:
        parts.append(f"Reads {signal['metrics']}.")
    said = [f"{_label(limit)} {limit_words(limit) or change_words(limit)}" for limit in signal["limits"]]
    joined = " and " if any("change" in limit for limit in signal["limits"]) else " or "
    parts += [f"Fires where {joined.join(said)}."] if said else []
    return Term(signal["name"], " ".join(parts) or f"A rule of its own: {words(signal['key'])}.")


def _label(limit: Mapping[str, Any]) -> str:
    column = BY_NAME.get(str(limit.get("column")))
    return column.label if column else str(limit.get("column"))


def change_words(limit: Mapping[str, Any]) -> str:
    """ "down by more than 3 %": how far a comparing rule lets a column move."""
    by = limit.get("by")
    amount = f"{100 * by:g} %" if limit.get("relative") and by is not None else f"{by:g}" if by is not None else ""
    way = {"up": "up by more than", "down": "down by more than", "stable": "stable within"}
    return f"{way.get(str(limit.get('change')), 'changed by')} {amount}".strip()
