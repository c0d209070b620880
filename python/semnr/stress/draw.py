"""The sensitivity matrix as a text table, as a heat map in SVG, and as an HTML page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from ..base import svg
from ..base.text import table

if TYPE_CHECKING:
    from .run import Stress

_CELL, _LEFT, _TOP, _GAP = 26, 250, 150, 8
# light to dark blue: readable in grey and with any colour vision
_RAMP = ((247, 251, 255), (198, 219, 239), (107, 174, 214), (33, 113, 181), (8, 48, 107))


def text(stress: Stress) -> str:
    """From which strength on each metric and signal notices each fault; "-": never."""
    rows = []
    units = {row["fault"]: row["unit"] for row in stress.rows}
    seen = [n for n in stress.notices if any(t[n] is not None for t in stress.thresholds().values())]
    for fault, first in stress.thresholds().items():
        rows.append((f"{fault} ({units[fault]})", *("-" if first[n] is None else f"{first[n]:g}" for n in seen)))
    held = stress.settings
    head = (
        f"stress: {held['source']}, {held['tiles']} tiles of {held['side']} px, seed {held['seed']}. The strength from "
        f"which on at least {held['noticed_from']:.0%} of the tiles show it:"
    )
    names = [n.replace("_", " ") for n in seen]
    parts = []
    for start in range(0, len(names), 7):
        chunk = slice(1 + start, 1 + start + 7)
        parts.append(table(("fault", *names[start : start + 7]), [(r[0], *r[chunk]) for r in rows]))
    blind = [n.replace("_", " ") for n in stress.notices if n not in seen]
    if blind:
        parts.append(f"notice none of these at any strength here: {', '.join(blind)}")
    worst = max(stress.harmless["signals"].values(), default=0.0)
    parts.append(f"On fresh noise and nothing else the signals flag at most {worst:.1%} of the tiles.")
    return head + "\n\n" + "\n\n".join(parts)


def heat_map(stress: Stress) -> str:
    """Faults by strength down, metrics and signals across; the darker, the more tiles notice. A metric that gets better
    under the fault wears a plus: it was fooled."""
    metrics = list(stress.rows[0]["metrics"]) if stress.rows else []
    names = stress.notices
    xs = {name: _LEFT + i * _CELL + (_GAP if name not in metrics else 0) for i, name in enumerate(names)}
    parts, y, last = [], _TOP, None
    for name in names:
        x = xs[name] + _CELL // 2 + 4
        turned = f"rotate(-55 {x} {_TOP - 8})"
        parts.append(svg.element("text", _plain(name), x=x, y=_TOP - 8, transform=turned))
    for row in stress.rows:
        if row["fault"] != last:
            y += _GAP if last is not None else 0
            parts.append(svg.element("text", _plain(row["fault"]), class_="f", x=8, y=y + 17))
            last = row["fault"]
        word = max(row["truth"], key=row["truth"].__getitem__)
        mark = {"harmful": "●", "grey": "◐", "harmless": "○"}[word]
        strength = svg.words(f"{row['strength']:g} {row['unit']} {mark}")
        parts.append(svg.element("text", strength, class_="s", x=_LEFT - 8, y=y + 17))
        for name in names:
            parts.append(_cell(row, name, stress.share(row, name), xs[name], y))
        y += _CELL
    width = max(xs.values(), default=_LEFT) + _CELL + 90
    key = "● harmful  ◐ between  ○ harmless (most tiles); + the metric got better"
    parts.append(svg.element("text", svg.words(key), x=8, y=y + 24))
    style = (
        "text{font:12px system-ui,sans-serif;fill:#222}.f{font-weight:600}.s{text-anchor:end;fill:#555}"
        ".p{text-anchor:middle;font-weight:700}"
    )
    label = "Sensitivity matrix: which metric and signal notices which fault"
    return svg.drawing(parts, width, y + 36, label, style)


def _plain(name: str) -> str:
    return svg.words(name.replace("_", " "))


def _cell(row: dict[str, Any], name: str, share: float, x: int, y: int) -> str:
    square: dict[str, int] = {"x": x, "y": y, "width": _CELL - 2, "height": _CELL - 2}
    if share != share:
        return svg.element("rect", **square, fill="none", stroke="#ccc")
    fooled = name in row["metrics"] and share > 0 and row["metrics"][name]["adverse"] < 0.5 * share
    more = f", change {row['metrics'][name]['change']:+.3g}" if name in row["metrics"] else ""
    title = f"{row['fault']} {row['strength']:g} {row['unit']}: {name} on {share:.0%} of the tiles{more}"
    parts = [svg.element("title", _plain(title))]
    parts.append(svg.element("rect", **square, fill=_colour(share), stroke="#d0d7de", stroke_width=0.5))
    if fooled:
        ink = f"fill:{'#fff' if share > 0.6 else '#222'}"
        parts.append(svg.element("text", "+", class_="p", x=x + _CELL // 2 - 1, y=y + 17, style=ink))
    return svg.element("g", *parts)


def _colour(share: float) -> str:
    place = min(max(share, 0.0), 1.0) * (len(_RAMP) - 1)
    low = min(int(place), len(_RAMP) - 2)
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True))
    return "#" + "".join(f"{v:02x}" for v in mixed)


def page(stress: Stress) -> str:
    """One self-contained HTML file: the heat map, and the numbers behind it as a table."""
    held = stress.settings
    head = f"{held['source']}: {held['tiles']} tiles of {held['side']} px, seed {held['seed']}"
    columns = "".join(f"<th>{escape(n.replace('_', ' '))}</th>" for n in stress.notices)
    rows = []
    for row in stress.rows:
        cells = "".join(_percent(stress.share(row, n)) for n in stress.notices)
        name = f"{escape(row['fault'].replace('_', ' '))} {row['strength']:g} {escape(row['unit'])}"
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}"
        "svg{max-width:100%;height:auto}table{border-collapse:collapse;font-size:12px}"
        "th,td{border:1px solid #d0d7de;padding:2px 6px;text-align:right}th{text-align:left;background:#f6f8fa}"
        ".w{overflow-x:auto}"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>semnr stress</title>'
        f"<style>{style}</style></head><body><h1>What notices what</h1><p>{escape(head)}. Each fault is put onto a "
        "denoised image that has nothing wrong; a cell is the share of tiles on which a metric moves further than "
        "fresh noise moves it, or on which a signal fires. Darker is more; a plus is a metric that improved.</p>"
        f"{heat_map(stress)}<h2>The shares</h2><div class='w'><table><tr><th>fault</th>{columns}</tr>{''.join(rows)}"
        "</table></div></body></html>\n"
    )


def _percent(share: float) -> str:
    return f"<td>{'-' if share != share else f'{share:.0%}'}</td>"
