"""The first day with a GPU, dry: on the GPU that is not there and on the emulation."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import gpu_day
import pytest

import backends
import cases


@pytest.mark.timeout(900)
def test_the_day_runs_dry_and_leaves_a_table_an_archive_and_its_results(tmp_path: Path) -> None:
    backends.require("ssim", "cuda-emulated")
    script = cases.REPOSITORY / "benchmarks" / "speed" / "gpu_day.py"
    done = subprocess.run(
        [sys.executable, str(script), "--dry", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=cases.REPOSITORY, env={**os.environ, "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    day = gpu_day.stored(tmp_path / "gpu.json")
    assert day["dry"]
    names = ("doctor", "suites", "checks")
    assert {s["name"]: s["state"] for s in day["steps"]} == dict.fromkeys(names, "ok")
    checks = (tmp_path / "checks.log").read_text()
    assert "tiny: done" in checks
    assert "fuzz: " in checks
    assert "ok   score psnr with tests on cuda" in checks
    suites = next(s for s in day["steps"] if s["name"] == "suites")
    assert "passed" in suites["told"]
    assert "skipped" not in suites["told"]
    with tarfile.open(tmp_path / "day.tgz") as archive:
        assert {"checks.log", "suites.log", "gpu.json"} <= set(archive.getnames())


def test_every_step_of_the_day_has_a_limit(tmp_path: Path) -> None:
    day = gpu_day.steps(tmp_path, dry=False)
    wanted = {"build", "smoke", "streams", "graphs", "compiled", "suites", "fuzz", "score", "bench", "ncu"}
    assert wanted | set(gpu_day.SANITIZERS) <= {s.name for s in day}
    assert all(0 < s.seconds <= 150 for s in day)
    assert gpu_day.DAY < 480


def test_a_step_that_fails_runs_out_of_time_or_lacks_its_tool_is_said(tmp_path: Path) -> None:
    fails = gpu_day.Step("fails", 60, (sys.executable, "-c", "print('3 failed'); raise SystemExit(3)"))
    found = gpu_day.run(fails, tmp_path, tmp_path)
    assert (found.state, found.told) == ("failed (3)", "3 failed")
    hangs = gpu_day.Step("hangs", 1, (sys.executable, "-c", "import time; time.sleep(60)"))
    assert gpu_day.run(hangs, tmp_path, tmp_path).state == "out of time (1 s)"
    lacks = gpu_day.Step("lacks", 1, ("no-such-tool",), "no-such-tool")
    assert gpu_day.run(lacks, tmp_path, tmp_path).state == "left out: no no-such-tool here"


def test_readmes_table_is_made_from_the_results() -> None:
    row = {"work": "ssim on cuda", "ms": 0.5, "device_ms": None, "share of copy bandwidth": 0.5, "peak": 0.01}
    told = gpu_day.readme({"device": "H100", "torch": "2.11", "triton": "3.6", "commit": "abc", "bench": [row]})
    assert told.splitlines()[-1] == "| ssim on cuda | 0.5 | – | 50% | 0.01 |"
