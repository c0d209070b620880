"""Verdicts as the report shows them: banner, signals, decision path, and the tiles that they flag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._draw import key_mark
from ._metrics import BY_COLUMN, evidence_rows, plain, words
from ._runs import RunData

# status of a signal -> icon and wording; an unknown word is shown as it is, with the icon of the undecided
STATUS = {
    "fired": ("fired", "fired"),
    "clear": ("clear", "clear"),
    "unknown": ("unknown", "unknown"),
    "not_evaluated": ("skipped", "not evaluated"),
    "not_comparable": ("skipped", "not comparable"),
}
_ORDER = ["fired", "unknown", "not_evaluated", "not_comparable", "clear"]


def flagged_tiles(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """run label -> tile -> the fired signals whose regions lie on it."""
    flags: dict[str, dict[str, list[str]]] = {}
    for verdict in verdicts:
        for signal in verdict["signals"]:
            if signal["status"] != "fired":
                continue
            for tile in _tiles_of(signal):
                names = flags.setdefault(verdict["run"], {}).setdefault(tile, [])
                if words(signal["name"]) not in names:
                    names.append(words(signal["name"]))
    return flags


def _tiles_of(signal: Mapping[str, Any]) -> list[str]:
    tiles = [
        str(r["tile"]) for r in signal.get("regions") or [] if isinstance(r, Mapping) and r.get("tile") is not None
    ]
    return list(dict.fromkeys(tiles))


def view(verdict: Mapping[str, Any], runs: Sequence[RunData]) -> dict[str, Any]:
    """A verdict as the template shows it: state, a sentence, the signals that need attention first."""
    waived = set(verdict.get("waived") or ())
    signals = [_signal(signal, str(signal["name"]) in waived) for signal in verdict["signals"]]
    signals.sort(key=lambda s: _urgency(s["status"]))
    exit_code = verdict.get("exit_code", 0 if verdict["passed"] else 1)
    state = "passed" if verdict["passed"] else "incomplete" if exit_code == 3 else "failed"
    named: dict[str, list[str]] = {}
    for signal in signals:
        named.setdefault(signal["word"], []).append(signal["name"])
    sentences = [
        f"{_listed(names)} {'is' if len(names) == 1 and word != 'fired' else 'are' if word != 'fired' else ''} {word}"
        for word, names in named.items()
        if word != "clear"
    ]
    sentence = "; ".join(" ".join(text.split()) for text in sentences)
    if not sentence:
        sentence = f"all {len(signals)} signals are clear" if signals else "no signal was evaluated"
    key = next((k for k, run in enumerate(runs) if run.label == verdict["run"]), 0)
    before, after = verdict.get("before"), verdict.get("after") or verdict["run"]
    return {
        "state": state,
        "word": {"passed": "Passed", "failed": "Failed", "incomplete": "Incomplete"}[state],
        "exit_code": exit_code,
        "sentence": sentence[:1].upper() + sentence[1:] + ".",
        "before": str(before) if before is not None else None,
        "after": str(after),
        "mark": key_mark(key) if len(runs) > 1 else "",
        "signals": signals,
        "path": [plain(step).replace("->", "→") for step in verdict.get("path") or []],
    }


def _listed(names: Sequence[str]) -> str:
    lowered = [name[:1].lower() + name[1:] if not name[:2].isupper() else name for name in names]
    return lowered[0] if len(lowered) == 1 else ", ".join(lowered[:-1]) + " and " + lowered[-1]


def _signal(signal: Mapping[str, Any], waived: bool) -> dict[str, Any]:
    status = str(signal["status"])
    icon, word = STATUS.get(status, ("unknown", words(status).lower()))
    if waived and status not in ("fired", "clear"):
        word += " (waived)"
    evidence = signal.get("evidence") or {}
    metrics = signal.get("metrics") or []
    return {
        "name": words(signal["name"]),
        "status": status,
        "icon": icon,
        "word": word,
        "severity": plain(signal["severity"]) if signal.get("severity") not in (None, "") else "",
        "metrics": ", ".join(BY_COLUMN[m].label if m in BY_COLUMN else str(m) for m in metrics),
        "evidence": evidence_rows(evidence) if isinstance(evidence, Mapping) else [("evidence", plain(evidence))],
        "tiles": _tiles_of(signal),
        "advice": plain(signal.get("advice")) if signal.get("advice") else "",
    }


def matrix(verdicts: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any] | None]]]:
    """Signals as rows, candidates as columns."""
    names = list(dict.fromkeys(s["name"] for v in verdicts for s in v["signals"]))
    rows = [(name, [next((s for s in v["signals"] if s["name"] == name), None) for v in verdicts]) for name in names]
    rows.sort(key=lambda row: min(_urgency(cell["status"]) for cell in row[1] if cell))
    return rows


def _urgency(status: str) -> int:
    """Place in a list that shows first what needs attention; a status nobody knows counts as undecided."""
    return _ORDER.index(status) if status in _ORDER else 1
