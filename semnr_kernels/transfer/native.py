"""Evidence transfer in C++: float32 planes, the two Gaussians as taps along columns and rows, sums in float64."""

from __future__ import annotations

import functools
import math

import torch

from .. import native_support
from ..planes import Tiles
from ..registry import Call, no_loop, refusal
from .bands import taps_of
from .reference import Transfer
from .settings import Settings


def _one_channel(call: Call) -> str | None:
    return None if len(call.shape) == 4 and call.shape[1] == 1 else "has a loop for one channel alone"


UNSUPPORTED = (no_loop, _one_channel)


def supports(call: Call) -> str | None:
    """One channel of any dtype, with a mask or without."""
    return refusal(UNSUPPORTED, call)


def transfer(
    x: Tiles, d: Tiles, r: Tiles, valid: torch.Tensor | None, settings: Settings, *, isa: str | None = None
) -> Transfer:
    """As `reference.transfer`, for CPU tensors; `isa` forces an instruction set."""
    module = native_support.module(isa)
    mask = None if valid is None else valid[:, 0].to(torch.uint8).contiguous()
    rows = native_support.empty((x.images.shape[0], module.TRANSFER_ROW), torch.float64)
    module.transfer_rows(
        *(v.planes(isa).argument for v in (x, d, r)),
        native_support.address(mask),
        (_half(settings.low), _half(settings.high)),
        settings.block,
        settings.least_z,
        settings.noisy_reference,
        settings.with_drop,
        torch.get_num_threads(),
        native_support.address(rows),
    )
    return Transfer(*rows.unbind(1))


@functools.lru_cache(maxsize=32)
def _half(sigma: float) -> list[float]:
    """Taps of a Gaussian from the middle on."""
    if sigma == 0:
        return [1.0]
    taps = taps_of(sigma, torch.zeros(0, dtype=torch.float64)).tolist()
    return taps[math.floor(len(taps) / 2) :]
