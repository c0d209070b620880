"""How many times Triton compiles a kernel for images of 200 sizes: counted from recorded launches, nothing runs."""

from __future__ import annotations

import importlib.util
import random
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import torch

from semnr_kernels import pixel, registry
from semnr_kernels.fsim.reference import Settings as OfFSIM
from semnr_kernels.planes import Levelled
from semnr_kernels.ssim import Settings as OfSSIM

MOST = 4


def _gradient(x: torch.Tensor) -> None:
    leaf = x.clone().requires_grad_()
    registry._implementations["ssim"]["triton"].run(leaf, x, None, OfSSIM()).score.sum().backward()


def _laws(x: torch.Tensor) -> None:
    from semnr_kernels.noise import triton_kernel

    end = torch.zeros(1, dtype=torch.float64)
    triton_kernel.whitening(triton_kernel.laws([x[0, :, :50], x[0, :, 10:, ::2]], end, end, end).products)


def _transfer(x: torch.Tensor) -> None:
    from semnr_kernels import planes_triton
    from semnr_kernels.transfer import Settings, triton_kernel

    image = planes_triton.of(x)
    triton_kernel.rows(image, image, image, None, Settings())


CALLS: dict[str, Callable[[torch.Tensor], object]] = {
    "pixel": lambda x: registry._implementations["pixel"]["triton"].run(x, x, None),
    "ssim": lambda x: registry._implementations["ssim"]["triton"].run(x, x, None, OfSSIM()),
    "ssim and its gradient": _gradient,
    "fsim": lambda x: registry._implementations["fsim"]["triton"].run(x, x, None, OfFSIM()),
    "noise": _laws,
    "transfer": _transfer,
}
# FSIM is a sequence of ten kernels, the evidence of as many; the others are one or two, and the sum of their parts
BY_KERNEL = ("fsim", "ssim and its gradient", "noise", "transfer")


@pytest.mark.parametrize("name", CALLS)
def test_a_kernel_is_compiled_few_times_for_many_sizes(name: str) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    from semnr_kernels import triton_support

    if triton_support.interpreted():
        pytest.skip("TRITON_INTERPRET=1: launches are not recorded, they run")
    draw = random.Random(0)
    sizes = [(draw.randint(64, 300), draw.randint(64, 300)) for _ in range(200)]
    assert {h % 16 == 0 for h, _ in sizes} == {w % 16 == 0 for _, w in sizes} == {True, False}
    found: dict[str, set[str]] = defaultdict(set)
    for size in sizes:
        with triton_support.recording() as launches:
            CALLS[name](torch.zeros((1, 1, *size)))
        for one in launches:
            types, constants, attributes = triton_support.signature(one)
            told = (sorted(types.items()), sorted(map(str, constants.items())), sorted(map(str, attributes.items())))
            found[one.kernel.fn.__name__].add(repr(told))
    counts = {kernel: len(variants) for kernel, variants in found.items()}
    assert counts, pixel.__name__
    if name in BY_KERNEL:
        assert max(counts.values()) <= MOST, counts
    else:
        assert sum(counts.values()) <= MOST, counts


def test_a_kernel_of_the_evidence_is_compiled_few_times_for_many_sizes() -> None:
    """Ten sizes: their tables take a while."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    from semnr_kernels import triton_support

    if triton_support.interpreted():
        pytest.skip("TRITON_INTERPRET=1: launches are not recorded, they run")
    from semnr_kernels.changes import Settings as OfChanges
    from semnr_kernels.changes import triton_kernel as of_changes
    from semnr_kernels.residual import Law, Settings, on_device, triton_kernel

    draw = random.Random(0)
    found: dict[str, set[str]] = defaultdict(set)
    lines = on_device.lines_of([Law(1.0, 1.0, 1.0, np.ones(3))], torch.device("cpu"))
    for size in [(draw.randint(64, 300), draw.randint(64, 300)) for _ in range(10)]:
        tile = Levelled.of(torch.zeros((1, 1, *size)))
        with triton_support.recording() as launches:
            triton_kernel.rows(tile, tile, None, lines, Settings())
            of_changes.rows(tile, tile, tile, OfChanges(1.0), torch.ones((1, 3), dtype=torch.float64))
        for one in launches:
            types, constants, attributes = triton_support.signature(one)
            told = (sorted(types.items()), sorted(map(str, constants.items())), sorted(map(str, attributes.items())))
            found[one.kernel.fn.__name__].add(repr(told))
    counts = {kernel: len(variants) for kernel, variants in found.items()}
    assert max(counts.values()) <= MOST + 1, counts  # levels: for 64, 128, 256, ... blocks; select: of 1, 2, 3, 5 ranks
    assert sum(counts.values()) <= 2 * len(counts), counts
