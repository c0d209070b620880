"""The decision flowchart as SVG: every question, the branch that was taken in strong lines, the others faint."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from .metrics import JUDGED_ON, SHOWN_BY, evidence_rows, plain, words

_WIDTH, _BOX, _SIGNAL = 620.0, 400.0, 168.0  # of the drawing, a question, a signal
_LINE, _GAP, _PAD = 15.0, 22.0, 9.0
_TAKEN = {"yes": "yes", "no": "no"}


def steps(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The questions in order; from the lines of the path where a verdict has no flowchart."""
    path = []
    for step in verdict.get("flowchart") or []:
        if not isinstance(step, Mapping) or "question" not in step:
            continue
        numbers = step.get("numbers")
        rows = evidence_rows(numbers) if isinstance(numbers, Mapping) else [("", plain(numbers))] if numbers else []
        path.append({
            "question": plain(step["question"]),
            "answer": plain(step.get("answer")) if step.get("answer") is not None else "",
            "numbers": _short(rows),
            "signal": words(str(step["signal"])) if step.get("signal") else None,
            "next": plain(step.get("next")) if step.get("next") is not None else "",
        })  # fmt: skip
    return path or [_from_line(plain(line)) for line in verdict.get("path") or []]


def _short(rows: Sequence[tuple[str, str]]) -> str:
    """The numbers of a step in one line: tiles first counted, then the means."""
    values = dict(rows)
    shown = values.pop(SHOWN_BY, None) or values.pop(JUDGED_ON, None)
    parts = [f"{name} {value}".strip() for name, value in values.items() if not name.startswith("tiles ")]
    if shown is not None:
        parts.insert(0, shown.split(" (")[0])
    return "; ".join(parts)


def _from_line(line: str) -> dict[str, Any]:
    """ "over_smoothing: PSNR up? yes -> fired": a name, the way, where it ended; any of them may be absent."""
    name, colon, rest = line.partition(": ")
    if not colon or " " in name:
        return {"question": line, "answer": "", "numbers": "", "signal": None, "next": ""}
    way, _, status = rest.rpartition(" -> ")
    answer = {"fired": "yes", "clear": "no"}.get(status, status)
    signal = words(name) if status == "fired" else None
    return {"question": f"{words(name)}?", "answer": answer, "numbers": way or rest, "signal": signal, "next": ""}


def chart(judged: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The one flowchart of a report: a drawing of a single verdict's path, or of several the answers side by side."""
    walked = [verdict for verdict in judged if verdict["steps"]]
    if not walked:
        return None
    if len(walked) == 1:
        verdict = walked[0]
        return {"svg": draw(verdict["steps"], _outcome(verdict), verdict["state"]), "rows": [], "ends": []}
    questions = list(dict.fromkeys(step["question"] for verdict in walked for step in verdict["steps"]))
    answers = [{step["question"]: step for step in verdict["steps"]} for verdict in walked]
    return {
        "svg": None,
        "rows": [(question, [steps.get(question) for steps in answers]) for question in questions],
        "ends": [(_outcome(verdict), verdict["state"]) for verdict in walked],
        "verdicts": walked,
    }


def _outcome(verdict: Mapping[str, Any]) -> str:
    end = verdict["steps"][-1]["next"]
    return end[:1].upper() + end[1:] or verdict["word"]


def draw(path: Sequence[Mapping[str, Any]], outcome: str, state: str) -> Markup:
    """The chart: questions down the left, what a "yes" raises on the right, the outcome at the bottom."""
    parts: list[str] = []
    y = 4.0
    for i, step in enumerate(path):
        question = textwrap.wrap(step["question"], 48) or [""]
        numbers = textwrap.wrap(step["numbers"], 56)[:3]
        height = 2 * _PAD + _LINE * (len(question) + len(numbers)) - 2
        answer = step["answer"]
        taken = "yes" if step["signal"] else "no" if answer in _TAKEN else "open" if answer else "no"
        parts.append(f'<rect class="fc-box" x="1" y="{y:.1f}" width="{_BOX:.0f}" height="{height:.1f}" rx="4"/>')
        at = y + _PAD + 10
        for line in question:
            parts.append(f'<text class="fc-q" x="14" y="{at:.1f}">{escape(line)}</text>')
            at += _LINE
        for line in numbers:
            parts.append(f'<text class="fc-n" x="14" y="{at:.1f}">{escape(line)}</text>')
            at += _LINE
        parts += _branch(step, taken, y + height / 2)
        parts += _down(answer, taken, y + height, last=i == len(path) - 1)
        y += height + _GAP
    parts += _end(outcome, state, y)
    height = y + _PAD * 2 + _LINE * len(textwrap.wrap(outcome, 50)) + 4
    spoken = " ".join(f"{s['question']} {s['answer']}{': ' + s['signal'] if s['signal'] else ''}." for s in path)
    return Markup(  # every text above is escaped or a constant
        f'<svg class="flowchart" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="Decision flowchart, '
        f'the path taken: {escape(spoken)} {escape(outcome)}">{"".join(parts)}</svg>'
    )


def _branch(step: Mapping[str, Any], taken: str, y: float) -> list[str]:
    """To the right: the signal that a "yes" raises, or that there is no evidence."""
    if not step["signal"] and taken == "no":
        # the branch that was not taken, so that a reader sees there is one
        return [f'<path class="fc-faint" d="M{_BOX + 1:.0f} {y:.1f}h20"/>'] if step["answer"] == "no" else []
    kind = "fired" if step["signal"] else "open"
    text = step["signal"] or f"{step['answer'][:1].upper()}{step['answer'][1:]}"
    lines = textwrap.wrap(text, 21)[:2]
    left, height = _WIDTH - _SIGNAL - 2, 14 + _LINE * len(lines)
    parts = [
        f'<path class="fc-taken fc-{kind}" d="M{_BOX + 1:.0f} {y:.1f}H{left - 8:.0f}"/>',
        f'<path class="fc-head fc-{kind}" d="M{left - 9:.0f} {y - 5:.1f}l9 5l-9 5z"/>',
        f'<text class="fc-a" x="{_BOX + 8:.0f}" y="{y - 6:.1f}">{"yes" if step["signal"] else ""}</text>',
        f'<rect class="fc-signal fc-{kind}" x="{left:.0f}" y="{y - height / 2:.1f}" width="{_SIGNAL:.0f}" '
        f'height="{height:.1f}" rx="4"/>',
    ]
    at = y - height / 2 + 18
    for line in lines:
        parts.append(f'<text class="fc-s" x="{left + 10:.0f}" y="{at:.1f}">{escape(line)}</text>')
        at += _LINE
    return parts


def _down(answer: str, taken: str, y: float, *, last: bool) -> list[str]:
    """To the next question: the walk goes on whatever the answer, because one fault does not rule out another."""
    word = answer if taken == "no" and answer in _TAKEN else ""
    parts = [
        f'<path class="fc-taken" d="M40 {y:.1f}v{_GAP - 8:.1f}"/>',
        f'<path class="fc-head" d="M35 {y + _GAP - 9:.1f}l5 9l5 -9z"/>',
    ]
    if word:
        parts.append(f'<text class="fc-a" x="50" y="{y + _GAP / 2 + 4:.1f}">{escape(word)}</text>')
    return parts


def _end(outcome: str, state: str, y: float) -> list[str]:
    lines = textwrap.wrap(outcome, 50)
    height = 2 * _PAD + _LINE * len(lines)
    parts = [f'<rect class="fc-end fc-{state}" x="1" y="{y:.1f}" width="{_BOX:.0f}" height="{height:.1f}" rx="12"/>']
    at = y + _PAD + 11
    for line in lines:
        parts.append(f'<text class="fc-q" x="14" y="{at:.1f}">{escape(line)}</text>')
        at += _LINE
    return parts
