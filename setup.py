"""Builds csrc: one CPU module per instruction set and, where an nvcc is found, one of CUDA kernels; no torch headers.

An install without a C++ compiler still works: the reference backend does the job, slower, and
`semnr doctor` says what is missing. SEMNR_SANITIZE=1 builds with AddressSanitizer and
UndefinedBehaviorSanitizer. SEMNR_CUDA=0 leaves the CUDA kernels out, SEMNR_CUDA=1 insists on them.
"""

from __future__ import annotations

import copy
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import find_packages, setup

try:
    from pybind11.setup_helpers import Pybind11Extension, build_ext
except ImportError:  # an sdist inspected without build isolation
    Pybind11Extension = None
    from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
MSVC = sys.platform == "win32"
CUDA = "semnr_kernels._cuda_kernels"
CHIPS = (80, 90, 100)  # of the CUDA kernels; later ones run them from the last one's PTX


class BuildOrExplain(build_ext):
    """Compile what can be compiled; a failure costs speed, not the install."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # whatever a missing or broken compiler raises
            self._explain(error)
            self.extensions = []

    def build_extension(self, ext) -> None:  # type: ignore[no-untyped-def]
        # The modules share sources, not objects: each instruction set has its own object folder (and its own
        # copy of the command, so that `build --parallel` may build them side by side).
        one = copy.copy(self)
        kind = "sanitized" if os.environ.get("SEMNR_SANITIZE") else "plain"
        one.build_temp = str(Path(self.build_temp) / ext.name / kind)
        try:
            if ext.name == CUDA:
                ext.extra_objects = compile_cuda(Path(one.build_temp))
            super(BuildOrExplain, one).build_extension(ext)
        except Exception as error:
            self._explain(error, ext.name)
            self.extensions = [other for other in self.extensions if other is not ext]

    def _explain(self, error: Exception, what: str | None = None) -> None:
        name = what or "the native kernels"
        if os.environ.get("SEMNR_SANITIZE") or (what in (None, CUDA) and os.environ.get("SEMNR_CUDA") == "1"):
            raise SystemExit(f"{name} not built: {error}") from error  # which no `except Exception` holds back
        print(
            f"semnr: {name} not built ({error}). semnr works without it, slower: what is left of the "
            "native modules, or backend 'reference'. Install a C++17 compiler and reinstall to have it.",
            file=sys.stderr,
        )


def flags() -> tuple[list[str], list[str]]:
    if MSVC:
        return ["/O2", "/std:c++17"], []
    # -ffp-contract=fast: a * b + c is one rounding where the instruction set has it
    compile_args = ["-O3", "-std=c++17", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno"]
    compile_args += ["-pthread", "-Wall", "-Wextra", "-Wno-psabi"]
    link_args = ["-pthread"]
    if os.environ.get("SEMNR_SANITIZE"):
        sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        return [*compile_args, *sanitize, "-g1", "-O1"], [*link_args, *sanitize]
    return compile_args, link_args


def instruction_sets() -> dict[str, list[str]]:
    """Name of each module and the flags beyond the platform's baseline (on aarch64 that is NEON)."""
    wanted = {"baseline": []}
    if not MSVC and platform.machine().lower() in ("x86_64", "amd64"):
        avx2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi2"]
        wanted["avx2"] = avx2
        wanted["avx512"] = [*avx2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
    return wanted


def cpu_extensions() -> list:  # type: ignore[type-arg]
    compile_args, link_args = flags()
    sources = ["csrc/module.cpp", "csrc/pool.cpp"]
    found = (p for pattern in ("*/*_cpu.cpp", "*/*_bind.cpp") for p in CSRC.glob(pattern))
    sources += sorted(str(p) for p in found if not p.name.endswith("_cuda_bind.cpp") and p.parent.name != "emulation")
    return [
        Pybind11Extension(
            f"semnr_kernels._cpu_{isa}",
            sources,
            depends=sorted(str(p) for p in CSRC.rglob("*.hpp") if p.parent.name not in ("cuda", "emulation")),
            include_dirs=["csrc"],
            define_macros=[("SEMNR_MODULE", f"_cpu_{isa}"), ("SEMNR_ISA", f'"{isa}"')],
            extra_compile_args=[*compile_args, *isa_args],
            extra_link_args=link_args,
        )
        for isa, isa_args in instruction_sets().items()
    ]


# --- CUDA -----------------------------------------------------------------------------------------------------


def nvcc() -> str | None:
    """The CUDA compiler to use, None where CUDA is unwanted or absent."""
    wanted = os.environ.get("SEMNR_CUDA", "")
    if wanted not in ("", "0", "1"):
        raise SystemExit(f"SEMNR_CUDA is {wanted!r}; accepted: 0, 1 or unset")
    if wanted == "0":
        return None
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    found = shutil.which("nvcc", path=os.pathsep.join([*(f"{home}/bin" for home in homes), os.environ.get("PATH", "")]))
    if wanted == "1" and (found is None or MSVC):
        raise SystemExit("SEMNR_CUDA=1, but no nvcc is on the PATH or in CUDA_HOME/bin (Windows never)")
    return None if MSVC or os.environ.get("SEMNR_SANITIZE") else found


def ask(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def nvcc_version(compiler: str) -> str:
    found = re.search(r"V([\d.]+)", ask(compiler, "--version"))
    return found[1] if found else "0"


def chips(compiler: str) -> list[int]:
    known = ask(compiler, "--list-gpu-code")
    return [chip for chip in CHIPS if re.search(rf"\bsm_{chip}\b", known)]


def compile_cuda(folder: Path) -> list[str]:
    """Objects of every *_cuda.cu, several at a time; one that is newer than all that it includes is kept."""
    compiler = str(nvcc())
    targets = chips(compiler)
    if not targets:
        raise RuntimeError(f"{compiler} knows none of sm_{', sm_'.join(map(str, CHIPS))}")
    options = [f"-gencode=arch=compute_{chip},code=sm_{chip}" for chip in targets]
    options.append(f"-gencode=arch=compute_{targets[-1]},code=compute_{targets[-1]}")
    if int(nvcc_version(compiler).partition(".")[0]) >= 13:
        options.append("--compress-mode=size")  # a fifth of the size
    if os.environ.get("CXX"):
        options += ["-ccbin", os.environ["CXX"].split()[0]]
    folder.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> str:
        made, listed, asked = (folder / f"{source.stem}.{end}" for end in ("o", "d", "command"))
        command = [compiler, "-std=c++17", "-O3", "-Icsrc", "-Xcompiler=-fPIC,-fvisibility=hidden", *options]
        command += ["-MD", "-MF", str(listed), "-c", str(source), "-o", str(made)]
        if is_fresh(made, listed) and asked.is_file() and asked.read_text() == shlex.join(command):
            return str(made)
        made.unlink(missing_ok=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}\n{done.stderr.strip()}")
        asked.write_text(shlex.join(command))
        return str(made)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(compile_one, sorted(CSRC.glob("*/*_cuda.cu"))))


def is_fresh(made: Path, listed: Path) -> bool:
    """Whether an object is newer than every file that the compiler listed for it."""
    if not (made.is_file() and listed.is_file()):
        return False
    names = listed.read_text().replace("\\\n", " ").split(":", 1)[-1].split()
    files = [Path(name) for name in names]
    return all(file.is_file() and file.stat().st_mtime < made.stat().st_mtime for file in files)


def cuda_extensions() -> list:  # type: ignore[type-arg]
    bindings = sorted(CSRC.glob("*/*_cuda_bind.cpp"))
    compiler = nvcc()
    if compiler is None or not bindings:
        return []
    # nvcc knows where its headers and libraries lie, also where a wrapper script is what is on the PATH
    plan = ask(compiler, "--dryrun", "plan.cu")
    listed = {name: re.search(rf"^#\$ {name}=(.*)$", plan, re.M) for name in ("INCLUDES", "LIBRARIES")}
    search = [word for match in listed.values() if match for word in shlex.split(match[1])]
    ops = " ".join(f"X({p.name.removesuffix('_cuda_bind.cpp')})" for p in bindings)
    return [
        Pybind11Extension(
            CUDA,
            ["csrc/cuda/module.cpp", *map(str, bindings)],
            depends=sorted(str(p) for pattern in ("*.hpp", "*.cuh", "*.cu") for p in CSRC.rglob(pattern)),
            include_dirs=["csrc", *(word[2:] for word in search if word.startswith("-I"))],
            define_macros=[
                ("SEMNR_MODULE", CUDA.rpartition(".")[2]),
                ("SEMNR_OPS(X)", ops),
                ("SEMNR_NVCC", f'"{nvcc_version(compiler)}"'),
                ("SEMNR_ARCHITECTURES", f"std::vector<int>{{{', '.join(map(str, chips(compiler)))}}}"),
            ],
            extra_compile_args=["-O2", "-std=c++17", "-fvisibility=hidden"],
            extra_link_args=[
                *(word for word in search if word.startswith("-L")),
                *("-lcudart_static", "-ldl", "-lrt", "-lpthread"),
            ],
        )
    ]


packages = find_packages(include=["semnr_kernels", "semnr_kernels.*"]) + find_packages("python")
modules = [] if Pybind11Extension is None else [*cpu_extensions(), *cuda_extensions()]
setup(packages=packages, ext_modules=modules, cmdclass={"build_ext": BuildOrExplain})
