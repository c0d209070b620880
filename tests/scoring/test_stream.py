"""The engine of a run: memory, stages, places on the wafer, many processes, and death at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import zarr

import semnr
from semnr.base.timing import Stages, stage
from semnr.cli import main
from semnr.denoising import denoised
from semnr.klarf import read_klarf
from semnr.runs.seen_ids import TileIds
from semnr.scoring import device as devices
from semnr.scoring import maps, on_cluster
from semnr.tiles import TileKey, create_tiles
from semnr.wafers import Wafer, read_wafer

LAYOUT = Wafer((1000.0, 1000.0), (500.0, 500.0), 20_000.0, reticle=(2, 2))


def stack(folder, count: int = 40, side: int = 32, **options):
    """A tile stack with reference and candidate; every seventh tile was never written."""
    rng = np.random.default_rng(11)
    with create_tiles(folder, count=count, roles=("reference", "denoised"), **options) as tiles:
        for i in range(count):
            clean = rng.integers(0, 200, (side, side), dtype=np.uint8)
            key = TileKey(f"t{i:06d}", i, meta={"die_x": i % 8 - 4, "die_y": i // 8 - 2, "x_um": 10.0, "y_um": 20.0})
            tiles.write(key, clean, "reference")
            if i % 7 != 3:
                tiles.write(key, clean + rng.integers(0, 9, clean.shape, dtype=np.uint8), "denoised")
    return folder


def rows_of(run) -> list[dict]:
    return sorted(run.table().to_pylist(), key=lambda row: row["index"])


def test_bare_chunks_are_read_as_files_with_the_pixels_and_the_faults_that_zarr_sees(tmp_path) -> None:
    bare = semnr.open_tiles(stack(tmp_path / "bare.zarr", compress=False))
    packed = semnr.open_tiles(stack(tmp_path / "packed.zarr"))
    assert all(bare._direct.values())
    assert not any(packed._direct.values())
    for one, other in zip(bare, packed, strict=True):
        np.testing.assert_array_equal(bare.read(one, "reference"), packed.read(other, "reference"))
    missing = next(key for key in bare if key.index == 3)
    with pytest.raises(semnr.TileError) as error:
        bare.read(missing, "denoised")
    assert error.value.status == "missing"
    chunk = tmp_path / "bare.zarr/reference/c/5/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-10])
    with pytest.raises(semnr.TileError, match="1014 bytes, 1024 are needed"):
        bare.read(TileKey("t000005", 5), "reference")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_bare_chunks_of_every_dtype(tmp_path, dtype) -> None:
    pixels = np.arange(12, dtype=dtype).reshape(3, 4)
    with create_tiles(tmp_path / "x.zarr", compress=False) as tiles:
        tiles.write(TileKey("t000000", 0), pixels)
    source = semnr.open_tiles(tmp_path / "x.zarr")
    assert source._direct["image"] is not None
    found = source.read(next(iter(source)))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pixels)


def test_ids_are_remembered_in_eight_bytes() -> None:
    ids = TileIds(f"t{i}" for i in range(50_000))
    assert all(f"t{i}" in ids for i in range(0, 50_000, 97))
    assert not any(f"u{i}" in ids for i in range(0, 50_000, 97))
    assert len(ids) == 50_000
    assert sum(bucket.nbytes for bucket in ids._sorted) == 8 * 50_000


def test_stages_count_their_own_time_without_what_is_inside() -> None:
    stages = Stages()
    with stages.stage("read"):
        time.sleep(0.02)
        with stage("decode"):
            time.sleep(0.05)
    with stage("decode"):  # nobody measures here
        pass
    table = stages.table()
    assert table["decode"]["passes"] == table["read"]["passes"] == 1
    assert table["decode"]["seconds"] > 0.049
    assert 0.019 < table["read"]["seconds"] < table["decode"]["seconds"]
    assert table["read"]["p50_ms"] == pytest.approx(table["read"]["seconds"] * 1e3, rel=0.04)


def test_stages_of_other_processes_add_up() -> None:
    one, other = Stages(), Stages()
    for seconds in (0.001, 0.002, 0.004):
        one.add("read", seconds)
        other.add("read", seconds)
        other.add("write", seconds)
    one.merge(other.state())
    assert one.table()["read"]["passes"] == 6
    assert one.table()["write"]["seconds"] == pytest.approx(0.007)


def test_a_run_tells_where_its_time_went(tmp_path) -> None:
    run = semnr.score(stack(tmp_path / "w.zarr"), out=tmp_path / "out", metrics=("psnr",))
    assert {"read", "compute", "write"} <= set(run.info["stages"])
    assert run.info["stages"]["read"]["passes"] == 40


def test_follow_prints_throughput_and_latency_by_stage(tmp_path, capsys) -> None:
    semnr.score(stack(tmp_path / "w.zarr"), out=tmp_path / "o", metrics=("psnr",), follow=True, quiet=False)
    text = capsys.readouterr().err
    assert "score: 40/40 tiles" in text
    for name in ("read", "compute", "write"):
        line = next(line for line in text.splitlines() if line.strip().startswith(name))
        assert "passes/s" in line
        assert "p99" in line


def test_the_stage_that_limits_is_that_of_the_busiest_threads() -> None:
    stages = Stages()
    assert stages.limit() is None
    stages.begun -= 10.0  # ten seconds have passed
    stages.threads["read"] = 4
    stages.add("read", 12.0)
    stages.add("decode", 4.0, "read")  # 16 of 40 s
    stages.add("compute", 3.0)
    stages.add("evidence", 5.0, "compute")  # 8 of 10 s
    name, share = stages.limit() or ("", 0.0)
    assert name == "evidence"
    assert share == pytest.approx(0.8, rel=0.01)


def test_evidence_is_a_stage_of_its_own_and_follow_names_the_limit(tmp_path, capsys) -> None:
    rng = np.random.default_rng(0)
    noisy = rng.integers(60, 190, (3, 96, 96), np.uint8)
    smooth = ((noisy.astype(int) + np.roll(noisy, 1, 1)) // 2).astype(np.uint8)
    run = semnr.score(
        smooth, reference=smooth, noisy=noisy, out=tmp_path / "o", metrics=("psnr",), follow=True, quiet=False
    )
    assert run.info["stages"]["evidence"]["passes"] > 0
    assert "limited by " in capsys.readouterr().err.splitlines()[-1]


def test_rows_get_their_place_on_the_wafer_and_means_by_die_reticle_and_ring(tmp_path) -> None:
    run = semnr.score(stack(tmp_path / "w.zarr"), out=tmp_path / "out", metrics=("psnr",), wafer=LAYOUT)
    row = rows_of(run)[9]
    assert (row["wafer_x_um"], row["wafer_y_um"]) == (-3 * 1000 + 10 - 500, -1 * 1000 + 20 - 500)
    places = run.by_place()
    assert {kind: sum(g["tiles"] for g in groups) for kind, groups in places.items()} == dict.fromkeys(places, 40)
    assert len(places["die"]) == 40
    assert [(g["reticle_x"], g["reticle_y"]) for g in places["reticle"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    # a field's mean, by hand
    field = [r["psnr"] for r in rows_of(run) if r["die_x"] % 2 == 0 and r["die_y"] % 2 == 0 and r["psnr"] is not None]
    assert places["reticle"][0]["psnr"] == pytest.approx(np.mean(field), rel=1e-12)
    assert places["reticle"][0]["ok"] == len(field)


def test_absolute_places_give_dies_where_those_are_missing() -> None:
    row = LAYOUT.complete({"tile": "a", "wafer_x_um": 2210.0, "wafer_y_um": -100.0})
    assert (row["die_x"], row["die_y"], row["x_um"], row["y_um"]) == (2, 0, 710.0, 400.0)


# --- many processes -------------------------------------------------------------------------------------------


def test_processes_give_the_rows_of_one(tmp_path) -> None:
    pytest.importorskip("distributed", reason="distributed is not installed")
    source = stack(tmp_path / "w.zarr", count=150)
    options = {"metrics": ("psnr", "ssim"), "wafer": LAYOUT}
    alone = semnr.score(source, out=tmp_path / "one", **options)
    many = semnr.score(source, out=tmp_path / "many", scheduler="local:2", **options)
    assert rows_of(many) == rows_of(alone)
    assert many.counts == alone.counts
    assert many.summary == alone.summary
    assert many.info["backends"] == alone.info["backends"]
    assert many.info["stages"]["compute"]["passes"] > 0


def test_the_death_of_the_only_worker_loses_and_repeats_nothing(tmp_path) -> None:
    pytest.importorskip("distributed", reason="distributed is not installed")
    from distributed import Client, LocalCluster

    source = stack(tmp_path / "w.zarr", count=150, side=48)
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(n_workers=1, **options) as local, Client(local) as c:
        (victim,) = c.run(os.getpid).values()

        def killed() -> None:  # once the run is on its way
            while not c.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
                time.sleep(0.05)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=killed)
        killer.start()
        many = semnr.score(source, out=tmp_path / "many", metrics=("psnr",), scheduler=local.scheduler_address)
        killer.join()
    alone = semnr.score(source, out=tmp_path / "one", metrics=("psnr",))
    assert len(rows_of(many)) == 150
    assert rows_of(many) == rows_of(alone)


class Futures:
    """A dask client that is none: `dies(keys)` says with which error a partition ends, or None."""

    status = "running"

    def __init__(self, dies, workers: int = 2) -> None:
        self.dies, self.workers, self.partitions = dies, workers, []

    def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(map(str, range(self.workers)), 1)

    def submit(self, function, *arguments, pure):
        future = mock.Mock(status="finished")
        if function is bytes:
            return future
        keys = arguments[1]
        self.partitions.append([key.index for key in keys])
        error = self.dies(keys)
        rows = [{"tile": key.tile, "status": "ok"} for key in keys]
        future.result.side_effect = [error or on_cluster.Partition([(len(keys), rows)], {}, {}, LEARNT)]
        future.done.return_value = not isinstance(error, TimeoutError)
        return future


LEARNT = {"calibrated": None, "scale_used": None, "weights": {}}


def spread(client, count: int) -> list[dict]:
    engine = mock.Mock(placed=lambda rows: rows)
    engine.scorer.learnt.return_value = LEARNT
    runner = on_cluster.Cluster(client, None, engine, {})
    return [row for _, rows in runner.run(TileKey(f"t{i}", i) for i in range(count)) for row in rows]


def test_a_tile_that_workers_die_of_is_one_row_and_the_others_are_scored() -> None:
    from distributed import KilledWorker

    killed = KilledWorker("score", mock.Mock(address="tcp://w"), 3)
    client = Futures(lambda keys: killed if any(key.index == 57 for key in keys) else None)
    rows = spread(client, 100)
    assert [row["tile"] for row in rows] == [f"t{i}" for i in range(100)]
    assert {row["tile"]: row["status"] for row in rows if row["status"] != "ok"} == {"t57": "error"}
    assert "every worker that had this tile died" in rows[57]["reason"]


def test_work_that_the_scheduler_forgot_is_sent_again_and_not_for_ever() -> None:
    from distributed.client import FutureCancelledError

    forgotten = FutureCancelledError("score", "lost")
    first = iter([forgotten, None, forgotten])
    assert len(spread(Futures(lambda keys: next(first, None)), 30)) == 30
    with pytest.raises(on_cluster.ClusterLost, match="forgot its work"):
        spread(Futures(lambda keys: forgotten), 30)


def test_a_cluster_without_workers_is_waited_for_and_then_given_up_in_one_line(monkeypatch) -> None:
    monkeypatch.setattr(on_cluster, "PATIENCE", 0.0)
    with pytest.raises(on_cluster.ClusterLost, match=r"no worker was there for 0 s; --resume continues"):
        spread(Futures(lambda keys: TimeoutError(), workers=0), 3)


@pytest.mark.parametrize(("count", "workers"), [(2, 2), (9, 2), (64, 2), (64, 8), (1000, 2)])
def test_partitions_leave_no_worker_idle_in_a_short_run_and_grow_in_a_long_one(count, workers) -> None:
    client = Futures(lambda keys: None, workers)
    assert len(spread(client, count)) == count
    shares = [0] * workers  # each partition to the worker that has the least to do
    for part in client.partitions:
        at = shares.index(min(shares))
        shares[at] += len(part)
    assert max(shares) <= 0.7 * count if workers == 2 else min(shares) > 0
    assert max(map(len, client.partitions)) <= 64
    assert (count < 1000) or max(map(len, client.partitions)) == 64


def test_tiles_in_memory_cannot_travel_and_the_error_says_what_can(tmp_path) -> None:
    tiles = [np.zeros((16, 16), np.uint8)]
    with pytest.raises(
        ValueError, match="held in this process; accepted with scheduler='local:2': sources opened from a path"
    ):
        semnr.score(tiles, reference=tiles, out=tmp_path / "o", scheduler="local:2")
    assert not (tmp_path / "o").exists()


# --- death at any moment --------------------------------------------------------------------------------------

SCORE = textwrap.dedent(
    """
    import sys
    import semnr.scoring as scoring
    from semnr.runs import parquet as _sink
    _sink.ParquetSink.__init__.__kwdefaults__.update(rows=4)
    scoring.score(sys.argv[1], out=sys.argv[2], metrics=("psnr",), alarms={"a": {"metric": "psnr", "above": 1}})
    """
)


def mark(out) -> int:
    """Changes when a run begins: it writes run.json first."""
    return (out / "run.json").stat().st_mtime_ns if (out / "run.json").exists() else 0


def started_of(out, child) -> float:
    """When the run of `child` began; returns after its end."""
    while mark(out) == 0 and child.poll() is None:
        time.sleep(0.002)
    begun = time.monotonic()
    assert child.wait() == 0
    return begun


def kills(folder, count: int, seed: int) -> None:
    """Kill a run at `count` random moments, resuming each time; then let it end and compare with a whole one."""
    source = stack(folder / "w.zarr", count=120, side=24)
    whole = semnr.score(source, out=folder / "whole", metrics=("psnr",), alarms={"a": {"metric": "psnr", "above": 1}})
    begun = started_of(folder / "timed", subprocess.Popen([sys.executable, "-c", SCORE, source, folder / "timed"]))
    length = time.monotonic() - begun
    rng = random.Random(seed)
    killed = 0
    for attempt in range(count):
        out = folder / f"run{attempt // 5}"  # five deaths of one run, then another
        before = mark(out)
        child = subprocess.Popen([sys.executable, "-c", SCORE, source, out])
        while child.poll() is None and mark(out) == before:
            time.sleep(0.002)
        try:
            child.wait(rng.uniform(0, 0.9) * length)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            killed += 1
        child.wait()
        if attempt % 5 == 4 or attempt == count - 1:
            run = semnr.score(source, out=out, metrics=("psnr",), alarms={"a": {"metric": "psnr", "above": 1}})
            rows = rows_of(run)
            assert len({row["tile"] for row in rows}) == len(rows) == 120
            for row, expected in zip(rows, rows_of(whole), strict=True):
                assert row == expected
            assert run.counts == whole.counts
            assert [a["tiles"] for a in run.alarms] == [a["tiles"] for a in whole.alarms]
            assert not list((out / "tiles").glob(".*"))
    assert killed >= count // 3, "most runs ended before they could be killed"


def test_a_run_killed_at_random_moments_loses_nothing_and_repeats_nothing(tmp_path) -> None:
    kills(tmp_path, int(os.environ.get("SEMNR_SOAK_KILLS", "3")), seed=int(os.environ.get("SEMNR_SOAK_SEED", "1")))


# --- on a device ----------------------------------------------------------------------------------------------


def test_batches_travel_through_buffers_in_turn_and_arrive_as_they_were() -> None:
    upload = devices.Upload(torch.device("cpu"))
    rng = np.random.default_rng(0)
    batches = [
        {
            "x": rng.integers(0, 9, (n, 1, 5, 7), dtype=np.uint16),
            "y": rng.random((n, 1, 5, 7)).astype(np.float32)[..., ::-1],
        }
        for n in (1, 3, 2)
    ]
    arrived = [upload(parts) for parts in batches]
    for (tensors, event), parts in zip(arrived, batches, strict=True):
        with upload.arrived(tensors, event):
            for name, image in parts.items():
                np.testing.assert_array_equal(tensors[name].numpy(), image)
    assert len(upload._buffers) == 2


def test_rows_do_not_depend_on_the_way_the_pixels_came(tmp_path, monkeypatch) -> None:
    """A device that is none: the whole path of tensors through the scorer, on the CPU."""
    source = stack(tmp_path / "w.zarr")
    plain = semnr.score(source, out=tmp_path / "a", metrics=("psnr", "ssim"))
    monkeypatch.setattr("semnr.scoring.devices_of", lambda given: [torch.device("cpu")])
    sent = semnr.score(source, out=tmp_path / "b", metrics=("psnr", "ssim"))
    for one, other in zip(rows_of(sent), rows_of(plain), strict=True):
        assert one == {k: pytest.approx(v, rel=1e-9) if isinstance(v, float) else v for k, v in other.items()}
    assert sent.info["stages"]["upload"]["passes"] > 0


def test_several_devices_give_the_rows_of_one_in_their_order_though_a_process_dies(tmp_path, monkeypatch) -> None:
    """Two processes on the CPU stand for two devices; one of them is dead before it gets its first tile."""
    from semnr.scoring import several

    source = stack(tmp_path / "w.zarr", count=12)
    options = {"metrics": ("psnr", "ssim"), "wafer": LAYOUT}
    alone = semnr.score(source, out=tmp_path / "one", **options)
    monkeypatch.setattr("semnr.scoring.devices_of", lambda given: [torch.device("cpu")] * 2)
    process, made = several.Several._process, []

    def dying() -> Any:
        pool = process()
        made.append(pool)
        if len(made) == 1:
            pool.submit(os._exit, 1)
        return pool

    monkeypatch.setattr(several.Several, "_process", staticmethod(dying))
    many = semnr.score(source, out=tmp_path / "many", device="cuda:0,cuda:1", **options)
    assert len(made) == 3
    assert rows_of(many) == rows_of(alone)
    order = [run.table()["tile"].to_pylist() for run in (alone, many)]
    assert order[0] == order[1]
    assert len(order[0]) == 12
    assert (many.counts, many.summary) == (alone.counts, alone.summary)
    assert many.info["stages"]["upload"]["passes"] > 1
    assert many.info["backends"] == alone.info["backends"]


def test_a_process_that_always_dies_ends_the_run_and_says_where(monkeypatch) -> None:
    from concurrent.futures import Future
    from concurrent.futures.process import BrokenProcessPool

    from semnr.scoring import several
    from semnr.scoring.on_cluster import ClusterLost, Spec

    class Dead:
        def submit(self, *_: Any) -> Future:
            lost: Future = Future()
            lost.set_exception(BrokenProcessPool())
            return lost

        def shutdown(self, **_: Any) -> None: ...

    monkeypatch.setattr(several.Several, "_process", staticmethod(Dead))
    runner = several.Several(["cuda:0"], Spec(None, None, 1, 1, 1, None), None, {})
    with pytest.raises(ClusterLost, match=r"the process of cuda:0 died 4 times at tile t0 .*--resume"):
        list(runner.run([TileKey(f"t{i}", i) for i in range(2)]))


@pytest.mark.parametrize("device", ["cuda:0,cuda:0", "cpu,cuda:0", ["cuda:1", "cpu"], ""])
def test_several_devices_are_cuda_devices_each_named_once(device: Any, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(one) for one in devices.devices_of("cuda:1, cuda:0")] == ["cuda:1", "cuda:0"]
    assert devices.devices_of("cpu") == [None]
    with pytest.raises(ValueError, match="device is"):
        devices.devices_of(device)


def test_a_device_that_is_not_there_is_named_before_anything_is_written(tmp_path) -> None:
    for device in ("abacus", "cuda:7" if not torch.cuda.is_available() else "xpu"):
        with pytest.raises(ValueError, match=f"device is '{device}'"):
            semnr.score(stack(tmp_path / f"{device[:2]}.zarr"), out=tmp_path / "o", device=device)
    assert not (tmp_path / "o").exists()


# --- what a run writes beside its rows ------------------------------------------------------------------------


def test_maps_are_written_by_tile_and_a_resume_fills_in_the_rest(tmp_path) -> None:
    source = stack(tmp_path / "w.zarr", count=10)
    tiles = semnr.open_tiles(source)
    run = semnr.score(source, out=tmp_path / "out", metrics=("psnr",), maps=("ssim", "cnr"))
    maps = zarr.open_group(str(run.path / "maps.zarr"), mode="r")
    assert maps["ssim"].shape == (10, 22, 22)
    key = tiles.find("t000004")
    expected = semnr.ssim(tiles.read(key), tiles.read(key, "reference"), return_map=True).map
    np.testing.assert_allclose(maps["ssim"][4], expected, atol=1e-7)
    assert np.isnan(maps["ssim"][3]).all()  # never written: not scored


def test_a_stream_is_denoised_and_scored_in_one_pass_and_its_pixels_kept(tmp_path) -> None:
    rng = np.random.default_rng(4)
    clean = np.where(np.arange(64) % 16 < 8, 170, 70) + np.zeros((5, 64, 1))
    noisy = np.clip(clean + 12 * rng.standard_normal(clean.shape), 0, 255).astype(np.uint8)
    with create_tiles(tmp_path / "w.zarr", count=5, roles=("reference", "noisy")) as tiles:
        for i in range(5):
            tiles.write(TileKey(f"t{i:06d}", i), clean[i].astype(np.uint8), "reference")
            tiles.write(TileKey(f"t{i:06d}", i), noisy[i], "noisy")
    semnr.denoise(tmp_path / "w.zarr", tmp_path / "two.zarr", model="gaussian", sigma=1.0)
    two = semnr.score(tmp_path / "two.zarr", reference=tmp_path / "w.zarr", out=tmp_path / "a", metrics=("psnr",))
    source = denoised(tmp_path / "w.zarr", model="gaussian", sigma=1.0)
    one = semnr.score(source, out=tmp_path / "b", metrics=("psnr",), maps=("image",))
    assert [r["psnr"] for r in rows_of(one)] == [r["psnr"] for r in rows_of(two)]
    assert "denoise" in one.info["stages"]
    assert rows_of(one)[0]["transfer"] is not None  # its noisy input is known
    kept = zarr.open_group(str(one.path / "maps.zarr"), mode="r")["image"]
    written = semnr.open_tiles(tmp_path / "two.zarr")
    assert kept.dtype == np.uint8
    for i, key in enumerate(written):
        np.testing.assert_array_equal(kept[i], written.read(key))


def test_maps_of_smaller_tiles_are_padded_and_a_larger_one_makes_room(tmp_path) -> None:
    sink = maps.MapSink(tmp_path, ("ssim",))
    for index, shape in enumerate([(4, 5), (2, 3), (6, 5)]):
        sink.write("ssim", index, np.full(shape, index, np.float32))
    sink.trim(3)
    found = zarr.open_group(str(tmp_path / "maps.zarr"), mode="r")["ssim"]
    assert found.shape == (3, 6, 5)
    assert [int(np.isfinite(found[i]).sum()) for i in range(3)] == [20, 6, 30]


@pytest.mark.parametrize("version", ["1.2", "1.8"])
def test_flagged_tiles_go_to_klarf_with_their_place_and_reason(tmp_path, version) -> None:
    run = semnr.score(
        stack(tmp_path / "w.zarr"),
        out=tmp_path / "out",
        metrics=("psnr",),
        wafer=LAYOUT,
        alarms={"bright": {"metric": "psnr", "above": 1.0, "per": "die"}},
    )
    flagged = run.flagged()
    assert flagged["t000003"] == ["missing"]
    assert flagged["t000004"] == ["bright"]
    assert run.write_klarf(tmp_path / "x.klarf", version=version) == 0
    klarf = read_klarf(tmp_path / "x.klarf")
    (wafer,) = klarf.wafers
    assert klarf.version == version
    assert set(klarf.classes.values()) == {"bright", "missing"}
    assert len(wafer.defects) == 40
    rows = {(row["die_x"], row["die_y"]): row for row in rows_of(run)}
    for defect in wafer.defects:
        row = rows[defect.die_x, defect.die_y]
        assert klarf.classes[defect.class_number] == ("missing" if row["status"] == "missing" else "bright")
        assert wafer.absolute_um(defect) == pytest.approx((row["wafer_x_um"], row["wafer_y_um"]), abs=1e-3)
    assert len(wafer.test_plan) == len(LAYOUT.dies())


def test_klarf_without_a_layout_says_what_is_needed(tmp_path) -> None:
    run = semnr.score(stack(tmp_path / "w.zarr", count=2), out=tmp_path / "out", metrics=("psnr",))
    with pytest.raises(ValueError, match="wafer is None and the run knows no layout"):
        run.write_klarf(tmp_path / "x.klarf")


def test_the_command_takes_layout_alarms_and_klarf(tmp_path) -> None:
    (tmp_path / "wafer.toml").write_text("pitch_um = [1000.0, 1000.0]\ncenter_um = [500.0, 500.0]\n")
    (tmp_path / "alarms.toml").write_text('[alarms.bright]\nmetric = "psnr"\nabove = 1.0\nper = "run"\n')
    code = main(
        [
            *("score", str(stack(tmp_path / "w.zarr", count=3)), "--out", str(tmp_path / "out"), "--metrics", "psnr"),
            *("--wafer", str(tmp_path / "wafer.toml"), "--alarms", str(tmp_path / "alarms.toml"), "--klarf", "1.8"),
            *("--maps", "ssim", "-q"),
        ]
    )
    assert code == 0
    assert [d.id for d in read_klarf(tmp_path / "out" / "flagged.klarf").wafers[0].defects] == [1]
    (tmp_path / "wafer.toml").write_text("pitch = 3")
    with pytest.raises(ValueError, match=r"has pitch; accepted: pitch_um"):
        read_wafer(tmp_path / "wafer.toml")
