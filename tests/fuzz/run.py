"""Fuzz the readers with coverage as the guide: `python tests/fuzz/run.py tiff --seconds 900`, or `all`.

Needs atheris (`pip install '.[dev]'`). What a target must not raise is kept as `NAME-FAULT.bin` with its traceback
in `--faults`; a target that hangs or takes the memory is ended, kept, and started again. Exit status 1 where any
fault was found. Each run begins with the seeds of `targets.py`, mixed by `--seed`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
NAMES = ("plan", "zarr", "klarf", "tiff")
INSTRUMENTED = ["semnr.tiles", "semnr.klarf", "tifffile", "zarr.core.metadata", "zarr.core.group", "zarr.core.array"]
AT_ONCE = 2  # targets
SLOWEST, MEMORY = 20, 3000  # seconds and MiB that one input may take


def fuzz(name: str, corpus: Path, faults: Path, options: list[str]) -> None:
    """Runs until libFuzzer ends the process."""
    import logging
    import warnings

    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        import targets
        import tifffile  # noqa: F401
        import zarr  # noqa: F401

        import semnr.klarf
        import semnr.tiles  # noqa: F401
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for index, seed in enumerate(targets.seeds(name)):
        targets.once(name, seed)
        (corpus / f"seed{index:02d}").write_bytes(seed)
    known: set[str] = set()

    def one(data: bytes) -> None:
        try:
            targets.once(name, data)
        except Exception as error:
            at = [frame for frame in traceback.extract_tb(error.__traceback__) if "fuzz" not in frame.filename]
            where = f"{Path(at[-1].filename).stem}-{at[-1].lineno}" if at else "target"
            fault = f"{name}-{type(error).__name__}-{where}"
            if fault not in known:
                known.add(fault)
                (faults / f"{fault}.bin").write_bytes(data)
                (faults / f"{fault}.txt").write_text(traceback.format_exc(), encoding="utf-8", errors="replace")

    atheris.Setup([sys.argv[0], str(corpus), *options], one)
    atheris.Fuzz()


def run(name: str, seconds: int, faults: Path, seed: int) -> tuple[int, int]:
    """(inputs, faults) of one target."""
    end, inputs = time.monotonic() + seconds, 0
    before = set(faults.glob(f"{name}-*.bin"))
    with tempfile.TemporaryDirectory(prefix="semnr-corpus-") as corpus:
        while (left := round(end - time.monotonic())) > 0:
            options = [f"-max_total_time={left}", "-print_final_stats=1", f"-timeout={SLOWEST}", "-max_len=8192"]
            options += [f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={faults / f'{name}-'}", f"-seed={seed}"]
            child = [sys.executable, __file__, "--child", name, corpus, str(faults), *options]
            done = subprocess.run(child, stderr=subprocess.PIPE, text=True, errors="replace")
            found = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
            inputs += int(found[1]) if found else 0
            if done.returncode == 0:
                break
            if found is None:  # it never began
                sys.stderr.write(done.stderr[-4000:])
                return inputs, 1
            for kept in faults.glob(f"{name}-*-*"):
                if kept.suffix not in (".bin", ".txt"):
                    kept.rename(kept.with_name(f"{kept.name}.bin"))
            seed += 1
    return inputs, len(set(faults.glob(f"{name}-*.bin")) - before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--seconds", type=int, default=15, help="of each target")
    parser.add_argument("--faults", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.faults.mkdir(parents=True, exist_ok=True)
    found = 0
    names = NAMES if given.name == "all" else (given.name,)
    with ThreadPoolExecutor(AT_ONCE) as pool:  # each is a process of its own
        jobs = [pool.submit(run, name, given.seconds, given.faults.resolve(), given.seed) for name in names]
        for name, job in zip(names, jobs, strict=True):
            inputs, faults = job.result()
            print(f"{name}: {inputs} inputs, {faults} faults", flush=True)
            found += faults
    if found:
        print(f"the faults are in {given.faults}")
    return 1 if found else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        fuzz(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
    else:
        sys.exit(main())
