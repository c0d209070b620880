"""A dock for napari: a noisy and a denoised layer in, verdict, residual, evidence and marks out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checking import check
from ..runs.brief import brief
from ..runs.verdict import Verdict
from ..trust.residual import ResidualTests, residual_tests
from .extras import need
from .marks import Mark, marks_of

__all__ = ["Findings", "findings", "judge_dock"]

EDGE = {"removed": "red", "invented": "deepskyblue"}
LAYERS = ("semnr residual", "semnr evidence", "semnr marks")


@dataclass(frozen=True)
class Findings:
    """What the dock shows of a pair.

    Attributes
    ----------
    verdict : Verdict
        As `semnr.check` gives it.
    tests : ResidualTests
        With the evidence map.
    residual : ndarray, (H, W) or (T, H, W) float32
        Noisy minus denoised, in grey levels.
    """

    verdict: Verdict
    tests: ResidualTests
    residual: np.ndarray

    @property
    def marks(self) -> list[Mark]:
        return marks_of(self.tests)


def findings(noisy: Any, denoised: Any, *, data_range: float | None = None, scan_axis: int = -1) -> Findings:
    """Judge a pair of images or stacks.

    Parameters
    ----------
    noisy, denoised : array, (H, W) or (T, H, W)
        Input and output of the denoiser on one scale.
    data_range : float, optional
        Width of the scale; required for floating images.
    scan_axis : -1 or -2
        Along which axis the beam scans.

    Returns
    -------
    Findings

    Raises
    ------
    ValueError
        The images have other shapes than these, or unlike ones.
    """
    x, d = np.asarray(noisy), np.asarray(denoised)
    if x.shape != d.shape or x.ndim not in (2, 3):
        raise ValueError(f"noisy is {x.shape} and denoised {d.shape}; accepted: one shape, (H, W) or (T, H, W)")
    verdict = check(x, d, data_range=data_range, scan_axis=scan_axis)
    stack = (x, d) if x.ndim == 2 else (x[:, None], d[:, None])
    tests = residual_tests(*stack, data_range=data_range, scan_axis=scan_axis, return_maps=True)
    return Findings(verdict, tests, x.astype(np.float32) - d.astype(np.float32))


def judge_dock(napari_viewer: Any = None) -> Any:
    """The dock: napari calls this from its menu.

    Parameters
    ----------
    napari_viewer : napari.Viewer, optional
        Default: the current one.

    Returns
    -------
    magicgui Container
        With the fields `noisy`, `denoised`, `data_range` (0: that of the dtype), `scan_axis`, `judge` and `verdict`.
    """
    napari = need("napari", "napari")
    widgets = need("magicgui.widgets", "napari")
    viewer = napari.current_viewer() if napari_viewer is None else napari_viewer
    noisy = widgets.create_widget(annotation=napari.layers.Image, name="noisy")
    denoised = widgets.create_widget(annotation=napari.layers.Image, name="denoised")
    top = widgets.FloatSpinBox(name="data_range", label="data range (0: of the dtype)", min=0, max=1e9, value=0)
    axis = widgets.ComboBox(name="scan_axis", label="scan lines are", choices=[("rows", -1), ("columns", -2)])
    button = widgets.PushButton(name="judge", text="Judge")
    text = widgets.TextEdit(name="verdict", label="verdict")
    text.read_only = True
    made: list[Any] = []

    def apart(*_: Any) -> None:
        """Two layers and both fields on the same one: the second field takes the other."""
        panel.reset_choices()  # napari does it too, perhaps later
        others = [layer for layer in denoised.choices if layer is not noisy.value and layer not in made]
        if denoised.value is noisy.value and others:
            denoised.value = others[0]

    def judge() -> None:
        if noisy.value is None or denoised.value is None or noisy.value is denoised.value:
            text.value = "choose two layers: a noisy one and a denoised one"
            return
        try:
            if noisy.value.rgb or denoised.value.rgb:
                raise ValueError("a layer is a colour image; accepted: grey images")
            found = findings(noisy.value.data, denoised.value.data, data_range=top.value or None, scan_axis=axis.value)
        except (ValueError, TypeError) as error:
            text.value = str(error)
            return
        for layer in [layer for layer in made if layer in viewer.layers]:
            viewer.layers.remove(layer)
        made[:] = _shown(viewer, found, noisy.value)
        text.value = _told(found.verdict)

    button.changed.connect(judge)
    panel = widgets.Container(widgets=[noisy, denoised, top, axis, button, text])
    panel.native_parent_changed.connect(apart)
    viewer.layers.events.inserted.connect(apart)
    return panel


def _told(verdict: Verdict) -> str:
    """The lines of the terminal without the last, which is about the command, and then every rule."""
    return "\n".join([*(line for _, line in brief(verdict, width=1000)[:-1]), "", str(verdict)])


def _shown(viewer: Any, found: Findings, like: Any) -> list[Any]:
    """Layers of the residual, the evidence and the marks, where the noisy layer lies."""
    at = {"scale": like.scale, "translate": like.translate}
    reach = 4 * float(found.residual.std()) or 1.0
    residual = viewer.add_image(
        found.residual, name=LAYERS[0], colormap="bwr", contrast_limits=(-reach, reach), visible=False, **at
    )
    assert found.tests.maps is not None  # they were asked for
    evidence = np.abs(found.tests.maps["evidence"])
    evidence = evidence[0] if found.residual.ndim == 2 else evidence
    limits = (0.0, max(float(evidence.max()), float(found.tests.threshold.max())))
    shown = viewer.add_image(evidence, name=LAYERS[1], colormap="magma", contrast_limits=limits, visible=False, **at)
    marks = found.marks
    boxes = [_corners(mark, found.residual.ndim) for mark in marks]
    options: dict[str, Any] = {"ndim": found.residual.ndim}
    if boxes:
        options |= {
            "shape_type": "rectangle",
            "edge_color": [EDGE[mark.kind] for mark in marks],
            "features": {"z": [round(mark.z, 1) for mark in marks], "kind": [mark.kind for mark in marks]},
            "text": {"string": "{z}", "color": "yellow", "anchor": "upper_left", "size": 9},
        }
    drawn = viewer.add_shapes(boxes or None, name=LAYERS[2], face_color="transparent", edge_width=1, **options, **at)
    return [residual, shown, drawn]


def _corners(mark: Mark, ndim: int) -> np.ndarray:
    """The four corners of a mark, with 3 px of air, in the axes of the layer."""
    top, left = mark.top - 3, mark.left - 3
    bottom, right = mark.top + mark.height + 3, mark.left + mark.width + 3
    corners = np.array([(top, left), (top, right), (bottom, right), (bottom, left)])
    return corners if ndim == 2 else np.insert(corners, 0, mark.slice - 1, axis=1)
