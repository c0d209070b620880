"""Triton kernels: what the op suites do not ask, under the interpreter; and compilation for chips that are not here.

TRITON_INTERPRET=1 must be set before triton is first imported, so each half runs in a process of its own:
`TRITON_INTERPRET=1 pytest tests/kernels/test_triton.py tests/kernels/pixel tests/kernels/ssim -k triton` interprets,
`pytest tests/kernels/test_triton.py` compiles.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

import backends
import cases
import tolerances
from semnr_kernels import pixel, registry
from semnr_kernels.dists import dists
from semnr_kernels.dists.network import l2_pool
from semnr_kernels.ssim import ssim

INTERPRET = "triton-interpret"
AOT_SECONDS = 900
# The interpreter cuts float32 to bfloat16 where hardware rounds: up to one unit in the last place.
# (A sum of two gradients is cut twice.)
BFLOAT16_CUT = 2**-7


@pytest.fixture
def interpreter() -> str:
    return backends.require("pixel", INTERPRET)


@pytest.fixture
def compiler() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")


def random_pair(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(shape, generator=generator).to(dtype) for _ in range(2))  # type: ignore[return-value]


# --- the backend ----------------------------------------------------------------------------------------------


def test_importing_the_ops_does_not_import_triton() -> None:
    code = "import sys, semnr_kernels as k; k.pixel, k.ssim, k.dists; from semnr_kernels import registry\n"
    code += "assert 'triton-interpret' in registry.implementations('ssim')\nassert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=cases.REPOSITORY / "tests")


def test_triton_says_why_it_cannot_run_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    x, y = random_pair((16, 16), torch.float32)
    with pytest.raises(registry.BackendUnavailable, match=r"TRITON_INTERPRET=1|no CUDA or ROCm device"):
        ssim(x, y, data_range=1.0, backend="triton")


# --- pixel ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_pixel_gradients_equal_those_of_the_definition(interpreter: str, dtype: torch.dtype, masked: bool) -> None:
    found = []
    for backend in ("reference", interpreter):
        x, y = (v.transpose(2, 3).requires_grad_() for v in random_pair((2, 3, 20, 17), dtype))
        mask = torch.rand((2, 1, 17, 20), generator=torch.Generator().manual_seed(1)) > 0.3 if masked else None
        rows = pixel.mse(x, y, mask=mask, reduction="none", backend=backend)
        loss = (rows * torch.tensor([1.0, 2.0])).sum() + pixel.mae(x, y, mask=mask, backend=backend)
        found.append(torch.autograd.grad(loss, (x, y)))
    bound = 2 * BFLOAT16_CUT if dtype == torch.bfloat16 else tolerances.GRADIENT_RELATIVE
    for ours, exact in zip(found[1], found[0], strict=True):
        assert (ours.double() - exact.double()).abs().max() <= bound * exact.double().abs().max()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
def test_pixel_sums_of_many_programs_are_exact(interpreter: str, dtype: torch.dtype, monkeypatch) -> None:
    """The plan of a GPU: blocks of 2048 or 4096, several programs an image, masks and gaps in memory."""
    from semnr_kernels import triton_support

    monkeypatch.setattr(triton_support, "block", lambda on_device, interpreting: on_device)
    top = 1 if dtype == torch.float32 else torch.iinfo(dtype).max
    x, y = ((v * top).numpy() for v in random_pair((1, 2, 150, 262), torch.float32))
    kind = str(dtype).removeprefix("torch.")
    x, y = (torch.from_numpy(v.astype(kind))[..., ::2] for v in (x, y))
    mask = torch.rand((150, 131), generator=torch.Generator().manual_seed(1)) > 0.5
    for where in (None, mask):
        exact = pixel.mse(x, y, mask=where, backend="reference").item()
        got = pixel.mse(x, y, mask=where, backend=interpreter).item()
        assert got == (exact if dtype != torch.float32 else pytest.approx(exact, rel=tolerances.MSE_FLOAT_RELATIVE))


# --- ssim -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_the_long_walks_of_a_gpu_give_the_same_ssim(interpreter: str, masked: bool, monkeypatch) -> None:
    """Blocks of 256 lanes, two segments of 65 windows: the interpreter's own plan walks three."""
    from semnr_kernels import triton_support

    monkeypatch.setattr(triton_support, "block", lambda on_device, interpreting: on_device)
    x, y = random_pair((1, 1, 140, 40), torch.float32)
    mask = torch.rand((140, 40), generator=torch.Generator().manual_seed(1)) > 0.2 if masked else None
    exact, exact_map = ssim(x, y, data_range=1.0, mask=mask, return_map=True, backend="reference")
    got, got_map = ssim(x, y, data_range=1.0, mask=mask, return_map=True, backend=interpreter)
    assert abs(got - exact).item() <= tolerances.SSIM_MEAN
    torch.testing.assert_close(got_map, exact_map, rtol=0, atol=tolerances.SSIM_MAP, equal_nan=True)


def test_components_of_masked_colour_images_equal_the_definition(interpreter: str) -> None:
    x, y = random_pair((2, 2, 18, 21), torch.float32)
    mask = torch.rand((2, 1, 18, 21), generator=torch.Generator().manual_seed(1)) > 0.3
    options = {"data_range": 1.0, "mask": mask, "components": True, "reduction": "none", "border": "reflect"}
    exact = ssim(x, y, backend="reference", window_size=7, **options)
    got = ssim(x, y, backend=interpreter, window_size=7, **options)
    torch.testing.assert_close(got.value, exact.value, rtol=0, atol=1e-9)
    torch.testing.assert_close(got.coverage, exact.coverage, rtol=0, atol=1e-12)
    for name, value in exact.components.items():
        torch.testing.assert_close(got.components[name], value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("options", [{"border": "reflect"}, {"convention": "skimage"}, {"window_size": 1}], ids=str)
def test_gradients_through_map_and_rows_equal_the_definition(interpreter: str, options: dict) -> None:
    found = []
    for backend in ("reference", interpreter):
        x, y = ((v * 200 + 40000).transpose(2, 3).requires_grad_() for v in random_pair((1, 2, 23, 19), torch.float32))
        value, ssim_map = ssim(x, y, data_range=400.0, return_map=True, backend=backend, **options)
        slopes = torch.linspace(0, 1, ssim_map.numel(), dtype=torch.float64).reshape(ssim_map.shape)
        found.append(torch.autograd.grad(value + (ssim_map * slopes).sum(), (x, y)))
    for ours, exact in zip(found[1], found[0], strict=True):
        assert (ours - exact).abs().max() <= tolerances.GRADIENT_RELATIVE * exact.abs().max()


def test_a_gradient_of_the_gradient_goes_through_the_definition(interpreter: str) -> None:
    x, y = random_pair((1, 1, 12, 13), torch.float64)
    twice = []
    for backend in ("reference", interpreter):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(ssim(leaf, y, data_range=1.0, backend=backend), leaf, create_graph=True)
        twice.append(torch.autograd.grad((first * first).sum(), leaf)[0])
    torch.testing.assert_close(twice[1], twice[0], rtol=1e-9, atol=0)


def test_a_window_that_does_not_fit_the_registers_is_refused(interpreter: str) -> None:
    x, y = random_pair((40, 40), torch.float32)
    with pytest.raises(registry.BackendUnavailable, match="keeps no window of 27 with 4 float32 sums"):
        ssim(x, y, data_range=1.0, window_size=27, backend=interpreter)
    with pytest.raises(registry.BackendUnavailable, match="keeps no window of 17 with 4 float64 sums"):
        ssim(x, y, data_range=1.0, window_size=17, precision="float64", backend=interpreter)


# --- dists ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dists_and_its_gradient_equal_the_definition(interpreter: str, dtype: torch.dtype, masked: bool) -> None:
    noisy, clean = (torch.from_numpy(v)[None, None].to(dtype) for v in cases.noisy_pair(33, 40))
    mask = torch.rand((33, 40), generator=torch.Generator().manual_seed(1)) > 0.2 if masked else None
    found = []
    for backend in ("reference", interpreter):
        x = noisy.clone().requires_grad_()
        value = dists(x, clean, data_range=1.0, weights="random", mask=mask, backend=backend)
        found.append((value.detach(), *torch.autograd.grad(value, x)))
    (exact, exact_gradient), (got, gradient) = found
    # convolutions in float32 are other kernels of another processor: 1.03e-7 with AVX2, less with AVX-512
    assert abs(got - exact).item() <= (2e-7 if dtype == torch.float32 else 1e-9)
    # float32 networks agree to rounding; see test_dists on ReLUs near 0
    assert (gradient - exact_gradient).abs().max() <= 3e-4 * exact_gradient.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_one_pass_statistics_equal_two_pass_moments(interpreter: str, dtype: torch.dtype) -> None:
    from semnr_kernels.dists.triton_kernel import statistics

    for shape in ((2, 3, 33, 20), (1, 70, 7, 5)):
        x, y = random_pair(shape, dtype)
        share = random_pair((shape[0], 1, *shape[2:]), torch.float32)[0]
        a, b, w = x.double(), y.double(), share.double()
        w = w / w.sum(dim=(2, 3), keepdim=True)
        mean_a, mean_b = ((v * w).sum(dim=(2, 3), keepdim=True) for v in (a, b))
        da, db = a - mean_a, b - mean_b
        exact = [mean_a[..., 0, 0], mean_b[..., 0, 0], *((w * p).sum(dim=(2, 3)) for p in (da * da, db * db, da * db))]
        torch.testing.assert_close(statistics(x, y, share), torch.stack(exact), rtol=0, atol=1e-14)


def test_a_small_variance_of_a_map_on_a_large_mean_keeps_its_digits(interpreter: str) -> None:
    from semnr_kernels.dists.triton_kernel import statistics

    x, y = (v * 0.05 + 6e4 for v in random_pair((1, 2, 40, 40), torch.float32))
    exact = [v.double().var(dim=(2, 3), correction=0) for v in (x, y)]
    torch.testing.assert_close(statistics(x, y)[2:4], torch.stack(exact), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_l2_pooling_and_its_gradient_equal_the_definition(interpreter: str, dtype: torch.dtype) -> None:
    from semnr_kernels.dists.triton_kernel import l2_pool as ours

    work = torch.float64 if dtype == torch.float64 else torch.float32
    h = random_pair((2, 5, 9, 12), dtype)[0].requires_grad_()
    exact, got = l2_pool(h, work), ours(h, work)
    gradients = [torch.autograd.grad(v, h, torch.ones_like(v))[0].double() for v in (exact, got)]
    unit = {torch.float16: 2**-10, torch.bfloat16: BFLOAT16_CUT}.get(dtype, 1e-6)
    torch.testing.assert_close(got, exact, rtol=unit, atol=0)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=unit, atol=0)


def test_dists_on_triton_splits_a_batch_like_the_reference(interpreter: str) -> None:
    noisy, clean = (torch.from_numpy(v)[None, None].float() for v in cases.noisy_pair(32, 32))
    x, y = noisy.expand(2, -1, -1, -1), clean.expand(2, -1, -1, -1)
    rows = dists(x, y, data_range=1.0, weights="random", reduction="none", backend=interpreter, memory_budget=1)
    exact = dists(noisy, clean, data_range=1.0, weights="random", backend="reference").item()
    assert rows.tolist() == pytest.approx([exact] * 2, abs=1e-7)


# --- ahead of time --------------------------------------------------------------------------------------------


@pytest.mark.timeout(AOT_SECONDS + 20)
def test_every_kernel_compiles_for_a_chip_of_each_maker_without_a_spill(compiler: None) -> None:
    """In a process of its own: one that interprets cannot compile. The recorded figures of these chips hold where the
    compilers are the recorded ones. All chips take minutes: `python benchmarks/static/aot_table.py --check`."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    code = "import json, aot_table as t; chips = ('sm_90', 'gfx942'); table = t.build(targets=chips)\n"
    code += "kept = t.stored()\n"
    code += (
        "made = [k for k in kept['kernels'] if k['kernel'].startswith('cuda ') or k['target'] in ('sm_90', 'gfx942')]\n"
    )
    code += "kept['kernels'] = made  # the compiled module's kernels are for all chips\n"
    code += "print(json.dumps({'table': table, 'problems': t.problems(table, kept)}))"
    environment["PYTHONPATH"] = str(cases.REPOSITORY / "benchmarks" / "static")
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=cases.REPOSITORY / "tests",
        capture_output=True,
        text=True,
        timeout=AOT_SECONDS,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    answer = json.loads(run.stdout.splitlines()[-1])
    kernels = [k for k in answer["table"]["kernels"] if not k["kernel"].startswith("cuda ")]
    assert {k["target"] for k in kernels} == {"sm_90", "gfx942"}
    assert {k["kernel"].split()[0] for k in kernels} >= {"pixel", "fold", "ssim", "dists"}
    assert all(k["binary"] > 1000 and k["registers"] > 0 for k in kernels)
    assert answer["problems"] == []
