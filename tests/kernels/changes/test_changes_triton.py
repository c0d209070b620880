"""The changes in Triton: cases of the op's suite, few and small enough for the interpreter.

`TRITON_INTERPRET=1 pytest tests/kernels/changes/test_changes_triton.py`
"""

from __future__ import annotations

import math

import evidence_tiles
import pytest
import test_changes_op as suite
import torch

import backends
from semnr_kernels.changes import Settings

INTERPRET = "triton-interpret"


@pytest.fixture(autouse=True)
def interpreter() -> str:
    return backends.require("changes", INTERPRET)


@pytest.mark.parametrize(
    ("kind", "size", "settings", "given"),
    [
        ("defects", (48, 64), Settings(255.0), "xdr"),
        ("clipped", (32, 33), Settings(None, -2), "xdr"),
        ("pedestal", (33, 32), Settings(255.0), "dr"),
        ("rows alone", (32, 32), Settings(255.0), "xd"),
    ],
)
def test_the_definition(kind: str, size: tuple[int, int], settings: Settings, given: str) -> None:
    images = evidence_tiles.case(kind, *size)
    one, other = (suite.found(images, backend, settings, given) for backend in (INTERPRET, "reference"))
    suite.assert_like(one, other)


def test_what_a_flat_tile_cannot_hold_is_not_told_and_a_tile_is_what_it_is_alone() -> None:
    tiles = [evidence_tiles.case(kind, 32, 32) for kind in ("lines", "flat")]
    images = evidence_tiles.Case(*(torch.cat(v) for v in zip(*tiles, strict=True)))
    got = suite.found(images, INTERPRET, given="dr")
    told = {name for name, (value, _) in got[1].items() if not math.isnan(value)}
    assert told <= {"offset_change"}
    alone = suite.found(tiles[0], INTERPRET, given="dr")[0]
    assert repr(got[0]) == repr(alone)  # to the last bit, NaN too
