"""Builds csrc: one CPU module per instruction set, no torch headers.

An install without a C++ compiler still works: the reference backend does the job, slower, and
`semnr doctor` says what is missing. SEMNR_SANITIZE=1 builds with AddressSanitizer and
UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import copy
import os
import platform
import sys
from pathlib import Path

from setuptools import find_packages, setup

try:
    from pybind11.setup_helpers import Pybind11Extension, build_ext
except ImportError:  # an sdist inspected without build isolation
    Pybind11Extension = None
    from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
MSVC = sys.platform == "win32"


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
            super(BuildOrExplain, one).build_extension(ext)
        except Exception as error:
            self._explain(error, ext.name)
            self.extensions = [other for other in self.extensions if other is not ext]

    def _explain(self, error: Exception, what: str = "the native CPU kernels") -> None:
        if os.environ.get("SEMNR_SANITIZE"):
            raise error
        print(
            f"semnr: {what} not built ({error}). semnr works without it, slower: what is left of the "
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


def extensions() -> list:  # type: ignore[type-arg]
    if Pybind11Extension is None:
        return []
    compile_args, link_args = flags()
    sources = ["csrc/module.cpp", "csrc/pool.cpp"]
    sources += sorted(str(p) for pattern in ("*/*_cpu.cpp", "*/*_bind.cpp") for p in CSRC.glob(pattern))
    return [
        Pybind11Extension(
            f"semnr_kernels._cpu_{isa}",
            sources,
            depends=sorted(str(p) for p in CSRC.rglob("*.hpp")),
            include_dirs=["csrc"],
            define_macros=[("SEMNR_MODULE", f"_cpu_{isa}"), ("SEMNR_ISA", f'"{isa}"')],
            extra_compile_args=[*compile_args, *isa_args],
            extra_link_args=link_args,
        )
        for isa, isa_args in instruction_sets().items()
    ]


packages = find_packages(include=["semnr_kernels", "semnr_kernels.*"]) + find_packages("python")
setup(packages=packages, ext_modules=extensions(), cmdclass={"build_ext": BuildOrExplain})
