"""`semnr.check` and `semnr check`: two sets of images in, a verdict out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import cases
import semnr
from semnr.cli import main

WITNESSED = ("evidence_transfer", "lost_detail", "over_sharpening")  # required, and need more than one noisy frame
SIDE = 96


def scene(seed: int = 0) -> np.ndarray:
    return 30 + 170 * cases.lines(SIDE, SIDE, seed=seed)


def frames(count: int = 3, sigma: float = 12.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(noisy, clean, another noisy frame), uint8 stacks."""
    rng = np.random.default_rng(seed)
    clean = np.stack([scene(i) for i in range(count)])
    noisy, second = (np.clip(rng.normal(clean, sigma).round(), 0, 255).astype(np.uint8) for _ in range(2))
    return noisy, clean.round().astype(np.uint8), second


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """noisy/, denoised/, second/ and clean/ with files of the same names, in the folder where the command runs."""
    noisy, clean, second = frames()
    for folder, stack in {"noisy": noisy, "denoised": clean, "second": second, "clean": clean}.items():
        (tmp_path / folder).mkdir()
        for i, image in enumerate(stack):
            Image.fromarray(image).save(tmp_path / folder / f"site{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_noisy_frame_refutes_or_leaves_open_but_never_passes() -> None:
    noisy, clean, _ = frames()
    verdict = semnr.check(noisy, clean)
    assert verdict.outcome == "not refuted"
    assert not verdict.passed
    assert verdict.exit_code == 0
    assert [s.name for s in verdict.lacking] == list(WITNESSED)
    assert verdict.bring == ("a second noisy frame of each site, or a clean reference",)
    assert verdict.axes == {
        **dict.fromkeys(("psnr", "ssim", "fsim", "dists", "cnr", "transfer"), "unknown"),
        "residual": "measured",
    }
    assert semnr.check(noisy, clean, strict=True).exit_code == 3
    waived = semnr.check(noisy, clean, strict=True, waive=WITNESSED)
    assert (waived.outcome, waived.exit_code, waived.waived) == ("passed", 0, WITNESSED)


def test_a_second_frame_or_a_reference_completes_the_verdict() -> None:
    noisy, clean, second = frames()
    by_frame = semnr.check(noisy, clean, second_frame=second)
    assert by_frame.outcome == "passed"
    assert by_frame.axes["psnr"] == "estimated"
    by_reference = semnr.check(noisy, clean // 2 + clean // 2, reference=clean, strict=True)
    assert by_reference.outcome == "passed"
    assert by_reference.axes["psnr"] == "measured"
    assert by_reference["over_smoothing"].status == "unknown"  # there is no other candidate
    assert by_reference["over_smoothing"].needs.startswith("the scores of the released denoiser")


def test_a_lost_structure_fails_whatever_else_is_unknown() -> None:
    noisy, clean, _ = frames()
    broken = clean.copy()
    broken[:, 30:50, 30:50] = broken[:, 30:50, 50:70]
    verdict = semnr.check(noisy, np.roll(clean, 3, axis=2))
    assert verdict.outcome == "failed"
    assert verdict.exit_code == 1
    assert semnr.check(noisy, broken, waive=WITNESSED)["erased_structure"].status == "fired"


def test_the_command_needs_no_flag_and_may_be_repeated(folders, capsys) -> None:
    assert main(["check", "noisy", "denoised", "-q"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("NOT REFUTED: denoised, 3 tiles")
    assert "bring a second noisy frame of each site, or a clean reference" in out
    run = folders / "semnr-check"
    assert (run / "report.html").stat().st_size > 10_000
    assert json.loads((run / "verdict.json").read_text())["outcome"] == "not refuted"
    assert main(["check", "noisy", "denoised", "-q", "--strict"]) == 3
    assert main(["check", "noisy", "denoised", "-q", "--second-frame", "second", "--json", "--strict"]) == 0


def test_json_of_the_command_says_the_outcome(folders, capsys) -> None:
    assert main(["check", "noisy", "denoised", "--json", "--no-report", "--out", "here"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["outcome"], found["out"]) == ("not refuted", "here")
    assert not (folders / "here" / "report.html").exists()


def test_a_run_of_somebody_else_is_not_replaced(folders, capsys) -> None:
    assert main(["score", "denoised", "--reference", "clean", "--out", "semnr-check", "-q"]) in (0, 3)
    before = (folders / "semnr-check" / "run.json").read_bytes()
    assert main(["check", "noisy", "denoised", "-q"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (folders / "semnr-check" / "run.json").read_bytes() == before


def test_score_denoise_a_plan_and_guard_take_the_same_road(folders, capsys) -> None:
    assert main(["score", "denoised", "--noisy", "noisy", "--out", "run", "-q"]) == 0
    assert "not refuted" in capsys.readouterr().out
    assert main(["guard", "run"]) == 3
    waivers = [f"--waive={name}" for name in (*WITNESSED, "over_smoothing", "texture_drift", "lost_contrast")]
    assert main(["guard", "run", *waivers]) == 0
    assert main(["denoise", "noisy", "--out", "mine", "--model", "median", "--set", "size=3", "--score", "-q"]) in (
        0,
        1,
    )
    assert (folders / "mine-scores" / "verdict.json").is_file()
    plan = folders / "plan.csv"
    plan.write_text("path,noisy\n" + "".join(f"denoised/site{i}.png,noisy/site{i}.png\n" for i in range(3)))
    assert main(["check", "plan.csv", "-q", "--out", "from-plan"]) == 0
    assert main(["score", "plan.csv", "--out", "scored-plan", "-q"]) == 0


def test_roles_of_the_noisy_source_serve_as_reference(tmp_path) -> None:
    noisy, clean, second = frames()
    with semnr.tiles.create_tiles(tmp_path / "lot.zarr", count=3, roles=("noisy", "noisy_2")) as writer:
        for i in range(3):
            key = semnr.tiles.TileKey(f"t{i:06d}", i)
            writer.write(key, noisy[i], "noisy")
            writer.write(key, second[i], "noisy_2")
    assert semnr.check(tmp_path / "lot.zarr", clean).outcome == "passed"


def test_a_run_can_be_judged_again(folders) -> None:
    first = semnr.check("noisy", "denoised", out="kept")
    again = semnr.check("kept")
    assert (again.outcome, again.tiles) == (first.outcome, 3)
    assert semnr.check(first.run).outcome == first.outcome
    assert semnr.check(first.profile).outcome == first.outcome


def test_nothing_in_common_is_one_sentence(folders, capsys) -> None:
    (folders / "other").mkdir()
    Image.fromarray(frames(1)[0][0]).save(folders / "other" / "elsewhere.png")
    assert main(["check", "noisy", "other", "-q"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has the name of a denoised image" in error
    assert "site0" in error
    assert "elsewhere" in error


def test_an_empty_folder_is_one_sentence(folders, capsys) -> None:
    (folders / "empty").mkdir()
    for pair in (("empty", "denoised"), ("noisy", "empty")):
        assert main(["check", *pair, "-q"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "empty holds no images" in error


def test_what_cannot_be_judged_is_said_and_the_rest_is_judged(folders, capsys) -> None:
    Image.fromarray(np.asarray(Image.open("denoised/site0.png"))[:80]).save("denoised/site0.png")
    (folders / "noisy" / "site1.png").write_bytes(b"no image")
    assert main(["check", "noisy", "denoised", "-q"]) == 3
    out = capsys.readouterr().out
    assert out.startswith("INCOMPLETE: denoised, 3 tiles")
    assert "candidate is 80x96, noisy input 96x96" in out
    assert "site1.png" in out
    verdict = semnr.check("noisy", "denoised")
    assert verdict.profile.status.count("ok") == 1
    assert verdict["erased_structure"].status in ("clear", "unknown")
