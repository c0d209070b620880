"""One validation of options for every op: NumPy's numbers count, and what is no number is refused by name."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import semnr
from semnr_kernels import checks

RNG = np.random.default_rng(0)
Y = np.kron(RNG.random((8, 8)), np.ones((8, 8)))
X = np.clip(Y + 0.05 * RNG.standard_normal(Y.shape), 0, 1)
NEEDS_RANGE = [semnr.psnr, semnr.ssim, semnr.ms_ssim, semnr.fsim, semnr.dists]


@pytest.mark.parametrize(
    ("function", "numbers", "same"),
    [
        (semnr.ssim, {"window_size": np.int64(7), "sigma": np.float32(1.5)}, {"window_size": 7, "sigma": 1.5}),
        (semnr.ssim, {"k1": np.float64(0.02), "downsample": np.int16(2)}, {"k1": 0.02, "downsample": 2}),
        (semnr.ssim, {"details": np.True_, "return_map": np.False_}, {"details": True}),
        (semnr.ms_ssim, {"weights": np.array([0.4, 0.6])}, {"weights": (0.4, 0.6)}),
        (semnr.ms_ssim, {"weights": [np.float32(0.5), 1]}, {"weights": (0.5, 1.0)}),
        (semnr.fsim, {"scales": np.int32(3), "k": np.float32(2)}, {"scales": 3, "k": 2.0}),
        (semnr.fsim, {"downsample": np.int64(1), "scales": np.int64(3)}, {"downsample": 1, "scales": 3}),
        (semnr.cnr_map, {"window": np.int64(32), "stride": (np.int8(16), 8)}, {"window": 32, "stride": (16, 8)}),
        (semnr.otsu_masks, {"guard": np.int64(1), "smoothing": np.float32(0.5)}, {"guard": 1, "smoothing": 0.5}),
    ],
)
def test_numpy_numbers_are_numbers(function: Any, numbers: dict[str, Any], same: dict[str, Any]) -> None:
    images = (Y,) if function is semnr.otsu_masks else (X, Y)
    scale = {"data_range": np.float32(1)} if function in NEEDS_RANGE else {}
    found, expected = function(*images, **scale, **numbers), function(*images, **scale, **same)
    for name in ("value", "signal", "threshold"):
        found, expected = getattr(found, name, found), getattr(expected, name, expected)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("function", NEEDS_RANGE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("value", [1, 1.0, np.int64(1), np.float16(1), np.array(1.0), torch.tensor(1.0)], ids=repr)
def test_any_real_number_is_a_data_range(function: Any, value: Any) -> None:
    options = {"weights": "random"} if function is semnr.dists else {}
    options |= {"weights": (0.5, 0.5)} if function is semnr.ms_ssim else {}
    assert function(X, Y, data_range=value, **options) == function(X, Y, data_range=1.0, **options)


@pytest.mark.parametrize(
    "function", [*NEEDS_RANGE, semnr.mse, semnr.cnr, semnr.losses.SSIMLoss], ids=lambda f: f.__name__
)
@pytest.mark.parametrize(
    "value", [True, np.True_, torch.tensor(True), "255", b"255", 1j, [1.0], np.ones(1), slice(1)], ids=repr
)
def test_what_is_no_number_is_no_data_range(function: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="data_range is"):
        function(*(() if function is semnr.losses.SSIMLoss else (X, Y)), data_range=value)


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, 1e-320, 1e200, 10**400], ids=repr)
def test_a_data_range_is_a_scale_whose_square_is_a_number(value: Any) -> None:
    for function in (semnr.psnr, semnr.ssim, semnr.fsim):
        with pytest.raises(ValueError, match="data_range is"):
            function(X, Y, data_range=value)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: semnr.ssim(X, Y, data_range=1.0, window_size=7.0), ValueError, "window_size is 7.0"),
        (lambda: semnr.ssim(X, Y, data_range=1.0, window_size=True), ValueError, "window_size is True"),
        (lambda: semnr.ssim(X, Y, data_range=1.0, window_size=np.float64(7)), ValueError, "window_size is np"),
        (lambda: semnr.ssim(X, Y, data_range=1.0, sigma="1.5"), TypeError, "sigma is str"),
        (lambda: semnr.ssim(X, Y, data_range=1.0, sigma=0), ValueError, "sigma is 0"),
        (lambda: semnr.ssim(X, Y, data_range=1.0, details="no"), TypeError, "details is 'no'"),
        (lambda: semnr.ssim(X, Y, data_range=1.0, downsample=500), ValueError, "downsample is 500"),
        (lambda: semnr.ssim(X, Y, data_range=1.0, downsample="2"), ValueError, "downsample is '2'"),
        (lambda: semnr.ssim(X, Y, data_range=1.0, reduction=None), ValueError, "reduction is None"),
        (lambda: semnr.ssim(X, Y, data_range=1.0, reduction=np.ones(2)), ValueError, "reduction is tensor"),
        (lambda: semnr.ms_ssim(X, Y, data_range=1.0, weights=0.5), TypeError, "weights is 0.5"),
        (lambda: semnr.ms_ssim(X, Y, data_range=1.0, weights="ab"), TypeError, "weights is 'ab'"),
        (lambda: semnr.fsim(X, Y, data_range=1.0, scales=2.5), ValueError, "scales is 2.5"),
        (lambda: semnr.fsim(X, Y, data_range=1.0, k="2"), TypeError, "k is str"),
        (lambda: semnr.dists(X, Y, data_range=1.0, weights="random", dtype="float32"), TypeError, "dtype is 'float32'"),
        (lambda: semnr.cnr_map(X, window=(1, 2, 3)), ValueError, r"window is \(1, 2, 3\)"),
        (lambda: semnr.cnr_map(X, window="64"), ValueError, "window is '64'"),
        (lambda: semnr.cnr(X, kind="gncr"), ValueError, "kind is 'gncr'; accepted: .*'gcnr', 'rose'|kind is 'gncr'"),
        (lambda: semnr.cnr_map(X, kind="gcnr"), ValueError, "kind is 'gcnr'"),
        (lambda: semnr.otsu_masks(Y, bins=True), ValueError, "bins is True"),
        (lambda: semnr.worst_windows(X[0], window=2, stride=2), TypeError, "values is"),
        (lambda: semnr.losses.CharbonnierLoss(1.0, epsilon=1e-50), ValueError, "epsilon is 1e-50"),
        (lambda: semnr.losses.CharbonnierLoss(1.0, epsilon=True), TypeError, "epsilon is bool"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named_with_what_it_was(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=rf"{text}.*accepted"):
        call()


REGIONS = {"signal": Y > 0.5, "background": Y <= 0.5}


@pytest.mark.parametrize(
    "value", [(0, np.inf), (np.nan, 1), (1, 0), (1, 1), (0, 1, 2), "ab", (None, 1), (True, 2), 1.0], ids=repr
)
def test_the_bins_of_gcnr_have_two_finite_ends(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="value_range"):
        semnr.cnr(X, kind="gcnr", value_range=value, **REGIONS)


@pytest.mark.parametrize("kind", ["gcnr", "rose"])
def test_a_named_backend_is_never_dropped_for_the_kinds_of_populations(kind: str) -> None:
    expected = semnr.cnr(X, kind=kind, **REGIONS)
    assert semnr.cnr(X, kind=kind, backend="reference", **REGIONS) == expected
    for backend in ("nosuch", "native", "triton"):
        with pytest.raises(semnr.BackendUnavailable, match=backend):
            semnr.cnr(X, kind=kind, backend=backend, **REGIONS)
    assert semnr.explain("cnr", X, kind=kind).chosen == "reference"
    metrics = pytest.importorskip("semnr.torchmetrics")
    stream = metrics.CNR(kind=kind)
    stream.update(torch.from_numpy(X), **{k: torch.from_numpy(v) for k, v in REGIONS.items()})
    assert float(stream.compute()) == pytest.approx(float(expected))


def test_masks_and_windows_take_numpy_and_give_it_back() -> None:
    masks = semnr.otsu_masks(Y)
    there = semnr.otsu_masks(torch.from_numpy(Y))
    assert isinstance(masks.signal, np.ndarray)
    np.testing.assert_array_equal(masks.signal, there.signal.numpy())
    assert masks.threshold == float(there.threshold)
    found = semnr.cnr_map(X, Y, window=16, stride=8)
    assert isinstance(found, np.ndarray)
    assert semnr.worst_windows(found, window=16, stride=np.int64(8)) == semnr.worst_windows(
        torch.from_numpy(found), window=(16, 16), stride=8
    )


def test_overshoot_of_integers_looks_at_valid_pixels_alone() -> None:
    i, z = np.array([[200, 5], [5, 5]], np.uint8), np.zeros((2, 2), np.uint8)
    mask = np.array([[False, True], [True, True]])
    whole = semnr.psnr(i.astype(np.float32), z.astype(np.float32), data_range=100, mask=mask, overshoot="error")
    assert whole == pytest.approx(10 * np.log10(100**2 / 25))
    assert semnr.psnr(i, z, data_range=100, mask=mask, overshoot="error") == whole
    found = semnr.psnr(i, z, data_range=100, mask=mask, overshoot="clip", details=True)
    assert (found.value, found.clipped_fraction) == (whole, 0.0)


def test_a_wholly_masked_image_is_flagged() -> None:
    mask = np.zeros((2, 1, 64, 64), bool)
    mask[1] = True
    pair = (np.stack([X, X])[:, None], np.stack([Y, Y])[:, None])
    for function in (semnr.psnr, semnr.ssim):
        found = function(*pair, data_range=1.0, mask=mask, reduction="none", details=True)
        assert np.isnan(found.value[0])
        assert any("1 images without a valid" in flag for flag in found.flags)


def test_a_mirrored_border_needs_half_a_window() -> None:
    theirs = pytest.importorskip("torchmetrics.functional.image").structural_similarity_index_measure
    for side in (6, 8, 10, 11):
        x, y = (torch.rand((1, 1, side, side), generator=torch.Generator().manual_seed(i)).double() for i in range(2))
        expected = float(theirs(x, y, data_range=1.0))
        for backend in ("reference", "auto"):
            found = semnr.ssim(x, y, data_range=1.0, convention="torchmetrics", precision="float64", backend=backend)
            assert float(found) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="half the window, 6x6"):
        semnr.ssim(x[..., :5, :5], y[..., :5, :5], data_range=1.0, border="reflect")


def test_colour_last_is_named_where_it_cannot_be_an_image() -> None:
    with pytest.raises(ValueError, match=r"channels last\? accepted: \(C, H, W\)"):
        semnr.ssim(RNG.random((40, 40, 3)), RNG.random((40, 40, 3)), data_range=1.0)


def test_no_noise_is_infinite_and_never_negative() -> None:
    flat = np.where(REGIONS["signal"], 1e-200, 0.0)
    for backend in ("reference", "auto"):
        assert semnr.cnr(flat, backend=backend, **REGIONS) == np.inf
    x = np.where(REGIONS["signal"], 2e-200, 1e-200) * (1 + 1e-3 * RNG.random(Y.shape))
    assert not semnr.cnr(x, **REGIONS) < 0


def test_the_smallest_epsilon_of_charbonnier_keeps_its_gradient() -> None:
    x = torch.rand((1, 1, 8, 8)).requires_grad_()
    loss = semnr.losses.CharbonnierLoss(1.0, epsilon=1e-30)
    loss(x, x.detach()).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))
    x.grad = None
    loss(x, x.detach() - 0.25).backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 1 / 64))


def test_losses_and_streams_take_the_pair_of_mixed_precision() -> None:
    metrics = pytest.importorskip("semnr.torchmetrics")
    x, y = (torch.from_numpy(v)[None, None].float() for v in (X, Y))
    half = x.bfloat16()
    expected = semnr.ssim(half.float(), y, data_range=1.0)
    for make in (metrics.SSIM, metrics.PSNR, metrics.FSIM):
        stream = make(1.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            stream.update(half, y)
        whole = make(1.0)
        whole.update(half.float(), y)
        assert float(stream.compute()) == float(whole.compute())
        with pytest.raises(TypeError, match="same dtype"):
            make(1.0).update(half, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = semnr.losses.SSIMLoss(1.0)(half, half * 0.9)
        assert loss.dtype == torch.float32
        assert float(semnr.losses.SSIMLoss(1.0)(half, y)) == pytest.approx(1 - float(expected), abs=1e-6)
    assert semnr.losses.SSIMLoss(1.0)(half, half * 0.9).dtype == torch.bfloat16


def test_streams_of_other_settings_never_share_or_merge_their_sums() -> None:
    metrics = pytest.importorskip("semnr.torchmetrics")
    torchmetrics = pytest.importorskip("torchmetrics")
    y = torch.rand((3, 1, 64, 66), generator=torch.Generator().manual_seed(0))
    x = (y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    settings = {"a": [0.5, 0.5], "b": [0.9, 0.1], "c": np.array([0.2, 0.8])}
    group = torchmetrics.MetricCollection({k: metrics.MSSSIM(1.0, weights=w) for k, w in settings.items()})
    group.update(y, y)  # identical images first: every state looks the same
    group.update(x, y)
    for name, found in group.compute().items():
        one = semnr.ms_ssim(x, y, data_range=1.0, weights=settings[name])
        assert float(found) == pytest.approx((1 + float(one)) / 2, abs=1e-9)

    def stream(**options: Any) -> str:
        return metrics.DISTS(1.0, **options)._fingerprint()

    state = {"weight": torch.ones(3)}
    names = [
        stream(weights=w) for w in ("a", "b", Path("a"), state, {"weight": torch.zeros(3)}, {"weight": torch.ones(4)})
    ]
    names += [stream(dtype=d) for d in (torch.float32, torch.bfloat16)] + [stream()]
    assert len(set(names)) == len(names)
    assert stream(weights={"weight": torch.ones(3)}) == stream(weights=state)
    assert metrics.SSIM(1, window_size=np.int64(7))._fingerprint() == metrics.SSIM(1.0, window_size=7)._fingerprint()
    first, second = metrics.MSSSIM(1.0, weights=[0.5, 0.5]), metrics.MSSSIM(1.0, weights=[0.9, 0.1])
    first.update(x, y)
    second.update(x, y)
    with pytest.raises(Exception, match=r"."):  # torchmetrics' own error, whatever its kind
        first.merge_state(second)


def test_a_reference_travels_to_other_processes_and_copies() -> None:
    reference = semnr.Reference(Y, data_range=1.0)
    value = reference.fsim(X)
    for copied in (pickle.loads(pickle.dumps(reference)), copy.deepcopy(reference)):
        assert copied.fsim(X) == value
        assert copied.cnr(X) == pytest.approx(reference.cnr(X), nan_ok=True)


def test_an_option_is_checked_by_its_kind_alone() -> None:
    assert checks.option("n", "int", np.uint8(3)) == 3
    assert type(checks.option("n", "float | None", np.float32(3))) is float
    assert checks.option("n", "float | None", None) is None
    assert checks.option("n", "int | str", "auto") == "auto"
    for kind, wrong in (("int", "3"), ("float", "3"), ("bool", 2), ("int | str", 2.5)):
        with pytest.raises((TypeError, ValueError), match="n is"):
            checks.option("n", kind, wrong)
