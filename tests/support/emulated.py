"""Builds the emulated CUDA module: the kernels of csrc/*/*_cuda.cu for the host, instrumented, with csrc/emulation.

`python tests/support/emulated.py` builds it into build/emulated, from where the tests take it while the sources
stay the same. Objects are kept by content: what did not change is not compiled again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CSRC = REPOSITORY / "csrc"
STORE = REPOSITORY / "build" / "emulated"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX") or ".so"


class CannotBuild(Exception):
    """No compiler, or it failed; the message holds what it said."""


def ops() -> list[str]:
    """Ops that have CUDA kernels; SEMNR_EMULATED_OPS=ssim,cnr keeps to these while one is being written."""
    found = sorted(p.name.removesuffix("_cuda_bind.cpp") for p in CSRC.glob("*/*_cuda_bind.cpp"))
    only = os.environ.get("SEMNR_EMULATED_OPS")
    return found if only is None else [name for name in found if name in only.split(",")]


def kernels(op: str) -> list[Path]:
    """What makes an op: its kernels (instrumented) and its bindings."""
    return sorted((CSRC / op).glob("*_cuda.cu")) + [CSRC / op / f"{op}_cuda_bind.cpp"]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compiler() -> str:
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        raise CannotBuild("no C++ compiler: install g++")
    return found


def flags(instrumented: bool) -> list[str]:
    import pybind11

    common = ["-std=c++17", "-fPIC", "-g1", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-strict-aliasing"]
    common += ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-pragmas", "-DSEMNR_EMULATED", f"-I{CSRC}"]
    common += [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    if _has_fma():
        common.append("-mfma")
    if not instrumented:
        return [*common, "-O2"]
    # As the source says it: no access is merged with its neighbour, none is made for several lanes at once, none hides
    # in an inlined memcpy.
    plain = ["-O1", "-fno-tree-vectorize", "-fno-store-merging", "-fno-tree-loop-distribute-patterns"]
    plain += ["-fno-builtin-memcpy", "-fno-builtin-memmove", "-fno-builtin-memset"]
    return [*common, *plain, "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0"]


def build(
    names: Sequence[str] | None = None,
    sources: Sequence[Path] = (),
    *,
    store: Path = STORE,
    defines: Sequence[str] = (),
    include: Sequence[Path] = (),
    compiling: bool = True,
) -> Path | None:
    """The emulated module of these ops (None: all) and further sources, compiled where it must be.

    `sources` may hold further kernels (.cu) and bindings (.cpp, `NAME_cuda_bind.cpp`); a source of theirs replaces the
    op's file of the same name, and folders in `include` are searched first. `compiling=False`: None unless it is there.
    """
    own = {p.name: p for name in (ops() if names is None else names) for p in kernels(name)}
    own.update({p.name: p for p in sources})
    bound = sorted(n.removesuffix("_cuda_bind.cpp") for n in own if n.endswith("_cuda_bind.cpp"))
    runtime = [*sorted((CSRC / "emulation").glob("*.cpp")), CSRC / "cuda" / "module.cpp"]
    tell = [*(f"-D{d}" for d in defines), *(f"-I{d}" for d in include)]
    # a process that loads two of them needs two names
    name = "_cuda_emulated_" + _digest([*tell, *map(str, own.values())])
    module = [f"-DSEMNR_MODULE={name}", "-DSEMNR_OPS(X)=" + " ".join(f"X({n})" for n in bound)]
    jobs = [(p, [*tell, *flags(p.suffix == ".cu"), *(module if p.name == "module.cpp" else [])]) for p in runtime]
    jobs += [(p, [*tell, *flags(p.suffix == ".cu")]) for p in own.values()]

    store.mkdir(parents=True, exist_ok=True)
    with _locked(store):
        missing = [job for job in jobs if _object(*job, store) is None]
        if missing and not compiling:
            return None
        if missing:
            cxx = compiler()
            with ThreadPoolExecutor(cores()) as pool:
                list(pool.map(lambda job: _compile(cxx, *job, store), missing))
        objects = [str(_object(*job, store)) for job in jobs]
        target = store / f"{name}-{_digest(objects)}{SUFFIX}"
        if not target.is_file():
            if not compiling:
                return None
            made = store / f"{os.getpid()}{SUFFIX}"
            wrap = "-Wl," + ",".join(f"--wrap={f}" for f in ("memcpy", "memmove", "memset"))
            _run([compiler(), "-shared", "-o", str(made), *objects, wrap, "-Wl,--build-id=none", "-ldl"])
            made.rename(target)
            # another process may be about to load one of the last few
            for old in sorted(store.glob(f"{name}-*"), key=lambda p: p.stat().st_mtime)[:-4]:
                old.unlink()
    return target


def _object(source: Path, arguments: list[str], store: Path) -> Path | None:
    """The kept object of a source, while everything that it includes is what it was."""
    record = store / f"{source.stem}-{_digest([str(source), *arguments])}.json"
    if not record.is_file():
        return None
    kept = json.loads(record.read_text())
    for path, digest in kept["files"].items():
        if not Path(path).is_file() or _content(Path(path)) != digest:
            return None
    found = store / kept["object"]
    return found if found.is_file() else None


def _compile(cxx: str, source: Path, arguments: list[str], store: Path) -> None:
    key = f"{source.stem}-{_digest([str(source), *arguments])}"
    listed, made = store / f"{key}.d", store / f"{key}.o.part"
    _run([cxx, "-x", "c++", *arguments, "-MMD", "-MF", str(listed), "-c", str(source), "-o", str(made)])
    names = listed.read_text().replace("\\\n", " ").split(":", 1)[1]
    files = {p: _content(Path(p)) for p in shlex.split(names) if not p.startswith("/usr/")}
    final = f"{key}-{_digest([*files.values()])}.o"
    for old in store.glob(f"{key}-*.o"):
        old.unlink()
    made.rename(store / final)
    (store / f"{key}.json").write_text(json.dumps({"object": final, "files": files}))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotBuild(f"{shlex.join(command)}\n{done.stderr}")
    if "warning:" in done.stderr:
        print(done.stderr, file=sys.stderr)


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _has_fma() -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    listed = Path("/proc/cpuinfo")
    return listed.is_file() and " fma " in listed.read_text()


@contextmanager
def _locked(store: Path):  # type: ignore[no-untyped-def]
    import fcntl

    with (store / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wanted() -> bool:
    return "cuda-emulated" in os.environ.get("SEMNR_REQUIRE", "").split(",")


def provide() -> None:
    """Hand the module to semnr_kernels: built where SEMNR_REQUIRE names it, else only if it is there already."""
    from semnr_kernels import cuda_support

    if not ops():
        return
    path = build(compiling=wanted())
    if path is not None:
        cuda_support.use_emulated(path)


if __name__ == "__main__":
    print(build(sys.argv[1:] or None))
