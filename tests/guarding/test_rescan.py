"""Sites where a second frame could change the verdict: which, why, and the file for the review tool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import semnr
from semnr import Profile
from semnr.cli import main
from semnr.guarding import calibrate, rescan, write_sites
from semnr.guarding.sites import changes
from semnr.klarf import read_klarf


def scores(**columns: object) -> Profile:
    rows = {name: np.asarray(values, float) for name, values in columns.items()}
    count = len(next(iter(rows.values())))
    return Profile(tuple(f"t{i}" for i in range(count)), rows, 1.0)


def test_the_chance_of_a_change_is_what_simulated_second_frames_say() -> None:
    rng = np.random.default_rng(0)
    rule = {"brightness_shift": semnr.DEFAULT_RULES["brightness_shift"]}
    for value in (0.0, 0.04, 0.048, 0.06):
        told = changes(rule, scores(gain_change=[value], gain_change_se=[0.01]))[0][0]
        mean = rng.normal(value, 0.01 / np.sqrt(2), 200_000)
        fires = value - 2 * 0.01 > 0.03
        later = mean - 2 * 0.01 / np.sqrt(2) > 0.03
        assert told == pytest.approx(np.mean(later != fires), abs=0.004)


def test_marks_near_their_threshold_are_the_uncertain_ones() -> None:
    z = [2.0, 4.9, 5.6, 6.0, 7.5]
    rows = scores(removed_z=z, removed_count=[0, 0, 1, 1, 1])
    found, by = changes({"erased_structure": semnr.DEFAULT_RULES["erased_structure"]}, rows)
    assert by[1] == "erased_structure"
    assert found[1] > found[2] > found[3] > found[4]
    assert found[0] < 0.02
    assert [site.tile for site in rescan(rows)][:2] == ["t1", "t2"]


def test_the_lists_are_taken_in_turn_and_cut() -> None:
    rng = np.random.default_rng(1)
    harmless = scores(gain_change=rng.normal(0, 0.01, 60), gain_change_se=np.full(60, 0.01))
    only = {"brightness_shift": semnr.DEFAULT_RULES["brightness_shift"]}
    rule = calibrate([harmless], rules=only, level=0.05, wafer_level=0.05, unit="tile")
    rows = scores(gain_change=[0.2, 0.048, np.nan, 0.0], gain_change_se=[0.01] * 4)
    found = rescan(rows, {**only, "conformal": rule}, sites=3)
    assert [(s.tile, s.why) for s in found] == [
        ("t0", "low_p"), ("t1", "uncertain_brightness_shift"), ("t2", "no_evidence"),
    ]  # fmt: skip
    assert found[0].p == pytest.approx(1 / (1 + rule.calibration["all"].fields))
    assert len(rescan(rows, {**only, "conformal": rule}, sites=1)) == 1
    for wrong in (0, True, 1.5):
        with pytest.raises(ValueError, match="sites is"):
            rescan(rows, only, sites=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scores are no run on disk"):
        write_sites(rows, "again.klarf", only)


def test_the_command_writes_a_klarf_that_is_read_back_and_replaces_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(tmp_path / "wafer.zarr")
    assert main(["synth", "--out", source, "--dies", "4", "--sites", "1", "--tile", "64"]) == 0
    run = str(tmp_path / "run")
    main(["score", source, "--reference", source, "--noisy", source, "--denoise", "gaussian", "--set", "sigma=1",
          "--metrics", "psnr", "--out", run, "-q"])  # fmt: skip
    capsys.readouterr()
    file, layout = tmp_path / "again.klarf", tmp_path / "wafer.toml"
    assert main(["guard", run, "--rescan", str(file)]) == 2
    assert "the run knows no layout" in capsys.readouterr().err
    layout.write_text("pitch_um = [8000, 6500]", encoding="utf-8")
    for version in ("1.2", "1.8"):
        main(["guard", run, "--rescan", str(file), "--sites", "3", "--klarf", version, "--wafer", str(layout)])
        assert "rescan: " in capsys.readouterr().out
        defects = [defect for wafer in read_klarf(file).wafers for defect in wafer.defects]
        assert len(defects) == len(rescan(run, sites=3))
    other = tmp_path / "mine.txt"
    other.write_text("notes", encoding="utf-8")
    assert main(["guard", run, "--rescan", str(other), "--wafer", str(layout)]) == 2
    assert other.read_text(encoding="utf-8") == "notes"
