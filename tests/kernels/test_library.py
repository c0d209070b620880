"""Under torch.compile and torch.export a metric is one node, which equals the eager call in value and gradient."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import cases
import semnr
import semnr_kernels as kernels
from semnr import losses
from semnr_kernels import library, registry

RANDOM = {"weights": "random"}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def pair(side: int = 24, dtype: torch.dtype = torch.float32, count: int = 2, channels: int = 1) -> list[torch.Tensor]:
    """(count, channels, side, side) candidate and reference on the dtype's own scale."""
    seen: list[list[torch.Tensor]] = [[], []]
    for seed in range(count * channels):
        for images, image in zip(seen, cases.noisy_pair(side, side, seed=seed), strict=True):
            images.append(torch.from_numpy(image))
    stacks = [torch.stack(images).reshape(count, channels, side, side) for images in seen]
    if dtype.is_floating_point:
        return [v.to(dtype) for v in stacks]
    return [(v * torch.iinfo(dtype).max).to(torch.int32).to(dtype) for v in stacks]


def images(call: str) -> list[torch.Tensor]:
    x, y = pair(CALLS[call][1])
    if CALLS[call][2].get("nan") == "omit":
        x[1, 0, 3, 3] = torch.nan
    return [x, y]


def half_mask(side: int = 24, count: int = 2) -> torch.Tensor:
    mask = torch.ones((count, 1, side, side), dtype=torch.bool)
    mask[:, :, :, : side // 3] = False
    return mask


def regions(side: int = 24) -> dict[str, torch.Tensor]:
    signal = torch.zeros((side, side), dtype=torch.bool)
    signal[: side // 2] = True
    return {"signal": signal, "background": ~signal}


# --- what a call can be: op, side of the image, options ----------------------------------------------------------
CALLS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "mse": ("mse", 16, {}),
    "mse-sum-masked": ("mse", 16, {"reduction": "sum", "mask": half_mask(16)}),
    "mae-clip": ("mae", 16, {"overshoot": "clip", "data_range": 1.0}),
    "psnr": ("psnr", 16, {"data_range": 1.0}),
    "psnr-mean-mse": ("psnr", 16, {"data_range": 1.0, "reduction": "mean_mse"}),
    "ssim": ("ssim", 24, {"data_range": 1.0}),
    "ssim-none": ("ssim", 24, {"data_range": 1.0, "reduction": "none"}),
    "ssim-map": ("ssim", 24, {"data_range": 1.0, "return_map": True, "precision": "float64"}),
    "ssim-map-reflect": ("ssim", 24, {"data_range": 1.0, "return_map": True, "border": "reflect", "window_size": 7}),
    "ssim-components": ("ssim", 24, {"data_range": 1.0, "components": True}),
    "ssim-masked-map": ("ssim", 24, {"data_range": 1.0, "mask": half_mask(), "return_map": True, "components": True}),
    "ssim-omit": ("ssim", 24, {"data_range": 1.0, "nan": "omit", "return_map": True}),
    "ssim-downsampled": ("ssim", 24, {"data_range": 1.0, "downsample": 2, "return_map": True}),
    "ssim-piq": ("ssim", 24, {"data_range": 1.0, "convention": "piq", "return_map": True}),
    "ssim-uniform": ("ssim", 24, {"data_range": 1, "window": "uniform", "window_size": 7, "k1": 0}),
    "ms_ssim": ("ms_ssim", 24, {"data_range": 1.0, "window_size": 5, "weights": (0.5, 0.25, 0.25)}),
    "fsim": ("fsim", 48, {"data_range": 1.0}),
    "fsim-map": ("fsim", 98, {"data_range": 1.0, "return_map": True, "downsample": 2, "reduction": "none"}),
    "fsim-authors": ("fsim", 97, {"data_range": 1.0, "return_map": True, "downsample": "authors"}),
    "fsim-masked": ("fsim", 48, {"data_range": 1.0, "mask": half_mask(48), "return_map": True}),
    "dists": ("dists", 32, {"data_range": 1.0, **RANDOM}),
    "dists-piq": ("dists", 32, {"data_range": 1.0, **RANDOM, "resize": "piq", "memory_budget": 2**20}),
    "dists-map": ("dists", 50, {"data_range": 1.0, **RANDOM, "return_map": True, "memory_budget": "2MiB"}),
    "dists-masked": ("dists", 32, {"data_range": 1.0, **RANDOM, "return_map": True, "mask": half_mask(32)}),
    "cnr": ("cnr", 24, regions()),
    "cnr-otsu-mean": ("cnr", 24, {"kind": "sum_var", "reduction": "mean"}),
    "cnr-sigma": ("cnr", 24, {"kind": "fixed_noise", "noise": 0.1, **regions()}),
    "cnr-sigmas": ("cnr", 24, {"kind": "fixed_noise", "noise": torch.tensor([0.1, 0.2]), **regions()}),
    "cnr-sigma-map": (
        "cnr", 24, {"kind": "fixed_noise", "noise": kernels.cnr.Sigma(torch.full((24, 24), 0.1)), **regions()}
    ),
    "cnr_map": ("cnr_map", 24, {"window": 16, "stride": (4, 8), **regions()}),
    "cnr_map-background": ("cnr_map", 24, {"window": (16, 20), "stride": 2, "kind": "background", **regions()}),
}  # fmt: skip
OF = {"mse": "pixel", "mae": "pixel", "psnr": "pixel", "ms_ssim": "ssim", "cnr_map": "cnr"}


def contract(name: str) -> Callable[..., Any]:
    return getattr(getattr(kernels, OF.get(name, name)), name)  # type: ignore[no-any-return]


def public(name: str) -> Callable[..., Any]:
    return getattr(semnr, name)  # type: ignore[no-any-return]


def flat(result: Any) -> dict[str, torch.Tensor]:
    """Every tensor that a call returns, by name."""
    if isinstance(result, torch.Tensor):
        return {"value": result}
    found = {name: getattr(result, name) for name in ("value", "map", "coverage")}
    found |= getattr(result, "components", None) or {}
    return {name: value for name, value in found.items() if value is not None}


def total(result: Any) -> torch.Tensor:
    """A number whose gradient reaches every differentiable output, each with a weight of its own."""
    parts = [v.double().nan_to_num() for name, v in flat(result).items() if name != "coverage"]
    return torch.stack([(i + 1) * p.mean() for i, p in enumerate(parts)]).sum()


def operands(name: str, x: torch.Tensor, y: torch.Tensor, options: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of a contract as those of its op."""
    contract(name)  # whose import defines the op
    node = library.ops[name]
    return library.pack(node, {**node.defaults, "x": x, "y": y, **options})


class Traced:
    """A compiler backend that runs what it is given and keeps the ops of each graph."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []
        self.backward: list[torch.fx.GraphModule] = []

        def keep(into: list[torch.fx.GraphModule]) -> Callable[..., Any]:
            def compiler(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
                into.append(graph)
                return make_boxed_func(graph.forward)

            return compiler

        self.backend = aot_autograd(fw_compiler=keep(self.graphs), bw_compiler=keep(self.backward))

    @staticmethod
    def nodes(graphs: list[torch.fx.GraphModule]) -> list[str]:
        found = [n.target for g in graphs for n in g.graph.nodes if n.op == "call_function"]
        return [str(t) for t in found if t is not operator.getitem]


# --- the ops -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("call", CALLS)
def test_an_op_keeps_what_torch_asks_of_a_custom_op(call: str) -> None:
    name, _, options = CALLS[call]
    x, y = images(call)
    tensors, given = operands(name, x.requires_grad_(), y, options)
    tests = ["test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"]
    if call in ("ssim-masked-map", "ssim-omit"):
        tests.pop()  # compares NaN with NaN; `test_a_compiled_call...` does so as well
    torch.library.opcheck(getattr(torch.ops.semnr, name).default, tuple(tensors), given, test_utils=tests)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, *FLOATS], ids=str)
@pytest.mark.parametrize("name", ["mse", "psnr", "ssim", "cnr_map"])
def test_an_op_takes_every_dtype(name: str, dtype: torch.dtype) -> None:
    x, y = pair(20, dtype)
    options: dict[str, Any] = {"mse": {}, "cnr_map": {"window": 16, "stride": 2, **regions(20)}}.get(
        name, {"data_range": 1.0 if dtype.is_floating_point else None}
    )
    options |= {"return_map": True} if name == "ssim" else {}
    tensors, given = operands(name, x.requires_grad_(dtype.is_floating_point), y, options)
    tests = ("test_schema", "test_faketensor")  # the others convert: torch has few functions of uint16
    torch.library.opcheck(getattr(torch.ops.semnr, name).default, tuple(tensors), given, test_utils=tests)
    compiled = torch.compile(lambda a, b: public(name)(a, b, **options), backend="aot_eager", fullgraph=True)
    found, wanted = compiled(x.detach(), y), public(name)(x.detach(), y, **options)
    torch.testing.assert_close(flat(found), flat(wanted), rtol=0, atol=0)


@pytest.mark.parametrize("call", ["mse", "ssim-map", "fsim"])
def test_the_gradient_of_an_op_is_an_op(call: str) -> None:
    name, side, options = CALLS[call]
    x, y = pair(side)
    tensors, given = operands(name, x, y, options)
    outputs = getattr(torch.ops.semnr, name)(*tensors, **given)
    by = [torch.ones_like(outputs[0]), *(None for _ in outputs[1:])]
    wanted = [i < 2 for i, _ in enumerate(tensors)]
    torch.library.opcheck(getattr(torch.ops.semnr, f"{name}_backward").default, (by, wanted, *tensors), given)


def test_an_op_answers_for_the_device_of_its_images() -> None:
    tensors, given = operands("ssim", *pair(), {"data_range": 1.0, "return_map": True})
    with FakeTensorMode() as fake:
        on_gpu = [t if t is None else fake.from_tensor(t).to("cuda") for t in tensors]
        value, ssim_map = torch.ops.semnr.ssim(*on_gpu, **given)
    assert value.device.type == ssim_map.device.type == "cuda"
    assert ssim_map.shape == (2, 1, 14, 14)


def test_every_metric_is_an_op() -> None:
    registry.ops()
    assert set(library.ops) == {
        "mse", "mae", "psnr", "ssim", "ms_ssim", "fsim", "dists", "cnr", "cnr_map", "lpips", "l1_ssim",
        "contrast_retention",
    }  # fmt: skip
    for node in library.ops.values():
        for name in (node.name, f"{node.name}_backward"):
            assert hasattr(torch.ops.semnr, name)


# --- compiled calls ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("call", CALLS)
def test_a_compiled_call_is_one_node_each_way_and_equals_the_eager_call(call: str) -> None:
    name, _, options = CALLS[call]
    x, y = images(call)
    traced, function = Traced(), public(name)
    compiled = torch.compile(lambda a, b: function(a, b, **options), backend=traced.backend, fullgraph=True)

    with torch.no_grad():
        found, wanted = compiled(x, y), function(x, y, **options)
    assert type(found) is type(wanted)
    torch.testing.assert_close(flat(found), flat(wanted), rtol=0, atol=0, equal_nan=True)
    assert traced.nodes(traced.graphs) == [f"semnr.{name}.default"]

    traced.graphs.clear()
    leaves = [[v.clone().requires_grad_() for v in (x, y)] for _ in range(2)]
    found, wanted = compiled(*leaves[0]), function(*leaves[1], **options)
    # with a gradient the eager call may take another backend: within the bounds of NUMERICS
    torch.testing.assert_close(flat(found), flat(wanted), rtol=1e-5, atol=2e-5, equal_nan=True)
    total(found).backward()
    total(wanted).backward()
    assert [n for n in traced.nodes(traced.graphs) if "semnr" in n] == [f"semnr.{name}.default"]
    assert [n for n in traced.nodes(traced.backward) if "semnr" in n] == [f"semnr.{name}_backward.default"]
    for a, b in zip(*leaves, strict=True):
        # eager mode says None where it finds no path; a graph has zeros
        torch.testing.assert_close(a.grad, torch.zeros_like(b) if b.grad is None else b.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("call", ["psnr", "ssim", "fsim", "dists"])
def test_a_narrow_image_accumulates_in_a_wide_type(call: str, dtype: torch.dtype) -> None:
    name, side, options = CALLS[call]
    x, y = pair(side, dtype)
    leaf = x.clone().requires_grad_()
    compiled = torch.compile(lambda a, b: public(name)(a, b, **options), backend="aot_eager", fullgraph=True)
    value = compiled(leaf, y)
    assert value.dtype == torch.float64
    wanted = public(name)(x.double(), y.double(), **options)
    assert abs(value - wanted) <= 2e-5 * max(1, abs(wanted))  # of the pixels as they are: no rounding between
    value.backward()
    assert leaf.grad.dtype == dtype  # type: ignore[union-attr]
    assert torch.isfinite(leaf.grad).all()  # type: ignore[arg-type]
    assert (leaf.grad != 0).any()  # type: ignore[union-attr]


def test_one_graph_serves_every_size() -> None:
    traced = Traced()

    def score(a: torch.Tensor, b: torch.Tensor) -> Any:
        return semnr.ssim(a, b, data_range=1.0, return_map=True)

    compiled = torch.compile(score, backend=traced.backend, fullgraph=True, dynamic=True)
    for side in (20, 24, 33):
        x, y = pair(side)
        torch.testing.assert_close(flat(compiled(x, y)), flat(score(x, y)), rtol=0, atol=0)
    assert len(traced.graphs) == 1


def test_a_compiled_call_that_omits_nan_has_a_coverage_even_where_it_omits_nothing() -> None:
    compiled = torch.compile(semnr.ssim, backend="aot_eager", fullgraph=True)
    assert compiled(*pair(), data_range=1.0, return_map=True, nan="omit").coverage.tolist() == [1.0, 1.0]
    assert semnr.ssim(*pair(), data_range=1.0, return_map=True, nan="omit").coverage is None


def test_unbatched_images_keep_their_shape() -> None:
    x, y = (v[0, 0] for v in pair(48))
    for name in ("ssim", "fsim"):
        compiled = torch.compile(public(name), backend="aot_eager", fullgraph=True)
        for a, b in ((x, y), (x[None], y[None])):
            options = {"data_range": 1.0, "return_map": True, "reduction": "none"}
            torch.testing.assert_close(flat(compiled(a, b, **options)), flat(public(name)(a, b, **options)))


def test_the_noisy_image_of_a_cnr_has_a_gradient_through_the_node() -> None:
    x, y = pair()
    leaves = [y.clone().requires_grad_() for _ in range(2)]

    def score(noise: torch.Tensor) -> torch.Tensor:
        return semnr.cnr(x, kind="fixed_noise", noise=noise, reduction="mean", **regions())  # type: ignore[no-any-return]

    torch.compile(score, backend="aot_eager", fullgraph=True)(leaves[0]).backward()
    score(leaves[1]).backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
    assert (leaves[0].grad != 0).any()  # type: ignore[union-attr]


def test_the_gradient_of_a_compiled_ssim_costs_no_second_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from semnr_kernels.ssim import native

    if (reason := registry.backends()["native"]) != "available":
        pytest.skip(reason)
    ran, forward = [], native._forward
    monkeypatch.setattr(native, "_forward", lambda *a: ran.append(1) or forward(*a))
    x, y = pair()
    x.requires_grad_()
    compiled = torch.compile(semnr.ssim, backend="aot_eager", fullgraph=True)
    compiled(x, y, data_range=1.0, return_map=True).value.backward()
    assert len(ran) == 1


# --- what happens at run time ------------------------------------------------------------------------------------
def test_pixels_are_checked_when_the_graph_runs() -> None:
    x, y = pair()
    compiled = torch.compile(semnr.ssim, backend="aot_eager", fullgraph=True)
    compiled(x, y, data_range=1.0)
    spoilt = x.clone()
    spoilt[0, 0, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="x has 1 non-finite pixels"):
        compiled(spoilt, y, data_range=1.0)
    assert torch.isnan(compiled(spoilt, y, data_range=1.0, nan="propagate"))
    with pytest.raises(ValueError, match=r"x has 1 values outside \[0, 1\]"):
        compiled(x.index_fill(3, torch.tensor(0), 0.5).index_put((torch.tensor(0),) * 4, torch.tensor(2.0)), y,
                 data_range=1.0, overshoot="error")  # fmt: skip


def test_a_graph_follows_the_backend_in_force_when_it_runs() -> None:
    x, y = pair()
    compiled = torch.compile(lambda a, b: semnr.ssim(a, b, data_range=1.0), backend="aot_eager", fullgraph=True)
    compiled(x, y)
    with registry.recording() as used, semnr.use_backend("reference"):
        compiled(x, y)
    assert used == {"ssim": "reference"}
    named = torch.compile(lambda a, b: semnr.ssim(a, b, data_range=1.0, backend="triton"), backend="aot_eager")
    with pytest.raises(semnr.BackendUnavailable):
        named(x, y)


def test_details_and_weights_as_tensors_stay_outside_the_graph() -> None:
    x, y = pair()

    def score(a: torch.Tensor, b: torch.Tensor) -> Any:
        return semnr.ssim(a * 1, b, data_range=1.0, details=True)

    found, wanted = torch.compile(score, backend="aot_eager")(x, y), score(x, y)
    assert found.value == wanted.value
    assert found.settings == wanted.settings
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="details=True: its flags are read off the data"):
        torch.compile(score, backend="aot_eager", fullgraph=True)(x, y)

    state = kernels.dists.weights.random_weights().state
    x, y = pair(32)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="weights that are neither None nor a path nor a name"):
        torch.compile(semnr.dists, backend="aot_eager", fullgraph=True)(x, y, data_range=1.0, weights=state)


def test_a_compiled_result_says_that_it_holds_no_flags() -> None:
    found = torch.compile(semnr.ssim, backend="aot_eager", fullgraph=True)(*pair(), data_range=1.0, return_map=True)
    assert found.flags == (library.COMPILED,)
    assert found.data_range == 1.0


def test_a_second_derivative_is_refused_by_the_node() -> None:
    x, y = pair()
    tensors, given = operands("ssim", x.requires_grad_(), y, {"data_range": 1.0})
    (gradient,) = torch.autograd.grad(torch.ops.semnr.ssim(*tensors, **given)[0], x, create_graph=True)
    with pytest.raises(NotImplementedError, match="ssim has no second derivative inside"):
        gradient.sum().backward()


def test_an_exported_program_holds_the_metric_as_one_node() -> None:
    class Score(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return semnr.ssim(a, b, data_range=1.0)  # type: ignore[no-any-return]

    x, y = pair()
    program = torch.export.export(Score(), (x, y))
    assert "torch.ops.semnr.ssim.default" in program.graph_module.code
    assert program.module()(x, y) == semnr.ssim(x, y, data_range=1.0)


# --- losses ------------------------------------------------------------------------------------------------------
LOSSES: dict[str, tuple[Callable[[], torch.nn.Module], int]] = {
    "charbonnier": (lambda: losses.CharbonnierLoss(1.0), 16),
    "ssim": (lambda: losses.SSIMLoss(1.0), 24),
    "l1_ssim": (lambda: losses.L1SSIMLoss(1.0), 24),
    "cnr_retention": (lambda: losses.CNRRetentionLoss(1.0), 32),
    "ms_ssim": (lambda: losses.MSSSIMLoss(1.0, window_size=3), 48),
    "fsim": (lambda: losses.FSIMLoss(1.0), 48),
    "dists": (lambda: losses.DISTSLoss(1.0, weights="random"), 32),
    "profile": (lambda: losses.ProfileLoss({"charbonnier": 1.0, "ssim": 0.5, "fsim": 0.1}, 1.0), 48),
}


class Net(torch.nn.Module):
    """A small denoiser and its loss, as a user compiles them."""

    def __init__(self, loss: torch.nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
        self.last = torch.nn.Conv2d(4, 1, 3, padding=1)
        self.loss = loss

    def forward(self, noisy: torch.Tensor, clean: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.loss(noisy + self.last(self.layers(noisy)), clean, mask)  # type: ignore[no-any-return]


def gradients(net: torch.nn.Module, run: Callable[..., torch.Tensor], *images: Any) -> list[torch.Tensor]:
    net.zero_grad()
    run(*images).backward()
    return [p.grad.clone() for p in net.parameters()]  # type: ignore[union-attr]


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_network_trains_through_its_compiled_loss_as_in_eager_mode(name: str, masked: bool) -> None:
    make, side = LOSSES[name]
    net = Net(make())
    images = (*pair(side), half_mask(side) if masked else None)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*images), net(*images), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(net, compiled, *images), gradients(net, net, *images), rtol=1e-4, atol=1e-6)


def test_inductor_compiles_a_training_step() -> None:
    net = Net(losses.ProfileLoss({"charbonnier": 1.0, "ssim": 0.5}, 1.0))
    images = pair(24)
    compiled = torch.compile(net, fullgraph=True)
    torch.testing.assert_close(gradients(net, compiled, *images), gradients(net, net, *images), rtol=1e-4, atol=1e-5)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    values = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = compiled(*images)
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < values[0]


def test_a_compiled_charbonnier_loss_names_the_image_with_nan() -> None:
    x, y = pair(16)
    x[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="x has 1 non-finite pixels"):
        torch.compile(losses.CharbonnierLoss(1.0), backend="aot_eager", fullgraph=True)(x, y)
    propagates = losses.CharbonnierLoss(1.0, nan="propagate", reduction="none")
    rows = torch.compile(propagates, backend="aot_eager", fullgraph=True)(x, y)
    assert rows.isnan().tolist() == [True, False]


# --- autocast ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("call", ["psnr", "ssim", "ms_ssim", "fsim", "dists", "cnr"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_autocast_does_not_reach_into_a_score(call: str, compiled: bool) -> None:
    name, side, options = CALLS[call]
    x, y = pair(side)

    def score(a: torch.Tensor, b: torch.Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return public(name)(a, b, **options)

    run = torch.compile(score, backend="aot_eager", fullgraph=True) if compiled else score
    torch.testing.assert_close(flat(run(x, y)), flat(public(name)(x, y, **options)), rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_loss_under_autocast_takes_a_bfloat16_output_and_a_float32_target(name: str, compiled: bool) -> None:
    make, side = LOSSES[name]
    net = Net(make())
    net.layers.append(torch.nn.Conv2d(4, 4, 1))

    class Mixed(torch.nn.Module):
        def forward(self, noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                out = net.last(net.layers(noisy))
                return net.loss(out, clean), out  # type: ignore[return-value]

    mixed = Mixed()
    run = torch.compile(mixed, backend="aot_eager", fullgraph=True) if compiled else mixed
    loss, out = run(*pair(side))
    assert (out.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(loss, net.loss(out.float(), pair(side)[1]), rtol=1e-6, atol=1e-6)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())  # type: ignore[arg-type]


def test_without_autocast_two_dtypes_are_refused() -> None:
    x, y = pair()
    with pytest.raises(TypeError, match="x has dtype bfloat16 and y float32"):
        losses.SSIMLoss(1.0)(x.bfloat16(), y)


# --- what waits for the device -----------------------------------------------------------------------------------
class NothingIsReadBack(TorchDispatchMode):
    """Fails at what would make the host wait for a GPU, and would end a CUDA graph's capture."""

    READS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "unique")
    # a mode sees an op of ours as one; what it reads inside goes through these
    METHODS = ("item", "tolist", "__bool__", "__int__", "__float__")

    def __enter__(self) -> Any:
        self._patch = pytest.MonkeyPatch()
        for name in self.METHODS:

            def refused(tensor: torch.Tensor, name: str = name) -> Any:
                raise AssertionError(f"Tensor.{name} reads the device back")

            self._patch.setattr(torch.Tensor, name, refused)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._patch.undo()
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.READS, f"{func} reads the device back"
        return func(*args, **(kwargs or {}))


FREE = ["mse", "mae-clip", "psnr", "psnr-mean-mse", "ssim", "ssim-map", "ssim-map-reflect", "ssim-components",
        "ssim-downsampled", "ms_ssim", "fsim", "dists"]  # fmt: skip


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("call", FREE)
def test_propagating_nan_reads_nothing_back(call: str, backend: str) -> None:
    name, side, options = CALLS[call]
    options = {**options, "nan": "propagate", "overshoot": "keep"}
    x, y = pair(side)
    x.requires_grad_()
    public(name)(x, y, **options, backend=backend)  # filters, windows and weights are made at the first call
    with NothingIsReadBack():
        total(public(name)(x, y, **options, backend=backend)).backward()


class NothingIsCopied(NothingIsReadBack):
    """Fails as well at a copy between host and device, which a CUDA graph cannot hold either."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_dispatch__(func, types, args, kwargs)
        places = {v.device.type for v in tree_leaves((args, kwargs, found)) if isinstance(v, torch.Tensor)}
        assert len(places) < 2, f"{func} copies between {places}"
        return found


@pytest.mark.parametrize("call", ["mse", "psnr", "ssim", "ssim-map", "ssim-downsampled", "ms_ssim", "fsim"])
def test_around_its_kernel_a_call_on_a_gpu_neither_waits_nor_copies(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks and the reduction of a call, on tensors of a GPU that is not there; the kernel is left out."""
    name, side, options = CALLS[call]

    def kernel(x: torch.Tensor, y: torch.Tensor, valid: Any, settings: Any = None) -> Any:
        rows = torch.empty((2, *x.shape[:2]), dtype=torch.float64, device=x.device)
        if name == "fsim":
            return kernels.fsim.Comparison(rows[0, :, 0], *[None] * 5)  # type: ignore[arg-type]
        if name in ("mse", "psnr"):
            return rows[0, :, 0], rows[1, :, 0]
        return kernels.ssim.SSIMRows(rows[0], rows[1], None, x.new_empty(x.shape) if settings.want_map else None, None)

    op = OF.get(name, name)
    contract(name)
    implementation = dataclasses.replace(registry._implementations[op]["reference"], run=kernel)
    monkeypatch.setitem(registry._implementations[op], "reference", implementation)
    with FakeTensorMode():
        x, y = (torch.empty((2, 1, side, side), device="cuda") for _ in range(2))
        with NothingIsCopied():
            found = public(name)(x, y, **options, nan="propagate", backend="reference")
    assert flat(found)["value"].device.type == "cuda"


@pytest.mark.parametrize("call", ["mse", "psnr", "ssim", "ms_ssim", "fsim", "dists"])
def test_refusing_nan_reads_the_score_back(call: str) -> None:
    name, side, options = CALLS[call]
    x, y = pair(side)
    public(name)(x, y, **options)
    with pytest.raises(AssertionError, match="reads the device back"), NothingIsReadBack():
        public(name)(x.requires_grad_(), y, **options)


@pytest.mark.parametrize("name", ["charbonnier", "ssim", "ms_ssim", "fsim", "dists"])
def test_a_loss_that_propagates_nan_reads_nothing_back(name: str) -> None:
    _, side = LOSSES[name]
    options = {"dists": {"weights": "random"}, "ms_ssim": {"window_size": 3}}.get(name, {})
    loss = losses.TERMS[name](1.0, nan="propagate", **options)
    x, y = pair(side)
    loss(x.requires_grad_(), y)
    with NothingIsReadBack():
        loss(x, y).backward()
