"""Drawings as SVG text: elements with escaped attributes, and the file around them."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

Value = str | int | float


def element(name: str, *inside: str, **attributes: Value) -> str:
    """One element; `inside` is markup, or what `words` made of text.

    >>> element("circle", cx=3, cy=2.25, class_="dot", stroke_width=1.5)
    '<circle cx="3" cy="2.2" class="dot" stroke-width="1.5"/>'
    >>> element("text", words("a < b"), x=0)
    '<text x="0">a &lt; b</text>'
    """
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{_written(value)}"' for key, value in attributes.items())
    return f"<{name}{told}>{''.join(inside)}</{name}>" if inside else f"<{name}{told}/>"


def words(text: object) -> str:
    """Text as markup, where nothing of it is read as markup."""
    return escape(str(text), quote=False)


def polyline(points: Iterable[tuple[float, float]], **attributes: Value) -> str:
    """A line through points."""
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), fill="none", **attributes)


def drawing(parts: Iterable[str], width: float, height: float, label: str, style: str = "") -> str:
    """A file of its own that holds these elements; `label` is what a screen reader says."""
    css = [f"<style>{style}</style>"] if style else []
    size: dict[str, Value] = {"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"}
    told: dict[str, Value] = {"xmlns": "http://www.w3.org/2000/svg", **size, "role": "img", "aria_label": label}
    return element("svg", *css, *parts, **told) + "\n"


def _written(value: Value) -> str:
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))
