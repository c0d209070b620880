"""Counted cost of a batch of evidence on a device: operations that torch launches, Triton's kernels, and the bytes
that they read and write. No time in it, and no GPU: the same operations run here on CPU tensors, and launches of Triton
are recorded, not made.

`python benchmarks/static/evidence_counts.py` writes results/evidence_counts.json and prints the table. What is counted:
every operation that is not a view is one launch at least (a sort or a transform is more); its bytes are those of its
inputs and outputs, and of a gather those that it addresses. A table that all tiles share counts once a batch. A launch
of Triton is one launch; its bytes are those that its call states (`triton_support.Launch.bytes`).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import sys
from collections import Counter
from collections.abc import Iterator
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
from semnr_kernels import batched, planes
from semnr_kernels.changes import on_device as changes
from semnr_kernels.noise import on_device as noise
from semnr_kernels.planes import Levelled
from semnr_kernels.residual import on_device as residual
from semnr_kernels.transfer import on_device as transfer

RESULTS = Path(__file__).parents[1] / "results" / "evidence_counts.json"
SHAPES = ((2, 64, 80), (8, 512, 512))  # the small one is what the suite counts again
BARS = {"launches": 60, "traffic": 60}
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
        self.recorded: list[Any] = []
        self.seen = 0
        self.launches: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.gather()
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

    def gather(self) -> None:
        """What was recorded since, to the part that asked for it."""
        for made in self.recorded[self.seen :]:
            self.launches[self.part[-1]] += 1
            self.moved[self.part[-1]] += made.bytes
        self.seen = len(self.recorded)


@contextlib.contextmanager
def designs(triton: bool) -> Iterator[list[Any]]:
    """Inside the `with` block Triton's kernels serve what has some, and nothing else does; the launches."""
    if not triton:
        yield []
        return
    from semnr_kernels import triton_support

    usual, level = at_once._kernels, planes._on_triton
    at_once._kernels = lambda op, images: of_triton(op) or usual(op, images)
    planes._on_triton = lambda images: True
    try:
        with triton_support.recording() as launches:
            yield launches
    finally:
        at_once._kernels, planes._on_triton = usual, level


def of_triton(op: str) -> Any:
    """Its module of Triton's kernels; None: it has none."""
    found = importlib.util.find_spec(f"semnr_kernels.{op}.triton_kernel")
    return found and importlib.import_module(found.name)


def size(v: torch.Tensor) -> int:
    """Bytes of what is there once, however often it is repeated."""
    return v.element_size() * math.prod(n for n, step in zip(v.shape, v.stride(), strict=True) if step)


def count(shape: tuple[int, int, int], triton: bool = False) -> dict[str, Any]:
    """Launches of a batch, and bytes a tile over the tile's own as float32, by part; of Triton's kernels where an op
    has some, or of torch's operations alone."""
    with designs(triton) as launches:
        return _count(shape, triton, launches)


def _count(shape: tuple[int, int, int], triton: bool, launches: list[Any]) -> dict[str, Any]:
    n, height, width = shape
    images = evidence_tiles.case("holes", height, width)
    inputs = {name: v.repeat(n, 1, 1, 1) for name, v in zip(("noisy", "denoised", "reference"), images, strict=True)}
    asked = at_once.Asked(True, True, -1, ((1.0, 4.0),), None, None, "error", False)
    at_once._computed(inputs, asked)  # tables that are made once
    counted = Counted()
    counted.recorded, counted.seen = launches, len(launches)
    kept = []

    def within(part: str, run: Any) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            counted.gather()
            counted.part.append(part)
            try:
                return run(*args, **options)
            finally:
                counted.gather()
                counted.part.pop()

        return called

    try:
        for part, functions in PARTS.items():
            for place, name in (*functions, *of_part(part, triton)):
                kept.append((place, name, place.__dict__[name]))
                setattr(place, name, within(part, getattr(place, name)))
        with counted:
            at_once._computed(inputs, asked)
            counted.gather()
    finally:
        for place, name, function in kept:
            setattr(place, name, function)
    tile = n * 4 * height * width
    return {
        "design": "triton" if triton else "torch",
        "shape": list(shape),
        "launches": dict(counted.launches),
        "traffic": {part: round(moved / tile, 2) for part, moved in counted.moved.items()},
    }


def of_part(part: str, triton: bool) -> list[tuple[Any, str]]:
    """The same functions of Triton's module of a part."""
    module = of_triton(part) if triton and part in ("noise", "residual", "changes", "transfer") else None
    return [(module, name) for _, name in PARTS[part]] if module else []


def show(rows: list[dict[str, Any]]) -> str:
    """The table in text."""
    lines = []
    for row in rows:
        lines.append("{}: batch of {} tiles of {} x {}".format(row["design"], *row["shape"]))
        for part, launches in row["launches"].items():
            lines.append(f"  {part:10s}{launches:8d} launches{row['traffic'][part]:9.1f} x the tile's float32 bytes")
        launches, traffic = sum(row["launches"].values()), sum(row["traffic"].values())
        lines.append(f"  {'all':10s}{launches:8d} (bar {BARS['launches']}){traffic:9.1f} (bar {BARS['traffic']})")
    return "\n".join(lines)


def stored() -> list[dict[str, Any]]:
    """The recorded batches."""
    return list(records.read_tree(RESULTS)["batches"])


def main() -> int:
    rows = [count(shape, triton) for triton in (False, True) for shape in SHAPES]
    records.write(RESULTS, records.record(__file__, {"batches": rows}, versions={"torch": torch.__version__}))
    print(show(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
