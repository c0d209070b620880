"""The napari plugin in a real window under Xvfb: two files dropped, the verdict in the dock, marks and residual drawn.

The window needs `pip install 'semnr[napari]'` and the packages xvfb, libegl1, libxkbcommon-x11-0 and xcb's libraries.
SEMNR_REQUIRE=napari, as in CI, makes a failure of a missing one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import semnr

PAINTED = (slice(40, 48), slice(56, 64))


def _missing() -> str:
    if shutil.which("xvfb-run") is None:
        return "xvfb-run: apt-get install xvfb"
    if importlib.util.find_spec("napari") is None:
        return "napari: pip install 'semnr[napari]'"
    names = {entry.name for entry in importlib.metadata.entry_points(group="napari.manifest")}
    return "" if "semnr" in names else "the entry point of the plugin: pip install ."


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What the process saw, and the folder of its pictures."""
    if missing := _missing():
        if "napari" in os.environ.get("SEMNR_REQUIRE", "").split(","):
            pytest.fail(f"SEMNR_REQUIRE names napari, but there is no {missing}")
        pytest.skip(f"no {missing}")
    folder = tmp_path_factory.mktemp("window")
    tile = semnr.synth.tile("lines", 128, seed=3)
    denoised = tile.reference("uint8").copy()
    denoised[PAINTED] = np.clip(denoised[PAINTED].astype(int) + 90, 0, 255)
    Image.fromarray(tile.noisy(dtype="uint8")).save(folder / "site_noisy.tif")
    Image.fromarray(denoised).save(folder / "site_denoised.tif")
    script = Path(__file__).with_name("napari_window.py")
    command = ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24", sys.executable, str(script)]
    command += [str(folder / "site_noisy.tif"), str(folder / "site_denoised.tif"), str(folder)]
    # a home of its own: napari keeps settings, and asks at the first start
    own = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder), "QT_QPA_PLATFORM": "xcb"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | own, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "seen.json").read_text(encoding="utf-8")), folder


def test_two_dropped_files_are_judged_and_the_dock_says_so(window) -> None:
    seen, _ = window
    assert seen["empty"].startswith("choose two layers")
    assert seen["chosen"] == ["site_noisy", "site_denoised"]
    first, second = seen["verdict"].splitlines()[:2]
    assert first.startswith("FAILED")
    assert "invented structure" in second
    assert seen["dock"] is True


def test_residual_evidence_and_marks_are_layers_and_are_replaced(window) -> None:
    seen, _ = window
    made = [tuple(layer) for layer in seen["layers"][2:]]
    assert made == [
        ("semnr residual", "Image", False),
        ("semnr evidence", "Image", False),
        ("semnr marks", "Shapes", True),
    ]
    rows, columns = zip(*seen["marks"], strict=True)
    assert min(rows) < 40 < 48 < max(rows)
    assert min(columns) < 56 < 64 < max(columns)
    assert seen["after"] == 5


def test_the_mark_is_drawn_around_the_painted_square(window) -> None:
    seen, folder = window
    canvas = np.asarray(Image.open(folder / "canvas.png").convert("RGB")).astype(int)
    red, green, blue = np.moveaxis(canvas, -1, 0)
    frame = (blue - red > 60) & (green - red > 30)  # deep sky blue; the image itself is grey
    rows, columns = np.nonzero(frame)
    assert rows.size > 50
    square = _on_canvas(seen, [[40, 56], [48, 64]])
    assert rows.min() < square[0, 0] < square[1, 0] < rows.max()
    assert columns.min() < square[0, 1] < square[1, 1] < columns.max()
    assert rows.max() - rows.min() < 3 * (square[1, 0] - square[0, 0])


def test_the_residual_is_blue_where_the_square_was_painted(window) -> None:
    seen, folder = window
    shown = np.asarray(Image.open(folder / "residual.png").convert("RGB")).astype(int)
    (top, left), (bottom, right) = _on_canvas(seen, [[41, 57], [47, 63]]).round().astype(int)
    inside = shown[top:bottom, left:right]
    assert inside.size > 100
    assert np.median(inside[..., 2] - inside[..., 0]) > 150
    assert abs(np.median(shown[..., 2] - shown[..., 0])) < 60  # noise elsewhere


def _on_canvas(seen: dict[str, Any], points: list[list[int]]) -> np.ndarray:
    """Where pixels (row, column) of the image lie in a picture of the canvas."""
    middle, zoom, size = (np.array(v) for v in (seen["camera"]["center"], seen["camera"]["zoom"], seen["canvas"]))
    return (np.array(points) - middle) * zoom + size / 2
