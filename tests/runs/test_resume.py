"""What a run may be gone on with, what it may not, and what a run that was cut off is worth."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semnr
from semnr.base.lock import only_writer
from semnr.cli import main
from semnr.denoising import denoised
from semnr.guarding import guard, read_baseline, write_baseline
from semnr.scoring import Run, score
from semnr.tiles import TileKey, create_tiles
from semnr.wafers import Wafer

FAST = {"metrics": ("psnr", "ssim"), "tests": False}
SIDE = 32


def lot(folder, count: int = 6, seed: int = 0, side: int = SIDE, first: int = 0):
    """A tile stack with reference and noisy; the noise differs with the seed."""
    rng = np.random.default_rng(seed)
    with create_tiles(folder, roles=("reference", "noisy"), shape=(side, side)) as tiles:
        for i in range(count):
            clean = np.add.outer(np.arange(side), 3 * np.arange(side)).astype(np.uint8) % 200
            key = TileKey(f"t{first + i:06d}", i, meta={"die_x": i % 3, "die_y": 0})
            tiles.write(key, clean, "reference")
            tiles.write(key, clean + rng.integers(0, 30, clean.shape, dtype=np.uint8), "noisy")
    return folder


def cut(run, rows: int):
    """Leave what a kill after `rows` rows would have left."""
    info = json.loads((run / "run.json").read_text())
    kept = {name: info[name] for name in info if name not in ("counts", "summary", "problems", "remarks", "identical")}
    (run / "run.json").write_text(json.dumps({**kept, "state": "running"}))
    part = run / "tiles/part-00000.parquet"
    pq.write_table(pq.read_table(part).slice(0, rows), part)
    return run


def rows_of(run) -> list[dict]:
    return Run.open(run).table().to_pylist()


def gaussian(source, sigma: float, **more):
    return denoised(source, model="gaussian", sigma=sigma, **more)


# --- settings -------------------------------------------------------------------------------------------------


def test_another_parameter_of_the_denoiser_is_refused_with_was_and_is(tmp_path, capsys) -> None:
    stack, out = lot(tmp_path / "lot.zarr"), tmp_path / "run"
    score(gaussian(stack, 0.8), out=out, **FAST)
    cut(out, 2)
    with pytest.raises(ValueError, match=r"made\.source\.denoiser\.params\.sigma: was 0\.8, is 6"):
        score(gaussian(stack, 6.0), out=out, **FAST)
    command = ["score", str(stack), "--denoise", "gaussian", "--set", "sigma=6", "--out", str(out), "--resume", "-q"]
    assert main([*command, "--metrics", "psnr,ssim", "--no-tests"]) == 2
    assert capsys.readouterr().err.count("params.sigma") == 1
    with pytest.raises(ValueError, match=r"denoiser\.model: was 'gaussian', is 'median'"):
        score(denoised(stack, model="median"), out=out, **FAST)
    assert len(rows_of(out)) == 2
    score(gaussian(stack, 0.8), out=out, **FAST)
    assert [row["tile"] for row in rows_of(out)] == [f"t{i:06d}" for i in range(6)]


def test_a_denoised_source_is_not_the_source_itself(tmp_path) -> None:
    stack, out = lot(tmp_path / "lot.zarr"), tmp_path / "run"
    score(stack, out=out, **FAST)
    with pytest.raises(ValueError, match=r"source: was '\.\./lot\.zarr', is '\.\./lot\.zarr denoised by gaussian'"):
        score(gaussian(stack, 1.0), out=out, **FAST)


@pytest.mark.parametrize("denoise", [False, True])
def test_another_lot_of_the_same_base_name_is_refused(tmp_path, denoise) -> None:
    one, other = lot(tmp_path / "a/lot.zarr"), lot(tmp_path / "b/lot.zarr", seed=1)
    source = gaussian if denoise else lambda src, _: src
    score(source(one, 1.0), out=tmp_path / "run", **FAST)
    cut(tmp_path / "run", 2)
    with pytest.raises(ValueError, match=r"source: was '\.\./a/lot\.zarr.*is '\.\./b/lot\.zarr"):
        score(source(other, 1.0), out=tmp_path / "run", **FAST)


def test_a_link_that_leads_to_another_lot_by_now_is_another_source(tmp_path) -> None:
    lot(tmp_path / "a.zarr"), lot(tmp_path / "b.zarr", seed=1)
    link = tmp_path / "now.zarr"
    link.symlink_to("a.zarr")
    score(link, out=tmp_path / "run", **FAST)
    link.unlink()
    link.symlink_to("b.zarr")
    with pytest.raises(ValueError, match=r"was '\.\./a\.zarr', is '\.\./b\.zarr'"):
        score(link, out=tmp_path / "run", **FAST)


def test_other_pixels_under_the_same_path_are_noticed_at_the_first_tile(tmp_path) -> None:
    stack, out = lot(tmp_path / "lot.zarr"), tmp_path / "run"
    score(gaussian(stack, 1.0), out=out, **FAST)
    cut(out, 2)
    shutil.rmtree(stack)
    lot(stack, seed=5)
    with pytest.raises(ValueError, match=r"tile t000000 of lot\.zarr denoised by gaussian has changed since"):
        score(gaussian(stack, 1.0), out=out, **FAST)


def test_arrays_in_memory_are_told_apart_by_their_pixels(tmp_path) -> None:
    rng = np.random.default_rng(0)
    clean, other = rng.integers(0, 255, (2, 3, SIDE, SIDE), dtype=np.uint8)
    score(clean // 2, reference=clean, out=tmp_path / "run", **FAST)
    score(clean // 2, reference=clean, out=tmp_path / "run", **FAST)
    with pytest.raises(ValueError, match="a run of other pixels"):
        score(other // 2, reference=clean, out=tmp_path / "run", **FAST)


def test_a_run_and_its_sources_may_move_together(tmp_path) -> None:
    score(gaussian(lot(tmp_path / "old/lot.zarr"), 1.0), out=tmp_path / "old/runs/r", **FAST)
    cut(tmp_path / "old/runs/r", 3)
    (tmp_path / "old").rename(tmp_path / "new")
    run = score(gaussian(tmp_path / "new/lot.zarr", 1.0), out=tmp_path / "new/runs/r", **FAST)
    assert run.counts == {"tiles": 6, "ok": 6}


def test_another_layout_of_the_wafer_is_refused(tmp_path) -> None:
    stack, out = lot(tmp_path / "lot.zarr"), tmp_path / "run"
    score(stack, out=out, wafer=Wafer((26_000.0, 33_000.0)), **FAST)
    with pytest.raises(ValueError, match=r"wafer\.pitch_um: was \[26000\.0, 33000\.0\], is \[10000\.0, 10000\.0\]"):
        score(stack, out=out, wafer=Wafer((10_000.0, 10_000.0)), **FAST)
    with pytest.raises(ValueError, match=r"wafer: was \{.*, is None"):
        score(stack, out=out, **FAST)


def test_other_weights_of_dists_are_refused(tmp_path) -> None:
    from semnr_kernels.dists.weights import random_weights

    stack, out = lot(tmp_path / "lot.zarr", count=1), tmp_path / "run"
    given = {"metrics": ("dists",), "tests": False}
    score(stack, out=out, dists_weights=dict(random_weights(0).state), **given)
    with pytest.raises(ValueError, match=r"dists\.sha256: was '[0-9a-f]{64}', is '[0-9a-f]{64}'"):
        score(stack, out=out, dists_weights=dict(random_weights(1).state), **given)


# --- what the first tile decided ------------------------------------------------------------------------------


def mixed(folder, sides: list[int], dtypes: list[type] | None = None):
    """Arrays of several sizes and dtypes, as (id, candidate) and (id, reference)."""
    rng = np.random.default_rng(0)
    pairs = []
    for i, side in enumerate(sides):
        dtype = (dtypes or [np.uint8] * len(sides))[i]
        clean = rng.integers(0, 200, (side, side)).astype(dtype)
        pairs.append((f"t{i}", clean, (clean + rng.integers(0, 9, clean.shape)).astype(dtype)))
    return [(name, x) for name, _, x in pairs], [(name, y) for name, y, _ in pairs]


def test_the_fsim_factor_of_the_first_tile_holds_for_the_whole_run_also_after_a_kill(tmp_path) -> None:
    x, y = mixed(tmp_path, [64, 600])
    given = {"reference": y, "metrics": ("psnr", "fsim"), "tests": False}
    whole = score(x, out=tmp_path / "whole", **given)
    score(x, out=tmp_path / "cut", **given)
    cut(tmp_path / "cut", 1)
    again = score(x, out=tmp_path / "cut", **given)
    assert again.info["settings"]["fsim_downsample"] == whole.info["settings"]["fsim_downsample"] == 1
    assert [r["fsim"] for r in rows_of(tmp_path / "cut")] == [r["fsim"] for r in rows_of(tmp_path / "whole")]


def test_the_dtype_of_the_first_tile_holds_for_the_whole_run_also_after_a_kill(tmp_path) -> None:
    x, y = mixed(tmp_path, [32, 32, 32], [np.uint8, np.uint16, np.uint8])
    score(x, reference=y, out=tmp_path / "run", **FAST)
    cut(tmp_path / "run", 1)
    score(x, reference=y, out=tmp_path / "run", **FAST)
    assert [row["status"] for row in rows_of(tmp_path / "run")] == ["ok", "wrong_dtype", "ok"]


def test_what_was_decided_is_on_the_disk_before_the_first_row(tmp_path, monkeypatch) -> None:
    from semnr.runs import parquet

    class Stop(Exception): ...

    def stop(self, row) -> None:
        raise Stop

    monkeypatch.setattr(parquet.ParquetSink, "add", stop)
    x, y = mixed(tmp_path, [48])
    with pytest.raises(Stop):
        score(iter(x), reference=y, out=tmp_path / "run", **FAST)
    decided = json.loads((tmp_path / "run/run.json").read_text())["decided"]
    assert {k: decided[k] for k in ("tile", "dtype", "data_range", "fsim_downsample")} == {
        "tile": "t0",
        "dtype": "uint8",
        "data_range": 255.0,
        "fsim_downsample": 1,
    }


# --- tiles that were not scored -------------------------------------------------------------------------------


def test_missing_and_unreadable_tiles_are_tried_again_once_they_are_mended(tmp_path) -> None:
    from PIL import Image

    for role in ("noisy", "reference"):
        (tmp_path / "lot" / role).mkdir(parents=True)
        for i in range(4):
            pixels = np.full((SIDE, SIDE), 40 * i, np.uint8) + np.arange(SIDE, dtype=np.uint8) * (role == "noisy")
            Image.fromarray(pixels).save(tmp_path / f"lot/{role}/{i}.png")
    held = {name: (tmp_path / "lot" / name).read_bytes() for name in ("noisy/1.png", "reference/2.png")}
    (tmp_path / "lot/reference/2.png").unlink()
    (tmp_path / "lot/noisy/1.png").write_bytes(held["noisy/1.png"][:40])
    plan = tmp_path / "lot/plan.csv"
    plan.write_text(
        "tile,path,reference\n" + "".join(f"t{i},noisy/{i}.png,reference/{i}.png\n" for i in (0, 1, 2, 3, 3))
    )
    first = score(plan, out=tmp_path / "run", **FAST)
    assert first.counts == {"tiles": 5, "ok": 2, "duplicate": 1, "missing": 1, "unreadable": 1}
    for name, content in held.items():
        (tmp_path / "lot" / name).write_bytes(content)
    again = score(plan, out=tmp_path / "run", **FAST)
    assert again.counts == {"tiles": 5, "ok": 4, "duplicate": 1}
    assert sorted(row["tile"] for row in rows_of(tmp_path / "run") if row["status"] == "ok") == ["t0", "t1", "t2", "t3"]


def test_more_rows_than_tiles_are_an_incomplete_run(tmp_path) -> None:
    x, y = mixed(tmp_path, [32] * 4)
    score(x, reference=y, out=tmp_path / "run", **FAST)
    run = score(x[:3], reference=y[:3], out=tmp_path / "run", **FAST)
    assert run.exit_code == 3
    assert run.info["state"] == "incomplete"
    assert "the run has 4 rows for 3 tiles: it is not complete" in run.remarks
    assert Run.open(run.path).profile().unfinished is not None


# --- two writers ----------------------------------------------------------------------------------------------


def test_a_second_run_in_one_folder_is_refused_while_the_first_is_at_work(tmp_path, capsys) -> None:
    stack = lot(tmp_path / "lot.zarr")
    with only_writer(tmp_path / "run"):
        with pytest.raises(ValueError, match="another writer is at work in"):
            score(stack, out=tmp_path / "run", **FAST)
        code = main(["score", str(stack), "--out", str(tmp_path / "run"), "--metrics", "psnr", "--no-tests", "-q"])
        assert code == 2
        assert "another writer is at work" in capsys.readouterr().err
    assert score(stack, out=tmp_path / "run", **FAST).exit_code == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "tiles"}


@pytest.mark.parametrize("left", [".lock", ".run.json.77.tmp", "tiles"])
def test_what_a_kill_before_the_first_row_leaves_does_not_bar_the_folder(tmp_path, left) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / left).mkdir() if left == "tiles" else (out / left).write_text("{")
    assert score(lot(tmp_path / "lot.zarr"), out=out, **FAST).exit_code == 0


# --- runs that were cut off -----------------------------------------------------------------------------------


@pytest.fixture
def halves(tmp_path):
    """A whole run, and the same cut off after four of its six tiles."""
    stack = lot(tmp_path / "lot.zarr")
    for name in ("whole", "half"):
        score(gaussian(stack, 0.8), out=tmp_path / name, **FAST)
    cut(tmp_path / "half", 4)
    return tmp_path / "whole", tmp_path / "half"


RULES = {"rules": {"ssim": {"kind": "range", "bounds": [{"column": "ssim", "below": 0.01}]}}}


def test_a_run_that_was_cut_off_opens_no_gate_but_with_a_waiver_by_name(halves) -> None:
    whole, half = (Run.open(path).profile() for path in halves)
    assert guard(None, whole, rules=RULES).passed
    verdict = guard(None, half, rules=RULES)
    assert verdict.exit_code == 3
    assert verdict["tiles_scored"].status == "unknown"
    assert "run.json says 'running'" in verdict["tiles_scored"].evidence["reason"]
    assert guard(half, half, rules=RULES).exit_code == 3
    assert guard(None, half, rules=RULES, allow_unknown="tiles_scored").passed
    assert Run.open(halves[1]).exit_code == 3
    assert Run.open(halves[1]).counts == {"tiles": 4, "ok": 4}


def test_a_run_that_was_cut_off_becomes_no_baseline_but_with_a_waiver_by_name(halves, tmp_path, capsys) -> None:
    half, path = Run.open(halves[1]).profile(), tmp_path / "baseline.json"
    with pytest.raises(ValueError, match="accepted: a run that came to its end"):
        write_baseline(half, path)
    main(["guard", str(halves[1]), "--write-baseline", str(path)])
    assert "the gate is shut, not written" in capsys.readouterr().out
    assert not path.exists()
    write_baseline(half, path, allow_unknown=("tiles_scored",))
    assert guard(read_baseline(path), half, rules=RULES).exit_code == 3
    main(["guard", str(halves[0]), "--write-baseline", str(path)])
    assert "baseline: written to" in capsys.readouterr().out


# --- runs of the earlier version ------------------------------------------------------------------------------


def earlier(folder):
    """A run as the version before wrote it: run.json without the layout, the denoiser or what the first tile decided,
    and results of a plan copied into its rows."""
    (folder / "tiles").mkdir(parents=True)
    settings = {
        **{"source": "../plan.csv", "reference": "../plan.csv", "noisy": None, "noisy_2": None, "noisy_3": None},
        **{"metrics": ["psnr", "ssim"], "data_range": None, "fsim_downsample": "auto", "nan": "error", "tests": True},
        **{"dists": {"weights": None, "resize": None, "every": 1}, "metrology": None, "scan_axis": -1},
    }
    info = {
        **{"semnr": "0.1.0", "label": "plan", "state": "finished", "source": "../plan.csv", "wafer": None},
        **{"reference": "../plan.csv", "requested": settings, "counts": {"tiles": 3, "ok": 2, "missing": 1}},
        "settings": {**settings, "data_range": 255.0, "fsim_downsample": 1},
        **{"problems": [], "summary": {}, "seconds": 1.0},
    }
    (folder / "run.json").write_text(json.dumps(info))
    rows = {
        **{"tile": ["t0", "t1", "t2"], "index": [0, 1, 2], "status": ["ok", "ok", "missing"]},
        **{"reason": [None, None, "gone"], "die_x": [1, 2, 3]},
        **{"psnr": [30.0, 31.0, 99.0], "ssim": [0.9, 0.8, 0.99], "mse": [65.0, 51.0, None]},
        **{"fsim": [0.97, 0.98, 0.99], "transfer": [1.0, 1.0, 1.0], "removed_count": [0.0, 0.0, 0.0]},
    }
    pq.write_table(pa.table(rows), folder / "tiles/part-00000.parquet")
    return folder


def test_a_run_of_the_earlier_version_opens_with_what_it_computed_and_nothing_else(tmp_path) -> None:
    run = Run.open(earlier(tmp_path / "run"))
    assert run.exit_code == 3
    assert run.counts == {"tiles": 3, "ok": 2, "missing": 1}
    profile = run.profile()
    assert profile.unfinished is None
    np.testing.assert_array_equal(profile.psnr, [30.0, 31.0, np.nan])
    np.testing.assert_array_equal(profile.column("die_x"), [1.0, 2.0, 3.0])
    assert np.isnan(profile.fsim).all()
    assert np.isnan(profile.transfer).all()
    assert not {"fsim", "transfer", "removed_count"} & set(run.table().column_names)
    assert run.table().column("ssim").to_pylist() == [0.9, 0.8, None]
    assert run.summary == {}


def test_a_run_of_the_earlier_version_is_not_added_to_and_says_what_it_did_not_record(tmp_path) -> None:
    x, y = mixed(tmp_path, [32] * 3)
    out = earlier(tmp_path / "run")
    before = (out / "run.json").read_bytes()
    with pytest.raises(ValueError, match=r"an earlier version of semnr, which did not record made, wafer"):
        score(x, reference=y, out=out, **FAST)
    (out / "run.json").write_text('{"semnr": "0.0.1", "requested": {}}')
    with pytest.raises(ValueError, match="did not record source, reference, "):
        score(x, reference=y, out=out, **FAST)
    (out / "run.json").write_bytes(before)
    assert semnr.report(out, out=tmp_path / "report.html")


def test_a_verdict_on_fewer_rows_is_set_aside_when_the_run_goes_on(tmp_path) -> None:
    stack, out = lot(tmp_path / "lot.zarr"), tmp_path / "run"
    score(stack, out=out, rules=RULES, **FAST)
    cut(out, 3)
    score(stack, out=out, **FAST)
    assert not (out / "verdict.json").exists()
    assert (out / "earlier-verdict.json").exists()
    score(stack, out=out, rules=RULES, **FAST)
    score(stack, out=out, **FAST)
    assert (out / "verdict.json").exists()  # of these very rows


def test_denoising_with_scores_is_refused_before_anything_is_written_over(tmp_path) -> None:
    stack, out = lot(tmp_path / "lot.zarr", count=2), tmp_path / "clean.zarr"
    given = {"metrics": ("psnr",), "tests": False}
    semnr.denoise(stack, out, model="gaussian", score=given)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    for more in ({"backend": "nosuch"}, {"metrics": ("dists",), "dists_weights": "none.pth"}):
        with pytest.raises(semnr.SemnrError):
            semnr.denoise(stack, out, model="gaussian", overwrite=True, score={**given, "out": tmp_path / "s", **more})
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before


def test_a_baseline_of_the_earlier_version_opens_with_what_was_computed_and_nothing_else(tmp_path) -> None:
    from semnr.guarding import baseline

    columns = {"psnr": [30.0, 99.0], "ssim": [0.9, 0.99], "fsim": [0.97, 0.99], "die_x": [1.0, 2.0]}
    settings = {"metrics": ["psnr", "ssim"], "noisy": None, "tests": True, "metrology": None, "fsim_downsample": 1}
    held = {
        **{"label": "released", "kind": "denoised", "data_range": 255.0, "settings": settings, "flags": []},
        **{"summary": {}, "tiles": ["t0", "t1"], "not_ok": {"t1": "missing"}, "columns": columns},
    }
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"format": "semnr-baseline", "version": 1, "sha256": baseline._digest(held), **held}))
    profile = read_baseline(path)
    np.testing.assert_array_equal(profile.psnr, [30.0, np.nan])
    np.testing.assert_array_equal(profile.column("die_x"), [1.0, 2.0])
    assert np.isnan(profile.fsim).all()
    assert profile.unfinished is None
