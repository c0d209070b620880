"""A person at napari, as a process under Xvfb: opens the dock, drops two files, presses Judge, takes pictures.

python napari_window.py NOISY DENOISED OUT    # OUT/seen.json, OUT/window.png, OUT/residual.png

Needs napari with a Qt binding, and a display: `xvfb-run -a`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import napari
from PIL import Image
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QApplication

noisy, denoised, out = map(Path, sys.argv[1:])


def settle() -> None:
    """Let Qt and OpenGL draw what is waiting."""
    for _ in range(10):
        QApplication.processEvents()
        time.sleep(0.02)


def picture(name: str, canvas_only: bool) -> list[int]:
    settle()
    shown = viewer.screenshot(canvas_only=canvas_only, flash=False)
    Image.fromarray(shown).save(out / name)
    return list(shown.shape[:2])


def dropped(*paths: Path) -> None:
    """The files, let go over the canvas as a file manager does it."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    keys = Qt.KeyboardModifier.NoModifier
    event = QDropEvent(QPointF(50, 50), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, keys)
    viewer.window._qt_viewer.dropEvent(event)
    settle()


viewer = napari.Viewer()
viewer.window.resize(1300, 850)
dock, fields = viewer.window.add_plugin_dock_widget("semnr")  # by the manifest of the installed package
fields.judge.native.click()  # nothing is there yet
seen: dict[str, Any] = {"empty": fields.verdict.value}
dropped(noisy)
dropped(denoised)
seen["chosen"] = [fields.noisy.value.name, fields.denoised.value.name]
viewer.layers[noisy.stem].visible = False
fields.judge.native.click()
settle()
seen["verdict"] = fields.verdict.value
seen["dock"] = dock.isVisible() and fields.verdict.native.isVisible()
seen["layers"] = [[layer.name, type(layer).__name__, layer.visible] for layer in viewer.layers]
seen["marks"] = [[float(v) for v in corner] for box in viewer.layers["semnr marks"].data for corner in box]
seen["window"] = picture("window.png", canvas_only=False)
seen["camera"] = {"center": list(viewer.camera.center[-2:]), "zoom": float(viewer.camera.zoom)}
seen["canvas"] = picture("canvas.png", canvas_only=True)
viewer.layers["semnr marks"].visible = viewer.layers[denoised.stem].visible = False
viewer.layers["semnr residual"].visible = True
picture("residual.png", canvas_only=True)
fields.judge.native.click()  # again: its own layers are replaced
seen["after"] = len(viewer.layers)
(out / "seen.json").write_text(json.dumps(seen), encoding="utf-8")
viewer.close()
