"""Counted cost of the CUDA kernels: device memory and shared memory of whole jobs, from the emulation. No time in it.

`python benchmarks/static/counted_table.py` runs every job, the whole grid of each launch (minutes), writes
results/counted.json and prints the table. `--check` runs the smaller batch alone, compares every figure with the
recorded one, and holds the recorded figures of both against the bars. What is counted: csrc/emulation/README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records

RESULTS = Path(__file__).parents[1] / "results" / "counted.json"
MULTIPROCESSORS = 132  # as in cuda_cases
CONFLICTS = 1.1  # transactions over those without bank conflicts
SUMS = ("sectors_read", "sectors_written", "shared_load_words", "shared_store_words", "barriers", "collectives")
SUMS += ("shared_load_transactions", "shared_load_ideal", "shared_store_transactions", "shared_store_ideal")


def rows(shapes: tuple[tuple[int, ...], ...]) -> list:
    """One row a job, shape and dtype, with its kernels."""
    import cuda_cases as cases

    cases.provide()
    found = []
    for job in cases.JOBS:
        if job.op not in cases.emulated.ops():
            continue
        for shape in shapes:
            for dtype in job.dtypes:
                kernels: dict[str, dict] = {}
                for one in cases.count(job, shape, dtype):
                    for name, counted in one.counters.items():
                        _add(kernels.setdefault(name, {}), counted)
                x = torch.empty(shape, dtype=dtype, device="meta")
                found.append(
                    {
                        "job": job.name,
                        "shape": list(shape),
                        "dtype": str(dtype).removeprefix("torch."),
                        "floor_bytes": job.floor(x),
                        "bytes_bar": job.bytes_bar,
                        "words_bar": job.words_bar,
                        "kernels": kernels,
                    }
                )
    return found


def _add(total: dict, counted: dict) -> None:
    for key in (*SUMS, "launches", "blocks", "threads"):
        total[key] = total.get(key, 0) + counted[key]
    for key in ("shared_bytes", "worst_ways"):
        total[key] = max(total.get(key, 0), counted[key])


def summary(row: dict) -> dict:
    """The figures that the bars are about."""
    kernels = row["kernels"].values()
    total = {key: sum(k[key] for k in kernels) for key in SUMS}
    pixels = 1
    for size in row["shape"]:
        pixels *= size
    used, ideal = (
        sum(total[f"shared_{kind}_{what}"] for kind in ("load", "store")) for what in ("transactions", "ideal")
    )
    moved = 32 * (total["sectors_read"] + total["sectors_written"])
    return {
        "bytes_over_floor": moved / row["floor_bytes"],
        "bytes_a_pixel": moved / pixels,
        "words_a_pixel": (total["shared_load_words"] + total["shared_store_words"]) / pixels,
        "conflicts": used / ideal if ideal else 1.0,
        "blocks": max(k["blocks"] / k["launches"] for k in kernels),
    }


def show(found: list) -> str:
    """The table in text; a `!` marks what is beyond its bar."""
    title = (
        f"{'counted on the emulation, not timed':46s}{'over the floor':>18s}{'bytes/px':>10s}{'shared words/px':>20s}"
    )
    lines = [title + f"{'bank conflicts':>16s}{'blocks':>9s}"]
    for row in found:
        s = summary(row)
        name = f"{row['job']} {row['dtype']} {'x'.join(map(str, row['shape']))}"
        over = _barred(s["bytes_over_floor"], row["bytes_bar"], 3)
        words = _barred(s["words_a_pixel"], row["words_bar"], 2)
        lines.append(
            f"{name:46s}{over:>18s}{s['bytes_a_pixel']:10.3f}{words:>20s}{s['conflicts']:16.3f}{s['blocks']:9.0f}"
        )
    return "\n".join(lines)


def _barred(value: float, bar: float | None, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if bar is None else f"{text}{'!' if value > bar else ' '}(<={bar:g})"


def problems(found: list) -> list[str]:
    """Figures beyond their bars."""
    out = []
    for row in found:
        s = summary(row)
        name = f"{row['job']} {row['dtype']} {'x'.join(map(str, row['shape']))}"
        for key, bar in (("bytes_over_floor", row["bytes_bar"]), ("words_a_pixel", row["words_bar"])):
            if bar is not None and s[key] > bar:
                out.append(f"{name}: {key} is {s[key]:.3f}, the bar is {bar:g}")
        if s["conflicts"] > CONFLICTS:
            out.append(f"{name}: {s['conflicts']:.2f} times the shared transactions without bank conflicts")
        if row["bytes_bar"] is not None and s["blocks"] < 2 * MULTIPROCESSORS:
            out.append(f"{name}: {s['blocks']:.0f} blocks for {MULTIPROCESSORS} multiprocessors")
    return out


def changes(new: list, recorded: list) -> list[str]:
    """What differs from the record, for the rows that were counted anew."""
    kept = {(r["job"], r["dtype"], *r["shape"]): r for r in recorded}
    out = []
    for row in new:
        key = (row["job"], row["dtype"], *row["shape"])
        if kept.get(key) != row:
            out.append(f"{key} differs from the record: run python benchmarks/static/counted_table.py")
    return out


def stored() -> list:
    """The recorded jobs."""
    return list(records.read_tree(RESULTS)["jobs"])


def main(arguments: list[str]) -> int:
    import cuda_cases as cases

    if "--check" in arguments:
        recorded = stored()
        found = problems(recorded) + changes(rows((cases.SMALL,)), recorded)
        print(show(recorded))
    else:
        recorded = rows((cases.LARGE, cases.SMALL))
        records.write(RESULTS, records.record(__file__, {"jobs": recorded}, versions={"torch": torch.__version__}))
        found = problems(recorded)
        print(show(recorded))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
