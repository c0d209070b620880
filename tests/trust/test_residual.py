"""The residual held against the noise: calibrated on noise alone, one lost or invented defect found, real pairs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

import cases
import semnr
from semnr.denoising import NoiseModel, estimate_noise
from semnr.synth import Detector, tile
from semnr.synth.detector import first_order, quantise
from semnr_kernels.residual.scanning import Scan, scan, threshold
from semnr_kernels.residual.templates import Shape, bank, template

RNG = np.random.default_rng
RHO, SIZES = 0.47, (3.0, 4.2, 6.0, 8.5, 12.0)
WHITEN = np.array([1, -RHO]) / math.sqrt(1 - RHO**2)
DETECTOR = Detector(dose=80.0, correlation=RHO)


def line_noise(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Noise of variance 1 that correlates by RHO along the rows."""
    u = rng.standard_normal((count, side, side))
    for plane in u:
        first_order(plane, RHO)
    return u


def square(image: np.ndarray, row: int, col: int, height: float) -> np.ndarray:
    out = image.copy()
    out[row - 3 : row + 3, col - 3 : col + 3] += height
    return out


def scene(pattern: str = "lines", side: int = 192, seed: int = 0) -> np.ndarray:
    return tile(pattern, side, seed=seed).clean


def frame(clean: np.ndarray, seed: int) -> np.ndarray:
    return quantise(DETECTOR.apply(np.clip(clean, 0, 1), RNG(seed)), "uint8").astype(np.float32)


def sigma_of(level: float) -> float:
    return float(DETECTOR.law().sigma(level))


def judged(x: np.ndarray, d: np.ndarray, **options):  # type: ignore[no-untyped-def]
    """Of a frame and of a denoised image on the 0-1 scale."""
    return semnr.residual_tests(x, (255 * d).astype(np.float32), data_range=255.0, **options)


def all_of(found: Scan) -> torch.Tensor:
    return torch.stack([found.z(k) for k in range(len(found.shapes))])


def near(box: dict, row: float, col: float) -> bool:
    return math.hypot(box["row"] - row, box["col"] - col) <= 4


# --- the scan --------------------------------------------------------------------------------------------------


def test_z_of_noise_alone_is_normal_for_every_shape() -> None:
    found = scan(torch.from_numpy(line_noise(RNG(0), 6, 192)).float(), [WHITEN] * 6, SIZES)
    assert found.shapes == bank(SIZES)
    inner = all_of(found)[..., 16:-16, 16:-16]
    np.testing.assert_allclose(inner.std((1, 2, 3)).numpy(), 1, atol=0.04)
    np.testing.assert_allclose(inner.mean((1, 2, 3)).numpy(), 0, atol=0.05)


def test_a_lone_bump_reaches_the_z_of_the_ideal_observer() -> None:
    """Judge: zᵀz = tᵀ C⁻¹ t with the covariance matrix of the noise written out."""
    t = template(Shape(6.0))
    side = t.shape[0]
    lags = np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    want = math.sqrt(sum(float(row @ np.linalg.solve(RHO**lags, row)) for row in t))
    image = np.zeros((1, 128, 128))
    image[0, 60 : 60 + side, 60 : 60 + side] = 3 * t
    found = scan(torch.from_numpy(image).float(), [WHITEN], SIZES)
    k = found.shapes.index(Shape(6.0))
    middle = 60 + side // 2
    z = found.z(k)[0]
    assert np.unravel_index(int(z.argmax()), (128, 128)) == (middle, middle)
    # a little less: the surroundings are taken off (Gaussian of 12 px)
    assert 0.95 * 3 * want < float(z.max()) <= 3 * want
    assert float(z.max() / found.gain[k, 0]) == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("side", [96, 256])
def test_the_threshold_is_exceeded_by_noise_as_often_as_it_says(side: int) -> None:
    count, alpha = (500, 0.1) if side == 96 else (120, 0.2)
    found = scan(torch.from_numpy(line_noise(RNG(1), count, side)).float(), [WHITEN] * count, SIZES)
    limit = threshold(float(found.density[0]), side * side, alpha)
    share = float((all_of(found).abs().amax((0, 2, 3)) > limit).float().mean())
    assert share <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / count)
    assert share > alpha / 3  # nor is it far on the safe side


def test_a_large_image_is_scanned_by_windows_with_the_z_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    u = torch.from_numpy(line_noise(RNG(2), 1, 300)[:, :260]).float()
    whole = scan(u, [WHITEN], SIZES)
    monkeypatch.setattr("semnr_kernels.residual.scanning._CORE", 100)
    cut = scan(u, [WHITEN], SIZES)
    assert len(cut.windows) == 9
    np.testing.assert_allclose(all_of(cut), all_of(whole), atol=0.02)
    np.testing.assert_allclose(cut.gain, whole.gain, rtol=1e-3)
    np.testing.assert_allclose(cut.density, whole.density, rtol=0.01)
    np.testing.assert_allclose(cut.power, whole.power, rtol=0.15)


def test_the_whitening_taps_of_a_noise_model_are_those_of_its_process() -> None:
    first = NoiseModel(1.0, 0.0, correlation=tuple(RHO**k for k in range(1, 5)))
    np.testing.assert_allclose(first.whitening(3), [*WHITEN, 0, 0], atol=1e-12)
    np.testing.assert_allclose(NoiseModel(1.0, 0.0).whitening(), [1.0])
    f = np.fft.fftfreq(512)
    spectrum = first.spectrum(f)
    assert spectrum.mean() == pytest.approx(1, abs=1e-6)
    assert spectrum[0] == pytest.approx((1 + RHO) / (1 - RHO), rel=1e-6)
    np.testing.assert_allclose(np.fft.ifft(spectrum).real[1:4], [RHO, RHO**2, RHO**3], atol=1e-6)
    impossible = NoiseModel(1.0, 0.0, correlation=(0.9, -0.9, 0.9))  # of no process
    assert np.isfinite(impossible.whitening()).all()
    assert (impossible.spectrum(f) > 0).all()


# --- a denoiser that takes noise alone -------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["lines", "metal"])
def test_intact_tiles_look_like_their_noise_and_are_not_marked(pattern: str) -> None:
    clean = np.stack([scene(pattern, 192, seed) for seed in range(12)])[:, None]
    x = np.stack([frame(c[0], 50 + k) for k, c in enumerate(clean)])[:, None]
    found = judged(x, clean)
    np.testing.assert_allclose(found.variance, 1, atol=0.06)
    assert (found.spectrum < 0.12).all()
    assert abs(found.structure_z.mean()) < 1.2
    assert (found.removed_count + found.invented_count).sum() == 0
    assert all(boxes == [] for boxes in found.boxes)
    assert found.boxes_json() == [None] * 12


@pytest.mark.parametrize("model", ["nlm", "wavelet", "median", "gaussian"])
def test_classical_denoisers_mark_no_intact_tile(model: str) -> None:
    clean = [scene(pattern, 192, 3) for pattern in ("lines", "holes", "vias", "metal")]
    x = np.stack([frame(c, 70 + k) for k, c in enumerate(clean)])
    d = semnr.denoise(x, model=model, data_range=255.0, workers=1)
    found = semnr.residual_tests(x[:, None], d[:, None], data_range=255.0)
    assert (found.removed_count + found.invented_count).sum() == 0


def test_each_figure_of_the_tile_sees_its_own_fault() -> None:
    clean = scene("lines", 256, 5)
    x = frame(clean, 6)
    good = judged(x, clean)
    blurred = judged(x, ndimage.gaussian_filter(clean, 2.5))
    assert blurred.structure_z[0] > 8 > abs(good.structure_z[0])
    assert blurred.variance[0] > good.variance[0] + 0.05
    kept = judged(x, clean + 0.5 * (x / 255 - clean))  # half of the noise is left in
    assert kept.variance[0] == pytest.approx(0.25, abs=0.05)
    white = RNG(7).standard_normal(clean.shape) * sigma_of(0.4)
    low = judged(x, clean + ndimage.gaussian_filter(x / 255 - clean, 2.0))  # its smooth part alone
    assert low.spectrum[0] > 3 * good.spectrum[0]
    assert np.isfinite(judged(x, clean + 0.1 * white).spectrum).all()


def test_row_noise_and_slow_shading_are_no_lost_structure() -> None:
    clean = scene("lines", 192, 8)
    rows = np.linspace(-1, 1, 192)[:, None]
    x = frame(clean, 9) + 4 * RNG(10).standard_normal((192, 1)).astype(np.float32)
    found = judged(x, clean + 0.01 * rows)
    assert found.removed_count[0] + found.invented_count[0] == 0


# --- one defect ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["lines", "holes", "metal"])
def test_one_erased_and_one_invented_defect_are_found_where_they_are_and_told_apart(pattern: str) -> None:
    hits = []
    for seed in range(6):
        rng = RNG((seed, 11))
        clean = scene(pattern, 192, 20 + seed)
        (r, c), (r2, c2) = rng.integers(20, 80, 2), rng.integers(110, 170, 2)
        sign = rng.choice((-1, 1))
        with_it = square(clean, r, c, sign * 3 * sigma_of(clean[r, c]))
        x = frame(with_it, 30 + seed)
        made = square(clean, r2, c2, -sign * 4 * sigma_of(clean[r2, c2]))
        found = judged(x, made)
        boxes = found.boxes[0]
        hits += [any(near(b, r, c) and b["kind"] == "removed" for b in boxes)]
        hits += [any(near(b, r2, c2) and b["kind"] == "invented" for b in boxes)]
        assert len(boxes) <= 3
        if hits[-2:] == [True, True]:
            assert found.removed_count[0] >= 1 <= found.invented_count[0]
            assert found.removed_z[0] > found.threshold[0] < found.invented_z[0]
    assert np.mean(hits) >= 0.9


def test_a_fainter_loss_shows_in_the_mean_of_several_frames() -> None:
    clean = scene("lines", 160, 40)
    with_it = square(clean, 80, 70, 1.3 * sigma_of(clean[80, 70]))
    frames = [frame(with_it, 60 + k) for k in range(6)]
    one, six = (judged(v, clean) for v in (frames[0], np.mean(frames, axis=0)))
    assert one.removed_count[0] == 0
    assert any(near(b, 80, 70) for b in six.boxes[0])


def test_the_map_is_signed_and_lies_where_the_boxes_lie() -> None:
    clean = scene("lines", 160, 41)
    x = frame(square(clean, 40, 50, 4 * sigma_of(clean[40, 50])), 42)
    made = square(clean, 110, 100, 5 * sigma_of(clean[110, 100]))
    found = judged(x, made, return_maps=True)
    shown = found.maps["evidence"]
    assert shown.shape == (1, 160, 160)
    assert shown.dtype == np.float32
    assert shown[0, 36:44, 46:54].max() > found.threshold[0]
    assert shown[0, 106:114, 96:104].min() < -found.threshold[0]
    whole = semnr.evidence(x, (255 * made).astype(np.float32), return_maps=True, data_range=255.0)
    np.testing.assert_array_equal(whole.maps["evidence"], shown)
    assert whole.tests.boxes == found.boxes
    assert json.loads(found.boxes_json()[0]) == found.boxes[0]


def test_columns_as_scan_lines_are_the_transpose() -> None:
    clean = scene("metal", 160, 43)
    x = frame(square(clean, 50, 90, 4 * sigma_of(clean[50, 90])), 44)
    plain, turned = judged(x, clean), judged(x.T.copy(), clean.T.copy(), scan_axis=-2, return_maps=True)
    np.testing.assert_allclose(turned.removed_z, plain.removed_z, rtol=1e-5)
    (box,), (other,) = plain.boxes[0], turned.boxes[0]
    assert (box["row"], box["col"]) == (other["col"], other["row"])
    assert near(box, 49.5, 89.5)
    at = np.unravel_index(np.abs(turned.maps["evidence"][0]).argmax(), (160, 160))
    assert math.hypot(at[0] - 89.5, at[1] - 49.5) <= 4


# --- masks, batches, arguments ---------------------------------------------------------------------------------


def test_masked_pixels_neither_count_nor_get_marked() -> None:
    clean = scene("lines", 160, 45)
    x = frame(clean, 46)
    spoilt = x.copy()
    spoilt[60:80, 60:80] = 255
    mask = np.ones((160, 160), bool)
    mask[58:82, 58:82] = False
    assert judged(spoilt, clean).removed_count[0] > 0
    assert judged(spoilt, clean, mask=mask).removed_count[0] == 0
    holed = x.copy()
    holed[60:80, 60:80] = np.nan
    assert judged(holed, clean, nan="omit").removed_count[0] == 0
    with pytest.raises(ValueError, match="noisy has 400 non-finite"):
        judged(holed, clean)


def test_a_batch_gives_the_rows_of_its_tiles_and_a_given_noise_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = np.stack([scene("lines", 128, 50 + k) for k in range(4)])[:, None]
    x = np.stack([frame(c[0], k) for k, c in enumerate(clean)])[:, None]
    monkeypatch.setattr("semnr_kernels.residual.reference._CHUNK_PIXELS", 3 * 128 * 128)
    whole, one = judged(x, clean), judged(x[2:3], clean[2:3])
    for name, values in whole.columns().items():
        np.testing.assert_allclose(one.columns()[name], values[2:3], rtol=1e-4, atol=1e-4)
    model = estimate_noise(x[:, 0], data_range=255.0)
    doubled = NoiseModel(4 * model.gain, 4 * model.offset, correlation=model.correlation)
    single, louder = (judged(x, clean, noise=m) for m in (model, doubled))
    np.testing.assert_allclose(louder.variance, single.variance / 4, rtol=0.02)
    assert single.noise == (model,) * 4
    assert "4 tile(s)" in str(single)
    assert single.to_dict()["residual_variance"] == pytest.approx(single.variance.tolist())


@pytest.mark.parametrize("image", ["flat", "equal"])
def test_frames_without_noise_are_no_error(image: str) -> None:
    x = np.full((64, 64), 7.0) if image == "flat" else cases.lines(64, 64)
    found = semnr.residual_tests(x, x)
    assert found.removed_count[0] == 0
    assert np.isfinite(found.variance).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0}, "alpha is 0"),
        ({"sizes": (1.0,)}, "sizes is"),
        ({"sizes": "x"}, "sizes is"),
        ({"nan": "propagate"}, "nan is 'propagate'"),
        ({"scan_axis": 1}, "scan_axis is 1"),
        ({"noise": 3.0}, "noise is float"),
        ({"noise": [NoiseModel(1.0, 0.0)] * 2}, "noise has 2 models"),
        ({"noisy": np.zeros((16, 64)), "denoised": np.zeros((16, 64))}, "noisy is 16 x 64"),
        ({"denoised": np.zeros((64, 60))}, "denoised has shape"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    x = np.zeros((64, 64))
    with pytest.raises((TypeError, ValueError), match=message):
        semnr.residual_tests(**{"noisy": x, "denoised": x, **change})


def test_a_defect_erased_from_a_real_frame_is_found_and_the_frame_itself_is_not_marked() -> None:
    """Real noise (FEI, correlated along the line): bumps added to the noisy scan, a denoiser that never saw them."""
    hits, marked = [], []
    for k, (_, noisy, _, _) in enumerate(sorted(cases.real_pairs(), key=lambda pair: pair[0])):
        x = noisy.astype(np.float32)[12:-12, 12:-12]
        d = semnr.denoise(x, model="nlm", data_range=255.0, workers=1)
        marked.append(semnr.residual_tests(x, d, data_range=255.0))
        model, rng = estimate_noise(x, data_range=255.0), RNG(k)
        for at in ((80, 90), (80, 300), (300, 90), (300, 300)):
            r, c = np.array(at) + rng.integers(-30, 30, 2)
            level = float(d[r - 3 : r + 3, c - 3 : c + 3].mean())
            if level + 4 * model.sigma(level) > 250:  # it would be clipped
                continue
            spoilt = square(x, int(r), int(c), 3 * float(model.sigma(level)))
            boxes = semnr.residual_tests(spoilt, d, data_range=255.0).boxes[0]
            hits.append(any(near(b, r, c) for b in boxes))
    assert len(hits) >= 10
    assert np.mean(hits) >= 0.9
    assert sum(m.removed_count[0] + m.invented_count[0] for m in marked) <= 1
