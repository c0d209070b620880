"""The scan of the residual on every backend against its definition."""

from __future__ import annotations

import evidence_tiles
import numpy as np
import pytest
import torch

import backends
from semnr.noise import fit_noise
from semnr_kernels.planes import Tiles
from semnr_kernels.residual import Law, Scanned, Settings, scan

CASES = [(kind, 256, 256) for kind in evidence_tiles.KINDS] + [("holes", *size) for size in evidence_tiles.SIZES]
WHOLE = Settings(with_map=True)


def law_of(x: torch.Tensor) -> Law:
    model = fit_noise([x[0].double().numpy()], data_range=None)
    return Law(model.gain, model.offset, model.floor, model.whitening())


def found(
    case: evidence_tiles.Case, backend: str, settings: Settings = WHOLE, valid: torch.Tensor | None = None
) -> Scanned:
    laws = [law_of(x) for x in case.x]
    return backends.on(backend, scan, Tiles(case.x), Tiles(case.d), valid, laws, settings)


def assert_like(one: Scanned, other: Scanned) -> None:
    np.testing.assert_allclose(one.variance, other.variance, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(one.spectrum, other.spectrum, atol=2e-6)
    np.testing.assert_allclose(one.structure_z, other.structure_z, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(one.threshold, other.threshold, rtol=1e-12)
    assert [[p[:3] + p[4:] for p in tile] for tile in one.places] == [[p[:3] + p[4:] for p in t] for t in other.places]
    for a, b in zip(one.places, other.places, strict=True):
        np.testing.assert_allclose([p.z for p in a], [p.z for p in b], atol=1e-3)
    if one.largest is not None and other.largest is not None:
        np.testing.assert_allclose(one.largest, other.largest, atol=1e-5 * max(1.0, float(other.largest.max())))


@pytest.mark.parametrize("backend", backends.params("residual"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_backend_gives_the_definition(case: tuple[str, int, int], backend: str) -> None:
    images = evidence_tiles.case(*case)
    assert_like(found(images, backend), found(images, "reference"))


@pytest.mark.parametrize("backend", backends.params("residual"))
def test_a_lost_and_an_invented_defect_are_marked(backend: str) -> None:
    places = found(evidence_tiles.case("defects"), backend)
    told = {(p.row, p.column): p for p in places.places[0] if abs(p.z) > places.threshold[0]}
    assert {at: p.invented for at, p in told.items()} == {(85, 85): False, (170, 128): True}


@pytest.mark.parametrize("backend", backends.params("residual"))
@pytest.mark.parametrize("sizes", [(2.0,), (7.0, 20.0), (4.0, 6.0, 32.0)], ids=str)
def test_any_sizes(sizes: tuple[float, ...], backend: str) -> None:
    images, settings = evidence_tiles.case("defects"), Settings(0.01, sizes, True)
    assert_like(found(images, backend, settings), found(images, "reference", settings))


@pytest.mark.parametrize("backend", backends.params("residual"))
def test_masked_pixels_take_no_part(backend: str) -> None:
    images = evidence_tiles.case("defects")
    valid = torch.ones((1, 1, 256, 256), dtype=torch.bool)
    valid[..., 140:200, 100:160] = False  # the invented one
    one, other = (found(images, b, WHOLE, valid) for b in (backend, "reference"))
    assert_like(one, other)
    assert [p.invented for p in one.places[0] if abs(p.z) > one.threshold[0]] == [False]


@pytest.mark.parametrize("backend", backends.params("residual"))
def test_a_large_tile_is_scanned_by_windows(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from semnr_kernels.residual import native

    monkeypatch.setattr("semnr_kernels.residual.scanning._CORE", 100)
    native._plan.cache_clear()
    try:
        images = evidence_tiles.case("holes", 300, 509)
        assert_like(found(images, backend), found(images, "reference"))
    finally:
        native._plan.cache_clear()


@pytest.mark.parametrize("backend", backends.params("residual"))
@pytest.mark.parametrize("kind", ["flat", "noise on flat", "identity", "white"])
def test_nothing_is_marked_where_there_is_nothing(kind: str, backend: str) -> None:
    row = found(evidence_tiles.case(kind), backend)
    assert not any(abs(p.z) > row.threshold[0] for p in row.places[0])
    assert np.isfinite(row.variance).all()
    assert np.isfinite(row.structure_z).all()


def test_tiles_do_not_depend_on_their_batch_nor_on_threads() -> None:
    backends.require("residual", "native")
    images = evidence_tiles.batch()
    rows = evidence_tiles.by_threads(lambda: found(images, "native"))
    alone = [found(one, "native") for one in evidence_tiles.one_by_one(images)]
    for k in (0, 1, 2, 3, 5):
        np.testing.assert_array_equal(rows[0][k], rows[1][k])
        np.testing.assert_array_equal(rows[0][k], np.concatenate([one[k] for one in alone]))
    assert rows[0].places == rows[1].places == [one.places[0] for one in alone]
