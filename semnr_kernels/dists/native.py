"""DISTS on CPU: convolutions by Winograd's filtering and oneDNN, channels last; all between them in one pass of C++."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from .. import native_support
from ..convolution_cpu import Convolution
from ..registry import Call, no_gradient, refusal
from . import score
from .network import POOL_EPS, Network
from .score import Distance, Features
from .stream import Rectangle
from .sums import Into

_NONE = (0, 0, 0, 0, 0)  # no image
_VECTOR = 16  # channels that the widest instruction set takes at once


UNSUPPORTED = (no_gradient,)


def supports(call: Call) -> str | None:
    """Every dtype, masks, maps; no gradient."""
    return refusal(UNSUPPORTED, call)


class Native:
    """See `stream.Engine`."""

    memory_format = torch.channels_last

    def __init__(self, isa: str | None = None) -> None:
        self.module = native_support.module(isa)

    def layer(
        self, network: Network, stage: int, layer: int, h: torch.Tensor, padding: tuple[int, int]
    ) -> torch.Tensor:
        last = layer == len(network.stages[stage]) - 1
        return _convolutions(network)[stage][layer](h, padding, not last, self.module)

    def finish(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None,
        at: Rectangle,
        share: torch.Tensor | None,
        into: Into | None,
        pooled: tuple[torch.Tensor | None, torch.Tensor | None],
        kept: torch.Tensor | None,
    ) -> None:
        if into is None and y is not None:  # nothing counts here: two images to pool
            self.finish(y, None, at, None, None, (pooled[1], None), None)
            y, pooled = None, (pooled[0], None)
        x = _side_by_side(x)
        y = None if y is None else _side_by_side(y)
        self.module.dists_stage(
            native_support.image(x),
            _image(y),
            tuple(native_support.DTYPE_CODES[(x if v is None else v).dtype] for v in (x, y, kept)),
            x.shape,
            (at.row, at.column, at.rows, at.columns, at.start, at.stop, 0 if into is None else into.cell),
            _image(share),
            _totals(into),
            *(_image(v) for v in (*pooled, kept)),
            POOL_EPS,
            torch.get_num_threads(),
        )

    def planes(
        self, x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None, into: Into, scale: float = 1.0
    ) -> None:
        n, c, h, w = x.shape
        if scale == 1 and c % _VECTOR == 0 and x.stride(1) == y.stride(1) == 1:
            self.finish(x, y, Rectangle(0, 0, h, w, 0, w), share, into, (None, None), None)
            return
        channels = into.totals.shape[-1]
        one = channels > 1 and all(v.shape[1] == 1 or v.stride(1) == 0 for v in (x, y))
        if one:  # equal channels
            x, y, c = x[:, :1], y[:, :1], 1
        near, totals = (v.new_zeros((n, k, c)) if one else v for k, v in ((2, into.near), (6, into.totals)))
        cells = into.cells
        if one and cells is not None:
            cells = cells.new_zeros((*cells.shape[:-1], 1))
        if one and not into.fresh:
            near.copy_(into.near[..., :1])
        self.module.dists_planes(
            native_support.image(x),
            native_support.image(y.expand(n, c, h, w)),
            tuple(native_support.DTYPE_CODES[v.dtype] for v in (x, y)),
            x.shape,
            _image(share),
            scale,
            into.cell,
            _totals(Into(near, totals, into.fresh, cells, into.cell)),
            torch.get_num_threads(),
        )
        if one:
            into.near.copy_(near.expand_as(into.near))
            into.totals.add_(totals)
            if into.cells is not None and cells is not None:
                into.cells.add_(cells)


def _image(value: torch.Tensor | None) -> tuple[int, ...]:
    return _NONE if value is None else native_support.image(value)


def _side_by_side(h: torch.Tensor) -> torch.Tensor:
    return h if h.stride(1) == 1 else h.contiguous(memory_format=torch.channels_last)


def _totals(into: Into | None) -> tuple[int, ...]:
    if into is None:
        return (0, 0, 0, 0, 0, 0)
    cells = (0, 0, 0) if into.cells is None else (native_support.address(into.cells), *into.cells.stride()[:2])
    return (int(into.fresh), native_support.address(into.near), native_support.address(into.totals), *cells)


_Stages = tuple[tuple[Convolution, ...], ...]
_ready: weakref.WeakKeyDictionary[Network, _Stages] = weakref.WeakKeyDictionary()  # gone with their network


def _convolutions(network: Network) -> _Stages:
    if (made := _ready.get(network)) is not None:
        return made
    stages = tuple(
        tuple(Convolution(weight, bias, 1, 1, 256 >> number) for weight, bias in stage)
        for number, stage in enumerate(network.stages)
    )
    return _ready.setdefault(network, stages)


def dists(*arguments: Any, isa: str | None = None, **options: Any) -> Distance:
    return score.dists(Native(isa), *arguments, **options)


def features(*arguments: Any, isa: str | None = None, **options: Any) -> Features:
    return score.features(Native(isa), *arguments, **options)


def compare(*arguments: Any, isa: str | None = None, **options: Any) -> Distance:
    return score.compare(Native(isa), *arguments, **options)
