"""Seconds until the report of 10,000 tiles is open in headless Chromium, one run and three.

`python benchmarks/speed/bench_report.py`
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

import table

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from browser import Browser
from written import with_boxes, write_run

from semnr.reporting import report

OPENS = 5


def main() -> None:
    print(json.dumps(table.machine()))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [write_run(folder / f"run{i}", label=f"candidate {i}", dies=2500, change=with_boxes) for i in range(3)]
        for count in (1, 3):
            page = report(runs[:count], folder / f"{count}.html", worst=0)
            with Browser(folder / f"profile{count}") as browser:
                seconds = [browser.open(page) for _ in range(OPENS)]
                assert browser.console == []
            megabytes = page.stat().st_size / 1e6
            print(
                f"10,000 tiles, {count} run(s), {megabytes:.1f} MB: open after {seconds[0]:.2f} s the first time, then "
                f"{statistics.median(seconds[1:]):.2f} s (bar 3 s)"
            )
            rows.append({"runs": count, "megabytes": megabytes, "seconds": seconds})
    table.keep("report", __file__, {"rows": rows})


if __name__ == "__main__":
    main()
