"""Synthetic SEM: its truth is measured back from the pixels, its noise from its statistics."""

from __future__ import annotations

import csv
import dataclasses
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage
from scipy.integrate import quad
from scipy.optimize import curve_fit
from skimage.measure import find_contours

from semnr import synth
from semnr.denoising import estimate_noise, fuse
from semnr.tiles import open_tiles

# No bloom, shadow, grain or shading: an edge is a blurred step between two levels.
PLAIN = dict(outside=0.25, inside=0.55, edge=0.0, shadow=0.0, texture=0.0, shading=0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- roughness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hurst", [0.3, 0.5, 0.8])
def test_the_spectrum_integrates_to_the_variance(hurst):
    # slow tails: the part above 1000 / ξ is the power law, integrated by hand
    head, _ = quad(lambda f: 2 * synth.roughness_psd(f, 1.7, 12.0, hurst), 0, 1000 / 12, limit=2000)
    f1 = 1000 / 12
    tail = 2 * synth.roughness_psd(f1, 1.7, 12.0, hurst) * f1 / (2 * hurst)
    assert head + tail == pytest.approx(1.7**2, rel=1e-3)


def test_at_hurst_one_half_the_spectrum_is_the_lorentzian():
    f = np.array([0.0, 0.01, 0.1])
    lorentzian = 2 * 1.5**2 * 20 / (1 + (2 * np.pi * f * 20) ** 2)
    np.testing.assert_allclose(synth.roughness_psd(f, 1.5, 20.0, 0.5), lorentzian, rtol=1e-12)


@pytest.mark.parametrize(("sigma", "xi", "hurst"), [(1.5, 15.0, 0.6), (0.8, 30.0, 0.4), (2.0, 20.0, 0.9)])
def test_sigma_correlation_length_and_hurst_come_back_from_the_spectrum(sigma, xi, hurst):
    spacing, n, count = 0.8, 2048, 800
    edges = synth.rough_edges(
        count, n, rng(1), spacing_nm=spacing, sigma_nm=sigma, correlation_nm=xi, hurst=hurst, periodic=True
    )
    f = np.fft.rfftfreq(n, spacing)[1:-1]
    measured = (np.abs(np.fft.rfft(edges, axis=1)[:, 1:-1]) ** 2).mean(axis=0) * spacing / n
    fitted, _ = curve_fit(
        lambda f, s, x, h: np.log(synth.roughness_psd(f, s, x, h)),
        f,
        np.log(measured),
        p0=(1.0, 10.0, 0.5),
        bounds=([0.1, 1, 0.05], [10, 200, 1.0]),
    )
    # 800 edges: each of 1023 points is good to 1/sqrt(800) = 3.5 %. The sampled spectrum ends at Nyquist, whose
    # missing tail the discrete normalisation puts back over all frequencies: 1 to 6 % of the variance at these ξ, H.
    assert fitted[0] == pytest.approx(sigma, rel=0.06)
    assert fitted[1] == pytest.approx(xi, rel=0.05)
    assert fitted[2] == pytest.approx(hurst, abs=0.02)
    assert np.sqrt((edges**2).mean()) == pytest.approx(sigma, rel=0.02)


def test_an_edge_cut_from_a_longer_period_has_the_exponential_autocovariance_of_hurst_one_half():
    edges = synth.rough_edges(20000, 64, rng(2), sigma_nm=1.2, correlation_nm=10.0, hurst=0.5)
    assert edges.std() == pytest.approx(1.2, rel=0.02)
    for lag in (5, 10, 20):
        covariance = (edges[:, :-lag] * edges[:, lag:]).mean()
        assert covariance == pytest.approx(1.44 * np.exp(-lag / 10), rel=0.05)
    # the ends of the cut know nothing of each other (a periodic edge would tie them: correlation exp(-1/10))
    assert abs(np.corrcoef(edges[:, 0], edges[:, -1])[0, 1]) < 0.03


@pytest.mark.parametrize(("edge_correlation", "expected"), [(1.0, 0.0), (0.0, 2.0), (-1.0, 4.0)])
def test_the_width_varies_as_the_correlation_of_the_two_edges_says(edge_correlation, expected):
    widths = []
    for seed in range(60):
        edges = synth.tile(
            "lines", (64, 160), seed=seed, ler_sigma_nm=1.5, correlation_nm=5, edge_correlation=edge_correlation
        ).truth.edges_px
        widths.append(edges[1::2] - edges[::2])
    variance = np.concatenate(widths).var()
    assert variance == pytest.approx(expected * 1.5**2, rel=0.08, abs=1e-9)


def test_the_roughness_of_a_tile_has_the_sigma_asked_for_in_nm_at_any_pixel_size():
    for pixel in (0.5, 2.0):
        deviations = []
        for seed in range(12):
            truth = synth.tile(
                "lines", (256, 400), seed=seed, pixel_nm=pixel, correlation_nm=10, ler_sigma_nm=1.3
            ).truth
            edges = truth.edges_px * pixel
            nominal = edges.mean(axis=1, keepdims=True)
            deviations.append(edges - nominal)
            np.testing.assert_allclose(truth.sigma_each_nm, edges.std(axis=1))
        # about an edge's own mean a little less than the sigma over all: sqrt(1 - 2ξ/L) = 0.92 at 128 nm
        assert np.concatenate(deviations).std() == pytest.approx(1.3 * np.sqrt(1 - 20 / (256 * pixel)), rel=0.06)


# --- geometry on the clean image ---------------------------------------------------------------------------------


def crossing(profile: np.ndarray, start: float, level: float, step: int) -> float:
    """From a place outside the line towards it: where the profile first rises above the level, linearly."""
    i = round(start)
    while profile[i] > level:  # begin below
        i -= step
    while profile[i + step] <= level:
        i += step
    return i + step * (level - profile[i]) / (profile[i + step] - profile[i])


def measured_edges(image: np.ndarray, truth: synth.Truth) -> np.ndarray:
    rows = image if truth.orientation == "vertical" else image.T
    out = np.empty_like(truth.edges_px)
    for e, edge in enumerate(truth.edges_px):
        step = 1 if e % 2 == 0 else -1
        for r in range(rows.shape[0]):
            out[e, r] = crossing(rows[r], edge[r] - 4 * step, truth.edge_level, step)
    return out


@pytest.mark.parametrize("pixel_nm", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("orientation", ["vertical", "horizontal"])
@pytest.mark.parametrize("look", [None, PLAIN], ids=["bloom", "plain"])
def test_the_cd_measured_by_threshold_on_the_clean_image_is_the_true_one(pixel_nm, orientation, look):
    tile = synth.tile("lines", (200, 200), pixel_nm=pixel_nm, seed=5, orientation=orientation, look=look)
    truth = tile.truth
    edges = measured_edges(tile.clean, truth)
    cd = (edges[1::2] - edges[::2]).mean(axis=1) * pixel_nm
    assert len(cd) >= 2
    np.testing.assert_allclose(cd, truth.cd_each_nm, atol=0.1 * pixel_nm)
    assert cd.mean() == pytest.approx(truth.cd_nm, abs=0.1 * pixel_nm)
    # each row of each edge too: blur along the line smooths what is shorter than the spot
    assert np.sqrt(((edges - truth.edges_px) ** 2).mean()) < 0.3
    assert abs((edges - truth.edges_px).mean()) < 0.05


def test_a_straight_edge_lies_at_its_sub_pixel_place_to_a_hundredth_of_a_pixel():
    for seed in range(6):
        tile = synth.tile("lines", (16, 128), seed=seed, ler_sigma_nm=0, look=PLAIN)
        assert tile.truth.edge_level == pytest.approx(0.4, abs=1e-6)  # midway, for a plain step
        assert np.abs(measured_edges(tile.clean, tile.truth) - tile.truth.edges_px).max() < 0.02


def test_a_line_off_its_place_by_half_a_pixel_would_be_seen():
    tile = synth.tile("lines", (16, 128), seed=1, ler_sigma_nm=0, look=PLAIN)
    moved = np.roll(tile.clean, 1, axis=1)
    assert (measured_edges(moved, tile.truth) - tile.truth.edges_px).mean() == pytest.approx(1.0, abs=0.02)


def contour_diameters(image: np.ndarray, truth: synth.Truth) -> np.ndarray:
    """Diameter of the circle of each contour's area, for the contour around each true centre."""
    found = []
    for contour in find_contours(image, truth.edge_level):
        (y, x), (yn, xn) = contour.T, np.roll(contour, -1, axis=0).T
        area = abs((x * yn - xn * y).sum()) / 2
        found.append((*contour.mean(axis=0), 2 * np.sqrt(area / np.pi)))
    found = np.array(found)
    nearest = [np.hypot(*(found[:, :2] - centre).T).argmin() for centre in truth.centres_px]
    np.testing.assert_allclose(found[nearest, :2], truth.centres_px, atol=2.5)  # a rough rim has no sharp centre
    return found[nearest, 2]


@pytest.mark.parametrize("pattern", ["holes", "vias"])
@pytest.mark.parametrize("staggered", [False, True])
def test_the_diameters_of_holes_and_plugs_are_the_true_ones(pattern, staggered):
    tile = synth.tile(pattern, (256, 256), seed=2, staggered=staggered, look=PLAIN)
    diameters = contour_diameters(tile.clean, tile.truth)
    assert len(diameters) >= 6
    # blur moves a curved edge towards its centre by σ²/2R = 0.07 px; on the diameter twice that
    np.testing.assert_allclose(diameters, tile.truth.cd_each_nm, atol=0.3)


def test_the_widths_of_wires_are_the_true_ones_away_from_their_vias():
    tile = synth.tile("metal", (256, 256), seed=4, look={**PLAIN, "glow": 0.0, "via": 0.55})
    truth = tile.truth
    assert len(truth.boxes_px) >= 4
    for (top, left, bottom, right), cd in zip(truth.boxes_px, truth.cd_each_nm, strict=True):
        assert bottom - top == pytest.approx(cd, abs=1e-4)
        cols = np.arange(int(max(left, 0)) + 30, int(min(right, 255)) - 30)
        widths = [crossing(tile.clean[::-1, c], 255 - bottom - 5, truth.edge_level, 1) for c in cols]
        tops = [crossing(tile.clean[:, c], top - 5, truth.edge_level, 1) for c in cols]
        measured = np.array([255 - w for w in widths]) - np.array(tops)
        if measured.size:
            assert np.median(measured) == pytest.approx(cd, abs=0.8)  # median: a jog may leave the wire


@pytest.mark.parametrize("pattern", synth.PATTERNS)
def test_without_roughness_every_feature_has_the_cd_asked_for(pattern):
    truth = synth.tile(pattern, (256, 256), seed=3, ler_sigma_nm=0, cd_nm=19.3, pixel_nm=0.9).truth
    assert len(truth.cd_each_nm) >= 3
    np.testing.assert_allclose(truth.cd_each_nm, 19.3, atol=1e-4)
    if pattern == "lines":
        np.testing.assert_allclose(np.diff(truth.edges_px[::2, 0]), 48 / 0.9)


def test_edges_bloom_by_the_decay_length_in_nm():
    look = dict(outside=0.2, inside=0.4, edge=0.3, edge_nm=12.0, shadow=0.0, spot_nm=0.0, texture=0.0, shading=0.0)
    for pixel in (0.5, 1.0):
        tile = synth.tile(
            "lines", (16, 600), seed=0, pitch_nm=220, cd_nm=110, ler_sigma_nm=0, pixel_nm=pixel, look=look
        )
        left = tile.truth.edges_px[0, 0]
        x = np.arange(int(left) + 3, int(left + 40 / pixel))
        rim = tile.clean[4, x] - 0.4
        slope = np.polyfit((x - left) * pixel, np.log(rim), 1)[0]
        assert -1 / slope == pytest.approx(12.0, rel=0.02)


def test_material_levels_and_grain_are_as_asked():
    tile = synth.tile("lines", (128, 256), seed=1, pitch_nm=120, ler_sigma_nm=0, look={**PLAIN, "texture": 0.02})
    left, right = tile.truth.edges_px[0, 0], tile.truth.edges_px[1, 0]
    inside = tile.clean[:, int(left) + 10 : int(right) - 10]
    assert inside.mean() == pytest.approx(0.55, abs=0.005)
    assert inside.std() == pytest.approx(0.02, rel=0.1)


# --- seeds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", synth.PATTERNS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(pattern):
    one, two, other = (synth.tile(pattern, (96, 120), seed=s, defects=["particle"]) for s in (3, 3, 4))
    assert one.clean.shape == (96, 120)
    assert one.clean.dtype == np.float64
    assert one.clean.min() >= 0
    assert one.clean.max() <= 1
    assert one.clean.tobytes() == two.clean.tobytes()
    assert one.noisy(dtype="uint8").tobytes() == two.noisy(dtype="uint8").tobytes()
    assert one.clean.tobytes() != other.clean.tobytes()
    assert one.noisy().tobytes() != one.noisy(frame=1).tobytes()
    assert one.noisy(seed=9).tobytes() == two.noisy(seed=9).tobytes() != one.noisy(seed=10).tobytes()


def test_tiles_that_share_a_layout_are_the_same_place_on_two_dies():
    a, b, c = (synth.tile("metal", (128, 128), seed=s, layout_seed=design) for s, design in ((1, 7), (2, 7), (1, 8)))
    np.testing.assert_allclose(a.truth.boxes_px, b.truth.boxes_px, atol=3)
    assert a.clean.tobytes() != b.clean.tobytes()
    assert np.abs(a.clean - b.clean).mean() < 0.3 * np.abs(a.clean - c.clean).mean()


# --- noise -------------------------------------------------------------------------------------------------------


def flat(level: float, shape: tuple[int, int] = (256, 256)) -> np.ndarray:
    return np.full(shape, level)


@pytest.mark.parametrize(
    "noise",
    [
        synth.Detector(),
        synth.Detector(dose=20, frames=1, read_noise=0.05, row_noise=0.0, correlation=0.0),
        synth.Detector(dose=50, frames=4, read_noise=0.03, row_noise=0.01, gain=0.8, offset=0.1),
    ],
    ids=["default", "white", "gain and frames"],
)
def test_the_variance_is_linear_in_the_mean_with_the_stated_law(noise):
    levels = np.linspace(0.05, 0.9, 8)
    images = [noise.apply(flat(v, (1024, 256)), rng(i)) for i, v in enumerate(levels)]
    means, variances = (np.array([f(image) for image in images]) for f in (np.mean, np.var))
    np.testing.assert_allclose(means, noise.gain * levels + noise.offset, atol=0.002)
    law = noise.law()
    # 262,144 pixels; with correlation 0.47 an effective 0.64 of them: the variance is good to 0.35 % (1 σ)
    np.testing.assert_allclose(variances, law.variance(means), rtol=0.02)
    fitted_a, fitted_b = np.polyfit(means, variances, 1)
    assert fitted_a == pytest.approx(law.gain, rel=0.02)
    assert fitted_b == pytest.approx(law.offset, abs=0.02 * law.gain)


def test_the_law_of_a_detector_is_the_model_that_a_denoiser_is_given():
    tool = synth.Detector(dose=50, frames=2, read_noise=0.03, row_noise=0.0, correlation=0.4, offset=0.1)
    law = tool.law(255.0)
    assert law.variance(100.0) == pytest.approx(255.0**2 * tool.law().variance(100.0 / 255.0))
    found = estimate_noise(synth.quantise(tool.apply(flat(0.4, (512, 512)), rng(7))), data_range=255.0)
    level = 255.0 * (0.4 + 0.1)
    assert found.variance(level) == pytest.approx(law.variance(level), rel=0.03)
    np.testing.assert_allclose(found.correlation, law.correlation, atol=0.02)


def correlation(noise: np.ndarray, rows: int, cols: int) -> float:
    h, w = noise.shape
    return float(np.corrcoef(noise[: h - rows, : w - cols].ravel(), noise[rows:, cols:].ravel())[0, 1])


@pytest.mark.parametrize("rho", [0.0, 0.47, 0.8])
def test_the_noise_is_correlated_along_the_line_by_rho_to_the_lag_and_not_across(rho):
    noise = synth.Detector(correlation=rho, row_noise=0.0).apply(flat(0.4, (512, 512)), rng(3)) - 0.4
    for lag in (1, 2, 3):
        assert correlation(noise, 0, lag) == pytest.approx(rho**lag, abs=0.015)
    assert abs(correlation(noise, 1, 0)) < 0.015
    assert abs(correlation(noise, 1, 1)) < 0.015


def test_the_correlation_leaves_the_variance_of_every_column_alone():
    noise = synth.Detector(correlation=0.8, row_noise=0.0).apply(flat(0.4, (20000, 16)), rng(4))
    np.testing.assert_allclose(noise.var(axis=0), 0.4 / 80 + 0.01**2, rtol=0.05)


def test_default_noise_is_that_of_the_real_pairs():
    # grey levels of 255: about 9 to 12 in the dark and 24 to 25 in the bright, correlation 0.46 to 0.49
    noise = synth.Detector()
    assert 255 * noise.apply(flat(0.11), rng(0)).std() == pytest.approx(10.5, abs=1.5)
    bright = noise.apply(flat(0.75), rng(1))
    assert 255 * bright.std() == pytest.approx(24.5, abs=1)
    assert 0.45 < correlation(bright - 0.75, 0, 1) < 0.49


def test_row_noise_moves_whole_rows_by_its_sigma():
    noise = synth.Detector(dose=1e8, read_noise=0.0, row_noise=0.02).apply(flat(0.5, (4000, 64)), rng(5))
    assert noise.mean(axis=1).std() == pytest.approx(0.02, rel=0.05)
    assert (noise - noise.mean(axis=1, keepdims=True)).std() < 1e-3
    assert abs(correlation(noise, 1, 0)) < 0.05


def test_averaging_n_frames_divides_the_variance_by_n_and_frames_are_independent():
    tile = synth.tile("lines", (256, 256), seed=1)
    one = tile.noisy(frames=1, offset=0.1, gain=0.5) - (0.5 * tile.clean + 0.1)
    sixteen = tile.noisy(frames=16, offset=0.1, gain=0.5) - (0.5 * tile.clean + 0.1)
    assert one.var() / sixteen.var() == pytest.approx(16, rel=0.04)
    frames = np.stack([tile.noisy(frame=k, offset=0.1, gain=0.5) for k in range(16)])
    mean = frames.mean(axis=0) - (0.5 * tile.clean + 0.1)
    assert mean.var() == pytest.approx(sixteen.var(), rel=0.05)
    again = frames[1] - (0.5 * tile.clean + 0.1)
    assert abs(np.corrcoef(one.ravel(), again.ravel())[0, 1]) < 0.02


def test_a_frame_that_drifts_shows_each_line_where_the_field_was_by_then():
    made = synth.tile("holes", (96, 128), seed=3)
    scan = synth.Scan(drift_px=(1.5, -4.0))
    for frame in (0, 2):
        seen = made.reference(scan=scan, frame=frame)
        for row in (20, 60):
            share = frame + row / 96
            moved = ndimage.shift(made.clean, (1.5 * share, -4.0 * share), order=3, mode="nearest")
            np.testing.assert_allclose(seen[row, 16:-16], np.clip(moved, 0, 1)[row, 16:-16], rtol=0, atol=1e-6)
    noise = made.noisy(dose=1e12, read_noise=0.0, row_noise=0.0, scan=scan, frame=2) - seen
    assert np.abs(noise).max() < 1e-4


def test_the_charging_trail_is_missing_behind_bright_structure_and_decays():
    bright = np.full((4, 200), 0.2)
    bright[:, 20:40] = 0.8
    seen = synth.Scan(trail=0.1, trail_px=20.0).apply(bright)
    behind = seen[0, 40:140] - seen[0, -1]
    assert behind[0] < -0.03
    slope = np.polyfit(np.arange(50), np.log(-behind[:50]), 1)[0]
    assert slope == pytest.approx(-1 / 20, rel=0.1)
    np.testing.assert_array_equal(synth.Scan().apply(bright), bright)


def test_the_noise_law_is_found_under_drift_and_charging():
    made = synth.tile("metal", 384, seed=5, look=dataclasses.replace(synth.render.LOOKS["metal"], shading=0.06))
    scan = synth.Scan(drift_px=(0.8, -1.7), trail=0.08)
    tool = synth.Detector(dose=100, read_noise=0.02, row_noise=0.0, correlation=0.45)
    found = estimate_noise(made.noisy(noise=tool, scan=scan), data_range=1.0)
    for level in (0.15, 0.4, 0.8):
        assert found.variance(level) == pytest.approx(tool.law().variance(level), rel=0.1)
    assert found.correlation[0] == pytest.approx(0.45, abs=0.04)


def test_frames_of_a_drifting_field_are_fused_as_the_first_one_shows_it():
    made = synth.tile("holes", 256, seed=3)
    scan = synth.Scan(drift_px=(0.9, -1.3), trail=0.05)
    frames = [made.noisy(scan=scan, frame=k) for k in range(4)]
    fused, moved = fuse(frames)
    np.testing.assert_allclose(moved, [(0.9 * k, -1.3 * k) for k in range(4)], rtol=0, atol=0.15)
    truth, inner = made.reference(scan=scan), np.s_[12:-12, 12:-12]
    errors = [((x - truth)[inner] ** 2).mean() for x in (fused, frames[0])]
    assert errors[0] < 0.35 * errors[1]  # four frames: a quarter of the noise


@pytest.mark.parametrize(
    ("dtype", "data_range", "top"),
    [
        ("uint8", None, 255),
        ("uint16", None, 65535),
        ("uint16", 1023, 1023),
        ("uint16", 4095, 4095),
        ("float32", None, 1),
    ],
)
def test_recordings_fill_and_keep_to_their_range(dtype, data_range, top):
    tile = synth.tile("metal", (96, 96), seed=2)
    noisy = tile.noisy(dose=3, dtype=dtype, data_range=data_range)
    assert noisy.dtype == np.dtype(dtype)
    assert noisy.min() == 0
    assert noisy.max() == top  # three electrons at full scale: both ends are reached, and clipped
    reference = tile.reference(dtype, data_range)
    rounding = 0.5 if np.dtype(dtype).kind == "u" else 1e-6
    assert np.abs(reference.astype(float) - top * tile.clean).max() <= rounding
    assert reference.dtype == noisy.dtype


# --- defects -----------------------------------------------------------------------------------------------------

HELD = [
    *(("lines", kind) for kind in ("bridge", "open", "particle", "scratch", "nick")),
    *(("holes", kind) for kind in ("bridge", "particle", "missing_hole", "scratch", "nick")),
    *(("vias", kind) for kind in ("bridge", "particle", "missing_hole", "scratch", "nick")),
    *(("metal", kind) for kind in synth.KINDS),
]


@pytest.mark.parametrize(("pattern", "kind"), HELD)
def test_a_defect_changes_its_mask_by_its_contrast_and_nothing_else(pattern, kind):
    for seed in (1, 2):
        without = synth.tile(pattern, (224, 240), seed=seed)
        tile = synth.tile(pattern, (224, 240), seed=seed, defects=[kind])
        (truth,) = tile.truth.defects
        change = tile.clean - without.clean
        mask = truth.mask()
        assert truth.kind == kind
        assert mask.shape == change.shape
        np.testing.assert_array_equal(change != 0, mask)
        assert truth.area_px == mask.sum()
        if pattern != "metal":  # whose saturated vias leave less of a change
            assert np.abs(change[mask]).min() > 0.99e-4
        assert change.flat[np.abs(change).argmax()] == pytest.approx(truth.contrast, abs=1e-12)
        assert abs(truth.contrast) > 0.02
        # what changes most lies in the box, and the box is centred on row, col
        strong = np.abs(change) > 0.5 * abs(truth.contrast)
        rows, cols = np.nonzero(strong)
        assert np.all(np.abs(rows - truth.row) <= truth.height_px / 2 + 6)  # the bloom lies outside
        assert np.all(np.abs(cols - truth.col) <= truth.width_px / 2 + 6)


def test_a_bridge_has_the_thickness_asked_for_and_spans_the_space():
    tile = synth.tile(
        "lines",
        (160, 200),
        seed=3,
        pixel_nm=0.8,
        look=PLAIN,
        defects=[synth.Defect("bridge", row=80.5, col=100, size_nm=9.6)],
    )
    (truth,) = tile.truth.defects
    assert truth.row == 80.5
    assert truth.height_px == pytest.approx(12.0)
    column = tile.clean[:, round(truth.col)]
    assert (column > 0.4).sum() == 12
    assert column.max() == pytest.approx(0.55, abs=0.01)
    left, right = truth.col - truth.width_px / 2, truth.col + truth.width_px / 2
    assert tile.clean[80, int(left) - 2 : int(right) + 3].min() > 0.5
    assert truth.width_px == pytest.approx(30, abs=8)  # 24 nm spaces, with roughness


def test_an_open_has_the_length_asked_for():
    tile = synth.tile(
        "lines",
        (160, 200),
        seed=3,
        orientation="horizontal",
        look=PLAIN,
        defects=[synth.Defect("open", row=70, col=90.5, size_px=14)],
    )
    (truth,) = tile.truth.defects
    assert truth.col == 90.5
    assert truth.width_px == pytest.approx(14)
    assert (tile.clean[round(truth.row)] < 0.4).sum() == 14


def test_a_nick_bites_as_deep_as_asked():
    plain = dict(seed=3, ler_sigma_nm=0, look=PLAIN)
    left = synth.tile("lines", (96, 160), **plain).truth.edges_px[0, 0]
    tile = synth.tile("lines", (96, 160), **plain, defects=[synth.Defect("nick", row=48, col=left, size_px=8)])
    (truth,) = tile.truth.defects
    assert (truth.row, truth.col) == (48, pytest.approx(left))
    assert (truth.height_px, truth.width_px) == (pytest.approx(16), pytest.approx(16))
    retreat = crossing(tile.clean[48], left - 6, 0.4, 1) - left
    assert retreat == pytest.approx(8, abs=0.5)
    assert crossing(tile.clean[48 + 12], left - 6, 0.4, 1) - left == pytest.approx(0, abs=0.1)


def test_a_particle_lies_where_it_was_put_with_its_diameter():
    tile = synth.tile("vias", (128, 128), seed=1, defects=[synth.Defect("particle", row=50.5, col=71.25, size_px=20)])
    (truth,) = tile.truth.defects
    assert (truth.row, truth.col, truth.height_px, truth.width_px) == (50.5, 71.25, 20, 20)
    change = np.abs(tile.clean - synth.tile("vias", (128, 128), seed=1).clean)
    rows, cols = np.nonzero(change > 0.01)
    assert rows.mean() == pytest.approx(50.5, abs=2)
    assert cols.mean() == pytest.approx(71.25, abs=2)


def test_a_missing_hole_leaves_the_flat_material_behind():
    tile = synth.tile(
        "holes",
        (200, 200),
        seed=1,
        look={"texture": 0.0, "shading": 0.0},
        defects=[synth.Defect("missing_hole", row=100, col=100)],
    )
    (truth,) = tile.truth.defects
    r, c = round(truth.row), round(truth.col)
    assert tile.clean[r - 6 : r + 7, c - 6 : c + 7] == pytest.approx(0.42, abs=0.01)
    assert min(np.hypot(*(tile.truth.centres_px - [truth.row, truth.col]).T)) < 1e-9


@pytest.mark.parametrize(("kind", "contrast", "signed"), [
    ("bridge", 0.07, 0.07), ("open", 0.07, -0.07), ("particle", 0.1, 0.1), ("particle", -0.1, -0.1),
    ("scratch", 0.05, 0.05), ("scratch", -0.05, -0.05),
])  # fmt: skip
def test_the_contrast_asked_for_is_the_contrast_given(kind, contrast, signed):
    tile = synth.tile("lines", (160, 160), seed=6, defects=[synth.Defect(kind, contrast=contrast)])
    change = tile.clean - synth.tile("lines", (160, 160), seed=6).clean
    assert change.flat[np.abs(change).argmax()] == pytest.approx(signed, abs=1e-9)
    assert tile.truth.defects[0].contrast == pytest.approx(signed, abs=1e-9)


def test_a_contrast_that_the_range_cuts_off_is_recorded_as_what_is_left():
    defect = synth.Defect("particle", row=40, col=40, size_px=16, contrast=1.0)
    tile, without = (synth.tile("vias", (96, 96), seed=1, defects=d) for d in ([defect], []))
    change = tile.clean - without.clean
    assert tile.clean.max() == 1.0
    assert tile.truth.defects[0].contrast == pytest.approx(change.max(), abs=1e-12)
    assert change.max() < 0.95


def test_several_defects_keep_apart_and_their_masks_cover_the_change():
    kinds = ["bridge", "open", "nick", "particle", "scratch"]
    tile = synth.tile("lines", (400, 400), seed=8, defects=kinds)
    assert [d.kind for d in tile.truth.defects] == kinds
    masks = np.stack([d.mask() for d in tile.truth.defects])
    change = tile.clean != synth.tile("lines", (400, 400), seed=8).clean
    np.testing.assert_array_equal(change, masks.any(axis=0))
    assert masks.sum(axis=0).max() == 1


# --- wafer -------------------------------------------------------------------------------------------------------


def small(**changes):
    options = dict(dies=5, sites_per_die=2, tile=48, seed=11, pattern=("lines", "holes"), defect_rate=0.5)
    return synth.SyntheticWafer(**(options | changes))


@pytest.mark.parametrize("die_size_mm", [(26.0, 33.0), (10.0, 10.0), (7.3, 4.1)])
def test_every_die_lies_inside_the_edge_exclusion_and_none_that_would_is_missing(die_size_mm):
    wafer = synth.SyntheticWafer(tile=32, die_size_mm=die_size_mm, diameter_mm=300, edge_exclusion_mm=4)
    w, h = die_size_mm
    corners = [(x + sx, y + sy) for x, y in wafer.dies for sx in (-0.5, 0.5) for sy in (-0.5, 0.5)]
    assert max(np.hypot(x * w, y * h) for x, y in corners) <= 146
    assert [0, 0] in wafer.dies.tolist()
    placed = {tuple(d) for d in wafer.dies.tolist()}
    for x, y in placed:  # a neighbour that is absent would reach past the radius
        for nx, ny in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            if (nx, ny) not in placed:
                assert np.hypot((abs(nx) + 0.5) * w, (abs(ny) + 0.5) * h) > 146


def test_in_die_and_wafer_coordinates_say_the_same_place():
    wafer = synth.SyntheticWafer(dies=20, sites_per_die=6, tile=32, die_size_mm=(20.0, 30.0))
    keys = list(wafer)
    assert len(keys) == len(wafer) == 120
    assert len({key.tile for key in keys}) == 120
    for i, key in enumerate(keys):
        m = key.meta
        assert (key.index, key.tile) == (i, f"t{i:06d}")
        assert 0 < m["x_um"] < 20000
        assert 0 < m["y_um"] < 30000
        # the centre die's centre is the wafer's centre
        assert m["wafer_x_um"] == pytest.approx(20000 * m["die_x"] + m["x_um"] - 10000, abs=2e-3)
        assert m["wafer_y_um"] == pytest.approx(30000 * m["die_y"] + m["y_um"] - 15000, abs=2e-3)
        # and back
        assert np.floor(m["wafer_x_um"] / 20000 + 0.5) == m["die_x"]
        assert np.floor(m["wafer_y_um"] / 30000 + 0.5) == m["die_y"]
        assert wafer.find(key.tile) == key
    assert wafer.find("t000120") is wafer.find("x") is wafer.find("t12") is None
    assert len({(k.meta["wafer_x_um"], k.meta["wafer_y_um"]) for k in keys}) == 120


def test_a_tile_depends_on_the_seed_and_its_index_alone():
    forward = [small().read(key, "noisy").tobytes() for key in small()]
    wafer = pickle.loads(pickle.dumps(small()))
    backward = [wafer.read(key, "noisy").tobytes() for key in reversed(list(wafer))][::-1]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda key: wafer.read(key, "image").tobytes(), wafer))
    assert forward == backward == threaded
    assert len(set(forward)) == len(forward)
    assert forward != [small(seed=12).read(key, "noisy").tobytes() for key in small()]


def test_the_dies_of_a_small_wafer_spread_over_the_large_one():
    wafer = synth.SyntheticWafer(dies=9, tile=32, die_size_mm=(10, 10))
    assert len({tuple(d) for d in wafer.dies.tolist()}) == 9
    assert wafer.dies[:, 1].min() < -8
    assert wafer.dies[:, 1].max() > 8


def test_a_wafer_serves_its_roles_and_the_second_frame_is_independent():
    wafer = small(second_frame=True, dtype="uint16", data_range=4095, dose=20, frames=2)
    assert wafer.roles == ("image", "noisy", "reference", "noisy_2")
    assert (wafer.data_range, wafer.pixel_nm) == (4095, 1.0)
    key = next(iter(wafer))
    image, noisy, reference, second = (wafer.read(key, role) for role in wafer.roles)
    np.testing.assert_array_equal(image, noisy)
    assert {a.dtype for a in (noisy, reference, second)} == {np.dtype("uint16")}
    assert max(a.max() for a in (noisy, reference, second)) <= 4095
    residuals = [(a.astype(float) - reference).ravel() for a in (noisy, second)]
    assert abs(np.corrcoef(*residuals)[0, 1]) < 0.1
    assert np.std(residuals[0]) > 100
    with pytest.raises(ValueError, match=r"role is 'noisy_2'; accepted: 'image', 'noisy', 'reference'"):
        small().read(key, "noisy_2")


def test_a_million_tiles_are_a_source_without_a_list_of_them():
    wafer = synth.SyntheticWafer(sites_per_die=20000, tile=64, defect_rate=0.1)
    assert len(wafer) > 1_000_000
    tracemalloc.start()
    last = wafer.find(f"t{len(wafer) - 1}")
    assert wafer.read(last).shape == (64, 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


def test_the_defect_rate_is_the_share_of_tiles_with_a_defect():
    wafer = synth.SyntheticWafer(
        dies=30, sites_per_die=10, tile=48, defect_rate=0.3, defect_kinds=("particle", "scratch")
    )
    found = [wafer.truth(i).defects for i in range(len(wafer))]
    assert sum(map(len, found)) == pytest.approx(90, abs=24)  # three sigma of a binomial
    assert {d.kind for one in found for d in one} == {"particle", "scratch"}
    # holes cannot be open: such tiles stay clean
    none = synth.SyntheticWafer(dies=5, tile=64, pattern="holes", defect_rate=1.0, defect_kinds=("open",))
    assert all(none.truth(key).defects == () for key in none)


@pytest.mark.parametrize(("name", "dtype", "top"), [("wafer.zarr", "uint8", 255), ("tiles", "uint16", 65535)])
def test_a_written_wafer_reads_back_as_the_wafer_with_the_truth_of_its_defects(tmp_path, name, dtype, top):
    wafer, calls = small(second_frame=True, dtype=dtype), []
    written = synth.write_wafer(tmp_path / name, wafer, progress=lambda *done: calls.append(done))
    assert calls == [(i, 10) for i in range(1, 11)]
    assert (written.tiles, written.tile_count) == (tmp_path / name, 10)
    stored = open_tiles(written.tiles)
    keys = list(stored)
    assert [key.tile for key in keys] == [key.tile for key in wafer]
    assert stored.pixel_nm == 1.0
    assert set(stored.roles) >= {"noisy", "reference", "noisy_2"}
    for key, original in zip(keys, wafer, strict=True):
        for role in ("noisy", "reference", "noisy_2"):
            pixels = stored.read(key, role)
            assert pixels.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(pixels, wafer.read(original, role))
        for column, value in original.meta.items():
            assert float(key.meta[column]) == value
    assert written.defects == (tmp_path if name.endswith("zarr") else tmp_path / name) / "defects.csv"
    with written.defects.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == written.defect_count == sum(len(wafer.truth(k).defects) for k in wafer) > 0
    assert list(rows[0]) == ["tile", "kind", "row", "col", "height_px", "width_px", "contrast"]
    for row in rows:
        (truth,) = wafer.truth(wafer.find(row["tile"])).defects
        assert row["kind"] == truth.kind
        assert float(row["contrast"]) == pytest.approx(truth.contrast * top, abs=1e-5)
        assert float(row["row"]) == pytest.approx(truth.row, abs=1e-3)
    before = written.defects.read_bytes()
    with pytest.raises(FileExistsError):
        synth.write_wafer(tmp_path / name, small(seed=1))
    assert written.defects.read_bytes() == before
    synth.write_wafer(tmp_path / name, small(seed=1), overwrite=True)
    assert written.defects.read_bytes() != before


@pytest.mark.parametrize("name", ["{}.zarr", "{}"], ids=["zarr", "tiff"])
def test_writing_a_wafer_holds_a_few_tiles_in_memory_however_many_there_are(tmp_path, name):
    def peak(sites: int) -> int:
        wafer = synth.SyntheticWafer(dies=2, sites_per_die=sites, tile=128, defect_rate=0.2)
        tracemalloc.start()
        synth.write_wafer(tmp_path / name.format(sites), wafer)
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return top

    peak(1)  # what is imported and cached the first time
    few, many = peak(10), peak(40)
    # 60 more tiles of two images: 2 MB as bytes, 16 MB in float64; a row of columns a tile is what may be kept
    assert many < few + 0.5e6


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: synth.tile("dots"), ValueError, "pattern is 'dots'; accepted: 'lines', 'holes', 'vias', 'metal'"),
        (lambda: synth.tile(shape=(8, 64)), ValueError, r"shape\[0\] is 8; accepted: an integer of at least 16"),
        (lambda: synth.tile(shape=(64, 64, 3)), TypeError, r"shape is \(64, 64, 3\); accepted: \(height, width\)"),
        (lambda: synth.tile(pixel_nm=0), ValueError, "pixel_nm is 0; accepted: a finite number above 0"),
        (lambda: synth.tile(cd_nm=60), ValueError, "cd_nm is 60 with pitch_nm 48"),
        (lambda: synth.tile(hurst=1.2), ValueError, "hurst is 1.2; accepted: .* above 0 and at most 1"),
        (lambda: synth.tile(ler_sigma_nm=float("nan")), ValueError, "ler_sigma_nm is nan"),
        (lambda: synth.tile(seed=-1), ValueError, "seed is -1; accepted: an integer of at least 0"),
        (lambda: synth.tile(seed=1.5), TypeError, "seed is 1.5"),
        (lambda: synth.tile(edge_correlation=2), ValueError, "edge_correlation is 2"),
        (lambda: synth.tile("holes", orientation="horizontal"), ValueError, "only lines can be turned"),
        (lambda: synth.tile(look={"rim": 1}), ValueError, "look has 'rim'; accepted: outside, inside"),
        (lambda: synth.tile(look={"spot_nm": -1}), ValueError, "look.spot_nm is -1"),
        (lambda: synth.tile(defects=["hole"]), ValueError, "kind is 'hole'; accepted: 'bridge', 'open'"),
        (lambda: synth.tile(defects=[3]), TypeError, "defects holds int"),
        (lambda: synth.tile("holes", defects=["open"]), ValueError, "kind is 'open'; accepted on this tile: 'bridge'"),
        (lambda: synth.Defect("open", row=3), ValueError, "row is 3 and col None; accepted: both"),
        (lambda: synth.Defect("open", size_nm=3, size_px=3), ValueError, "size_nm and size_px are both given"),
        (lambda: synth.Defect("open", contrast=0), ValueError, "contrast is 0"),
        (
            lambda: synth.tile(shape=64, defects=[synth.Defect("particle", row=-500, col=10)]),
            ValueError,
            "particle at row -500.0, col 10.0 changes no pixel",
        ),
        (lambda: synth.Detector(dose=0), ValueError, "dose is 0; accepted: a finite number above 0"),
        (lambda: synth.Detector(frames=0), ValueError, "frames is 0"),
        (lambda: synth.Detector(correlation=1), ValueError, "correlation is 1"),
        (lambda: synth.Scan(trail=2), ValueError, "scan.trail is 2; accepted: .* at most 1"),
        (lambda: synth.Scan(drift_px=(1.0,)), ValueError, "scan.drift_px is .*; accepted: two numbers"),
        (lambda: synth.tile(shape=32).noisy(noise=80), TypeError, "noise is int; accepted: a Detector, or a dict"),
        (lambda: synth.tile(shape=32).noisy(blur=1), TypeError, "unknown noise parameters 'blur'; accepted: dose"),
        (lambda: synth.tile(shape=32).noisy(dtype="int8"), ValueError, "dtype is 'int8'; accepted: 'uint8', 'uint16'"),
        (lambda: synth.tile(shape=32).noisy(dtype="uint8", data_range=300), ValueError, "data_range is 300 for uint8"),
        (lambda: synth.SyntheticWafer(dies=1000), ValueError, "dies is 1000; accepted: up to"),
        (lambda: synth.SyntheticWafer(edge_exclusion_mm=140), ValueError, "edge_exclusion_mm is 140"),
        (lambda: synth.SyntheticWafer(pattern=()), ValueError, "pattern is empty"),
        (lambda: synth.SyntheticWafer(defect_rate=2), ValueError, "defect_rate is 2"),
        (lambda: synth.SyntheticWafer(defect_kinds=()), ValueError, "defect_kinds is empty"),
        (lambda: synth.SyntheticWafer(options={"seed": 1}), ValueError, "options holds 'seed'"),
        (lambda: synth.SyntheticWafer(sites_per_die=10**6, tile=4096, pixel_nm=10), ValueError, "sites_per_die is"),
        (lambda: synth.SyntheticWafer(dies=1).key(1), ValueError, "index is 1; accepted: 0 to 0"),
        (lambda: synth.write_wafer("tiles", small(), form="zarr"), ValueError, "a name that ends in .z"),
        (lambda: synth.write_wafer("a.zarr", small(), form="hdf5"), ValueError, "form is 'hdf5'"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named_with_what_they_were_and_what_is_accepted(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("pattern", synth.PATTERNS)
def test_a_tile_smaller_than_its_pattern_is_still_a_tile(pattern):
    for seed in range(5):
        tile = synth.tile(pattern, (16, 24), seed=seed)
        assert np.isfinite(tile.clean).all()
        assert np.isnan(tile.truth.cd_nm) == (tile.truth.cd_each_nm.size == 0)
