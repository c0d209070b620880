"""Scoring a stream: every tile accounted for, nothing lost, the same numbers whatever the batch or the workers."""

from __future__ import annotations

import dataclasses
import errno
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import calibrated
import cases
import semnr
from semnr.cli import main
from semnr.runs import parquet as run_parts
from semnr.scoring import Run, score
from semnr_kernels import WeightsUnavailable

FAST = {"metrics": ("psnr", "ssim")}


def wafer(folder, count: int = 6, side: int = 48, dtype=np.uint8):
    """A plan of `count` tiles with reference and noisy, written as PNG."""
    rng = np.random.default_rng(0)
    rows = ["tile,path,reference,noisy,die_x,die_y,lot_id"]
    for name in ("clean", "noisy", "denoised"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        clean = cases.lines(side, side, seed=i) * 255
        noisy = clean + 20 * rng.standard_normal(clean.shape)
        denoised = clean + 5 * rng.standard_normal(clean.shape)
        for name, pixels in (("clean", clean), ("noisy", noisy), ("denoised", denoised)):
            Image.fromarray(np.clip(pixels, 0, 255).round().astype(dtype)).save(folder / name / f"{i}.png")
        rows.append(f"t{i},denoised/{i}.png,clean/{i}.png,noisy/{i}.png,{i % 3},{i // 3},LOT<1>")
    plan = folder / "plan.csv"
    plan.write_text("\n".join(rows) + "\n")
    return plan


def rows_of(run: Run) -> list[dict]:
    return run.table().to_pylist()


def assert_same_rows(one: list[dict], other: list[dict]) -> None:
    """Equal but for the order of summation: torch sums a batch of one in another order than a batch of six."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a == {k: pytest.approx(v, rel=1e-9) if isinstance(v, float) else v for k, v in b.items()}


def test_an_opened_run_is_what_score_returned_verdict_and_exit_code_included(tmp_path) -> None:
    plan = wafer(tmp_path / "in")
    fires = {"rules": {"s": {"kind": "range", "bounds": [{"column": "ssim", "below": 2.0}]}}}
    for name, rules, code in (("fires", fires, 1), ("lacks", semnr.DEFAULT_RULES, 3), ("none", None, 0)):
        run = score(plan, out=tmp_path / name, rules=rules, metrics=("psnr", "ssim"))
        again = Run.open(tmp_path / name)
        assert (again.exit_code, again.info, again.counts) == (code, run.info, run.counts)
        assert str(again.verdict) == str(run.verdict)
        if run.verdict is not None:
            assert again.verdict.to_dict() == run.verdict.to_dict()
            (tmp_path / name / "verdict.json").write_text("{}")
            with pytest.raises(ValueError, match=r"verdict.json is damaged"):
                Run.open(tmp_path / name)


def test_a_plan_is_scored_tile_by_tile_with_its_columns(tmp_path) -> None:
    plan = wafer(tmp_path / "in")
    run = score(plan, out=tmp_path / "out", **FAST)
    rows = rows_of(run)
    assert [r["tile"] for r in rows] == [f"t{i}" for i in range(6)]
    assert {r["status"] for r in rows} == {"ok"}
    assert rows[4]["die_x"] == 1
    assert rows[4]["lot_id"] == "LOT<1>"
    assert run.exit_code == 0
    assert run.counts == {"tiles": 6, "ok": 6}
    x, y = (np.asarray(Image.open(tmp_path / "in" / d / "4.png")) for d in ("denoised", "clean"))
    assert rows[4]["psnr"] == pytest.approx(semnr.psnr(x, y), abs=1e-12)
    assert rows[4]["ssim"] == pytest.approx(semnr.ssim(x, y), abs=1e-9)


def test_the_noisy_input_adds_transfer_and_fixed_noise_cnr(tmp_path) -> None:
    run = score(wafer(tmp_path / "in"), out=tmp_path / "out", metrics=("psnr", "cnr"))
    row = rows_of(run)[0]
    assert row["transfer"] == pytest.approx(1.0, abs=0.1)
    assert row["transfer_se"] > 0
    assert row["psnr_noisy"] < row["psnr"]
    assert row["cnr_fixed_noise"] > 0
    assert row["contrast_retention"] == pytest.approx(1.0, abs=0.05)


def test_results_depend_on_neither_batch_nor_workers(tmp_path) -> None:
    plan = wafer(tmp_path / "in")
    one = score(plan, out=tmp_path / "a", workers=1, memory_budget="4GiB", **FAST)
    many = score(plan, out=tmp_path / "b", workers=4, memory_budget=64, **FAST)  # one tile a batch
    assert_same_rows(rows_of(one), rows_of(many))


def test_folders_are_paired_as_people_name_files_and_what_is_left_is_one_hint(tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    for i in range(24):
        clean = cases.lines(48, 48, seed=i) * 255
        for folder, name, sigma in (("noisy", f"s{i}_noisy", 20), ("dn", f"dn-s{i}", 5), ("ref", f"s{i}", 0)):
            if folder == "dn" and i >= 12:
                continue
            place = tmp_path / folder / f"{name}.png"
            place.parent.mkdir(exist_ok=True)
            pixels = clean + sigma * rng.standard_normal(clean.shape)
            Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8)).save(place)
    folders = ["--reference", str(tmp_path / "ref"), "--noisy", str(tmp_path / "noisy"), "--metrics", "psnr"]
    assert main(["score", str(tmp_path / "dn"), *folders, "--no-tests", "--out", str(tmp_path / "out"), "-q"]) == 3
    rows = {row["tile"]: row for row in rows_of(Run.open(tmp_path / "out"))}
    assert {tile for tile, row in rows.items() if row["status"] == "ok"} == {f"s{i}_noisy" for i in range(12)}
    assert rows["s7_noisy"]["path"] == "dn-s7.png"
    assert min(row["psnr"] - row["psnr_noisy"] for row in rows.values() if row["status"] == "ok") > 8
    said = capsys.readouterr().out
    assert "12 of noisy have no denoised image (s12_noisy, s13_noisy, ...)" in said
    assert "--match '{name}_noisy=dn-{name}'" in said
    assert "missing: 12 tiles (s12, s13, ...): dn has no tile s12, ref has" in said
    assert len(said.splitlines()) < 17


def test_candidate_and_reference_in_two_sources_are_paired_by_id(tmp_path) -> None:
    clean = [(f"s{i}", (cases.lines(32, 32, seed=i) * 255).astype(np.uint8)) for i in range(3)]
    candidate = [(name, np.clip(image.astype(int) + 3, 0, 255).astype(np.uint8)) for name, image in reversed(clean)]
    run = score(candidate, reference=clean, out=tmp_path / "out", metrics=("psnr",))
    expected = 10 * math.log10(255**2 / 9)
    assert [r["psnr"] for r in rows_of(run)] == pytest.approx([expected] * 3, abs=0.2)


def test_missing_unreadable_duplicate_and_wrongly_sized_tiles_are_rows_and_the_rest_is_scored(tmp_path) -> None:
    plan = wafer(tmp_path / "in")
    folder = plan.parent
    (folder / "denoised/0.png").unlink()
    (folder / "denoised/1.png").write_bytes((folder / "denoised/1.png").read_bytes()[:60])
    Image.fromarray(np.zeros((40, 48), dtype=np.uint8)).save(folder / "denoised/2.png")
    plan.write_text(plan.read_text() + plan.read_text().splitlines()[-1] + "\n")
    run = score(plan, out=tmp_path / "out", **FAST)
    status = {(r["tile"], r["status"]) for r in rows_of(run)}
    assert ("t0", "missing") in status
    assert ("t1", "unreadable") in status
    assert ("t2", "wrong_size") in status
    assert ("t5", "duplicate") in status
    assert run.counts["ok"] == 3
    assert run.exit_code == 3
    listed = {p["tile"]: p["reason"] for p in run.problems}
    assert "40x48" in listed["t2"]
    assert "1.png" in listed["t1"]
    assert json.loads((tmp_path / "out/run.json").read_text())["counts"] == run.counts


def test_tiles_that_only_one_side_has_are_counted(tmp_path) -> None:
    images = {f"t{i}": (cases.lines(32, 32, seed=i) * 255).astype(np.uint8) for i in range(4)}
    candidate = [(k, images[k]) for k in ("t0", "t1", "t2")]
    reference = [(k, images[k]) for k in ("t1", "t2", "t3")]
    run = score(candidate, reference=reference, out=tmp_path / "out", metrics=("psnr",))
    assert {r["tile"]: r["status"] for r in rows_of(run)} == {
        "t0": "no_reference",
        "t1": "ok",
        "t2": "ok",
        "t3": "missing",
    }


def test_one_tile_with_a_nan_does_not_spoil_its_batch(tmp_path) -> None:
    clean = np.stack([cases.lines(32, 32, seed=i) for i in range(3)]).astype(np.float32)
    candidate = clean + np.float32(0.01)
    candidate[1, 3, 3] = np.nan
    run = score(candidate, reference=clean, out=tmp_path / "out", data_range=1.0, metrics=("psnr", "ssim"))
    rows = rows_of(run)
    assert [r["status"] for r in rows] == ["ok", "error", "ok"]
    assert "x has 1 non-finite pixels" in rows[1]["reason"]


def test_a_tile_of_another_dtype_in_mid_stream_is_set_aside(tmp_path) -> None:
    eight = (cases.lines(32, 32) * 255).astype(np.uint8)
    tiles = [("a", eight), ("b", eight.astype(np.uint16) * 257), ("c", eight)]
    run = score(tiles, reference=tiles, out=tmp_path / "out", metrics=("psnr",))
    assert [r["status"] for r in rows_of(run)] == ["ok", "wrong_dtype", "ok"]


def test_a_full_disk_keeps_what_was_written_and_says_how_to_go_on(tmp_path, monkeypatch) -> None:
    plan = wafer(tmp_path / "in")
    flushes = []

    class Small(run_parts.ParquetSink):
        def __init__(self, run) -> None:
            super().__init__(run, rows=2)

        def flush(self) -> None:
            flushes.append(len(self.buffer))
            super().flush()

    real = run_parts.atomic

    def full(path):
        if path.name == "part-00001.parquet":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path)

    monkeypatch.setattr("semnr.scoring.ParquetSink", Small)
    monkeypatch.setattr(run_parts, "atomic", full)
    with pytest.raises(OSError, match=r"part-00001.parquet: No space left on device; 1 earlier parts are kept"):
        score(plan, out=tmp_path / "out", workers=1, memory_budget=64, **FAST)
    done = run_parts.done_tiles(tmp_path / "out")
    assert [f"t{i}" in done for i in range(4)] == [True, True, False, False]

    monkeypatch.setattr(run_parts, "atomic", real)
    run = score(plan, out=tmp_path / "out", **FAST)  # resumes
    assert [r["tile"] for r in rows_of(run)] == [f"t{i}" for i in range(6)]
    assert_same_rows(rows_of(run), rows_of(score(plan, out=tmp_path / "fresh", **FAST)))


def test_resuming_scores_only_what_is_left(tmp_path, monkeypatch) -> None:
    plan = wafer(tmp_path / "in")
    score(plan, out=tmp_path / "out", **FAST)
    monkeypatch.setattr("semnr.scoring.scorer.profile", lambda *a, **k: pytest.fail("scored again"))
    assert score(plan, out=tmp_path / "out", **FAST).counts == {"tiles": 6, "ok": 6}


def test_settings_that_changed_are_refused_with_the_difference(tmp_path) -> None:
    plan = wafer(tmp_path / "in")
    score(plan, out=tmp_path / "out", **FAST)
    with pytest.raises(ValueError, match=r"metrics: was \['psnr', 'ssim'\], is \['psnr'\]"):
        score(plan, out=tmp_path / "out", metrics=("psnr",))
    with pytest.raises(ValueError, match="holds a run already; accepted: another folder, or resume=True"):
        score(plan, out=tmp_path / "out", resume=False, **FAST)


def test_a_folder_with_other_files_is_never_written_into(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious.txt").write_text("x")
    with pytest.raises(ValueError, match="which holds other files"):
        score(wafer(tmp_path / "in"), out=tmp_path / "out", **FAST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("niqe",)}, r"metrics is \['niqe'\]; accepted: one or more of psnr"),
        ({"metrics": ()}, "metrics is"),
        ({"workers": 0}, "workers is 0; accepted: an integer of at least 1"),
        ({"memory_budget": "lots"}, "memory_budget is 'lots'; accepted: bytes"),
        ({"dists_every": 0}, "dists_every is 0"),
        ({"scheduler": "here"}, "scheduler is 'here'; accepted: None.*'local:N'"),
        ({"scheduler": "local:0"}, "scheduler is 'local:0'; accepted"),
        ({"alarms": {"a": {"metric": "ssim", "bellow": 1}}}, "alarm a has bellow; accepted: above, below"),
        ({"alarms": {"a": {"metric": "ssim"}}}, "alarm a: below is None; accepted: one of below and above"),
        ({"alarms": "nowhere.toml"}, "alarms is 'nowhere.toml': no such file"),
        ({"data_range": 0}, "data_range is 0; accepted: a finite number above 0"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_bad_arguments_are_named_before_anything_is_written(tmp_path, options, message) -> None:
    plan = wafer(tmp_path / "in", count=1)
    with pytest.raises(ValueError, match=message):
        score(plan, out=tmp_path / "out", **{**FAST, **options})
    assert not (tmp_path / "out").exists()


def test_a_source_without_reference_says_what_is_accepted(tmp_path) -> None:
    with pytest.raises(ValueError, match="reference is missing"):
        score(np.zeros((2, 32, 32), dtype=np.uint8), out=tmp_path / "out", **FAST)


def test_run_json_holds_no_bare_nan_and_names_backend_and_machine(tmp_path) -> None:
    tiles = np.stack([(cases.lines(32, 32) * 255).astype(np.uint8)] * 2)
    run = score(tiles, reference=tiles, out=tmp_path / "out", metrics=("psnr", "ssim"))
    text = (tmp_path / "out/run.json").read_text()
    info = json.loads(text, parse_constant=lambda token: pytest.fail(f"bare {token}"))
    assert run.summary["infinite_psnr"] == 2
    assert info["settings"]["data_range"] == 255
    assert info["backends"]["ssim"] in ("native", "reference")
    assert info["machine"]["cores"] >= 1
    assert all(math.isinf(r["psnr"]) for r in rows_of(run))


def test_one_fsim_factor_is_fixed_for_the_whole_run(tmp_path) -> None:
    big = np.stack([(cases.lines(400, 400, seed=i) * 255).astype(np.uint8) for i in range(1)])
    tiles = [("big", big[0]), ("small", big[0][:100, :100].copy())]
    noisy = [(k, np.clip(v.astype(int) + 4, 0, 255).astype(np.uint8)) for k, v in tiles]
    run = score(noisy, reference=tiles, out=tmp_path / "out", metrics=("fsim",))
    assert run.info["settings"]["fsim_downsample"] == 2
    expected = semnr.fsim(noisy[1][1], tiles[1][1], downsample=2)
    assert rows_of(run)[1]["fsim"] == pytest.approx(expected, abs=1e-9)


def test_dists_runs_on_a_stated_sample(tmp_path) -> None:
    tiles = np.stack([(cases.lines(40, 40, seed=i) * 255).astype(np.uint8) for i in range(5)])
    run = score(
        tiles // 2, reference=tiles, out=tmp_path / "out", metrics=("dists",), dists_weights="random", dists_every=2
    )
    values = [r["dists"] for r in rows_of(run)]
    assert [v is not None for v in values] == [True, False, True, False, True]
    assert run.info["settings"]["dists"]["sample"] == 3
    assert run.info["settings"]["dists"]["calibrated"] is False


def test_a_synthetic_wafer_is_scored_without_a_disk(tmp_path) -> None:
    wafer = semnr.synth.SyntheticWafer(2, 1, 64, seed=1)
    run = score(wafer, out=tmp_path / "out", **FAST)
    assert run.counts == {"tiles": 2, "ok": 2}
    assert {"wafer_x_um", "die_x"} <= set(run.table().column_names)


def test_floating_tiles_need_a_data_range_which_may_be_added_in_a_second_try(tmp_path) -> None:
    tiles = np.stack([cases.lines(32, 32)])
    with pytest.raises(ValueError, match="data_range is missing; it is required for float64 tiles"):
        score(tiles, reference=tiles, out=tmp_path / "out", **FAST)
    assert score(tiles, reference=tiles, out=tmp_path / "out", data_range=1.0, **FAST).exit_code == 0


def test_a_run_with_a_duplicate_still_opens_as_a_profile(tmp_path) -> None:
    plan = wafer(tmp_path / "in")
    plan.write_text(plan.read_text() + plan.read_text().splitlines()[-1] + "\n")
    profile = score(plan, out=tmp_path / "out", **FAST).profile()
    assert len(profile) == 7
    assert profile.status.count("duplicate") == 1
    assert semnr.guard(None, profile, allow_unknown=("over_smoothing", "texture_drift", "lost_contrast")).exit_code == 3


def test_rules_judge_a_single_candidate_and_the_verdict_is_kept(tmp_path) -> None:
    plan = wafer(tmp_path / "in")
    waive = ("over_smoothing", "texture_drift", "lost_contrast")
    run = score(plan, out=tmp_path / "out", rules=semnr.DEFAULT_RULES, allow_unknown=waive, metrics=("psnr", "cnr"))
    assert run.verdict["evidence_transfer"].status == "clear"
    assert run.exit_code == 0
    assert json.loads((tmp_path / "out/verdict.json").read_text())["passed"] is True
    unwaived = score(plan, out=tmp_path / "out", rules=semnr.DEFAULT_RULES, metrics=("psnr", "cnr"))
    assert unwaived.exit_code == 3  # a gate never passes on missing evidence


# --- evidence is what was computed ----------------------------------------------------------------------------

CLAIMED = {
    **{
        "fsim": 0.99,
        "dists": 0.01,
        "transfer": 1.0,
        "transfer_se": 0.01,
        "psnr": 99.0,
        "SSIM": 0.99,
        "removed_count": 0,
    },
    **{"feature_contrast": 1.0, "cd_px": 12.0, "psnr_estimated_se": 0.1, "edge_psd_64_32": 1.0, "cnr": 9.0, "mse": 0.1},
    **{
        "evidence_boxes": "[]",
        "frames_problem": "none",
        "status": "ok",
        "reason": "fine",
        "index": 7,
        "plan_fsim": 0.5,
    },
}


def claiming(folder, tiles: int = 3, missing: str = ""):
    """A plan whose columns claim results, as a table of an earlier run would."""
    plan = wafer(folder, tiles)
    head, *rows = plan.read_text().splitlines()
    cells = ",".join(f'"{value}"' for value in CLAIMED.values())
    plan.write_text("\n".join([f"{head},{','.join(CLAIMED)}", *(f"{row},{cells}" for row in rows)]) + "\n")
    if missing:
        (folder / missing).unlink()
    return plan


def test_columns_of_a_plan_never_have_the_names_of_results(tmp_path) -> None:
    run = score(claiming(tmp_path / "in"), out=tmp_path / "out", tests=False, **FAST)
    row = rows_of(run)[1]
    assert row["psnr"] != 99.0
    assert row["plan_psnr"] == 99.0
    assert (row["status"], row["reason"], row["index"]) == ("ok", None, 1)
    assert (row["plan_status"], row["plan_reason"], row["plan_index"]) == ("ok", "fine", 7)
    assert row["plan_fsim"] == 0.99  # each of two columns keeps a name of its own
    assert row["plan_plan_fsim"] == 0.5
    assert row["lot_id"] == "LOT<1>"
    assert not set(CLAIMED) - {
        "psnr",
        "mse",
        "status",
        "reason",
        "index",
        "plan_fsim",
        "transfer",
        "transfer_se",
    } & set(row)
    assert "fsim" not in run.summary
    assert set(run.summary) <= {
        "psnr",
        "mse",
        "mae",
        "ssim",
        "psnr_noisy",
        "transfer",
        "infinite_psnr",
        "psnr_of_mean_mse",
    }
    assert run.info["renamed"]["fsim"] == "plan_fsim"
    assert f"{len(CLAIMED)} columns of the plan have names of results" in " ".join(run.remarks)
    assert np.isnan(run.profile().fsim).all()
    assert np.isnan(run.profile().column("feature_contrast")).all()


@given(st.sets(st.sampled_from(["fsim", "FSIM", "plan_fsim", "plan_plan_fsim", "Plan_fsim", "a", "plan_a", "tile_se"])))
def test_no_two_columns_of_a_plan_get_one_name_and_none_that_of_a_result(names) -> None:
    from semnr.columns import ROW, is_result, metadata_name

    kept = [metadata_name(name) for name in names]
    assert len(set(kept)) == len(kept)
    assert not any(is_result(name) or name in ROW for name in kept)


def test_a_tile_that_was_not_scored_enters_no_figure(tmp_path) -> None:
    plan = claiming(tmp_path / "in", missing="denoised/1.png")
    alarms = {"high": {"metric": "psnr", "above": 90.0, "per": "run"}}
    run = score(plan, out=tmp_path / "out", tests=False, alarms=alarms, **FAST)
    assert run.counts == {"tiles": 3, "ok": 2, "missing": 1}
    assert run.summary["psnr"]["n"] == run.summary["ssim"]["n"] == 2
    assert run.summary["psnr"]["p95"] < 90
    missing = rows_of(run)[1]
    assert {name: missing.get(name) for name in ("psnr", "ssim", "fsim", "transfer")} == dict.fromkeys(
        ("psnr", "ssim", "fsim", "transfer")
    )
    assert np.isnan(run.profile().psnr[1])
    assert run.alarms == []
    assert all(place.get("psnr", 0) < 90 for place in run.by_place()["die"])


def test_the_gate_knows_nothing_of_what_only_the_plan_claims(tmp_path) -> None:
    profile = score(claiming(tmp_path / "in"), out=tmp_path / "out", tests=False, **FAST).profile()
    verdict = semnr.guard(profile, profile)
    assert verdict.exit_code == 3
    assert {"over_smoothing", "texture_drift", "lost_detail", "erased_structure"} <= {s.name for s in verdict.lacking}


def test_every_column_that_scoring_computes_is_known_as_a_result(tmp_path) -> None:
    from semnr.columns import is_result
    from semnr.metrology import per_tile as metrology

    meta = {"tile", "path", "index", "status", "reason", "die_x", "die_y", "lot_id"}
    plan = wafer(tmp_path / "in", 1, side=64)
    found = set(score(plan, out=tmp_path / "out", dists_weights="random", metrology="lines").table().column_names)
    frames = [
        [(f"t{i}", np.asarray(np.random.default_rng(k).integers(0, 255, (64, 64)), np.uint8)) for i in range(2)]
        for k in range(3)
    ]
    found |= set(score(frames[0], noisy=frames[1], noisy_2=frames[2], out=tmp_path / "f").table().column_names)
    found |= {*metrology._LINE_COLUMNS, *metrology._HOLE_COLUMNS}
    assert {"transfer_se", "evidence_boxes", "psnr_estimated_se", "frames_problem", "overshoot_se", "cd_px"} <= found
    assert [name for name in sorted(found - meta) if not is_result(name)] == []


def test_a_candidate_that_is_its_reference_is_said_and_proves_nothing(tmp_path) -> None:
    plan = wafer(tmp_path / "in", 3)
    (plan.parent / "same.csv").write_text(plan.read_text().replace("denoised/1.png", "clean/1.png"))
    run = score(plan.parent / "same.csv", out=tmp_path / "out", tests=False, **FAST)
    assert run.info["identical"] == {"candidate": 1, "noisy": 0}
    assert "on 1 of 3 tiles the candidate is identical to the reference" in " ".join(run.remarks)
    rules = {"rules": {"ssim": {"kind": "range", "bounds": [{"column": "ssim", "below": 0.01}]}}}
    verdict = semnr.guard(None, run.profile(), rules=rules)
    assert verdict.exit_code == 3
    assert [r["tile"] for r in verdict["identical_tiles"].regions] == ["t1"]
    assert semnr.guard(None, run.profile(), rules=rules, allow_unknown="identical_tiles").passed


def test_a_reference_that_is_the_noisy_input_is_said_and_proves_nothing(tmp_path) -> None:
    plan = wafer(tmp_path / "in", 2)
    run = score(plan, reference=plan.parent / "noisy", noisy=plan.parent / "noisy", out=tmp_path / "out", **FAST)
    assert run.info["identical"] == {"candidate": 0, "noisy": 2}  # paired by the names of the plan's images
    (plan.parent / "same.csv").write_text(plan.read_text().replace(",clean/", ",noisy/"))
    run = score(plan.parent / "same.csv", out=tmp_path / "same", tests=False, **FAST)
    assert run.info["identical"] == {"candidate": 0, "noisy": 2}
    verdict = semnr.guard(
        None, run.profile(), rules={"rules": {"s": {"kind": "range", "bounds": [{"column": "ssim", "below": 0.0}]}}}
    )
    assert verdict["identical_tiles"].evidence["tiles_identical"] == 2


# --- what stops a run before it writes ------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["nosuch", "triton", "cuda"])
def test_a_backend_that_is_not_there_stops_the_run_before_it_writes(tmp_path, backend) -> None:
    with pytest.raises(semnr.BackendUnavailable, match=f"backend='{backend}'"):
        score(wafer(tmp_path / "in", 1), out=tmp_path / "out", backend=backend, **FAST)
    assert not (tmp_path / "out").exists()


def test_a_backend_that_cannot_score_these_tiles_stops_the_run_before_it_writes(tmp_path, monkeypatch) -> None:
    from semnr_kernels import registry

    native = registry._implementations["ssim"]["native"]
    refuses = dataclasses.replace(native, supports=lambda call: "tiles of this kind are refused")
    monkeypatch.setitem(registry._implementations["ssim"], "native", refuses)
    with pytest.raises(semnr.BackendUnavailable, match="tiles of this kind are refused"):
        score(wafer(tmp_path / "in", 1), out=tmp_path / "out", backend="native", metrics=("ssim",), tests=False)
    assert not (tmp_path / "out").exists()


def test_lpips_is_a_column_where_it_is_asked_for(tmp_path) -> None:
    calibrated.need_weights("alexnet", "lpips")
    plan = wafer(tmp_path / "in")
    run = score(plan, out=tmp_path / "out", metrics=["lpips", "psnr"])
    assert run.info["settings"]["metrics"] == ["psnr", "lpips"]
    for i, row in enumerate(rows_of(run)):
        images = (np.asarray(Image.open(tmp_path / "in" / kind / f"{i}.png")) for kind in ("denoised", "clean"))
        assert row["lpips"] == pytest.approx(float(semnr.lpips(*images)), abs=1e-6)
    scored = run.profile()
    assert run.summary["lpips"]["n"] == scored.summary()["lpips"]["n"] == 6
    assert scored.summary()["lpips"]["mean"] == pytest.approx(scored.lpips.mean())
    assert math.isnan(scored.area)  # it is no axis
    assert "lpips" not in score(plan, out=tmp_path / "other", **FAST).table().column_names


def test_lpips_without_weights_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    plan = wafer(tmp_path / "in", count=2)
    with pytest.raises(WeightsUnavailable, match="semnr weights fetch alexnet"):
        score(plan, out=tmp_path / "out", metrics=("psnr", "lpips"))
    assert not (tmp_path / "out").exists()
    assert main(["score", str(plan), "--out", str(tmp_path / "out"), "--metrics", "ssim,lpips"]) == 2
    assert "semnr weights fetch alexnet" in capsys.readouterr().err


def test_dists_without_weights_is_left_out_of_the_default_metrics_and_the_run_says_how_to_have_it(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    plan = wafer(tmp_path / "in", 1)
    run = score(plan, out=tmp_path / "out", tests=False)
    assert run.info["requested"]["metrics"] == ["psnr", "ssim", "fsim", "cnr"]
    assert run.exit_code == 0
    assert len([r for r in run.remarks if "semnr weights fetch vgg16" in r]) == 1
    assert score(plan, out=tmp_path / "out", tests=False).exit_code == 0  # it goes on as it began
    for more in ({"metrics": ("psnr", "dists")}, {"dists_weights": tmp_path / "none.pth"}):
        with pytest.raises(semnr.WeightsUnavailable):
            score(plan, out=tmp_path / "asked", tests=False, **more)
    assert not (tmp_path / "asked").exists()


def test_a_bad_file_among_a_thousand_costs_one_row_each(tmp_path) -> None:
    import tifffile

    rng = np.random.default_rng(0)
    for role in ("denoised", "reference"):
        (tmp_path / "lot" / role).mkdir(parents=True)
    for k in range(1000):
        for role in ("denoised", "reference"):
            np.save(tmp_path / f"lot/{role}/t{k:04d}.npy", rng.integers(0, 255, (16, 16), np.uint8))
    lot = tmp_path / "lot/denoised"
    bad = {"t0100": b"", "t0300": b"\x93NUMPY nonsense", "t0500": None, "t0700": None, "t0900": None}
    for tile, content in bad.items():
        (lot / f"{tile}.npy").unlink()
        if content is not None:
            (lot / f"{tile}.npy").write_bytes(content)
    looping = lot / "t0500.tif"
    tifffile.imwrite(looping, rng.integers(0, 255, (16, 16), np.uint8))
    data = bytearray(looping.read_bytes())
    at = int.from_bytes(data[4:8], "little")
    end = at + 2 + 12 * int.from_bytes(data[at : at + 2], "little")
    data[end : end + 4] = at.to_bytes(4, "little")  # the page after the first one is the first one
    looping.write_bytes(data)
    planes = (
        "<OME><Image><Pixels SizeX='16' SizeY='16' SizeZ='1000000000' SizeC='1' SizeT='1' Type='uint8'/></Image></OME>"
    )
    tifffile.imwrite(lot / "t0700.tif", rng.integers(0, 255, (16, 16), np.uint8), description=planes)
    tifffile.imwrite(lot / "t0900.tif", rng.integers(0, 255, (16, 16), np.uint8))
    (lot / "t0900.tif").write_bytes((lot / "t0900.tif").read_bytes()[:-200])
    run = score(tmp_path / "lot", out=tmp_path / "out", metrics=("psnr",))
    rows = {row["tile"]: row for row in rows_of(run)}
    assert len(rows) == 1000
    failed = {tile: row["reason"] for tile, row in rows.items() if row["status"] != "ok"}
    assert set(bad) - {"t0700"} <= set(failed) <= set(bad)  # one page that claims more planes still is a page
    assert all(failed.values())
    assert run.exit_code == 3


def test_a_tile_larger_than_its_share_of_the_budget_is_one_row(tmp_path) -> None:
    small = np.zeros((64, 64), np.uint8)
    large = np.zeros((2048, 2048), np.uint8)  # with its reference 8 MiB
    lot = tmp_path / "lot"
    for role in ("noisy", "reference"):
        (lot / role).mkdir(parents=True)
        for name, pixels in (("a", small), ("b", large), ("c", small)):
            np.save(lot / role / f"{name}.npy", pixels)
    run = score(lot, out=tmp_path / "run", metrics=("psnr",), tests=False, memory_budget="16MiB")
    rows = {row["tile"]: row for row in rows_of(run)}
    assert [rows[name]["status"] for name in "abc"] == ["ok", "unreadable", "ok"]
    assert "memory_budget" in rows["b"]["reason"]
    again = score(lot, out=tmp_path / "more", metrics=("psnr",), tests=False, memory_budget="128MiB")
    assert again.counts == {"tiles": 3, "ok": 3}


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (MemoryError(), "read"),
        (MemoryError("Unable to allocate 9.3 GiB"), "read"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "score"),
        (MemoryError(), "score"),
        (OverflowError("int too large to convert to float"), "score"),
        (KeyError("whatever a source is made of"), "read"),
    ],
)
def test_a_fault_of_one_tile_is_one_row_and_the_others_are_scored(tmp_path, monkeypatch, fault, where) -> None:
    from semnr.scoring import scorer
    from semnr.tiles.plan import PlanSource

    plan = wafer(tmp_path / "in")
    read, profile = PlanSource.read, scorer.profile

    def bad_read(self, key, role="image"):
        if key.tile == "t2" and role == "reference":
            raise fault
        return read(self, key, role)

    def bad_profile(x, y, **options):
        if any((image == marked).all() for image in np.asarray(x)[:, 0]):
            raise fault
        return profile(x, y, **options)

    marked = np.asarray(Image.open(tmp_path / "in" / "denoised" / "2.png"))
    monkeypatch.setattr(PlanSource, "read", bad_read) if where == "read" else monkeypatch.setattr(
        scorer, "profile", bad_profile
    )
    rows = rows_of(score(plan, out=tmp_path / "out", **FAST))
    assert [row["status"] for row in rows] == [
        "ok",
        "ok",
        "unreadable" if where == "read" else "error",
        "ok",
        "ok",
        "ok",
    ]
    assert type(fault).__name__ in rows[2]["reason"]
    assert ("memory" in rows[2]["reason"]) == isinstance(fault, MemoryError | RuntimeError)
