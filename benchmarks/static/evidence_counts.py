"""Counted cost of a batch of evidence on a device: operations that torch launches, and the bytes that they read and
write. No time in it, and no GPU: the same operations run here on CPU tensors.

`python benchmarks/static/evidence_counts.py` writes results/evidence_counts.json and prints the table. What is counted:
every operation that is not a view is one launch at least (a sort or a transform is more); its bytes are those of its
inputs and outputs, and of a gather those that it addresses. A table that all tiles share counts once a batch.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))
import evidence_tiles
import mock_gpu
import records

from semnr.trust import at_once
from semnr_kernels import batched
from semnr_kernels.changes import on_device as changes
from semnr_kernels.noise import on_device as noise
from semnr_kernels.planes import Levelled
from semnr_kernels.residual import on_device as residual
from semnr_kernels.transfer import on_device as transfer

RESULTS = Path(__file__).parents[1] / "results" / "evidence_counts.json"
SHAPES = ((2, 64, 80), (8, 512, 512))  # the small one is what the suite counts again
BARS = {"launches": 60, "traffic": 60}
TRITON = ("residual", "changes")  # ops that have the design in Triton
ADDRESSED = ("gather", "index", "index_select", "embedding", "searchsorted", "take")
PARTS = {
    "noise": ((noise, "laws"), (noise, "whitening")),
    "residual": ((residual, "rows"),),
    "changes": ((changes, "rows"),),
    "transfer": ((transfer, "rows"),),
    "planes": ((Levelled, "of"),),
    "one row": ((batched, "packed"),),
}


class Counted(TorchDispatchMode):
    """Launches and bytes inside the `with` block, by the part of the evidence that asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self.part = ["else"]
        self.launches: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        made = [v for v in tree_leaves(out) if isinstance(v, torch.Tensor)]
        if name not in mock_gpu._FREE and name != "scalar_tensor":  # a number, which travels with the next launch
            given = [v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
            if name in ADDRESSED:
                given = [*made, *(v for v in given[1:])] if name != "searchsorted" else [*made, *made]
            self.launches[self.part[-1]] += 1
            self.moved[self.part[-1]] += sum(map(size, (*given, *made)))
        return out


def size(v: torch.Tensor) -> int:
    """Bytes of what is there once, however often it is repeated."""
    return v.element_size() * math.prod(n for n, step in zip(v.shape, v.stride(), strict=True) if step)


def count(shape: tuple[int, int, int], design: str = "torch") -> dict[str, Any]:
    """Launches of a batch, and bytes a tile over the tile's own as float32, by part. design: "torch", or "triton" for
    the ops that have it: their launches are collected and do not run, their bytes are those stated beside them."""
    n, height, width = shape
    images = evidence_tiles.case("holes", height, width)
    inputs = {name: v.repeat(n, 1, 1, 1) for name, v in zip(("noisy", "denoised", "reference"), images, strict=True)}
    asked = at_once.Asked(True, True, -1, ((1.0, 4.0),), None, None, "error", False)
    counted, kept = Counted(), []
    parts = dict(PARTS)
    if design == "triton":
        modules = {op: importlib.import_module(f"semnr_kernels.{op}.triton_kernel") for op in TRITON}
        parts |= {op: ((module, "rows"),) for op, module in modules.items()}

    def within(part: str, run: Any) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            counted.part.append(part)
            try:
                return run(*args, **options)
            finally:
                counted.part.pop()

        return called

    def launched(name: str, nbytes: int) -> None:
        counted.launches[counted.part[-1]] += 1
        counted.moved[counted.part[-1]] += nbytes

    replaced: list[tuple[Any, str, Any]] = []
    recording: Any = contextlib.nullcontext
    if design == "triton":
        from semnr_kernels import triton_support

        recording, usual = triton_support.recording, at_once._module
        replaced = [
            (at_once, "_module", lambda op, images: modules[op] if op in modules else usual(op, images)),
            (triton_support, "launched", launched),
        ]
    try:
        for place, name, function in replaced:
            kept.append((place, name, place.__dict__[name]))
            setattr(place, name, function)
        with recording():
            at_once._computed(inputs, asked)  # tables that are made once
        counted.launches.clear()
        counted.moved.clear()
        for part, functions in parts.items():
            for place, name in functions:
                kept.append((place, name, place.__dict__[name]))
                setattr(place, name, within(part, getattr(place, name)))
        with counted, recording():
            at_once._computed(inputs, asked)
    finally:
        for place, name, function in kept:
            setattr(place, name, function)
    tile = n * 4 * height * width
    return {
        "shape": list(shape),
        "design": design,
        "launches": dict(counted.launches),
        "traffic": {part: round(moved / tile, 2) for part, moved in counted.moved.items()},
    }


def show(rows: list[dict[str, Any]]) -> str:
    """The table in text."""
    lines = []
    for row in rows:
        lines.append(f"batch of {row['shape'][0]} tiles of {row['shape'][1]} x {row['shape'][2]}, {row['design']}")
        for part, launches in row["launches"].items():
            lines.append(f"  {part:10s}{launches:8d} launches{row['traffic'][part]:9.1f} x the tile's float32 bytes")
        launches, traffic = sum(row["launches"].values()), sum(row["traffic"].values())
        lines.append(f"  {'all':10s}{launches:8d} (bar {BARS['launches']}){traffic:9.1f} (bar {BARS['traffic']})")
    return "\n".join(lines)


def stored() -> list[dict[str, Any]]:
    """The recorded batches."""
    return list(records.read_tree(RESULTS)["batches"])


def main() -> int:
    rows = [count(shape, design) for design in ("torch", "triton") for shape in SHAPES]
    records.write(RESULTS, records.record(__file__, {"batches": rows}, versions={"torch": torch.__version__}))
    print(show(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
