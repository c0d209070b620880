"""`semnr bench`: every metric beside its peers. Nothing here depends on how long anything took."""

from __future__ import annotations

import json
import math
import types

import pytest

from semnr import benchmark
from semnr.cli import main


@pytest.fixture
def peers(monkeypatch) -> None:
    """One peer that works, one that fails; the others are not installed."""

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no such image\nanywhere")

    piq = types.SimpleNamespace(psnr=lambda x, y, data_range: 1.0, ssim=refuse)
    monkeypatch.setattr(benchmark, "_imported", lambda name: piq if name == "piq" else None)


def test_every_metric_is_timed_and_peers_in_turn(peers, capsys) -> None:
    every = ",".join(benchmark.OPS)
    assert main(["bench", "--ops", every, "--sides", "176", "--seconds", "0.01", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ours = [row for row in found["timings"] if row["library"] == "semnr"]
    assert [row["op"] for row in ours] == list(benchmark.OPS)
    assert all(row["milliseconds"] > 0 and row["calls"] >= 1 for row in ours)
    assert {(row["op"], row["library"]) for row in found["timings"] if row["library"] != "semnr"} == {
        ("psnr", "piq"), ("ssim", "piq"), ("ms_ssim", "piq"), ("fsim", "piq"),
    }  # fmt: skip
    assert "torchmetrics" in found["absent"]
    assert "piq" not in found["absent"]
    assert found["machine"]["cores"] >= 1


def test_networks_are_timed_where_they_are_asked_for(peers, monkeypatch) -> None:
    calls = {op: (lambda images, peers: ({"semnr": lambda: None}, {})) for op in benchmark.OPS}
    monkeypatch.setattr(benchmark, "OPS", calls)
    ops = [row.op for row in benchmark.bench(sides=[64], seconds=0.01).timings]
    assert ops == [op for op in calls if op not in ("dists", "lpips")]


def test_what_fails_is_a_row_that_says_so(peers) -> None:
    rows = benchmark.bench(["ssim"], sides=[64], seconds=0.01).timings
    failed = next(row for row in rows if row.library == "piq")
    assert math.isnan(failed.milliseconds)
    assert (failed.calls, failed.note) == (0, "failed: no such image anywhere")
    small = benchmark.bench(["ms_ssim"], sides=[64], seconds=0.01, peers=False).timings  # the image is too small
    assert [row.note.startswith("failed: ") for row in small] == [True]


def test_the_table_names_machine_versions_and_what_is_absent(peers, capsys) -> None:
    assert main(["bench", "--ops", "psnr", "--sides", "64,96", "--dtypes", "uint8,float32", "--seconds", "0.01"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("semnr 0.") == 4
    assert "cores" in captured.out
    assert "not installed, and so not timed: frame-analytics, fast-ssim, pytorch-msssim" in captured.out
    assert "bench: psnr 64 x 64 uint8" in captured.err
    assert main(["bench", "--ops", "psnr", "--sides", "64", "--seconds", "0.01", "--no-peers", "-q"]) == 0
    assert "piq" not in capsys.readouterr().out


def test_calls_are_taken_in_turn() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    times = benchmark.alternate(calls, 0.0)
    assert {name: len(rows) for name, rows in times.items()} == {"a": 3, "b": 3}
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == ["a", "b"] * 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--ops", "speed"], "ops is 'speed'; accepted: 'psnr', 'ssim'"),
        (["--sides", "32"], "sides is 32; accepted: an integer of at least 64"),
        (["--sides", "big"], "--sides is 'big'"),
        (["--dtypes", "int8"], "dtypes is 'int8'; accepted: 'uint8', 'uint16', 'float32'"),
        (["--seconds", "0"], "seconds is 0.0"),
    ],
)
def test_bad_options_are_named(options, says, capsys) -> None:
    assert main(["bench", *options]) == 2
    assert says in capsys.readouterr().err
