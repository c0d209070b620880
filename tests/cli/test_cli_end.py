"""How a command ends: status 1 is a fired guardrail and nothing else; signals keep what was written; names are tame."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from semnr.base.text import printable
from semnr.cli import main
from semnr.scoring import Run

OTHERS = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118]\nDefaultCPUAllocator: not enough memory"),
    OverflowError("cannot convert float infinity to integer"),
    RecursionError("maximum recursion depth exceeded"),
    KeyError("requested"),
    ZeroDivisionError("division by zero"),
    UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"),
    BrokenPipeError("in dask"),
    AssertionError(),
    SystemExit(1),
    type("FutureCancelledError", (Exception,), {})("lost"),
    type("Stranger", (BaseException,), {})("no Exception at all"),
]


def run_as(monkeypatch: pytest.MonkeyPatch, work) -> None:  # type: ignore[no-untyped-def]
    """`semnr doctor` does `work` instead."""
    from semnr.cli import doctor

    monkeypatch.setattr(doctor, "run", work)


@pytest.mark.parametrize("error", OTHERS, ids=lambda e: type(e).__name__)
def test_whatever_is_raised_is_one_line_and_2_or_3_where_rows_exist(error, monkeypatch, capsys) -> None:
    def work(args) -> int:  # type: ignore[no-untyped-def]
        raise error

    run_as(monkeypatch, work)
    assert main(["doctor"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("semnr: ")
    assert len(said) > len("semnr: \n")
    error.kept_at = "scores"
    assert main(["doctor"]) == 3
    assert "what was written to scores is kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "variable"), [(["--debug", "doctor"], ""), (["doctor", "--debug"], ""), (["doctor"], "1")]
)
def test_the_traceback_is_behind_a_switch(arguments, variable, monkeypatch, capsys) -> None:
    def work(args) -> int:  # type: ignore[no-untyped-def]
        raise OverflowError("far too much")

    run_as(monkeypatch, work)
    monkeypatch.setenv("SEMNR_DEBUG", variable)
    assert main(arguments) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_error_in_the_middle_of_a_run_keeps_its_rows_and_ends_with_3(tiles, tmp_path, monkeypatch, capsys) -> None:
    from semnr.scoring import scorer

    own, calls = scorer.Scorer.rows, []

    def rows(self, keys, parts):  # type: ignore[no-untyped-def]
        calls.append(keys)
        if len(calls) > 3:
            raise MemoryError
        return own(self, keys, parts)

    monkeypatch.setattr(scorer.Scorer, "rows", rows)
    command = f"score {tiles} --reference {tiles} --out {tmp_path}/out --metrics psnr -q".split()
    assert main(command) == 3
    said = capsys.readouterr().err
    assert said.startswith("semnr: out of memory")
    assert str(tmp_path / "out") in said
    assert 1 <= Run.open(tmp_path / "out").table().num_rows < 12


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


SLOW_SCORE = """
import os, sys, time
from semnr.scoring import engine as _engine; from semnr.runs import parquet as _sink
from semnr.cli import main
load, add = _engine.Engine._load, _sink.ParquetSink.add
def slowly(self, key):
    if key.index >= 4:
        time.sleep(float(sys.argv[3]))
    return load(self, key)
def told(self, row):
    add(self, row)
    os.write(1, b"row\\n")
_engine.Engine._load, _sink.ParquetSink.add = slowly, told
sys.exit(main(["score", sys.argv[1], "--reference", sys.argv[1], "--out", sys.argv[2], "--metrics", "psnr", "-q"]))
"""


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    """Each of them is a batch of its own."""
    path = tmp_path_factory.mktemp("tiles") / "x.npy"
    np.save(path, np.random.default_rng(0).integers(0, 255, (12, 520, 520), np.uint8))
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_the_rows_says_so_and_ends_with_3(tiles, tmp_path, number) -> None:
    process = child(SLOW_SCORE, tiles, tmp_path / "out", 0.3)
    assert process.stdout is not None
    assert process.stdout.readline() == "row\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert said == f"semnr: stopped; what was written to {tmp_path / 'out'} is kept, --resume continues\n"
    assert Run.open(tmp_path / "out").table().num_rows >= 1


def test_the_second_signal_ends_the_process_at_once_without_an_abort(tiles, tmp_path) -> None:
    process = child(SLOW_SCORE, tiles, tmp_path / "out", 120)
    assert process.stdout is not None
    assert process.stdout.readline() == "row\n"
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "ended at once" in said
    assert "terminate called" not in said


def test_a_signal_handler_does_not_outlive_the_command() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["doctor", "--json"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


PRINTS = """
import sys
from semnr.cli import doctor, main
from semnr.cli.text import say
def work(args):
    for line in range(5000):
        say("x" * 100)
    return int(sys.argv[1])
doctor.run = work
sys.exit(main(["doctor"]))
"""


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_reader_that_goes_away_does_not_change_the_verdict(status) -> None:
    process = child(PRINTS, status)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("xxx")
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == status


@pytest.mark.parametrize(("status", "ends"), [(0, 2), (1, 1), (3, 3)])
def test_output_that_cannot_be_written_is_no_pass(status, ends) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", PRINTS, str(status)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert "No space left" in done.stderr
    assert done.returncode == ends


def test_a_terminal_without_the_characters_of_a_verdict_changes_nothing() -> None:
    code = PRINTS.replace('"x" * 100', '"σ – " + chr(0xdce9)')
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code, "0"], capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == rb"\u03c3 \u2013 \udce9"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("a\x7fb\x00", r"a\x7fb\x00"),
        ("abc\u202ecod.exe", r"abc\u202ecod.exe"),
        ("caf\udce9", r"caf\udce9"),
        ("line\u2028break", r"line\u2028break"),
        ("Größe µm σ 東京 🙂", "Größe µm σ 東京 🙂"),
    ],
)
def test_a_name_cannot_steer_the_terminal(name, shown) -> None:
    assert printable(name) == shown


def test_a_problem_of_a_tile_stays_in_its_line(tmp_path, capsys) -> None:
    folder = tmp_path / "lot"
    (folder / "noisy").mkdir(parents=True)
    (folder / "noisy" / "a\x1b[2J\nb.png").write_bytes(b"no image")
    assert main(["denoise", str(folder), "--out", str(tmp_path / "clean"), "--model", "median", "-q"]) == 3
    said = capsys.readouterr().out
    assert r"unreadable: a\x1b[2J\nb" in said
    assert "\x1b" not in said


def test_quiet_silences_libraries_and_otherwise_each_message_is_a_line(monkeypatch, capsys) -> None:
    def work(args) -> int:  # type: ignore[no-untyped-def]
        warnings.warn_explicit("a bomb\nof pixels", UserWarning, "/lib/PIL/Image.py", 1)
        logging.getLogger("tifffile").error("corrupted \x1b[1m tag")
        return 0

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    run_as(monkeypatch, work)
    assert main(["doctor", "--json"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["doctor"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "semnr: note: a bomb of pixels",
        r"semnr: tifffile: corrupted \x1b[1m tag",
    ]
