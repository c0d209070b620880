"""What only the compiled kernels have: instruction sets, threads, forks, layouts, sizes. Judge: the reference."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

import backends
import tolerances
from semnr_kernels import native_support, registry
from semnr_kernels.cnr import native as cnr_native
from semnr_kernels.cnr import reference as cnr_reference
from semnr_kernels.cnr.reference import Settings
from semnr_kernels.errors import BackendUnavailable
from semnr_kernels.pixel import mae, mse
from semnr_kernels.ssim import ssim

pytestmark = pytest.mark.skipif(
    native_support.probe() is not None, reason=f"no native module: {native_support.probe()}"
)


@pytest.fixture(params=registry.FORCED)
def forced(request: pytest.FixtureRequest) -> str:
    return backends.require("ssim", request.param)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def pair(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(shape, generator=generator)
    x = (y + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1)
    if dtype in (torch.uint8, torch.uint16):
        x, y = x * 255, y * 255
    return x.to(dtype), y.to(dtype)


# --- instruction sets -----------------------------------------------------------------------------------------


def test_each_module_says_which_instruction_set_it_was_built_for() -> None:
    for isa in native_support.INSTRUCTION_SETS:
        if native_support.probe(isa) is None:
            assert isa == native_support.module(isa).ISA
            assert native_support.module(isa).ABI == native_support.ABI


def test_native_is_the_best_module_that_this_cpu_runs() -> None:
    usable = [isa for isa in native_support.INSTRUCTION_SETS if native_support.probe(isa) is None]
    assert usable[-1] == native_support.module().ISA


def test_auto_never_names_an_instruction_set_but_explain_does() -> None:
    call = registry.Call("ssim", "cpu", torch.float32, (1, 1, 32, 32), False)
    explained = registry.explain(call)
    assert explained.chosen == "native"
    assert native_support.module().ISA in str(explained)
    assert not any(row.backend in registry.FORCED for row in explained.candidates)


def test_an_instruction_set_that_the_cpu_lacks_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_probe", lambda name: "this CPU does not run avx512")
    with pytest.raises(BackendUnavailable, match="this CPU does not run avx512"):
        mse(*pair(1, 1, 8, 8), backend="native-avx512")


def test_the_baseline_answers_for_unknown_instruction_sets() -> None:
    assert native_support.module("baseline").cpu_runs("baseline")
    assert not native_support.module("baseline").cpu_runs("avx1024")


# --- threads and forks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 301, 530), (5, 2, 64, 80)], ids=str)
def test_results_do_not_depend_on_the_number_of_threads(forced: str, threads, shape: tuple[int, ...]) -> None:
    x, y = pair(*shape)
    found = []
    for count in (1, 2, 3, 7):
        threads(count)
        a = x.clone().requires_grad_()
        value, ssim_map = ssim(a, y, data_range=1.0, return_map=True, backend=forced)
        value.backward()
        found.append((value.detach(), ssim_map.detach(), a.grad, mse(x, y, backend=forced), mae(x, y, backend=forced)))
    for other in found[1:]:
        assert all(torch.equal(p, q) for p, q in zip(found[0], other, strict=True))


def test_many_python_threads_may_call_at_once(threads) -> None:
    threads(3)
    images = [pair(1, 1, 150, 300, seed=i) for i in range(12)]
    wanted = [ssim(x, y, data_range=1.0) for x, y in images]
    gate = threading.Barrier(6)

    def call(i: int) -> bool:
        if i < 6:
            gate.wait(30)
        x, y = images[i % 12]
        return torch.equal(ssim(x, y, data_range=1.0), wanted[i % 12])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(call, range(60)))


class _Scored(torch.utils.data.Dataset):
    """Scores one pair in each worker; the pixels are made before the fork (torch's own threads do not survive one)."""

    def __init__(self) -> None:
        self.pair = pair(1, 1, 150, 600)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        torch.set_num_threads(3)  # DataLoader workers start with one
        return float(ssim(*self.pair, data_range=1.0))


def test_a_forked_dataloader_worker_scores_after_the_parent_did(threads) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    threads(3)
    scored = _Scored()
    wanted = float(ssim(*scored.pair, data_range=1.0))
    loader = torch.utils.data.DataLoader(scored, num_workers=2, multiprocessing_context="fork", timeout=60)
    assert [float(v) for v in loader] == [wanted] * 4
    assert float(ssim(*scored.pair, data_range=1.0)) == wanted  # the parent's pool still works


# --- layouts and sizes ----------------------------------------------------------------------------------------


LAYOUTS = {
    "transposed": lambda v: v.transpose(-1, -2).contiguous().transpose(-1, -2),
    "every second column": lambda v: torch.stack((v, v * 0), dim=-1).flatten(-2)[..., ::2],
    "channels last": lambda v: v.contiguous(memory_format=torch.channels_last),
    "cropped": lambda v: torch.nn.functional.pad(v.float(), (3, 5, 2, 1)).to(v.dtype)[..., 2:-1, 3:-5],
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_scores_as_its_contiguous_copy(forced: str, layout: str, dtype: torch.dtype) -> None:
    x, y = pair(2, 3, 40, 53, dtype=dtype)
    wanted = ssim(x, y, data_range=255.0, backend=forced), mse(x, y, backend=forced)
    x, y = LAYOUTS[layout](x), LAYOUTS[layout](y)
    assert torch.equal(ssim(x, y, data_range=255.0, backend=forced), wanted[0])
    assert torch.allclose(mse(x, y, backend=forced), wanted[1], rtol=1e-12, atol=0)


def test_overlapping_views_score_as_their_copies(forced: str) -> None:
    line = torch.rand(200)
    x, y = line.as_strided((30, 40), (1, 2)), line.as_strided((30, 40), (2, 1))
    wanted = ssim(x.clone(), y.clone(), data_range=1.0, backend=forced)
    assert torch.equal(ssim(x, y, data_range=1.0, backend=forced), wanted)


def test_a_view_of_more_than_two_to_the_31_pixels_is_summed_exactly() -> None:
    x = torch.full((1, 1), 7, dtype=torch.uint8).expand(50_000, 50_000)
    y = torch.full((1, 1), 10, dtype=torch.uint8).expand(50_000, 50_000)
    assert mse(x, y).item() == 9.0
    assert mae(x, y).item() == 3.0


def test_rows_more_than_two_to_the_31_bytes_apart_are_found(forced: str) -> None:
    try:
        store = torch.empty(2**31 + 4096, dtype=torch.uint8)  # reserved, touched at both ends only
    except RuntimeError:
        pytest.skip("no room for 2 GiB of addresses")
    x = store.as_strided((2, 1, 12, 12), (2**31, 144, 12, 1))
    x.copy_(torch.arange(144, dtype=torch.uint8).reshape(12, 12).expand(2, 1, 12, 12))
    assert ssim(x, x[:1].expand(2, 1, 12, 12), reduction="none", backend=forced).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("size", [1, 3, 7, 33, 127])
def test_windows_of_any_odd_size(forced: str, size: int) -> None:
    x, y = pair(1, 1, 140, 150)
    for window in ("uniform", "gaussian"):
        settings = {"data_range": 1.0, "window": window, "window_size": size, "sigma": size / 5}
        got, wanted = (ssim(x, y, backend=name, return_map=True, **settings) for name in (forced, "reference"))
        assert abs(got.value - wanted.value) <= (1e-6 if size == 1 else tolerances.SSIM_MEAN)
        assert (got.map - wanted.map).abs().max() <= tolerances.SSIM_MAP


def test_masked_garbage_never_reaches_the_score(forced: str) -> None:
    x, y = pair(1, 1, 40, 40)
    mask = torch.ones(40, 40, dtype=torch.bool)
    mask[10:20, 5:30] = False
    spoiled = x.clone()
    spoiled[..., 10:20, 5:30] = torch.nan
    for function in (
        lambda a: ssim(a, y, data_range=1.0, mask=mask, backend=forced),
        lambda a: mse(a, y, mask=mask, backend=forced),
    ):
        assert torch.equal(function(spoiled), function(x))


def test_all_masked_images_are_undefined(forced: str) -> None:
    x, y = pair(1, 1, 20, 20)
    mask = torch.zeros(20, 20, dtype=torch.bool)
    assert torch.isnan(ssim(x, y, data_range=1.0, mask=mask, nan="propagate", backend=forced))
    assert torch.isnan(mse(x, y, mask=mask, nan="propagate", backend=forced))


def test_a_nan_pixel_spoils_only_the_windows_that_hold_it(forced: str) -> None:
    x, y = pair(1, 1, 60, 60)
    x[..., 30, 30] = torch.nan
    ssim_map = ssim(x, y, data_range=1.0, return_map=True, nan="propagate", backend=forced).map[0, 0]
    assert int(torch.isnan(ssim_map).sum()) == 11 * 11


# --- windowed moments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "stride"), [((7, 9), (3, 2)), ((16, 16), (8, 8)), ((33, 40), (5, 5)), ((4, 4), (9, 9))]
)
@pytest.mark.parametrize("isa", native_support.INSTRUCTION_SETS)
def test_window_moments_are_the_references(isa: str, window: tuple[int, int], stride: tuple[int, int]) -> None:
    if native_support.probe(isa) is not None:
        pytest.skip(str(native_support.probe(isa)))
    generator = torch.Generator().manual_seed(1)
    x = 40000 + 20 * torch.rand((2, 2, 40, 61), generator=generator)
    x[..., 20:, :] = 0.3  # a constant part: a variance of exactly zero
    roi = torch.rand((2, 1, 40, 61), generator=generator) > 0.4
    roi[..., :12, :14] = False  # windows without a pixel
    got = cnr_native.of_regions(x, roi, settings=Settings(window, stride), isa=isa)[0]
    wanted = cnr_reference.window_moments(x, roi, window, stride)
    for name, a, b in zip(got._fields, got, wanted, strict=True):
        assert torch.allclose(a, b.expand_as(a), rtol=1e-11, atol=1e-12, equal_nan=True), name
    assert torch.equal(got.variance == 0, wanted.variance == 0)


# --- any case -------------------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    size = draw(st.sampled_from([1, 3, 5, 7, 11, 13]))
    return {
        "shape": (
            draw(st.integers(1, 2)),
            draw(st.integers(1, 3)),
            draw(st.integers(size, 40)),
            draw(st.integers(size, 300)),
        ),
        "dtype": draw(st.sampled_from(list(native_support.DTYPE_CODES))),
        "layout": draw(st.sampled_from(["", *LAYOUTS])),
        "window": draw(st.sampled_from(["gaussian", "uniform"])),
        "size": size,
        "border": draw(st.sampled_from(["valid", "reflect"])),
        "masked": draw(st.booleans()),
        "seed": draw(st.integers(0, 1000)),
    }


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(case=cases())
def test_any_shape_layout_dtype_window_and_mask_agree_with_the_reference(case: dict) -> None:
    x, y = pair(*case["shape"], seed=case["seed"], dtype=case["dtype"])
    scale = 255.0 if case["dtype"] in (torch.uint8, torch.uint16) else 1.0
    if case["layout"]:
        x, y = LAYOUTS[case["layout"]](x), LAYOUTS[case["layout"]](y)
    mask = None
    if case["masked"]:
        mask = torch.rand(case["shape"][2:], generator=torch.Generator().manual_seed(case["seed"])) > 0.3
        mask[case["size"] // 2, case["size"] // 2] = True
    for name in registry.FORCED:
        if registry.backends()[name] != "available":
            continue
        got, wanted = (
            ssim(
                x,
                y,
                data_range=scale,
                window=case["window"],
                window_size=case["size"],
                border=case["border"],
                mask=mask,
                return_map=True,
                reduction="none",
                backend=backend,
            )
            for backend in (name, "reference")
        )
        # few windows: their errors do not average out
        assert torch.allclose(got.value, wanted.value, rtol=0, atol=1e-6), name
        assert torch.allclose(got.map, wanted.map, rtol=0, atol=tolerances.SSIM_MAP, equal_nan=True), name
        errors = mse(x, y, mask=mask, backend=name), mse(x, y, mask=mask, backend="reference")
        assert torch.allclose(*errors, rtol=1e-12, atol=0), name
