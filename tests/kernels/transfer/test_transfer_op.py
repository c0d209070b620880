"""Evidence transfer on every backend against its definition in float64."""

from __future__ import annotations

import evidence_tiles
import pytest
import torch

import backends
from semnr_kernels.planes import Tiles
from semnr_kernels.transfer import Settings, Transfer, transfer

CASES = [(kind, 256, 256) for kind in evidence_tiles.KINDS] + [("holes", *size) for size in evidence_tiles.SIZES]
BOUNDS = {"transfer": 1e-6, "se": 1e-5, "structure_z": 1e-6, "energy": 1e-6, "mse_drop": 1e-5}  # relative


def found(case: evidence_tiles.Case, backend: str, settings: Settings, valid: torch.Tensor | None = None) -> Transfer:
    return backends.on(backend, transfer, *(Tiles(v) for v in case), valid, settings)


def assert_like(one: Transfer, other: Transfer, factor: float = 1.0) -> None:
    for name, bound in BOUNDS.items():
        torch.testing.assert_close(
            getattr(one, name), getattr(other, name), rtol=factor * bound, atol=1e-12, equal_nan=True, msg=name
        )


@pytest.mark.parametrize("backend", backends.params("transfer"))
@pytest.mark.parametrize("second", [False, True], ids=["reference", "second frame"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_backend_gives_the_definition(case: tuple[str, int, int], second: bool, backend: str) -> None:
    images = evidence_tiles.case(*case)
    settings = Settings(block=min(32, case[1] // 4, case[2] // 4), noisy_reference=second)
    assert_like(found(images, backend, settings), found(images, "reference", settings))


@pytest.mark.parametrize("backend", backends.params("transfer"))
@pytest.mark.parametrize("band", [(0.0, 1.0), (0.7, 2.0), (2.0, 6.0)])
def test_any_band(band: tuple[float, float], backend: str) -> None:
    images, settings = evidence_tiles.case("lines"), Settings(*band)
    assert_like(found(images, backend, settings), found(images, "reference", settings))


@pytest.mark.parametrize("backend", backends.params("transfer"))
def test_masked_pixels_take_no_part(backend: str) -> None:
    images, settings = evidence_tiles.case("float"), Settings()
    valid = torch.ones((1, 1, 256, 256), dtype=torch.bool)
    valid[..., 200:, :] = False
    valid[..., 40:70, 90:130] = False
    clean = found(images, backend, settings, valid)
    assert_like(clean, found(images, "reference", settings, valid), factor=3)
    spoiled = evidence_tiles.Case(*(torch.where(valid, v, torch.tensor(0.3)) for v in images))
    assert_like(found(spoiled, backend, settings, valid), clean, factor=3)


@pytest.mark.parametrize("backend", backends.params("transfer"))
def test_structure_in_one_block_is_told_from_the_spectra(backend: str) -> None:
    generator = torch.Generator().manual_seed(5)
    r = torch.zeros((1, 1, 128, 160))
    r[..., 60:66, 70:76] = 40
    x, d = (r + 3 * torch.randn(r.shape, generator=generator) for _ in range(2))
    images, settings = evidence_tiles.Case(x, d, r), Settings(least_z=50.0)
    assert_like(found(images, backend, settings), found(images, "reference", settings), factor=3)


@pytest.mark.parametrize("backend", backends.params("transfer"))
@pytest.mark.parametrize("kind", ["flat", "noise on flat", "white"])
def test_without_structure_nothing_is_told(kind: str, backend: str) -> None:
    row = found(evidence_tiles.case(kind), backend, Settings())
    assert not bool((row.structure_z >= 4).any())


def test_tiles_do_not_depend_on_their_batch_nor_on_threads() -> None:
    backends.require("transfer", "native")
    images = evidence_tiles.batch()
    rows = evidence_tiles.by_threads(lambda: torch.stack(found(images, "native", Settings())))
    assert torch.equal(*rows)
    turned = evidence_tiles.Case(*(v.flip(0) for v in images))
    assert torch.equal(torch.stack(found(turned, "native", Settings())).flip(1), rows[0])
    alone = [torch.stack(found(one, "native", Settings())) for one in evidence_tiles.one_by_one(images)]
    assert torch.equal(torch.cat(alone, 1), rows[0])
