"""What only the compiled FSIM has: transforms of any length, threads, layouts, memory. Judge: the reference."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

import backends
import cases
from semnr_kernels import native_support, registry
from semnr_kernels.fsim import features, fsim, native, reference, similarity

pytestmark = pytest.mark.skipif(
    native_support.probe() is not None, reason=f"no native module: {native_support.probe()}"
)

FLOAT64, FLOAT32 = 1e-12, 1e-6  # of a score against the reference; measured 1e-15 and 3e-8


@pytest.fixture(params=registry.FORCED)
def forced(request: pytest.FixtureRequest) -> str:
    return backends.require("fsim", request.param)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def pair(height: int, width: int, images: int = 1, channels: int = 1, sigma: float = 0.08):
    made = [cases.noisy_pair(height, width, sigma, seed=11 * i) for i in range(images * channels)]
    return tuple(
        torch.from_numpy(np.stack([m[j] for m in made])).reshape(images, channels, height, width) for j in (0, 1)
    )


def agree(x, y, forced: str, **options) -> None:
    """Both precisions against the reference."""
    wanted = fsim(x, y, reduction="none", backend="reference", **options)
    for precision, bound in (("float64", FLOAT64), ("float32", FLOAT32)):
        found = fsim(x, y, reduction="none", backend=forced, precision=precision, **options)
        torch.testing.assert_close(found, wanted, rtol=0, atol=bound)


# --- transforms -----------------------------------------------------------------------------------------------


# powers of two; 3, 5, 7 and their powers; every other radix of the transforms; primes above them, by a chirp
LENGTHS = [
    48,
    49,
    50,
    51,
    52,
    53,
    54,
    55,
    57,
    58,
    59,
    62,
    63,
    64,
    69,
    74,
    81,
    82,
    86,
    94,
    96,
    97,
    121,
    125,
    127,
    128,
    251,
]


@pytest.mark.parametrize("length", LENGTHS)
def test_any_side_is_transformed_at_its_own_length(length: int) -> None:
    """Nothing is padded: both axes, whatever their factors, give the definition's value."""
    for size in ((length, 50), (50, length)):
        agree(*pair(*size), "native", data_range=1.0)


@pytest.mark.parametrize("size", [(64, 80), (53, 97), (75, 56)], ids=str)
def test_every_instruction_set_agrees(size: tuple[int, int], forced: str) -> None:
    agree(*pair(*size, images=3), forced, data_range=1.0)
    agree(*pair(*size, channels=3), forced, data_range=1.0)


def test_large_transforms_that_leave_the_cache(forced: str) -> None:
    agree(*pair(48, 2048), forced, data_range=1.0, downsample=1)
    agree(*pair(1021, 49), forced, data_range=1.0, downsample=1)


# --- the noise threshold --------------------------------------------------------------------------------------


def tied():
    """Images whose amplitudes are tied or bunched: the median is found by counting, not by sorting."""
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(96, 96, generator=generator, dtype=torch.float64)
    lines = torch.zeros(96, 96, dtype=torch.float64)
    lines[:, ::16] = 1
    half = torch.full((96, 96), 0.5, dtype=torch.float64)
    half[:, 60:] = texture[:, 60:]
    return {"periodic lines": lines, "four fifths flat": half, "two levels": (texture > 0.5).double()}


@pytest.mark.parametrize("name", list(tied()))
def test_the_median_is_exact_where_amplitudes_are_tied(name: str, forced: str) -> None:
    y = tied()[name]
    x = (y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).clamp(0, 1)
    agree(x, y, forced, data_range=1.0)


def test_a_pedestal_costs_float32_nothing(forced: str) -> None:
    """Mean 40,000 of 65,535, contrast 50: each plane is taken off its own first pixel before it is rounded."""
    x, y = (v * 50 + 40_000 for v in pair(64, 64))
    agree(*(v.round().to(torch.int32).to(torch.uint16) for v in (x, y)), forced, data_range=400)
    agree(x, y, forced, data_range=400)


def test_float32_on_one_box_in_an_empty_image(forced: str) -> None:
    """The worst image known: noise-free and nearly empty, its phase congruency there is that of the filters' far tails,
    a millionth of the box. piq in float32 errs by 2e-5 as well."""
    y = torch.full((256, 256), 0.3, dtype=torch.float64)
    y[100:108, 100:120] = 0.8
    x = y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = fsim(x, y, data_range=1.0, backend="reference").item()
    assert fsim(x, y, data_range=1.0, backend=forced).item() == pytest.approx(wanted, abs=5e-5)
    assert fsim(x, y, data_range=1.0, backend=forced, precision="float64").item() == pytest.approx(wanted, abs=1e-9)


# --- threads and forks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 2, 5])
def test_results_do_not_depend_on_the_number_of_threads(images: int, forced: str, threads) -> None:
    x, y = (v.float() for v in pair(70, 61, images))
    found = []
    for count in (1, 2, 3, 7):
        threads(count)
        leaf = x.clone().requires_grad_(True)
        value, plane = fsim(x, y, data_range=1.0, reduction="none", return_map=True, backend=forced)
        (gradient,) = torch.autograd.grad(fsim(leaf, y, data_range=1.0, backend=forced), leaf)
        found.append((value, plane, gradient))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_many_python_threads_may_call_at_once(threads) -> None:
    threads(2)
    pairs = [pair(64, 64 + i) for i in range(8)]
    wanted = [fsim(x, y, data_range=1.0) for x, y in pairs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda p: fsim(*p, data_range=1.0), pairs)) == wanted


class _Scored(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.pair = pair(64, 80)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> float:
        torch.set_num_threads(3)  # DataLoader workers start with one
        return float(fsim(*self.pair, data_range=1.0))


def test_a_forked_dataloader_worker_scores_after_the_parent_did(threads) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    threads(3)
    scored = _Scored()
    wanted = float(fsim(*scored.pair, data_range=1.0))
    loader = torch.utils.data.DataLoader(scored, num_workers=2, multiprocessing_context="fork", timeout=60)
    assert [float(v) for v in loader] == [wanted] * 2


# --- layouts and sizes ----------------------------------------------------------------------------------------

DTYPES = [torch.uint8, torch.uint16, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(
    height=st.integers(48, 90),
    width=st.integers(48, 90),
    images=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    factor=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
    turned=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape_layout_and_dtype(height, width, images, channels, factor, dtype, turned, seed) -> None:
    shape = (images, channels, height * factor + factor - 1, width * factor)
    rng = np.random.default_rng(seed)
    y = np.repeat(np.repeat(rng.random((*shape[:2], -(-shape[2] // 8), -(-shape[3] // 8))), 8, 2), 8, 3)
    y = y[:, :, : shape[2], : shape[3]] * 0.8 + 0.1 * rng.random(shape)
    x = np.clip(y + 0.05 * rng.standard_normal(shape), 0, 1)
    top = torch.iinfo(dtype).max if dtype in (torch.uint8, torch.uint16) else 1.0
    tensors = [torch.from_numpy(v * top) for v in (x, y)]
    x, y = (v.to(torch.int32).to(dtype) if top != 1.0 else v.to(dtype) for v in tensors)
    if turned:
        x, y = (v.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0) for v in (x, y))
    agree(x, y, "native", data_range=top, downsample=factor)


def test_an_expanded_reference_is_read_in_place(forced: str) -> None:
    x, y = pair(60, 64, images=3)
    agree(x, y[:1].expand(3, 1, 60, 64), forced, data_range=1.0)
    row = y[..., :1, :].expand(3, 1, 60, 64)
    agree(x, row, forced, data_range=1.0)


def test_features_may_be_strided_or_of_another_precision(forced: str) -> None:
    x, y = pair(60, 64, images=2, channels=3)
    fx, fy = (features(v, data_range=1.0, backend=forced) for v in (x, y))

    def turned(f):
        planes = (
            v.transpose(2, 3).contiguous().transpose(2, 3).double() for v in (f.phase_congruency, f.gradient, f.chroma)
        )
        return reference.Features(*planes, None, f.settings)

    wanted = similarity(fx, fy, backend=forced).rows
    assert torch.equal(similarity(turned(fx), turned(fy), backend=forced).rows, wanted)


def test_filter_tables_are_built_once_a_size_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    native._tables.clear()
    x, y = pair(64, 64)
    fsim(x, y, data_range=1.0, backend="native")
    (kept,) = native._tables.values()
    fsim(x, y, data_range=1.0, backend="native")
    assert list(native._tables.values()) == [kept]
    monkeypatch.setattr(native, "_CACHE_BYTES", kept.memory.nbytes)
    fsim(*pair(64, 60), data_range=1.0, backend="native")
    assert [t.size for t in native._tables.values()] == [(64, 60)]


def test_thresholds_rest_on_the_same_noise_gain_as_the_definition() -> None:
    p = reference.Filters(scales=3, orientations=5)
    for size in ((60, 64), (61, 64), (60, 63), (61, 63)):
        gains = native.tables(*size, p, False, None).gains
        assert gains == pytest.approx(reference._bank(*size, p, torch.device("cpu")).noise_gain, rel=1e-12)


def test_auto_takes_native_and_says_which(threads) -> None:
    x, y = pair(64, 64)
    for op in ("fsim", "fsim_features", "fsim_compare"):
        assert registry.explain(registry.Call.of(op, x, y)).chosen == "native"


# --- memory ---------------------------------------------------------------------------------------------------

_PEAK = """
import sys, torch
from pathlib import Path
from semnr_kernels.fsim import fsim
def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024
side = int(sys.argv[1])
torch.set_num_threads(1)
x, y = (torch.rand(1, 1, side, side) for _ in range(2))
fsim(x[..., :64, :64], y[..., :64, :64], data_range=1.0)  # what loads once is not counted
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
fsim(x, y, data_range=1.0, downsample=1)
print((status("VmHWM") - before) / (8 * side * side))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_a_pair_at_native_resolution_takes_at_most_fourteen_complex_planes() -> None:
    """Everything above the images: filters, spectrum, responses, planes of both images."""
    done = subprocess.run([sys.executable, "-c", _PEAK, "1024"], capture_output=True, text=True, check=True)
    assert 8 < float(done.stdout) <= 14
