"""The chart of a calibration as SVG: both populations with the threshold, and the precision-recall curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..base import svg

_NORMAL, _ANOMALOUS, _LIMIT = "#1f5fa8", "#c0392b", "#333333"
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 640, 170, 54, 30, 60


def calibration_chart(found: Mapping[str, Any]) -> str:
    """The SVG of what `Calibration.to_dict` gives."""
    both, limit = found["populations"], found["threshold"]["value"]
    parts = _histogram(both, limit)
    rows = 1
    if found["curve"]:
        parts += _curve(found["curve"], found["threshold"]["figures"], _TOP + _HEIGHT + _GAP)
        rows = 2
    height = _TOP + rows * (_HEIGHT + _GAP)
    label = (
        f"Histograms of the scores of {found['tiles']['normal']} normal and {found['tiles']['anomalous']} anomalous "
        f"tiles with the threshold {limit:.4g}" + (", and the precision-recall curve" if rows == 2 else "")
    )
    return svg.drawing(parts, _WIDTH, height, label, "text{font:12px sans-serif}")


def _histogram(both: Mapping[str, Any], limit: float) -> list[str]:
    edges: Sequence[float] = both["edges"]
    low, high = min(edges[0], limit), max(edges[-1], limit)
    span = (high - low) or 1.0
    most = max(1, *both["normal"], *both["anomalous"])

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 20) * (value - low) / span

    parts = [svg.element("text", "tiles by score: normal blue, anomalous red; line: the threshold", x=_LEFT, y=18)]
    for name, colour in (("normal", _NORMAL), ("anomalous", _ANOMALOUS)):
        for left, right, count in zip(edges[:-1], edges[1:], both[name], strict=True):
            if count:
                tall = _HEIGHT * count / most
                place = {"x": x(left), "y": _TOP + _HEIGHT - tall, "width": max(1.0, x(right) - x(left) - 1)}
                parts.append(svg.element("rect", **place, height=tall, fill=colour, fill_opacity="0.6"))
    ends = [(x(limit), _TOP), (x(limit), _TOP + _HEIGHT)]
    parts.append(svg.polyline(ends, stroke=_LIMIT, stroke_width=1.5))
    parts += [
        svg.element("text", f"{low:.4g}", x=_LEFT, y=_TOP + _HEIGHT + 16),
        svg.element("text", f"{high:.4g}", x=_WIDTH - 20, y=_TOP + _HEIGHT + 16, text_anchor="end"),
        svg.element("text", str(most), x=4, y=_TOP + 10),
    ]
    return parts


def _curve(curve: Sequence[Mapping[str, float]], figures: Mapping[str, Any], top: float) -> list[str]:
    def at(recall: float, precision: float) -> tuple[float, float]:
        return _LEFT + (_WIDTH - _LEFT - 20) * recall, top + _HEIGHT * (1 - precision)

    parts = [
        svg.element("text", "precision (up) over recall (right), 0 to 1; dot: the threshold", x=_LEFT, y=top - 12),
        svg.polyline([at(row["recall"], row["precision"]) for row in curve], stroke=_NORMAL, stroke_width=1.5),
        svg.polyline([at(0, 1), at(0, 0), at(1, 0)], stroke=_LIMIT, stroke_width=0.7),
    ]
    if figures.get("precision") is not None and figures.get("recall") is not None:
        x, y = at(figures["recall"], figures["precision"])
        parts.append(svg.element("circle", cx=x, cy=y, r=4, fill=_ANOMALOUS))
    return parts
