"""Verdicts as the report shows them: banner, signals, decision path, and the tiles that they flag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..columns import BY_NAME
from . import flowchart
from .draw import key_mark
from .metrics import evidence_rows, plain, words
from .runs import RunData

# status of a signal -> icon and wording; an unknown word is shown as it is, with the icon of the undecided
STATUS = {
    "fired": ("fired", "fired"),
    "clear": ("clear", "clear"),
    "unknown": ("unknown", "unknown"),
    "not_evaluated": ("skipped", "not evaluated"),
    "not_comparable": ("skipped", "not comparable"),
}
_SEVERITY = {"high": 0, "medium": 1, "low": 2}
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
    signals.sort(key=lambda s: (_urgency(s["status"]), _SEVERITY.get(s["severity"], 1)))
    exit_code = verdict.get("exit_code", 0 if verdict["passed"] else 1)
    state = "passed" if verdict["passed"] else "incomplete" if exit_code == 3 else "failed"
    key = next((k for k, run in enumerate(runs) if run.label == verdict["run"]), 0)
    before, after = verdict.get("before"), str(verdict.get("after") or verdict["run"])
    walked = flowchart.steps(verdict)
    outcome = walked[-1]["next"] if walked else ""
    word = {"passed": "Passed", "failed": "Failed", "incomplete": "Incomplete"}[state]
    return {
        "flowchart": flowchart.draw(walked, outcome[:1].upper() + outcome[1:] or word, state) if walked else None,
        "state": state,
        "word": word,
        "exit_code": exit_code,
        "sentence": _decision(state, signals, str(before) if before is not None else None, after),
        "reasons": [_reason(signal) for signal in signals if signal["status"] != "clear"],
        "before": str(before) if before is not None else None,
        "after": after,
        "mark": key_mark(key) if len(runs) > 1 else "",
        "signals": signals,
        "path": [plain(step).replace("->", "→") for step in verdict.get("path") or []],
    }


def _decision(state: str, signals: Sequence[Mapping[str, Any]], before: str | None, after: str) -> str:
    """What to do with the candidate, in a sentence."""
    total = len(signals)
    fired = sum(signal["status"] == "fired" for signal in signals)
    lacking = [signal for signal in signals if signal["status"] not in ("fired", "clear")]
    waived = sum(signal["waived"] for signal in lacking)
    if not total:
        return "No guardrail was evaluated."
    of = f"of {total} guardrails" if total != 1 else "of 1 guardrail"
    replaced = f"replace {before}" if before else "be used as it is"
    if state == "failed":
        return f"{after} should not {replaced}: {fired} {of} fired."
    if state == "incomplete":
        open_ = len(lacking) - waived
        return f"No decision on {after}: {open_} {of} {'has' if open_ == 1 else 'have'} no evidence."
    rest = _unproven(len(lacking), waived)
    none = "none" if not fired else f"{fired}, which do not gate,"
    return f"{after} may {replaced}: {none} {of} fired{rest}."


def _unproven(lacking: int, waived: int) -> str:
    if not lacking:
        return ""
    how = ", waived by name" if waived == lacking else f", {waived} of them waived by name" if waived else ""
    return f"; {lacking} without evidence{how}"


def _reason(signal: Mapping[str, Any]) -> dict[str, Any]:
    """One line under the verdict: what fired or is missing, on how many tiles, and what to do."""
    found = signal["raw"] if isinstance(signal["raw"], Mapping) else {}
    judged = found.get("tiles_judged") or found.get("tiles_compared")
    where = ""
    if signal["status"] == "fired" and judged and found.get("tiles_fired") is not None:
        where = f"on {found['tiles_fired']} of {judged} tiles"
        if not found["tiles_fired"]:
            where = f"on the mean of {judged} tiles"
    return {**signal, "where": where}


def _signal(signal: Mapping[str, Any], waived: bool) -> dict[str, Any]:
    status = str(signal["status"])
    icon, word = STATUS.get(status, ("unknown", words(status).lower()))
    if waived and status not in ("fired", "clear"):
        word += " (waived)"
    evidence = signal.get("evidence") or {}
    metrics = signal.get("metrics") or []
    return {
        "raw": evidence,
        "waived": waived,
        "name": words(signal["name"]),
        "status": status,
        "icon": icon,
        "word": word,
        "severity": plain(signal["severity"]) if signal.get("severity") not in (None, "") else "",
        "metrics": ", ".join(BY_NAME[m].label if m in BY_NAME else str(m) for m in metrics),
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
