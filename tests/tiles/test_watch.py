"""Folders of role folders, at rest and while they fill: the same tiles, roles and rows; nothing of a half file."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import zarr
from PIL import Image

import semnr
from semnr.cli import main
from semnr.denoising import denoised
from semnr.tiles import open_tiles, watch_folder

QUICK = {"settle": 0.05, "idle": 0.2}
RNG = np.random.default_rng(3)
CLEAN = RNG.integers(40, 200, (3, 24, 24), dtype=np.uint8)
NOISE = RNG.integers(0, 30, (2, *CLEAN.shape), dtype=np.uint8)
PIXELS = {"reference": CLEAN, "noisy": CLEAN + NOISE[0], "noisy_2": CLEAN + NOISE[1], "denoised": CLEAN + NOISE[0] // 3}


def written(folder, *names: str):
    """A folder a name, of the role of that name; "" puts the noisy images into the folder itself."""
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(PIXELS[name.lower() or "noisy"]):
            Image.fromarray(image).save(folder / name / f"t{i}.png")
    return folder


def quick(folder, **options):
    source = watch_folder(folder, **{**QUICK, **options})
    source._look = 0.02
    return source


def scored(source, out, **options):
    return semnr.score(source, out=out, metrics=("psnr", "ssim"), tests=False, **options)


def rows_of(run) -> list[dict]:
    return sorted(run.table().to_pylist(), key=lambda row: row["tile"])


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (("noisy", "reference"), "noisy"),
        (("noisy", "noisy_2", "reference"), "noisy"),
        (("denoised", "noisy", "reference"), "denoised"),
        (("Noisy", "REFERENCE"), "Noisy"),
        (("", "reference"), ""),
        (("noisy", "noisy_2"), "noisy"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else value or "loose",
)
def test_a_folder_is_the_same_watched_and_at_rest_and_never_scores_its_reference(tmp_path, names, first) -> None:
    folder = written(tmp_path / "lot", *names)
    rest, fills = open_tiles(folder), quick(folder)
    assert set(fills.roles) == set(rest.roles)
    still, run = scored(rest, tmp_path / "a"), scored(fills, tmp_path / "b")
    assert rows_of(run) == rows_of(still)
    assert run.exit_code == still.exit_code == 0
    assert rows_of(run)[0]["path"] == (f"{first}/t0.png" if first else "t0.png")
    if "reference" in rest.roles:
        expected = semnr.psnr(PIXELS[first.lower() or "noisy"][0], CLEAN[0])
        assert rows_of(run)[0]["psnr"] == pytest.approx(expected)


def test_a_reference_alone_is_no_candidate_at_rest_or_watched(tmp_path) -> None:
    folder = written(tmp_path / "lot", "reference")
    for opened in (open_tiles, quick):
        with pytest.raises(ValueError, match="lot has reference/ only"):
            opened(folder)
    with pytest.raises(ValueError, match="first what is scored: image, denoised, candidate, noisy"):
        watch_folder(folder, roles=("reference", "noisy"))


def test_the_command_watches_what_it_scores_at_rest(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    base = ["score", str(folder), "--metrics", "psnr", "--no-tests", "-q"]
    watch = ["--watch", "0.2", "--settle", "0.05"]
    assert main([*base, "--out", str(tmp_path / "rest")]) == 0
    assert main([*base, "--out", str(tmp_path / "plain"), *watch]) == 0
    own = ["--reference", str(folder / "reference")]
    assert main([*base, "--out", str(tmp_path / "own"), *watch, *own]) == 0
    rest, *others = (rows_of(semnr.scoring.Run.open(tmp_path / name)) for name in ("rest", "plain", "own"))
    assert rest[0]["psnr"] == pytest.approx(semnr.psnr(PIXELS["noisy"][0], CLEAN[0]))
    assert all(rows == rest for rows in others)


def test_settle_and_roles_without_watch_are_refused(tmp_path, capsys) -> None:
    for option in (("--settle", "3"), ("--roles", "noisy")):
        assert main(["score", str(tmp_path), "--out", str(tmp_path / "o"), *option]) == 2
        assert f"{option[0]} is given without --watch" in capsys.readouterr().err


# --- images beside the roles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stray", ["report.png", "thumbs/x.png"])
@pytest.mark.parametrize("opened", [open_tiles, quick])
def test_a_stray_image_beside_role_folders_is_left_out_and_named(tmp_path, capsys, stray, opened) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    (folder / stray).parent.mkdir(exist_ok=True)
    Image.fromarray(CLEAN[0]).save(folder / stray)
    run = scored(opened(folder), tmp_path / "run")
    assert [row["tile"] for row in rows_of(run)] == ["t0", "t1", "t2"]
    assert run.exit_code == 0
    assert run.info["remarks"] == [f"lot has 1 image(s) beside the folders of its roles, which were not read: {stray}"]


def test_a_missing_reference_names_what_lies_beside_the_roles(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy")
    (folder / "clean").mkdir()
    Image.fromarray(CLEAN[0]).save(folder / "clean" / "t0.png")
    (folder / "denoised").mkdir()
    Image.fromarray(CLEAN[0]).save(folder / "denoised" / "t0.png")
    run = scored(folder, tmp_path / "run")
    assert any("were not read: clean/t0.png" in remark for remark in run.remarks)
    assert "ssim" not in run.table().column_names  # nothing was compared with what was not read


def test_folders_of_other_names_are_tiles_as_before(tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(CLEAN[0]).save(tmp_path / name / "x.png")
    assert [key.tile for key in open_tiles(tmp_path)] == ["a/x", "b/x"]


# --- files that are not whole ---------------------------------------------------------------------------------


def in_thread(*steps) -> threading.Thread:
    """Runs (seconds to wait, action) one after the other."""

    def run() -> None:
        for pause, action in steps:
            time.sleep(pause)
            action()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("sink", ["in the buffer", "on the disk"])
def test_a_file_that_grew_after_it_was_read_is_read_again_and_has_one_row(tmp_path, monkeypatch, sink) -> None:
    if sink == "on the disk":
        monkeypatch.setitem(semnr.runs.parquet.ParquetSink.__init__.__kwdefaults__, "rows", 1)
    folder = written(tmp_path / "lot", "noisy", "reference")
    late = folder / "noisy" / "t1.png"
    whole = late.read_bytes()
    late.write_bytes(whole[:200])
    black = folder / "noisy" / "t2.png"  # as a writer that reserves its space leaves it: whole, and wrong
    right = black.read_bytes()
    Image.fromarray(np.zeros_like(CLEAN[2])).save(black)
    writer = in_thread((0.4, lambda: late.write_bytes(whole)), (0.1, lambda: black.write_bytes(right)))
    run = scored(quick(folder, idle=1.0), tmp_path / "run")
    writer.join()
    assert [(row["tile"], row["status"]) for row in rows_of(run)] == [("t0", "ok"), ("t1", "ok"), ("t2", "ok")]
    assert sorted(row["index"] for row in rows_of(run)) == [0, 1, 2]
    for i, row in enumerate(rows_of(run)):
        assert row["psnr"] == pytest.approx(semnr.psnr(PIXELS["noisy"][i], CLEAN[i]))
    assert run.exit_code == 0


def test_a_tile_that_was_right_and_is_torn_when_it_is_read_again_counts_as_torn(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    late = folder / "noisy" / "t1.png"
    writer = in_thread((0.4, lambda: late.write_bytes(late.read_bytes()[:200])))
    run = scored(quick(folder, idle=1.0), tmp_path / "run")
    writer.join()
    assert run.counts == {"tiles": 3, "ok": 2, "unreadable": 1}


def test_a_file_that_stays_torn_is_one_unreadable_row(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    (folder / "noisy" / "t1.png").write_bytes((folder / "noisy" / "t1.png").read_bytes()[:200])
    run = scored(quick(folder), tmp_path / "run")
    assert run.counts == {"tiles": 3, "ok": 2, "unreadable": 1}
    assert "t1.png" in run.problems[0]["reason"]


def test_a_file_counts_as_whole_after_the_settle_time_that_was_asked_for(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    source = quick(folder, settle=0.5, idle=0.1)
    begun = time.monotonic()
    assert len(list(source)) == 3
    assert time.monotonic() - begun >= 0.5


def test_the_end_file_waits_for_what_still_settles(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    late = folder / "noisy" / "t1.png"
    whole = late.read_bytes()
    late.write_bytes(whole[:200])
    (folder / "END").touch()
    source = quick(folder, settle=0.4, idle=60, until="END")
    writer = in_thread((0.2, lambda: late.write_bytes(whole)))
    run = scored(source, tmp_path / "run")
    writer.join()
    assert run.counts == {"tiles": 3, "ok": 3}


def test_a_denoised_watch_reads_again_too(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    late = folder / "noisy" / "t2.png"
    whole = late.read_bytes()
    late.write_bytes(whole[:200])
    writer = in_thread((0.4, lambda: late.write_bytes(whole)))
    run = scored(denoised(quick(folder, idle=1.0), model="gaussian", sigma=1.0, noise="image"), tmp_path / "run")
    writer.join()
    assert run.counts == {"tiles": 3, "ok": 3}


# --- roles that come later ------------------------------------------------------------------------------------


def test_role_folders_that_appear_later_are_waited_for(tmp_path) -> None:
    folder = tmp_path / "lot"
    folder.mkdir()
    writer = in_thread((0.3, lambda: written(folder, "noisy")), (0.3, lambda: written(folder, "reference")))
    run = scored(quick(folder, settle=0.1, idle=2.0), tmp_path / "run")
    writer.join()
    assert run.counts == {"tiles": 3, "ok": 3}
    assert rows_of(run)[0]["psnr"] == pytest.approx(semnr.psnr(PIXELS["noisy"][0], CLEAN[0]))


def test_a_candidate_folder_that_comes_after_the_start_is_said_and_the_run_is_incomplete(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    source = quick(folder, idle=0.8)
    writer = in_thread((0.3, lambda: written(folder, "denoised")))
    run = scored(source, tmp_path / "run")
    writer.join()
    assert run.exit_code == 3
    assert "lot/denoised/ came when the run had begun with noisy/, reference/" in run.info["unjudged"][0]


def test_roles_that_are_named_are_waited_for(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    source = quick(folder, idle=0.8, roles=("denoised", "noisy", "reference"))
    writer = in_thread((0.3, lambda: written(folder, "denoised")))
    run = scored(source, tmp_path / "run")
    writer.join()
    assert run.exit_code == 0
    assert rows_of(run)[0]["path"] == "denoised/t0.png"
    assert rows_of(run)[0]["psnr"] == pytest.approx(semnr.psnr(PIXELS["denoised"][0], CLEAN[0]))


def test_a_reference_from_elsewhere_is_not_waited_for(tmp_path) -> None:
    folder, clean = written(tmp_path / "lot", "noisy"), written(tmp_path / "other", "reference")
    source = quick(folder, idle=60, until="END", given=("reference",))
    (folder / "END").touch()
    run = scored(source, tmp_path / "run", reference=clean / "reference")
    assert run.counts == {"tiles": 3, "ok": 3}


def test_two_files_of_one_id_are_one_tile_and_a_duplicate_as_at_rest(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    Image.fromarray(CLEAN[0]).save(folder / "noisy" / "t0.bmp")
    still, run = scored(folder, tmp_path / "a"), scored(quick(folder), tmp_path / "b")
    assert rows_of(still) == rows_of(run)
    assert run.counts == {"tiles": 4, "ok": 3, "duplicate": 1}


@pytest.mark.parametrize("opened", [open_tiles, quick])
def test_a_tile_that_only_the_reference_has_is_missing_watched_and_at_rest(tmp_path, opened) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    (folder / "noisy" / "t1.png").unlink()
    run = scored(opened(folder), tmp_path / "run")
    assert run.counts == {"tiles": 3, "ok": 2, "missing": 1}
    assert run.problems[0]["tile"] == "t1"
    assert run.exit_code == 3
    Image.fromarray(PIXELS["noisy"][1]).save(folder / "noisy" / "t1.png")
    run = scored(opened(folder), tmp_path / "run")
    assert run.counts == {"tiles": 3, "ok": 3}
    assert run.exit_code == 0


def test_a_resumed_watch_keeps_the_numbers_of_its_tiles_and_their_maps(tmp_path) -> None:
    folder = written(tmp_path / "lot", "noisy", "reference")
    options = {"maps": ("image",)}
    scored(quick(folder), tmp_path / "run", **options)
    for role in ("noisy", "reference"):  # the first one by name
        Image.fromarray(PIXELS[role][0] // 2).save(folder / role / "a.png")
    run = scored(quick(folder), tmp_path / "run", **options)
    assert {row["tile"]: row["index"] for row in rows_of(run)} == {"t0": 0, "t1": 1, "t2": 2, "a": 3}
    kept = zarr.open_group(str(run.path / "maps.zarr"), mode="r")["image"]
    np.testing.assert_array_equal(kept[:3], PIXELS["noisy"])
    np.testing.assert_array_equal(kept[3], PIXELS["noisy"][0] // 2)
