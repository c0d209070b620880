"""Loggers and viewers: MLflow's and Weights & Biases' real stores, TensorBoard's event files, ROIs, the napari dock.

A test is skipped where its package is absent: `pip install 'semnr[viewers]'` brings all of them.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import semnr
from semnr.guarding import mlflow as semnr_mlflow
from semnr.integrations import marks, tensorboard
from semnr.integrations import napari as dock
from semnr.integrations import wandb as semnr_wandb

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A noisy tile, and a denoised one in which a bright square of 8 px was painted."""
    tile = semnr.synth.tile("lines", 128, seed=3)
    denoised = tile.reference("uint8").copy()
    denoised[40:48, 56:64] = np.clip(denoised[40:48, 56:64].astype(int) + 90, 0, 255)
    return tile.noisy(dtype="uint8"), denoised


@pytest.fixture(scope="module")
def judged(pair) -> tuple[semnr.Verdict, semnr.Profile]:
    tile = semnr.synth.tile("lines", 128, seed=3)
    verdict = semnr.check(*pair, reference=tile.reference("uint8"))
    assert verdict.profile is not None
    return verdict, verdict.profile


def test_marks_of_an_invented_square_lie_on_it(pair) -> None:
    found = marks.marks_of(semnr.residual_tests(*pair))
    strongest = max(found, key=lambda mark: abs(mark.z))
    assert strongest.kind == "invented"
    assert strongest.slice == 1
    assert abs(strongest.top + strongest.height / 2 - 43.5) < 4
    assert abs(strongest.left + strongest.width / 2 - 59.5) < 4


def test_the_table_is_what_imagej_imports(pair, tmp_path: Path) -> None:
    found = semnr.residual_tests(*pair)
    assert marks.write_csv(tmp_path / "marks.csv", found) == len(marks.marks_of(found)) > 0
    with (tmp_path / "marks.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["Kind"] for row in rows} <= {"removed", "invented"}
    assert [float(row["BX"]) for row in rows] == [mark.left for mark in marks.marks_of(found)]
    marks.write_csv(tmp_path / "marks.csv", found)  # its own file again


def test_somebody_elses_file_is_kept(pair, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FileExistsError, match=r"mine\.csv"):
        marks.write_csv(tmp_path / "mine.csv", semnr.residual_tests(*pair))
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"


def test_marks_of_a_run_name_its_tiles(pair, tmp_path: Path) -> None:
    noisy, denoised = pair
    run = semnr.score(np.stack([denoised] * 2), noisy=np.stack([noisy] * 2), out=tmp_path / "run", metrics=("psnr",))
    found = marks.marks_of(run)
    names = {mark.tile for mark in found}
    assert len(names) == 2
    assert {mark.slice for mark in found} == {1, 2}
    one = sorted(names)[0]
    assert {mark.tile for mark in marks.marks_of(tmp_path / "run", one)} == {one}
    with pytest.raises(ValueError, match="tile is 'nowhere'"):
        marks.marks_of(run, "nowhere")
    with pytest.raises(TypeError, match="found is int"):
        marks.marks_of(3)


def test_rois_read_back_with_place_kind_and_slice(pair, tmp_path: Path) -> None:
    roifile = pytest.importorskip("roifile")
    found = semnr.residual_tests(*pair)
    expected = marks.marks_of(found)
    assert marks.write_rois(tmp_path / "marks.zip", found) == len(expected)
    read = roifile.ImagejRoi.fromfile(tmp_path / "marks.zip")
    assert [roi.name for roi in read] == [mark.label for mark in expected]
    assert [(roi.left, roi.top) for roi in read] == [(round(mark.left), round(mark.top)) for mark in expected]
    assert {roi.position for roi in read} == {1}
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("a.txt", "mine")
    with pytest.raises(FileExistsError):
        marks.write_rois(tmp_path / "other.zip", found)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("roifile", lambda pair, judged, path: marks.write_rois(path / "m.zip", semnr.residual_tests(*pair))),
        ("tensorboard", lambda pair, judged, path: tensorboard.log(judged[0], path / "log")),
        ("wandb", lambda pair, judged, path: semnr_wandb.log(judged[0])),
        ("napari", lambda pair, judged, path: dock.judge_dock()),
        ("mlflow", lambda pair, judged, path: semnr_mlflow.log(judged[0])),
    ],
)
def test_an_absent_package_is_named_with_the_remedy(package, call, pair, judged, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match="pip install"):
        call(pair, judged, tmp_path)


def test_mlflow_keeps_the_verdict_in_a_real_store(judged, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    verdict, profile = judged
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}" if _sqlalchemy() else (tmp_path / "mlruns").as_uri())
    (tmp_path / "report.html").write_text("<p>")
    experiment = mlflow.create_experiment("semnr", artifact_location=(tmp_path / "artefacts").as_uri())
    with mlflow.start_run(experiment_id=experiment) as active:
        semnr_mlflow.log(verdict, profile, artifacts=[tmp_path / "report.html"])
    kept = mlflow.get_run(active.info.run_id).data
    assert kept.tags["semnr.passed"] == str(verdict.passed).lower()
    assert kept.tags["semnr.signal.invented_structure"] == "fired"
    assert kept.metrics["semnr.psnr"] == pytest.approx(float(np.mean(profile.column("psnr"))))
    files = {path.name for path in (tmp_path / "artefacts").rglob("*") if path.is_file()}
    assert {"verdict.json", "junit.xml", "report.html"} <= files


def _sqlalchemy() -> bool:
    """Whether MLflow can use a database: mlflow-skinny alone has the store of files."""
    try:
        importlib.import_module("sqlalchemy")
        importlib.import_module("alembic")
    except ImportError:
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        return False
    return True


def test_tensorboard_event_files_hold_the_figures(judged, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    verdict, profile = judged
    tensorboard.log(verdict, tmp_path / "log", profile, step=7)
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    (passed,) = events.Scalars("semnr/passed")
    assert (passed.step, passed.value) == (7, float(verdict.passed))
    (psnr,) = events.Scalars("semnr/psnr")
    assert psnr.value == pytest.approx(float(np.mean(profile.column("psnr"))), rel=1e-5)
    assert events.Scalars("semnr/fired/invented_structure")[0].value == 1.0


def test_wandb_offline_keeps_a_run(judged, tmp_path: Path, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    verdict, profile = judged
    with pytest.raises(ValueError, match="no run is active"):
        semnr_wandb.log(verdict)
    report = tmp_path / "report.html"
    report.write_text("<p>")
    with wandb.init(project="semnr", mode="offline", dir=tmp_path) as run:
        semnr_wandb.log(verdict, run, profile, artifacts=[report], step=3)
        assert run.summary["semnr/outcome"] == verdict.outcome
        assert run.summary["semnr/signal/invented_structure"] == "fired"
    wandb.teardown()  # ends wandb's own process, which writes the file
    (kept,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    history, summary, artefacts = _records(kept)
    assert history["semnr/passed"] == float(verdict.passed)
    assert history["semnr/psnr"] == pytest.approx(float(np.mean(profile.column("psnr"))))
    assert history["_step"] == 3
    assert summary["semnr/outcome"] == verdict.outcome
    assert summary["semnr/exit_code"] == verdict.exit_code
    assert summary["semnr/signal/invented_structure"] == "fired"
    assert artefacts == [["report.html"]]


def _records(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[list[str]]]:
    """History, summary and files of artefacts that a run file holds."""
    from wandb.proto.wandb_internal_pb2 import Record

    def items(updates: Any) -> dict[str, Any]:
        return {"/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in updates}

    history: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    artefacts = []
    for record in map(Record.FromString, _logged(path.read_bytes())):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            history |= items(record.history.item)
        elif kind == "summary":
            summary |= items(record.summary.update)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            artefacts.append([one.path for one in record.request.log_artifact.artifact.manifest.contents])
        elif kind == "artifact":
            artefacts.append([one.path for one in record.artifact.manifest.contents])
    return history, summary, artefacts


def _logged(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format: 7 bytes of wandb's own, then blocks of 32 KiB with fragments."""
    assert content.startswith(b":W&B")
    at, held = 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        held += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            yield held
            held = b""


def test_findings_take_images_and_stacks_and_refuse_the_rest(pair) -> None:
    noisy, denoised = pair
    one = dock.findings(noisy, denoised)
    assert one.verdict.outcome == "failed"
    np.testing.assert_array_equal(one.residual, noisy.astype(np.float32) - denoised)
    both = dock.findings(np.stack([noisy] * 2), np.stack([denoised] * 2))
    assert [mark.slice for mark in both.marks] == sorted(mark.slice for mark in both.marks)
    assert {mark.slice for mark in both.marks} == {1, 2}
    with pytest.raises(ValueError, match="one shape"):
        dock.findings(noisy, denoised[:64])


def test_the_manifest_leads_to_the_dock() -> None:
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_file(Path(dock.__file__).with_name("napari.yaml"))
    (command,) = manifest.contributions.commands
    assert command.exec is not None
    module, _, name = str(command.python_name).partition(":")
    assert getattr(importlib.import_module(module), name) is dock.judge_dock


@pytest.mark.parametrize("count", [1, 3])
def test_the_dock_shows_verdict_residual_and_marks(pair, count) -> None:
    pytest.importorskip("napari")
    pytest.importorskip("qtpy.QtWidgets", reason="napari without a Qt binding", exc_type=ImportError)
    import napari
    from qtpy.QtWidgets import QApplication

    application = QApplication.instance() or QApplication([])
    viewer = napari.components.ViewerModel()  # without a canvas: no OpenGL is needed
    noisy, denoised = (image if count == 1 else np.stack([image] * count) for image in pair)
    viewer.add_image(noisy, name="in", scale=(1,) * (noisy.ndim - 2) + (2.0, 2.0))
    viewer.add_image(denoised, name="out")
    widget = dock.judge_dock(viewer)
    widget.noisy.choices = widget.denoised.choices = tuple(viewer.layers)
    widget.noisy.value, widget.denoised.value = viewer.layers["in"], viewer.layers["out"]
    widget.judge.changed.emit(True)
    assert widget.verdict.value.startswith("FAILED")
    assert [layer.name for layer in viewer.layers] == ["in", "out", *dock.LAYERS]
    drawn = viewer.layers["semnr marks"]
    assert len(drawn.data) == len(marks.marks_of(semnr.residual_tests(*pair))) * count
    assert tuple(drawn.scale[-2:]) == (2.0, 2.0)
    rows = [corners[:, -2].mean() for corners in drawn.data]
    assert min(abs(row - 43.5) for row in rows) < 4
    widget.judge.changed.emit(True)  # again: its own layers are replaced
    assert len(viewer.layers) == 5
    viewer.layers.remove("in")
    viewer.add_image(np.zeros((8, 8), np.uint8), name="small")
    widget.noisy.choices = widget.denoised.choices = tuple(viewer.layers)
    widget.noisy.value, widget.denoised.value = viewer.layers["small"], viewer.layers["out"]
    widget.judge.changed.emit(True)
    assert "one shape" in widget.verdict.value
    widget.noisy.value = viewer.layers["out"]
    widget.judge.changed.emit(True)
    assert "two layers" in widget.verdict.value
    application.processEvents()


def test_the_verdict_of_the_pair_is_json(judged) -> None:
    json.dumps(judged[0].to_dict())
