"""The first day with a GPU, in one command: `make gpu`, or `python benchmarks/speed/gpu_day.py`. As a file: with -m the
source tree would shadow the installed package.

No network; each step has a limit of its own and its log; what fails does not stop the rest. At the end a table, an
archive of the logs, and `benchmarks/results/gpu.json`, from which `--table` makes that of docs/performance.md. `--dry`
runs what can be run on the GPU that is not there (tests/support/mock_gpu.py) and on the emulation: the script's own
test.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records

REPOSITORY = Path(__file__).resolve().parents[2]
SUPPORT, SPEED, STATIC = (REPOSITORY / f for f in ("tests/support", "benchmarks/speed", "benchmarks/static"))
CHECKS = SPEED / "gpu_checks.py"
RESULTS = REPOSITORY / "benchmarks" / "results" / "gpu.json"
DAY = 450  # seconds, of 8 minutes: no step begins after them
SUITES = ("pixel", "ssim", "ssim_taps", "cnr", "cnr_native", "cnr_masks", "fsim", "dists")
SUITES += ("noise_op", "residual_op", "transfer_op", "changes_op")
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
METRICS = (
    "gpu__time_duration.sum,smsp__inst_executed.sum,sm__warps_active.avg.pct_of_peak_sustained_active,"
    "dram__bytes_read.sum,dram__bytes_write.sum,l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum,"
    "launch__registers_per_thread,launch__waves_per_multiprocessor"
)
TOLD = ("passed", "failed", "== ", "ERROR SUMMARY", "RACECHECK SUMMARY", "cases", "error")


@dataclass(frozen=True)
class Step:
    """A command with a limit; `needs`: a program without which it is left out, which the table says."""

    name: str
    seconds: int
    command: tuple[str, ...]
    needs: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    dry: bool = False  # also without a GPU


@dataclass
class Outcome:
    """What a step came to: "ok", "failed", "out of time", or why it was left out."""

    name: str
    state: str
    seconds: float
    told: str = ""


def steps(out: Path, dry: bool) -> list[Step]:
    """The day, in its order: what everything rests on first."""
    python = sys.executable
    checks = (python, str(CHECKS))
    mock = {"SEMNR_HERE": "mock"} if dry else {}
    kinds = "cuda-here" if dry else "cuda-here,triton-here,torch-here"
    names = ("pixel",) if dry else SUITES
    suites = [str(next((REPOSITORY / "tests" / "kernels").rglob(f"test_{name}.py"))) for name in names]
    many = () if dry or importlib.util.find_spec("xdist") is None else ("-n", "12")
    pytest = (python, "-m", "pytest", "-q", *many, "-p", "on_device", "-p", "no:cacheprovider", *suites, "-k", "here")
    found = [
        Step("build", 150, (python, __file__, "--build", str(out)), "nvcc"),
        Step("doctor", 30, (python, "-m", "semnr", "doctor"), dry=True),
        *(Step(name, limit, (*checks, name)) for name, limit in (("smoke", 60), ("bits", 30))),
        *(Step(name, limit, (*checks, name)) for name, limit in (("streams", 30), ("graphs", 40), ("compiled", 45))),
        Step("suites", 110, pytest, environment={**mock, "SEMNR_REQUIRE": kinds}, dry=True),
    ]
    # an access beyond a tensor would land in the allocator's own block
    watched = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "SEMNR_HERE_BACKENDS": "cuda"}
    for tool in SANITIZERS:
        watch = ("compute-sanitizer", "--tool", tool, "--kernel-name-exclude", "kns=at::", "--error-exitcode", "9")
        found.append(Step(tool, 60, (*watch, *checks, "tiny"), "compute-sanitizer", watched))
    seed = {"SEED": str(random.randrange(10**6))}
    found += [
        Step("fuzz", 60, (*checks, "fuzz", "40"), environment=seed),
        Step("evidence", 60, (*checks, "evidence")),
        Step("score", 60, (*checks, "score")),
        Step("bench", 110, (python, str(SPEED / "bench_gpu.py"), "--out", str(out / "bench.json"))),
        Step("ncu", 60, ("ncu", "--clock-control", "none", "--metrics", METRICS, *checks, "once"), "ncu"),
    ]
    if not dry:
        return found
    # what starts costs more here than what runs; on a machine with other work, too
    together = Step(
        "checks", 60, (*checks, "smoke,bits,tiny,fuzz,evidence,score", "3"), environment={**mock, **seed}, dry=True
    )
    return [replace(s, seconds=5 * s.seconds) for s in (*found, together) if s.dry]


def run(step: Step, out: Path, site: Path) -> Outcome:
    """Run a step, its output to a log of its own."""
    if step.needs is not None and shutil.which(step.needs) is None:
        return Outcome(step.name, f"left out: no {step.needs} here", 0.0)
    log, begun = out / f"{step.name}.log", time.monotonic()
    path = os.pathsep.join(map(str, (site, SUPPORT, SPEED, STATIC)))
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, **step.environment}
    with log.open("w") as file:
        try:
            done = subprocess.run(
                step.command,
                cwd=REPOSITORY,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=step.seconds,
            )
            state = "ok" if done.returncode == 0 else f"failed ({done.returncode})"
        except subprocess.TimeoutExpired:
            state = f"out of time ({step.seconds} s)"
    return Outcome(step.name, state, time.monotonic() - begun, _told(log))


def _told(log: Path) -> str:
    """The last line of a log that says something."""
    lines = log.read_text(errors="replace").splitlines()
    return next((line.strip()[:110] for line in reversed(lines) if any(word in line for word in TOLD)), "")


def build(out: Path) -> None:
    """The CUDA module for the chip that is here, without setup.py (three chips and three CPU modules take minutes)."""
    import pybind11
    import torch

    major, minor = torch.cuda.get_device_capability()
    chip, objects, site = f"{major}{minor}", out / "objects", out / "site" / "semnr_kernels"
    objects.mkdir(parents=True, exist_ok=True)
    csrc, cuda = REPOSITORY / "csrc", Path(shutil.which("nvcc") or "nvcc").resolve().parents[1]
    ops = sorted(p.name.removesuffix("_cuda_bind.cpp") for p in csrc.glob("*/*_cuda_bind.cpp"))
    include = [f"-I{csrc}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}", f"-I{cuda}/include"]
    listed = " ".join(f"X({name})" for name in ops)
    defines = ["-DSEMNR_MODULE=_cuda_kernels", f"-DSEMNR_OPS(X)={listed}", '-DSEMNR_NVCC="day"']
    defines.append(f"-DSEMNR_ARCHITECTURES=std::vector<int>{{{chip}}}")
    host = ["g++", "-O1", "-std=c++17", "-fPIC", "-fvisibility=hidden", *include, *defines]
    # -lineinfo: compute-sanitizer and ncu name source lines
    device = [
        "nvcc",
        "-std=c++17",
        "-O3",
        "-lineinfo",
        f"-I{csrc}",
        "-Xcompiler=-fPIC,-fvisibility=hidden",
        f"-arch=sm_{chip}",
    ]
    made = []
    for source in (*csrc.glob("*/*_cuda.cu"), csrc / "cuda" / "module.cpp", *csrc.glob("*/*_cuda_bind.cpp")):
        target = objects / f"{source.parent.name}-{source.stem}{source.suffix}.o"
        made.append(
            (
                subprocess.Popen([*(device if source.suffix == ".cu" else host), "-c", str(source), "-o", str(target)]),
                target,
            )
        )
    if any(process.wait() for process, _ in made):
        raise SystemExit("a source did not compile")
    shutil.copytree(_installed("semnr_kernels"), site, dirs_exist_ok=True)
    module = site / f"_cuda_kernels{sysconfig.get_config_var('EXT_SUFFIX')}"
    libraries = [f"-L{cuda}/lib64", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    subprocess.run(["g++", "-shared", "-o", str(module), *(str(t) for _, t in made), *libraries], check=True)
    print(f"== build: {module.name} for sm_{chip}")


def _installed(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed: pip install '.[bench]' first")
    return Path(spec.origin).parent


def table(outcomes: Sequence[Outcome]) -> str:
    """A line a step."""
    return "\n".join(f"{o.name:<12} {o.state:<28} {o.seconds:5.0f} s  {o.told}" for o in outcomes)


def readme(day: dict) -> str:
    """The table of docs/performance.md: what ran on which device, and how fast."""
    head = f"{day['device']}, torch {day['torch']}, Triton {day['triton']}, {day['commit']}"
    lines = [
        f"Measured on {head}: `make gpu`.",
        "",
        "| work | ms | on the device alone | share of copy | peak over inputs |",
    ]
    lines.append("|---|---|---|---|---|")
    for row in day["bench"]:
        alone, peak = (f"{row[k]:.3g}" if row.get(k) is not None else "–" for k in ("device_ms", "peak"))
        lines.append(f"| {row['work']} | {row['ms']:.4g} | {alone} | {row['share of copy bandwidth']:.0%} | {peak} |")
    return "\n".join(lines)


def stored(path: Path = RESULTS) -> dict:
    """What a day left behind, with what it ran on."""
    made = records.read(path)
    return {**records.tree_of(made["rows"]), **made["machine"], **made["versions"], "commit": made["commit"]}


def machine() -> dict[str, str]:
    """What the day ran on."""
    import torch

    triton = importlib.util.find_spec("triton")
    version = "none" if triton is None else __import__("triton").__version__
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"device": name, "torch": torch.__version__, "triton": version}


def outcomes(out: Path, dry: bool, only: Sequence[str]) -> Iterator[Outcome]:
    """The steps' ends, one after the other; those for which the day has no time left are said."""
    begun = time.monotonic()
    for step in steps(out, dry):
        if only and step.name not in only:
            continue
        late = time.monotonic() - begun > DAY
        found = Outcome(step.name, "left out: the day is over", 0.0) if late else run(step, out, out / "site")
        print(table([found]), flush=True)
        yield found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "gpu", help="logs, archive, built module")
    parser.add_argument("--dry", action="store_true", help="without a GPU: on the mock and the emulation")
    parser.add_argument("--only", nargs="*", default=(), help="names of steps")
    parser.add_argument(
        "--table", action="store_true", help="print the table of docs/performance.md from the last day's results"
    )
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.table:
        print(readme(stored()) if RESULTS.is_file() else "no GPU has run a day: no results/gpu.json")
        return 0
    if asked.build is not None:
        build(asked.build)
        return 0
    out = asked.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    on = machine()
    if on["device"] == "none" and not asked.dry:
        print("skipped: no GPU here; --dry runs on the mock")
        return 2
    found = list(outcomes(out, asked.dry, asked.only))
    bench = out / "bench.json"
    day = {**on, "dry": asked.dry, "steps": [asdict(o) for o in found]}
    day["bench"] = json.loads(bench.read_text()) if bench.is_file() and not asked.dry else []
    target = out / "gpu.json" if asked.dry else RESULTS
    versions = {name: day.pop(name) for name in ("torch", "triton")}
    on = {"device": day.pop("device"), "cpu": platform.processor() or platform.machine()}
    arguments = ["--dry"] if asked.dry else []
    records.write(target, records.record(__file__, day, machine=on, versions=versions, arguments=arguments))
    with tarfile.open(out / "day.tgz", "w:gz") as archive:
        for path in (*out.glob("*.log"), *out.glob("*.json")):
            archive.add(path, path.name)
    print(f"\n{table(found)}\n{target}\n{out / 'day.tgz'}")
    return 0 if all(o.state == "ok" or o.state.startswith("left out: no ") for o in found) else 1


if __name__ == "__main__":
    sys.exit(main())
