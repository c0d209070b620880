"""Where results may go: an output never replaces a source, nor anything that semnr did not write."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import semnr
from semnr import denoise
from semnr.base.outputs import apart
from semnr.cli import main
from semnr.scoring import score
from semnr.tiles import TileKey, create_tiles, open_tiles

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 250, (3, 40, 40), np.uint8)
CLEAN = PIXELS + RNG.integers(0, 5, PIXELS.shape, np.uint8)
KEYS = [TileKey(f"t{i}", i) for i in range(len(PIXELS))]


def lot(path: Path, roles: tuple[str, ...] = ("noisy", "reference")) -> Path:
    with create_tiles(path, roles=roles) as writer:
        for role in roles:
            for key, pixels in zip(KEYS, CLEAN if role == "reference" else PIXELS, strict=True):
                writer.write(key, pixels, role)
    return path


def raw(folder: Path) -> Path:
    """Data that no semnr wrote, with a plan made by hand."""
    import tifffile

    (folder / "noisy").mkdir(parents=True)
    for key, pixels in zip(KEYS, PIXELS, strict=True):
        tifffile.imwrite(folder / "noisy" / f"{key.tile}.tif", pixels)
    (folder / "plan.csv").write_text("path\n" + "".join(f"noisy/{key.tile}.tif\n" for key in KEYS))
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}


def write(out: Any, source: Any, **options: Any) -> Any:
    return denoise(source, out, model="gaussian", sigma=1.0, **options)


# --- an output that is, holds or lies in a source -------------------------------------------------------------

FORMS = {
    "zarr itself": ("w.zarr", "w.zarr", "w.zarr"),
    "folder itself": ("lot", "lot", "lot"),
    "raw folder itself": ("raw", "raw", "raw"),
    "array of a zarr, into the zarr": ("w.zarr", "w.zarr/noisy", "w.zarr"),
    "array of a zarr, into another": ("w.zarr", "w.zarr/noisy", "w.zarr/image.zarr"),
    "zarr, into its array": ("w.zarr", "w.zarr", "w.zarr/noisy"),
    "plan, into its folder": ("lot", "lot/plan.csv", "lot"),
    "plan, into a folder of its tiles": ("lot", "lot/plan.csv", "lot/noisy"),
    "plan, into one below": ("lot", "lot/plan.csv", "lot/noisy/deep"),
    "folder, into one below": ("raw", "raw", "raw/clean"),
    "folder, into the one above": ("up/raw", "up/raw", "up"),
    "zarr, into the folder above": ("up/w.zarr", "up/w.zarr", "up"),
    "one image, into its own path": ("raw", "raw/noisy/t0.tif", "raw/noisy/t0.tif"),
    "one image, into its folder": ("raw", "raw/noisy/t0.tif", "raw/noisy"),
    "up and down again": ("lot", "lot", "lot/../lot/./x"),
}


@pytest.mark.parametrize("way", [{"overwrite": True}, {"resume": True}, {}], ids=["overwrite", "resume", "plain"])
@pytest.mark.parametrize("form", FORMS)
def test_an_output_that_is_holds_or_lies_in_a_source_is_refused_and_nothing_changes(tmp_path, form, way) -> None:
    made, source, out = FORMS[form]
    (raw if made.endswith("raw") else lot)(tmp_path / made)
    before = contents(tmp_path)
    with pytest.raises((ValueError, FileExistsError), match=r"which (is|holds|lies in) the source"):
        write(tmp_path / out, tmp_path / source, **way)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("target", ["w.zarr", "lot"])
@pytest.mark.parametrize("through", ["source", "out", "folder"])
def test_a_link_does_not_hide_the_source(tmp_path, target, through) -> None:
    lot(tmp_path / "real" / target)
    (tmp_path / "link").symlink_to(tmp_path / "real" if through == "folder" else tmp_path / "real" / target)
    link = tmp_path / "link" / target if through == "folder" else tmp_path / "link"
    source, out = (link, tmp_path / "real" / target) if through == "source" else (tmp_path / "real" / target, link)
    before = contents(tmp_path / "real")
    with pytest.raises(ValueError, match="which is the source"):
        write(out, source, overwrite=True)
    assert contents(tmp_path / "real") == before


def test_tiles_that_a_plan_reaches_by_links_or_by_root_are_sources(tmp_path) -> None:
    raw(tmp_path / "data")
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "t.tif").symlink_to(tmp_path / "data" / "noisy" / "t0.tif")
    (tmp_path / "plans" / "plan.csv").write_text("path\nt.tif\n../data/noisy/t1.tif\n")
    for out in ("data", "data/noisy"):
        with pytest.raises(ValueError, match=r"(holds|is) the source"):
            write(tmp_path / out, tmp_path / "plans" / "plan.csv", root=tmp_path, overwrite=True)


def test_a_source_given_as_a_file_url_is_the_file(tmp_path) -> None:
    lot(tmp_path / "w.zarr")
    with pytest.raises(ValueError, match="which is the source"):
        write(tmp_path / "w.zarr", f"file://{tmp_path}/w.zarr", overwrite=True)


def test_the_scores_of_a_denoise_run_lie_in_no_source_either(tmp_path) -> None:
    source = lot(tmp_path / "lot")
    other = lot(tmp_path / "other.zarr", ("reference",))
    before = contents(tmp_path)
    for out, scores in (
        ("clean", source),
        ("clean", other),
        ("clean", tmp_path / "clean" / "scores"),
        ("other.zarr", tmp_path / "s"),
    ):
        options = {"out": scores, "reference": other, "metrics": ("psnr",)}
        with pytest.raises(ValueError, match="the source"):
            write(tmp_path / out, source, score=options, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("argument", ["source", "reference", "noisy"])
@pytest.mark.parametrize("below", ["", "scores"])
def test_score_does_not_write_into_what_it_reads(tmp_path, argument, below) -> None:
    places = {name: lot(tmp_path / name, ("image",)) for name in ("source", "reference", "noisy")}
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="the source"):
        score(
            places["source"], reference=places["reference"], noisy=places["noisy"],
            out=places[argument] / below, metrics=("psnr",), tests=False,
        )  # fmt: skip
    assert contents(tmp_path) == before


def test_maps_do_not_go_into_the_maps_that_are_scored(tmp_path) -> None:
    source = lot(tmp_path / "w.zarr")
    run = score(source, out=tmp_path / "run", metrics=("psnr",), maps=("image",))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="holds the source"):
        score(run.path / "maps.zarr", reference=source, out=run.path, metrics=("psnr",), maps=("image",), match="order")
    assert contents(tmp_path) == before


def test_arrays_and_memory_maps_are_not_their_own_output(tmp_path) -> None:
    import zarr

    np.save(tmp_path / "x.npy", PIXELS)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r+")
    stored = zarr.create_array(str(tmp_path / "a.zarr"), data=PIXELS, chunks=(1, 40, 40))
    again = zarr.open_array(str(tmp_path / "a.zarr"), mode="r+")
    for source, out in (
        (mapped, mapped),
        (mapped[1], mapped[1]),
        (np.load(tmp_path / "x.npy", mmap_mode="r"), mapped),
        (stored, stored),
        (stored, again),
        (own := PIXELS.copy(), own[:]),
    ):
        with pytest.raises(ValueError, match="out shares its memory with src"):
            write(out, source)
    with pytest.raises(ValueError, match="the source"):
        write(tmp_path / "x.npy", np.load(tmp_path / "x.npy", mmap_mode="r"), overwrite=True)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), PIXELS)
    np.testing.assert_array_equal(again[:], PIXELS)


@pytest.mark.parametrize("out", ["s3://bucket/clean.zarr", Path("s3://bucket/clean.zarr"), "memory://x", "file:///x"])
def test_a_url_is_no_place_to_write_and_makes_no_folder_of_that_name(tmp_path, out, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = lot(tmp_path / "w.zarr")
    with pytest.raises(ValueError, match="accepted: a local path"):
        write(out, source)
    with pytest.raises(ValueError, match="accepted: a local path"):
        score(source, out=out, metrics=("psnr",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.zarr"]


def test_a_neighbour_whose_name_begins_alike_is_another_place(tmp_path) -> None:
    apart("out", tmp_path / "lot2", [(str(tmp_path / "lot"), True)])
    assert write(tmp_path / "w-clean.zarr", lot(tmp_path / "w.zarr")).counts["ok"] == 3


# --- only what a marker of ours lists is replaced or deleted ---------------------------------------------------


@pytest.mark.parametrize("way", ["overwrite", "resume"])
def test_a_plan_made_by_hand_does_not_make_the_data_beside_it_ours(tmp_path, way) -> None:
    source, mine = lot(tmp_path / "w.zarr"), raw(tmp_path / "mine")
    before = contents(mine)
    with pytest.raises((FileExistsError, ValueError), match=r"not written by semnr|no denoise run has a record"):
        write(mine, source, **{way: True})
    assert contents(mine) == before


@pytest.mark.parametrize("form", ["clean", "clean.zarr"])
def test_what_was_written_is_replaced_and_files_beside_it_stay(tmp_path, form) -> None:
    source, out = lot(tmp_path / "w.zarr"), tmp_path / form
    first = write(out, source)
    if form == "clean":
        (out / "notes.txt").write_text("mine")
        (out / "more").mkdir()
        (out / "more" / "a.tif").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write(out, source)
    again = denoise(source, out, model="median", overwrite=True)
    assert again.counts == first.counts
    assert [key.tile for key in open_tiles(out)] == [key.tile for key in KEYS]
    expected = denoise(PIXELS[0], model="median")
    np.testing.assert_array_equal(open_tiles(out).read(KEYS[0]), expected)
    if form == "clean":
        assert (out / "notes.txt").read_text() == "mine"
        assert (out / "more" / "a.tif").read_bytes() == b"mine"


ADDED = {
    "a role folder": "noisy/t0.tif",
    "a tile in our folder": "image/extra.tif",
    "a folder in our folder": "image/deep/t0.tif",
    "a hidden file in our folder": "image/.notes",
}


@pytest.mark.parametrize("name", ADDED.values(), ids=list(ADDED))
def test_data_that_somebody_added_among_ours_stops_the_overwrite_before_anything_is_deleted(tmp_path, name) -> None:
    source, out = lot(tmp_path / "w.zarr"), tmp_path / "clean"
    write(out, source)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_bytes(b"raw data")
    before = contents(out)
    with pytest.raises(FileExistsError, match=name):
        write(out, source, overwrite=True)
    assert contents(out) == before


@pytest.mark.parametrize("way", ["overwrite", "resume"])
def test_a_plan_that_was_edited_is_no_longer_ours(tmp_path, way) -> None:
    source, out = lot(tmp_path / "w.zarr"), tmp_path / "clean"
    write(out, source)
    plan = (out / "plan.csv").read_text()
    (out / "plan.csv").write_text(plan.replace("\n", ",my_label\n", 1))
    before = contents(out)
    with pytest.raises(FileExistsError, match="changed since"):
        write(out, source, **{way: True})
    assert contents(out) == before


@pytest.mark.parametrize(
    "added", ["reference/c/0/0/0", "mask/zarr.json", "notes.txt", "image/notes.txt", "columns/grade/zarr.json"]
)
def test_an_array_that_somebody_added_to_our_zarr_stops_the_overwrite(tmp_path, added) -> None:
    source, out = lot(tmp_path / "w.zarr"), tmp_path / "clean.zarr"
    write(out, source)
    (out / added).parent.mkdir(parents=True, exist_ok=True)
    (out / added).write_bytes(b"{}")
    before = contents(out)
    with pytest.raises(FileExistsError, match=added):
        write(out, source, overwrite=True)
    assert contents(out) == before


def test_a_zarr_of_somebody_else_is_not_replaced(tmp_path) -> None:
    import zarr

    group = zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    group.create_array("image", data=PIXELS, chunks=(1, 40, 40))
    before = contents(tmp_path / "other.zarr")
    for way in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises((FileExistsError, ValueError), match=r"not written by semnr|no denoise run has a record"):
            write(tmp_path / "other.zarr", lot(tmp_path / f"w{len(way)}{way}.zarr"), **way)
    assert contents(tmp_path / "other.zarr") == before


def test_a_tile_of_ours_that_became_a_link_to_raw_data_is_not_followed(tmp_path) -> None:
    source, out = lot(tmp_path / "w.zarr"), tmp_path / "clean"
    write(out, source)
    data = raw(tmp_path / "data") / "noisy"
    shutil.rmtree(out / "image")
    (out / "image").symlink_to(data)
    with pytest.raises(FileExistsError, match="image"):
        write(out, source, overwrite=True)
    assert len(contents(data)) == 3


def test_the_run_json_of_scores_is_not_replaced_by_that_of_denoised_tiles(tmp_path) -> None:
    source = lot(tmp_path / "w.zarr")
    run = score(source, out=tmp_path / "run", metrics=("psnr",))
    before = contents(run.path)
    for way in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(FileExistsError, match=r"run\.json"):
            write(run.path, source, **way)
    assert {name: value for name, value in contents(run.path).items() if name in before} == before
    assert semnr.report(run.path, out=tmp_path / "page.html").exists()


def test_a_run_does_not_go_on_in_the_folder_of_denoised_tiles(tmp_path) -> None:
    source = lot(tmp_path / "w.zarr")
    write(tmp_path / "clean", source)
    before = contents(tmp_path / "clean")
    with pytest.raises(ValueError, match="clean"):
        score(source, out=tmp_path / "clean", metrics=("psnr",))
    assert contents(tmp_path / "clean") == before


@pytest.mark.parametrize("added", ["notes.txt", "tiles/mine.parquet", "maps.zarr/mine/zarr.json"])
def test_scores_are_replaced_only_where_nothing_else_lies_among_them(tmp_path, added) -> None:
    source, scores = lot(tmp_path / "w.zarr"), tmp_path / "clean-scores"
    options = {"metrics": ("psnr",), "maps": ("image",)}
    write(tmp_path / "clean", source, score=options)
    assert write(tmp_path / "clean", source, score=options, overwrite=True).run.counts["ok"] == 3
    (scores / added).parent.mkdir(parents=True, exist_ok=True)
    (scores / added).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=added):
        write(tmp_path / "clean", source, score=options, overwrite=True)
    assert contents(tmp_path) == before


# --- the other commands -----------------------------------------------------------------------------------------


def test_synth_keeps_the_truth_of_another_wafer(tmp_path) -> None:
    from semnr.synth import SyntheticWafer, write_wafer

    def wafer(seed: int) -> SyntheticWafer:
        return SyntheticWafer(2, 1, 64, defect_rate=1.0, seed=seed)

    first = write_wafer(tmp_path / "a.zarr", wafer(1))
    truth = first.defects.read_bytes()
    second = write_wafer(tmp_path / "b.zarr", wafer(2))
    assert first.defects == tmp_path / "defects.csv"
    assert second.defects == tmp_path / "b-defects.csv"
    assert first.defects.read_bytes() == truth
    assert write_wafer(tmp_path / "a.zarr", wafer(3), overwrite=True).defects == first.defects
    assert first.defects.read_bytes() != truth
    (tmp_path / "lot").mkdir()
    (tmp_path / "lot" / "defects.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"defects\.csv"):
        write_wafer(tmp_path / "lot", wafer(1))
    assert (tmp_path / "lot" / "defects.csv").read_text() == "mine"


def test_a_demo_is_replaced_only_where_nothing_else_lies_in_its_folder(tmp_path) -> None:
    from semnr.demo import MARKER, _fresh

    out = _fresh(tmp_path / "demo")
    source = lot(out / "wafer.zarr")
    (out / "defects.csv").write_text("tile\n")
    write(out / "denoised" / "wavelet.zarr", source)
    run = score(out / "denoised" / "wavelet.zarr", reference=source, out=out / "scores" / "w", metrics=("psnr",))
    semnr.report(run.path, out=out / "report.html")
    (run.path / "mine.txt").write_text("mine")
    before = contents(out)
    with pytest.raises(FileExistsError, match=r"mine\.txt"):
        _fresh(out)
    assert contents(out) == before
    (run.path / "mine.txt").unlink()
    (out / "photo.tif").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"photo\.tif"):
        _fresh(out)
    (out / "photo.tif").unlink()
    assert [path.name for path in _fresh(out).iterdir()] == [MARKER]


@pytest.mark.parametrize("name", ["best.safetensors", "recipe.json", "card.md"])
def test_training_does_not_write_over_models_that_were_there(tmp_path, name) -> None:
    pytest.importorskip("lightning")
    from semnr.training import train_denoiser

    (tmp_path / name).write_text("{}")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match=name):
            train_denoiser(None, tmp_path, recipe="toy", resume=resume)
    assert contents(tmp_path).keys() == {name}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    source = lot(folder / "w.zarr")
    for name, sigma in (("a", 0.5), ("b", 0.8)):
        denoise(source, folder / f"{name}.zarr", model="gaussian", sigma=sigma)
        score(
            folder / f"{name}.zarr", reference=source, noisy=source, out=folder / name, metrics=("psnr",), tests=False
        )
    return folder


FILES = {
    "verdict": ("guard {a} {b} --out {out}", "v.json"),
    "junit": ("guard {a} {b} --junit {out}", "v.xml"),
    "baseline": ("guard {b} --write-baseline {out} --rules {rules}", "base.json"),
    "html": ("report {a} --out {out} --worst 0 --thumbnails 0", "r.html"),
    "md": ("report {a} --out {out}", "r.md"),
    "json": ("report {a} --out {out}", "r.json"),
    "png": ("report {a} --out {out}", "r.png"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_result_replaces_an_earlier_one_and_no_other_file(runs, tmp_path, kind, capsys) -> None:
    command, name = FILES[kind]
    out, rules = tmp_path / name, tmp_path / "rules.toml"
    rules.write_text("version = 1\n[rules.low]\nkind = 'range'\nbounds = [{ column = 'psnr', below = 1.0 }]\n")
    arguments = command.format(a=runs / "a", b=runs / "b", out=out, rules=rules).split()
    out.touch()  # as mktemp leaves it
    status = main(arguments)
    assert out.stat().st_size > 0, "".join(capsys.readouterr())
    assert main(arguments) == status
    out.write_bytes(b"raw data, or somebody's notes")
    assert main(arguments) == 2
    assert str(out) in capsys.readouterr().err
    assert out.read_bytes() == b"raw data, or somebody's notes"


def test_rules_made_by_hand_are_not_replaced_by_learnt_ones(tmp_path, capsys) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("version = 1\n# by hand\n")
    assert main(["guard", "--learn", "synthetic", "--rules-out", str(rules), "--tiles", "2"]) == 2
    assert rules.read_text() == "version = 1\n# by hand\n"
    assert "rules.toml" in capsys.readouterr().err


def test_a_result_may_go_to_a_device_or_through_a_link_which_stay_what_they_are(runs, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert main(["report", str(runs / "a"), "--format", "md", "--out", str(tmp_path / "pipe")]) == 0
    assert b"semnr report" in os.read(reader, 2**16)
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link.md").symlink_to(tmp_path / "real.md")
    assert main(["report", str(runs / "a"), "--out", str(tmp_path / "link.md")]) == 0
    assert (tmp_path / "link.md").is_symlink()
    assert (tmp_path / "real.md").is_file()


def test_a_report_of_an_unknown_form_is_refused(runs, tmp_path, capsys) -> None:
    assert main(["report", str(runs / "a"), "--out", str(tmp_path / "x.pdf")]) == 2
    assert "x.pdf" in capsys.readouterr().err
    assert not (tmp_path / "x.pdf").exists()


# --- going on ----------------------------------------------------------------------------------------------------


def stopped(monkeypatch: pytest.MonkeyPatch, out: Path, source: Any, **options: Any) -> None:
    from semnr.denoising.work import Work

    own = Work.__call__

    def call(self: Work, key: TileKey) -> Any:
        if key.index == 2:
            raise KeyboardInterrupt
        return own(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "__call__", call)
        with pytest.raises(KeyboardInterrupt):
            denoise(source, out, model="gaussian", workers=1, **options)


@pytest.mark.parametrize("form", ["clean", "clean.zarr"])
@pytest.mark.parametrize(
    ("first", "then", "named"),
    [
        ({"sigma": 0.8}, {"sigma": 6.0}, "params"),
        ({}, {"data_range": 1.0}, "data_range"),
        ({}, {"halo": 12}, "halo"),
        ({}, {"model": "median"}, "model"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(tmp_path, monkeypatch, form, first, then, named) -> None:
    source = lot(tmp_path / "w.zarr")
    stopped(monkeypatch, tmp_path / form, source, **first)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"{named} is .* was begun with"):
        denoise(source, tmp_path / form, **{"model": "gaussian", **first, **then}, resume=True)
    assert contents(tmp_path) == before
    assert denoise(source, tmp_path / form, model="gaussian", **first, resume=True).counts["ok"] == 3


@pytest.mark.parametrize("form", ["clean", "clean.zarr"])
@pytest.mark.parametrize("kind", ["w.zarr", "lot", "lot/plan.csv"])
def test_another_lot_of_the_same_base_name_does_not_go_on_with_a_run(tmp_path, monkeypatch, form, kind) -> None:
    name = kind.partition("/")[0]
    for place in ("monday", "tuesday"):
        lot(tmp_path / place / name)
    stopped(monkeypatch, tmp_path / form, tmp_path / "monday" / kind)
    with pytest.raises(ValueError, match=r"origin is .*tuesday.* was begun with .*monday"):
        denoise(tmp_path / "tuesday" / kind, tmp_path / form, model="gaussian", resume=True)
    assert denoise(tmp_path / "monday" / kind, tmp_path / form, model="gaussian", resume=True).counts["ok"] == 3


def test_other_pixels_in_memory_do_not_go_on_with_a_run(tmp_path, monkeypatch) -> None:
    stopped(monkeypatch, tmp_path / "clean", PIXELS)
    with pytest.raises(ValueError, match="origin is"):
        denoise(255 - PIXELS, tmp_path / "clean", model="gaussian", resume=True)
    assert denoise(PIXELS.copy(), tmp_path / "clean", model="gaussian", resume=True).counts["ok"] == 3


def test_a_run_and_its_source_may_move_together(tmp_path, monkeypatch) -> None:
    lot(tmp_path / "here" / "w.zarr")
    stopped(monkeypatch, tmp_path / "here" / "clean", tmp_path / "here" / "w.zarr")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = tmp_path / "there"
    assert denoise(moved / "w.zarr", moved / "clean", model="gaussian", resume=True).kept >= 1


@pytest.mark.parametrize("form", ["other", "other.zarr"])
def test_tiles_without_a_record_of_how_they_were_made_are_not_gone_on_with(tmp_path, form) -> None:
    other = lot(tmp_path / form)
    before = contents(other)
    with pytest.raises(ValueError, match="no denoise run has a record"):
        denoise(lot(tmp_path / "w.zarr"), other, model="gaussian", resume=True)
    assert contents(other) == before


@pytest.mark.parametrize(("form", "name"), [("clean", "run.json"), ("clean.zarr", "zarr.json")])
def test_a_damaged_record_is_named(tmp_path, form, name) -> None:
    source = lot(tmp_path / "w.zarr")
    denoise(source, tmp_path / form, model="gaussian")
    (tmp_path / form / name).write_text("{not json")
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        denoise(source, tmp_path / form, model="gaussian", resume=True)


def test_a_second_writer_waits_its_turn(tmp_path) -> None:
    from semnr.base.lock import only_writer

    source = lot(tmp_path / "w.zarr")
    for form, folder in (("clean", "clean"), ("clean.zarr", "clean.zarr/columns")):
        with only_writer(tmp_path / folder), pytest.raises(ValueError, match="another writer"):
            denoise(source, tmp_path / form, model="gaussian")
        assert denoise(source, tmp_path / form, model="gaussian").counts["ok"] == 3
        assert not [path for path in (tmp_path / form).rglob(".lock*")]


def test_the_record_says_whether_the_run_ended(tmp_path, monkeypatch) -> None:
    source = lot(tmp_path / "w.zarr")
    stopped(monkeypatch, tmp_path / "clean", source)
    assert json.loads((tmp_path / "clean" / "run.json").read_text())["state"] == "running"
    denoise(source, tmp_path / "clean", model="gaussian", resume=True)
    assert json.loads((tmp_path / "clean" / "run.json").read_text())["state"] == "finished"


# --- names and options -------------------------------------------------------------------------------------------

NAMES = [" before", "after ", "  both  ", "\ttab", "plain", 'quo"te', "com,ma", "ünï"]


def test_every_name_survives_the_plan_of_denoised_tiles(tmp_path) -> None:
    from PIL import Image

    source = tmp_path / "in"
    source.mkdir()
    for name, pixels in zip(NAMES, np.resize(PIXELS, (len(NAMES), 40, 40)), strict=True):
        Image.fromarray(pixels).save(source / f"{name}.png")
    done = write(tmp_path / "clean", source)
    assert done.counts == {"tiles": len(NAMES), "ok": len(NAMES)}
    assert sorted(key.tile for key in open_tiles(tmp_path / "clean")) == sorted(NAMES)
    run = score(tmp_path / "clean", reference=source, out=tmp_path / "run", metrics=("psnr",))
    assert run.counts == {"tiles": len(NAMES), "ok": len(NAMES)}


def test_blanks_around_the_cells_of_a_plan_made_by_hand_are_none_of_the_name(tmp_path) -> None:
    raw(tmp_path / "lot")
    (tmp_path / "lot" / "plan.csv").write_text("path , die_x\n noisy/t0.tif , 3\n")
    assert [(key.path, key.meta["die_x"]) for key in open_tiles(tmp_path / "lot")] == [("noisy/t0.tif", 3)]


@pytest.mark.parametrize(
    ("option", "value", "status"),
    [
        ("--memory-budget", "2147483648", 0),
        ("--memory-budget", "0", 2),
        ("--memory-budget", "many", 2),
        ("--fsim-downsample", "2", 0),
        ("--fsim-downsample", "x", 2),
        ("--fsim-downsample", "0", 2),
        ("--fsim-downsample", "-1", 2),
        ("--root", "nosuchdir", 2),
    ],
)
def test_options_are_checked_before_anything_is_written(tmp_path, option, value, status, capsys) -> None:
    source = lot(tmp_path / "w.zarr")
    command = [
        "score",
        str(source),
        "--out",
        str(tmp_path / "run"),
        "--metrics",
        "psnr",
        "--no-tests",
        "-q",
        option,
        value,
    ]
    assert main(command) == status
    assert (tmp_path / "run").exists() == (status == 0)
    if status:
        assert repr(value) in capsys.readouterr().err or value in ("0", "-1")


def test_what_a_kill_leaves_before_a_zarr_has_begun_does_not_bar_its_place(tmp_path) -> None:
    out = tmp_path / "o.zarr"
    (out / "columns").mkdir(parents=True)
    (out / "columns/.lock").touch()
    (out / "zarr.6c49b0f7dfd24b8b83db50d374924f5b.partial").touch()
    with create_tiles(out) as writer:
        writer.write(TileKey("a", 0), np.zeros((16, 16), np.uint8))
    assert [key.tile for key in semnr.open_tiles(out)] == ["a"]


def test_a_folder_of_anybodys_beside_such_a_torso_stays(tmp_path) -> None:
    out = tmp_path / "o.zarr"
    (out / "columns").mkdir(parents=True)
    (out / "zarr.6c49b0f7dfd24b8b83db50d374924f5b.partial").touch()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not written by semnr"):
        create_tiles(out)
