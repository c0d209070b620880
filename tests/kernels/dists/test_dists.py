"""DISTS against piq and the authors' package with the same weights, its options, and its gradient; every backend.

The trained VGG16 is not at hand in tests: the seeded random network has the same topology. The passes between the
convolutions, on their own, are in test_dists_passes.py; pieces of large images and maps in test_dists_pieces.py.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
import torch

import backends
import cases
import semnr_kernels as kernels
from semnr_kernels import pretrained, registry
from semnr_kernels.dists import against, dists, features, reference, score, similarity
from semnr_kernels.dists import weights as known
from semnr_kernels.dists.network import l2_pool, network_for

PIQ_FLOAT32 = 1e-6  # the project's bound; piq's α and β sum to 1 - 2e-7 and are not normalised, which is most of it
# oneDNN takes other float32 kernels for another number of images, and another band of rows has other squares of
# Winograd's filtering; measured 1.2e-7 with AVX2
OTHER_BATCH = 5e-7
BFLOAT16 = 2e-3  # the project's bound; measured 5e-4
FLOAT16 = 2e-4  # eight times as many digits; measured 3e-5
GRADIENT_FLOAT32 = 3e-4  # of the largest: a float32 network decides ReLUs near 0 differently; measured 8e-5, piq 1e-4
AUTHORS_FLOAT64 = 1e-9  # the same formula: rounding only
FLOAT32 = 1e-6  # a float32 network against the float64 one; measured 2e-7 at 32 x 32, 6e-8 at 256 x 256
RANDOM = {"weights": "random", "data_range": 1.0}
every_backend = pytest.mark.parametrize("backend", backends.params("dists"))


def pair(height=64, width=64, channels=3, images=1, dtype=torch.float32):
    made = [cases.noisy_pair(height, width, seed=5 * i) for i in range(images)]
    tint = torch.tensor([1.0, 0.8, 0.5][:channels], dtype=torch.float64)[None, :, None, None]
    return tuple((torch.from_numpy(np.stack([m[j] for m in made]))[:, None] * tint).to(dtype) for j in (0, 1))


@pytest.fixture(scope="module")
def vgg():
    """torchvision's VGG16 with the stand-in's weights."""
    import torchvision

    with torch.device("meta"):
        model = torchvision.models.vgg16(weights=None)
    model.features.load_state_dict(dict(known.random_weights().state), assign=True)
    return model


@pytest.fixture(scope="module")
def piq_dists(vgg):
    """(x, y, resize) -> rows of piq.DISTS with the stand-in's weights and the shipped α and β."""
    import copy

    import piq

    alpha, beta = (v.reshape(1, -1, 1, 1) for v in known.read_alpha_beta())
    mine = copy.deepcopy(vgg.features)
    with (
        mock.patch("piq.perceptual.vgg16", return_value=mock.Mock(features=mine)),
        mock.patch("torch.hub.load_state_dict_from_url", return_value={"alpha": alpha, "beta": beta}),
    ):
        model = piq.DISTS(reduction="none")

    def rows(x, y, resize):
        with torch.no_grad():
            return model(x, y) if resize else 1 - super(piq.DISTS, model).forward(x, y)

    return rows


@every_backend
@pytest.mark.parametrize("size", [(64, 64), (45, 70), (32, 33)], ids=str)
def test_equals_piq_at_native_size(piq_dists, size, backend):
    backends.require("dists", backend)
    x, y = pair(*size, images=2)
    ours = dists(x, y, **RANDOM, reduction="none", backend=backend)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, piq_dists(x, y, resize=False).double(), rtol=0, atol=PIQ_FLOAT32)
    assert (ours > 1e-3).all()


def test_equals_piq_with_its_resize(piq_dists):
    x, y = pair(290, 263)
    theirs = piq_dists(x, y, resize=True).double()
    ours = dists(x, y, **RANDOM, resize="piq", reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=PIQ_FLOAT32)
    assert abs(ours - dists(x, y, **RANDOM)) > 1e-5


def test_piq_resize_leaves_small_images_alone():
    x, y = pair(64, 80)
    assert dists(x, y, **RANDOM, resize="piq") == dists(x, y, **RANDOM) == dists(x, y, **RANDOM, resize="authors")


def test_equals_the_authors_package_in_float64(vgg):
    import copy

    published = pytest.importorskip("DISTS_pytorch.DISTS_pt", reason="dists-pytorch is not installed")
    twin = mock.Mock(features=copy.deepcopy(vgg.features))
    with mock.patch.object(published.models, "vgg16", return_value=twin):
        model = published.DISTS(load_weights=False)
    for name, value in zip(("alpha", "beta"), known.read_alpha_beta(), strict=True):
        getattr(model, name).data = value.reshape(1, -1, 1, 1)
    x, y = pair(48, 61, dtype=torch.float64)
    theirs = model.double()(x, y)
    assert dists(x, y, **RANDOM).item() == pytest.approx(theirs.item(), abs=AUTHORS_FLOAT64)


def test_authors_resize_is_their_antialiased_one():
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (300, 411), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(pixels).resize((int(256 * 411 / 300), 256), Image.Resampling.BILINEAR))
    ours = score.resampled(torch.from_numpy(pixels)[None, None].double(), "authors")[0, 0].numpy()
    assert ours.shape == theirs.shape == score.resized(300, 411, "authors")
    assert np.abs(ours - theirs).max() <= 1.01  # PIL rounds to 8 bits after each of the two passes
    assert np.abs(ours - theirs).mean() < 0.4


@every_backend
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64], ids=str)
def test_every_backend_equals_the_definition(backend, dtype, channels):
    backends.require("dists", backend)
    x, y = pair(33, 40, channels=channels, images=2, dtype=torch.float64)
    exact = dists(x, y, **RANDOM, reduction="none", details=True, backend="reference")
    scale = 255 if dtype == torch.uint8 else 1
    if dtype == torch.uint8:
        x, y = ((v * scale).round() for v in (x, y))
        exact = dists(x / scale, y / scale, **RANDOM, reduction="none", details=True, backend="reference")
    found = dists(x.to(dtype), y.to(dtype), weights="random", data_range=scale, reduction="none", details=True,
                  backend=backend)  # fmt: skip
    bound = 1e-12 if dtype == torch.float64 else FLOAT32
    torch.testing.assert_close(found.value, exact.value, rtol=0, atol=bound)
    for name in ("structure", "texture"):
        torch.testing.assert_close(found.components[name], exact.components[name], rtol=0, atol=bound)


@every_backend
def test_every_backend_masks_like_the_definition(backend):
    backends.require("dists", backend)
    x, y = pair(33, 40, images=2, dtype=torch.float64)
    mask = torch.rand((2, 33, 40), generator=torch.Generator().manual_seed(1)) > 0.2
    x[0, 0][~mask[0]] = float("nan")
    exact = dists(x, y, **RANDOM, mask=mask, reduction="none", backend="reference")
    found = dists(x.float(), y.float(), **RANDOM, mask=mask, reduction="none", backend=backend)
    torch.testing.assert_close(found, exact, rtol=0, atol=FLOAT32)


@every_backend
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, BFLOAT16), (torch.float16, FLOAT16)], ids=str)
def test_half_precision_networks_stay_close(dtype, bound, backend):
    backends.require("dists", backend)
    x, y = pair(48, 48)
    exact, half = (dists(x, y, **RANDOM, dtype=d, backend=backend).item() for d in (torch.float32, dtype))
    assert half == pytest.approx(exact, abs=bound)
    assert half != exact


def test_float64_images_are_computed_in_float64():
    x, y = pair(32, 32, dtype=torch.float64)
    assert dists(x, y, **RANDOM, details=True).settings["dtype"] == "float64"


def test_a_small_variance_on_a_large_pedestal_keeps_its_digits():
    generator = torch.Generator().manual_seed(0)
    maps = [6e4 + 0.02 * torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=generator) for _ in range(2)]
    x, y = (m.float() for m in maps)
    exact = reference._similarities(x.double(), y.double(), None)
    for a, b in zip(reference._similarities(x, y, None), exact, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "top"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_integers_need_no_conversion(dtype, top):
    x, y = ((v * top).round() for v in pair(32, 32, dtype=torch.float64))
    ours = dists(x.to(torch.int32).to(dtype), y.to(torch.int32).to(dtype), weights="random")
    assert ours.item() == pytest.approx(dists(x / top, y / top, **RANDOM).item(), abs=1e-6)


def test_identical_images_are_at_distance_zero_and_order_does_not_matter():
    x, y = pair()
    assert abs(dists(x, x, **RANDOM).item()) < 1e-12
    assert dists(x, y, **RANDOM).item() == pytest.approx(dists(y, x, **RANDOM).item(), abs=1e-8)


def test_grows_with_noise():
    _, y = pair(channels=1)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    scores = [dists(y + s * noise, y, **RANDOM).item() for s in (0.01, 0.05, 0.2)]
    assert scores == sorted(scores)
    assert scores[0] > 0


def test_one_map_by_hand():
    """Means 2 and 3, variances 1 and 4, covariance 2."""
    x, y = (torch.tensor(v, dtype=torch.float64).reshape(1, 1, 1, 2) for v in ([1.0, 3.0], [1.0, 5.0]))
    luminance, texture = reference._similarities(x, y, None)
    assert luminance.item() == pytest.approx((2 * 2 * 3 + 1e-6) / (4 + 9 + 1e-6), abs=1e-15)
    assert texture.item() == pytest.approx((2 * 2 + 1e-6) / (1 + 4 + 1e-6), abs=1e-15)


def test_l2_pooling_by_hand():
    h = torch.zeros(1, 1, 4, 4)
    h[0, 0, 0, 0], h[0, 0, 2, 2], h[0, 0, 1, 2] = 2.0, 4.0, 6.0
    pooled = l2_pool(h, torch.float32)[0, 0]
    # the window about (2r, 2c) weighs its centre 1/4, its sides 1/8, its corners 1/16
    expected = [[4 / 4, 36 / 8], [0.0, 16 / 4 + 36 / 8]]
    torch.testing.assert_close(pooled, torch.tensor(expected).sqrt(), rtol=1e-6, atol=2e-6)


def test_grey_is_replicated_and_says_so():
    x, y = pair(channels=1)
    result = dists(x, y, **RANDOM, details=True)
    triple = dists(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1), **RANDOM, details=True)
    assert result.value == triple.value
    assert "one channel replicated to three" in result.flags
    assert "one channel replicated to three" not in triple.flags


def test_random_weights_are_flagged_uncalibrated_and_reproducible():
    x, y = pair(32, 32)
    result = dists(x, y, **RANDOM, details=True)
    assert result.settings["calibrated"] is False
    assert any("uncalibrated" in flag for flag in result.flags)
    state = known.random_weights().state
    # RandomState(0) starts with 1.764052345967664; 27 inputs a filter
    assert state["0.weight"][0, 0, 0, 0].item() == pytest.approx(1.764052345967664 * (2 / 27) ** 0.5, rel=1e-6)
    assert state["28.weight"].std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_details_say_which_map_adds_what():
    x, y = pair(48, 48, images=2)
    result = dists(x, y, **RANDOM, reduction="none", details=True)
    parts = result.components
    assert parts["structure"].shape == parts["texture"].shape == (2, 6)
    torch.testing.assert_close(parts["structure"].sum(1) + parts["texture"].sum(1), result.value)
    assert (parts["structure"] >= 0).all()


def test_alpha_and_beta_are_the_published_ones_and_sum_to_one():
    alpha, beta = known.alpha_beta()
    assert alpha.shape == beta.shape == (1475,) == (sum(known.CHANNELS),)
    assert (alpha.sum() + beta.sum()).item() == pytest.approx(1, abs=1e-14)
    published = pytest.importorskip("DISTS_pytorch", reason="dists-pytorch is not installed")
    from pathlib import Path

    theirs = torch.load(Path(published.__file__).with_name("weights.pt"), weights_only=True)
    for name, ours in zip(("alpha", "beta"), known.read_alpha_beta(), strict=True):
        assert torch.equal(ours, theirs[name].flatten())


@every_backend
def test_kept_maps_of_a_reference_score_many_candidates(backend):
    backends.require("dists", backend)
    x, y = pair(32, 48, images=3)
    kept = features(y[:1], **RANDOM, backend=backend)
    exact = [dists(v, y[0], **RANDOM, backend=backend).item() for v in x]
    assert against(x, kept, reduction="none", backend=backend).tolist() == pytest.approx(exact, abs=OTHER_BATCH)
    assert similarity(features(x, **RANDOM, backend=backend), kept).rows.tolist() == pytest.approx(
        exact, abs=OTHER_BATCH
    )
    assert against(x[0], kept, backend=backend).item() == pytest.approx(exact[0], abs=OTHER_BATCH)
    as_many = features(y, **RANDOM, backend=backend)
    rows = dists(x, y, **RANDOM, reduction="none", backend=backend)
    torch.testing.assert_close(against(x, as_many, reduction="none", backend=backend), rows, rtol=0, atol=OTHER_BATCH)


@every_backend
def test_kept_maps_carry_the_mask_and_its_filling(backend):
    backends.require("dists", backend)
    x, y = pair(40, 33, images=2)
    mask = torch.rand((2, 40, 33), generator=torch.Generator().manual_seed(1)) > 0.2
    kept = features(y, **RANDOM, mask=mask, backend=backend)
    exact = dists(x, y, **RANDOM, mask=mask, details=True, backend=backend)
    found = against(x, kept, details=True, backend=backend)
    assert found.value.item() == pytest.approx(exact.value.item(), abs=1e-7)
    assert (found.coverage == exact.coverage).all()
    assert found.flags == exact.flags


def test_kept_maps_say_what_memory_they_take_and_may_take_half():
    x, y = pair(64, 48)
    kept = features(y, **RANDOM)
    positions = 64 * 48
    assert kept.nbytes == (3 + 64 + 32 + 16 + 8 + 2) * positions * 4 == 500 * positions
    half = features(y, **RANDOM, store=torch.bfloat16)
    assert {m.dtype for m in half.maps[1:]} == {torch.bfloat16}
    assert half.nbytes - 12 * positions == (kept.nbytes - 12 * positions) // 2
    assert against(x, half).item() == pytest.approx(against(x, kept).item(), abs=2e-4)
    assert against(x, half) != against(x, kept)


def test_kept_maps_that_do_not_fit_are_named():
    x, y = pair(40, 40, images=3)
    kept = features(y[:2], **RANDOM)
    with pytest.raises(ValueError, match=r"x has shape \(3, 3, 40, 40\) and kept holds 2 images of 40 x 40"):
        against(x, kept)
    with pytest.raises(ValueError, match="accepted: the same size"):
        against(x[:2, :, :36], kept)
    with pytest.raises(TypeError, match="kept is Tensor"):
        against(x, y)
    with pytest.raises(ValueError, match="nan is 'omit'"):
        against(x[:2], kept, nan="omit")
    spoilt = x[:2].clone()
    spoilt[0, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="x has 1 non-finite pixels"):
        against(spoilt, kept)
    with pytest.raises(ValueError, match=r"store is torch\.int8"):
        features(y, **RANDOM, store=torch.int8)
    with pytest.raises(ValueError, match="float64 after float64 only"):
        features(y, **RANDOM, store=torch.float64)
    with pytest.raises(ValueError, match="bfloat16"):
        similarity(features(x[:2], **RANDOM, dtype=torch.bfloat16), kept)
    with pytest.raises(ValueError, match="same size"):
        similarity(features(x[:2, :, :, :36], **RANDOM), kept)
    other = {k: v * 2 for k, v in known.random_weights().state.items()}
    with pytest.raises(ValueError, match="different weights"):
        similarity(features(x[:2], weights=other, data_range=1.0), kept)
    same = {k: v.clone() for k, v in known.random_weights().state.items()}
    again = similarity(features(x[:2], weights=same, data_range=1.0), kept).rows
    torch.testing.assert_close(again, against(x[:2], kept, reduction="none"), rtol=0, atol=1e-7)


@every_backend
def test_memory_budget_splits_the_batch_and_changes_nothing(backend):
    backends.require("dists", backend)
    x, y = pair(32, 32, images=3)
    whole = dists(x, y, **RANDOM, reduction="none", backend=backend)
    for budget in (1, "4MiB", 2**23):
        parts = dists(x, y, **RANDOM, reduction="none", backend=backend, memory_budget=budget)
        torch.testing.assert_close(parts, whole, rtol=0, atol=2e-7)


def test_the_network_is_built_once_for_all_threads():
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: network_for(known.load("random"), torch.float32, torch.device("cpu")), range(8)))
    assert all(m is made[0] for m in made)
    assert not any(t.requires_grad for stage in made[0].stages for layer in stage for t in layer)


def test_gradient_in_float64_passes_gradcheck():
    x, y = pair(32, 32, channels=1, dtype=torch.float64)
    x.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: dists(v, y, **RANDOM), (x,), fast_mode=True, eps=1e-7, atol=1e-6)


@pytest.mark.parametrize("name", ["texture", "flat", "half-flat", "identical"])
def test_gradient_is_finite_and_float32_follows_float64(name):
    x, y = (v[0] for v in pair(48, 48, channels=1))
    x = {"texture": x, "flat": torch.full_like(x, 0.3), "half-flat": x.clone(), "identical": y.clone()}[name]
    if name == "half-flat":
        x[..., :24] = 0.5
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaf = x.to(dtype).requires_grad_(True)
        gradients += torch.autograd.grad(dists(leaf, y.to(dtype), **RANDOM), leaf)
        assert torch.isfinite(gradients[-1]).all()
    top = gradients[1].abs().max()
    error = (gradients[0] - gradients[1]).abs().max()
    assert error <= (1e-7 if name == "identical" else GRADIENT_FLOAT32 * top)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["texture", "flat", "identical"])
def test_gradient_is_finite_in_every_dtype(name, dtype):
    x, y = (v[0] for v in pair(32, 32, channels=1))
    x = {"texture": x, "flat": torch.full_like(x, 0.3), "identical": y}[name].to(dtype).clone().requires_grad_(True)
    for network in {torch.float32, dtype}:
        (g,) = torch.autograd.grad(dists(x, y.to(dtype), **RANDOM, dtype=network), x)
        assert g.dtype == dtype
        assert torch.isfinite(g).all()
    kept = features(y.to(dtype), **RANDOM)
    (g,) = torch.autograd.grad(against(x, kept), x)
    assert torch.isfinite(g).all()


@every_backend
def test_constant_images_have_a_finite_distance(backend):
    backends.require("dists", backend)
    dark, bright = (torch.full((1, 36, 32), v) for v in (0.2, 0.7))
    assert abs(dists(dark, dark, **RANDOM, backend=backend).item()) < 1e-12
    assert 0 < dists(bright, dark, **RANDOM, backend=backend).item() < 1
    assert torch.isfinite(dists(torch.zeros(1, 32, 32), dark[:, :32], **RANDOM, backend=backend))


def test_works_after_a_first_use_in_inference_mode():
    from semnr_kernels.dists import network as module

    module._networks.clear()
    known.alpha_beta.cache_clear()
    pretrained.random_weights.cache_clear()
    x, y = pair(32, 32)
    with torch.inference_mode():
        first = dists(x, y, **RANDOM)
    leaf = x.clone().requires_grad_(True)
    score = dists(leaf, y, **RANDOM)
    score.backward()
    assert score.item() == pytest.approx(first.item(), abs=FLOAT32)
    assert leaf.grad.abs().max() > 0


def test_a_full_mask_changes_nothing_and_says_approximate():
    x, y = pair(48, 48)
    result = dists(x, y, **RANDOM, mask=torch.ones(48, 48, dtype=torch.bool), details=True)
    assert result.value.item() == pytest.approx(dists(x, y, **RANDOM).item(), abs=1e-7)
    assert any("approximate" in flag for flag in result.flags)


def test_what_lies_under_the_mask_does_not_count():
    x, y = pair(64, 64)
    mask = torch.ones(64, 64, dtype=torch.bool)
    mask[20:40, 10:30] = False
    spoilt = x.clone()
    spoilt[..., ~mask] = float("nan")
    a = dists(x, y, **RANDOM, mask=mask, details=True)
    assert a.value == dists(spoilt, y, **RANDOM, mask=mask) == dists(spoilt, y, **RANDOM, nan="omit")
    assert a.coverage.item() == pytest.approx(1 - 400 / 4096)
    kept = features(y, **RANDOM, mask=mask)
    rows = similarity(features(spoilt, **RANDOM, mask=mask, reference_image=y), kept).rows
    assert rows.item() == pytest.approx(a.value.item(), abs=1e-7)
    # the image's own map has no neighbours: there the pooling is over the valid pixels exactly
    inside = reference._similarities(x[..., mask][..., None], y[..., mask][..., None], None)
    pooled = reference._similarities(x, y, mask[None, None].float())
    for left, right in zip(inside, pooled, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


def test_nans_are_reported_propagated_or_omitted():
    x, y = pair(32, 32, images=2)
    x[0, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="x has 1 non-finite pixels"):
        dists(x, y, **RANDOM)
    rows = dists(x, y, **RANDOM, nan="propagate", reduction="none")
    assert torch.isnan(rows).tolist() == [True, False]
    assert torch.isfinite(dists(x, y, **RANDOM, nan="omit"))
    assert torch.isnan(dists(y[0], y[0], **RANDOM, mask=torch.zeros(32, 32, dtype=torch.bool)))


@every_backend
def test_a_network_that_leaves_the_range_of_its_dtype_is_an_error(backend):
    backends.require("dists", backend)
    large = {k: v * (30 if k.endswith("weight") else 1) for k, v in known.random_weights().state.items()}
    x, y = pair(32, 32)
    options = {"weights": large, "data_range": 1.0, "backend": backend}
    with pytest.raises(ValueError, match=r"dtype is torch\.float16, and the network's values leave its range"):
        dists(x, y, **options, dtype=torch.float16)
    assert torch.isnan(dists(x, y, **options, dtype=torch.float16, nan="propagate"))
    assert torch.isfinite(dists(x, y, **options, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": "half"}, "resize is 'half'"),
        ({"dtype": torch.int32}, "dtype is torch.int32"),
        ({"dtype": "float32"}, "dtype is 'float32'"),
        ({"memory_budget": 0}, "memory_budget is 0"),
        ({"memory_budget": "2GiBs"}, "memory_budget is '2GiBs'"),
        ({"memory_budget": "-1MiB"}, "memory_budget is '-1MiB'"),
        ({"return_map": True, "map_window": 32}, "map_window is 32; accepted: an odd multiple of 16"),
        ({"return_map": True, "map_window": 7.5}, "map_window is 7.5"),
        ({"weights": 3}, "weights is int"),
        ({"data_range": -1}, "data_range is -1"),
        ({"reduction": "median"}, "reduction is 'median'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        dists(*pair(32, 32), **{**RANDOM, **arguments})


def test_wrong_images_are_named():
    with pytest.raises(ValueError, match="x is 31 x 64; accepted: sides of at least 32"):
        dists(torch.zeros(31, 64), torch.zeros(31, 64), **RANDOM)
    with pytest.raises(ValueError, match="x has 4 channels"):
        dists(torch.zeros(1, 4, 64, 64), torch.zeros(1, 4, 64, 64), **RANDOM)
    with pytest.raises(ValueError, match="image is 64 x 8"):
        features(torch.zeros(64, 8), **RANDOM)


def test_no_weights_at_hand_names_the_remedies_and_needs_no_torchvision(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(kernels.WeightsUnavailable) as caught:
        dists(*pair(32, 32), data_range=1.0)
    for word in ("semnr weights fetch vgg16", 'weights="random"', "weights=PATH", str(tmp_path)):
        assert word in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_fastest_backend_that_can_is_taken():
    x, y = pair(32, 32)
    assert {"reference", "native", "triton"} <= set(registry.implementations("dists"))
    with pytest.raises(kernels.BackendUnavailable, match="triton"):
        dists(x, y, **RANDOM, backend="triton")
    with registry.recording() as used:
        dists(x, y, **RANDOM)
    assert used["dists"] == ("native" if registry.backends()["native"] == "available" else "reference")
    with registry.recording() as used:
        dists(x.requires_grad_(True), y, **RANDOM)
    assert used["dists"] == "reference"
