"""FSIM in Triton: cases of the op's suite, few enough for the interpreter, and what that suite does not ask.

`TRITON_INTERPRET=1 pytest tests/kernels/fsim/test_fsim_triton.py`
"""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import test_fsim as suite
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import backends
import cases
from semnr_kernels import registry, tensor_kinds
from semnr_kernels.fsim import Filters, Settings, features, fsim, reference, similarity

INTERPRET = "triton-interpret"
PLANES = 14  # the project's bound on memory: complex planes of the image's size, for a pair


@pytest.fixture(autouse=True)
def interpreter() -> str:
    return backends.require("fsim", INTERPRET)


def pair(height: int, width: int, channels: int = 1, images: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Candidates and references, (N, C, H, W), float32 in [0, 1]."""
    made = [cases.noisy_pair(height, width, seed=7 * i) for i in range(images * channels)]
    x, y = (torch.stack([torch.from_numpy(m[j]) for m in made]).float() for j in (0, 1))
    return x.reshape(images, channels, height, width), y.reshape(images, channels, height, width)


# --- the op's suite -------------------------------------------------------------------------------------------

SUITE: list[tuple[Callable[..., None], dict[str, Any]]] = [
    (suite.test_equals_piq_at_even_and_odd_sizes, {"size": (64, 97), "channels": 3, "precision": "float32"}),
    (suite.test_equals_piq_at_even_and_odd_sizes, {"size": (65, 64), "channels": 1, "precision": "float64"}),
    (suite.test_downsamples_as_piq, {"size": (383, 390)}),
    (suite.test_equals_piq_with_other_filters, {"precision": "float32"}),
    (suite.test_equals_piq_on_real_sem_pairs, {"name": "time_016"}),
    (suite.test_integers_need_no_conversion, {"dtype": torch.uint8, "top": 255}),
    (suite.test_twelve_bits_in_uint16_say_their_range, {}),
    (suite.test_half_precision_images_are_scored_as_the_values_they_hold, {"dtype": torch.float16}),
    (suite.test_half_precision_images_are_scored_as_the_values_they_hold, {"dtype": torch.bfloat16}),
    (suite.test_downsamples_as_the_definition, {"rule": 3, "size": (200, 251), "channels": 3}),
    (suite.test_downsamples_as_the_definition, {"rule": "authors", "size": (641, 650), "channels": 1}),
    (suite.test_identical_images_score_one_and_order_does_not_matter, {}),
    (suite.test_a_hand_made_comparison_pools_by_the_larger_phase_congruency, {}),
    (suite.test_features_of_one_backend_compare_on_another, {}),
    (suite.test_score_is_the_weighted_mean_of_the_map, {}),
    (suite.test_an_odd_flat_image_has_phase_congruency_one_where_piq_has_rounding_noise, {"dtype": torch.float32}),
    (suite.test_what_lies_under_the_mask_does_not_count, {}),
    (suite.test_omitted_nans_are_masked_and_no_valid_pixel_gives_nan, {}),
    (suite.test_one_nan_pixel_anywhere_spoils_its_image_alone, {}),
    (suite.test_masks_survive_downsampling, {}),
]


@pytest.mark.parametrize(
    ("case", "arguments"), SUITE, ids=lambda v: v.__name__ if callable(v) else "-".join(map(str, v.values()))
)
def test_the_suite_of_the_op(case: Callable[..., None], arguments: dict[str, Any]) -> None:
    asked = inspect.signature(case).parameters
    given = {"backend": INTERPRET, "precision": "float32", **arguments}
    case(**{name: given[name] for name in asked})


# --- memory ---------------------------------------------------------------------------------------------------


class Live(TorchDispatchMode):
    """Bytes of the tensors that torch made inside the `with` block and that are still held; and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor):
                self.add(value.untyped_storage())
        return found

    def add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.seen:
            self.seen.add(key)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self.drop, key, size)

    def drop(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.bytes -= size


def test_the_counter_of_memory_counts() -> None:
    with Live() as live:
        a = torch.zeros(1000)
        b = torch.fft.fft(a)
        del a
        c = b.real.view(10, 100)[3:]  # of the storage that b has
        del b
        assert (live.bytes, live.peak) == (8000, 12000)
        del c
        assert live.bytes == 0


@pytest.mark.parametrize(("channels", "masked"), [(1, False), (1, True), (3, False)], ids=["grey", "mask", "colour"])
def test_a_pair_takes_at_most_fourteen_complex_planes(
    channels: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that torch holds: images, samples, spectra, responses, features. What an FFT library takes is not seen."""
    from semnr_kernels.fsim import triton_kernel

    monkeypatch.setattr(triton_kernel, "_ROOM", 1)  # as a large image
    monkeypatch.setattr(tensor_kinds, "quiet", lambda: True)  # or the mode that watches makes one op of the call
    x, y = pair(160, 160, channels)
    mask = torch.rand((160, 160), generator=torch.Generator().manual_seed(1)) > 0.2 if masked else None
    reference._banks.clear()
    with Live() as live:
        live.add(x.untyped_storage())
        live.add(y.untyped_storage())
        fsim(x, y, data_range=1.0, mask=mask, backend=INTERPRET)
    planes = live.peak / (160 * 160 * 8)
    assert 6 < planes <= PLANES  # four responses and what makes the fourth cannot be missed
    assert not reference._banks, "a bank of filters was kept"


def test_a_batch_of_small_images_takes_the_room_of_the_responses_and_of_their_products(monkeypatch) -> None:
    from semnr_kernels.fsim import triton_kernel

    monkeypatch.setattr(tensor_kinds, "quiet", lambda: True)
    monkeypatch.setattr(triton_kernel, "_ROOM", 6 * 16 * 96 * 96)  # six images of the twelve
    x, y = pair(96, 96, images=6)
    with Live() as live:
        fsim(x, y, data_range=1.0, backend=INTERPRET)
    room, plane = 2 * triton_kernel._ROOM * 8, 96 * 96 * 8
    assert room < live.peak <= room + 3 * 12 * plane


# --- stages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "dtype"),
    [((48, 50), torch.float32), ((49, 51), torch.float32), ((48, 49), torch.float64), ((51, 48), torch.float64)],
    ids=str,
)
def test_products_with_filters_made_on_the_fly_equal_those_with_the_bank(size: tuple[int, int], dtype) -> None:
    from semnr_kernels.fsim import triton_kernel

    (h, w), p = size, Filters(scales=3, orientations=3, min_length=5, sigma_f=0.65, delta_theta=1.5, k=3.0)
    image = torch.rand((2, h, w), dtype=dtype, generator=torch.Generator().manual_seed(0))
    bank = reference._build_bank(h, w, p, torch.device("cpu"))
    half = torch.view_as_real(torch.fft.rfft2(image))
    bound = 1e-14 if dtype == torch.float64 else 3e-6
    whole = torch.fft.fft2(image.double())[:, None, None]
    exact = torch.fft.ifft2(whole * bank.angular[:, None] * bank.radial).permute(1, 2, 0, 3, 4)
    for orientations, scales in ((3, 3), (1, 2)):  # through all filters at once, and in steps
        for first in range(0, p.orientations, orientations):
            room = torch.empty((orientations, scales, 2, h, w, 2), dtype=dtype)
            planes = triton_kernel._responses(half, room, first, p)
            got = torch.cat([torch.view_as_complex(plane.double()) for plane in planes], dim=1)
            some = exact[first : first + orientations]
            assert (got - some).abs().max() <= bound * some.abs().max()
    gains = triton_kernel._gains(Settings(filters=p, precision=str(dtype).removeprefix("torch.")), h, w, image.device)
    assert gains.tolist() == pytest.approx(bank.noise_gain, rel=bound)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("count", [2, 4099])
def test_the_median_is_exact(count: int, dtype, monkeypatch) -> None:
    """Any spread of values, ties, zeros, even and odd counts; several programs an image."""
    from semnr_kernels import triton_support
    from semnr_kernels.fsim import triton_kernel

    monkeypatch.setattr(triton_support, "block", lambda on_device, interpreting: on_device)
    generator = torch.Generator().manual_seed(count)
    normal = torch.randn((6, count), dtype=dtype, generator=generator)
    values = normal.clone()
    values[1] *= torch.exp(8 * normal[0])  # over many powers of two
    values[2] = (4 * normal[2]).round()
    values[3] = 0
    values[4] = 1 + 1e-6 * normal[4]
    values[5, ::2] = math.inf
    finest = torch.stack((values, torch.zeros_like(values)), dim=-1).reshape(2, 1, 3, 1, count, 2)
    response = torch.cat((finest, torch.full_like(finest, 5)), dim=1)  # two orientations, two scales
    found = torch.zeros((2, 3, 2), dtype=torch.int64)
    triton_kernel._median(response, found, torch.zeros((6, 2048), dtype=torch.int32))
    found = found.reshape(6, 2)
    bits = found[:, 0].to(torch.int32) if dtype == torch.float32 else found[:, 0].clone()
    assert torch.equal(bits.view(dtype), values.square().median(dim=1).values)


def test_nan_and_negative_nan_stay_within_the_histogram() -> None:
    from semnr_kernels.fsim import triton_kernel

    values = torch.tensor([math.nan, -math.nan, math.inf, -math.inf, 0, 1]).repeat(10, 1)
    response = torch.stack((values, values), dim=-1)[None, None, None]
    histogram, found = torch.zeros((1, 2048), dtype=torch.int32), torch.zeros((1, 1, 2), dtype=torch.int64)
    triton_kernel._median(response, found, histogram)
    assert histogram.abs().max() == 0  # ready for the next orientation
    assert found[0, 0, 0].to(torch.int32).view(torch.float32).item() == math.inf  # NaNs sort last


# --- the whole ------------------------------------------------------------------------------------------------


def test_groups_of_images_and_of_filters_change_nothing(monkeypatch) -> None:
    from semnr_kernels.fsim import triton_kernel

    x, y = pair(48, 50, images=4)
    options = {"data_range": 1.0, "reduction": "none", "scales": 3, "orientations": 2, "backend": INTERPRET}
    exact = fsim(x, y, **options)
    monkeypatch.setattr(triton_kernel, "_ROOM", 3 * 6 * 48 * 50)  # three images through all filters
    assert torch.equal(fsim(x, y, **options), exact)
    monkeypatch.setattr(triton_kernel, "_ROOM", 1)  # an orientation at a time
    assert torch.equal(fsim(x, y, **options), exact)
    monkeypatch.setattr(triton_kernel, "_STEP", 3 * 48 * 50)
    assert torch.equal(fsim(x, y, **options), exact)


def test_the_plan_of_a_gpu_gives_the_same_score(monkeypatch) -> None:
    """Blocks of 256 to 1024 pixels and many programs, masks, colour, downsampling, gaps in memory."""
    from semnr_kernels import triton_support

    monkeypatch.setattr(triton_support, "block", lambda on_device, interpreting: on_device)
    x, y = (v.transpose(2, 3)[..., ::2] for v in pair(196, 98, 3))
    mask = torch.rand(x.shape[-2:], generator=torch.Generator().manual_seed(1)) > 0.2
    options = {"data_range": 1.0, "mask": mask, "downsample": 2, "scales": 2, "orientations": 2, "details": True}
    exact = fsim(x, y, backend="reference", **options)
    got = fsim(x, y, backend=INTERPRET, **options)
    assert got.value.item() == pytest.approx(exact.value.item(), abs=1e-7)
    for name, part in exact.components.items():
        torch.testing.assert_close(got.components[name], part, rtol=0, atol=2e-5)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_flat_images_answer_with_exact_zeros(precision: str) -> None:
    for image in (
        torch.full((49, 51), 40001, dtype=torch.int32).to(torch.uint16),
        torch.full((3, 48, 50), 0.3, dtype=torch.float64),
        torch.full((100, 99), 0.7, dtype=torch.float16),
    ):
        factor = 2 if image.shape[-1] == 99 else 1
        flat = features(
            image, data_range=1.0, downsample=factor, precision=precision, backend=INTERPRET, chromatic=False
        )
        assert torch.equal(flat.phase_congruency, torch.ones_like(flat.phase_congruency))
        assert flat.gradient[..., 1:-1, 1:-1].abs().max() == 0


def test_a_pedestal_costs_no_digits() -> None:
    """16 bits, mean 40,000, deviation 20, data range 400."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn((64, 64), generator=generator) * 20
    noisy = clean + 10 * torch.randn((64, 64), generator=generator)
    x, y = ((v + 40000).round().to(torch.int32).to(torch.uint16) for v in (noisy, clean))
    exact = fsim(x, y, data_range=400, backend="reference").item()
    assert fsim(x, y, data_range=400, backend=INTERPRET).item() == pytest.approx(exact, abs=1e-7)
    assert fsim(x.float(), y.float(), data_range=400, backend=INTERPRET).item() == pytest.approx(exact, abs=1e-7)


def test_a_small_feature_on_a_perfectly_flat_image_wants_float64() -> None:
    """Half of all amplitudes are then those of rounding errors, and the noise threshold is their median."""
    y = torch.full((200, 200), 0.1, dtype=torch.float64)
    y[97:103, 97:103] = 0.9
    x = torch.nn.functional.avg_pool2d(y[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
    options = {"data_range": 1.0, "orientations": 2}
    exact = fsim(x, y, backend="reference", **options).item()
    assert fsim(x, y, backend=INTERPRET, precision="float64", **options).item() == pytest.approx(exact, abs=1e-9)
    assert fsim(x, y, backend=INTERPRET, **options).item() == pytest.approx(exact, abs=1e-3)


def test_a_mask_of_one_side_counts_for_both_and_for_every_candidate() -> None:
    x, y = pair(48, 50, images=3)
    mask = torch.rand((48, 50), generator=torch.Generator().manual_seed(1)) > 0.1
    options = {"data_range": 1.0, "orientations": 1}
    masked = features(x, mask=mask, backend="reference", **options)
    whole = features(y[:1], backend="reference", **options)
    for fx, fy in ((masked, whole), (whole, masked)):
        exact = similarity(fx, fy, backend="reference").rows
        torch.testing.assert_close(similarity(fx, fy, backend=INTERPRET).rows, exact, rtol=0, atol=1e-7)


def test_a_gradient_is_refused_and_goes_to_the_definition_by_default() -> None:
    x, y = pair(48, 48)
    x.requires_grad_()
    with pytest.raises(registry.BackendUnavailable, match="has no gradient"):
        fsim(x, y, data_range=1.0, backend=INTERPRET)
    fsim(x, y, data_range=1.0).backward()
    assert x.grad.abs().max() > 0


def test_calls_that_a_launch_cannot_hold_are_refused() -> None:
    from semnr_kernels.fsim import triton_kernel

    def answer(*shape: int) -> str | None:
        return triton_kernel.supports(registry.Call("fsim", "cuda", torch.uint8, shape, False))

    assert answer(65535, 1, 64, 64) is None
    assert "at most 65535 images" in str(answer(65536, 1, 64, 64))
    assert "below 2**30 pixels" in str(answer(1, 1, 2**15, 2**15))


def test_sums_are_the_same_each_time_and_both_ways_round() -> None:
    x, y = pair(50, 48, 3)
    options = {"data_range": 1.0, "orientations": 2, "backend": INTERPRET}
    first = fsim(x, y, **options)
    assert torch.equal(fsim(x, y, **options), first)
    assert torch.equal(fsim(y, x, **options), first)
    assert fsim(x, x, **options).item() == 1
