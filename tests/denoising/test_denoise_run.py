"""`semnr.denoise` over a source: going on after a cut, and scores in the same pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cases
import semnr
from semnr import denoise
from semnr.cli import main
from semnr.denoising import fuse
from semnr.denoising.tiled import as_dtype
from semnr.denoising.work import Work
from semnr.synth import tile
from semnr.tiles import TileKey, create_tiles

TILES = 6
METRICS = ("psnr", "ssim", "fsim", "cnr")  # DISTS needs weights


@pytest.fixture
def wafer(tmp_path: Path) -> Path:
    path = tmp_path / "wafer.zarr"
    with create_tiles(path, roles=("noisy", "reference"), pixel_nm=2.5) as writer:
        for index in range(TILES):
            key = TileKey(f"d{index}/a", index, None, {"die_x": index, "die_y": -1})
            scene = tile("lines", 96, seed=index)
            writer.write(key, scene.noisy(dtype="uint8"), "noisy")
            writer.write(key, np.rint(255 * scene.clean).astype(np.uint8), "reference")
    return path


def pixels(path: Path) -> dict[str, np.ndarray]:
    source = semnr.open_tiles(path)
    return {key.tile: source.read(key) for key in source}


def rows(run: Any) -> list[dict[str, Any]]:
    return sorted(run.table().to_pylist(), key=lambda row: row["tile"])


def stopped_at(monkeypatch: pytest.MonkeyPatch, index: int) -> list[int]:
    """Work stops there as Ctrl-C does; the list fills with the tiles that are worked on."""
    seen: list[int] = []
    own = Work.__call__

    def call(self: Work, key: TileKey) -> Any:
        if key.index == index and len(seen) < TILES:
            raise KeyboardInterrupt
        seen.append(key.index)
        return own(self, key)

    monkeypatch.setattr(Work, "__call__", call)
    return seen


@pytest.mark.parametrize("name", ["clean.zarr", "clean"])
def test_an_interrupted_run_goes_on_where_it_stopped(
    wafer: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = denoise(wafer, tmp_path / f"whole-{name}", model="median", workers=1)
    with monkeypatch.context() as patch:
        stopped_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            denoise(wafer, tmp_path / name, model="median", workers=1)
    with monkeypatch.context() as patch:
        seen = stopped_at(patch, -1)
        run = denoise(wafer, tmp_path / name, model="median", workers=1, resume=True)
    assert run.kept >= 1
    assert len(seen) == TILES - run.kept
    assert run.counts == whole.counts
    expected, found = pixels(tmp_path / f"whole-{name}"), pixels(tmp_path / name)
    assert found.keys() == expected.keys()
    for key, image in expected.items():
        np.testing.assert_array_equal(found[key], image)
    assert [key.meta["die_x"] for key in semnr.open_tiles(tmp_path / name)] == list(range(TILES))


@pytest.mark.parametrize("name", ["clean.zarr", "clean"])
def test_a_killed_run_goes_on_where_it_stopped(wafer: Path, tmp_path: Path, name: str) -> None:
    code = (
        "import os, sys; from semnr import denoise; from semnr.denoising import work as s\n"
        "own = s.Work.__call__\n"
        "s.Work.__call__ = lambda self, key: os._exit(9) if key.index == 4 else own(self, key)\n"
        "denoise(sys.argv[1], sys.argv[2], model='median', workers=1)"
    )
    out = tmp_path / name
    assert subprocess.run([sys.executable, "-c", code, str(wafer), str(out)], check=False).returncode == 9
    run = denoise(wafer, out, model="median", resume=True)
    assert 1 <= run.kept <= 4
    assert run.counts == {"tiles": TILES, "ok": TILES}
    denoise(wafer, tmp_path / "whole.zarr", model="median")
    for key, image in pixels(tmp_path / "whole.zarr").items():
        np.testing.assert_array_equal(pixels(out)[key], image)


def test_tiles_at_the_edge_of_a_mosaic_keep_their_size(tmp_path: Path) -> None:
    mosaic = tile("lines", 150, seed=0).noisy(dtype="uint8")
    denoise(mosaic, tmp_path / "clean.zarr", model="median", tile=64)
    before = pixels(tmp_path / "clean.zarr")
    run = denoise(mosaic, tmp_path / "clean.zarr", model="median", tile=64, resume=True)
    assert run.kept == len(before) == 9
    for key, image in pixels(tmp_path / "clean.zarr").items():
        np.testing.assert_array_equal(image, before[key])


@pytest.mark.parametrize("name", ["clean.zarr", "clean"])
def test_a_last_tile_that_is_larger_than_the_others_is_written_whole(tmp_path: Path, name: str) -> None:
    mosaic = tile("lines", 400, seed=0).noisy(dtype="uint8")[:202]
    run = denoise(mosaic, tmp_path / name, model="median", tile=196)
    assert run.counts == {"tiles": 2, "ok": 2}
    found = [pixels(tmp_path / name)[key] for key in ("r0000_c0000", "r0000_c0001")]
    assert [image.shape for image in found] == [(202, 196), (202, 204)]
    np.testing.assert_array_equal(np.hstack(found), denoise(mosaic, model="median"))


def test_a_damaged_tile_is_made_again(wafer: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean.zarr"
    denoise(wafer, out, model="median")
    before = pixels(out)
    chunk = out / "image" / "c" / "2" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(bytes(data))
    assert denoise(wafer, out, model="median", resume=True).kept == TILES - 1
    for key, image in pixels(out).items():
        np.testing.assert_array_equal(image, before[key])


def test_the_command_says_what_the_scores_are(wafer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "median", "--score", "--metrics", "psnr,ssim", "-q"]
    assert main(["denoise", str(wafer), "--out", str(tmp_path / "clean.zarr"), *options]) == 0
    said = capsys.readouterr().out
    assert f"{TILES} of {TILES} tiles scored" in said
    assert "psnr " in said
    assert str(tmp_path / "clean-scores") in said


def test_other_weights_of_the_same_name_do_not_go_on_with_a_run(wafer: Path, tmp_path: Path) -> None:
    import torch

    from semnr.denoising import weights
    from semnr.denoising.network import Layout, SemDenoiser

    path = tmp_path / "w.safetensors"
    for seed in (0, 1):
        torch.manual_seed(seed)
        digest = weights.save(SemDenoiser(Layout((4, 4), (1,), 1, 4)), path, family={}, about={})
        if seed == 0:
            first = denoise(wafer, tmp_path / "clean.zarr", model=str(path))
            assert first.weights == digest
            assert denoise(wafer, tmp_path / "clean.zarr", model=str(path), resume=True).kept == TILES
    with pytest.raises(ValueError, match=f"weights is '{digest}'.* was begun with '{first.weights}'"):
        denoise(wafer, tmp_path / "clean.zarr", model=str(path), resume=True)


def test_other_settings_do_not_go_on_with_a_run(wafer: Path, tmp_path: Path) -> None:
    denoise(wafer, tmp_path / "clean.zarr", model="median")
    with pytest.raises(ValueError, match=r"params is .*'size': 3.* was begun with .*'size': 5"):
        denoise(wafer, tmp_path / "clean.zarr", model="median", size=3, resume=True)
    with pytest.raises(ValueError, match="model is 'gaussian'"):
        denoise(wafer, tmp_path / "clean.zarr", model="gaussian", resume=True)
    with pytest.raises(FileExistsError):
        denoise(wafer, tmp_path / "clean.zarr", model="median")


@pytest.mark.parametrize(("option", "value"), [("resume", True), ("score", True)])
def test_arrays_are_neither_resumed_nor_scored(option: str, value: bool) -> None:
    with pytest.raises(ValueError, match=f"{option} is True and out is no path"):
        denoise(np.zeros((64, 64), np.uint8), **{option: value})


def test_scores_of_the_same_pass_are_those_of_a_second_one(wafer: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean.zarr"
    done = denoise(wafer, out, model="median", score={"metrics": METRICS})
    assert done.counts == {"tiles": TILES, "ok": TILES}
    assert done.run.path == tmp_path / "clean-scores"
    denoise(wafer, tmp_path / "alone.zarr", model="median")
    for key, image in pixels(tmp_path / "alone.zarr").items():
        np.testing.assert_array_equal(pixels(out)[key], image)
    again = semnr.score(out, reference=wafer, noisy=wafer, out=tmp_path / "scores", metrics=METRICS)
    for one, other in zip(rows(done.run), rows(again), strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_equal(one, other)
        assert one["status"] == "ok"
        assert np.isfinite([one["psnr"], one["transfer"], one["removed_z"]]).all()


def test_a_rule_that_fires_on_the_scores_is_the_exit_code(wafer: Path, tmp_path: Path) -> None:
    options = {"out": tmp_path / "s", "metrics": ("psnr", "ssim"), "rules": semnr.DEFAULT_RULES}
    done = denoise(wafer, tmp_path / "clean.zarr", model="gaussian", sigma=4.0, score=options)
    assert done.run.verdict is not None
    assert done.exit_code == done.run.verdict.exit_code == 1


def test_a_scored_run_goes_on_where_it_stopped(wafer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"model": "median", "workers": 1}
    whole = denoise(wafer, tmp_path / "whole.zarr", score={"metrics": ("psnr",)}, **settings)
    with monkeypatch.context() as patch:
        stopped_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            denoise(wafer, tmp_path / "clean.zarr", score={"metrics": ("psnr",)}, **settings)
    done = denoise(wafer, tmp_path / "clean.zarr", score={"metrics": ("psnr",)}, resume=True, **settings)
    assert done.counts == whole.counts
    assert rows(done.run) == rows(whole.run)
    for key, image in pixels(tmp_path / "whole.zarr").items():
        np.testing.assert_array_equal(pixels(tmp_path / "clean.zarr")[key], image)
    with pytest.raises(ValueError, match="clean-scores"):  # the scores of an earlier run are in the way
        denoise(wafer, tmp_path / "clean.zarr", score={"metrics": METRICS}, resume=True, **settings)
    again = denoise(wafer, tmp_path / "clean.zarr", score={"metrics": METRICS}, overwrite=True, **settings)
    assert again.exit_code == 0


def test_what_is_not_a_way_to_score_is_refused(wafer: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="score is int"):
        denoise(wafer, tmp_path / "clean.zarr", score=7)
    with pytest.raises(ValueError, match="score has 'workers'"):
        denoise(wafer, tmp_path / "clean.zarr", score={"workers": 3})
    with pytest.raises(ValueError, match="metrics is"):
        denoise(wafer, tmp_path / "one.zarr", model="median", score={"metrics": ("ssmi",)})
    assert not (tmp_path / "one.zarr").exists()  # mistakes show before anything is written


def test_without_a_reference_the_tiles_are_judged_by_their_noisy_input(tmp_path: Path) -> None:
    tile = np.random.default_rng(0).normal(cases.lines(96, 96) * 150 + 40, 10).astype(np.uint8)
    done = denoise([tile], tmp_path / "one.zarr", model="median", score=True)
    assert done.run is not None
    assert done.run.verdict.outcome in ("not refuted", "failed")
    assert done.run.verdict["evidence_transfer"].status == "unknown"


def test_the_command_denoises_scores_and_goes_on(
    wafer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "clean.zarr")
    command = ["denoise", str(wafer), "--out", out, "--model", "median", "--quiet"]
    assert main([*command, "--set", "size=3", "--score", "--metrics", "psnr,ssim"]) == 0
    assert "clean-scores" in capsys.readouterr().out
    assert main([*command, "--set", "size=3", "--resume"]) == 0
    assert f"{TILES} tiles were there already" in capsys.readouterr().out
    assert main([*command, "--resume"]) == 2
    assert main([*command, "--rules", "rules.toml"]) == 2
    assert "--rules is given without --score" in capsys.readouterr().err
    assert json.loads((tmp_path / "clean-scores" / "run.json").read_text())["state"] == "finished"


def frames_of_a_site(path: Path, roles: tuple[str, ...] = ("noisy", "noisy_2", "noisy_3")) -> Path:
    with create_tiles(path, roles=(*roles, "reference")) as writer:
        for index in range(2):
            scene = tile("holes", 128, seed=index)
            key = TileKey(f"t{index}", index)
            for k, role in enumerate(roles):
                frame = scene.noisy(frame=k, dtype="uint8")
                writer.write(key, frame if index else np.roll(frame, k, axis=0), role)  # the first site drifts
            writer.write(key, np.rint(255 * scene.clean).astype(np.uint8), "reference")
    return path


def test_the_frames_of_a_site_are_denoised_as_one(tmp_path: Path) -> None:
    lot = frames_of_a_site(tmp_path / "lot.zarr")
    done = denoise(lot, tmp_path / "clean.zarr", model="gaussian", sigma=0.7, frames=True, score={"metrics": ("psnr",)})
    one = denoise(lot, tmp_path / "one.zarr", model="gaussian", sigma=0.7, score={"metrics": ("psnr",)})
    assert done.role == "noisy"
    for fused, single in zip(rows(done.run), rows(one.run), strict=True):
        assert fused["psnr"] > single["psnr"] + 2.0  # also of the site whose frames drift by a pixel
    source = semnr.open_tiles(lot)
    frames = [source.read(next(iter(source)), role) for role in ("noisy", "noisy_2", "noisy_3")]
    expected = denoise(as_dtype(fuse(frames)[0], np.dtype(np.uint8), None), model="gaussian", sigma=0.7)
    np.testing.assert_array_equal(pixels(tmp_path / "clean.zarr")["t0"], expected)


def test_a_single_frame_is_not_fused(wafer: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"frames is True, but .* has the roles"):
        denoise(wafer, tmp_path / "clean.zarr", model="median", frames=True)
