"""Ahead-of-time table: kernel × chip, compiled without a GPU. Nothing in it was run.

`python benchmarks/static/aot_table.py` writes results/aot.json and prints the table; `--check` compiles and compares
with the recorded one where the compilers are the recorded versions, and holds "compiles, no spill" for all others.

Triton's kernels are compiled here; the CUDA kernels are read from the compiled module, where the installation has one.
Occupancy is theoretical (chips.py). Instructions are those of the hot loop as disassembly.py defines it, `pixels` what
a thread takes in one pass of it: a program's pixels over its threads for Triton; for CUDA what cuda_cases.py states,
or the bytes that the loop loads over the bytes of a pixel in both images.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import chips
import disassembly
import records

OPS = tuple(sorted(p.parent.name for p in Path(__file__).parents[2].glob("semnr_kernels/*/triton_kernel.py")))
RESULTS = Path(__file__).parents[1] / "results" / "aot.json"
WORKERS = 2
STORE = Path(__file__).parents[2] / "build" / "aot"
_COMPILING = threading.Lock()


def build(ops: tuple[str, ...] = OPS, targets: tuple[str, ...] | None = None) -> dict:
    """Every launch that the ops name, for every target, and the CUDA kernels of the compiled module."""
    from semnr_kernels import triton_support

    cases = [case for op in ops for case in importlib.import_module(f"semnr_kernels.{op}.triton_kernel").launches()]
    if ops == OPS:
        cases += importlib.import_module("semnr_kernels.planes_triton").launches()
    jobs = [(name, made, target) for name, made in cases for target in targets or triton_support.TARGETS]
    with ThreadPoolExecutor(WORKERS) as pool:  # the compiler holds the interpreter, the tools do not
        kernels = list(pool.map(lambda job: _triton_row(*job), jobs))
    version, cuda = _cuda_rows()
    return {"versions": {**triton_support.versions(), "nvcc": version}, "kernels": kernels + cuda}


# --- Triton ---------------------------------------------------------------------------------------------------


def _triton_row(name: str, made: Any, target: str) -> dict:
    """Kept below build/ by what it is made from, so that what did not change is not compiled and taken apart again."""
    kept = STORE / f"{_made_of(name, made, target)}.json"
    if kept.is_file():
        return {**json.loads(kept.read_text()), "kernel": name}
    row = _compiled_row(name, made, target)
    STORE.mkdir(parents=True, exist_ok=True)
    new = kept.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    new.write_text(json.dumps(row))
    new.replace(kept)
    return row


def _made_of(name: str, made: Any, target: str) -> str:
    """Digest of a kernel's source with all that it calls, its types and constants, the chip, compilers and tools."""
    from semnr_kernels import triton_support

    source = triton_support.source_of(made)
    tools = [Path(str(m.__file__)).read_text() for m in (sys.modules[__name__], chips, disassembly, triton_support)]
    parts = [name, source.hash(), target, str(made.threads), repr(sorted(triton_support.versions().items())), *tools]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _compiled_row(name: str, made: Any, target: str) -> dict:
    from semnr_kernels import triton_support

    with _COMPILING:  # two compilations at once, in threads of a process, give other code now and then
        built, threads = triton_support.build_for(made, target)
    row = asdict(triton_support.describe(name, target, built, threads))
    if "amdgcn" in built.asm:
        code = disassembly.amdgcn(built.asm["amdgcn"])
    else:
        code = next(iter(disassembly.sass(_disassemble(built.kernel)).values()))
    constants = made.constants
    block = constants.get("ROWS", 1) * constants.get("COLUMNS", 0) or constants.get("BLOCK", 0)
    # a fold's block is of partial sums, not of pixels
    pixels = None if name.startswith("fold") else block / threads or None
    return {**row, **_cost(target, threads, row["registers"], row["shared"], code, pixels)}


def _disassemble(cubin: bytes) -> str:
    from semnr_kernels import triton_support

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton_support.tool("nvdisasm"), "-c", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _cost(
    target: str, threads: int | None, registers: int, shared: int, code: disassembly.Code, pixels: float | None
) -> dict:
    held = chips.occupancy(target, threads, registers, shared) if threads else None
    return {
        "occupancy": held and round(held.share, 4),
        "limit": held and held.limit,
        "loop": code.loop,
        "instructions": code.instructions,
        "float_instructions": code.kinds.get("float32", 0) + code.kinds.get("float64", 0),
        "pixels": pixels,
        "instructions_a_pixel": pixels and round(code.instructions / pixels, 2),
    }


# --- CUDA C++ -------------------------------------------------------------------------------------------------


def _cuda_rows() -> tuple[str | None, list[dict]]:
    """The version of nvcc, and a row for each kernel of the module and each chip; none without the module."""
    from semnr_kernels import cuda_support, triton_support

    found = cuda_support.compiled()
    if isinstance(found, str):
        return None, []
    import cuda_cases

    launched = cuda_cases.launched()
    with tempfile.TemporaryDirectory() as folder:
        module = Path(str(found.__file__)).resolve()
        subprocess.run(
            [triton_support.tool("cuobjdump"), "-xelf", "all", module], check=True, cwd=folder, capture_output=True
        )
        cubins = sorted(Path(folder).glob("*.cubin"))
        with ThreadPoolExecutor(WORKERS) as pool:
            rows = [row for part in pool.map(lambda cubin: _cubin_rows(cubin, launched), cubins) for row in part]
    return found.NVCC, sorted(rows, key=lambda row: (row["kernel"], row["target"]))


def _cubin_rows(cubin: Path, launched: dict[str, dict]) -> list[dict]:
    import cuda_cases

    from semnr_kernels import triton_support

    target = cubin.name.split(".")[-2]
    usage = subprocess.run(
        [triton_support.tool("cuobjdump"), "-res-usage", cubin], check=True, capture_output=True, text=True
    ).stdout
    codes = disassembly.sass(_disassemble(cubin.read_bytes()))
    rows = []
    for mangled, used in disassembly.resources(usage).items():
        name = cuda_cases.short(cuda_cases.demangle(mangled))
        launch = launched.get(name, {})
        code = codes[mangled]
        static = used["SHARED"] - (1024 if target != "sm_80" else 0)  # which the system takes on these chips
        shared = static + launch.get("shared_bytes", 0)
        pixels = cuda_cases.pixels(name, code)
        rows.append(
            {
                "kernel": f"cuda {name}",
                "target": target,
                "registers": used["REG"],
                "spills": used["STACK"] + used["LOCAL"],
                "shared": shared,
                "threads": launch.get("threads"),
                **_cost(target, launch.get("threads"), used["REG"], shared, code, pixels),
            }
        )
    return rows


# --- the table ------------------------------------------------------------------------------------------------


def show(table: dict) -> str:
    """One line a kernel: registers, occupancy and instructions a pixel on each chip, shared memory, spills."""
    rows: dict[str, dict[str, dict]] = {}
    for row in table["kernels"]:
        rows.setdefault(row["kernel"], {})[row["target"]] = row
    targets = [target for target in chips.CHIPS if any(row["target"] == target for row in table["kernels"])]
    lines = [
        "compiled only, not run; " + ", ".join(f"{k} {v or 'absent'}" for k, v in table["versions"].items()),
        "a chip's columns: registers a thread, theoretical occupancy in %, instructions a pixel in the hot loop",
        f"{'':48s}" + "".join(f"{t:>18s}" for t in targets) + "  spills  shared bytes",
    ]
    for name, by in rows.items():
        cells = "".join(f"{_cell(by.get(t)):>18s}" for t in targets)
        spills, shared = (max(row[key] for row in by.values()) for key in ("spills", "shared"))
        lines.append(f"{name:48s}{cells}{spills:8d}{shared:14d}")
    return "\n".join(lines)


def _cell(row: dict | None) -> str:
    if row is None:
        return "-"
    held = "-" if row["occupancy"] is None else f"{100 * row['occupancy']:.0f}"
    each = "-" if row["instructions_a_pixel"] is None else f"{row['instructions_a_pixel']:.4g}"
    return f"{row['registers']:4d} {held:>4s} {each:>7s}"


def problems(table: dict, recorded: dict) -> list[str]:
    """What keeps `table` from being accepted; the recorded figures bind only for the recorded compilers."""
    found = [f"{r['kernel']} on {r['target']} spills {r['spills']}" for r in table["kernels"] if r["spills"]]
    kept, new = (
        {(r["kernel"], r["target"]): r for r in t["kernels"] if _comparable(r, table, recorded)}
        for t in (recorded, table)
    )
    for key in sorted(kept.keys() | new.keys()):
        # addresses and file names in the binary vary with the checkout; registers and memory do not
        old, now = ({k: v for k, v in t.get(key, {}).items() if k != "binary"} for t in (kept, new))
        if old != now:
            found.append(f"{' on '.join(key)} was {old}, is {now}: run python benchmarks/static/aot_table.py")
    return found


def _comparable(row: dict, table: dict, recorded: dict) -> bool:
    """Whether both tables rest on the same compiler of this row."""
    if recorded["versions"] is None:
        return False
    cuda = row["kernel"].startswith("cuda ")
    names = [name for name in table["versions"] if (name == "nvcc") == cuda]
    return all(table["versions"][n] == recorded["versions"].get(n) for n in names)


def save(table: dict) -> None:
    made = records.record(__file__, {"kernels": table["kernels"]}, versions=table["versions"])
    records.write(RESULTS, made)


def stored() -> dict:
    """The recorded table, as `build` makes one."""
    made = records.read(RESULTS)
    return {"versions": made["versions"], **records.tree_of(made["rows"])}


def main(arguments: list[str]) -> int:
    table = build()
    print(show(table))
    if table["versions"]["nvcc"] is None:
        from semnr_kernels import cuda_support

        print(f"no CUDA kernels in this table: {cuda_support.probe()}")
    recorded = stored() if "--check" in arguments else {"versions": None, "kernels": []}
    found = problems(table, recorded)
    print("\n".join(found))
    if "--check" not in arguments:
        save(table)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
