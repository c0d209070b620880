"""How images lie against a noisy one, on every backend against its definition in float64."""

from __future__ import annotations

import io
import math

import evidence_tiles
import numpy as np
import pytest
import torch
from PIL import Image

import backends
from semnr_kernels.likeness import FEW_LEVELS, Looks, likeness
from semnr_kernels.planes import Tiles

CASES = [(kind, 256, 256) for kind in (*evidence_tiles.KINDS, *evidence_tiles.DEGENERATE)]
CASES += [("holes", *size) for size in evidence_tiles.SIZES]
RELATIVE = 1e-6
PLACE = 1e-3  # px, also where the peak is a ridge


def found(images: evidence_tiles.Case, backend: str, given: str = "dr") -> list[Looks]:
    d, r = (Tiles(v) if name in given else None for name, v in (("d", images.d), ("r", images.r)))
    return backends.on(backend, likeness, Tiles(images.x), d, r)


def assert_like(one: list[Looks], other: list[Looks]) -> None:
    for a, b in zip(one, other, strict=True):
        for name, value, want in zip(Looks._fields, a, b, strict=True):
            near = PLACE if name in ("r_down", "r_right") else 1e-9
            assert value == pytest.approx(want, rel=RELATIVE, abs=near, nan_ok=True), name


def with_denoised(kind: str, denoised: np.ndarray) -> evidence_tiles.Case:
    x, _, r = evidence_tiles.case(kind)
    return evidence_tiles.Case(x, torch.from_numpy(np.array(denoised))[None, None], r)


@pytest.mark.parametrize("backend", backends.params("likeness"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_backend_gives_the_definition(case: tuple[str, int, int], backend: str) -> None:
    images = evidence_tiles.case(*case)
    assert_like(found(images, backend), found(images, "reference"))


@pytest.mark.parametrize("backend", backends.params("likeness"))
@pytest.mark.parametrize("given", ["", "d", "r"])
def test_what_is_not_given_is_not_told(given: str, backend: str) -> None:
    images = evidence_tiles.case("metal")
    row = found(images, backend, given)
    assert_like(row, found(images, "reference", given))
    told = {name.split("_")[0] for name, v in row[0]._asdict().items() if "_" in name and not math.isnan(v)}
    assert told == set(given)


@pytest.mark.parametrize("backend", backends.params("likeness"))
def test_a_scene_is_alike_inverted_moved_and_another(backend: str) -> None:
    x, _, r = evidence_tiles.case("metal")
    clean = r[0, 0].numpy().astype(np.float64)
    one = found(with_denoised("metal", clean), backend)[0]
    assert one.d_correlation > 0.97
    assert one.d_contrast == pytest.approx(1, abs=0.05)
    assert found(with_denoised("metal", 255 - clean), backend)[0].d_correlation < -0.97
    half = found(with_denoised("metal", 90 + 0.5 * clean), backend)[0]
    assert half.d_contrast == pytest.approx(0.5 * one.d_contrast, rel=1e-5)
    assert abs(found(with_denoised("metal", clean[::-1, ::-1]), backend)[0].d_correlation) < 0.5
    moved = torch.roll(r, (-5, 12), (2, 3))
    row = found(evidence_tiles.Case(x, x, moved), backend)[0]
    assert (row.r_down, row.r_right) == pytest.approx((-5, 12), abs=0.3)
    assert row.r_sure == 1


@pytest.mark.parametrize("backend", backends.params("likeness"))
def test_traces_are_told_where_the_noisy_image_has_them_not(backend: str) -> None:
    clean = evidence_tiles.case("holes").r[0, 0].numpy()
    file = io.BytesIO()
    noisy = evidence_tiles.case("holes").x[0, 0].numpy()
    Image.fromarray(noisy).save(file, "JPEG", quality=40)
    packed = np.asarray(Image.open(file))
    framed = np.pad(clean[5:-5, 5:-5], 5, constant_values=7)
    for denoised, want in ((packed, (1, 0, 0)), (clean // 32 * 32, (0, 8, 0)), (framed, (0, 0, 5))):
        for one in (backend, "reference"):
            row = found(with_denoised("holes", denoised), one)[0]
            told = (row.d_grid, row.d_levels, row.d_border)
            assert [bool(v) for v in told] == [bool(v) for v in want]
            assert told[2] == want[2]
            assert told[1] <= FEW_LEVELS
    images = with_denoised("holes", packed)
    same = evidence_tiles.Case(images.d, images.d, images.r)
    assert found(same, backend)[0].d_grid == 0


@pytest.mark.parametrize("backend", backends.params("likeness"))
def test_pixels_that_are_not_finite_silence_their_image_alone(backend: str) -> None:
    x, d, r = (v.clone() for v in evidence_tiles.case("float"))
    d[..., 7, 7] = math.nan
    images = evidence_tiles.Case(x, d, r)
    row = found(images, backend)[0]
    assert_like([row], found(images, "reference"))
    assert math.isnan(row.d_mean)
    assert row.r_correlation > 0.9


@pytest.mark.parametrize("backend", backends.params("likeness"))
def test_colours_are_averaged_and_large_values_reach_every_product(backend: str) -> None:
    x, d, r = (v.double() for v in evidence_tiles.case("holes"))
    grey = found(evidence_tiles.Case(x, d, r), backend)
    colours = evidence_tiles.Case(*(torch.cat([0.5 * v, v, 1.5 * v], 1) for v in (x, d, r)))
    assert_like(found(colours, backend), grey)
    large = found(evidence_tiles.Case(*(1e25 * v for v in (x, d, r))), backend)[0]
    assert large.d_correlation == pytest.approx(grey[0].d_correlation, abs=1e-6)
    assert (large.r_down, large.r_right) == pytest.approx((grey[0].r_down, grey[0].r_right), abs=PLACE)


def test_tiles_do_not_depend_on_their_batch_nor_on_threads() -> None:
    backends.require("likeness", "native")
    images = evidence_tiles.batch()
    rows = evidence_tiles.by_threads(lambda: found(images, "native"))
    alone = [found(one, "native")[0] for one in evidence_tiles.one_by_one(images)]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], alone)
