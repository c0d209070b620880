"""Builds csrc: one CPU module per instruction set and, where SEMNR_CUDA=1 asks, one of CUDA kernels; no torch headers.

Objects are compiled as many at a time as there are cores (`build_ext --parallel N`: N), and kept in build/ with what
they were made from: a second build compiles what has changed. An install without a C++ compiler still works: the
reference backend does the job, slower, and `semnr doctor` says what is missing. A compiler that fails costs the modules
that need what it failed on. SEMNR_CUDA=1 compiles the CUDA kernels and insists on them: nvcc takes minutes, so having
one on the PATH asks for nothing. SEMNR_CUDA_ARCHS=75,90 names their chips (default: 80,90,100). On Linux the launches
are compiled without nvcc too, and NVRTC makes their kernels at run time (semnr_kernels/nvrtc.py). SEMNR_SANITIZE=1
builds with AddressSanitizer and UndefinedBehaviorSanitizer.
SEMNR_ISA=avx2 builds the modules of the instruction sets that it lists, separated by commas, and no other.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

try:
    import pybind11
except ImportError:  # an sdist inspected without build isolation
    pybind11 = None  # type: ignore[assignment]

CSRC = Path("csrc")
MSVC = sys.platform == "win32"
CUDA = "semnr_kernels._cuda_kernels"
HOSTED = "semnr_kernels._cuda_hosted"
CHIPS = (80, 90, 100)  # of the CUDA kernels unless SEMNR_CUDA_ARCHS names others; later ones run the last one's PTX
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Part:
    """One object: a source, and the folder and arguments that it shares with its like."""

    source: str
    folder: str
    arguments: tuple[str, ...]


class Module(Extension):
    """An extension module of parts, some of which others have too."""

    def __init__(self, name: str, parts: list[Part], link: Iterable[str]) -> None:
        depends = sorted(str(p) for p in CSRC.rglob("*") if p.suffix in (".hpp", ".cuh", ".cpp", ".cu"))
        super().__init__(name, [part.source for part in parts], depends=depends, language="c++")
        self.parts, self.link = parts, list(link)


class Broken(Exception):
    """An object was not made; the message names its source and holds what the compiler said."""


class BuildOrExplain(build_ext):
    """Compile what can be compiled, on all cores; a failure costs speed, not the install."""

    def build_extensions(self) -> None:
        write_bindings(Path(self.build_temp))
        write_sources(Path(self.build_temp))
        made = self._objects(self.extensions)
        lost: dict[str, list[str]] = {}  # the reason: the modules
        for module in list(self.extensions):
            try:
                self._link(module, [made[part] for part in module.parts])
            except Exception as error:  # whatever a missing or broken compiler raises
                lost.setdefault(str(error), []).append(module.name)
                self.extensions = [other for other in self.extensions if other is not module]
        for reason, names in lost.items():
            explain(names, reason)

    def _objects(self, modules: list[Module]) -> dict[Part, Path | Exception]:
        """Every module's objects, or why there is none. A part that all its modules do without is not tried."""
        users: dict[Part, list[Module]] = {}
        for module in modules:
            for part in module.parts:
                users.setdefault(part, []).append(module)
        broken: set[str] = set()

        def make(part: Part) -> Path | Exception:
            if all(module.name in broken for module in users[part]):
                return Broken(f"{part.source}: not tried")
            try:
                return self._object(part)
            except Exception as error:
                if not short_of_memory(error):
                    broken.update(module.name for module in users[part])
                return error

        # what several modules need takes longest, then what is long
        parts = sorted(users, key=lambda part: (-len(users[part]), -Path(part.source).stat().st_size))
        with ThreadPoolExecutor(self.parallel or CORES) as pool:
            made = dict(zip(parts, pool.map(make, parts), strict=True))
        for part, found in made.items():  # once more, alone
            if isinstance(found, Exception) and short_of_memory(found):
                made[part] = make(part)
        return made

    def _object(self, part: Part) -> Path:
        folder = Path(self.build_temp, part.folder)
        target = folder / f"{Path(part.source).stem}{'.obj' if MSVC else '.o'}"
        record = Path(f"{target}.json")
        listed = Path(f"{target}.d")
        if not self.force and target.is_file() and kept(record) == digest(part.arguments, sources(listed)):
            return target
        record.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        try:
            if MSVC:
                (found,) = self.compiler.compile(
                    [part.source],
                    output_dir=str(folder),
                    include_dirs=["csrc", self.build_temp],
                    extra_postargs=[*headers(), *part.arguments],
                )
                Path(found).replace(target)
            else:
                run([*self._compiler(part), "-MMD", "-MF", str(listed), "-c", part.source, "-o", str(target)])
        except Exception as error:
            raise Broken(f"{part.source}: {error}") from error
        seconds = round(time.perf_counter() - begun, 2)
        made_of = digest(part.arguments, sources(listed))
        kept_as = {"source": part.source, "folder": part.folder, "seconds": seconds, "made_of": made_of}
        record.write_text(json.dumps(kept_as))
        return target

    def _compiler(self, part: Part) -> list[str]:
        if part.source.endswith(".cu") and "-DSEMNR_HOSTED" not in part.arguments:
            return [str(nvcc()), *part.arguments]
        include = [f"-I{folder}" for folder in ("csrc", self.build_temp, *dict.fromkeys(self.compiler.include_dirs))]
        language = ["-x", "c++"] if part.source.endswith(".cu") else []
        return [*self.compiler.compiler_so_cxx, *include, *headers(), *part.arguments, *language]

    def _link(self, module: Module, objects: list[Path | Exception]) -> None:
        reasons = [found for found in objects if isinstance(found, Exception)]
        if reasons:
            raise next((r for r in reasons if "not tried" not in str(r)), reasons[0])
        target = Path(self.get_ext_fullpath(module.name))
        record = Path(self.build_temp, f"{module.name}.json")
        made_of = digest(tuple(module.link), objects)
        if not self.force and target.is_file() and kept(record) == made_of:
            return
        self.compiler.link_shared_object(
            [str(found) for found in objects],
            str(target),
            library_dirs=self.library_dirs,
            export_symbols=self.get_export_symbols(module),
            extra_postargs=module.link,
            build_temp=self.build_temp,
            target_lang="c++",
        )
        record.write_text(json.dumps({"made_of": made_of}))


def explain(names: list[str], reason: str) -> None:
    if os.environ.get("SEMNR_SANITIZE") or CUDA in names:  # which are built on request only
        raise SystemExit(f"{', '.join(names)} not built: {reason}")
    print(
        f"semnr: {', '.join(names)} not built ({reason}). semnr works without, slower: what is left of the "
        "native modules, or backend 'reference'. Install a C++17 compiler and reinstall to have all.",
        file=sys.stderr,
    )


# --- one object -----------------------------------------------------------------------------------------------


def run(command: list[str]) -> None:
    """Runs a compiler; what it says is shown in one piece, or is the error's message."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        said = done.stdout.strip() or f"exit status {done.returncode}"
        raise Broken(f"{shlex.join(command)}\n{said}")
    print(done.stdout, end="", file=sys.stderr)


def short_of_memory(error: Exception) -> bool:
    return re.search(r"Killed|out of memory|memory exhausted|Cannot allocate", str(error)) is not None


def sources(listed: Path) -> list[Path]:
    """The project's files that an object was made from, as the compiler lists them; without a list all there are."""
    if not listed.is_file():
        return sorted(p for p in CSRC.rglob("*") if p.is_file())
    names = listed.read_text().replace("\\\n", " ").split(":", 1)[-1].split()
    return [Path(name) for name in names]


def digest(arguments: tuple[str, ...], files: list[Path]) -> str:
    compilers = [os.environ.get(name, "") for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS")]
    said = json.dumps([arguments, compilers, sys.version, getattr(pybind11, "__version__", None)])
    total = hashlib.sha256(said.encode())
    for file in files:
        total.update(file.read_bytes() if file.is_file() else b"absent")
    return total.hexdigest()


def kept(record: Path) -> str | None:
    try:
        return json.loads(record.read_text())["made_of"]
    except (OSError, ValueError, KeyError):
        return None


# --- CPU ------------------------------------------------------------------------------------------------------


def headers() -> list[str]:
    """pybind11's, as a system's: its folder is a new one in each isolated build, and no warning of ours."""
    folder = pybind11.get_include()
    return [f"/I{folder}"] if MSVC else ["-isystem", folder]


def flags() -> tuple[list[str], list[str]]:
    if MSVC:
        return ["/O2", "/std:c++17", "/EHsc", "/bigobj"], []
    # -ffp-contract=fast: a * b + c is one rounding where the instruction set has it
    compile_args = ["-O3", "-std=c++17", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno"]
    compile_args += ["-pthread", "-Wall", "-Wextra", "-Wno-psabi"]
    if "-g" not in os.environ.get("CFLAGS", ""):
        compile_args.append("-g0")
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
    chosen = [name for name in os.environ.get("SEMNR_ISA", "").split(",") if name]
    if unknown := [name for name in chosen if name not in wanted]:
        raise SystemExit(f"SEMNR_ISA names {', '.join(unknown)}; accepted here: {', '.join(wanted)}")
    return {name: arguments for name, arguments in wanted.items() if name in chosen or not chosen}


def write_bindings(folder: Path) -> None:
    """`bindings.hpp`, which csrc/module.cpp includes: the bindings of every op that has some, found by their names."""
    names = sorted(p.name.removesuffix("_bind.cpp") for p in CSRC.glob("*/*_bind.cpp"))
    names = [name for name in names if not name.endswith("_cuda") and name != "emulation"]
    lines = [f'#include "{name}/{name}_bind.cpp"' for name in names]
    calls = [f"  {name}_bindings::bind(m);" for name in names]
    lines += ["namespace semnr {", "inline void bind_ops(py::module_& m) {", *calls, "}", "}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bindings.hpp").write_text("\n".join(lines) + "\n")


def cpu_modules() -> list[Module]:
    """Kernels are compiled for each instruction set, whatever else there is once, without its flags.

    Code for wide vectors stays in the modules of its own set: only baseline code is in several.
    """
    compile_args, link_args = flags()
    common = [Part(str(CSRC / name), "common", tuple(compile_args)) for name in ("module.cpp", "pool.cpp")]
    kernels = sorted(p for p in CSRC.glob("*/*_cpu.cpp") if p.parent.name != "emulation")
    return [
        Module(
            f"semnr_kernels._cpu_{isa}",
            [*common, *(Part(str(p), f"{isa}/{p.parent.name}", (*compile_args, *isa_args)) for p in kernels)],
            link_args,
        )
        for isa, isa_args in instruction_sets().items()
    ]


# --- CUDA -----------------------------------------------------------------------------------------------------


def nvcc() -> str | None:
    """The CUDA compiler to use, None where CUDA is not asked for."""
    wanted = os.environ.get("SEMNR_CUDA", "")
    if wanted not in ("", "0", "1"):
        raise SystemExit(f"SEMNR_CUDA is {wanted!r}; accepted: 1 (build the CUDA kernels), 0 or unset (do not)")
    if wanted != "1" or os.environ.get("SEMNR_SANITIZE"):
        return None
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    found = shutil.which("nvcc", path=os.pathsep.join([*(f"{home}/bin" for home in homes), os.environ.get("PATH", "")]))
    if found is None or MSVC:
        raise SystemExit("SEMNR_CUDA=1, but no nvcc is on the PATH or in CUDA_HOME/bin (Windows never)")
    return found


def ask(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def nvcc_version(compiler: str) -> str:
    found = re.search(r"V([\d.]+)", ask(compiler, "--version"))
    return found[1] if found else "0"


def chips(compiler: str) -> list[int]:
    """Those that are asked for, in order: SEMNR_CUDA_ARCHS, or of CHIPS what the compiler knows."""
    known = ask(compiler, "--list-gpu-code")
    asked = [
        part.strip() for part in os.environ.get("SEMNR_CUDA_ARCHS", "").replace(";", ",").split(",") if part.strip()
    ]
    numbers = [part.removeprefix("sm_").replace(".", "") for part in asked]  # sm_90, 90 and 9.0 are the same chip
    if odd := [part for part, number in zip(asked, numbers, strict=True) if not number.isdigit()]:
        raise SystemExit(f"SEMNR_CUDA_ARCHS names {', '.join(odd)}; accepted: numbers of chips such as 75,80,90")
    wanted = sorted(set(map(int, numbers))) or list(CHIPS)
    found = [chip for chip in wanted if re.search(rf"\bsm_{chip}\b", known)]
    if not found or (asked and found != wanted):
        unknown = ", ".join(f"sm_{chip}" for chip in wanted if chip not in found)
        raise SystemExit(f"SEMNR_CUDA=1, but {compiler} does not know {unknown}: accepted are those that it lists")
    return found


def nvcc_flags(compiler: str, version: str, targets: list[int]) -> tuple[str, ...]:
    options = [f"-gencode=arch=compute_{chip},code=sm_{chip}" for chip in targets]
    options.append(f"-gencode=arch=compute_{targets[-1]},code=compute_{targets[-1]}")
    if int(version.partition(".")[0]) >= 13:
        options.append("--compress-mode=size")  # a fifth of the size
    if os.environ.get("CXX"):
        options += ["-ccbin", os.environ["CXX"].split()[0]]
    return ("-std=c++17", "-O3", "-Icsrc", "-Xcompiler=-fPIC,-fvisibility=hidden", *options)


def cuda_modules() -> list[Module]:
    bindings = sorted(CSRC.glob("*/*_cuda_bind.cpp"))
    compiler = nvcc()
    if compiler is None or not bindings:
        return []
    # nvcc knows where its headers and libraries lie, also where a wrapper script is what is on the PATH
    plan = ask(compiler, "--dryrun", "plan.cu")
    listed = {name: re.search(rf"^#\$ {name}=(.*)$", plan, re.M) for name in ("INCLUDES", "LIBRARIES")}
    search = [word for match in listed.values() if match for word in shlex.split(match[1])]
    ops = " ".join(f"X({p.name.removesuffix('_cuda_bind.cpp')})" for p in bindings)
    version, targets = nvcc_version(compiler), chips(compiler)
    told = [
        f"-DSEMNR_MODULE={CUDA.rpartition('.')[2]}",
        f"-DSEMNR_OPS(X)={ops}",
        f'-DSEMNR_NVCC="{version}"',
        f"-DSEMNR_ARCHITECTURES=std::vector<int>{{{', '.join(map(str, targets))}}}",
        *(word for word in search if word.startswith("-I")),
    ]
    host = ("-O2", "-std=c++17", "-fvisibility=hidden", *told)
    device = nvcc_flags(compiler, version, targets)
    parts = [Part(str(p), "cuda", device) for p in sorted(CSRC.glob("*/*_cuda.cu"))]
    parts += [Part(str(p), "cuda", host) for p in (CSRC / "cuda" / "module.cpp", *bindings)]
    libraries = [*(word for word in search if word.startswith("-L")), "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
    return [Module(CUDA, parts, libraries)]


# --- CUDA without nvcc ----------------------------------------------------------------------------------------


def flattened(path: Path, seen: set[Path]) -> str:
    """A header with all that it includes of the project's, each once; the compiler's own headers are rtc.hpp's."""
    lines = []
    for line in path.read_text().splitlines():
        if re.match(r"#pragma once|#include <", line):
            continue
        match = re.match(r'#include "(.+)"', line)
        if match is None:
            lines.append(line)
            continue
        found = next(p.resolve() for p in (path.parent / match[1], CSRC / match[1]) if p.is_file())
        if "emulation" not in found.parts and found.name not in ("launch.hpp", "hosted.hpp") and found not in seen:
            seen.add(found)
            lines.append(flattened(found, seen))
    return "\n".join(lines)


def write_sources(folder: Path) -> None:
    """`sources.hpp`, which csrc/cuda/module.cpp includes: what NVRTC compiles, by the .cu that launches it."""
    entries = []
    for path in sorted(CSRC.glob("*/*_cuda.cu")):
        names = [name for name in re.findall(r'#include "(.+\.cuh)"', path.read_text()) if "_launch." not in name]
        seen: set[Path] = set()
        parts = [flattened(CSRC / "cuda" / "rtc.hpp", seen)]
        for name in names:
            header = (path.parent / name).resolve()
            if header not in seen:
                seen.add(header)
                parts.append(flattened(header, seen))
        text = "\n".join(parts)
        # compilers may limit the length of one literal
        pieces = [text[k : k + 8000] for k in range(0, len(text), 8000)]
        entries.append(f'{{"{path.name}", ' + "\n".join(f'R"semnr({piece})semnr"' for piece in pieces) + "},")
    lines = ["struct Source { const char *name, *text; };", "inline constexpr Source kSources[] = {", *entries, "};"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sources.hpp").write_text("\n".join(lines) + "\n")


def hosted_modules() -> list[Module]:
    """The launches of the CUDA kernels, compiled for the host; nothing in it needs CUDA to build or to load."""
    if not sys.platform.startswith("linux") or os.environ.get("SEMNR_SANITIZE"):
        return []
    bindings = sorted(CSRC.glob("*/*_cuda_bind.cpp"))
    ops = " ".join(f"X({p.name.removesuffix('_cuda_bind.cpp')})" for p in bindings)
    told = [
        "-DSEMNR_HOSTED",
        f"-DSEMNR_MODULE={HOSTED.rpartition('.')[2]}",
        f"-DSEMNR_OPS(X)={ops}",
        "-Wno-unknown-pragmas",
    ]
    arguments = ("-O1", "-std=c++17", "-fvisibility=hidden", "-g0", "-pthread", *told)
    sources = [*sorted(CSRC.glob("*/*_cuda.cu")), CSRC / "cuda" / "module.cpp", *bindings]
    return [Module(HOSTED, [Part(str(p), "hosted", arguments) for p in sources], ["-pthread"])]


if __name__ == "__main__":
    packages = find_packages(include=["semnr_kernels", "semnr_kernels.*"]) + find_packages("python")
    modules = [] if pybind11 is None else [*cpu_modules(), *cuda_modules(), *hosted_modules()]
    setup(packages=packages, ext_modules=modules, cmdclass={"build_ext": BuildOrExplain})
