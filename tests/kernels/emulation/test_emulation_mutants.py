"""The emulation must fail the real kernels as soon as they go wrong: a copy of the SSIM kernels is built in which each
barrier can be left out and each bound moved by one, one at a time."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import emulated
import pytest
import torch

from semnr_kernels import cuda_support, registry
from semnr_kernels.ssim import Settings, rows, ssim

FOLDER = emulated.STORE / "mutants"  # not a temporary one: objects are kept while the sources stay the same
# Bounds of the kernels' reads: each becomes one too far.
BOUNDS = (
    ("ssim_strip.cuh", "strip_.rows + kReach - first"),  # rows of pixels that a strip has left
    ("ssim_strip.cuh", "column < strip_.columns + kReach"),  # columns of pixels
)
GENERATOR = torch.Generator().manual_seed(0)
# Strips side by side and one above the other, eight rows at a time and a rest, the last columns of the last image too.
X, Y = (torch.rand((2, 1, 61, 280), generator=GENERATOR) for _ in range(2))
MASK = torch.rand(X.shape, generator=GENERATOR) > 0.1


def mutants() -> dict[int, str]:
    """Write the copy; number -> the place that it switches."""
    source = emulated.CSRC / "ssim"
    (FOLDER / "ssim").mkdir(parents=True, exist_ok=True)
    for entry in emulated.CSRC.iterdir():
        if entry.name != "ssim":
            with contextlib.suppress(FileExistsError):  # another worker may be at it
                (FOLDER / entry.name).symlink_to(entry)
    places: dict[int, str] = {}

    def number(path: Path, text: str, at: int) -> int:
        places[len(places) + 1] = f"{path.name}:{text.count(chr(10), 0, at) + 1}"
        return len(places)

    for path in sorted(source.iterdir()):
        text = path.read_text()
        if path.suffix == ".cuh":

            def left_out(found: re.Match[str], path: Path = path, text: str = text) -> str:
                which = number(path, text, found.start())
                return f"if (::semnr::emulation::mutation() != {which}) __syncthreads();"

            changed = re.sub(r"__syncthreads\(\);", left_out, text)
            for name, bound in BOUNDS:
                if name == path.name:
                    which = number(path, text, text.index(bound))
                    changed = changed.replace(bound, f"{bound} + int(::semnr::emulation::mutation() == {which})")
            text = changed
        copy = FOLDER / "ssim" / path.name
        if not copy.is_file() or copy.read_text() != text:
            new = copy.with_suffix(f".{os.getpid()}")
            new.write_text(text)
            new.replace(copy)
    return places


PLACES = mutants() if emulated.CSRC.is_dir() and "ssim" in emulated.ops() else {}


@pytest.fixture(scope="module")
def host() -> Iterator[ModuleType]:
    if not PLACES:
        pytest.skip("the source tree is absent")
    try:
        path = emulated.build([], [FOLDER / "ssim" / "ssim_cuda.cu", FOLDER / "ssim" / "ssim_cuda_bind.cpp"])
    except emulated.CannotBuild as error:
        if emulated.wanted() or "no C++ compiler" not in str(error):
            raise
        pytest.skip(str(error))
    assert path is not None
    kept = list(cuda_support._emulated)
    cuda_support.use_emulated(path)
    registry._probe.cache_clear()
    yield cuda_support.module(True)
    cuda_support._emulated[:] = kept
    registry._probe.cache_clear()


def forward() -> None:
    ssim(X, Y, data_range=1.0, backend="cuda-emulated")


def backward() -> None:
    ssim(X.clone().requires_grad_(), Y, data_range=1.0, backend="cuda-emulated").backward()


def masked() -> None:
    ssim(X, Y, data_range=1.0, mask=MASK, backend="cuda-emulated")


def backward_in_float64() -> None:
    x = X.clone().requires_grad_()
    ssim(x, Y, data_range=1.0, precision="float64", backend="cuda-emulated").backward()


def apart() -> None:
    found = rows(X.clone().requires_grad_(), Y, Settings(want_apart=True), backend="cuda-emulated")
    (found.absolute - found.score).sum().backward()  # type: ignore[operator]


CALLS = (forward, backward, masked, backward_in_float64, apart)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_the_unchanged_copy_runs_clean(host: ModuleType, call) -> None:  # type: ignore[no-untyped-def]
    host.mutate(0)
    call()


@pytest.mark.parametrize("which", PLACES, ids=PLACES.get)
def test_a_barrier_left_out_or_a_bound_moved_by_one_is_found(host: ModuleType, which: int) -> None:
    host.mutate(which)
    found = []
    for call in CALLS:
        try:
            call()
        except cuda_support.EmulationError as error:
            found.append(str(error))
    host.mutate(0)
    assert found, f"{PLACES[which]} may be changed and nothing notices"
    assert "ssim_" in found[0]
