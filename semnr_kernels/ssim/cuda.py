"""SSIM in CUDA C++: both images read once, the gradient in one launch, nothing of image size kept in between.

Windows of 7 and 11 with float32 moments take the fast kernels; float64 moments, masks, components and other windows the
general ones, which are simple and slow. The arithmetic and what it costs are in README.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from .. import cuda_support, native_support
from ..device import shared_memory
from ..registry import Call, refusal, small_memory
from . import autograd, float32_window
from .reference import SSIMRows
from .settings import Settings

# csrc/ssim/ssim_cuda.hpp
_FAST = (7, 11)
_THREADS = (256, 128)  # of a forward block: columns of windows
_BACKWARD_THREADS = 128
_GENERAL_COLUMNS = 32
_GENERAL_SIZE = 47
_GENERAL_BATCH = 4  # rows of pixels between barriers
_GENERAL_SUMS = 7  # float64 a thread
_BATCH = 8  # rows between barriers: a block's rows of pixels are a multiple where they can be
_UNIT = 8  # rows of windows that a forward block takes or leaves as a whole
_AHEAD = 2  # batches of rows that a forward block reads before its first windows are complete
_MOST_UNITS = 1024  # of a forward block: the sums of 8,192 rows are exact (csrc/ssim/ssim_kernel.cuh)
_WAVES = 16  # at most that a plan considers
_BACKWARD_ROWS = (128, 512)  # pixels, a backward block
_GENERAL_ROWS = 64
# The fast kernels work with the window over its first weight; beyond this its squares leave float32.
_FIRST_WEIGHT = 1e-7
_APART_SIZE = 11  # window of the kernels that measure |x − y| too
_APART_BYTES = 73_840  # shared memory of a block of theirs, at most


class Plan(NamedTuple):
    """How the other kernels deal a plane to blocks, fixed by the image's size alone."""

    threads: int
    strips: int  # side by side
    segments: int  # one above the other
    rows: int  # of a segment

    @property
    def blocks(self) -> int:
        return self.strips * self.segments


def _large_window(call: Call) -> str | None:
    size = call.setting("window_size", 0)
    too_large = size > _GENERAL_SIZE
    return f"keeps no window of {size} in shared memory, at most {_GENERAL_SIZE}" if too_large else None


def _large_image(call: Call) -> str | None:
    too_large = call.shape[2] * call.shape[3] >= 2**31
    return "takes images below 2**31 pixels a channel" if too_large else None


def _large_batch(call: Call) -> str | None:
    blocks = call.shape[0] * call.shape[1] * -(-call.shape[2] // 32) * -(-call.shape[3] // 32)
    return "takes batches below 2**41 pixels" if blocks >= 2**31 else None


def general_bytes(settings: Settings, masked: bool, gradient: bool) -> int:
    """Shared memory that a block of the general kernels asks for, at most, for settings as `for_images` gives them.

    csrc/ssim/ssim_general_kernel.cuh, GeneralShared: a few rows of lines of pixels, the ring of moments of the block's
    columns, and in the same place, at the end, the threads' sums.
    """
    size, one = settings.window_size, 8 if settings.double else 4
    asked = [(one, 3, 6) if masked or settings.want_components else (one, 2, 4)]
    if gradient:
        asked = [(8, 2, 4), (8, 4, 4)]  # the windows' fields, and their sums over each pixel's windows
    line, ring = _GENERAL_COLUMNS + size - 1, (size + _GENERAL_BATCH - 1) * _GENERAL_COLUMNS
    sums = _GENERAL_BATCH * _GENERAL_COLUMNS * _GENERAL_SUMS * 8
    return max(sums, *(one * (_GENERAL_BATCH * lines * line + ring * moments) for one, lines, moments in asked))


def _small_memory(call: Call) -> str | None:
    if call.settings is None:
        return None
    s = call.settings.for_images(call.dtype, call.masked)
    return None if _is_fast(s) else small_memory(call, general_bytes(s, call.masked, call.needs_grad))


UNSUPPORTED = (*autograd.UNSUPPORTED, _large_window, _large_image, _large_batch, _small_memory)


def supports(call: Call) -> str | None:
    """Any layout and dtype, odd windows up to 47; gradients without masks and components."""
    return refusal(UNSUPPORTED, call)


def ssim(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Settings, *, emulated: bool = False
) -> SSIMRows:
    """As `reference.ssim`."""
    kernels = autograd.Kernels(
        lambda a, b, valid, s: _forward(a, b, valid, s, emulated),
        lambda a, b, s, by_rows, by_map, wanted: _backward(a, b, s, by_rows, by_map, wanted, emulated),
        lambda s: valid is None and not s.reflect and _is_fast(s) and _measures_apart(len(s.taps), x.device),
    )
    return autograd.run(kernels, x, y, valid, s)


def _measures_apart(size: int, device: torch.device) -> bool:
    return size == _APART_SIZE and (device.type != "cuda" or shared_memory(device) >= _APART_BYTES)


class Walk(NamedTuple):
    """How the forward kernel deals the planes of a batch to blocks: the strips' width follows from the image's size
    alone, the number of blocks from the batch and the device. No bit of a score depends on the latter.
    """

    threads: int
    strips: int  # side by side in a plane
    blocks: int  # in the grid; every strip has one at least


def slots(device: torch.device) -> int:
    """Blocks of the forward kernel that the device holds at once. The emulation says few: its time is the host's."""
    return _slots(device.index) if device.type == "cuda" else _EMULATED_SLOTS


_EMULATED_SLOTS = 6


@functools.cache
def _slots(index: int | None) -> int:
    properties: Any = torch.cuda.get_device_properties(index)
    memory = getattr(properties, "shared_memory_per_multiprocessor", 2**30)
    return int(properties.multi_processor_count) * (2 if memory >= 2 * _FORWARD_BYTES else 1)


_FORWARD_BYTES = 59 * 1024  # of a block of 256 threads, with what the system takes of it


@dataclass
class Plain:
    """Launches for contiguous images of one shape and dtype, with one set of options: the short path."""

    told: tuple[Any, ...]  # what the compiled module's SsimPlain is made of (csrc/ssim/ssim_cuda_bind.cpp)
    images: int
    planes: int
    blocks: int
    extent_blocks: int  # 0: the pixels cannot lie too far apart for float32 moments
    apart: bool  # whether the loss has a term of |x − y|: the forward kernel then measures the extents too
    limit: float  # or they do where the range of either image exceeds this
    settings: Settings
    weights: tuple[float, float]  # in the loss: of 1 − mean score, of mean |x − y|
    emulated: bool
    _passes: Any = None

    def passes(self, module: Any) -> Any:
        if self._passes is None:
            self._passes = module.SsimPlain(*self.told)
        return self._passes


def plain(
    dtype: torch.dtype,
    shape: tuple[int, ...],
    s: Settings,
    limit: float | None,
    weights: tuple[float, float],
    device: torch.device,
    emulated: bool,
) -> Plain | None:
    """None where another path has to take such images.

    limit: of the pixels' range; None: nobody needs to look. weights: of 1 − mean score and of mean |x − y| in the loss.
    """
    h, w = shape[-2:]
    images, planes = shape[0] if len(shape) == 4 else 1, math.prod(shape[:-2])
    size = len(s.taps)
    fast = _is_fast(s) and not (s.want_map or s.want_components or s.reflect) and s.downsample == 1
    known = dtype in native_support.DTYPE_CODES and dtype != torch.float64
    if not (fast and known) or min(h, w) < size or max(h * w, planes * h * w // 2**10) >= 2**31:
        return None
    if (apart := weights[1] != 0) and not _measures_apart(size, device):
        return None
    walk = forward_plan(planes, h - size + 1, w - size + 1, size, slots(device))
    told = (
        native_support.DTYPE_CODES[dtype],
        (images, planes // images, h, w),
        float32_window.over_first(s.taps),
        s.constants,
        walk,
        backward_plan(h, w, size)[:4],
        weights,
    )
    extent = 0 if limit is None else walk.blocks if apart else min(_EXTENT_BLOCKS, -(-planes * h * w // 4096))
    most = math.inf if limit is None else limit
    return Plain(told, images, planes, walk.blocks, extent, apart, most, s, weights, emulated)


_EXTENT_BLOCKS = 1056


def plain_scores(
    p: Plain, x: torch.Tensor, y: torch.Tensor, by_plane: bool, loss: bool
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """What csrc calls told (2,): the mean score and the pixels' range. Where they are asked for: the scores and the
    means of contrast·structure, (2, planes), and the loss as float32.
    """
    device = x.device
    told = torch.empty(2, dtype=torch.float64, device=device)
    rows = torch.empty((2, p.planes), dtype=torch.float64, device=device) if by_plane else None
    value = torch.empty((), dtype=torch.float32, device=device) if loss else None
    # two float64 a block and, of the same size, four float32 a block of the extents; with |x − y|, two float64 a block
    # and a plane of it; the rows where nobody asked for them
    blocks, extents = 2 * p.blocks, 2 * (p.blocks if p.apart else p.extent_blocks)
    apart = 2 * (p.blocks + p.planes) if p.apart else 0
    size = blocks + extents + apart
    scratch = torch.empty(size + (0 if by_plane else 2 * p.planes), dtype=torch.float64, device=device)
    at = scratch.data_ptr()
    beside = at + 8 * (blocks + extents)
    with cuda_support.launching(p.emulated, device, (x, y), (scratch, told, rows, value)) as (module, stream):
        p.passes(module).forward(
            x.data_ptr(),
            y.data_ptr(),
            at,
            at + 8 * size if rows is None else rows.data_ptr(),
            told.data_ptr(),
            0 if value is None else value.data_ptr(),
            (beside, at + 8 * blocks, beside + 8 * blocks) if p.apart else (0, at + 8 * blocks, 0),
            p.extent_blocks,
            stream,
        )
    return told, rows, value


def plain_gradient(
    p: Plain, x: torch.Tensor, y: torch.Tensor, slope: torch.Tensor, wanted: Sequence[bool]
) -> list[torch.Tensor | None]:
    """Of the loss that `plain_scores` gave, by x and y; slope: its own, float32."""
    out = [torch.empty_like(x) if w else None for w in wanted]
    with cuda_support.launching(p.emulated, x.device, (x, y, slope), out) as (module, stream):
        p.passes(module).backward(
            x.data_ptr(), y.data_ptr(), slope.data_ptr(), _address(out[0]), _address(out[1]), stream
        )
    return out


def forward_plan(planes: int, down: int, across: int, size: int, slots: int) -> Walk:
    """Of `planes` times `down` x `across` windows, for a device that holds `slots` blocks at once.

    Among whole waves of blocks the one whose longest blocks, one after another, walk the fewest batches of rows.
    """
    width, strips, units = _strips(down, across, size)
    all_strips = planes * strips
    fewest = all_strips * -(-units // _MOST_UNITS)

    def batches(blocks: int) -> tuple[int, bool, int]:
        waves, least = -(-blocks // slots), blocks // all_strips
        return waves * (-(-units // least) + _AHEAD), blocks < slots, blocks

    whole = [w * slots for w in range(-(-fewest // slots), _WAVES + 1) if w * slots <= all_strips * units]
    each = (*range(1, 5), slots // all_strips, units)
    even = [all_strips * k for k in each if fewest <= all_strips * k <= all_strips * units]
    return Walk(width, strips, min([*whole, *even, fewest], key=batches))


def even_walk(planes: int, down: int, across: int, size: int, slots: int) -> tuple[Walk, int]:
    """As `forward_plan`, with as many blocks for each strip; and how many."""
    width, strips, units = _strips(down, across, size)
    parts = max(-(-units // _MOST_UNITS), min(units, slots // (planes * strips)), 1)
    return Walk(width, strips, planes * strips * parts), parts


def _strips(down: int, across: int, size: int) -> tuple[int, int, int]:
    """Threads of a block, strips of a plane and units of rows of a strip."""
    width = min(_THREADS, key=lambda t: -(-across // t) * (t + 2 * size))
    return width, -(-across // width), -(-down // _UNIT)


def backward_plan(height: int, width: int, size: int) -> Plan:
    """Of `height` x `width` pixels: what a block writes is narrower than it by the window, rounded up to eight."""
    columns = _BACKWARD_THREADS - -(-(size - 1) // 8) * 8
    return Plan(
        _BACKWARD_THREADS, -(-width // columns), *_segments(height, 2 * (size - 1), height // 8, _BACKWARD_ROWS)
    )


def general_plan(down: int, across: int) -> Plan:
    return Plan(_GENERAL_COLUMNS, -(-across // _GENERAL_COLUMNS), -(-down // _GENERAL_ROWS), min(down, _GENERAL_ROWS))


def _segments(rows: int, more: int, wish: int, limits: tuple[int, int]) -> tuple[int, int]:
    """Segments and rows of each, about `wish` within the limits, such that with `more` they fill whole batches."""
    each = -(-rows // -(-rows // min(max(wish, limits[0]), limits[1])))
    each = -(-(each + more) // _BATCH) * _BATCH - more
    return -(-rows // each), each


def _is_fast(s: Settings) -> bool:
    return not s.double and len(s.taps) in _FAST and s.taps[0] >= _FIRST_WEIGHT


def _addressable(v: torch.Tensor) -> torch.Tensor:
    """`v`; a copy where a row or the way to the next takes 2 GiB, more than the kernels step."""
    down, right = v.stride()[-2:]
    return v if max(down, right * v.shape[-1]) * v.element_size() < 2**31 else v.contiguous()


def _forward(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Settings, emulated: bool = False
) -> SSIMRows:
    x, y = _addressable(x), _addressable(y)
    n, c = x.shape[:2]
    ssim_map = torch.empty((n, c, *s.windows(x)), dtype=s.work, device=x.device) if s.want_map else None
    if not _is_fast(s):
        return _general(x, y, valid, s, ssim_map, emulated)
    walk = forward_plan(n * c, *s.windows(x), len(s.taps), slots(x.device))
    partial = torch.empty((walk.blocks, 2), dtype=torch.float64, device=x.device)
    rows = torch.empty((4 if s.want_apart else 2, n, c), dtype=torch.float64, device=x.device)
    apart = extents = told = None
    if s.want_apart:
        apart = torch.empty_like(partial)
        extents = torch.empty((walk.blocks, 4), dtype=torch.float32, device=x.device)
        told = torch.empty(4, dtype=torch.float64, device=x.device)
    outputs = (partial, rows, ssim_map, apart, extents, told)
    with cuda_support.launching(emulated, x.device, (x, y), outputs) as (module, stream):
        module.ssim_forward(
            native_support.image(x),
            native_support.image(y),
            native_support.DTYPE_CODES[x.dtype],
            x.shape,
            float32_window.over_first(s.taps),
            s.reflect,
            s.constants,
            walk,
            partial.data_ptr(),
            rows.data_ptr(),
            _address(ssim_map),
            (0, 0, 0) if apart is None else (apart.data_ptr(), _address(extents), rows[2:].data_ptr()),
            _address(told),
            stream,
        )
    if told is None:
        return SSIMRows(rows[0], rows[1], None, ssim_map, None)
    return SSIMRows(rows[0], rows[1], None, ssim_map, None, rows[2], told[2:], rows[3])


def _general(
    x: torch.Tensor,
    y: torch.Tensor,
    valid: torch.Tensor | None,
    s: Settings,
    ssim_map: torch.Tensor | None,
    emulated: bool,
) -> SSIMRows:
    n, c = x.shape[:2]
    plan = general_plan(*s.windows(x))
    partial = torch.empty((n * c * plan.blocks, 7), dtype=torch.float64, device=x.device)
    rows = torch.empty((6, n, c), dtype=torch.float64, device=x.device)
    with cuda_support.launching(emulated, x.device, (x, y, valid), (partial, rows, ssim_map)) as (module, stream):
        module.ssim_general(
            native_support.image(x),
            native_support.image(y),
            native_support.mask(valid),
            native_support.DTYPE_CODES[x.dtype],
            x.shape,
            (s.window_in_precision, 1.0),
            s.reflect,
            (s.double, valid is not None or s.want_components),
            s.constants,
            plan,
            (0, 0),
            (partial.data_ptr(), rows.data_ptr(), _address(ssim_map), 0),
            stream,
        )
    components = dict(zip(autograd.COMPONENTS, rows[2:5], strict=True)) if s.want_components else None
    return SSIMRows(rows[0], rows[1], components, ssim_map, None if valid is None else rows[5, :, 0])


def _backward(
    x: torch.Tensor,
    y: torch.Tensor,
    s: Settings,
    by_rows: torch.Tensor,
    by_map: torch.Tensor | None,
    wanted: Sequence[bool],
    emulated: bool = False,
) -> list[torch.Tensor | None]:
    x, y = _addressable(x), _addressable(y)
    out = [torch.empty(x.shape, dtype=x.dtype, device=x.device) if w else None for w in wanted]
    if not _is_fast(s):
        return _general_backward(x, y, s, by_rows, by_map, out, emulated)
    plan = backward_plan(x.shape[2], x.shape[3], len(s.taps))
    with cuda_support.launching(emulated, x.device, (x, y, by_rows, by_map), out) as (module, stream):
        module.ssim_backward(
            native_support.image(x),
            native_support.image(y),
            native_support.DTYPE_CODES[x.dtype],
            x.shape,
            float32_window.over_first(s.taps),
            s.constants,
            plan,
            by_rows.data_ptr(),
            _address(by_map),
            s.want_apart,
            *(_address(g) for g in out),
            stream,
        )
    return out


def _general_backward(
    x: torch.Tensor,
    y: torch.Tensor,
    s: Settings,
    by_rows: torch.Tensor,
    by_map: torch.Tensor | None,
    out: list[torch.Tensor | None],
    emulated: bool,
) -> list[torch.Tensor | None]:
    """Two launches in float64: the windows' four fields to device memory, and their sums over each pixel's windows."""
    fields = torch.empty((4, *x.shape[:2], *s.windows(x)), dtype=torch.float64, device=x.device)
    upstream = None if by_map is None else by_map.double()
    images = (native_support.image(x), native_support.image(y))
    code, numbers = native_support.DTYPE_CODES[x.dtype], s.constants
    with cuda_support.launching(emulated, x.device, (x, y, by_rows, upstream), (fields, *out)) as (module, stream):
        module.ssim_general(
            *images,
            native_support.mask(None),
            code,
            x.shape,
            (s.taps, 1.0),
            False,
            (True, False),
            numbers,
            general_plan(*s.windows(x)),
            (by_rows.data_ptr(), _address(upstream)),
            (0, 0, 0, fields.data_ptr()),
            stream,
        )
        module.ssim_spread(
            *images,
            code,
            x.shape,
            (s.taps, 1.0),
            numbers,
            general_plan(*x.shape[2:]),
            fields.data_ptr(),
            *(_address(g) for g in out),
            stream,
        )
    return out


def _address(v: torch.Tensor | None) -> int:
    return 0 if v is None else v.data_ptr()
