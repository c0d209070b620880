"""Pixel errors in CUDA C++: both images read once in any layout, exact integer sums, two launches and no atomics.

The first launch leaves partial sums of fixed parts of each image, the second adds them up in a fixed order: a result
depends on neither the device nor the batch. No gradient here: `supports` leaves that to Triton and the definition.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .. import cuda_support, native_support
from ..checks import FLOAT_DTYPES
from ..registry import Call, no_gradient, no_loop, refusal

Pair = tuple[torch.Tensor, torch.Tensor]
_PIXELS = 2**34  # of an image: 32 bits hold what a thread adds up
_THREADS = 256  # of a block: csrc/pixel/pixel_cuda.hpp
_PARTS = 1024  # of an image, at most; fixed by its shape alone
_PASSES = 4  # packs a thread takes of a part, at least: work enough to pay for its sums
_BLOCKS = 2112  # 16 for each of 132 multiprocessors; more parts than that are taken in turn


class Plan(NamedTuple):
    """Lines of an image, merged where memory is contiguous, cut into packs of pixels and those into parts."""

    planes: int
    height: int
    length: int
    pack: int
    packs_a_part: int
    straight: bool  # one load takes a pack
    blocks: int

    @property
    def parts(self) -> int:
        return -(-self.planes * self.height * (self.length // self.pack) // self.packs_a_part)


def _large_image(call: Call) -> str | None:
    too_large = call.shape[1] * call.shape[2] * call.shape[3] >= _PIXELS
    return "takes images below 2**34 pixels" if too_large else None


UNSUPPORTED = (no_loop, _large_image, no_gradient)


def supports(call: Call) -> str | None:
    """Every dtype, layout and mask, up to 2³⁴ pixels an image."""
    return refusal(UNSUPPORTED, call)


def plan(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, blocks: int = _BLOCKS) -> Plan:
    """How the kernel walks these images.

    Packs of floats lie within a row, so that their sums have the same order in every memory layout; those of integers
    are exact in any order.
    """
    images, planes, height, width = x.shape
    # strides of image, plane, line and pixel, in bytes; a mask has one plane for all
    layouts = [(v.data_ptr(), v.element_size(), [s * v.element_size() for s in v.stride()]) for v in (x, y)]
    if valid is not None:
        layouts.append((valid.data_ptr(), 1, [valid.stride(0), 0, *valid.stride()[2:]]))
    size, length = x.element_size(), width
    if height > 1 and all(s[2] == width * s[3] for _, _, s in layouts):
        length, height = width * height, 1
    if planes > 1 and height == 1 and valid is None and all(s[1] == length * s[3] for _, _, s in layouts):
        length, planes = length * planes, 1

    def lies_straight(pack: int) -> bool:
        return all(
            s[3] == one
            and address % (pack * one) == 0
            and all(step % (pack * one) == 0 for step, n in zip(s, (images, planes, height), strict=False) if n > 1)
            for address, one, s in layouts
        )

    if x.dtype in FLOAT_DTYPES:
        pack = 16 // size if width % (16 // size) == 0 else 1
    else:
        pack = next((p for p in (16 // size, 4 // size) if length % p == 0 and lies_straight(p)), 1)
    packs = planes * height * (length // pack)
    a_part = _THREADS * max(_PASSES, -(-packs // (_THREADS * _PARTS)))
    return Plan(planes, height, length, pack, a_part, lies_straight(pack), blocks)


def errors(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, *, emulated: bool = False, blocks: int = _BLOCKS
) -> Pair:
    """As `reference.errors`; at most `blocks` blocks are launched."""
    images = x.shape[0]
    walk = plan(x, y, valid, blocks)
    partial = torch.empty((images, walk.parts, 3), dtype=torch.int64, device=x.device)
    out = torch.empty((2, images), dtype=torch.float64, device=x.device)
    with cuda_support.launching(emulated, x.device, (x, y, valid), (partial, out)) as (module, stream):
        module.pixel_errors(
            native_support.image(x),
            native_support.image(y),
            native_support.mask(valid),
            native_support.DTYPE_CODES[x.dtype],
            images,
            walk,
            partial.data_ptr(),
            out.data_ptr(),
            stream,
        )
    return out[0], out[1]
