"""`semnr.Reference`: the functions' own numbers, with what depends on the reference alone computed once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import cases
import semnr
from semnr_kernels import cnr, dists, fsim, lpips

SIDE = 64
# method -> options of the reference, options of the call
CALLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mse": ("mse", {}, {}),
    "mae": ("mae", {}, {"reduction": "sum"}),
    "psnr": ("psnr", {}, {"reduction": "none"}),
    "ssim": ("ssim", {}, {"window": "uniform", "window_size": 7}),
    "ssim-map": ("ssim", {}, {"return_map": True}),
    "ms_ssim": ("ms_ssim", {}, {"window_size": 3}),
    "fsim": ("fsim", {}, {}),
    "fsim-none": ("fsim", {}, {"reduction": "none", "orientations": 6}),
    "fsim-details": ("fsim", {}, {"details": True}),
    "fsim-clip": ("fsim", {}, {"overshoot": "clip"}),
    "dists": ("dists", {"dists_weights": "random"}, {"dtype": torch.float64}),
    "dists-none": ("dists", {}, {"weights": "random", "dtype": torch.float64, "reduction": "none"}),
    "lpips": ("lpips", {}, {"weights": "random", "dtype": torch.float64}),
    "lpips-vgg-none": ("lpips", {}, {"weights": "random", "dtype": torch.float64, "net": "vgg", "reduction": "none"}),
    "cnr": ("cnr", {}, {}),
    "cnr-noise": ("cnr", {}, {"kind": "fixed_noise", "noise": 0.1, "reduction": "mean"}),
    "cnr-details": ("cnr", {}, {"details": True}),
    "cnr_map": ("cnr_map", {}, {"window": 32, "stride": 16}),
}


def stack(count: int = 2, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """(count, 1, side, side) candidate and reference, float64."""
    pairs = [cases.noisy_pair(side, side, seed=seed) for seed in range(count)]
    return tuple(np.stack(images)[:, None] for images in zip(*pairs, strict=True))  # type: ignore[return-value]


def tensors(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(v) for v in stack(count))  # type: ignore[return-value]


def valid() -> np.ndarray:
    mask = np.ones((SIDE, SIDE), dtype=bool)
    mask[:10, :20] = False
    return mask


def parts(result: Any) -> dict[str, Any]:
    if not isinstance(result, semnr.Result):
        return {"value": result}
    found = {k: getattr(result, k) for k in ("value", "map", "coverage", "flags", "settings", "data_range")}
    return {k: v for k, v in {**found, **(result.components or {})}.items() if v is not None}


def assert_same(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    found, wanted = parts(found), parts(wanted)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor | np.ndarray | float) and name != "data_range":
            torch.testing.assert_close(
                torch.as_tensor(found[name]), torch.as_tensor(value), rtol=1e-12, atol=1e-12, equal_nan=True
            )
        elif name not in ("settings", "worst"):
            assert found[name] == value


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("kind", ["ndarray", "tensor"])
@pytest.mark.parametrize("call", CALLS)
def test_a_method_is_its_function(call: str, kind: str, masked: bool) -> None:
    name, own, options = CALLS[call]
    x, y = stack() if kind == "ndarray" else tensors()
    fixed = {"data_range": 1.0, "mask": valid() if masked else None}
    reference = semnr.Reference(y, **fixed, **own)
    also = {"weights": "random"} if own else {}
    for candidate in (x, x * 0.9, y):  # the second and third with what the first left
        wanted = getattr(semnr, name)(candidate, y, **fixed, **also, **options)
        assert_same(getattr(reference, name)(candidate, **options), wanted)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["fsim", "cnr", "ssim"])
def test_a_reference_takes_the_dtypes_of_its_function(name: str, dtype: torch.dtype) -> None:
    top = 1.0 if dtype.is_floating_point else torch.iinfo(dtype).max
    x, y = ((v[0, 0] * top).to(torch.float32 if top == 1.0 else torch.int32).to(dtype) for v in tensors(1))
    scale = {"data_range": 1.0} if top == 1.0 else {}
    assert_same(getattr(semnr.Reference(y, **scale), name)(x), getattr(semnr, name)(x, y, **scale))


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    seen, function = [], getattr(module, name)

    def counted(image: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(image)
        return function(image, *args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return seen


def test_what_depends_on_the_reference_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = tensors()
    masks = count_calls(monkeypatch, cnr, "build_masks")
    seen = {"fsim": count_calls(monkeypatch, fsim, "features"), "dists": count_calls(monkeypatch, dists, "features")}
    reference = semnr.Reference(y, data_range=1.0, dists_weights="random").prepare()
    assert len(masks) == 1
    assert [len(v) for v in seen.values()] == [1, 1]
    kept = reference.nbytes
    for factor in (0.9, 0.8, 0.7):
        reference.profile(x * factor)
        reference.fsim(x * factor)
        reference.dists(x * factor)
        reference.cnr(x * factor)
    assert len(masks) == 1
    assert all(sum(image.data_ptr() == y.data_ptr() for image in images) == 1 for images in seen.values())
    assert reference.nbytes == kept


def test_the_features_of_lpips_are_computed_once_and_serve_every_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = tensors()
    seen = count_calls(monkeypatch, lpips, "features")
    reference = semnr.Reference(y, data_range=1.0)
    for factor in (0.9, 0.8, 0.7):
        ours = reference.lpips(x * factor, weights="random", reduction="none")
        assert_same(ours, semnr.lpips(x * factor, y, data_range=1.0, weights="random", reduction="none"))
    assert len(seen) == 1


def test_other_options_have_features_of_their_own() -> None:
    x, y = tensors()
    reference = semnr.Reference(y, data_range=1.0)
    for options in ({}, {"scales": 3}, {"k": 1.0}, {"scales": 3}):
        assert_same(reference.fsim(x, **options), semnr.fsim(x, y, data_range=1.0, **options))


def test_the_memory_that_is_kept_is_stated_and_bounded() -> None:
    x, y = tensors()
    reference = semnr.Reference(y, data_range=1.0, metrics=("fsim", "cnr"))
    assert reference.nbytes == 0
    reference.prepare()
    pixels = y.numel()
    assert 2 * pixels < reference.nbytes <= (2 + 16 + 1) * pixels  # regions; phase congruency and gradient
    assert f"{reference.nbytes} bytes kept" in repr(reference)

    network = semnr.Reference(y, data_range=1.0, metrics="dists", dists_weights="random").prepare()
    assert 200 * pixels < network.nbytes < 1200 * pixels

    small = semnr.Reference(y, data_range=1.0, dists_weights="random", memory_budget=1000).prepare()
    assert small.nbytes <= 1000
    assert_same(small.fsim(x), semnr.fsim(x, y, data_range=1.0))
    assert_same(small.cnr(x), semnr.cnr(x, y))
    assert small.nbytes <= 1000


@pytest.mark.parametrize("name", ["ssim", "fsim", "dists", "lpips", "psnr"])
def test_the_gradient_goes_to_the_candidate_and_not_to_the_reference(name: str) -> None:
    x, y = tensors(1)
    options = {"weights": "random"} if name in ("dists", "lpips") else {}
    y.requires_grad_()
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    reference = semnr.Reference(y, data_range=1.0)
    for _ in range(2):  # a step after another
        leaves[0].grad = None
        getattr(reference, name)(leaves[0], **options).backward()
    assert y.grad is None
    getattr(semnr, name)(leaves[1], y.detach(), data_range=1.0, **options).backward()
    # FSIM's gradient is float32's, and images by themselves are rounded elsewhere than images in pairs
    scale = float(leaves[1].grad.abs().max())
    torch.testing.assert_close(
        leaves[0].grad, leaves[1].grad, rtol=1e-9, atol=(1e-5 if name == "fsim" else 1e-12) * scale
    )


def test_features_that_are_made_in_inference_mode_serve_in_training() -> None:
    x, y = tensors(1)
    reference = semnr.Reference(y, data_range=1.0, metrics="fsim")
    with torch.inference_mode():
        reference.fsim(x)
    leaf = x.clone().requires_grad_()
    reference.fsim(leaf).backward()
    assert torch.isfinite(leaf.grad).all()  # type: ignore[arg-type]


def test_threads_share_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = tensors()
    seen = count_calls(monkeypatch, fsim, "features")
    reference = semnr.Reference(y, data_range=1.0)
    start = threading.Barrier(4)

    def score(number: int) -> tuple[Any, Any]:
        start.wait()
        return reference.fsim(x * (1 - number / 10)), reference.cnr(x * (1 - number / 10))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(score, range(4)))
    assert sum(image is y or image.data_ptr() == y.data_ptr() for image in seen) == 1
    for number, (by_fsim, by_cnr) in enumerate(found):
        assert_same(by_fsim, semnr.fsim(x * (1 - number / 10), y, data_range=1.0))
        assert_same(by_cnr, semnr.cnr(x * (1 - number / 10), y))


def test_nothing_is_kept_where_it_is_not_wanted() -> None:
    x, y = tensors()
    reference = semnr.Reference(y, data_range=1.0, keep=False, metrics=("fsim", "cnr")).prepare()
    reference.fsim(x)
    assert reference.nbytes == 0
    x[0, 0, 30, 30] = torch.nan
    omits = semnr.Reference(y, data_range=1.0, nan="omit", metrics="fsim").prepare()
    assert_same(omits.fsim(x), semnr.fsim(x, y, data_range=1.0, nan="omit"))


def test_a_spoilt_image_is_named_as_by_the_function() -> None:
    x, y = tensors()
    reference = semnr.Reference(y, data_range=1.0)
    reference.fsim(x)
    spoilt = x.clone()
    spoilt[0, 0, 3, 3] = torch.nan
    for name in ("psnr", "ssim", "fsim"):
        with pytest.raises(ValueError, match="x has 1 non-finite pixels"):
            getattr(reference, name)(spoilt)
        rows = getattr(reference, name)(spoilt, nan="propagate", reduction="none")
        assert rows.isnan().tolist() == [True, False]
    with pytest.raises(ValueError, match="y has 1 non-finite pixels"):
        semnr.Reference(spoilt, data_range=1.0).fsim(x)


WRONG: list[tuple[Callable[[semnr.Reference, torch.Tensor], Any], type[Exception], str]] = [
    (lambda r, x: r.fsim(x[..., :50]), ValueError, "x has shape"),
    (lambda r, x: r.fsim(x.float()), TypeError, "x has dtype float32"),
    (lambda r, x: r.fsim(x.numpy()), TypeError, "accepted: both of one kind"),
    (lambda r, x: r.profile(x.numpy()), TypeError, "accepted: both of one kind"),
    (lambda r, x: r.fsim(x, data_range=2.0), TypeError, "data_range is given"),
    (lambda r, x: r.cnr(x, mask=x > 0), TypeError, "mask is given"),
    (lambda r, x: r.fsim(x, colour=True), TypeError, "colour"),
    (lambda r, x: r.ssim(x, reduction="median"), ValueError, "reduction is 'median'"),
    (lambda r, x: r.fsim(x, reduction="median"), ValueError, "reduction is 'median'"),
    (lambda r, x: r.fsim(x, backend="triton"), semnr.BackendUnavailable, "triton"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_arguments_are_refused_as_by_the_function(number: int) -> None:
    call, error, message = WRONG[number]
    x, y = tensors()
    reference = semnr.Reference(y, data_range=1.0)
    with pytest.raises(error, match=message):
        call(reference, x)


def test_the_regions_that_were_given_are_used() -> None:
    x, y = tensors()
    signal = torch.zeros((SIDE, SIDE), dtype=torch.bool)
    signal[:20] = True
    masks = {"signal": signal, "background": ~signal}
    reference = semnr.Reference(y, data_range=1.0, masks=masks)
    assert_same(reference.cnr(x), semnr.cnr(x, y, **masks))
    assert_same(reference.cnr(x, details=True), semnr.cnr(x, y, data_range=1.0, details=True, **masks))
    other = {"signal": ~signal, "background": signal}
    assert_same(reference.cnr(x, **other, kind="background"), semnr.cnr(x, y, **other, kind="background"))


def test_the_fingerprint_is_the_mean_and_the_deviation_of_each_image() -> None:
    _, y = tensors(3)
    mean, deviation = semnr.Reference(y, data_range=1.0).fingerprint()
    for i in range(3):
        assert mean[i].item() == pytest.approx(y[i].mean().item(), rel=1e-12)
        assert deviation[i].item() == pytest.approx(float(np.std(y[i].numpy())), rel=1e-12)
