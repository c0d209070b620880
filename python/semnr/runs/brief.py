"""A verdict in at most 15 lines for a terminal: the verdict, rules that fired, rules without evidence, worst tiles."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.text import in_line
from .readings import axes_by_state, readings, tiles_of, words

if TYPE_CHECKING:
    from .verdict import Signal, Verdict

LINES = 15
_FIRED_SHOWN, _OPEN_SHOWN, _TILES_SHOWN, _NUMBERS_SHOWN = 3, 2, 4, 2
_STYLES = {"failed": "bad", "passed": "good", "not refuted": "open", "incomplete": "open"}

Line = tuple[str, str]  # style ("bad", "good", "open", "quiet" or ""), text


def brief(verdict: Verdict, look_at: Path | None = None, width: int = 100) -> list[Line]:
    """Lines of at most `width` characters with their styles, `LINES` of them at most."""
    against = f" against {in_line(verdict.before)}" if verdict.before else ""
    counted = f"{len(verdict.fired)} of {len(verdict.signals)} guardrails fired"
    who = f"{in_line(verdict.after or 'candidate')}{against}, {verdict.tiles} {_plural('tile', verdict.tiles)}"
    head = f"{verdict.outcome.upper()}: {who}; {counted if verdict.fired else 'no guardrail fired'}"
    lines: list[Line] = [(_STYLES[verdict.outcome], line) for line in _wrapped(head, width)[:2]]
    fired = [f"  {words(signal.name)} {_numbers(signal)}" for signal in verdict.fired]
    lines += [("bad", _short(line, width)) for line in _cut(fired, _FIRED_SHOWN, "  and {} more")]
    if verdict.fired:
        lines.append(("", _short(f"do: {verdict.fired[0].advice}", width)))
    lines += [("open", line) for line in _open(verdict)]  # whole: cut or wrapped at the end, as there is room
    notes = [f"note: {in_line(note)}" for note in verdict.notes]
    lines += [("open", _short(line, width)) for line in _cut(notes, _OPEN_SHOWN, "{} more notes: -v")]
    if verdict.waived:
        lines.append(("quiet", _short(f"waived by name: {', '.join(map(words, verdict.waived))}", width)))
    if verdict.axes:
        known = "; ".join(f"{state}: {names}" for state, names in axes_by_state(verdict.axes))
        lines.append(("quiet", _short(known, width)))
    for signal in verdict.signals:
        if signal.status == "clear" and "p_wafer" in signal.evidence and len(lines) < LINES - 4:
            p, level = signal.evidence["p_wafer"], signal.evidence["level_held_per_wafer"]
            lines.append(
                ("quiet", _short(f"{words(signal.name)}: p {p:.2g}; of harmless wafers {level:.3g} fire", width))
            )
    if verdict.worth and len(lines) < LINES - 3:
        lines.append(("quiet", _short(in_line(verdict.worth["said"]), width)))
    if tiles := _worst(verdict.fired):
        lines.append(("", _short(f"look at: {', '.join(map(in_line, tiles))}", width)))
    if look_at is not None:
        lines.append(("", f"report: {in_line(look_at)}"))
    lines.append(("quiet", "-v shows every guardrail with its numbers"))
    if verdict.standing and len(lines) < LINES:  # a verdict with many notes has it with -v
        lines.insert(len(_wrapped(head, width)[:2]), ("", _short(in_line(verdict.standing), width)))
    return _fitted(lines, width)


def _fitted(lines: list[Line], width: int) -> list[Line]:
    """Lines that are too long are wrapped while there is room for it, and cut from then on."""
    room, out = LINES - len(lines), []
    for style, text in lines:
        parts = _wrapped(text, width)
        more = min(room, len(parts) - 1)
        room -= more
        wrapped = [*parts[:more], _short(" ".join([parts[more], *map(str.strip, parts[more + 1 :])]), width)]
        out += [(style, part) for part in wrapped]
    return out


def _numbers(signal: Signal) -> str:
    beyond = [r for r in readings(signal.evidence, signal.limits) if r.beyond][:_NUMBERS_SHOWN]
    said = ", ".join(f"{r.label} {r.value}" + (f" (limit {r.limit})" if r.limit else "") for r in beyond)
    where = tiles_of(signal.evidence)
    return f"{where}: {said}" if where and said else where or said


def _open(verdict: Verdict) -> list[str]:
    """Guardrails without evidence: those of one need or reason in one line."""
    groups: dict[str, list[str]] = {}
    for signal in verdict.lacking:
        reason = f"bring {signal.needs}" if signal.needs else in_line(signal.evidence.get("reason", "no evidence"))
        groups.setdefault(reason, []).append(words(signal.name))
    lines = [f"{reason} (not judged: {', '.join(names)})" for reason, names in groups.items()]
    return _cut(lines, _OPEN_SHOWN, "not judged, for {} more reasons: -v")


def _cut(lines: list[str], most: int, rest: str) -> list[str]:
    """At most `most` lines; where there are more, the last one says how many."""
    return lines if len(lines) <= most else [*lines[: most - 1], rest.format(len(lines) - most + 1)]


def _worst(fired: Sequence[Signal]) -> list[str]:
    """Tiles to look at: the worst of each guardrail in turn."""
    tiles: dict[str, None] = {}
    for place in range(_TILES_SHOWN):
        for signal in fired:
            if place < len(signal.regions):
                tiles.setdefault(str(signal.regions[place]["tile"]))
    return list(tiles)[:_TILES_SHOWN]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="    ") or [""]


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(1, width - 1)].rstrip() + "…"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def as_html(verdict: Verdict, strip: str = "") -> str:
    """The same for a notebook; `strip`: pictures of the worst tiles, as HTML."""
    colours = {"bad": "#a5281b", "good": "#12694d", "open": "#7a5200", "quiet": "#5a6472", "": "inherit"}
    rows = [
        f'<div style="color:{colours[style]}{";font-weight:600" if i == 0 else ""}">{escape(text)}</div>'
        for i, (style, text) in enumerate(brief(verdict, width=160)[:-1])
    ]
    edge = f"border-left:4px solid {colours[_STYLES[verdict.outcome]]};padding:4px 12px"
    return f'<div style="{edge}">{"".join(rows)}{strip}</div>'
