"""The demo's story on a small wafer: the over-smoothing candidate is cleaner by PSNR and is caught."""

from __future__ import annotations

import json

import pytest

from semnr._cli import main
from semnr.demo import run_demo


def test_the_demo_catches_the_over_smoothing_candidate(tmp_path) -> None:
    made = run_demo(tmp_path / "demo", dies=2, sites_per_die=2, tile=192, quiet=True)
    released, kept, blurred = (made.runs[name].summary for name in ("wavelet", "nlm", "gaussian"))
    assert blurred["psnr"]["mean"] > released["psnr"]["mean"]  # cleaner, by the usual measure
    assert blurred["ssim"]["mean"] > released["ssim"]["mean"]
    assert blurred["transfer"]["mean"] < 0.8 < kept["transfer"]["mean"]
    assert made.verdicts["nlm"].passed
    assert not made.verdicts["gaussian"].passed
    assert made.verdicts["gaussian"]["evidence_transfer"].status == "fired"
    assert made.verdicts["gaussian"].waived == ("texture_drift",)
    page = made.report.read_text(encoding="utf-8")
    assert "uncalibrated" in page
    assert page.count("data:image/png") >= 4  # the worst tiles' pixels were found
    assert set(made.metric_seconds) == {"psnr", "ssim", "fsim", "dists", "cnr"}
    assert all(seconds > 0 for seconds in made.metric_seconds.values())
    for name in ("wavelet", "nlm", "gaussian"):
        info = json.loads((made.folder / "scores" / name / "run.json").read_text())
        assert info["counts"] == {"tiles": 4, "ok": 4}
        assert info["settings"]["dists"]["calibrated"] is False


def test_the_demo_replaces_only_what_a_demo_made(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("x")
    assert main(["demo", "--out", str(folder)]) == 2
    assert "which holds files" in capsys.readouterr().err
    assert (folder / "thesis.txt").read_text() == "x"
