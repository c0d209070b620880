"""FSIM and FSIMc on every backend: against piq, against hand-made values, and where piq has no answer.

The Triton kernels' cases are in test_fsim_triton.py: these images are too many for its interpreter.
"""

from __future__ import annotations

import functools

import numpy as np
import piq
import pytest
import torch

import backends
import cases
import semnr_kernels as kernels
import tolerances
from semnr_kernels import fill, registry
from semnr_kernels.fsim import downsampling_factor, features, fsim, native, reference, similarity

BACKENDS = [backends.require("fsim", name) for name in backends.params("fsim") if "triton" not in name]
PIQ_FLOAT64, PIQ_FLOAT32 = 1e-6, 1e-5  # the project's bounds; measured 1e-15 and 2e-7
ROUNDING = {"float64": 1e-12, "float32": 1e-6}  # of a score, by what the backend computes in; measured 1e-15 and 3e-8
SIZES = [(48, 48), (64, 64), (65, 64), (64, 97), (127, 113), (101, 300)]
DOWNSAMPLED = [(384, 384), (383, 390), (641, 640), (897, 899)]  # 1.5 rounds to 2, 2.5 to 2, 3.5 to 4


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`backend`, or `backend` and `precision`: the reference computes in float64 whatever is asked."""
    if "precision" in metafunc.fixturenames:
        both = [(b, p) for b in BACKENDS for p in ROUNDING if (b, p) != ("reference", "float32")]
        metafunc.parametrize(("backend", "precision"), both, ids=["-".join(one) for one in both])
    elif "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", BACKENDS)


def pair(height: int, width: int, channels: int = 1, images: int = 1, sigma: float = 0.08):
    """Candidates and references, (N, C, H, W), float64 in [0, 1]."""
    made = [cases.noisy_pair(height, width, sigma, seed=7 * i) for i in range(images * channels)]
    x, y = (torch.from_numpy(np.stack([m[j] for m in made])) for j in (0, 1))
    tint = torch.tensor([1.0, 0.8, 0.5][:channels], dtype=torch.float64)[None, :, None, None]
    return x.reshape(images, channels, height, width) * tint, y.reshape(images, channels, height, width) * tint


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_piq_at_even_and_odd_sizes(size, channels, backend, precision):
    x, y = pair(*size, channels, images=2)
    options = {"data_range": 1.0, "reduction": "none", "backend": backend, "precision": precision}
    for chromatic in {channels == 3, False}:
        ours = fsim(x, y, chromatic=chromatic, **options)
        theirs = by_piq(size, channels, chromatic, torch.float64)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=PIQ_FLOAT64)
        ours = fsim(x.float(), y.float(), chromatic=chromatic, **options)
        theirs = by_piq(size, channels, chromatic, torch.float32)
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=PIQ_FLOAT32)


@functools.cache
def by_piq(size, channels, chromatic, dtype):
    x, y = (v.to(dtype) for v in pair(*size, channels, images=2))
    return piq.fsim(x, y, chromatic=chromatic, reduction="none")


@pytest.mark.parametrize("size", DOWNSAMPLED, ids=str)
def test_downsamples_as_piq(size, backend):
    x, y = pair(*size)
    ours = fsim(x, y, data_range=1.0, backend=backend)
    assert ours.item() == pytest.approx(piq.fsim(x, y, chromatic=False).item(), abs=PIQ_FLOAT64)


def test_equals_piq_with_other_filters(backend, precision):
    x, y = pair(80, 75)
    other = {"scales": 3, "orientations": 6, "min_length": 5, "sigma_f": 0.65, "delta_theta": 1.5, "k": 3.0}
    ours = fsim(x, y, data_range=1.0, backend=backend, precision=precision, **other)
    assert ours.item() == pytest.approx(piq.fsim(x, y, chromatic=False, **other).item(), abs=PIQ_FLOAT64)
    assert ours.item() != pytest.approx(fsim(x, y, data_range=1.0).item(), abs=1e-4)


@pytest.mark.parametrize("name", ["time_016", "line_010"])
def test_equals_piq_on_real_sem_pairs(name, backend):
    from PIL import Image

    folder = cases.real_data() / "pairs"
    x, y = (
        torch.from_numpy(np.array(Image.open(next(folder.glob(f"{name}_{kind}_*.png"))).convert("L")))[None, None]
        for kind in ("noisy", "clean")
    )
    theirs = piq.fsim(x.double(), y.double(), data_range=255.0, chromatic=False)
    assert fsim(x, y, backend=backend).item() == pytest.approx(theirs.item(), abs=PIQ_FLOAT64)
    assert 0.3 < theirs < 1


@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_integers_need_no_conversion(dtype, top, backend):
    x, y = ((v * top).round() for v in pair(64, 64))
    ours = fsim(x.to(torch.int32).to(dtype), y.to(torch.int32).to(dtype), backend=backend)
    assert ours.item() == pytest.approx(piq.fsim(x, y, data_range=top, chromatic=False).item(), abs=PIQ_FLOAT64)


def test_twelve_bits_in_uint16_say_their_range(backend):
    x, y = ((v * 4095).round() for v in pair(64, 64))
    x16, y16 = (v.to(torch.int32).to(torch.uint16) for v in (x, y))
    ours = fsim(x16, y16, data_range=4095, backend=backend)
    assert ours.item() == pytest.approx(piq.fsim(x, y, data_range=4095, chromatic=False).item(), abs=PIQ_FLOAT64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_scored_as_the_values_they_hold(dtype, backend, precision):
    x, y = (v.to(dtype) for v in pair(64, 64))
    options = {"data_range": 1.0, "backend": backend, "precision": precision}
    assert fsim(x, y, **options) == fsim(x.float(), y.float(), **options)


def test_automatic_factor_rounds_half_to_even_and_the_authors_half_up():
    sides = (100, 384, 640, 896, 1152, 1664)
    assert [downsampling_factor(s, 2000, "auto") for s in sides] == [1, 2, 2, 4, 4, 6]
    assert [downsampling_factor(s, 2000, "authors") for s in sides] == [1, 2, 3, 4, 5, 7]
    assert downsampling_factor(2048, 2048, 3) == 3


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
def test_authors_sampling_is_conv2_same_then_stride(factor):
    image = torch.arange(1.0, 12.0, dtype=torch.float64).square()
    full = np.convolve(image.numpy(), np.full(factor, 1 / factor))
    same = full[factor // 2 : factor // 2 + len(image)]  # MATLAB's central part starts at ceil((F + 1) / 2), from 1
    rows = image[:, None].expand(11, 9)[None, None].contiguous()
    sampled = reference.downsample(rows, reference.Settings(factor=factor, authors=True))
    inner = sampled[0, 0, :, 1].numpy()  # a column whose window lies inside
    np.testing.assert_allclose(inner, same[::factor], rtol=1e-14)


def test_authors_downsampling_parts_from_piq_only_where_the_conventions_part(backend):
    x, y = pair(512, 512)
    assert fsim(x, y, data_range=1, downsample="authors", backend=backend) == fsim(x, y, data_range=1, backend=backend)
    x, y = pair(640, 640)
    three = fsim(x, y, data_range=1, downsample="authors", details=True, backend=backend)
    assert three.settings["factor"] == 3
    # the zeros beyond the border darken the outermost samples of both images: an edge that both share
    assert 0 < three.value - fsim(x, y, data_range=1, downsample=3, backend=backend) < 0.1


@pytest.mark.parametrize(("rule", "size"), [("authors", (641, 650)), ("authors", (1153, 900)), (3, (200, 251))])
@pytest.mark.parametrize("channels", [1, 3])
def test_downsamples_as_the_definition(rule, size, channels, backend, precision):
    x, y = (v + 40 for v in pair(*size, channels))  # a pedestal: zeros beyond the border are far from it
    ours = fsim(x, y, data_range=1, downsample=rule, backend=backend, precision=precision)
    wanted = fsim(x, y, data_range=1, downsample=rule, backend="reference")
    assert ours.item() == pytest.approx(wanted.item(), abs=ROUNDING[precision])


def test_identical_images_score_one_and_order_does_not_matter(backend, precision):
    x, y = pair(64, 70, 3)
    options = {"data_range": 1.0, "backend": backend, "precision": precision}
    assert fsim(x, x, **options).item() == pytest.approx(1, abs=1e-14)
    assert fsim(x, y, **options).item() == pytest.approx(fsim(y, x, **options).item(), abs=1e-14)


def test_falls_as_noise_grows_and_stays_in_range(backend):
    _, y = pair(96, 96)
    noise = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scores = [fsim(y + s * noise, y, data_range=1.0, backend=backend).item() for s in (0.01, 0.03, 0.1, 0.3)]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] < scores[0] < 1


def test_a_hand_made_comparison_pools_by_the_larger_phase_congruency(backend, precision):
    def plane(values):
        return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, 2)

    s = reference.Settings(precision=precision)
    fx = reference.Features(plane([0.5, 0.2]), plane([10.0, 0.0]), None, None, s)
    fy = reference.Features(plane([0.5, 0.6]), plane([10.0, 40.0]), None, None, s)
    s_pc = (2 * 0.2 * 0.6 + 0.85) / (0.2**2 + 0.6**2 + 0.85)
    s_g = 160 / (40**2 + 160)
    wanted = (1 * 0.5 + s_pc * s_g * 0.6) / (0.5 + 0.6)
    assert similarity(fx, fy, backend=backend).rows.item() == pytest.approx(wanted, abs=ROUNDING[precision])


def test_filters_are_built_once_a_size():
    reference._banks.clear()
    x, y = pair(64, 64)
    fsim(x, y, data_range=1.0, backend="reference")
    (bank,) = reference._banks.values()
    fsim(x, y, data_range=1.0, backend="reference")
    assert list(reference._banks.values()) == [bank]
    assert reference._bank(64, 64, reference.Filters(), torch.device("cpu")) is bank


def test_filters_made_in_inference_mode_serve_training_too(backend):
    reference._banks.clear()
    native._tables.clear()
    x, y = pair(64, 64)
    with torch.inference_mode():
        first = fsim(x, y, data_range=1.0, backend=backend, precision="float64")
    leaf = x.clone().requires_grad_(True)
    score = fsim(leaf, y, data_range=1.0, backend=backend)
    score.backward()
    assert score.item() == pytest.approx(first.item(), abs=1e-14)
    assert leaf.grad.abs().max() > 0


def test_noise_threshold_follows_kovesi_term_by_term():
    """The closed form in `_noise_gain` against the sums as Kovesi writes them, on impulse responses."""
    h, w, p = 31, 24, reference.Filters()
    bank = reference._build_bank(h, w, p, torch.device("cpu"))
    for o in range(p.orientations):
        bank_o = bank.radial * bank.angular[o]
        impulse = torch.fft.ifft2(bank_o).real * (h * w) ** 0.5
        sum_an2 = impulse.square().sum()
        sum_ai_aj = sum((impulse[i] * impulse[j]).sum() for i in range(4) for j in range(i + 1, 4))
        power = (1 / np.log(2)) / bank_o[0].square().sum()  # for a median amplitude of 1
        tau = torch.sqrt((2 * power * sum_an2 + 4 * power * sum_ai_aj) / 2)
        threshold = (tau * (np.pi / 2) ** 0.5 + p.k * torch.sqrt((2 - np.pi / 2) * tau**2)) / 1.7
        assert bank.noise_gain[o] == pytest.approx(threshold.item(), rel=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_cached_features_of_a_reference_score_many_candidates(channels, backend, precision):
    x, y = pair(64, 64, channels, images=3)
    options = {"data_range": 1.0, "backend": backend, "precision": precision}
    kept = features(y[:1], **options)
    rows = similarity(features(x, **options), kept, backend=backend).rows
    single = [fsim(v, y[0], **options).item() for v in x]
    assert rows.tolist() == pytest.approx(single, abs=1e-14)
    with pytest.raises(ValueError, match="same settings"):
        similarity(features(x, k=3.0, **options), kept)
    with pytest.raises(ValueError, match="same size"):
        similarity(features(x[..., :60], **options), kept)


def test_features_of_one_backend_compare_on_another(backend, precision):
    x, y = pair(64, 64)
    options = {"data_range": 1.0, "precision": precision}
    fx, fy = features(x, backend=backend, **options), features(y, backend="reference", **options)
    rows = [similarity(fx, fy, backend=name).rows.item() for name in (backend, "reference")]
    assert rows == pytest.approx([fsim(x, y, backend="reference", **options).item()] * 2, abs=ROUNDING[precision])


def test_score_is_the_weighted_mean_of_the_map(backend, precision):
    x, y = pair(70, 64, 3, images=2)
    options = {"data_range": 1.0, "return_map": True, "backend": backend, "precision": precision}
    result = fsim(x, y, reduction="none", details=True, **options)
    weight = result.components["weight"]
    assert result.map.shape == weight.shape == (2, 1, 70, 64)
    pooled = (result.map * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3))
    torch.testing.assert_close(pooled, result.value, rtol=0, atol=ROUNDING[precision])
    parts = result.components
    product = parts["phase_congruency"] * parts["gradient"] * parts["chroma"]
    torch.testing.assert_close(result.map, product, rtol=0, atol=ROUNDING[precision])
    wanted = fsim(x, y, data_range=1.0, reduction="none", return_map=True, details=True, backend="reference")
    for name, part in wanted.components.items():
        # |S_I · S_Q|^0.03 is steep near 0
        bound = 1e-3 if name == "chroma" and precision == "float32" else 10 * ROUNDING[precision]
        torch.testing.assert_close(parts[name], part, rtol=0, atol=bound)
    value, plane = fsim(x[0, 0].float(), y[0, 0].float(), **options)
    assert plane.shape == (70, 64)
    assert plane.dtype == torch.float32
    assert value.ndim == 0


def flat_cases(dtype):
    generator = torch.Generator().manual_seed(3)
    texture = torch.rand(64, 64, dtype=torch.float64, generator=generator).to(dtype)
    half = texture.clone()
    half[:, :32] = 0.5
    two = torch.full((64, 64), 0.25, dtype=dtype)
    two[:, 32:] = 0.75
    flat = torch.full((64, 64), 0.3, dtype=dtype)
    odd = torch.full((65, 63), 0.3, dtype=dtype)
    return {
        "flat-flat": (flat, flat.clone()),
        "flat-other-flat": (flat, flat + 0.4),
        "odd-flat": (odd, odd + 0.1),
        "flat-texture": (flat, texture),
        "half-flat": (half, texture),
        "two-flats": (two, texture),
        "two-flats-two-flats": (two, two * 0.5),
        "identical": (texture, texture.clone()),
        "zeros": (torch.zeros_like(flat), texture),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(flat_cases(torch.float64)))
@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_is_finite(name, dtype, channels, backend):
    x, y = (v.expand(1, channels, *v.shape).clone() for v in flat_cases(dtype)[name])
    x.requires_grad_(True)
    score = fsim(x, y, data_range=1.0, backend=backend)
    (gradient,) = torch.autograd.grad(score, x)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 1e3
    assert 0 < score.item() <= 1 + 1e-12
    if name in ("flat-flat", "identical"):
        assert score.item() == pytest.approx(1, abs=1e-14)
        assert gradient.abs().max() <= 1e-7


@pytest.mark.parametrize("name", ["flat-flat", "flat-texture", "half-flat", "identical"])
def test_guards_do_not_change_the_score(name, backend, precision):
    x, y = flat_cases(torch.float64)[name]
    theirs = piq.fsim(x[None, None], y[None, None], chromatic=False).item()
    options = {"data_range": 1.0, "backend": backend, "precision": precision}
    assert fsim(x, y, **options).item() == pytest.approx(theirs, abs=PIQ_FLOAT64)
    tracked = fsim(x.clone().requires_grad_(True), y, **options).item()
    assert tracked == pytest.approx(theirs, abs=PIQ_FLOAT64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_odd_flat_image_has_phase_congruency_one_where_piq_has_rounding_noise(dtype, backend, precision):
    flat = features(torch.full((65, 63), 0.3, dtype=dtype), data_range=1.0, backend=backend, precision=precision)
    assert (flat.phase_congruency == 1).all()


@pytest.mark.parametrize("chromatic", [False, True])
def test_gradcheck(chromatic, backend):
    generator = torch.Generator().manual_seed(5)
    x, y = (torch.rand(1, 3 if chromatic else 1, 13, 12, dtype=torch.float64, generator=generator) for _ in range(2))
    small = {"scales": 2, "min_length": 4.0, "data_range": 1.0, "backend": backend}
    x.requires_grad_(True)
    y.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda a, b: fsim(a, b, **small), (x, y), fast_mode=chromatic)


def test_gradient_equals_piq_where_piq_has_one(backend):
    x, y = pair(64, 64)
    ours, theirs = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    (a,) = torch.autograd.grad(fsim(ours, y, data_range=1.0, backend=backend), ours)
    (b,) = torch.autograd.grad(piq.fsim(theirs, y, chromatic=False), theirs)
    assert (a - b).abs().max() <= 1e-9 * b.abs().max() + 1e-12
    assert b.abs().max() > 0


@pytest.mark.parametrize("sigma", [0.001, 0.05], ids=["nearly-equal", "noisy"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (53, 70)], ids=str)
def test_gradients_to_both_images_equal_those_of_the_definition(size, channels, sigma, backend, precision):
    x, y = (v.float() for v in pair(*size, channels, images=2, sigma=sigma))

    def gradients(dtype, **options):
        leaves = [v.to(dtype).requires_grad_(True) for v in (x, y)]
        return torch.autograd.grad(fsim(*leaves, data_range=1.0, reduction="sum", **options), leaves)

    for ours, wanted in zip(
        gradients(torch.float32, backend=backend, precision=precision),
        gradients(torch.float64, backend="reference"),
        strict=True,
    ):
        assert ours.dtype == torch.float32
        assert (ours - wanted).abs().max() <= tolerances.GRADIENT_RELATIVE * wanted.abs().max()


def test_a_gradient_of_the_gradient_goes_through_the_definition(backend):
    x, y = pair(50, 49)

    def second(name):
        leaf = x.clone().requires_grad_(True)
        (g,) = torch.autograd.grad(fsim(leaf, y, data_range=1.0, backend=name), leaf, create_graph=True)
        return torch.autograd.grad(g.square().sum(), leaf)[0]

    wanted = second("reference")
    assert (second(backend) - wanted).abs().max() <= 1e-9 * wanted.abs().max()


def test_maps_are_differentiable(backend):
    x, y = pair(50, 49)

    def gradient(name):
        leaf = x.clone().requires_grad_(True)
        result = fsim(leaf, y, data_range=1.0, return_map=True, backend=name)
        return torch.autograd.grad(result.map.square().mean() + result.value, leaf)[0]

    wanted = gradient("reference")
    assert (gradient(backend) - wanted).abs().max() <= 1e-9 * wanted.abs().max()


def test_a_full_mask_changes_nothing_and_says_approximate(backend, precision):
    x, y = pair(64, 64)
    options = {"data_range": 1.0, "backend": backend, "precision": precision}
    masked = fsim(x, y, mask=torch.ones(64, 64, dtype=torch.bool), details=True, **options)
    assert masked.value.item() == pytest.approx(fsim(x, y, **options).item(), abs=ROUNDING[precision])
    assert "approximate" in masked.flags[0]
    assert masked.coverage.tolist() == [1.0]


def test_what_lies_under_the_mask_does_not_count(backend, precision):
    x, y = pair(96, 96)
    options = {"data_range": 1.0, "backend": backend, "precision": precision}
    mask = torch.ones(96, 96, dtype=torch.bool)
    mask[30:50, 20:60] = False
    spoilt_x, spoilt_y = x.clone(), y.clone()
    spoilt_x[..., ~mask], spoilt_y[..., ~mask] = float("nan"), 50.0
    a = fsim(x, y, mask=mask, **options)
    b = fsim(spoilt_x, spoilt_y, mask=mask, **options)
    assert torch.equal(a, b)
    assert abs(a - fsim(x, y, **options)) < 0.02  # the same texture inside and out
    assert a.item() == pytest.approx(fsim(x, y, data_range=1.0, mask=mask, backend="reference").item(), abs=1e-6)
    kept = features(y, mask=mask, **options)
    rows = similarity(features(x, mask=mask, reference_image=y, **options), kept, backend=backend).rows
    assert rows.item() == pytest.approx(a.item(), abs=1e-14)


def test_omitted_nans_are_masked_and_no_valid_pixel_gives_nan(backend, precision):
    x, y = pair(64, 64)
    options = {"data_range": 1.0, "backend": backend, "precision": precision}
    x[..., 10:14, 10:14] = float("inf")
    mask = torch.isfinite(x[0, 0])
    assert torch.equal(fsim(x, y, nan="omit", **options), fsim(x, y, mask=mask, **options))
    with pytest.raises(ValueError, match="x has 16 non-finite pixels"):
        fsim(x, y, **options)
    with pytest.raises(ValueError, match="image has 16 non-finite pixels"):
        features(x, **options)
    assert torch.isnan(fsim(x, y, nan="propagate", **options))
    assert torch.isnan(fsim(y, y, mask=torch.zeros(64, 64, dtype=torch.bool), **options))


def test_one_nan_pixel_anywhere_spoils_its_image_alone(backend, precision):
    x, y = pair(64, 64, images=2)
    x[1, 0, 40, 7] = float("nan")
    rows = fsim(x, y, data_range=1.0, reduction="none", nan="propagate", backend=backend, precision=precision)
    assert torch.isnan(rows).tolist() == [False, True]


def test_masks_survive_downsampling(backend, precision):
    x, y = pair(160, 160)
    mask = torch.ones(160, 160, dtype=torch.bool)
    mask[:, :81] = False
    options = {"data_range": 1.0, "mask": mask, "downsample": 2, "backend": backend, "precision": precision}
    right = fsim(x, y, details=True, **options)
    assert right.coverage.item() == pytest.approx(79 / 160)
    assert right.components["weight"][..., :40].max() == 0
    assert right.components["weight"][..., 41:].min() > 0


def test_stand_ins_are_the_mean_of_the_smallest_window_with_a_valid_pixel():
    y = torch.arange(400.0, dtype=torch.float64).reshape(1, 1, 20, 20)
    valid = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    valid[..., 0, 0] = valid[..., 0, 4] = True
    mean = fill.local_mean(y, valid)
    assert mean[0, 0, 0, 2] == pytest.approx(2.0)  # both lie within 4 pixels
    assert mean[0, 0, 0, 6] == pytest.approx(4.0)  # only the second
    assert mean[0, 0, 19, 19] == pytest.approx(2.0)  # found at the third doubling
    assert fill.local_mean(y, torch.zeros_like(valid)).abs().max() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"downsample": 0}, "downsample is 0"),
        ({"downsample": True}, "downsample is True"),
        ({"downsample": "half"}, "downsample is 'half'"),
        ({"downsample": 2}, r"x is 64 x 64 \(32 pixels after downsampling by 2\); accepted: sides of at least 48"),
        ({"scales": 5}, "accepted: sides of at least 96"),
        ({"scales": 0}, "scales is 0"),
        ({"orientations": 1.5}, "orientations is 1.5"),
        ({"min_length": 1}, "min_length is 1"),
        ({"mult": 1}, "mult is 1"),
        ({"sigma_f": 1.0}, "sigma_f is 1.0"),
        ({"delta_theta": 0}, "delta_theta is 0"),
        ({"k": -1}, "k is -1"),
        ({"chromatic": True}, "chromatic is True and x has 1 channel"),
        ({"chromatic": "yes"}, "chromatic is 'yes'"),
        ({"data_range": None}, "data_range is missing"),
        ({"reduction": "median"}, "reduction is 'median'"),
        ({"precision": "half"}, "precision is 'half'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    x, y = pair(64, 64)
    with pytest.raises((TypeError, ValueError), match=message):
        fsim(x, y, **{"data_range": 1.0, **arguments})


def test_wrong_images_are_named():
    with pytest.raises(ValueError, match="x has 2 channels; accepted: 1"):
        fsim(torch.zeros(1, 2, 64, 64), torch.zeros(1, 2, 64, 64), data_range=1.0)
    with pytest.raises(ValueError, match="47 x 64; accepted: sides of at least 48"):
        fsim(torch.zeros(47, 64), torch.zeros(47, 64), data_range=1.0)
    with pytest.raises(TypeError, match="complex64"):
        fsim(torch.zeros(64, 64, dtype=torch.complex64), torch.zeros(64, 64, dtype=torch.complex64), data_range=1.0)


def test_a_batch_is_its_images_and_strides_do_not_matter(backend, precision):
    x, y = pair(64, 72, images=5)
    options = {"data_range": 1.0, "backend": backend, "precision": precision}
    rows = fsim(x, y, reduction="none", **options)
    assert rows.tolist() == pytest.approx([fsim(a, b, **options).item() for a, b in zip(x, y, strict=True)], abs=0)
    assert fsim(x, y, reduction="sum", **options).item() == pytest.approx(rows.sum().item())
    turned = fsim(x.transpose(2, 3), y.transpose(2, 3), reduction="none", **options)
    straight = fsim(x.transpose(2, 3).contiguous(), y.transpose(2, 3).contiguous(), reduction="none", **options)
    torch.testing.assert_close(turned, straight, rtol=0, atol=1e-14)


def test_the_registry_knows_fsim():
    for op in ("fsim", "fsim_features", "fsim_compare"):
        assert {"reference", "native"} <= set(registry.implementations(op))
    with pytest.raises(kernels.BackendUnavailable, match="no_such"):
        fsim(*pair(64, 64), data_range=1.0, backend="no_such")
