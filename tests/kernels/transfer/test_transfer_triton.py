"""Evidence transfer's Triton kernels under the interpreter, on small tiles: `TRITON_INTERPRET=1`, see .ci/triton."""

from __future__ import annotations

import evidence_tiles
import pytest
import test_transfer_op as suite
import torch

import backends
from semnr_kernels.transfer import Settings

INTERPRET = "triton-interpret"


@pytest.fixture(autouse=True)
def interpreter() -> str:
    return backends.require("transfer", INTERPRET)


@pytest.mark.parametrize(
    "settings", [Settings(block=24), Settings(0.0, 1.0, 20, noisy_reference=True), Settings(0.7, 2.0, 32, least_z=1e9)]
)
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_triton_gives_the_definition(settings: Settings, masked: bool) -> None:
    images = evidence_tiles.case("float" if masked else "lines", 51, 66)
    valid = None
    if masked:
        valid = torch.ones((1, 1, 51, 66), dtype=torch.bool)
        valid[..., 40:, :30] = False
        valid[..., 10:30, 40:50] = False
    got, exact = (suite.found(images, backend, settings, valid) for backend in (INTERPRET, "reference"))
    suite.assert_like(got, exact, factor=3 if masked or settings.least_z > 4 else 1)


def test_triton_tells_nothing_without_structure_and_tiles_do_not_depend_on_their_batch() -> None:
    cases = [evidence_tiles.case(kind, 40, 48) for kind in ("lines", "flat")]
    together = evidence_tiles.Case(*(torch.cat(v) for v in zip(*cases, strict=True)))
    rows = torch.stack(suite.found(together, INTERPRET, Settings(0.0, 1.0, block=20)))
    assert not bool(rows[2, 1] >= 4)
    alone = [torch.stack(suite.found(one, INTERPRET, Settings(0.0, 1.0, block=20))) for one in cases]
    assert torch.equal(torch.cat(alone, 1).nan_to_num(), rows.nan_to_num())
