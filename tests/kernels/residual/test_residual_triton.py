"""The scan of the residual in Triton: cases of the op's suite, few and small enough for the interpreter.

`TRITON_INTERPRET=1 pytest tests/kernels/residual/test_residual_triton.py`
"""

from __future__ import annotations

import evidence_tiles
import numpy as np
import pytest
import test_residual_op as suite
import torch

import backends
from semnr_kernels.residual import Settings

INTERPRET = "triton-interpret"
ONE = Settings(0.01, (4.2,), True)


@pytest.fixture(autouse=True)
def interpreter() -> str:
    return backends.require("residual", INTERPRET)


def test_the_whole_bank_gives_the_definition() -> None:
    images = evidence_tiles.case("defects", 64, 70)
    suite.assert_like(suite.found(images, INTERPRET), suite.found(images, "reference"))


@pytest.mark.parametrize("kind", ["flat", "constant rows"])
def test_whatever_a_tile_holds(kind: str) -> None:
    """One size, so that its squares and discs are few taps."""
    images = evidence_tiles.case(kind, 32, 64)
    one, other = (suite.found(images, backend, ONE) for backend in (INTERPRET, "reference"))
    if kind == "constant rows":  # edges over no noise are rounding: see semnr_kernels/residual/README.md
        one, other = (v._replace(structure_z=np.zeros(1)) for v in (one, other))
    suite.assert_like(one, other)


def test_masked_pixels_take_no_part_and_a_tile_is_what_it_is_alone() -> None:
    tiles = [evidence_tiles.case(kind, 48, 50) for kind in ("defects", "clipped")]
    images = evidence_tiles.Case(*(torch.cat(v) for v in zip(*tiles, strict=True)))
    valid = torch.ones((2, 1, 48, 50), dtype=torch.bool)
    valid[..., 26:40, 20:40] = False
    got = suite.found(images, INTERPRET, ONE, valid)
    suite.assert_like(got, suite.found(images, "reference", ONE, valid))
    alone = suite.found(tiles[1], INTERPRET, ONE, valid[:1])
    for k in (0, 1, 2, 3, 5):
        np.testing.assert_array_equal(got[k][1:], alone[k])  # to the last bit
    assert got.places[1:] == alone.places


def test_a_large_tile_is_scanned_by_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    from semnr_kernels import batched

    monkeypatch.setattr("semnr_kernels.residual.scanning._CORE", 40)
    batched._tables.cache_clear()
    try:
        images = evidence_tiles.case("float", 40, 100)
        suite.assert_like(suite.found(images, INTERPRET, ONE), suite.found(images, "reference", ONE))
    finally:
        batched._tables.cache_clear()


def test_ranks_are_those_of_a_sort() -> None:
    from semnr_kernels import triton_select

    generator = torch.Generator().manual_seed(0)
    values = torch.rand((3, 700), generator=generator) ** 4 * 100
    values[1, :400] = 0
    wanted = torch.tensor([[0, 700, 10, 350, 699], [100, 333, 0, 100, 332]], dtype=torch.int32)
    got, below = triton_select.of_rank(values, wanted, 1033)
    for job, (start, size, *ranks) in enumerate(wanted.tolist()):
        some = values[:, start : start + size].sort(dim=1).values
        for k, rank in enumerate(ranks):
            assert torch.equal(got[:, job, k], some[:, rank])
            assert torch.equal(below[:, job, k].long(), (some < some[:, rank, None]).sum(1))
