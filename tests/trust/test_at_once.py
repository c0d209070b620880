"""The evidence of a batch on a device: the columns of the CPU, whatever the tiles hold, and nothing that waits."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from typing import Any

import evidence_counts
import evidence_tiles
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import backends
from semnr.trust import at_once
from semnr.trust.columns import BOXES, Measured, Trust
from semnr_kernels import batched, registry
from semnr_kernels.planes import Tiles

KINDS = (*evidence_tiles.KINDS, *evidence_tiles.DEGENERATE)
ABSOLUTE = {
    "row_noise_added": 5e-5,  # grey levels: the root of a difference near 0
    "row_noise_added_se": 5e-5,
    "residual_structure_z": 2e-3,
    "removed_z": 0.011,
    "invented_z": 0.011,
}  # z is rounded to hundredths
ROLES = ("noisy", "denoised", "reference")
WAITING = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "lift_fresh")


def images_of(case: evidence_tiles.Case) -> dict[str, torch.Tensor]:
    return dict(zip(ROLES, case, strict=True))


def measured(images: dict[str, Any], trust: Trust, backend: str, **options: Any) -> Measured:
    options = {"data_range": None, **options}
    with registry.use_backend(backend):
        return trust.measure(images, **options)


def assert_like(one: Measured, other: Measured, without: tuple[str, ...] = ()) -> None:
    assert one.columns.keys() == other.columns.keys()
    for name, wanted in other.columns.items():
        if name in without:
            continue
        near = ABSOLUTE.get(name, 1e-6)
        error = 2e-3 if name.endswith("_se") else 2e-5
        np.testing.assert_allclose(one.columns[name], wanted, rtol=error, atol=near, err_msg=name)
    assert one.texts.keys() == other.texts.keys()
    for name, told in other.texts.items():
        if name != BOXES:  # whose z is rounded
            assert one.texts[name] == told, name
        assert [text is None for text in one.texts[name]] == [text is None for text in told]


@pytest.mark.parametrize("kind", KINDS)
def test_the_columns_of_a_batch_at_once_are_those_of_the_cpu(kind: str) -> None:
    images = images_of(evidence_tiles.case(kind, 96, 112))
    options = {"data_range": 1.0} if kind == "float" else {}
    # where the law says that there is no noise, edges over it are rounding: see semnr_kernels/residual/README.md
    without = ("residual_structure_z",) if kind in ("constant rows", "rows alone") else ()
    assert_like(*(measured(images, Trust(), backend, **options) for backend in ("torch", "auto")), without)


@pytest.mark.parametrize("trust", [Trust(scan_axis=-2), Trust(bands=((0.0, 1.0), (1.0, 4.0)), block=20)], ids=str)
@pytest.mark.parametrize("without", ["reference", "noisy", None])
def test_whatever_is_asked_and_given(trust: Trust, without: str | None) -> None:
    images = images_of(evidence_tiles.case("metal", 96, 112))
    images.pop(str(without), None)
    both = [measured(images, trust, backend, with_map=True) for backend in ("torch", "auto")]
    assert_like(*both)
    if both[1].map is not None:
        np.testing.assert_allclose(both[0].map, both[1].map, atol=1e-3)


def test_a_second_frame_in_place_of_a_reference() -> None:
    images = images_of(evidence_tiles.case("holes"))
    generator = np.random.default_rng(5)
    frame = images.pop("reference").double().numpy()
    frame = np.clip(np.rint(frame + generator.normal(0, 12, frame.shape)), 0, 255).astype(np.uint8)
    images["second_frame"] = torch.from_numpy(frame)
    assert_like(*(measured(images, Trust(), backend) for backend in ("torch", "auto")))


def test_pixels_that_are_not_finite_are_left_out_or_refused_by_name() -> None:
    images = {name: v.clone() for name, v in images_of(evidence_tiles.case("float", 96, 112)).items()}
    images["noisy"][..., 30:34, 40:50], images["denoised"][..., 90, 7] = math.nan, math.inf
    options = {"data_range": 1.0, "nan": "omit"}
    assert_like(*(measured(images, Trust(tests=True), backend, **options) for backend in ("torch", "auto")))
    for backend in ("torch", "auto"):
        with pytest.raises(ValueError, match="noisy"):
            measured(images, Trust(), backend, data_range=1.0)


def test_masked_pixels_take_no_part() -> None:
    images = images_of(evidence_tiles.case("defects"))
    mask = np.ones((256, 256), dtype=bool)
    mask[140:200, 100:160] = False
    assert_like(*(measured(images, Trust(), backend, mask=mask) for backend in ("torch", "auto")))


def test_a_tile_has_the_columns_that_it_has_alone() -> None:
    kinds = ("lines", "flat", "clipped")
    tiles = [images_of(evidence_tiles.case(kind, 64, 80)) for kind in kinds]
    whole = measured({name: torch.cat([tile[name] for tile in tiles]) for name in ROLES}, Trust(), "torch")
    for i, tile in enumerate(tiles):
        alone = measured(tile, Trust(), "torch")
        for name, column in alone.columns.items():
            np.testing.assert_allclose(whole.columns[name][i], column[0], rtol=1e-4, atol=1e-6, err_msg=name)
        assert {name: text[i] for name, text in whole.texts.items()} == {k: v[0] for k, v in alone.texts.items()}


def test_the_columns_are_the_same_where_triton_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    backends.require("residual", "triton-interpret")
    images = images_of(evidence_tiles.case("lines", 40, 48))
    usual = at_once._kernels

    def module(op: str, denoised: torch.Tensor) -> Any:
        there = op in ("residual", "changes")
        return importlib.import_module(f"semnr_kernels.{op}.triton_kernel") if there else usual(op, denoised)

    wanted = measured(images, Trust(scan_axis=-2), "torch")
    monkeypatch.setattr(at_once, "_kernels", module)
    assert_like(measured(images, Trust(scan_axis=-2), "torch"), wanted)


# --- what the device is asked ---------------------------------------------------------------------------------


class Asked(TorchDispatchMode):
    """Operations inside the `with` block; one whose result goes to another device is a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.shapes: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        copies = name in ("_to_copy", "copy_") and "device" in (kwargs or {})
        self.names["copy" if copies and (kwargs or {})["device"] is not None else name] += 1
        self.shapes.append((name, *(tuple(v.shape) for v in tree_leaves(out) if isinstance(v, torch.Tensor))))
        return out


def figures(case: evidence_tiles.Case, n: int = 2) -> dict[str, torch.Tensor]:
    tiles = {name: Tiles(v.repeat(n, 1, 1, 1)) for name, v in images_of(case).items()}
    asked = at_once.Asked(True, True, -1, ((1.0, 4.0),), None, None, "error", False)
    return at_once._figures(tiles, asked, None)[0]


def test_nothing_in_a_batch_waits_or_depends_on_what_the_pixels_are() -> None:
    found = []
    for kind in ("lines", "clipped"):
        case = evidence_tiles.case(kind, 64, 80)
        figures(case)  # tables that are made once
        with Asked() as asked:
            figures(case)
        assert {name for name in asked.names if name.startswith(WAITING) or name == "copy"} == set()
        found.append(asked.shapes)
    assert all(shapes == found[0] for shapes in found)  # the same operations of the same sizes: a graph can hold them


@pytest.mark.parametrize("design", ["torch", "triton"])
def test_launches_and_bytes_of_a_batch_are_those_of_the_record(design: str) -> None:
    """Releases of torch split some operations otherwise; a tenth is theirs. Of Triton's design: launches are recorded,
    so that it is counted where nothing can run."""
    if design == "triton":
        pytest.importorskip("triton")
    recorded = next(row for row in evidence_counts.stored() if row["design"] == design)
    counted = evidence_counts.count(tuple(recorded["shape"]), design == "triton")
    for figure in ("launches", "traffic"):
        for part, wanted in recorded[figure].items():
            assert counted[figure][part] <= 1.1 * wanted + 2, (figure, part)
    if design == "triton":
        assert all(counted["launches"][op] <= 20 for op in ("residual", "changes"))


def test_all_figures_come_in_one_copy() -> None:
    numbers = torch.arange(6, dtype=torch.float32).view(2, 3)
    got = batched.on_host({"a": numbers, "b": numbers[:, 0].double(), "c": numbers.view(2, 3, 1) > 2})
    np.testing.assert_array_equal(got["a"], numbers.numpy())
    np.testing.assert_array_equal(got["b"], [0, 3])
    np.testing.assert_array_equal(got["c"][..., 0], [[0, 0, 0], [1, 1, 1]])
