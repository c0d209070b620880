"""Evidence transfer in Triton around one transform of torch.fft: five launches, and the bands written once.

The kernels are in triton_stages.py. Sums are added in an order that a tile's size alone tells.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import triton

from .. import batched, triton_support
from ..planes import Levelled, Tiles
from ..registry import Call, refusal
from ..triton_support import launch
from . import on_device, triton_stages
from .on_device import _one_channel
from .reference import Transfer
from .settings import Settings
from .triton_stages import ROOM, STATE

_ROWS, _COLUMNS, _SPECTRUM = 8, 64, 1024
_PIXELS = 2**30  # below this, places within a plane fit 32 bits


def _fits(call: Call) -> str | None:
    if len(call.shape) == 4 and call.shape[0] > triton_support.SECOND_AXIS:
        return f"takes at most {triton_support.SECOND_AXIS} images a call"
    return None if call.shape[-2] * call.shape[-1] < _PIXELS else "takes images below 2**30 pixels"


UNSUPPORTED = (_one_channel, _fits)


def supports(call: Call) -> str | None:
    """One channel of any dtype, with a mask or without."""
    return refusal(UNSUPPORTED, call)


def transfer(x: Tiles, d: Tiles, r: Tiles, valid: torch.Tensor | None, settings: Settings) -> Transfer:
    """As `reference.transfer`, for images of one channel."""
    mask = None if valid is None else valid[:, 0]
    return rows(x.levelled(), d.levelled(), r.levelled(), mask, settings)


def rows(x: Levelled, d: Levelled, r: Levelled, valid: torch.Tensor | None, settings: Settings) -> Transfer:
    """As `on_device.rows`."""
    images = [v.data.contiguous() for v in (x, d, r)]
    mask = None if valid is None else valid.contiguous().view(torch.uint8)
    (n, height, width), device = images[0].shape, images[0].device
    taps, shares_down, shares_along = batched.table(_plan, device, height, width, settings.low, settings.high)
    reach = taps.shape[1] // 2
    plane = 4 * n * height * width

    def room(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    tile = {"ROWS": triton_support.block(_ROWS, 64), "COLUMNS": triton_support.block(_COLUMNS, 256)}
    programs = triton.cdiv(height, tile["ROWS"]) * triton.cdiv(width, tile["COLUMNS"])
    smooth = room(6 if mask is None else 8, n, height, width, dtype=torch.float32)
    partial = room(n, programs, ROOM)
    masked = 0 if mask is None else mask.numel()
    launch(triton_stages.down, (programs, n), *images, mask, taps, smooth, partial, height, width, reach,
           moved=3 * plane + masked + len(smooth) * plane + 8 * partial.numel(), **tile)  # fmt: skip

    block = settings.block
    blocks = max(1, height // block), max(1, width // block)
    bands, sums = room(3, n, height, width, dtype=torch.float32), room(n, blocks[0] * blocks[1], ROOM)
    launch(triton_stages.along, (blocks[0] * blocks[1], n), smooth, mask, taps, shares_down, shares_along, bands, sums,
           height, width, reach, *blocks, FINE=settings.low > 0, ROWS=triton_support.block(_ROWS, 32),
           COLUMNS=triton_support.block(32, 64), moved=(len(smooth) + 3) * plane + masked + 8 * sums.numel(),
           )  # fmt: skip
    state = room(n, STATE)
    launch(triton_stages.ratio, (n,), sums, partial, x.level, d.level, state, sums.shape[1], programs,
           NOISY=settings.noisy_reference, WITH_DROP=settings.with_drop, BLOCK=256)  # fmt: skip

    spectrum = torch.view_as_real(torch.fft.rfft2(bands))
    each = triton_support.block(_SPECTRUM, 2**15)
    parts = room(n, triton.cdiv(height * (width // 2 + 1), each), 2)
    launch(triton_stages.spectra, (parts.shape[1], n), spectrum, state, parts, height, width, BLOCK=each)
    least = triton_support.numbers(device, settings.least_z)
    launch(triton_stages.settle, (n,), parts, state, least, parts.shape[1], height * width, BLOCK=256)
    return Transfer(*state[:, :5].unbind(1))


def _plan(height: int, width: int, low: float, high: float) -> tuple[np.ndarray, ...]:
    """Taps of both Gaussians, (2, taps) float32; the part of each inside, down (2, H) and along (2, W), float64."""
    taps, down, along = on_device._reaches(height, width, low, high)
    return taps.astype(np.float32), down, along


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds: with a mask and without, of a clean reference and of a second frame."""
    image = Levelled(torch.zeros(2, 64, 80), torch.zeros(2, dtype=torch.float64), None)
    mask = torch.ones((2, 64, 80), dtype=torch.bool)
    with triton_support.recording() as made:
        rows(image, image, image, None, Settings())
    yield from ((f"transfer {one.kernel.fn.__name__}", one) for one in made)
    with triton_support.recording() as made:
        rows(image, image, image, mask, Settings(0.0, 1.0, noisy_reference=True, with_drop=False))
    names = {"down": "mask", "along": "mask, no fine Gaussian", "ratio": "second frame, no drop"}
    for one in made:
        if (name := one.kernel.fn.__name__) in names:
            yield f"transfer {name}, {names[name]}", one
