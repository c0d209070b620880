"""The build: what a compiler that lacks something costs, what is compiled again, and what is compiled for which CPU.

A shell script stands for the compiler: it writes down what it was asked for and makes empty objects.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import cases

FAKE_COMPILER = """#!/bin/sh
all="$*"
while [ $# -gt 0 ]; do
  case "$1" in
    -o) made=$2 ;;
    -MF) listed=$2 ;;
    *.cpp) source=$1 ;;
  esac
  shift
done
echo "$all" >>"$LOG"
name=$(basename "${source:-link}")
%s
: >"$made"
if [ -n "$listed" ]; then echo "$made: $source csrc/simd.hpp" >"$listed"; fi
"""


class Tree:
    """A copy of what setup.py reads, built by a fake compiler."""

    def __init__(self, folder: Path) -> None:
        if not (cases.REPOSITORY / "setup.py").is_file():
            pytest.skip("the source tree is absent")
        self.folder, self.log = folder, folder / "asked.txt"
        shutil.copytree(cases.REPOSITORY / "csrc", folder / "csrc")
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"):
            shutil.copy2(cases.REPOSITORY / name, folder / name)

    def build(self, behaviour: str = "", *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        compiler = self.folder / "fake-c++"
        compiler.write_text(FAKE_COMPILER % behaviour)
        compiler.chmod(stat.S_IRWXU)
        self.log.write_text("")
        tools = {name: str(compiler) for name in ("CC", "CXX")}
        tools |= {name: f"{compiler} -shared" for name in ("LDSHARED", "LDCXXSHARED")}
        ours = ("SEMNR_CUDA", "SEMNR_SANITIZE", "SEMNR_ISA", "CFLAGS", "CXXFLAGS")
        plain = {k: v for k, v in os.environ.items() if k not in ours}
        return subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", *arguments],
            cwd=self.folder,
            env={**plain, **tools, "LOG": str(self.log), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def asked(self) -> list[list[str]]:
        return [shlex.split(line) for line in self.log.read_text().splitlines()]

    def compiled(self) -> list[str]:
        return sorted(word for command in self.asked() for word in command if word.endswith(".cpp"))

    def modules(self) -> set[str]:
        return {p.name.split(".")[0].removeprefix("_cpu_") for p in self.folder.glob("build/lib*/**/_cpu_*")}


ALL = {"baseline", "avx2", "avx512"}
on_x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="instruction sets of x86-64")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_without_a_compiler_the_build_succeeds_and_says_what_is_lost(tree: Tree) -> None:
    done = tree.build(CC="/nonexistent/cc", CXX="/nonexistent/c++")
    assert done.returncode == 0, done.stderr
    assert "semnr_kernels._cpu_baseline" in done.stderr
    assert "not built" in done.stderr
    assert "backend 'reference'" in done.stderr
    assert tree.modules() == set()


def test_a_sanitizer_build_does_not_hide_a_failing_compiler(tree: Tree) -> None:
    done = tree.build(CC="/nonexistent/cc", CXX="/nonexistent/c++", SEMNR_SANITIZE="1")
    assert done.returncode != 0


@on_x86
def test_the_instruction_sets_that_are_asked_for_are_built_and_others_are_refused(tree: Tree) -> None:
    assert tree.build(SEMNR_ISA="avx2").returncode == 0
    assert tree.modules() == {"avx2"}
    done = tree.build(SEMNR_ISA="avx2,mmx")
    assert done.returncode != 0
    assert "SEMNR_ISA names mmx; accepted here: baseline, avx2, avx512" in done.stderr


@on_x86
def test_a_compiler_that_lacks_an_instruction_set_costs_that_module_alone(tree: Tree) -> None:
    done = tree.build('case "$all" in *-mavx512f*) echo "unrecognized option -mavx512f" >&2; exit 1 ;; esac')
    assert done.returncode == 0, done.stderr
    assert tree.modules() == {"baseline", "avx2"}
    assert "semnr_kernels._cpu_avx512 not built" in done.stderr
    assert "unrecognized option -mavx512f" in done.stderr
    assert "_cpu_avx2 " not in done.stderr


@on_x86
def test_a_compiler_that_fails_on_one_file_costs_the_module_that_needs_it_and_is_not_asked_for_its_rest(
    tree: Tree,
) -> None:
    done = tree.build(
        'case "$all" in *-mavx512f*) ;; *-mavx2*ssim_cpu*) echo "internal compiler error" >&2; exit 1 ;; esac',
        "--parallel=1",
    )
    assert done.returncode == 0, done.stderr
    assert tree.modules() == {"baseline", "avx512"}
    assert "semnr_kernels._cpu_avx2 not built (csrc/ssim/ssim_cpu.cpp: " in done.stderr
    assert "internal compiler error" in done.stderr
    assert tree.compiled().count("csrc/ssim/ssim_cpu.cpp") == 3
    kernels = [name for name in tree.compiled() if name.endswith("_cpu.cpp")]
    assert len(kernels) < 3 * len(set(kernels))


def test_a_file_that_all_modules_need_costs_all_and_is_named_once(tree: Tree) -> None:
    done = tree.build('case "$name" in pool.cpp) echo "no space left" >&2; exit 1 ;; esac')
    assert done.returncode == 0, done.stderr
    assert tree.modules() == set()
    assert done.stderr.count("csrc/pool.cpp: ") == 1


KILLED = 'echo "fatal error: Killed signal terminated program cc1plus" >&2; exit 1'


def test_what_ran_out_of_memory_beside_others_is_compiled_again_alone(tree: Tree) -> None:
    once = f'if [ "$name" = ssim_cpu.cpp ] && mkdir "$LOG.once" 2>/dev/null; then {KILLED}; fi'
    done = tree.build(once, "--parallel=1")
    assert done.returncode == 0, done.stderr
    assert "not built" not in done.stderr, done.stderr[-1500:]
    assert "baseline" in tree.modules()
    assert [command for command in tree.asked() if "-c" in command][-1].count("csrc/ssim/ssim_cpu.cpp") == 1


@on_x86
def test_what_runs_out_of_memory_alone_too_costs_its_module_and_the_others_are_built(tree: Tree) -> None:
    done = tree.build(f'case "$all" in *-mavx512f*steps_cpu*) {KILLED} ;; esac')
    assert done.returncode == 0, done.stderr
    assert tree.modules() == {"baseline", "avx2"}
    assert "semnr_kernels._cpu_avx512 not built (csrc/fsim/steps_cpu.cpp: " in done.stderr


def test_a_second_build_without_changes_compiles_and_links_nothing(tree: Tree) -> None:
    tree.build()
    assert tree.compiled()
    done = tree.build()
    assert done.returncode == 0, done.stderr
    assert tree.asked() == []


def test_a_changed_source_alone_is_compiled_again_whatever_its_date(tree: Tree) -> None:
    tree.build()
    source = tree.folder / "csrc" / "ssim" / "ssim_cpu.cpp"
    before = source.stat()
    source.write_text(source.read_text() + "\n")
    os.utime(source, (before.st_atime, before.st_mtime))
    tree.build()
    assert set(tree.compiled()) == {"csrc/ssim/ssim_cpu.cpp"}


def test_a_changed_header_compiles_what_includes_it(tree: Tree) -> None:
    tree.build()
    header = tree.folder / "csrc" / "simd.hpp"
    header.write_text(header.read_text() + "\n")
    tree.build()
    assert "csrc/ssim/ssim_cpu.cpp" in tree.compiled()


def test_other_flags_compile_all_again(tree: Tree) -> None:
    tree.build()
    everything = tree.compiled()
    tree.build(CXXFLAGS="-O1")
    assert tree.compiled() == everything


def test_an_interrupted_object_is_compiled_again(tree: Tree) -> None:
    tree.build('case "$name" in ssim_cpu.cpp) : >"$made"; exit 1 ;; esac')
    tree.build()
    assert "csrc/ssim/ssim_cpu.cpp" in tree.compiled()
    assert "baseline" in tree.modules()


def test_as_many_compilers_run_at_once_as_are_asked_for(tree: Tree) -> None:
    # each of the first two waits for the other
    meet = """mkdir -p "$LOG.here"; : >"$LOG.here/$$"; tries=0
until [ "$(ls "$LOG.here" | wc -l)" -ge 2 ]; do
  tries=$((tries + 1)); [ $tries -lt 600 ] || { echo "alone" >&2; exit 1; }; sleep 0.05
done"""
    done = tree.build(meet, "--parallel=2")
    assert "alone" not in done.stderr
    assert "baseline" in tree.modules()


@on_x86
def test_what_python_sees_is_compiled_once_and_wide_vectors_stay_in_their_own_module(tree: Tree) -> None:
    tree.build()
    assert tree.modules() == ALL
    objects = [c for c in tree.asked() if "-c" in c]
    wide = {c[c.index("-o") + 1] for c in objects if any(word.startswith("-mavx") for word in c)}
    links = [c for c in tree.asked() if "-shared" in c and "_cpu_" in c[c.index("-o") + 1]]
    assert tree.compiled().count("csrc/module.cpp") == 1
    assert len(links) == 3
    for command in links:
        own = next(isa for isa in ALL if f"_cpu_{isa}." in command[command.index("-o") + 1])
        used = {Path(word).parts[-3] for word in command if word.endswith(".o") and any(w.endswith(word) for w in wide)}
        assert used == (set() if own == "baseline" else {own})
