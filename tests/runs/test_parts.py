"""The Parquet parts of a run: one schema for all of them, whatever comes when, so that other readers open them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import semnr
from semnr.runs.parquet import ParquetSink, part_files, read_rows

RNG = np.random.default_rng(2)
PAIRS = RNG.integers(0, 255, (9, 16, 16), dtype=np.uint8)


def ok(index: int, **meta) -> dict:
    row = {"tile": f"t{index}", "path": None, "index": index, "psnr": 30.0 + index, "cnr": None}
    return {**meta, **row, "status": "ok", "reason": None}


def bad(index: int, **meta) -> dict:
    return {**meta, "tile": f"t{index}", "path": "a.tif", "index": index, "status": "unreadable", "reason": "torn"}


def written(folder, *parts: list[dict]):
    for rows in parts:  # a sink a part: as if the run had been resumed before each
        sink = ParquetSink(folder)
        for row in rows:
            sink.add(row)
        sink.flush()
    return folder


def opened_by_all(run) -> pa.Table:
    """The rows as each reader has them, which must agree."""
    pd, pl, duckdb = (pytest.importorskip(name) for name in ("pandas", "polars", "duckdb"))
    folder = run / "tiles"
    assert len({pq.read_schema(path) for path in part_files(run)}) == 1
    table = pq.read_table(folder)
    rows = table.to_pylist()
    assert pyarrow.dataset.dataset(folder).to_table().to_pylist() == rows
    assert pl.read_parquet(folder / "*.parquet").to_dicts() == rows
    assert pl.scan_parquet(folder).collect().to_dicts() == rows
    names = ", ".join(table.column_names)
    relation = duckdb.sql(f"SELECT {names} FROM '{folder}/*.parquet'")
    assert [dict(zip(table.column_names, row, strict=True)) for row in relation.fetchall()] == rows
    assert list(pd.read_parquet(folder)["tile"]) == [row["tile"] for row in rows]
    return table


def test_a_problem_in_a_later_part_leaves_a_table_that_every_reader_opens(tmp_path) -> None:
    table = opened_by_all(written(tmp_path, [ok(0), ok(1)], [ok(2), bad(3)]))
    types = {field.name: field.type for field in table.schema}
    assert types == {
        **dict.fromkeys(("tile", "path", "status", "reason"), pa.string()),
        **dict.fromkeys(("psnr", "cnr"), pa.float64()),
        "index": pa.int64(),
    }
    assert table.column("reason").to_pylist() == [None, None, None, "torn"]


@pytest.mark.parametrize(
    ("first", "second", "kind", "values"),
    [
        (1, 2, pa.int64(), [1, 2]),
        (1, 2.5, pa.float64(), [1.0, 2.5]),
        (2.5, 1, pa.float64(), [2.5, 1.0]),
        (None, 7, pa.int64(), [None, 7]),
        (None, "A7", pa.string(), [None, "A7"]),
        (7, "A7", pa.string(), ["7", "A7"]),
        ("A7", 7, pa.string(), ["A7", "7"]),
        (True, None, pa.bool_(), [True, None]),
        (True, "x", pa.string(), ["True", "x"]),
        (1, 2**70, pa.string(), ["1", str(2**70)]),
        (np.int16(3), np.float32(0.5), pa.float64(), [3.0, 0.5]),
        (None, None, pa.float64(), [None, None]),
        ("caf\udce9", None, pa.string(), ["caf\\udce9", None]),
        ([1, 2], {"a": 1}, pa.string(), ["[1, 2]", "{'a': 1}"]),
    ],
    ids=str,
)
def test_columns_of_the_plan_whose_type_changes_are_widened_in_every_part(
    tmp_path, first, second, kind, values
) -> None:
    table = opened_by_all(written(tmp_path, [ok(0, slot=first)], [ok(1, slot=second)]))
    assert table.schema.field("slot").type == kind
    assert table.column("slot").to_pylist() == values


def test_a_column_that_comes_late_or_ends_early_is_in_every_part(tmp_path) -> None:
    table = opened_by_all(written(tmp_path, [ok(0, lot_id="a")], [ok(1, fsim=0.5)], [bad(2)]))
    assert table.column("fsim").to_pylist() == [None, 0.5, None]
    assert table.column("lot_id").to_pylist() == ["a", None, None]


def test_parts_of_earlier_versions_are_read_and_brought_to_the_schema(tmp_path) -> None:
    (tmp_path / "tiles").mkdir()
    # as they were written: by what each part held
    for number, rows in enumerate(([ok(0, slot=1)], [bad(1, slot="A")])):
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        pq.write_table(pa.table(columns), tmp_path / "tiles" / f"part-{number:05d}.parquet")
    before = read_rows(tmp_path).to_pylist()
    assert [(row["tile"], row["slot"], row["psnr"], row["reason"]) for row in before] == [
        ("t0", "1", 30.0, None),
        ("t1", "A", None, "torn"),
    ]
    opened_by_all(written(tmp_path, [ok(2, slot=3)]))
    assert read_rows(tmp_path).to_pylist()[:2] == before


def test_parts_that_fit_are_not_written_again(tmp_path) -> None:
    written(tmp_path, [ok(0)], [bad(1)])
    before = [path.stat().st_mtime_ns for path in part_files(tmp_path)]
    written(tmp_path, [ok(2)], [bad(3)])
    assert [path.stat().st_mtime_ns for path in part_files(tmp_path)][:2] == before


def test_a_run_with_a_problem_in_a_later_part_opens_everywhere(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(ParquetSink.__init__.__kwdefaults__, "rows", 4)
    tiles = [(f"a{i}", image, {"slot": i if i < 6 else "x"}) for i, image in enumerate(PAIRS)]
    reference = [(name, image) for name, image, _ in tiles[:7]]
    run = semnr.score(tiles, reference=reference, out=tmp_path / "run", metrics=("psnr", "ssim", "cnr"))
    assert run.counts == {"tiles": 9, "ok": 7, "no_reference": 2}
    table = opened_by_all(run.path)
    assert table.sort_by("index").column("slot").to_pylist() == [*map(str, range(6)), "x", "x", "x"]
    assert len(part_files(run.path)) > 1
    assert table.schema.field("ssim").type == pa.float64()
