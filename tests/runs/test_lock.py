"""One writer a folder: who comes second is told, a kill lets the folder go, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from semnr.base import lock
from semnr.base.lock import only_writer

HOLD = """
    import sys, time
    from pathlib import Path
    from semnr.base.lock import only_writer
    with only_writer(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
"""


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_writer_is_told_who_the_first_is(tmp_path) -> None:
    with only_writer(tmp_path / "run"):
        with (
            pytest.raises(ValueError, match=f"another writer is at work in .process {os.getpid()} on "),
            only_writer(tmp_path / "run"),
        ):
            pytest.fail("two writers hold one folder")
        assert all(map(lock.is_ours, names(tmp_path / "run")))
    with only_writer(tmp_path / "run"):
        pass


def test_a_folder_that_got_nothing_is_gone_again_and_one_that_was_there_stays(tmp_path) -> None:
    with only_writer(tmp_path / "new"):
        pass
    (tmp_path / "old").mkdir()
    with only_writer(tmp_path / "old"):
        pass
    with only_writer(tmp_path / "kept"):
        (tmp_path / "kept/run.json").touch()
    assert names(tmp_path) == ["kept", "old"]
    assert names(tmp_path / "kept") == ["run.json"]


def test_a_writer_that_was_killed_holds_nothing(tmp_path) -> None:
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), folder], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {child.pid} on "), only_writer(folder):
            pass
        child.kill()
    with only_writer(folder):
        pass
    assert names(folder) == []
