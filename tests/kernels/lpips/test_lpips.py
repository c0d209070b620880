"""LPIPS against the authors' package and a hand-computed value, every backend; streams, masks, gradients, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import backends
import calibrated
import cases
from semnr_kernels import WeightsUnavailable, pretrained
from semnr_kernels.dists import dists
from semnr_kernels.lpips import against, features, flow, lpips, network, reference, with_dists
from semnr_kernels.lpips.sums import Settings
from semnr_kernels.pretrained import LPIPS

AUTHORS = 1e-6  # the project's bound, float32
# float32 convolutions in another order, Winograd's among them; measured 3e-7 at 32 x 32, below 1e-7 at 256
BACKEND = 5e-7
FLOAT64 = 1e-12  # bands against the whole: rounding
BFLOAT16 = 2e-3  # the project's bound
RANDOM = {"weights": "random", "data_range": 1.0}
SIZES = [(32, 32), (33, 47), (48, 61), (64, 64), (96, 40), (101, 77), (128, 128), (150, 90), (257, 64), (130, 260)]
every_backend = pytest.mark.parametrize("backend", backends.params("lpips"))
both_nets = pytest.mark.parametrize("net", ["alex", "vgg"])


def pair(height=64, width=64, channels=3, images=1, dtype=torch.float32, seed=0):
    made = [cases.noisy_pair(height, width, seed=seed + 5 * i) for i in range(images)]
    tint = torch.tensor([1.0, 0.8, 0.5][:channels], dtype=torch.float64)[None, :, None, None]
    return tuple((torch.from_numpy(np.stack([m[j] for m in made]))[:, None] * tint).to(dtype) for j in (0, 1))


def random_network(net, dtype=torch.float64):
    trunk = pretrained.random_weights(network.TRUNKS[net][0])
    return network.network_for(net, trunk, pretrained.random_weights(LPIPS), dtype, torch.device("cpu"))


def authors_of(net, trunk, linear):
    """lpips 0.1.4 with these weights."""
    package = pytest.importorskip("lpips", reason="lpips is not installed")
    with pytest.warns(UserWarning, match="deprecated"):
        model = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    with torch.no_grad():
        for name, value in model.net.named_parameters():
            value.copy_(trunk.state[name.partition(".")[2]])
        for i, layer in enumerate(model.lins):
            layer.model[-1].weight.copy_(linear.state[f"{net}.{i}"].reshape(1, -1, 1, 1))
    return model.eval()


@pytest.fixture(scope="module", params=["alex", "vgg"])
def authors(request):
    """(net, lpips 0.1.4) with the seeded stand-in's weights."""
    trunk = pretrained.random_weights(network.TRUNKS[request.param][0])
    return request.param, authors_of(request.param, trunk, pretrained.random_weights(LPIPS))


@every_backend
def test_equals_the_authors_package(authors, backend):
    backends.require("lpips", backend)
    net, model = authors
    for size in ((64, 64), (45, 70)):
        x, y = pair(*size, images=2)
        with torch.no_grad():
            theirs = model(x, y, normalize=True).reshape(-1)
        ours = lpips(x, y, net=net, **RANDOM, reduction="none", backend=backend)
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=AUTHORS * max(1.0, theirs.max().item()))
        assert (ours > 1e-3).all()


@both_nets
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_twenty_pairs_equal_the_authors_package_with_the_published_weights(net, size):
    trunk = network.TRUNKS[net][0]
    calibrated.need_weights(trunk.name, "lpips")
    model = authors_of(net, pretrained.load(None, trunk, "LPIPS"), pretrained.load(None, LPIPS, "LPIPS"))
    for channels in (1, 3):
        x, y = pair(*size, channels=channels, seed=channels)
        with torch.no_grad():
            theirs = model(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1), normalize=True).item()
        assert float(lpips(x, y, net=net, data_range=1.0)) == pytest.approx(theirs, abs=AUTHORS)


def test_the_five_published_pairs_come_out_at_their_published_digits():
    calibrated.need_weights("alexnet", "lpips")
    values = [float(lpips(*map(torch.from_numpy, images))) for images in calibrated.published_pairs()]
    assert [f"{value:.4g}" for value in values] == [f"{float(digits):.4g}" for digits in calibrated.LPIPS_ALEX]


def test_one_map_by_hand():
    x = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)  # of norm 5: (0.6, 0.8)
    y = torch.tensor([0.0, 2.0]).reshape(1, 2, 1, 1)  # (0, 1)
    found = reference.differences(x, y, torch.tensor([2.0, 5.0]))
    assert found.item() == pytest.approx(2 * 0.36 + 5 * 0.04, rel=1e-6)


@every_backend
@both_nets
def test_identical_images_are_at_distance_exactly_zero_and_order_does_not_matter(net, backend):
    backends.require("lpips", backend)
    x, y = pair()
    assert lpips(x, x, net=net, **RANDOM, backend=backend) == 0
    one, other = (lpips(a, b, net=net, **RANDOM, backend=backend) for a, b in ((x, y), (y, x)))
    assert one.item() == pytest.approx(other.item(), abs=BACKEND)


@both_nets
def test_backends_agree_with_maps_and_masks(net):
    x, y = pair(57, 83, images=3)
    mask = torch.ones(3, 57, 83, dtype=torch.bool)
    mask[1, 10:20, 5:30] = False
    options = {"net": net, **RANDOM, "reduction": "none", "details": True, "return_map": True}
    for masked in (None, mask):
        first, second = (lpips(x, y, **options, mask=masked, backend=b) for b in ("reference", "native"))
        torch.testing.assert_close(first.value, second.value, rtol=0, atol=BACKEND)
        torch.testing.assert_close(first.components["layers"], second.components["layers"], rtol=0, atol=BACKEND)
        torch.testing.assert_close(first.map, second.map, rtol=0, atol=1e-5)
        torch.testing.assert_close(first.components["layers"].sum(1), first.value)
        assert first.map.shape == (3, 1, 57, 83)


@both_nets
def test_masked_pixels_do_not_count_and_nothing_valid_is_nan(net):
    x, y = pair()
    mask = torch.ones(64, 64, dtype=torch.bool)
    mask[20:40, 20:44] = False
    spoilt = x.clone()
    spoilt[..., 20:40, 20:44] = 0.9
    a, b = (lpips(v, y, net=net, **RANDOM, mask=mask, details=True) for v in (x, spoilt))
    assert a.value == b.value
    assert any("approximate" in flag for flag in a.flags)
    assert lpips(x, y, net=net, **RANDOM, mask=torch.zeros(64, 64, dtype=torch.bool)).isnan()


@both_nets
@pytest.mark.parametrize("size", [(57, 83), (130, 75), (64, 200)], ids=str)
def test_bands_of_rows_give_what_the_whole_does(net, size, monkeypatch):
    x, y = pair(*size, channels=1, dtype=torch.float64)
    made = random_network(net)
    settings = Settings(net, dtype=torch.float64, want_map=True)
    with torch.no_grad():
        whole = reference.lpips(x, y, None, made, settings)
        monkeypatch.setattr(flow, "_piece", lambda *_: 1)
        monkeypatch.setattr(flow, "_LEAST_ROWS", 3)
        bands = flow.lpips(flow.Torch(), x, y, None, made, settings)
    torch.testing.assert_close(bands.layers, whole.layers, rtol=0, atol=FLOAT64)
    torch.testing.assert_close(bands.map, whole.map, rtol=0, atol=1e-9)


def test_a_small_budget_streams_and_changes_nothing(monkeypatch):
    x, y = pair(400, 64, channels=1)
    streamed = []
    original = flow.Flow.maps
    monkeypatch.setattr(flow.Flow, "maps", lambda self: streamed.append(self.rows) or original(self))
    for backend in ("reference", "native"):
        small, large = (lpips(x, y, **RANDOM, backend=backend, memory_budget=b) for b in (1000, "1GiB"))
        assert small.item() == pytest.approx(large.item(), abs=BACKEND)
    assert min(streamed) < 400


@every_backend
@both_nets
def test_kept_features_give_the_same_and_one_serves_many(net, backend):
    backends.require("lpips", backend)
    x, y = pair(70, 45, images=3)
    whole = lpips(x, y, net=net, **RANDOM, reduction="none", backend=backend)
    kept = features(y, net=net, **RANDOM, backend=backend)
    torch.testing.assert_close(against(x, kept, reduction="none", backend=backend), whole, rtol=0, atol=BACKEND)
    one = features(y[:1], net=net, **RANDOM, backend=backend)
    many = against(x, one, reduction="none", backend=backend)
    assert many[0].item() == pytest.approx(whole[0].item(), abs=BACKEND)
    with pytest.raises(ValueError, match="x has shape"):
        against(x[..., :40], kept)
    with pytest.raises(TypeError, match="kept is str"):
        against(x, "y")


@pytest.mark.parametrize("size", [(64, 64), (57, 83), (130, 75)], ids=str)
def test_dists_and_lpips_together_are_what_each_is_alone(size):
    x, y = pair(*size, channels=1, images=2)
    alone = dists(x, y, **RANDOM, reduction="none"), lpips(x, y, net="vgg", **RANDOM, reduction="none")
    for budget in (None, 1000):  # at once; too small for a pair, so one after the other
        for rows, expected in zip(with_dists(x, y, **RANDOM, memory_budget=budget), alone, strict=True):
            torch.testing.assert_close(rows, expected, rtol=0, atol=BACKEND)


@both_nets
def test_gradients_are_finite_and_right_in_double(net):
    x, y = pair(33, 32, channels=1, dtype=torch.float64)
    x.requires_grad_()
    value = lpips(x, y, net=net, **RANDOM)
    (slope,) = torch.autograd.grad(value, x)
    direction = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = 1e-7  # a longer one crosses kinks of ReLU and pooling
    with torch.no_grad():
        ahead, behind = (lpips(x + s * step * direction, y, net=net, **RANDOM) for s in (1, -1))
    assert ((ahead - behind) / (2 * step)).item() == pytest.approx((slope * direction).sum().item(), rel=1e-4)


@both_nets
def test_gradients_are_finite_on_flat_and_identical_images(net):
    for x in (torch.zeros(1, 1, 40, 40), torch.full((1, 1, 40, 40), 0.5), pair(40, 40, channels=1)[0]):
        x = x.clone().requires_grad_()
        lpips(x, x.detach().clone(), net=net, **RANDOM).backward()
        assert x.grad.isfinite().all()


@both_nets
def test_integers_and_grey_score_as_their_values(net):
    x, y = ((255 * v).round() for v in pair(channels=1))
    as_float = lpips(x, y, net=net, weights="random", data_range=255)
    as_bytes = lpips(x.to(torch.uint8), y.to(torch.uint8), net=net, weights="random", details=True)
    assert as_float == as_bytes.value
    assert any("one channel" in flag for flag in as_bytes.flags)
    assert any("uncalibrated" in flag for flag in as_bytes.flags)
    assert as_bytes.settings["calibrated"] is False


@both_nets
def test_bfloat16_stays_near_float32_with_the_published_weights(net):
    calibrated.need_weights(network.TRUNKS[net][0].name, "lpips")
    for images in calibrated.published_pairs()[:2]:
        x, y = (torch.from_numpy(v[:, :96, :128].copy()) for v in images)
        wide, narrow = (float(lpips(x, y, net=net, dtype=dtype)) for dtype in (None, torch.bfloat16))
        assert narrow == pytest.approx(wide, abs=BFLOAT16)


def test_wrong_arguments_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    x, y = pair()
    with pytest.raises(ValueError, match="net is 'squeeze'; accepted: 'alex', 'vgg'"):
        lpips(x, y, net="squeeze", **RANDOM)
    with pytest.raises(ValueError, match="sides of at least 32"):
        lpips(x[..., :20, :20], y[..., :20, :20], **RANDOM)
    with pytest.raises(ValueError, match="2 channels"):
        lpips(x[:, :2], y[:, :2], **RANDOM)
    with pytest.raises(WeightsUnavailable, match="semnr weights fetch alexnet"):
        lpips(x, y, data_range=1.0)
    with pytest.raises(WeightsUnavailable, match="semnr weights fetch lpips"):
        lpips(x, y, data_range=1.0, weights=dict(pretrained.random_weights(pretrained.ALEXNET).state))
    with pytest.raises(WeightsUnavailable, match="lacks 10 of 10 tensors of LPIPS's linear layers"):
        lpips(x, y, linear={}, **RANDOM)
    spoilt = x.clone()
    spoilt[0, 0, 3, 3] = float("nan")
    with pytest.raises(ValueError, match="x has"):
        lpips(spoilt, y, **RANDOM)
    assert lpips(spoilt, y, nan="propagate", **RANDOM).isnan()
