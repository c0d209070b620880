"""The CUDA kernels' jobs that the cost tables count: what runs, on what, and what the job cannot do without.

Each job goes through the op's own public contract, on the emulation.
"""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

import disassembly
import emulated

from semnr_kernels import cuda_support, native_support
from semnr_kernels.cnr.reference import WHOLE, Settings
from semnr_kernels.errors import BackendUnavailable
from semnr_kernels.ssim import cuda as ssim_cuda

MULTIPROCESSORS = 132  # of an H100; each should have two blocks
LARGE, SMALL = (4, 1, 4096, 4096), (16, 1, 512, 512)
BACKEND = "cuda-emulated"
Run = Callable[[torch.Tensor, torch.Tensor], object]


@dataclass(frozen=True)
class Job:
    """One call that is counted."""

    name: str
    op: str  # whose kernels it needs
    run: Run
    floor: Callable[[torch.Tensor], int]  # bytes of device memory that every such job moves, from one of two images
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.uint8)
    # what was asked of the kernel; None: no bar
    bytes_bar: float | None = None  # device memory over the floor
    words_bar: float | None = None  # 4-byte shared accesses a pixel


def _pixel(x: torch.Tensor, y: torch.Tensor, **options: object) -> object:
    from semnr_kernels.pixel import mse

    return mse(x, y, data_range=255.0, nan="propagate", backend=BACKEND, **options)


def _ssim(x: torch.Tensor, y: torch.Tensor, **options: object) -> object:
    from semnr_kernels.ssim import ssim

    return ssim(x, y, data_range=255.0, nan="propagate", backend=BACKEND, **options)


def _ssim_backward(x: torch.Tensor, y: torch.Tensor, **options: object) -> object:
    leaf = x.detach().requires_grad_()
    with cuda_support.recording():  # aside: the forward pass is a job of its own
        score: Any = _ssim(leaf, y, **options)
    score.backward()
    return leaf.grad


def _l1_ssim(x: torch.Tensor, y: torch.Tensor) -> Any:
    from semnr_kernels.ssim import Settings, rows

    return rows(x, y, Settings(data_range=255.0, want_apart=True), backend=BACKEND)


def _l1_ssim_backward(x: torch.Tensor, y: torch.Tensor) -> object:
    leaf = x.detach().requires_grad_()
    with cuda_support.recording():
        found = _l1_ssim(leaf, y)
    (found.absolute - found.score).sum().backward()
    return leaf.grad


def _moments(settings: Settings = WHOLE) -> Run:
    """CNR's moments of two regions, whose masks are the images' size."""

    def run(x: torch.Tensor, y: torch.Tensor) -> object:
        from semnr_kernels.cnr.cuda import of_regions

        regions = (torch.zeros(x.shape, dtype=torch.bool) for _ in range(2))
        return of_regions(x, *regions, settings=settings, emulated=True)

    return run


def _together(x: torch.Tensor, y: torch.Tensor) -> object:
    """PSNR, SSIM and the moments of two regions from one read of the pixels."""
    from semnr_kernels.profile.cuda import scores
    from semnr_kernels.ssim import Settings as OfSSIM

    regions = (torch.zeros(x.shape, dtype=torch.bool) for _ in range(2))
    return scores(x, y, *regions, OfSSIM(data_range=255.0), emulated=True)


def _histogram(x: torch.Tensor, y: torch.Tensor) -> object:
    from semnr_kernels.cnr.cuda import histogram

    edges = torch.linspace(-1, 1, 257, dtype=torch.float64)
    return histogram(x.flatten().double(), edges, emulated=True)


def _images(count: int) -> Callable[[torch.Tensor], int]:
    return lambda x: count * x.numel() * x.element_size()


def _images_and_masks(count: int) -> Callable[[torch.Tensor], int]:
    return lambda x: x.numel() * (count * x.element_size() + 2)


FLOATS = (torch.float32,)
JOBS = (
    Job("pixel errors", "pixel", _pixel, _images(2)),
    Job("SSIM forward", "ssim", _ssim, _images(2), bytes_bar=1.25, words_bar=28),
    # the gradient of x alone: two images read, one written
    Job("SSIM backward", "ssim", _ssim_backward, _images(3), FLOATS, bytes_bar=1.6, words_bar=70),
    Job("CNR, two regions", "cnr", _moments(), _images_and_masks(1)),
    Job("CNR map 64, 32", "cnr", _moments(Settings((64, 64), (32, 32))), _images_and_masks(1)),
    Job("PSNR, SSIM, CNR", "profile", _together, _images_and_masks(2)),
    Job("histogram, 256 bins", "cnr", _histogram, _images(1), (torch.float64,)),
)


def _other_calls() -> Iterator[tuple[str, Run]]:
    """Calls beside the jobs' that launch other kernels, or the same with other templates: op, call."""
    yield "pixel", lambda x, y: _pixel(x, y, mask=torch.ones_like(x, dtype=torch.bool))
    yield "cnr", _moments(Settings((64, 64), (8, 8)))
    for run in (_ssim, _ssim_backward):
        for options in ({}, {"window_size": 7}, {"border": "reflect"}, {"window_size": 9}, {"precision": "float64"}):
            yield "ssim", functools.partial(run, **options)
    yield "ssim", lambda x, y: _ssim(x, y, mask=torch.ones_like(x, dtype=torch.bool))
    yield "ssim", _l1_ssim  # counted, against their bars, by tests/kernels/ssim/test_ssim_cuda.py
    yield "ssim", _l1_ssim_backward


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images that occupy addresses and, as long as nothing writes them, no memory."""
    x, y = (torch.zeros(shape, dtype=dtype) for _ in range(2))
    return x, y


def provide() -> None:
    """The emulated module, built where it must be."""
    path = emulated.build()
    if path is None:
        raise emulated.CannotBuild("no emulated module")
    cuda_support.use_emulated(path)
    ssim_cuda._EMULATED_SLOTS = 2 * MULTIPROCESSORS  # the grid of such a device, not one that is quick to emulate


def count(job: Job, shape: tuple[int, ...], dtype: torch.dtype) -> list[cuda_support.Emulated]:
    """Run the job's whole grid for its counters; races and contents are the test suites' business."""
    module = cuda_support.module(True)
    module.checking(False)
    try:
        with cuda_support.recording() as found:
            job.run(*inputs(shape, dtype))
    finally:
        module.checking(True)
    return found


# --- kernels by name ------------------------------------------------------------------------------------------


def demangle(*names: str) -> str:
    """As c++filt, which comes with the compiler, has it."""
    done = subprocess.run(["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True)
    return done.stdout.strip()


def short(name: str) -> str:
    """`void semnr::(anonymous namespace)::f<int, 4>(int)` is `f<int, 4>`, with nvcc as with g++."""
    name = re.sub(r"\(anonymous namespace\)::|semnr::|_GLOBAL__N_\w*::", "", name)
    return name.split("(")[0].removeprefix("void ").strip()


def launched() -> dict[str, dict]:
    """Kernel -> threads and dynamic shared memory of its blocks, from small runs of every job in every dtype."""
    provide()
    module = cuda_support.module(True)
    listed = subprocess.run(
        ["nm", "--demangle", "--defined-only", str(module.__file__)], check=True, capture_output=True, text=True
    ).stdout
    symbols = {int(line.split(" ", 2)[0], 16): line.split(" ", 2)[2] for line in listed.splitlines()}
    found: dict[str, dict] = {}
    calls = [(job.op, job.run) for job in JOBS] + list(_other_calls())
    for op, run in calls:
        if op in emulated.ops():
            for dtype, cut in itertools.product(
                native_support.DTYPE_CODES, (slice(0, 128), slice(0, 125), slice(0, 128, 2))
            ):
                for launch in _small(run, dtype, cut):
                    x, y, z = launch["block"]
                    name = short(symbols[launch["function"]])
                    found[name] = {"threads": x * y * z, "shared_bytes": launch["shared_bytes"]}
    return found


def _small(run: Run, dtype: torch.dtype, columns: slice) -> list[dict]:
    """Launches of a call on a small image; none where the op refuses it."""
    x, y = (image[..., columns] for image in inputs((1, 1, 128, 128), dtype))
    with cuda_support.recording() as found:
        try:
            run(x, y)
        except (BackendUnavailable, ValueError, TypeError, RuntimeError):
            if found:
                raise
    return [launch for one in found for launch in one.launches]


# Pixels that a thread takes in one pass of the hot loop, where its loads do not tell: by the kernel's base name, from
# its template's arguments.
PIXELS: dict[str, Callable[..., float]] = {
    "ssim_forward": lambda *arguments: 8,  # eight rows of a column, a column a thread
    "ssim_apart_forward": lambda *arguments: 8,
    # eight rows of the columns of gradients that 128 columns of windows reach in full
    "ssim_backward": lambda dtype, size, *flags: 8 * (128 - (int(size) - 1 + 7) // 8 * 8) / 128,
    "ssim_apart_backward": lambda dtype, size, *flags: 8 * (128 - (int(size) - 1 + 7) // 8 * 8) / 128,
}
BYTES = {"unsigned char": 1, "unsigned short": 2, "Half": 2, "BFloat": 2, "float": 4, "double": 8}


def pixels(name: str, code: disassembly.Code) -> float | None:
    """Pixels of one pass, None where nothing tells."""
    base, _, rest = name.partition("<")
    arguments = [a.strip() for a in rest.rstrip(">").split(",")]
    if base in PIXELS:
        return PIXELS[base](*arguments)
    if base in STREAMS and arguments[0] in BYTES and code.loaded:
        return code.loaded / STREAMS[base](BYTES[arguments[0]], *arguments[1:])
    return None


# Kernels that load every pixel once: bytes of a pixel, from the element's size and the template's other arguments.
STREAMS: dict[str, Callable[..., int]] = {
    "pixel_sums": lambda size, pack, *flags: 2 * size + (1 if flags[-1] == "true" else 0),
}
