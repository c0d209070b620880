"""Scores, however they are given: a profile, a run, or the folder of a run."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import semnr
from semnr.runs.pixels import RunPixels

SIDE = 96


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    site = semnr.synth.tile("lines", SIDE, seed=1)
    noisy = np.stack([site.noisy(dtype="uint8", frame=i) for i in range(2)])
    clean = np.stack([site.reference("uint8")] * 2)
    return {"noisy": noisy, "clean": clean, "smooth": semnr.denoise(noisy, model="median", size=3)}


@pytest.fixture
def runs(images, tmp_path) -> dict[str, semnr.Run]:
    how = {"reference": images["clean"], "noisy": images["noisy"], "metrics": ("psnr", "ssim")}
    return {name: semnr.score(images[name], out=tmp_path / name, label=name, **how) for name in ("noisy", "smooth")}


def forms(run: semnr.Run) -> list[object]:
    return [run, run.path, str(run.path), run.profile()]


def test_guard_and_compare_give_the_same_of_runs_folders_and_profiles(runs) -> None:
    verdicts = [semnr.guard(*pair).to_dict() for pair in zip(*map(forms, runs.values()), strict=True)]
    assert all(verdict == verdicts[0] for verdict in verdicts)
    tables = [str(semnr.compare(*pair, resamples=50)) for pair in zip(*map(forms, runs.values()), strict=True)]
    assert len(set(tables)) == 1
    assert "smooth against noisy" in tables[0]


def test_guard_takes_the_file_of_a_baseline(runs, tmp_path) -> None:
    semnr.guarding.write_baseline(runs["noisy"].profile(), tmp_path / "baseline.json")
    assert semnr.guard(tmp_path / "baseline.json", runs["smooth"]).before == "noisy"


def test_check_judges_scores_in_every_form(runs) -> None:
    outcomes = {semnr.check(form).outcome for form in forms(runs["smooth"])}
    assert len(outcomes) == 1
    with pytest.raises(TypeError, match="noisy is a Run; accepted: images"):
        semnr.check(runs["smooth"], np.zeros((SIDE, SIDE), np.uint8))


def test_report_takes_every_form_and_shows_pixels_where_there_are_any(runs, images, tmp_path) -> None:
    sizes = {}
    for form in forms(runs["smooth"]):
        report = semnr.report(form, out=tmp_path / "report.html").read_text(encoding="utf-8")
        sizes[type(form).__name__] = report.count("data:image/webp")
    assert sizes["Run"] == sizes["Profile"] > 4  # the arrays of this process
    assert sizes["str"] == 0  # of which the folder keeps no pixels
    bare = semnr.profile(images["smooth"][:1], images["clean"][:1], metrics=("psnr", "ssim"), label="of no run")
    text = semnr.report([bare, runs["smooth"]], out=tmp_path / "both.md").read_text(encoding="utf-8")
    assert "of no run" in text
    assert "rows of this process" in semnr.report(bare, out=tmp_path / "bare.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "call",
    [
        lambda value: semnr.guard(None, value),
        lambda value: semnr.guard(value, semnr.Profile(("a",), {}, 255.0)),
        lambda value: semnr.compare(semnr.Profile(("a",), {}, 255.0), value),
        lambda value: semnr.report(value),
    ],
)
def test_what_is_no_score_is_named(call, tmp_path) -> None:
    with pytest.raises(TypeError, match=r"is dict; accepted: a semnr.Profile, a semnr.Run, or the folder of a run"):
        call({})
    with pytest.raises((ValueError, FileNotFoundError), match=r"run.json"):
        call(tmp_path)


def test_a_denoised_folder_is_no_run(images, tmp_path) -> None:
    semnr.denoise(images["noisy"], tmp_path / "clean", model="median")
    with pytest.raises(ValueError, match=r"after is .*clean, whose run.json is of no score run"):
        semnr.guard(None, tmp_path / "clean")


def test_a_run_of_arrays_shows_pictures_until_it_is_opened_anew(runs) -> None:
    run = runs["smooth"]
    assert run.thumbnails_html().count("<img") == 4  # noisy and denoised of two tiles
    assert "<img" in run.profile()._repr_html_()
    assert "<img" in semnr.guard(None, run)._repr_html_()
    assert pickle.loads(pickle.dumps(run)).images is None
    assert "<img" not in semnr.Run.open(run.path)._repr_html_()


def test_a_verdict_without_a_folder_keeps_thumbnails(images) -> None:
    verdict = semnr.check(images["noisy"], images["smooth"])
    assert verdict.run is None
    assert verdict._repr_html_().count("<img") >= 2


def test_check_of_arrays_writes_a_report_with_pictures(images, tmp_path) -> None:
    semnr.check(images["noisy"], images["smooth"], out=tmp_path / "run")
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8").count("data:image/webp") > 4


def test_pixels_of_a_run_are_paired_and_cropped_as_they_were_scored(images, tmp_path) -> None:
    bar = np.zeros((24, SIDE), np.uint8)
    for folder, role, name in (("in", "noisy", "site{}"), ("out", "smooth", "site{}_denoised")):
        (tmp_path / folder).mkdir()
        for i, image in enumerate(images[role]):
            framed = np.hstack([np.full((SIDE + 24, 8), 7, np.uint8), np.vstack([image, bar])])
            Image.fromarray(framed).save(tmp_path / folder / f"{name.format(i)}.png")
    verdict = semnr.check(tmp_path / "in", tmp_path / "out", crop=(8, 0, SIDE + 8, SIDE), out=tmp_path / "run")
    pixels = RunPixels(Path(verdict.run.path), verdict.run.info)
    for role, wanted in (("noisy", "noisy"), ("image", "smooth")):
        read, why = pixels.read("site1", role)
        assert why == ""
        np.testing.assert_array_equal(read, images[wanted][1])
    pixels.close()
