"""Images side by side in matplotlib, with marks on them. matplotlib is in the extra `semnr[plot]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .pictures import flat, window

GREY, RESIDUAL, EVIDENCE, SHARE = "grey", "residual", "evidence", "share"
_COLOURS = {"removed": "#d62728", "invented": "#1f77b4"}
_EVIDENCE_RANGE = 8.0  # standard errors at the ends of the colours
_SHARE_RANGE = 1.5  # of the structure; 1: all of it came through


@dataclass(frozen=True)
class Panel:
    """One image of a drawing.

    Attributes
    ----------
    title : str
        What stands above it.
    pixels : ndarray, (H, W)
        NaN is left blank.
    kind : {"grey", "residual", "evidence", "share"}
        How values become colours: an image; a difference about 0; standard errors about 0; a share about 1.
    marks : sequence of mapping
        Places: "kind" ("removed" or "invented"), "row", "col", "height", "width", "z".
    """

    title: str
    pixels: np.ndarray
    kind: str = GREY
    marks: Sequence[Mapping[str, Any]] = ()


def pyplot(who: str) -> Any:
    """matplotlib.pyplot.

    Raises
    ------
    ImportError
        It is not installed: what needs it, and how to get it.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f"{who} needs matplotlib: pip install 'semnr[plot]'") from error
    return plt


def draw(who: str, panels: Sequence[Panel], axes: Any = None) -> np.ndarray:
    """The panels side by side: (panels,) array of matplotlib axes.

    Raises
    ------
    ValueError
        Another number of axes than of panels.
    """
    plt = pyplot(who)
    if axes is None:
        _, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 4.4), squeeze=False, layout="constrained")
    places = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(places) != len(panels):
        raise ValueError(f"axes has {len(places)} entries; accepted: {len(panels)}, one a picture, or None")
    for panel, ax in zip(panels, places, strict=True):
        ax.imshow(panel.pixels, interpolation="nearest", **_colours(panel))
        ax.set_title(panel.title)
        ax.set_axis_off()
        for mark in panel.marks:
            _draw_mark(plt, ax, mark)
    return places


def as_panel(title: str, pixels: Any, kind: str = GREY, marks: Sequence[Mapping[str, Any]] = ()) -> Panel:
    """A panel of an array or tensor of shape (H, W), (C, H, W) or (1, C, H, W)."""
    array = np.asarray(pixels.detach().cpu() if hasattr(pixels, "detach") else pixels)
    return Panel(title, flat(array[0] if array.ndim == 4 and len(array) == 1 else array), kind, marks)


def _colours(panel: Panel) -> dict[str, Any]:
    if panel.kind == GREY:
        low, high = window(panel.pixels)
        return {"cmap": "gray", "vmin": low, "vmax": high}
    if panel.kind == SHARE:
        return {"cmap": "viridis", "vmin": 0.0, "vmax": _SHARE_RANGE}
    finite = panel.pixels[np.isfinite(panel.pixels)]
    spread = float(np.percentile(np.abs(finite), 99.5)) if finite.size else 0.0
    end = _EVIDENCE_RANGE if panel.kind == EVIDENCE else spread or 1.0
    return {"cmap": "gray" if panel.kind == RESIDUAL else "RdBu_r", "vmin": -end, "vmax": end}


def _draw_mark(plt: Any, ax: Any, mark: Mapping[str, Any]) -> None:
    colour = _COLOURS.get(mark["kind"], _COLOURS["removed"])
    height, width = (max(float(mark[side]) + 6, 12) for side in ("height", "width"))
    left, top = float(mark["col"]) - width / 2, float(mark["row"]) - height / 2
    ax.add_patch(plt.Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=1.5))
    said = f"{mark['kind']} {abs(float(mark['z'])):.1f} σ"
    ground = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
    ax.annotate(said, (left, top), xytext=(0, 3), textcoords="offset points", color=colour, fontsize=8, bbox=ground)
