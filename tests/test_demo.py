"""The demo's story on a small wafer: candidates that are cleaner by PSNR and SSIM are caught, each for its reason."""

from __future__ import annotations

import json
import re

import pytest

import calibrated
from semnr.cli import main
from semnr.demo import run_demo


def test_the_demo_catches_what_psnr_and_ssim_would_let_through(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))  # an empty cache of weights
    said: list[str] = []
    made = run_demo(tmp_path / "demo", dies=2, sites_per_die=3, tile=256, quiet=True, say=said.append)
    assert sum("semnr weights fetch vgg16" in line for line in said) == 1
    released, kept, blurred, painted = (
        made.runs[name].summary for name in ("wavelet", "semnr-small", "gaussian", "painter")
    )
    for candidate in (kept, blurred, painted):  # cleaner, by the usual measures
        assert candidate["psnr"]["mean"] > released["psnr"]["mean"]
        assert candidate["ssim"]["mean"] > released["ssim"]["mean"]
    assert blurred["transfer"]["mean"] < 0.8 < kept["transfer"]["mean"]
    assert made.verdicts["gaussian"]["evidence_transfer"].status == "fired"
    assert made.verdicts["gaussian"].waived == ("texture_drift",)
    # one defect gone from a tile moves no score of the tile; the scan of the residual finds it
    assert painted["transfer"]["mean"] > 0.88
    assert made.verdicts["painter"]["erased_structure"].status == "fired"
    assert made.verdicts["semnr-small"]["erased_structure"].status == "clear"
    assert made.verdicts["semnr-small"].passed
    assert not made.verdicts["gaussian"].passed
    assert not made.verdicts["painter"].passed
    fates = made.fates
    assert fates["painter"]["lost"] == fates["painter"]["defects"] >= 1
    assert fates["painter"]["located"] >= 1
    assert fates["semnr-small"]["kept"] == fates["semnr-small"]["defects"]
    assert set(made.metric_seconds) == {"psnr", "ssim", "fsim", "cnr"}
    assert all(seconds > 0 for seconds in made.metric_seconds.values())
    for name in made.runs:
        info = json.loads((made.folder / "scores" / name / "run.json").read_text())
        assert info["counts"] == {"tiles": 6, "ok": 6}
        assert "dists" not in made.runs[name].summary

    page = made.report.read_text(encoding="utf-8")
    # the story can be read without the README: what was done, what the scores say, what was lost, what to do
    for words in (
        "A synthetic wafer was made: 6 tiles",
        "By PSNR and SSIM",
        "Fate of the",
        "What to do",
    ):
        assert words in page
    assert page.index("painter should not replace wavelet") < page.index("A synthetic wafer was made")
    assert page.count("data:image/webp") >= 4  # the worst tiles' pixels were found
    assert re.search(r'"thumbs": ?\{"side"', page)  # they are in the page
    assert "evidence map of" in page


def test_the_demo_scores_texture_with_the_weights_in_the_cache(tmp_path) -> None:
    calibrated.need_weights("vgg16")
    made = run_demo(tmp_path / "demo", dies=1, sites_per_die=1, tile=192, quiet=True)
    for run in made.runs.values():
        assert run.summary["dists"]["n"] == 1
        assert run.info["settings"]["dists"]["calibrated"] is True
    assert made.metric_seconds["dists"] > 0
    assert "uncalibrated" not in made.report.read_text(encoding="utf-8")


def test_the_demo_replaces_only_what_a_demo_made(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("x")
    assert main(["demo", "--out", str(folder)]) == 2
    assert "which holds files" in capsys.readouterr().err
    assert (folder / "thesis.txt").read_text() == "x"


def test_the_demo_takes_the_other_network_of_the_package(tmp_path) -> None:
    made = run_demo(tmp_path / "demo", dies=2, sites_per_die=1, tile=256, quiet=True, network="semnr-base")
    assert list(made.runs) == ["wavelet", "semnr-base", "gaussian", "painter"]
    assert made.verdicts["semnr-base"]["erased_structure"].status == "clear"
    assert "semnr-base&#39;s images without the defects" in made.report.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="network is 'semnr-large'; accepted: 'semnr-small', 'semnr-base'"):
        run_demo(tmp_path / "other", network="semnr-large")
