"""A run that dies, or finds the disk full, at any change of the disk goes on to the same result (`make soak`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from semnr.tiles import TileKey, create_tiles

TILES = 3
TRIALS = int(os.environ.get("SEMNR_SOAK_TRIALS", "0"))  # of each kind, spread over a run; 0: at every change


def trials(tmp_path: Path, name: str, how: str, count: int) -> list[dict]:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    with create_tiles(tmp_path / "w.zarr", roles=("noisy", "reference")) as writer:
        for index in range(TILES):
            for role in ("noisy", "reference"):
                pixels = rng.integers(0, 255, (32, 32), np.uint8)
                writer.write(TileKey(f"t{index}", index, meta={"die_x": index}), pixels, role)
    script = Path(__file__).parents[1] / "support" / "faulty.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path / "w.zarr", tmp_path, name, how, str(count)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(found: list[dict], how: str) -> None:  # type: ignore[type-arg]
    assert found
    for trial in found:
        assert trial["then"] == 0, trial
        assert trial["problem"] is None, trial
        assert trial["first"] in ((-9,) if how == "kill" else (0, 2, 3)), trial


@pytest.mark.parametrize(("name", "how"), [("zarr", "kill")])
def test_a_run_that_stops_at_a_change_of_the_disk_goes_on_to_the_same_result(tmp_path, name, how) -> None:
    check(trials(tmp_path, name, how, count=2), how)


@pytest.mark.soak
@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("name", ["score", "zarr", "folder"])
def test_a_run_that_stops_at_every_change_of_the_disk_goes_on_to_the_same_result(tmp_path, name, how) -> None:
    check(trials(tmp_path, name, how, count=TRIALS), how)
