"""Edges, CD and roughness against synthetic patterns whose truth is known to a fraction of a pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.special import erf

import semnr.synth as synth
from semnr.metrology import columns, compare_lines, edge_psd, find_edges, measure_holes, roughness

SNR = 3.0  # step between line and space over the pixel noise, as the lines' look has it
STEP = synth.render.LOOKS["lines"].inside - synth.render.LOOKS["lines"].outside


def noisy(clean: np.ndarray, seed: int, along_scan: float = 0.0) -> np.ndarray:
    white = np.random.default_rng(seed).standard_normal(clean.shape)
    for j in range(1, clean.shape[1] if along_scan else 0):
        white[:, j] = along_scan * white[:, j - 1] + np.sqrt(1 - along_scan**2) * white[:, j]
    return clean + STEP / SNR * white


def ramp_lines(edges: list[float], height: int = 96, width: int = 128, blur: float = 1.2) -> np.ndarray:
    """Straight lines whose edges are error functions, bright between edges 0 and 1, 2 and 3, ..."""
    x = np.arange(width)
    profile = sum((-1) ** i * 0.5 * (1 + erf((x - e) / (blur * np.sqrt(2)))) for i, e in enumerate(edges))
    return np.tile(0.2 + 0.5 * profile, (height, 1))


def with_truth(seed: int, along_scan: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(found, true) places of the edges of whole lines in one tile at SNR 3, and the noisy image."""
    made = synth.tile("lines", (512, 512), seed=seed)
    image = noisy(made.clean, seed, along_scan)
    edges = find_edges(image, level=made.truth.edge_level)
    true, pairs = made.truth.edges_px, []
    for pair in edges.lines:
        near = [int(np.abs(true.mean(axis=1) - edges.positions[i].mean()).argmin()) for i in pair]
        if near[0] % 2 == 0 and near[1] == near[0] + 1:
            pairs += list(zip(pair, near, strict=True))
    return np.stack([edges.positions[i] for i, _ in pairs]), np.stack([true[j] for _, j in pairs]), image


@pytest.fixture(scope="module", params=[0.0, 0.48], ids=["white", "correlated along the scan"])
def many(request):
    parts = [with_truth(seed, request.param) for seed in range(12)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def test_straight_edges_are_placed_where_they_are() -> None:
    edges = [20.37, 41.81, 70.5, 95.02]
    found = find_edges(ramp_lines(edges), level=0.45)
    np.testing.assert_allclose(found.positions.mean(axis=1), edges, atol=0.02)
    np.testing.assert_allclose(found.positions.std(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(found.cd_px, [21.44, 24.52], atol=0.03)
    assert found.rising.tolist() == [True, False, True, False]


def test_horizontal_lines_are_vertical_ones_turned() -> None:
    image = ramp_lines([20.37, 41.81, 70.5, 95.02])
    turned = find_edges(image.T)
    assert turned.orientation == "horizontal"
    np.testing.assert_allclose(turned.positions, find_edges(image).positions, atol=1e-9)


def test_scale_and_offset_of_the_grey_levels_change_nothing() -> None:
    image = noisy(synth.tile("lines", (128, 256), seed=3).clean, 3)
    np.testing.assert_allclose(find_edges(40000 + 900 * image).positions, find_edges(image).positions, atol=1e-6)


def test_mean_cd_at_snr_3_is_within_a_tenth_of_a_pixel(many) -> None:
    found, true = many
    assert len(found) >= 200
    cd = (found[1::2] - found[::2]).mean(axis=1) - (true[1::2] - true[::2]).mean(axis=1)
    assert abs(cd.mean()) <= 0.1
    assert cd.std() < 0.2


def test_edges_at_snr_3_are_placed_to_half_a_pixel_rms(many) -> None:
    found, true = many
    assert np.sqrt(((found - true) ** 2).mean()) < 0.5


def test_unbiased_roughness_at_snr_3_is_within_five_percent_and_below_the_biased_one(many) -> None:
    found, true = many
    measured = roughness(found)
    truth = 3 * np.sqrt(true.var(axis=1).mean())
    assert measured.refused == ""
    assert measured.unbiased == pytest.approx(truth, rel=0.05)
    assert measured.biased > measured.unbiased
    # the error of a place is the noise that the floor says
    assert measured.noise == pytest.approx((found - true).std(axis=1).mean(), rel=0.15)
    assert measured.correlation == pytest.approx(20, rel=0.2)


def test_known_noise_on_known_edges_is_taken_off() -> None:
    rng = np.random.default_rng(0)
    edges = synth.rough_edges(200, 512, rng, sigma_nm=1.0, correlation_nm=20.0)
    measured = roughness(edges + 0.5 * rng.standard_normal(edges.shape))
    assert measured.noise == pytest.approx(0.5, rel=0.03)
    assert measured.unbiased == pytest.approx(3 * np.sqrt(edges.var(axis=1).mean()), rel=0.02)


def test_in_nanometres_everything_scales_with_the_pixel() -> None:
    rng = np.random.default_rng(1)
    edges = synth.rough_edges(50, 256, rng) + 0.5 * rng.standard_normal((50, 256))
    px, nm = roughness(edges), roughness(edges, pixel_nm=2.5)
    assert (px.unit, nm.unit) == ("px", "nm")
    for name in ("biased", "unbiased", "noise", "correlation"):
        assert getattr(nm, name) == pytest.approx(2.5 * getattr(px, name))


def test_the_psd_of_white_noise_is_flat_and_sums_to_its_variance() -> None:
    noise = np.random.default_rng(2).standard_normal((400, 256))
    frequency, density = edge_psd(noise, pixel_nm=2.0)
    assert density.sum() * frequency[0] == pytest.approx(4.0, rel=0.03)
    assert density[20:60].mean() == pytest.approx(density[-40:].mean(), rel=0.05)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_after_a_filter_the_unbiased_figure_is_refused(sigma) -> None:
    """Smoothing along the edge takes the plateau; what would be subtracted is no noise floor any more."""
    rng = np.random.default_rng(3)
    edges = synth.rough_edges(60, 512, rng) + 0.5 * rng.standard_normal((60, 512))
    measured = roughness(gaussian_filter1d(edges, sigma, axis=1))
    assert np.isnan(measured.unbiased)
    assert "plateau is missing" in measured.refused
    assert measured.biased > 0


def test_too_few_places_for_a_plateau_are_refused_with_the_count() -> None:
    measured = roughness(np.random.default_rng(4).standard_normal((1, 64)))
    assert "the plateau holds" in measured.refused


def test_a_blur_shows_as_lost_octaves_and_a_refused_figure_not_as_a_better_one() -> None:
    made = synth.tile("lines", (512, 512), seed=5)
    image = noisy(made.clean, 5)
    found = compare_lines(image, gaussian_filter(image, 3.0), level=made.truth.edge_level)
    assert found.before.refused == ""
    assert found.after.refused
    ratio = {round(longest): r for longest, _, r in found.bands}
    assert ratio[256] == pytest.approx(1, abs=0.15)  # long waves pass
    assert ratio[16] < 0.5  # 16 to 8 px are gone
    assert found.edge_rms > 0.2


def test_an_image_compared_with_itself_changes_nothing() -> None:
    image = noisy(synth.tile("lines", (256, 256), seed=6).clean, 6)
    found = compare_lines(image, image)
    assert (found.cd_shift, found.edge_rms) == (0, 0)


def test_a_shift_of_cd_is_measured() -> None:
    edges = [20.0, 41.0, 70.0, 95.0]
    wide = [e + (0.3 if i % 2 else -0.3) for i, e in enumerate(edges)]
    found = compare_lines(ramp_lines(edges), ramp_lines(wide), level=0.45, pixel_nm=2.0)
    assert found.cd_shift == pytest.approx(1.2, abs=0.05)
    assert found.unit == "nm"


def test_holes_have_the_diameter_of_their_truth() -> None:
    made = synth.tile("holes", (512, 512), seed=7, ler_sigma_nm=0.0)
    holes = measure_holes(made.clean, level=made.truth.edge_level, smooth=0.0)
    assert len(holes) >= 40
    assert np.mean([h.cd_px for h in holes]) == pytest.approx(made.truth.cd_nm, abs=0.5)
    assert max(h.roundness for h in holes) < 0.5
    rough = measure_holes(synth.tile("holes", (512, 512), seed=7, ler_sigma_nm=2.0).clean, smooth=0.0)
    assert np.median([h.roundness for h in rough]) > 3 * np.median([h.roundness for h in holes])


def test_a_disc_and_an_ellipse_of_known_size() -> None:
    y, x = np.mgrid[:96, :96] - 47.3
    disc = 0.5 * (1 + erf((np.hypot(y, x) - 20) / 1.5))
    (hole,) = measure_holes(disc, level=0.5, smooth=0.0)
    assert hole.cd_px == pytest.approx(40, abs=0.05)
    assert hole.roundness < 0.02
    assert hole.centre == pytest.approx((47.3, 47.3), abs=0.02)
    ellipse = 0.5 * (1 + erf((np.hypot(y, x / 1.2) - 20) / 1.5))
    (hole,) = measure_holes(1 - ellipse, level=0.5, smooth=0.0, dark=False)
    assert hole.roundness == pytest.approx(3 * 2.0 / np.sqrt(2), rel=0.1)  # the radius swings by ±2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_edges(np.zeros((8, 8))), r"image has shape \(8, 8\)"),
        (lambda: find_edges(np.zeros((64, 64))), "its mean profile is flat"),
        (lambda: find_edges(np.full((64, 64), np.nan)), "non-finite"),
        (lambda: find_edges(ramp_lines([20.0, 60.0]), orientation="up"), "orientation is 'up'"),
        (lambda: find_edges(ramp_lines([20.0, 60.0]), level=9.0), "level is 9, which the edge"),
        (lambda: roughness(np.zeros((3, 10))), r"positions has shape \(3, 10\)"),
        (lambda: roughness(np.full((3, 100), np.inf)), "non-finite"),
        (
            lambda: compare_lines(ramp_lines([20.0, 60.0]), ramp_lines([20.0, 60.0, 80.0, 100.0])),
            "before has 2 edges and after 4",
        ),
        (lambda: measure_holes(np.zeros((64, 64))), "no holes"),
        (lambda: measure_holes(np.zeros((64, 64, 3))), "image has shape"),
        (lambda: measure_holes(np.zeros((64, 64)), smooth=-1), "smooth is -1"),
    ],
)
def test_bad_input_is_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- columns of a scored run ----------------------------------------------------------------------------------


def test_columns_of_lines_give_cd_roughness_and_places_against_noisy_and_reference() -> None:
    made = synth.tile("lines", (256, 256), seed=8)
    image = noisy(made.clean, 8)
    blurred = gaussian_filter(image, 2.0)
    found = columns(np.stack([image, image]), np.stack([blurred, image]), np.stack([made.clean] * 2), pixel_nm=2.0)
    assert found["edge_rms_px"][1] == 0
    assert found["cd_change_px"][1] == 0
    assert found["edge_rms_px"][0] > 0.2
    np.testing.assert_allclose(found["cd_nm"], 2 * found["cd_px"])
    np.testing.assert_allclose(found["cd_bias_px"][1], 0, atol=0.3)
    # the plateau is there in the unfiltered frame and gone after the blur, whose figure is refused
    assert found["unbiased_ok"].tolist() == [0.0, 1.0]
    assert np.isnan(found["ler_unbiased_px"][0])
    assert found["ler_unbiased_px"][1] < found["ler_px"][1]
    np.testing.assert_allclose(found["ler_change_px"], found["ler_px"] - found["ler_noisy_px"])
    assert found["edge_psd_16_8"][0] < 0.9 < found["edge_psd_16_8"][1]
    assert found["edge_error_px"][1] == pytest.approx(found["edge_error_noisy_px"][1])


def test_columns_without_noisy_or_reference_hold_what_one_image_shows() -> None:
    image = noisy(synth.tile("lines", (256, 256), seed=9).clean, 9)
    found = columns(None, image[None])
    assert found["cd_px"][0] == pytest.approx(25.4, abs=1.0)
    assert found["unbiased_ok"][0] == 1
    for name in ("cd_change_px", "edge_rms_px", "lwr_noisy_px", "cd_bias_px"):
        assert np.isnan(found[name][0])


def test_columns_of_holes_give_diameter_roundness_and_how_many_were_lost() -> None:
    made = synth.tile("holes", (256, 256), seed=10)
    image = noisy(made.clean, 10)
    filled = image.copy()
    hole = measure_holes(made.clean)[6]  # in the middle of the tile
    row, col, r = (round(v) for v in (*hole.centre, 0.8 * hole.cd_px))
    filled[row - r : row + r, col - r : col + r] = np.percentile(made.clean, 75)
    found = columns(np.stack([image] * 2), np.stack([image, filled]), None, kind="holes")
    assert found["holes_lost"].tolist() == [0, 1]
    assert found["cd_change_px"][0] == 0
    true = np.mean([h.cd_px for h in measure_holes(made.clean, smooth=0.0)])
    assert found["cd_px"][0] == pytest.approx(true, abs=0.5)
    wide = columns(made.clean[None], gaussian_filter(made.clean, 2.5)[None], kind="holes")
    assert abs(wide["cd_change_px"][0]) > 0.5


@pytest.mark.parametrize(("kind", "other"), [("lines", "holes"), ("holes", "lines"), ("lines", "metal")])
def test_a_tile_that_shows_another_pattern_has_no_metrology(kind, other) -> None:
    clean = synth.tile(other, (256, 256), seed=11).clean
    found = columns(noisy(clean, 11)[None], clean[None], clean[None], kind=kind)
    assert np.isnan(np.stack(list(found.values()))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: columns(None, np.zeros((1, 64, 64)), kind="vias"), "kind is 'vias'"),
        (lambda: columns(None, np.zeros((64, 64))), r"denoised has shape \(64, 64\)"),
        (lambda: columns(np.zeros((2, 64, 64)), np.zeros((1, 64, 64))), r"noisy has shape \(2, 64, 64\)"),
    ],
)
def test_bad_batches_are_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
