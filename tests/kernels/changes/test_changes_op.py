"""What changed beside noise, on every backend against its definition in float64."""

from __future__ import annotations

import math

import evidence_tiles
import numpy as np
import pytest
import torch

import backends
from semnr_kernels.changes import NAMES, Figures, Noise, Settings, changes
from semnr_kernels.planes import Tiles

CASES = [(kind, 256, 256) for kind in (*evidence_tiles.KINDS, "constant rows", "rows alone")]
CASES += [("holes", *size) for size in evidence_tiles.SIZES]
ABSOLUTE = {"shift_y_px": 1e-6, "shift_x_px": 1e-6, "overshoot": 1e-6, "gain_change": 1e-6, "offset_change": 1e-8}
RELATIVE = {"transfer_bound": 1e-5}  # others: 2e-6
NOISE = Noise(180.0, (1.1, -0.5))  # grey levels²; taps of noise that correlates along the line
SETTINGS = Settings(255.0)


def found(
    case: evidence_tiles.Case, backend: str, settings: Settings = SETTINGS, given: str = "xdr", noise: Noise = NOISE
) -> list[Figures]:
    x, d, r = (Tiles(v) if name in given else None for name, v in zip("xdr", case, strict=True))
    return backends.on(backend, changes, x, d, r, settings, [noise] * len(case.d))


def assert_like(one: list[Figures], other: list[Figures]) -> None:
    for a, b in zip(one, other, strict=True):
        assert set(a) <= set(NAMES)
        for name in NAMES:
            (value, se), (want, want_se) = (v.get(name, (math.nan, math.nan)) for v in (a, b))
            near = pytest.approx(want, rel=RELATIVE.get(name, 2e-6), abs=ABSOLUTE.get(name, 1e-9), nan_ok=True)
            assert value == near, name
            error = 1e-3 if name == "transfer_bound" else 1e-4
            assert se == pytest.approx(want_se, rel=error, abs=1e-7, nan_ok=True), name


@pytest.mark.parametrize("backend", backends.params("changes"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_backend_gives_the_definition(case: tuple[str, int, int], backend: str) -> None:
    images = evidence_tiles.case(*case)
    assert_like(found(images, backend), found(images, "reference"))


@pytest.mark.parametrize("backend", backends.params("changes"))
@pytest.mark.parametrize("given", ["xd", "dr"])
def test_without_a_reference_or_without_the_noisy_image(given: str, backend: str) -> None:
    images = evidence_tiles.case("holes")
    assert_like(found(images, backend, given=given), found(images, "reference", given=given))


@pytest.mark.parametrize("backend", backends.params("changes"))
@pytest.mark.parametrize("settings", [Settings(255.0, -2), Settings()], ids=["columns", "no range"])
def test_lines_down_and_an_unknown_range(settings: Settings, backend: str) -> None:
    images = evidence_tiles.case("metal")
    assert_like(found(images, backend, settings), found(images, "reference", settings))


@pytest.mark.parametrize("backend", backends.params("changes"))
def test_a_gain_an_offset_and_a_shift_come_out(backend: str) -> None:
    x, _, r = evidence_tiles.case("holes")
    moved = torch.fft.fft2(x.double())
    fy, fx = torch.fft.fftfreq(256)[:, None], torch.fft.fftfreq(256)
    moved = torch.fft.ifft2(moved * torch.exp(-2j * torch.pi * (0.4 * fy - 1.3 * fx))).real
    row = found(evidence_tiles.Case(x, 0.9 * moved + 5, r), backend)[0]
    assert row["gain_change"][0] == pytest.approx(-0.1, abs=0.01)
    assert (row["shift_y_px"][0], row["shift_x_px"][0]) == pytest.approx((0.4, -1.3), abs=0.02)


@pytest.mark.parametrize("backend", backends.params("changes"))
@pytest.mark.parametrize("kind", ["flat", "noise on flat", "white"])
def test_what_a_tile_cannot_hold_is_not_told(kind: str, backend: str) -> None:
    row = found(evidence_tiles.case(kind), backend)[0]
    told = {name for name, (value, _) in row.items() if not math.isnan(value)}
    assert told <= {"offset_change", "row_noise_added"}


@pytest.mark.parametrize("backend", backends.params("changes"))
def test_pixels_that_are_not_finite_take_the_mean(backend: str) -> None:
    x, d, r = (v.clone() for v in evidence_tiles.case("float"))
    x[..., 30:33, 40:44], d[..., 7, 7] = math.nan, math.inf
    images = evidence_tiles.Case(x, d, r)
    assert_like(found(images, backend, Settings(1.0)), found(images, "reference", Settings(1.0)))


def filtered(response: float) -> tuple[evidence_tiles.Case, Noise]:
    """A scene under white noise of variance 100, and both times `response` in all frequencies."""
    rng = np.random.default_rng(3)
    scene = np.where((np.add.outer(np.arange(256), 2 * np.arange(256)) // 24) % 2 == 0, 90.0, 150.0)
    x = scene + rng.normal(0, 10, scene.shape)
    images = (torch.from_numpy(v)[None, None] for v in (x, 120 + response * (x - 120), scene))
    return evidence_tiles.Case(*images), Noise(100.0, (1.0,))


@pytest.mark.parametrize("backend", backends.params("changes"))
@pytest.mark.parametrize("response", [0.5, 1.0])
def test_the_bound_of_a_linear_filter_is_what_it_passes(response: float, backend: str) -> None:
    images, noise = filtered(response)
    row = found(images, backend, given="xd", noise=noise)[0]
    assert row["transfer_bound"][0] == pytest.approx(response, abs=0.01)
    assert 0 < row["transfer_bound"][1] < 0.02


@pytest.mark.parametrize("backend", backends.params("changes"))
def test_the_bound_of_the_scene_itself_is_one_and_of_half_its_contrast_a_half(backend: str) -> None:
    (x, _, scene), noise = filtered(1.0)
    for share in (1.0, 0.5):
        row = found(evidence_tiles.Case(x, 120 + share * (scene - 120), scene), backend, given="xd", noise=noise)[0]
        assert row["transfer_bound"][0] == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("backend", backends.params("changes"))
def test_the_bound_lies_above_the_transfer_where_noise_is_treated_otherwise_than_structure(backend: str) -> None:
    (x, _, scene), noise = filtered(1.0)
    rng = np.random.default_rng(4)
    own = torch.from_numpy(rng.normal(0, 30, scene.shape))  # what the denoiser adds of its own
    row = found(evidence_tiles.Case(x, 120 + 0.7 * (scene - 120) + own, scene), backend, noise=noise)[0]
    assert row["transfer_bound"][0] > 0.7 + 5 * row["transfer_bound"][1]


@pytest.mark.parametrize("noise", [None, Noise(0.0, (1.0,)), Noise(1e6, (1.0,))], ids=["unknown", "none", "all noise"])
def test_without_noise_or_structure_nothing_bounds_the_transfer(noise: Noise | None) -> None:
    x, d, _ = filtered(0.5)[0]
    row = changes(Tiles(x), Tiles(d), None, SETTINGS, [noise])[0]
    assert math.isnan(row.get("transfer_bound", (math.nan,))[0])


def test_tiles_do_not_depend_on_their_batch_nor_on_threads() -> None:
    backends.require("changes", "native")
    images = evidence_tiles.batch()
    rows = evidence_tiles.by_threads(lambda: found(images, "native"))
    alone = [found(one, "native")[0] for one in evidence_tiles.one_by_one(images)]
    for k in range(3):
        for name in rows[0][k]:
            np.testing.assert_array_equal(rows[0][k][name], rows[1][k][name])
            np.testing.assert_array_equal(rows[0][k][name], alone[k][name])
