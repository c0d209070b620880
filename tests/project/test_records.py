"""Every record of a benchmark has one form, and the tables of README and docs are those of the records."""

from __future__ import annotations

from typing import Any

import aot_table
import bench_classify
import bench_denoisers
import bench_evidence
import bench_rivals
import bench_trust
import counted_table
import pytest
import records

import cases

PATHS = sorted(records.RESULTS.glob("*.json"))


def test_there_are_records_of_speed_quality_and_static_cost() -> None:
    kinds = {records.read(path)["benchmark"].split("/")[1] for path in PATHS}
    assert kinds == {"speed", "quality", "static"}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_record_says_where_its_figures_come_from(path: Any) -> None:
    made = records.read(path)  # refuses what is no record
    assert records.problems(made) == []
    assert list(records.rows_of(records.tree_of(made["rows"]))) == made["rows"]
    if made["benchmark"].startswith("benchmarks/speed/"):
        assert made["machine"]["cpu"]
        assert made["versions"]["torch"]


def test_nothing_is_lost_between_a_tree_and_its_rows() -> None:
    tree = {
        "seed": 7,
        "empty": {},
        "method": {"psnr": 30.25, "interval": [0.0, None], "bands": {"low": {"share": 1e-17}}},
        "table": [{"case": "a", "located": {"share": 1.0}}, {"case": "b", "located": {"share": 0.1 + 0.2}}],
    }
    rows = list(records.rows_of(tree))
    assert records.tree_of(rows) == tree
    assert [row["of"] for row in rows if "item" in row] == [["table"], ["table"]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"when": "yesterday"}, "when is 'yesterday'"),
        ({"benchmark": "bench.py"}, "benchmark is 'bench.py'"),
        ({"command": "make bench"}, "command is 'make bench'"),
        ({"commit": "main"}, "commit is 'main'"),
        ({"rows": []}, "rows is empty"),
        ({"rows": [{"of": ["a"]}]}, "rows[0] is"),
        ({"rows": [{"of": ["a"], "figures": {"b": {"c": [[1]]}}}]}, "rows[0].figures.b.c is list"),
        ({"rows": [{"of": ["a"], "item": -1, "figures": {}}]}, "rows[0].item is -1"),
        ({"notes": 1}, "notes is no field"),
    ],
)
def test_what_is_no_record_is_refused_with_the_field_and_what_is_accepted(change: dict[str, Any], says: str) -> None:
    made = records.read(PATHS[0]) | change
    assert any(text.startswith(says) for text in records.problems(made))
    with pytest.raises(ValueError, match="would not be a record"):
        records.write(records.RESULTS / "no.json", made)


def test_a_record_that_is_made_now_is_one(tmp_path: Any) -> None:
    made = records.record(records.__file__, {"a": {"seconds": [1.0]}}, machine={"cpu": "x"}, versions={"torch": "2"})
    records.write(tmp_path / "a.json", made)
    assert records.read(tmp_path / "a.json") == made
    assert records.read_tree(tmp_path / "a.json") == {"a": {"seconds": [1.0]}}


def test_the_pages_tables_are_those_of_the_records() -> None:
    trust = (cases.REPOSITORY / "docs" / "trust.md").read_text(encoding="utf-8")
    assert bench_trust.text(bench_trust.stored()) in trust
    evidence = (cases.REPOSITORY / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert bench_evidence.tables(records.read_tree(bench_evidence.RESULTS)) in evidence
    classify = (cases.REPOSITORY / "docs" / "classify.md").read_text(encoding="utf-8")
    assert bench_classify.tables(records.read_tree(bench_classify.RESULTS)) in classify
    benchmark = (cases.REPOSITORY / "docs" / "benchmark.md").read_text(encoding="utf-8")
    assert bench_denoisers.made(bench_denoisers.read(bench_denoisers.ROWS)) in benchmark
    assert bench_rivals.text(records.read_tree(bench_rivals.RESULTS)) in benchmark


def test_the_static_tables_are_made_of_the_records() -> None:
    assert len(counted_table.show(counted_table.stored()).splitlines()) > len(counted_table.stored())
    assert aot_table.show(aot_table.stored())
