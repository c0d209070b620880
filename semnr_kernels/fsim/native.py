"""FSIM in C++, with its own transforms, so that the data between them stays in the cache.

float32 or float64 throughout; float64 where a gradient is asked for, because that of a phase grows without bound where
the response vanishes.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

from .. import native_support
from ..fill import fill_masked
from ..registry import Call, no_loop, refusal
from . import reference
from .reference import Comparison, Features, Filters, Settings

_CACHE_BYTES = 2**28
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


UNSUPPORTED = (no_loop,)


def supports(call: Call) -> str | None:
    """Every dtype and layout."""
    return refusal(UNSUPPORTED, call)


def fsim(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Settings, *, isa: str | None = None
) -> Comparison:
    """As `reference.fsim`, for CPU tensors; `isa` forces an instruction set."""
    data_range = s.data_range
    if valid is not None:
        x, y = fill_masked(reference.on_255(x, data_range), reference.on_255(y, data_range), valid)
        data_range = 255.0
    fx, fy = _features((x, y), data_range, valid, s, isa)
    return compare(fx, fy, s, isa=isa)


def features(
    image: torch.Tensor,
    valid: torch.Tensor | None,
    other: torch.Tensor | None,
    s: Settings,
    *,
    isa: str | None = None,
) -> Features:
    """As `reference.features`."""
    data_range = s.data_range
    if valid is not None:
        scaled = reference.on_255(image, data_range)
        image, _ = fill_masked(scaled, scaled if other is None else reference.on_255(other, data_range), valid)
        data_range = 255.0
    return _features((image,), data_range, valid, s, isa)[0]


def compare(fx: Features, fy: Features, s: Settings, *, isa: str | None = None) -> Comparison:
    """As `reference.compare`."""
    some = [v for f in (fx, fy) for v in (f.phase_congruency, f.gradient, f.chroma) if v is not None]
    with_gradient = torch.is_grad_enabled() and any(v.requires_grad for v in some)
    dtype = torch.float64 if with_gradient else _DTYPES[s.precision]
    sides = [_planes(f, dtype) for f in (fx, fy)]
    shares = [f.valid.to(dtype) for f in (fx, fy) if f.valid is not None]
    share = torch.minimum(shares[0], shares[-1]).contiguous() if shares else None
    if with_gradient:
        if s.want_maps:  # which are differentiable too
            return reference.compare(fx, fy, s)
        count = max(v.shape[0] for v in some)
        wide = [None if v is None else v.expand(count, *v.shape[1:]).contiguous() for side in sides for v in side]
        return Comparison(_Rows.apply(*wide, share, isa))
    rows, maps = _compare(sides[0], sides[1], share, s.want_maps, isa)
    return Comparison(rows, *maps)


# --- features -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tables:
    """The filters of one size as csrc lays them out, and each orientation's threshold for a median amplitude of 1."""

    kind: tuple[int, int, float, float, float, float]
    size: tuple[int, int]
    double: bool
    memory: torch.Tensor
    gains: list[float]


_tables: OrderedDict[tuple[Any, ...], Tables] = OrderedDict()
_tables_lock = threading.Lock()


def tables(h: int, w: int, p: Filters, double: bool, isa: str | None) -> Tables:
    """Built once a size and kept while they fit the cache."""
    module = native_support.module(isa)
    key = (h, w, p, double, module.ISA)
    with _tables_lock:
        if key in _tables:
            _tables.move_to_end(key)
            return _tables[key]
    kind = (p.scales, p.orientations, float(p.min_length), float(p.mult), float(p.sigma_f), float(p.delta_theta))
    memory = native_support.empty(module.fsim_filter_bytes(kind, (h, w), double), torch.uint8)
    ratios = module.fsim_filters(kind, (h, w), double, native_support.address(memory), torch.get_num_threads())
    built = Tables(kind, (h, w), double, memory, [reference.threshold_gain(ratio, p.k) for ratio in ratios])
    with _tables_lock:
        _tables[key] = built
        while sum(t.memory.nbytes for t in _tables.values()) > _CACHE_BYTES:
            _tables.popitem(last=False)
    return built


def _features(
    images: tuple[torch.Tensor, ...], data_range: float, valid: torch.Tensor | None, s: Settings, isa: str | None
) -> list[Features]:
    """Of images of one shape and dtype, together."""
    with_gradient = torch.is_grad_enabled() and any(v.requires_grad for v in images)
    double = with_gradient or s.precision == "float64"
    dtype = torch.float64 if double else torch.float32
    share = None if valid is None else reference.downsample(valid.to(dtype), s)
    if with_gradient:  # what comes before the transforms is left to torch
        parts = []
        for image in images:
            luminance, chroma = reference.planes(reference.on_255(image, data_range), s)
            phase, gradient = _Planes.apply(luminance, s.filters, isa)
            parts.append(Features(phase, gradient, chroma, share, s))
        return parts
    n, _, height, width = images[0].shape
    h, w = (-(-side // s.factor) if s.authors else side // s.factor for side in (height, width))
    total = len(images) * n
    phase = native_support.empty((total, 1, h, w), dtype)
    gradient = native_support.empty((total, 1, h, w), dtype)
    chroma = native_support.empty((total, 2, h, w), dtype) if s.chromatic else None
    t = tables(h, w, s.filters, double, isa)
    run(images, 255.0 / data_range, s, t, isa, (phase, gradient, chroma, None))
    cuts = [slice(i * n, (i + 1) * n) for i in range(len(images))]
    return [Features(phase[c], gradient[c], None if chroma is None else chroma[c], share, s) for c in cuts]


def run(
    images: tuple[torch.Tensor, ...],
    scale: float,
    s: Settings,
    t: Tables,
    isa: str | None,
    out: tuple[torch.Tensor | None, ...],
) -> None:
    """Features of each image into `out`: phase congruency, gradient, chroma, amplitude; None for the last two: not
    wanted."""
    native_support.module(isa).fsim_features(
        [native_support.image(v) for v in images],
        native_support.DTYPE_CODES[images[0].dtype],
        images[0].shape,
        scale,
        s.factor,
        s.authors,
        t.kind,
        t.size,
        t.double,
        native_support.address(t.memory),
        t.gains,
        torch.get_num_threads(),
        [_address(v) for v in out],
    )


class _Planes(torch.autograd.Function):
    """Phase congruency and gradient of a float64 luminance on the 0-255 scale."""

    @staticmethod
    def forward(ctx: Any, luminance: torch.Tensor, p: Filters, isa: str | None) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        phase, gradient, amplitude = (native_support.empty(luminance.shape, torch.float64) for _ in range(3))
        t = tables(luminance.shape[-2], luminance.shape[-1], p, True, isa)
        run((luminance,), 1.0, Settings(), t, isa, (phase, gradient, None, amplitude))
        ctx.save_for_backward(luminance, phase, amplitude)
        ctx.isa, ctx.filters = isa, p
        return phase, gradient

    @staticmethod
    def backward(ctx: Any, *by: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        luminance, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            again = reference.phase_congruency(luminance, ctx.filters), reference.gradient_magnitude(luminance)
            return native_support.reference_gradient(again, (luminance,), by, (True,))[0], None, None
        t = tables(luminance.shape[-2], luminance.shape[-1], ctx.filters, True, ctx.isa)
        out = native_support.empty(luminance.shape, torch.float64)
        planes = [v.contiguous() for v in (*kept, *by)]
        native_support.module(ctx.isa).fsim_features_backward(
            native_support.image(luminance),
            luminance.shape,
            t.kind,
            native_support.address(t.memory),
            t.gains,
            torch.get_num_threads(),
            [native_support.address(v) for v in (*planes, out)],
        )
        return out, None, None


# --- comparison -----------------------------------------------------------------------------------------------

_Side = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def _planes(f: Features, dtype: torch.dtype) -> _Side:
    chroma = None if f.chroma is None else f.chroma.to(dtype).contiguous()
    return f.phase_congruency.to(dtype).contiguous(), f.gradient.to(dtype).contiguous(), chroma


def _address(value: torch.Tensor | None) -> int:
    return native_support.address(value)


def _arguments(x: _Side, y: _Side, share: torch.Tensor | None) -> tuple[Any, ...]:
    shared = [v[0] for v in (x, y)] + ([] if share is None else [share])
    n = max(v.shape[0] for v in shared)
    sides = [(*(_address(v) for v in side), side[0].shape[0] == 1) for side in (x, y)]
    return (
        *sides,
        (_address(share), share is not None and share.shape[0] == 1),
        x[0].dtype == torch.float64,
        n,
        math.prod(x[0].shape[-2:]),
        torch.get_num_threads(),
    )


def _compare(
    x: _Side, y: _Side, share: torch.Tensor | None, want_maps: bool, isa: str | None
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    arguments = _arguments(x, y, share)
    n, (h, w) = arguments[4], x[0].shape[-2:]
    rows = native_support.empty(n, torch.float64)
    wanted = 0 if not want_maps else 5 if x[2] is not None else 4
    maps = [native_support.empty((n, 1, h, w), x[0].dtype) for _ in range(wanted)]
    places = [native_support.address(v) for v in maps] + [0] * (5 - wanted)
    native_support.module(isa).fsim_compare(*arguments, native_support.address(rows), places)
    return rows, maps


class _Rows(torch.autograd.Function):
    """Scores of contiguous planes of as many images on both sides."""

    @staticmethod
    def forward(ctx: Any, *planes: Any) -> torch.Tensor:  # type: ignore[override]
        *sides, share, isa = planes
        ctx.save_for_backward(*sides, share)
        ctx.isa = isa
        return _compare(tuple(sides[:3]), tuple(sides[3:]), share, False, isa)[0]  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, by: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        *sides, share = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:6]
        if torch.is_grad_enabled():  # create_graph
            fx, fy = (Features(sides[i], sides[i + 1], sides[i + 2], share, Settings()) for i in (0, 3))
            some = tuple(v for v in sides if v is not None)
            asked = tuple(w for v, w in zip(sides, wanted, strict=True) if v is not None)
            gradients = iter(
                native_support.reference_gradient((reference.compare(fx, fy, Settings()).rows,), some, (by,), asked)
            )
            return *(None if v is None else next(gradients) for v in sides), None, None
        by = by.contiguous()
        out = [torch.empty_like(v) if w and v is not None else None for v, w in zip(sides, wanted, strict=True)]
        arguments = _arguments(tuple(sides[:3]), tuple(sides[3:]), share)  # type: ignore[arg-type]
        places = [_address(v) for v in out]
        native_support.module(ctx.isa).fsim_compare_backward(*arguments, native_support.address(by), places)
        return *out, None, None
