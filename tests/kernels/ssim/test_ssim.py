"""SSIM and MS-SSIM: the definition against independent libraries, every backend against the definition."""

from __future__ import annotations

import math

import numpy as np
import piq
import pytest
import pytorch_msssim
import torch
import torchmetrics.functional.image as tm
from skimage.metrics import structural_similarity

import backends
import cases
import tolerances
from semnr_kernels.ssim import ms_ssim, ssim, window_taps


@pytest.fixture(params=backends.params("ssim"))
def backend(request: pytest.FixtureRequest) -> str:
    return backends.require("ssim", request.param)


def pair(shape: tuple[int, ...] = (2, 1, 61, 73), dtype: torch.dtype = torch.float64, seed: int = 0):
    rng = np.random.default_rng(seed)
    y = torch.from_numpy(rng.random(shape))
    y = torch.nn.functional.avg_pool2d(y, 3, 1, 1)  # some structure
    x = (y + 0.1 * torch.from_numpy(rng.standard_normal(shape))).clamp(0, 1)
    if dtype in (torch.uint8, torch.uint16):
        top = torch.iinfo(dtype).max
        return tuple(torch.from_numpy((v.numpy() * top).round().astype(str(dtype)[6:])) for v in (x, y))
    return x.to(dtype), y.to(dtype)


on = backends.on


# --- the definition -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 11, 11), (2, 3, 40, 37), (3, 1, 96, 64)], ids=str)
def test_the_reference_equals_piq_without_downsampling(shape: tuple[int, ...]) -> None:
    x, y = pair(shape)
    ours = ssim(x, y, data_range=1.0, reduction="none", backend="reference")
    theirs = piq.ssim(x, y, downsample=False, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerances.PEER_FLOAT64)


@pytest.mark.parametrize("size", [(64, 64), (61, 73)], ids=str)
def test_the_reference_equals_scikit_image_with_a_gaussian_window(size: tuple[int, int]) -> None:
    x, y = pair((1, 1, *size))
    theirs = structural_similarity(
        x[0, 0].numpy(), y[0, 0].numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(x, y, data_range=1.0, backend="reference").item() == pytest.approx(theirs, abs=tolerances.PEER_FLOAT64)


def test_a_constant_pair_has_the_hand_computed_value() -> None:
    """No variance: SSIM is the luminance term alone."""
    x, y = torch.full((20, 20), 0.2, dtype=torch.float64), torch.full((20, 20), 0.6, dtype=torch.float64)
    c1 = 0.01**2
    expected = (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1)
    assert ssim(x, y, data_range=1.0).item() == pytest.approx(expected, abs=1e-12)


def test_one_uniform_window_has_the_hand_computed_value() -> None:
    x = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    c1, c2 = 1e-4, 9e-4
    mu, var, cov = 1 / 3, 2 / 9, 0.0  # cov = 1/9 - 1/9
    expected = (2 * mu * mu + c1) / (2 * mu * mu + c1) * (2 * cov + c2) / (2 * var + c2)
    got = ssim(x, y, data_range=1.0, window="uniform", window_size=3)
    assert got.item() == pytest.approx(expected, abs=1e-12)


def test_the_three_terms_multiply_to_the_map_where_windows_are_single() -> None:
    x, y = pair((1, 1, 11, 11))
    result = ssim(x, y, data_range=1.0, components=True)
    product = math.prod(v.item() for v in result.components.values())
    assert set(result.components) == {"luminance", "contrast", "structure"}
    assert product == pytest.approx(result.value.item(), abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (2, 3, 97, 81), (1, 1, 600, 520)], ids=str)
def test_the_piq_preset_equals_piq_as_it_comes(shape: tuple[int, ...]) -> None:
    x, y = pair(shape)
    theirs = piq.ssim(x, y, reduction="none")
    ours = ssim(x, y, data_range=1.0, convention="piq", reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerances.PEER_PRESET)


def test_the_skimage_preset_equals_scikit_image_as_it_comes() -> None:
    x, y = pair((1, 1, 61, 73))
    theirs = structural_similarity(x[0, 0].numpy(), y[0, 0].numpy(), data_range=1.0)
    ours = ssim(x, y, data_range=1.0, convention="skimage").item()
    assert ours == pytest.approx(theirs, abs=tolerances.PEER_PRESET)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_torchmetrics_preset_equals_torchmetrics_as_it_comes(channels: int) -> None:
    x, y = pair((2, channels, 61, 73))
    theirs = tm.structural_similarity_index_measure(x, y, data_range=1.0)
    ours = ssim(x, y, data_range=1.0, convention="torchmetrics")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerances.PEER_PRESET)


def test_what_is_passed_overrides_the_preset() -> None:
    x, y = pair((1, 1, 61, 73))
    theirs = structural_similarity(x[0, 0].numpy(), y[0, 0].numpy(), data_range=1.0, win_size=9)
    ours = ssim(x, y, data_range=1.0, convention="skimage", window_size=9).item()
    assert ours == pytest.approx(theirs, abs=tolerances.PEER_PRESET)


def test_nothing_is_downsampled_unless_asked() -> None:
    """piq's default halves a 512 px image: quite another number."""
    x, y = pair((1, 1, 520, 512))
    native = ssim(x, y, data_range=1.0)
    assert abs(native - piq.ssim(x, y)) > 0.01
    torch.testing.assert_close(ssim(x, y, data_range=1.0, downsample=2), piq.ssim(x, y), rtol=0, atol=1e-9)


# --- MS-SSIM --------------------------------------------------------------------------------------------------

MS_SHAPES = [(2, 1, 176, 192), (1, 3, 177, 203), (1, 1, 161, 170)]


@pytest.mark.parametrize("shape", MS_SHAPES, ids=str)
def test_ms_ssim_equals_piq_on_even_and_odd_sizes(shape: tuple[int, ...]) -> None:
    x, y = pair(shape)
    theirs = piq.multi_scale_ssim(x, y, reduction="none")
    ours = ms_ssim(x, y, data_range=1.0, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerances.PEER_FLOAT64)


@pytest.mark.parametrize("shape", MS_SHAPES, ids=str)
def test_ms_ssim_presets_equal_pytorch_msssim_and_torchmetrics(shape: tuple[int, ...]) -> None:
    x, y = pair(shape)
    window = torch.tensor(window_taps("gaussian", 11, 1.5), dtype=torch.float64).reshape(1, 1, 1, 11)
    # its own window is float32 and sums to 1 - 3e-8: give it ours, so that only the definition is compared
    theirs = pytorch_msssim.ms_ssim(x, y, data_range=1.0, win=window.repeat(shape[1], 1, 1, 1))
    ours = ms_ssim(x, y, data_range=1.0, convention="pytorch-msssim")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerances.PEER_FLOAT64)
    if shape[2] >= 176:  # torchmetrics refuses less
        theirs = tm.multiscale_structural_similarity_index_measure(x, y, data_range=1.0)
        ours = ms_ssim(x, y, data_range=1.0, convention="torchmetrics")
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerances.PEER_PRESET)


def test_negative_terms_of_ms_ssim_are_clamped_to_zero() -> None:
    y = torch.from_numpy(np.random.default_rng(0).random((1, 1, 176, 176)))
    assert ssim(1 - y, y, data_range=1.0) < 0
    assert ms_ssim(1 - y, y, data_range=1.0).item() == 0.0


def test_ms_ssim_names_the_smallest_size_that_it_accepts() -> None:
    x, y = pair((1, 1, 160, 200))
    with pytest.raises(ValueError, match="sides of at least 161 pixels"):
        ms_ssim(x, y, data_range=1.0)


# --- every backend against the definition ---------------------------------------------------------------------


def pedestal(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, float]:
    rng = np.random.default_rng(seed)
    y = 40000 + 20 * rng.standard_normal((1, 1, 128, 128))
    x = y + 6 * rng.standard_normal(y.shape)
    return torch.from_numpy(x), torch.from_numpy(y), 400.0


def gradient_image() -> tuple[torch.Tensor, torch.Tensor, float]:
    """A charging gradient across the tile, under a pedestal, with a little noise."""
    rng = np.random.default_rng(3)
    ramp = np.linspace(30000, 42000, 128)[None, :] + np.zeros((128, 1))
    y = ramp + 30 * rng.standard_normal(ramp.shape)
    x = ramp + 30 * rng.standard_normal(ramp.shape)
    return torch.from_numpy(x[None, None]), torch.from_numpy(y[None, None]), 65535.0


def two_level() -> tuple[torch.Tensor, torch.Tensor, float]:
    columns = np.arange(128)
    y = np.where(columns // 8 % 2 == 0, 0.1, 0.9)[None, :] + np.zeros((128, 1))
    x = np.roll(y, 1, axis=1)
    return torch.from_numpy(x[None, None]), torch.from_numpy(y[None, None]), 1.0


def random_image() -> tuple[torch.Tensor, torch.Tensor, float]:
    return (*pair((1, 1, 128, 128)), 1.0)


def flat() -> tuple[torch.Tensor, torch.Tensor, float]:
    y = torch.full((1, 1, 128, 128), 0.7, dtype=torch.float64)
    return y + 0.01, y, 1.0


HARD = {"pedestal": pedestal, "random": random_image, "flat": flat, "gradient": gradient_image}


@pytest.mark.parametrize("case", HARD, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint16], ids=str)
def test_a_backend_is_within_1e_7_of_the_definition(backend: str, case: str, dtype: torch.dtype) -> None:
    x, y, scale = HARD[case]()
    if dtype == torch.uint16:
        if scale < 2:  # bring the 0-1 images to 16 bit
            x, y, scale = x * 60000, y * 60000, 65535.0
        x, y = (torch.from_numpy(v.round().numpy().astype(np.uint16)) for v in (x, y))
    else:
        x, y = x.to(dtype), y.to(dtype)
    expected, expected_map = ssim(x, y, data_range=scale, return_map=True, precision="float64", backend="reference")
    got, got_map = on(backend, ssim, x, y, data_range=scale, return_map=True)
    assert abs(got.item() - expected.item()) <= tolerances.SSIM_MEAN
    assert (got_map.double() - expected_map).abs().max().item() <= tolerances.SSIM_MAP


def test_a_backend_stays_within_its_bound_on_noise_free_two_level_lines(backend: str) -> None:
    x, y, scale = two_level()
    x, y = x.float(), y.float()
    expected, expected_map = ssim(x, y, data_range=scale, return_map=True, precision="float64", backend="reference")
    got, got_map = on(backend, ssim, x, y, data_range=scale, return_map=True)
    assert abs(got.item() - expected.item()) <= tolerances.SSIM_MEAN_ANY
    assert (got_map.double() - expected_map).abs().max().item() <= tolerances.SSIM_MAP_ANY


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 11, 11), (2, 3, 33, 47), (1, 1, 130, 67)], ids=str)
def test_every_dtype_and_odd_shape_is_scored_on_its_own_values(
    backend: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    x, y = pair(shape, dtype)
    scale = None if dtype in (torch.uint8, torch.uint16) else 1.0
    wide_scale = 1.0 if scale else float(torch.iinfo(dtype).max)
    expected = ssim(x.double(), y.double(), data_range=wide_scale, reduction="none", backend="reference")
    got = on(backend, ssim, x, y, data_range=scale, reduction="none")
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerances.SSIM_MEAN)


@pytest.mark.parametrize(
    "options",
    [
        {"window": "uniform", "window_size": 7},
        {"window": "uniform", "window_size": 8 + 1},
        {"window_size": 5, "sigma": 0.8},
        {"window_size": 21, "sigma": 3.0},
        {"window_size": 1},
        {"border": "reflect"},
        {"k1": 0.02, "k2": 0.05},
        {"convention": "skimage"},
        {"convention": "torchmetrics"},
        {"downsample": 2},
    ],
    ids=str,
)
def test_every_option_means_the_same_on_every_backend(backend: str, options: dict) -> None:
    x, y = pair((2, 1, 61, 73), torch.float32)
    expected = ssim(x, y, data_range=1.0, reduction="none", backend="reference", **options)
    got = on(backend, ssim, x, y, data_range=1.0, reduction="none", **options)
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerances.SSIM_MEAN)


def test_float64_precision_is_within_1e_9(backend: str) -> None:
    for x, y, scale in (case() for case in HARD.values()):
        expected = ssim(x, y, data_range=scale, precision="float64", backend="reference")
        got = on(backend, ssim, x, y, data_range=scale, precision="float64")
        assert abs(got.item() - expected.item()) <= tolerances.SSIM_MEAN_FLOAT64


def test_components_mean_the_same_on_every_backend(backend: str) -> None:
    x, y = pair((2, 1, 40, 50), torch.float32)
    expected = ssim(x, y, data_range=1.0, components=True, backend="reference").components
    got = on(backend, ssim, x, y, data_range=1.0, components=True).components
    for name, value in expected.items():
        assert got[name].item() == pytest.approx(value.item(), abs=1e-6)


# --- masks and NaN --------------------------------------------------------------------------------------------


def test_a_mask_of_a_rectangle_equals_brute_force_normalised_windows(backend: str) -> None:
    x, y = pair((1, 1, 24, 26))
    mask = torch.zeros((24, 26), dtype=torch.bool)
    mask[4:18, 6:23] = True
    mask[10, 11] = False
    taps = np.array(window_taps("gaussian", 11, 1.5))
    weights = np.outer(taps, taps)
    values, coverage = [], []
    c1, c2 = 1e-4, 9e-4
    a, b, m = x[0, 0].numpy(), y[0, 0].numpy(), mask.numpy()
    for row in range(5, 19):
        for column in range(5, 21):
            if not m[row, column]:
                continue
            part = np.s_[row - 5 : row + 6, column - 5 : column + 6]
            w = weights * m[part]
            coverage.append(w.sum())
            w = w / w.sum()
            mx, my = (w * a[part]).sum(), (w * b[part]).sum()
            vx, vy = (w * (a[part] - mx) ** 2).sum(), (w * (b[part] - my) ** 2).sum()
            cov = (w * (a[part] - mx) * (b[part] - my)).sum()
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2)))
    result = on(backend, ssim, x, y, data_range=1.0, mask=mask, details=True, precision="float64")
    assert result.value.item() == pytest.approx(np.mean(values), abs=1e-9)
    assert float(result.coverage[0]) == pytest.approx(np.mean(coverage), abs=1e-6)


def test_a_full_mask_changes_nothing(backend: str) -> None:
    x, y = pair((2, 1, 40, 40), torch.float32)
    plain = ssim(x, y, data_range=1.0, backend="reference")
    masked = on(backend, ssim, x, y, data_range=1.0, mask=torch.ones(40, 40, dtype=torch.bool))
    torch.testing.assert_close(masked, plain, rtol=0, atol=tolerances.SSIM_MEAN)


def test_masked_pixels_never_matter_not_even_nan(backend: str) -> None:
    x, y = pair((1, 1, 40, 40), torch.float32)
    mask = torch.ones((40, 40), dtype=torch.bool)
    mask[10:14, 20:30] = False
    plain = on(backend, ssim, x, y, data_range=1.0, mask=mask)
    x[..., 11, 22], x[..., 12, 23] = float("nan"), 1e9
    assert on(backend, ssim, x, y, data_range=1.0, mask=mask).item() == plain.item()


def test_an_image_without_a_valid_window_is_nan_with_a_flag() -> None:
    x, y = pair((2, 1, 20, 20))
    mask = torch.ones((2, 1, 20, 20), dtype=torch.bool)
    mask[0] = False
    result = ssim(x, y, data_range=1.0, mask=mask, reduction="none", details=True)
    assert torch.isnan(result.value).tolist() == [True, False]
    assert "undefined" in result.flags[0]


def test_one_nan_pixel_is_an_error_spoils_its_image_or_is_left_out(backend: str) -> None:
    """piq raises an assertion, others return NaN for the whole batch."""
    x, y = pair((2, 1, 40, 40), torch.float32)
    x[0, 0, 20, 20] = float("nan")
    with pytest.raises(ValueError, match="x has 1 non-finite pixels"):
        on(backend, ssim, x, y, data_range=1.0)
    value, ssim_map = on(backend, ssim, x, y, data_range=1.0, nan="propagate", return_map=True, reduction="none")
    assert torch.isnan(value).tolist() == [True, False]
    assert int(torch.isnan(ssim_map[0]).sum()) == 11 * 11  # the windows that hold it, no more
    omitted = on(backend, ssim, x, y, data_range=1.0, nan="omit", reduction="none")
    assert torch.isfinite(omitted).all()


# --- traps of other libraries ---------------------------------------------------------------------------------


def test_a_16_bit_pedestal_does_not_cost_accuracy(backend: str) -> None:
    """True SSIM by two-pass NumPy; float32 moments about zero miss it by 0.03 to 0.12."""
    x, y, scale = pedestal()
    taps = np.array(window_taps("gaussian", 11, 1.5))
    w = np.outer(taps, taps)
    a = np.lib.stride_tricks.sliding_window_view(x[0, 0].numpy(), (11, 11))
    b = np.lib.stride_tricks.sliding_window_view(y[0, 0].numpy(), (11, 11))
    mx, my = (a * w).sum((2, 3)), (b * w).sum((2, 3))
    da, db = a - mx[..., None, None], b - my[..., None, None]
    vx, vy, cov = (da * da * w).sum((2, 3)), (db * db * w).sum((2, 3)), (da * db * w).sum((2, 3))
    c1, c2 = (0.01 * scale) ** 2, (0.03 * scale) ** 2
    true = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert on(backend, ssim, x, y, data_range=scale, precision="float64").item() == pytest.approx(true, abs=1e-9)
    # x and y rounded to float32 are other images: 0.002 grey levels apart at 40,000
    assert on(backend, ssim, x.float(), y.float(), data_range=scale).item() == pytest.approx(true, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16], ids=str)
def test_integer_images_score_as_their_values(backend: str, dtype: torch.dtype) -> None:
    """pytorch-msssim returns 1.0 on uint8; torchmetrics raises; all three raise on uint16."""
    x, y = pair((1, 1, 64, 64), dtype)
    top = float(torch.iinfo(dtype).max)
    theirs = structural_similarity(
        x[0, 0].numpy().astype(np.float64),
        y[0, 0].numpy().astype(np.float64),
        data_range=top,
        gaussian_weights=True,
        use_sample_covariance=False,
    )
    got = on(backend, ssim, x, y).item()
    assert got == pytest.approx(theirs, abs=tolerances.SSIM_MEAN)
    assert got < 0.99


def test_ssim_never_exceeds_one_nor_does_variance_go_negative(backend: str) -> None:
    rng = np.random.default_rng(0)
    for level in (0.0, 1e-6, 0.5, 1.0, 1000.0, 65535.0):
        y = torch.from_numpy((level + 1e-5 * rng.standard_normal((1, 1, 40, 40))).astype(np.float32))
        value, ssim_map = on(backend, ssim, y.clone(), y, data_range=max(level, 1.0), return_map=True)
        assert value.item() == pytest.approx(1.0, abs=1e-6)
        assert float(ssim_map.max()) <= 1.0 + 1e-6


# --- gradients ------------------------------------------------------------------------------------------------


def test_gradcheck_of_the_definition() -> None:
    x, y = (v.requires_grad_() for v in pair((1, 2, 13, 12)))
    assert torch.autograd.gradcheck(lambda a, b: ssim(a, b, data_range=1.0, backend="reference"), (x, y))
    mask = torch.rand((13, 12), generator=torch.Generator().manual_seed(0)) > 0.2
    assert torch.autograd.gradcheck(lambda a: ssim(a, y.detach(), data_range=1.0, mask=mask, backend="reference"), (x,))


def test_gradgradcheck_of_the_definition() -> None:
    x, y = (v.requires_grad_() for v in pair((1, 1, 7, 6)))
    assert torch.autograd.gradgradcheck(
        lambda a, b: ssim(a, b, data_range=1.0, window_size=5, backend="reference"), (x, y)
    )


def test_gradcheck_of_ms_ssim() -> None:
    x, y = pair((1, 1, 9, 10))
    x.requires_grad_()
    function = lambda a: ms_ssim(a, y, data_range=1.0, window_size=3, weights=(0.4, 0.6))  # noqa: E731
    assert torch.autograd.gradcheck(function, (x,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_match_the_float64_reference(backend: str, dtype: torch.dtype) -> None:
    for x, y, scale in (case() for case in (*HARD.values(), two_level)):
        grads = {}
        for name, kind in (("reference", torch.float64), (backend, dtype)):
            a, b = (v.to(dtype).to(kind).clone().requires_grad_() for v in (x, y))
            precision = "float64" if kind == torch.float64 else "float32"
            on(name, ssim, a, b, data_range=scale, precision=precision).backward()
            grads[name] = torch.cat([a.grad.double().flatten(), b.grad.double().flatten()])
        bound = max(tolerances.GRADIENT_RELATIVE * grads["reference"].abs().max().item(), 0.0)
        error = (grads[backend] - grads["reference"]).abs().max().item()
        assert error <= max(bound, tolerances.GRADIENT_ZERO if bound == 0 else 0)


def test_create_graph_gives_second_derivatives_on_every_backend(backend: str) -> None:
    """frame-analytics' fused backward has none."""
    x, y = pair((1, 1, 16, 15), torch.float32)
    second = {}
    for name in ("reference", backend):
        a = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(on(name, ssim, a, y, data_range=1.0), a, create_graph=True)
        (second[name],) = torch.autograd.grad(first.square().sum(), a)
    scale = second["reference"].abs().max()
    assert (second[backend] - second["reference"]).abs().max() <= tolerances.GRADIENT_RELATIVE * scale


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("function", [ssim, ms_ssim], ids=["ssim", "ms_ssim"])
def test_gradients_are_finite_on_flat_half_flat_and_identical_images(
    backend: str, function, dtype: torch.dtype
) -> None:
    side = 24 if function is ssim else 164
    textured = pair((1, 1, side, side))[0]
    half = textured.clone()
    half[..., : side // 2] = 0.5
    flat_image = torch.full_like(textured, 0.5)
    for a, b in ((flat_image, flat_image), (half, half), (textured, textured), (flat_image, textured)):
        x, y = a.to(dtype).requires_grad_(), b.to(dtype).requires_grad_()
        on(backend, function, x, y, data_range=1.0).backward()
        assert torch.isfinite(x.grad).all()
        assert torch.isfinite(y.grad).all()


# --- properties -----------------------------------------------------------------------------------------------


def test_more_noise_means_less_ssim_and_the_measure_is_symmetric(backend: str) -> None:
    noisy, clean = cases.noisy_pair(64, 64)
    x, y = torch.from_numpy(noisy), torch.from_numpy(clean)
    values = [on(backend, ssim, y + s * (x - y), y, data_range=1.0).item() for s in (0, 0.5, 1.0, 2.0)]
    assert values[0] == pytest.approx(1.0, abs=1e-9)
    assert values == sorted(values, reverse=True)
    assert on(backend, ssim, x, y, data_range=1.0).item() == pytest.approx(
        on(backend, ssim, y, x, data_range=1.0).item(), abs=1e-9
    )


def test_a_batch_scores_as_its_images_one_by_one(backend: str) -> None:
    x, y = pair((4, 2, 40, 33), torch.float32)
    rows = on(backend, ssim, x, y, data_range=1.0, reduction="none")
    single = torch.stack([on(backend, ssim, x[i : i + 1], y[i : i + 1], data_range=1.0) for i in range(4)])
    torch.testing.assert_close(rows, single, rtol=0, atol=1e-12)


def test_memory_layout_does_not_change_the_result(backend: str) -> None:
    x, y = pair((2, 1, 80, 90), torch.float32)
    for view in (lambda t: t.transpose(2, 3), lambda t: t[..., ::2, 1::2], lambda t: t.flip(2)):
        a, b = view(x), view(y)
        expected = ssim(a.contiguous(), b.contiguous(), data_range=1.0, backend="reference")
        torch.testing.assert_close(on(backend, ssim, a, b, data_range=1.0), expected, rtol=0, atol=1e-7)


def test_bad_windows_are_named() -> None:
    x, y = pair((1, 1, 20, 20))
    with pytest.raises(ValueError, match="window_size is 10; accepted: an odd integer"):
        ssim(x, y, data_range=1.0, window_size=10)
    with pytest.raises(ValueError, match=r"x is 20x20 pixels; accepted: at least the window, 21x21"):
        ssim(x, y, data_range=1.0, window_size=21)
    with pytest.raises(ValueError, match="window is 'hann'; accepted: 'gaussian', 'uniform'"):
        ssim(x, y, data_range=1.0, window="hann")
    with pytest.raises(ValueError, match=r"sigma is 0; accepted: a finite number above 0"):
        ssim(x, y, data_range=1.0, sigma=0)


# --- black beside a pedestal ----------------------------------------------------------------------------------


def blanked(where: str, pedestal: float, sigma: float, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """16-bit images of a pedestal with noise, black in part, as data bars and blanked fields leave it."""
    rng, n = np.random.default_rng(seed), 256
    down, across = np.mgrid[:n, :n]
    lit = {
        "half": across < n // 2,
        "below": down < n // 2,
        "bar": down < n - 24,
        "disc": (down - n / 2) ** 2 + (across - n / 2) ** 2 < (0.4 * n) ** 2,
        "stripes": across % 64 < 32,
        "spot": (down > 8) | (across > 8),
    }[where]
    y = pedestal + rng.normal(0, sigma, (n, n))
    x = y + rng.normal(0, 0.3 * sigma, (n, n))
    return tuple(  # type: ignore[return-value]
        torch.from_numpy(np.where(lit, v, 0).clip(0, 65535).round().astype(np.uint16)) for v in (x, y)
    )


@pytest.mark.parametrize("backend", [b for b in backends.params("ssim") if b != "reference"])
@pytest.mark.parametrize("where", ["half", "below", "bar", "disc", "stripes", "spot"])
@pytest.mark.parametrize(("pedestal", "sigma", "scale"), [(60000, 10, 100), (40000, 20, 400), (60000, 10, 65535)])
def test_black_beside_a_pedestal_keeps_the_bounds_for_any_data(
    backend: str, where: str, pedestal: float, sigma: float, scale: float
) -> None:
    x, y = blanked(where, pedestal, sigma)
    if backend not in ("native", "native-baseline", "native-avx2", "native-avx512"):
        x, y = x[:64, 100:164], y[:64, 100:164]
    expected = ssim(x, y, data_range=scale, return_map=True, backend="reference", precision="float64")
    for images in ((x, y), (x.float(), y.float()), (x.double().float()[None, None], y.float()[None, None])):
        found = on(backend, ssim, *images, data_range=scale, return_map=True)
        assert found.map.dtype == torch.float32
        assert abs(float(found.value) - float(expected.value)) <= tolerances.SSIM_MEAN_ANY
        gap = (found.map.reshape(expected.map.shape).double() - expected.map.double()).abs().max()
        assert float(gap) <= tolerances.SSIM_MAP_ANY
    plain = on(backend, ssim, x, y, data_range=scale)
    assert float(plain) == float(on(backend, ssim, x, y, data_range=scale, details=True).value)


@pytest.mark.parametrize("backend", [b for b in backends.params("ssim") if b != "reference"])
def test_the_gradient_beside_a_pedestal_is_the_references(backend: str) -> None:
    x, y = (v[:70, 90:180].float()[None, None] for v in blanked("half", 60000, 10))
    grads = []
    for name in ("reference", backend):
        leaf = x.clone().requires_grad_()
        on(name, ssim, leaf, y, data_range=100.0).backward()
        grads.append(leaf.grad.double())
    bound = tolerances.GRADIENT_RELATIVE * float(grads[0].abs().max())
    torch.testing.assert_close(grads[1], grads[0], rtol=0, atol=bound)


@pytest.mark.parametrize("backend", backends.params("ssim"))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64], ids=str)
def test_identical_images_score_exactly_one(backend: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    flat, noise = torch.zeros((1, 1, 13, 13)), torch.rand((2, 1, 37, 41), generator=generator)
    steps = torch.full((1, 1, 20, 20), 0.1)
    steps[..., 10:] = 0.7
    for image in (flat, noise, steps, noise * 1e-3, noise - 0.5 if dtype.is_floating_point else noise):
        image = (image * 255).to(dtype) if dtype == torch.uint8 else image.to(dtype)
        scale = 255.0 if dtype == torch.uint8 else 1.0
        for options in ({}, {"window": "uniform", "window_size": 7}, {"border": "reflect"}, {"precision": "float64"}):
            found = on(backend, ssim, image, image.clone(), data_range=scale, return_map=True, **options)
            assert float(found.value) == 1.0
            assert bool((found.map == 1).all())
        assert float(on(backend, ssim, image, image.clone(), data_range=scale, reduction="sum")) == len(image)


def test_the_loss_of_identical_images_is_exactly_zero() -> None:
    from semnr.losses import SSIMLoss

    for seed in range(5):
        x = torch.rand((1, 1, 40, 50), generator=torch.Generator().manual_seed(seed)).requires_grad_()
        loss = SSIMLoss(1.0)(x, x.detach().clone())
        assert float(loss) == 0.0
        torch.sqrt(loss + 0 * x.sum()).detach()
