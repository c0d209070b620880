"""Builds csrc: one CPU module per instruction set, no torch headers.

An install without a C++ compiler still works: the reference backend does the job, slower, and
`semnr doctor` says what is missing. SEMNR_SANITIZE=1 builds with AddressSanitizer and
UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import os
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

    def build_extension(self, ext) -> None:  # type: ignore[no-untyped-def]
        try:
            super().build_extension(ext)
        except Exception as error:
            self._explain(error)

    def _explain(self, error: Exception) -> None:
        if os.environ.get("SEMNR_SANITIZE"):
            raise error
        print(
            f"semnr: the native CPU kernels were not built ({error}). semnr works without them, slower: "
            "backend 'reference'. Install a C++17 compiler and reinstall to have them.",
            file=sys.stderr,
        )
        self.extensions = []


def flags() -> tuple[list[str], list[str]]:
    if MSVC:
        return ["/O2", "/std:c++17"], []
    compile_args = ["-O3", "-std=c++17", "-fvisibility=hidden", "-Wall", "-Wextra"]
    if os.environ.get("SEMNR_SANITIZE"):
        sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1"]
        return compile_args + sanitize, sanitize
    return compile_args, []


def extensions() -> list:  # type: ignore[type-arg]
    if Pybind11Extension is None:
        return []
    compile_args, link_args = flags()
    sources = ["csrc/module.cpp", *sorted(str(p) for p in CSRC.glob("*/*_cpu.cpp")), *sorted(str(p) for p in CSRC.glob("*/*_bind.cpp"))]
    name = "_cpu_baseline"
    return [
        Pybind11Extension(
            f"semnr_kernels.{name}",
            sources,
            include_dirs=["csrc"],
            define_macros=[("SEMNR_MODULE", name), ("SEMNR_ISA", '"baseline"')],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
    ]


packages = find_packages(include=["semnr_kernels", "semnr_kernels.*"]) + find_packages("python")
setup(packages=packages, ext_modules=extensions(), cmdclass={"build_ext": BuildOrExplain})
