"""The CUDA kernels of SSIM, emulated: what the op's own suite does not ask, and what they cost, counted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import backends
import tolerances
from semnr.losses import L1SSIMLoss, SSIMLoss
from semnr_kernels import cuda_support, native_support, registry
from semnr_kernels.ssim import Settings, cuda, float32_window, reference, ssim, window_taps

DTYPES = [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32]
GAUSSIAN = window_taps("gaussian", 11, 1.5)
USUAL = Settings()


def run(x: torch.Tensor, y: torch.Tensor, settings: Settings = USUAL) -> reference.SSIMRows:
    return cuda.ssim(x, y, None, settings, emulated=True)


@pytest.fixture(autouse=True)
def emulated() -> None:
    backends.require("ssim", "cuda-emulated")


def pair(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Smooth noise with structure, on the scale of `scale(dtype)`."""
    generator = torch.Generator().manual_seed(seed)
    flat = (1, 1, *shape) if len(shape) == 2 else shape
    y = torch.nn.functional.avg_pool2d(torch.rand(flat, generator=generator), 3, 1, 1).reshape(shape)
    x = (y + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1)
    if dtype.is_floating_point:
        return x.to(dtype), y.to(dtype)
    return tuple((v.double() * scale(dtype)).round().to(torch.int64).to(dtype) for v in (x, y))


def scale(dtype: torch.dtype) -> float:
    return 1.0 if dtype.is_floating_point else float(torch.iinfo(dtype).max)


def both(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None = None, **changed: Any
) -> tuple[reference.SSIMRows, reference.SSIMRows]:
    settings = Settings(**{"data_range": scale(x.dtype), **changed})
    return cuda.ssim(x, y, valid, settings, emulated=True), reference.ssim(x, y, valid, settings)


def gradients(x: torch.Tensor, y: torch.Tensor, by_map: bool = False, **changed: Any) -> list[list[torch.Tensor]]:
    """By x and y, of the kernels and of the definition in float64, of a loss that every output enters."""
    found = []
    for score, dtype in ((functools.partial(cuda.ssim, emulated=True), x.dtype), (reference.ssim, torch.float64)):
        a, b = (v.to(dtype).detach().requires_grad_(v.requires_grad) for v in (x, y))
        rows = score(a, b, None, Settings(**{"want_map": by_map, **changed}))
        planes = torch.arange(1, rows.score.numel() + 1).reshape(rows.score.shape)
        loss = (rows.score * planes).sum() + 0.5 * rows.contrast_structure.sum()
        if by_map:
            weights = torch.rand(rows.map.shape, generator=torch.Generator().manual_seed(9))
            loss = loss + (rows.map * weights).mean()
        loss.backward()
        found.append([v.grad.double() for v in (a, b) if v.requires_grad])
    return found


def assert_gradients_agree(found: list[list[torch.Tensor]], bound: float = tolerances.GRADIENT_RELATIVE) -> None:
    for got, exact in zip(*found, strict=True):
        assert (got - exact).abs().max() <= bound * exact.abs().max()


# --- strips and segments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "threads", "strips"),
    [(304, 128, 3), (301, 128, 3), (512, 256, 2), (509, 256, 2)],
    ids=["packed 128", "unpacked 128", "packed 256", "unpacked 256"],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_image_of_many_blocks_scores_as_the_definition(
    dtype: torch.dtype, width: int, threads: int, strips: int
) -> None:
    """Rows of an odd number of pixels start anywhere, so pixels are loaded one by one."""
    x, y = pair((1, 1, 122, width), dtype)
    assert cuda.forward_plan(1, 112, width - 10, 11, 6) == (threads, strips, 6)
    got, exact = both(x, y)
    assert abs(got.score - exact.score).item() <= tolerances.SSIM_MEAN
    assert abs(got.contrast_structure - exact.contrast_structure).item() <= tolerances.SSIM_MEAN


@pytest.mark.parametrize("border", ["valid", "reflect"])
@pytest.mark.parametrize("size", [7, 11])
def test_strips_join_without_a_seam_in_the_map(size: int, border: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one or two units of rows, the last of them a part of one."""
    monkeypatch.setattr(cuda, "_EMULATED_SLOTS", 32)
    x, y = pair((2, 2, 37, 270), torch.uint16)
    assert cuda.forward_plan(4, 37 - size + 1, 271 - size, size, 32).blocks >= 24
    got, exact = both(x, y, window_size=size, border=border, want_map=True)
    torch.testing.assert_close(got.map.double(), exact.map, rtol=0, atol=tolerances.SSIM_MAP)
    torch.testing.assert_close(got.score, exact.score, rtol=0, atol=tolerances.SSIM_MEAN)


def test_a_score_has_the_same_bits_alone_and_in_a_batch_and_again() -> None:
    x, y = pair((3, 2, 70, 140))
    batch = run(x, y)
    again = run(x, y)
    alone = torch.cat([run(x[i : i + 1], y[i : i + 1]).score for i in range(3)])
    assert torch.equal(batch.score, again.score)
    assert torch.equal(batch.score, alone)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("size", [7, 11])
def test_no_bit_of_a_score_depends_on_the_grid(dtype: torch.dtype, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block a strip, several, and one a unit of eight rows; parts of strips of unequal length among them."""
    x, y = pair((2, 1, 95, 271), dtype)
    found, grids = [], []
    for slots in (1, 5, 20, 264):
        monkeypatch.setattr(cuda, "_EMULATED_SLOTS", slots)
        rows = run(x, y, Settings(data_range=scale(dtype), window_size=size))
        grids.append(cuda_support.counters()["ssim_forward"]["blocks"])
        found.append(torch.stack([rows.score, rows.contrast_structure]))
    assert len(set(grids)) == 4
    assert all(torch.equal(found[0], other) for other in found[1:])


# 132 multiprocessors that hold two blocks each
@pytest.mark.parametrize(
    ("planes", "side"), [(1, 1024), (16, 512), (4, 4096), (1, 4096), (64, 1024), (300, 512), (1000, 256), (1, 32768)]
)
def test_the_grid_fills_the_device(planes: int, side: int) -> None:
    slots = 2 * 132
    plan = cuda.forward_plan(planes, side - 10, side - 10, 11, slots)
    assert plan.blocks >= slots
    assert plan.blocks / (slots * -(-plan.blocks // slots)) >= 0.85
    units = -(-(side - 10) // 8)
    assert -(-units // (plan.blocks // (planes * plan.strips))) <= cuda._MOST_UNITS


def test_views_are_read_where_they_lie() -> None:
    """Rows apart, pixels apart, one image for the whole batch, an odd start: nothing is copied."""
    x, y = pair((2, 1, 40, 96))
    wide = torch.full((2, 1, 40, 128), torch.nan)
    wide[..., 8:104] = x
    spaced = torch.full((2, 1, 40, 192), torch.nan)
    spaced[..., ::2] = y
    odd = torch.full((2 * 40 * 96 + 1,), torch.nan)[1:].reshape(2, 1, 40, 96).copy_(x)
    expected = run(x, y).score
    for a, b in ((wide[..., 8:104], y), (x, spaced[..., ::2]), (odd, y)):
        torch.testing.assert_close(run(a, b).score, expected, rtol=0, atol=1e-9)
    one = run(x, y[:1].expand(2, 1, 40, 96)).score
    torch.testing.assert_close(one[0], expected[0], rtol=0, atol=1e-9)


def test_one_nan_pixel_spoils_the_windows_that_hold_it_and_no_other() -> None:
    x, y = pair((1, 1, 80, 304))
    x[0, 0, 40, 255] = torch.nan
    got = run(x, y, Settings(want_map=True)).map[0, 0]
    spoilt = torch.zeros_like(got, dtype=torch.bool)
    spoilt[30:41, 245:256] = True
    assert torch.equal(torch.isnan(got), spoilt)
    x.requires_grad_()
    run(x, y).score.sum().backward()
    reached = torch.zeros_like(x, dtype=torch.bool)
    reached[..., 30:51, 245:266] = True
    assert torch.equal(torch.isnan(x.grad), reached)


def test_values_far_outside_the_range_do_not_overflow() -> None:
    """The window over its first weight makes sums of 10⁶ times the pixels."""
    x, y = pair((1, 1, 40, 48))
    got, exact = both(x * 1e4, y * 1e4)
    assert abs(got.score - exact.score).item() <= tolerances.SSIM_MEAN_ANY


def test_a_window_with_a_tiny_first_weight_takes_the_general_kernel() -> None:
    assert Settings(sigma=0.5).taps[0] < 1e-20
    got, exact = both(*pair((1, 1, 40, 48)), sigma=0.5)
    assert "ssim_general" in cuda_support.counters()
    assert abs(got.score - exact.score).item() <= tolerances.SSIM_MEAN


# --- gradients ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_map", [False, True], ids=["rows", "map"])
@pytest.mark.parametrize("width", [240, 235], ids=["packed", "unpacked"])
def test_gradients_of_many_blocks_match_the_definition(
    width: int, by_map: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_BACKWARD_ROWS", (20, 20))
    assert cuda.backward_plan(61, width, 11).blocks == 12
    x, y = (v.requires_grad_() for v in pair((1, 2, 61, width)))
    assert_gradients_agree(gradients(x, y, by_map))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_gradients_of_16_bit_floats_are_rounded_once(dtype: torch.dtype) -> None:
    x, y = (v.requires_grad_() for v in pair((1, 1, 30, 40), dtype))
    found = gradients(x, y)
    assert_gradients_agree(found, {torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype] * 1.01)


def test_only_the_gradient_that_is_wanted_is_computed() -> None:
    x, y = pair((1, 1, 30, 40))
    assert_gradients_agree(gradients(x.requires_grad_(), y))
    written = cuda_support.counters()["ssim_backward"]["sectors_written"]
    assert written == 30 * 40 * 4 // 32
    assert_gradients_agree(gradients(y.detach(), x.detach().requires_grad_()))


@pytest.mark.parametrize(
    "options",
    [
        {"window": "uniform", "window_size": 7, "sample_covariance": True},
        {"window_size": 7, "sigma": 1.0},
        {"window_size": 9},
        {"border": "reflect"},
        {"precision": "float64"},
    ],
    ids=["uniform 7", "gaussian 7", "gaussian 9", "reflect", "float64"],
)
def test_gradients_of_every_window_and_border_match_the_definition(options: dict[str, Any]) -> None:
    x, y = (v.requires_grad_() for v in pair((2, 1, 33, 46)))
    assert_gradients_agree(gradients(x, y, by_map=True, **options))


def test_a_gradient_allocates_nothing_but_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """frame-analytics keeps maps between its passes."""
    x, y = pair((1, 1, 64, 96))
    asked, empty = [], torch.empty

    def noted(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = empty(*args, **kwargs)
        asked.append(made.numel() * made.element_size())
        return made

    monkeypatch.setattr(torch, "empty", noted)
    cuda._backward(x, y, USUAL, torch.ones((2, 1, 1), dtype=torch.float64), None, (True, True), emulated=True)
    assert asked == [64 * 96 * 4] * 2
    asked.clear()
    cuda._forward(x, y, None, USUAL, emulated=True)
    assert sum(asked) < 1000


# --- the general kernels --------------------------------------------------------------------------------------


def test_the_largest_window_scores_and_differentiates_as_the_definition() -> None:
    x, y = pair((1, 1, 50, 80))
    options = {"window_size": 47, "sigma": 7.0, "want_components": True, "want_map": True}
    mask = torch.rand((1, 1, 50, 80), generator=torch.Generator().manual_seed(1)) > 0.2
    got, exact = both(x, y, valid=mask, **options)
    assert cuda_support.counters()["ssim_general"]["shared_bytes"] <= 99 * 1024
    torch.testing.assert_close(got.score, exact.score, rtol=0, atol=tolerances.SSIM_MEAN_FLOAT64)
    torch.testing.assert_close(got.coverage, exact.coverage, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.map, exact.map, rtol=0, atol=1e-9, equal_nan=True)
    for name, value in exact.components.items():
        torch.testing.assert_close(got.components[name], value, rtol=0, atol=1e-9)
    a, b = (v[..., :52].clone().requires_grad_() for v in (x, y))
    assert_gradients_agree(gradients(a, b, window_size=47, sigma=7.0))


def test_what_the_kernels_leave_out_is_said_beforehand() -> None:
    x, y = pair((1, 1, 60, 60))

    def reason(a: torch.Tensor, masked: bool = False, **options: Any) -> str | None:
        return cuda.supports(registry.Call.of("ssim", a, y, settings=Settings(**options), masked=masked))

    assert reason(x) is None
    assert reason(x, window_size=49) == "keeps no window of 49 in shared memory, at most 47"
    assert reason(x.to(torch.int64)) == "has no int64 loop"
    x.requires_grad_()
    assert reason(x) is None
    assert reason(x, masked=True) == "has no gradient of masked images and of components"
    assert reason(x, want_components=True) == "has no gradient of masked images and of components"


@pytest.mark.parametrize(
    ("options", "masked", "gradient"),
    [
        ({"window_size": 9}, False, False),
        ({"window_size": 47, "sigma": 7.0}, False, False),
        ({"window_size": 21, "precision": "float64"}, False, False),
        ({"window_size": 33, "want_components": True}, False, False),
        ({"window_size": 47, "sigma": 7.0}, True, False),
        ({"window_size": 47, "sigma": 7.0}, False, True),
    ],
    ids=str,
)
def test_the_shared_memory_that_is_asked_for_is_known_before_the_launch(
    options: dict[str, Any], masked: bool, gradient: bool
) -> None:
    x, y = (v.requires_grad_(gradient) for v in pair((1, 1, 50, 52)))
    mask = torch.ones((1, 1, 50, 52), dtype=torch.bool) if masked else None
    settings = Settings(**options)
    with cuda_support.recording() as records:
        rows = cuda.ssim(x, y, mask, settings, emulated=True)
        if gradient:
            records.clear()
            rows.score.sum().backward()
    most = max(kernel["shared_bytes"] for record in records for kernel in record.counters.values())
    assert cuda.general_bytes(settings.for_images(x.dtype, masked), masked, gradient) == most


def test_the_shared_memory_of_the_fused_kernels_is_known_and_less_leaves_the_term_to_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = pair((1, 1, 40, 48))
    x.requires_grad_()
    with cuda_support.recording() as records:
        rows = cuda.ssim(x, y, None, Settings(want_apart=True), emulated=True)
        rows.absolute.sum().backward()  # type: ignore[union-attr]
    most = max(kernel["shared_bytes"] for record in records for kernel in record.counters.values())
    assert most == cuda._APART_BYTES
    monkeypatch.setattr(cuda, "shared_memory", lambda device: 64 * 1024)
    device = torch.device("cuda", 0)
    assert not cuda._measures_apart(11, device)
    assert cuda.plain(x.dtype, x.shape, Settings(), None, (0.5, 0.5), device, False) is None


# --- what it costs, counted -----------------------------------------------------------------------------------


def representatives(count: int) -> dict[int, int]:
    """First, last and one of those between, with how many blocks each stands for: the same aligned addresses."""
    if count < 3:
        return dict.fromkeys(range(count), 1)
    return {0: 1, 1: count - 2, count - 1: 1}


def forward_blocks(walk: cuda.Walk) -> dict[int, int]:
    """Blocks of the first, the last and one strip between of a plane, with how many each stands for."""
    found = {}
    for strip, strips in representatives(walk.strips).items():
        first, end = (-(-s * walk.blocks // walk.strips) for s in (strip, strip + 1))
        found |= {first + part: strips * parts for part, parts in representatives(end - first).items()}
    return found


def counted(kernel: str, side: int, dtype: torch.dtype, images: int) -> dict[str, float]:
    """The counters of a launch on one side x side image, as it is in a batch on a device of 132 multiprocessors."""
    x, y = torch.zeros((2, 1, 1, side, side), dtype=dtype)
    forward, apart = kernel.endswith("forward"), "apart" in kernel
    if forward:
        batch = cuda.forward_plan(images, side - 10, side - 10, 11, 2 * 132)
        plan = batch._replace(blocks=round(batch.blocks / images))  # one image's share
        some = forward_blocks(plan)
    else:
        plan = cuda.backward_plan(side, side, 11)
        some = {
            segment * plan.strips + strip: strips * segments
            for strip, strips in representatives(plan.strips).items()
            for segment, segments in representatives(plan.segments).items()
        }
    numbers = Settings(data_range=scale(dtype)).constants
    given = (
        native_support.image(x),
        native_support.image(y),
        native_support.DTYPE_CODES[dtype],
        x.shape,
        float32_window.over_first(GAUSSIAN),
    )
    # the fold reads the sums of blocks that do not run, too
    partial, rows = torch.zeros((plan.blocks, 2), dtype=torch.float64), torch.zeros((4, 1, 1), dtype=torch.float64)
    beside, extents = torch.zeros_like(partial), torch.zeros((plan.blocks, 4))
    out = [torch.empty_like(x), torch.empty_like(y)]
    total: dict[str, float] = {"blocks of the batch": batch.blocks if forward else images * plan.blocks}
    for block, stands_for in some.items():
        reads, scratch = (x, y, rows, partial, beside), (partial, rows, beside, extents, *out)
        with cuda_support.launching(True, x.device, reads, (), scratch) as (module, stream):
            module.only_blocks([block])
            try:
                if forward:
                    places = tuple(v.data_ptr() if apart else 0 for v in (beside, extents, rows[2:]))
                    to = [partial.data_ptr(), rows.data_ptr(), 0, places, 0]
                    module.ssim_forward(*given, False, numbers, plan, *to, stream)
                else:
                    to = [rows.data_ptr(), 0, apart, *(g.data_ptr() for g in out)]
                    module.ssim_backward(*given, numbers, plan, *to, stream)
            finally:
                module.only_blocks([])
        for name, value in cuda_support.counters()[kernel].items():
            total[name] = total.get(name, 0) + value * stands_for
    return total


# 4096² x 4 and 16 x 512²
@pytest.mark.parametrize(("side", "images"), [(4096, 4), (512, 16)], ids=["4096", "512"])
@pytest.mark.parametrize(
    ("kernel", "dtype", "bytes_bars", "shared_bar"),
    [
        ("ssim_forward", torch.float32, {4096: 1.12, 512: 1.20}, 28),
        ("ssim_forward", torch.uint8, {4096: 1.25, 512: 1.25}, 28),
        ("ssim_backward", torch.float32, {4096: 1.6, 512: 1.6}, 70),
        # the same reads: |x − y| costs no byte of device memory
        ("ssim_apart_forward", torch.float32, {4096: 1.12, 512: 1.20}, 28),
        ("ssim_apart_forward", torch.uint8, {4096: 1.25, 512: 1.25}, 28),
        ("ssim_apart_backward", torch.float32, {4096: 1.6, 512: 1.6}, 70),
    ],
    ids=[
        *("forward float32", "forward uint8", "backward float32"),
        *("with L1, forward float32", "with L1, forward uint8", "with L1, backward float32"),
    ],
)
def test_traffic_stays_below_the_bars(
    kernel: str, dtype: torch.dtype, bytes_bars: dict[int, float], shared_bar: float, side: int, images: int
) -> None:
    """Distinct 32-byte sectors of a block summed over blocks, over what must move at least; 4-byte shared accesses."""
    c = counted(kernel, side, dtype, images)
    assert c["blocks of the batch"] >= 2 * 132
    size = 4 if dtype == torch.float32 else 1
    back = kernel.endswith("backward")
    least = (4 if back else 2) * side * side * size
    assert (c["sectors_read"] + c["sectors_written"]) * 32 <= bytes_bars[side] * least
    pixels = side * side if back else (side - 10) ** 2
    assert c["shared_load_words"] + c["shared_store_words"] <= shared_bar * pixels
    transactions = c["shared_load_transactions"] + c["shared_store_transactions"]
    assert transactions <= 1.1 * (c["shared_load_ideal"] + c["shared_store_ideal"])


# --- the short path -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 48), (3, 40, 48), (2, 1, 40, 48), (3, 3, 40, 45)], ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16], ids=str)
def test_a_plain_call_gives_the_general_paths_score(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, y = pair(shape, dtype)
    for reduction in ("mean", "none"):
        options = {"data_range": scale(dtype), "backend": "cuda-emulated", "reduction": reduction}
        got = ssim(x, y, **options)
        assert "ssim_told" in cuda_support.counters()
        exact = ssim(x, y, details=True, **options).value
        assert got.shape == exact.shape
        torch.testing.assert_close(got, exact, rtol=0, atol=1e-15)


def test_what_a_plain_call_keeps_serves_no_option_of_another_type_and_no_other_backend() -> None:
    x, y = pair((2, 1, 40, 48))
    options = {"data_range": 1.0, "window_size": 11, "k1": 1, "backend": "cuda-emulated"}
    first = ssim(x, y, **options)
    with cuda_support.recording() as calls:
        assert torch.equal(ssim(x, y, **options), first)
    assert [list(one.counters)[-1] for one in calls] == ["ssim_told"]
    with pytest.raises(ValueError, match="window_size"):
        ssim(x, y, **{**options, "window_size": 11.0})
    for name in ("k1", "data_range"):
        with pytest.raises(TypeError, match=name):
            ssim(x, y, **{**options, name: True})
    with pytest.raises(TypeError, match="no argument 'windows'"):
        ssim(x, y, windows=11, **options)
    with cuda_support.recording() as calls:
        ssim(x, y, data_range=1.0, backend="reference")
        with registry.use_backend("cuda-emulated"):
            ssim(x, y, data_range=1.0, backend="reference")
        ssim(x.clone().requires_grad_(), y, **options).backward()
    assert not any("ssim_told" in one.counters for one in calls)


@pytest.mark.parametrize(
    ("make", "kernel"),
    [
        (SSIMLoss, "ssim_forward"),
        (L1SSIMLoss, "ssim_apart_forward"),
        (functools.partial(L1SSIMLoss, ssim_weight=0.0), "ssim_apart_forward"),
        (functools.partial(L1SSIMLoss, ssim_weight=1), "ssim_forward"),
    ],
    ids=["SSIM", "L1 and SSIM", "L1", "L1 of no weight"],
)
def test_the_loss_as_one_op_has_the_general_paths_value_gradients_and_second_derivative(
    make: Callable[..., torch.nn.Module], kernel: str
) -> None:
    x, y = pair((3, 3, 40, 51))
    y[..., ::5] = x[..., ::5]
    found = []
    for loss in (make(1.0, backend="cuda-emulated"), make(1.0, backend="reference")):
        with cuda_support.recording() as calls:
            loss(x, y)
        own = {name.split("<")[0] for one in calls for name in one.counters} - {"ssim_extents"}
        assert own in ({kernel, "ssim_fold", "ssim_told"}, set())
        a, b = (v.clone().requires_grad_() for v in (x, y))
        value = loss(a, b)
        (3 * value).backward()
        c = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(loss(c, y), c, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), c)
        found.append((value.detach(), a.grad, b.grad, second))
    assert found[0][0].dtype == torch.float32
    for got, exact in zip(*found, strict=True):
        assert (got - exact).abs().max() <= tolerances.GRADIENT_RELATIVE * exact.abs().max() + 1e-12
