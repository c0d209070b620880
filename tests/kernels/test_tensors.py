"""Every tensor that others bring is scored right or refused by name, whatever torch is doing around the call."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import backends
import semnr
from semnr_kernels import native_support, profile, registry

SIDE = 64


def pair(n: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    y = np.zeros((n, 1, SIDE, SIDE)) + 0.3
    y[..., SIDE // 2 :] = 0.7
    y = y + 0.02 * rng.standard_normal(y.shape)
    x = y + 0.03 * rng.standard_normal(y.shape)
    return torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype)


METRICS: dict[str, Callable[..., Any]] = {
    "mse": lambda x, y, **o: semnr.mse(x, y, **o),
    "mae": lambda x, y, **o: semnr.mae(x, y, **o),
    "psnr": lambda x, y, **o: semnr.psnr(x, y, data_range=1.0, **o),
    "ssim": lambda x, y, **o: semnr.ssim(x, y, data_range=1.0, **o),
    "ms_ssim": lambda x, y, **o: semnr.ms_ssim(x, y, data_range=1.0, weights=(0.5, 0.5), **o),
    "fsim": lambda x, y, **o: semnr.fsim(x, y, data_range=1.0, **o),
    "dists": lambda x, y, **o: semnr.dists(x, y, data_range=1.0, weights="random", **o),
    "cnr": lambda x, y, **o: semnr.cnr(x, y, **o),
    "cnr_map": lambda x, y, **o: semnr.cnr_map(x, y, window=32, stride=16, **o),
}
TOLERANCE = {"fsim": 1e-5, "dists": 1e-5}  # float32 against the float64 reference


@pytest.fixture(params=METRICS)
def metric(request: pytest.FixtureRequest) -> tuple[str, Callable[..., Any]]:
    return request.param, METRICS[request.param]


@pytest.fixture(scope="module")
def truth() -> Callable[[str], torch.Tensor]:
    """A metric's value from the float64 reference, computed once."""
    known: dict[str, torch.Tensor] = {}

    def of(name: str) -> torch.Tensor:
        if name not in known:
            x, y = pair()
            known[name] = METRICS[name](x.double(), y.double(), backend="reference")
        return known[name]

    return of


def assert_right(name: str, found: Any, expected: torch.Tensor) -> None:
    found = torch.as_tensor(found, device="cpu")
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE.get(name, 1e-6), equal_nan=True)


# --- torch's default device -----------------------------------------------------------------------------------


@pytest.fixture(params=["with", "set"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[None]:
    """Torch's default device is "meta", which stands for a GPU: new tensors have no memory that the CPU reads."""
    if request.param == "with":
        with torch.device("meta"):
            yield
        return
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@pytest.mark.usefixtures("elsewhere")
def test_images_on_the_cpu_are_scored_there_whatever_the_default_device_is(metric, truth) -> None:
    name, function = metric
    with torch.device("cpu"):
        expected = truth(name)
    x, y = pair()
    found = function(x, y)
    assert found.device.type == "cpu"
    assert_right(name, found, expected)
    numpy = function(x.numpy(), y.numpy())
    assert not isinstance(numpy, torch.Tensor)
    np.testing.assert_allclose(numpy, found.numpy(), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("elsewhere")
def test_rows_maps_masks_gradients_and_parts_need_no_default_device() -> None:
    x, y = pair()
    mask = torch.ones((SIDE, SIDE), dtype=torch.bool, device="cpu")
    mask[:9] = False
    for options in (
        {"reduction": "none"},
        {"return_map": True},
        {"components": True},
        {"mask": mask},
        {"details": True},
    ):
        found = semnr.ssim(x, y, data_range=1.0, **options)
        same = semnr.ssim(x.double(), y.double(), data_range=1.0, backend="reference", **options)
        value, other = (getattr(v, "value", v) for v in (found, same))
        torch.testing.assert_close(value, other, rtol=0, atol=1e-6)
    for function in (semnr.ssim, semnr.psnr, semnr.fsim):
        leaf = x.clone().requires_grad_()
        function(leaf, y, data_range=1.0).sum().backward()
        again = x.double().requires_grad_()
        function(again, y.double(), data_range=1.0, backend="reference").sum().backward()
        torch.testing.assert_close(leaf.grad.double(), again.grad, rtol=0, atol=1e-5 * float(again.grad.abs().max()))
    masks = semnr.otsu_masks(y)
    assert masks.signal.device.type == masks.threshold.device.type == "cpu"
    given = semnr.cnr(x, y, signal=masks.signal, background=masks.background, details=True)
    assert given.value.device.type == "cpu"
    assert semnr.cnr(x, kind="gcnr", signal=masks.signal, background=masks.background).device.type == "cpu"
    together = semnr.profile(x.numpy(), y.numpy(), data_range=1.0, metrics=("psnr", "ssim", "cnr"))
    np.testing.assert_allclose(together.ssim, semnr.ssim(x, y, data_range=1.0, reduction="none").numpy(), atol=1e-12)


@pytest.mark.usefixtures("elsewhere")
def test_a_stream_metric_keeps_its_sums_beside_the_images() -> None:
    metrics = pytest.importorskip("semnr.torchmetrics")
    stream = metrics.SSIM(1.0)
    x, y = pair()
    stream.update(x, y)
    assert stream.compute().device.type == "cpu"
    assert abs(float(stream.compute()) - float(semnr.ssim(x, y, data_range=1.0))) < 1e-12


# --- tensors that are not pixels in memory --------------------------------------------------------------------


class Wrapper(torch.Tensor):
    """A tensor that holds another, without storage of its own, as quantised and distributed tensors are."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapper:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        def open_up(value: Any) -> Any:
            return value.inner if isinstance(value, Wrapper) else value

        return func(*map(open_up, args), **{k: open_up(v) for k, v in (kwargs or {}).items()})


class Seen(TorchDispatchMode):
    """A mode that writes down the ops it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.ops.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_wrapper_subclass_answers_for_its_tensor(metric, truth) -> None:
    name, function = metric
    assert_right(name, function(*map(Wrapper, pair())), truth(name))


def test_a_fake_tensor_gives_the_shape_of_the_score_and_touches_no_memory(metric) -> None:
    name, function = metric
    shape, real = function(*pair()).shape, pair()
    with FakeTensorMode() as mode:
        x, y = (mode.from_tensor(v) for v in real)
        inside = function(x, y)
    for found in (inside, function(x, y)):
        assert type(found).__name__ == "FakeTensor"
        assert found.shape == shape
        assert found.dtype == torch.float64
    assert name in METRICS


def test_a_meta_tensor_gives_the_shape_of_the_score(metric) -> None:
    _, function = metric
    found = function(*(v.to("meta") for v in pair()))
    assert found.is_meta
    assert found.shape == function(*pair()).shape


@pytest.mark.parametrize("what", ["details", "otsu_masks", "profile"])
def test_what_reads_the_pixels_refuses_a_tensor_without_any(what: str) -> None:
    call = {
        "details": lambda x, y: semnr.ssim(x, y, data_range=1.0, details=True),
        "otsu_masks": lambda x, y: semnr.otsu_masks(y),
        "profile": lambda x, y: semnr.profile(x, y, data_range=1.0, metrics=("ssim",)),
    }[what]
    for x, y in ([v.to("meta") for v in pair()], [Wrapper(v) for v in pair()]):
        with pytest.raises(TypeError, match=r"accepted|cannot"):
            call(x, y)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(TypeError, match=r"accepted|cannot"):
        call(*pair())


def test_a_dispatch_mode_sees_one_op_and_the_right_value(metric, truth) -> None:
    name, function = metric
    with Seen() as seen:
        found = function(*pair())
    assert_right(name, found, truth(name))
    assert f"semnr.{name}.default" in seen.ops


def test_a_dispatch_mode_does_not_stand_in_the_way_of_details() -> None:
    x, y = pair()
    with Seen():
        found = semnr.ssim(x, y, data_range=1.0, details=True)
    assert float(found.value) == float(semnr.ssim(x, y, data_range=1.0, details=True).value)


def test_a_traced_graph_holds_the_op_and_not_what_memory_held() -> None:
    x, y = pair()
    graph = make_fx(lambda a, b: semnr.ssim(a, b, data_range=1.0, nan="propagate"))(0.9 * y, y)
    assert "semnr.ssim" in graph.code
    assert float(graph(x, y)) == float(semnr.ssim(x, y, data_range=1.0, reduction="none").mean())
    with pytest.raises(TypeError, match="details=True"):
        make_fx(lambda a, b: semnr.ssim(a, b, data_range=1.0, details=True).value)(x, y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda v: v.to_sparse(), "sparse_coo"),
        (lambda v: v[0, 0].to_sparse_csr(), "sparse_csr"),
        (lambda v: v.to_mkldnn(), "mkldnn"),
        (lambda v: torch.nested.nested_tensor([v[0], v[1]]), "nested"),
        (lambda v: torch.nested.nested_tensor([v[0, 0], v[1, 0]], layout=torch.jagged), "nested"),
        (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.quint8), "quint8"),
        (lambda v: v.to(torch.complex64), "complex64"),
    ],
    ids=["coo", "csr", "mkldnn", "nested", "jagged", "quantised", "complex"],
)
def test_a_tensor_that_is_not_dense_is_refused_by_name(made: Any, named: str) -> None:
    x, y = pair()
    image = made(x)
    for name, function in METRICS.items():
        with pytest.raises(TypeError, match=rf"x .*{named}.*accepted"):
            function(image, image)
        assert name in METRICS
    if "sparse" in named:
        for argument in ("mask", "signal"):
            region = torch.ones_like(y, dtype=torch.bool).to_sparse()
            other = {"background": torch.zeros_like(y, dtype=torch.bool)} if argument == "signal" else {}
            with pytest.raises(TypeError, match=f"{argument} is a sparse"):
                semnr.cnr(x, y, **{argument: region}, **other)


@pytest.mark.parametrize(
    "made",
    [
        lambda v: v.as_subclass(type("Image", (torch.Tensor,), {})),
        torch.nn.Parameter,
        lambda v: v.clone().share_memory_(),
        lambda v: torch.complex(v, -v).conj().imag,  # negated lazily
        lambda v: v.expand(2, -1, -1, -1) if v.shape[0] == 1 else v,
        lambda v: v.flip(3).contiguous().flip(3),
        lambda v: torch.nn.functional.pad(v, (1, 1, 2, 2))[..., 2:-2, 1:-1],
        lambda v: v.transpose(2, 3).contiguous().transpose(2, 3),
        lambda v: v.to(memory_format=torch.channels_last),
    ],
    ids=["subclass", "parameter", "shared", "negative", "expanded", "flipped", "cut", "transposed", "channels-last"],
)
def test_a_plain_tensor_of_any_kind_is_scored_as_its_values(made: Any, metric, truth) -> None:
    name, function = metric
    x, y = map(made, pair())
    assert_right(name, function(x, y).detach(), truth(name))


def test_a_numpy_mask_is_never_dropped_in_silence() -> None:
    x, y = (v[0, 0].numpy() for v in pair())
    hidden = np.zeros(x.shape, bool)
    masked = [np.ma.masked_array(v, hidden) for v in (x, y)]
    assert semnr.psnr(*masked, data_range=1.0) == semnr.psnr(x, y, data_range=1.0)  # nothing is masked
    hidden[:20] = True
    masked = [np.ma.masked_array(v, hidden) for v in (x, y)]
    for function in METRICS.values():
        with pytest.raises(TypeError, match=r"x is a numpy\.ma\.MaskedArray.*mask=~numpy"):
            function(*masked)
    with pytest.raises(TypeError, match=r"numpy\.ma"):
        semnr.Reference(masked[1], data_range=1.0)
    with pytest.raises(TypeError, match=r"numpy\.ma"):
        semnr.otsu_masks(masked[1])
    assert semnr.psnr(x, y, data_range=1.0, mask=~np.ma.getmaskarray(masked[0])) > 0


# --- differentiation by transforms ----------------------------------------------------------------------------

DIFFERENTIABLE = ["mse", "mae", "psnr", "ssim", "ms_ssim", "fsim", "cnr"]


def slope(function: Callable[..., Any], x: torch.Tensor, y: torch.Tensor, v: torch.Tensor) -> float:
    """The derivative along `v`, from the reference's backward pass."""
    leaf = x.clone().requires_grad_()
    function(leaf, y, backend="reference").sum().backward()
    return float((leaf.grad * v).sum())


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_forward_mode_gives_the_derivative_that_backward_gives(name: str) -> None:
    x, y = pair(1, torch.float64)
    v = torch.from_numpy(np.random.default_rng(1).standard_normal(x.shape))
    expected = pytest.approx(slope(METRICS[name], x, y, v), rel=1e-6, abs=1e-12)
    with forward_ad.dual_level():
        found = METRICS[name](forward_ad.make_dual(x, v), y)
        assert float(forward_ad.unpack_dual(found).tangent.sum()) == expected
        with Seen():
            found = METRICS[name](forward_ad.make_dual(x, v), y)
        assert float(forward_ad.unpack_dual(found).tangent.sum()) == expected
    _, tangent = torch.func.jvp(lambda a: METRICS[name](a, y), (x,), (v,))
    assert float(tangent.sum()) == expected


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_torch_func_differentiates_as_backward_does(name: str) -> None:
    x, y = pair(2, torch.float64)
    leaf = x.clone().requires_grad_()
    METRICS[name](leaf, y).sum().backward()
    found = torch.func.grad(lambda a: METRICS[name](a, y).sum())(x)
    torch.testing.assert_close(found, leaf.grad, rtol=1e-9, atol=1e-12)
    each = torch.func.vmap(torch.func.grad(lambda a, b: METRICS[name](a, b).sum()))(x, y) if name != "cnr" else None
    if each is not None:
        alone = []
        for a, b in zip(x, y, strict=True):
            one = a.clone().requires_grad_()
            METRICS[name](one, b).sum().backward()
            alone.append(one.grad)
        torch.testing.assert_close(each, torch.stack(alone), rtol=1e-9, atol=1e-12)


def test_vmap_scores_each_image_by_itself(metric) -> None:
    name, function = metric
    x, y = pair(3)
    each = torch.stack([torch.as_tensor(function(a, b)) for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(torch.func.vmap(function)(x, y), each, rtol=0, atol=0, equal_nan=True)
    one = torch.func.vmap(function, in_dims=(0, None))(x, y[0])
    torch.testing.assert_close(one[0], each[0], rtol=0, atol=0, equal_nan=True)
    assert name in METRICS


def test_a_score_of_constants_inside_a_transform_is_a_constant() -> None:
    x, y = pair()
    value = float(semnr.ssim(x, y, data_range=1.0))
    assert float(torch.func.grad(lambda s: s * semnr.ssim(x, y, data_range=1.0))(torch.tensor(1.0))) == pytest.approx(
        value
    )
    found = torch.func.vmap(lambda s: s * semnr.ssim(x, y, data_range=1.0))(torch.arange(3.0))
    torch.testing.assert_close(found.double(), torch.arange(3.0).double() * value)


def test_second_derivatives_by_transforms_are_those_of_the_reference() -> None:
    x, y = (v[..., :12, :12] for v in pair(1, torch.float64))
    found = torch.func.hessian(lambda a: semnr.ssim(a, y, data_range=1.0))(x)
    again = torch.autograd.functional.hessian(lambda a: semnr.ssim(a, y, data_range=1.0, backend="reference"), x)
    torch.testing.assert_close(found, again, rtol=1e-8, atol=1e-10)


def test_maps_and_flags_come_out_of_vmap_and_non_finite_pixels_are_found_in_it() -> None:
    x, y = pair(3)
    found = torch.func.vmap(lambda a, b: semnr.ssim(a, b, data_range=1.0, return_map=True).map)(x, y)
    torch.testing.assert_close(found, semnr.ssim(x, y, data_range=1.0, return_map=True).map)
    x[1, 0, 5, 5] = torch.nan
    with pytest.raises(ValueError, match="x has 1 non-finite pixels"):
        torch.func.vmap(METRICS["ssim"])(x, y)
    with pytest.raises(ValueError, match="x has 1 non-finite pixels"):
        torch.func.vmap(torch.func.grad(METRICS["ssim"]))(x, y)


def test_a_named_kernel_says_that_it_takes_no_transforms() -> None:
    backends.require("ssim", "native")
    x, y = pair()
    with pytest.raises(semnr.BackendUnavailable, match=r"torch\.func"):
        torch.func.grad(lambda a: semnr.ssim(a, y, data_range=1.0, backend="native"))(x)


# --- threads and forks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_score_does_not_depend_on_the_number_of_threads(threads: int) -> None:
    x, y = (torch.rand((3, 1, 300, 310), generator=torch.Generator().manual_seed(i)) for i in range(2))
    before = torch.get_num_threads()
    calls = [METRICS[n] for n in ("mse", "mae", "psnr", "ssim", "fsim", "cnr")]
    expected = [call(x, y) for call in calls]
    try:
        torch.set_num_threads(threads)
        for call, one in zip(calls, expected, strict=True):
            torch.testing.assert_close(call(x, y), one, rtol=0, atol=0, equal_nan=True)
    finally:
        torch.set_num_threads(before)


def test_threads_of_the_caller_get_the_same_scores() -> None:
    x, y = pair()
    expected = {n: METRICS[n](x, y) for n in ("psnr", "ssim", "fsim", "cnr")}
    wrong: list[str] = []

    def work() -> None:
        wrong.extend(n for n, v in expected.items() if not torch.equal(METRICS[n](x, y).nan_to_num(), v.nan_to_num()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def _score_all(numbers: int) -> dict[str, Any]:
    x, y = (v[0, 0].numpy() for v in pair(1))
    found = {name: np.asarray(function(x, y)).tolist() for name, function in METRICS.items()}
    tests = semnr.residual_tests(x, x + 0.5 * (y - x))
    found["residual_tests"] = len(tests)
    found["profile"] = semnr.profile(x, y, data_range=1.0, metrics=("psnr", "ssim", "cnr")).ssim.tolist()
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore")
def test_a_forked_worker_scores_after_its_parent_did() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        big = torch.rand((1, 1, 700, 700))
        (big > 0.5).view(torch.uint8).any()  # torch's own threads have begun
        here = _score_all(0)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            there = pool.map_async(_score_all, range(2)).get(timeout=120)
    finally:
        torch.set_num_threads(before)
    assert len(there) == 2
    for name, value in here.items():
        for found in there:
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6 if name == "dists" else 1e-9)


# --- all of it at once ----------------------------------------------------------------------------------------


def test_random_combinations_give_the_references_value_or_a_named_refusal() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    def strided(v: torch.Tensor, how: int) -> torch.Tensor:
        if how == 0:
            return v
        if how == 1:
            return v.transpose(2, 3).contiguous().transpose(2, 3)
        if how == 2:
            return v.repeat_interleave(2, 3)[..., ::2]
        return torch.nn.functional.pad(v.float(), (3, 0, 0, 0)).to(v.dtype)[..., 3:]

    around = {
        "nothing": contextlib.nullcontext,
        "meta": lambda: torch.device("meta"),
        "seen": Seen,
        "no_grad": torch.no_grad,
        "inference": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "dual": forward_ad.dual_level,
    }
    kinds = {
        "plain": lambda v: v,
        "subclass": lambda v: v.as_subclass(type("Image", (torch.Tensor,), {})),
        "wrapper": Wrapper,
        "grad": lambda v: v.clone().requires_grad_() if v.is_floating_point() else v,
    }

    @hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @hypothesis.given(
        name=st.sampled_from(["mse", "mae", "psnr", "ssim", "cnr"]),
        dtype=st.sampled_from([torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64]),
        how=st.integers(0, 3),
        kind=st.sampled_from(sorted(kinds)),
        mode=st.sampled_from(sorted(around)),
        vmapped=st.booleans(),
        threads=st.sampled_from([1, 2, 8]),
    )
    def check(name: str, dtype: torch.dtype, how: int, kind: str, mode: str, vmapped: bool, threads: int) -> None:
        wide = pair(2, torch.float64)
        top = 1.0 if dtype.is_floating_point else 200.0
        x, y = (strided((v * top).to(dtype), how) for v in wide)
        run = {
            "psnr": lambda a, b, **o: semnr.psnr(a, b, data_range=top, **o),
            "ssim": lambda a, b, **o: semnr.ssim(a, b, data_range=top, **o),
        }.get(name, METRICS[name])
        rows = [run(a.double(), b.double(), backend="reference") for a, b in zip(x, y, strict=True)]
        expected = torch.stack(rows).reshape(-1)
        options = {} if name == "cnr" else {"reduction": "none"}
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            a, b = kinds[kind](x), kinds[kind](y)
            with around[mode]():
                vmapped = vmapped and kind == "plain" and mode in ("nothing", "no_grad")
                found = torch.func.vmap(run)(a, b).reshape(-1) if vmapped else run(a, b, **options)
        finally:
            torch.set_num_threads(before)
        found = torch.as_tensor(found.detach(), device="cpu").reshape(-1).as_subclass(torch.Tensor)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=2e-6, equal_nan=True)

    check()


def test_a_kernel_is_never_called_with_an_address_of_nothing() -> None:
    with pytest.raises(TypeError, match="no memory that a kernel can read"):
        native_support.address(torch.empty((2, 2), device="meta"))
    assert native_support.address(torch.empty((0, 2), device="cpu")) == 0
    x, y = pair()
    region = torch.ones((2, 1, SIDE, SIDE), dtype=torch.bool)
    with Seen():  # one by one: each goes as an op
        assert profile.together(x, y, region, ~region, data_range=1.0) is None
    assert "wrapped" in registry.Call.__dataclass_fields__
