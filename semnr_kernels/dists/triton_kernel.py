"""DISTS with its statistics and its pooling in Triton; the convolutions stay with torch.

One pass over a pair of maps gives the five sums of each channel; two stages, no atomics.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from .. import triton_support
from ..constants import kept
from ..convolution import conv2d, conv2d_relu
from ..registry import Call, refusal
from . import reference, score, triton_last
from .engine import Torch
from .network import POOL_EPS, Network, normalised
from .score import Distance, Features, Settings
from .stream import Rectangle
from .sums import C1, C2, Into
from .weights import alpha_beta_of

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # of maps


def _no_loop(call: Call) -> str | None:
    dtype = call.setting("dtype", torch.float32)
    return None if dtype in _DTYPES else f"has no {str(dtype).removeprefix('torch.')} loop"


UNSUPPORTED = (_no_loop,)


def supports(call: Call) -> str | None:
    """Every image and network dtype, masks, gradients; no gradient of the gradient."""
    return refusal(UNSUPPORTED, call)


# --- statistics -----------------------------------------------------------------------------------------------


@triton.jit
def _moments(
    x, y, share, partial, positions, count, channels, steps, programs,
    SHARED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """partial[map, program] = Σ w a, Σ w b, Σ w a², Σ w b², Σ w a b, and with shares Σ w.

    a, b about the channel's first values; w: a position's share, or 1.
    """
    # all on one axis of the grid: the second holds 65,535 programs
    program = tl.program_id(0) % programs
    row = (tl.program_id(0) // programs) * ROWS + tl.arange(0, ROWS)  # a channel of an image
    real = row < count
    base = row.to(tl.int64) * positions
    # one value of a flat channel removes all of its mean, of any other enough for float64 sums
    near_x = tl.load(x + base, mask=real, other=0).to(tl.float64)[:, None]
    near_y = tl.load(y + base, mask=real, other=0).to(tl.float64)[:, None]
    zero = tl.zeros([ROWS, COLUMNS], tl.float64)
    sa, sb, saa, sbb, sab, sw = zero, zero, zero, zero, zero, zero
    for step in range(steps):
        at = (step * programs + program) * COLUMNS + tl.arange(0, COLUMNS)
        live = real[:, None] & (at < positions)[None, :]
        place = base[:, None] + at[None, :]
        a = tl.where(live, tl.load(x + place, mask=live, other=0).to(tl.float64) - near_x, zero)
        b = tl.where(live, tl.load(y + place, mask=live, other=0).to(tl.float64) - near_y, zero)
        wa, wb = a, b
        if SHARED:
            image = (row // channels).to(tl.int64) * positions
            w = tl.load(share + image[:, None] + at[None, :], mask=live, other=0).to(tl.float64)
            wa, wb = w * a, w * b
            sw += w
        sa += wa
        sb += wb
        saa += wa * a
        sbb += wb * b
        sab += wa * b
    to = partial + (row.to(tl.int64) * programs + program) * (5 + SHARED)
    tl.store(to, tl.sum(sa, axis=1), mask=real)
    tl.store(to + 1, tl.sum(sb, axis=1), mask=real)
    tl.store(to + 2, tl.sum(saa, axis=1), mask=real)
    tl.store(to + 3, tl.sum(sbb, axis=1), mask=real)
    tl.store(to + 4, tl.sum(sab, axis=1), mask=real)
    if SHARED:
        tl.store(to + 5, tl.sum(sw, axis=1), mask=real)


@triton.jit
def _moments_gradient(
    x, y, share, slopes, gx, gy, positions, count, channels,
    SHARED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """gx = w (p0 + p1 (x − x̄) + p2 (y − ȳ)), gy = w (p3 + p4 (y − ȳ) + p2 (x − x̄)); slopes: p0 to p4, x̄, ȳ."""
    blocks = (positions + COLUMNS - 1) // COLUMNS
    row = (tl.program_id(0) // blocks) * ROWS + tl.arange(0, ROWS)
    at = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    live = (row < count)[:, None] & (at < positions)[None, :]
    place = row.to(tl.int64)[:, None] * positions + at[None, :]
    of = slopes + row * 7
    p0 = tl.load(of, mask=row < count, other=0)[:, None]
    p1 = tl.load(of + 1, mask=row < count, other=0)[:, None]
    p2 = tl.load(of + 2, mask=row < count, other=0)[:, None]
    p3 = tl.load(of + 3, mask=row < count, other=0)[:, None]
    p4 = tl.load(of + 4, mask=row < count, other=0)[:, None]
    a = tl.load(x + place, mask=live, other=0).to(tl.float64) - tl.load(of + 5, mask=row < count, other=0)[:, None]
    b = tl.load(y + place, mask=live, other=0).to(tl.float64) - tl.load(of + 6, mask=row < count, other=0)[:, None]
    da, db = p0 + p1 * a + p2 * b, p3 + p4 * b + p2 * a
    if SHARED:
        image = (row // channels).to(tl.int64) * positions
        w = tl.load(share + image[:, None] + at[None, :], mask=live, other=0).to(tl.float64)
        da, db = da * w, db * w
    if gx is not None:
        tl.store(gx + place, triton_support.narrow(da, gx.dtype.element_ty), mask=live)
    if gy is not None:
        tl.store(gy + place, triton_support.narrow(db, gy.dtype.element_ty), mask=live)


def _block(count: int, positions: int, on_device: int) -> tuple[int, int]:
    """Channels × positions of a program: small maps put several channels into one."""
    lanes = triton_support.block(on_device, 2**15)
    columns = min(triton_support.power_of_2(positions), lanes)
    return min(lanes // columns, triton_support.power_of_2(count)), columns


def statistics(x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None = None) -> torch.Tensor:
    """Per image and channel: means of x and y, population variances, covariance; (5, N, C) float64. One pass.

    x, y: (N, C, h, w) of one floating dtype; share: (N, 1, h, w), the weight of each position, or None.
    """
    both = torch.broadcast_tensors(x, y)
    share = None if share is None else share.contiguous()
    if torch.is_grad_enabled() and any(v.requires_grad for v in both):
        return _Statistics.apply(*(v.contiguous() for v in both), share)
    return _statistics(*_alike(*both), share)[0]


def _alike(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both maps without gaps, channels last where those of x are: copied where they lie otherwise."""
    last = x.shape[1] > 1 and x.stride(1) == 1
    layout = torch.channels_last if last else torch.contiguous_format
    return x.contiguous(memory_format=layout), y.contiguous(memory_format=layout)


def _statistics(x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The five numbers and the sum of weights."""
    n, c, h, w = x.shape
    partial = triton_last.sums(x, y, share) if triton_last.is_last(x) else _sums(x, y, share)
    sa, sb, saa, sbb, sab, *rest = triton_support.fold(partial).reshape(-1, n, c)
    weight = rest[0] if rest else torch.full_like(sa, h * w)
    ma, mb = sa / weight, sb / weight
    found = torch.stack(
        (
            x[:, :, 0, 0].double() + ma,
            y[:, :, 0, 0].double() + mb,
            saa / weight - ma * ma,
            sbb / weight - mb * mb,
            sab / weight - ma * mb,
        )
    )
    return found, weight


def _sums(x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:
    n, c, h, w = x.shape
    rows, columns = _block(n * c, h * w, 512)
    # eight blocks a program, by the map's size alone
    programs = triton.cdiv(h * w, columns * 8)
    partial = torch.empty((n * c, programs, 5 + (share is not None)), dtype=torch.float64, device=x.device)
    triton_support.launch(
        _moments, (programs * triton.cdiv(n * c, rows),), x, y, share, partial, h * w, n * c, c,
        triton.cdiv(h * w, columns * programs), programs, SHARED=share is not None, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return partial


class _Statistics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:  # type: ignore[override]
        found, weight = _statistics(x, y, share)
        ctx.save_for_backward(x, y, share, found, weight)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, y, share, found, weight = ctx.saved_tensors
        n, c, h, w = x.shape
        mean_x, mean_y, var_x, var_y, both = by / weight
        slopes = torch.stack((mean_x, 2 * var_x, both, mean_y, 2 * var_y, found[0], found[1]), dim=-1).contiguous()
        out = [torch.empty_like(v) if w else None for v, w in zip((x, y), ctx.needs_input_grad[:2], strict=True)]
        rows, columns = _block(n * c, h * w, 1024)
        triton_support.launch(
            _moments_gradient, (triton.cdiv(h * w, columns) * triton.cdiv(n * c, rows),),
            x, y, share, slopes, *out, h * w, n * c, c, SHARED=share is not None, ROWS=rows, COLUMNS=columns,
        )  # fmt: skip
        return *out, None


# --- L2 pooling -----------------------------------------------------------------------------------------------


@triton.jit
def _positions(planes, positions, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Planes and positions of a program; the planes run slowest, and all programs lie on one axis of the grid."""
    blocks = (positions + COLUMNS - 1) // COLUMNS
    plane = (tl.program_id(0) // blocks) * ROWS + tl.arange(0, ROWS)
    at = (tl.program_id(0) % blocks) * COLUMNS + tl.arange(0, COLUMNS)
    return plane.to(tl.int64)[:, None], at, (plane < planes)[:, None] & (at < positions)[None, :]


@triton.jit
def _pool_forward(
    h, out, eps, height, width, down, across, planes, WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """√(Hann-weighted mean of squares + eps) about every second pixel, zeros beyond the border."""
    plane, at, live = _positions(planes, down * across, ROWS, COLUMNS)
    row, column = at // across, at % across
    total = tl.zeros([ROWS, COLUMNS], WORK)
    for i in tl.static_range(-1, 2):
        for j in tl.static_range(-1, 2):
            r, c = row * 2 + i, column * 2 + j
            inside = live & ((r >= 0) & (r < height) & (c >= 0) & (c < width))[None, :]
            v = tl.load(h + plane * height * width + (r * width + c)[None, :], mask=inside, other=0).to(WORK)
            total += v * v * ((2 - i * i) * (2 - j * j) / 16)  # (½, 1, ½)² / 4
    root = tl.sqrt(total + tl.load(eps).to(WORK))
    tl.store(out + plane * down * across + at[None, :], triton_support.narrow(root, out.dtype.element_ty), mask=live)


@triton.jit
def _pool_backward(
    h, pooled, by, out, height, width, down, across, planes,
    WORK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out = h · Σ over the windows that hold a pixel of weight · by / pooled: each pixel gathers, nothing scatters."""
    plane, at, live = _positions(planes, height * width, ROWS, COLUMNS)
    row, column = at // width, at % width
    total = tl.zeros([ROWS, COLUMNS], WORK)
    for i in tl.static_range(2):
        for j in tl.static_range(2):
            r, c = row // 2 + i, column // 2 + j
            away_r, away_c = tl.abs(r * 2 - row), tl.abs(c * 2 - column)
            inside = live & ((r < down) & (c < across) & (away_r < 2) & (away_c < 2))[None, :]
            place = plane * down * across + (r * across + c)[None, :]
            g = tl.load(by + place, mask=inside, other=0).to(WORK)
            p = tl.load(pooled + place, mask=inside, other=1).to(WORK)
            weight = ((2 - away_r) * (2 - away_c)).to(WORK)[None, :] / 16
            total += tl.where(inside, g / p * weight, tl.zeros_like(total))
    place = plane * height * width + at[None, :]
    v = tl.load(h + place, mask=live, other=0).to(WORK)
    tl.store(out + place, triton_support.narrow(v * total, out.dtype.element_ty), mask=live)


def l2_pool(h: torch.Tensor, work: torch.dtype) -> torch.Tensor:
    """As `network.l2_pool`: (N, C, h, w) to half the size, computed in `work`."""
    if torch.is_grad_enabled() and h.requires_grad:
        return _L2Pool.apply(h.contiguous(), work)
    (h, _) = _alike(h, h)
    if triton_last.is_last(h):
        return triton_last.pooled(h, triton_support.numbers(h.device, POOL_EPS), _work(work), h.dtype)
    return _pooled(h, work, h.dtype)


def _pooled(h: torch.Tensor, work: torch.dtype, dtype: torch.dtype) -> torch.Tensor:
    n, c, height, width = h.shape
    down, across = (height + 1) // 2, (width + 1) // 2
    pooled = torch.empty((n, c, down, across), dtype=dtype, device=h.device)
    rows, columns = _block(n * c, down * across, 512)
    triton_support.launch(
        _pool_forward, (triton.cdiv(n * c, rows) * triton.cdiv(down * across, columns),), h, pooled,
        triton_support.numbers(h.device, POOL_EPS), height, width, down, across, n * c,
        WORK=_work(work), ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return pooled


class _L2Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: torch.Tensor, work: torch.dtype) -> torch.Tensor:  # type: ignore[override]
        pooled = _pooled(h, work, work)
        ctx.save_for_backward(h, pooled)
        return pooled.to(h.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        h, pooled = ctx.saved_tensors
        (n, c, height, width), out = h.shape, torch.empty_like(h)
        rows, columns = _block(n * c, height * width, 512)
        triton_support.launch(
            _pool_backward, (triton.cdiv(n * c, rows) * triton.cdiv(height * width, columns),), h, pooled,
            by.contiguous(), out, height, width, *pooled.shape[2:], n * c,
            WORK=_work(pooled.dtype), ROWS=rows, COLUMNS=columns,
        )  # fmt: skip
        return out, None


def _work(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32


# --- the distance ---------------------------------------------------------------------------------------------


def dists(
    x: torch.Tensor,
    y: torch.Tensor | Features,
    valid: torch.Tensor | None,
    network: Network,
    s: Settings,
) -> Distance:
    """As `reference.dists`."""
    group = reference.pairs_per_call(x.shape, network, s)
    grad = torch.is_grad_enabled() and (x.requires_grad or (isinstance(y, torch.Tensor) and y.requires_grad))
    if isinstance(y, Features) or s.window is not None or (group == 0 and not grad):
        return score.dists(_engine(network), x, y, valid, network, s)
    group = max(1, group)
    parts = []
    for start in range(0, x.shape[0], group):
        some = slice(start, start + group)
        masks = None if valid is None else valid[some]
        a, b, share = score.pair_on_1(x[some], y[some], masks, network, s)
        count = a.shape[0]
        both = _maps(network, torch.cat((a, b)).expand(-1, 3, -1, -1))
        shares = None if share is None else score.carried(share)
        parts.append(_pool(((m[:count], m[count:]) for m in both), shares, network.work))
    return score.joined(parts, x.shape[-2:])


def features(image: torch.Tensor, *arguments: Any) -> Features:
    """As `reference.features`, pooled here."""
    if torch.is_grad_enabled() and image.requires_grad:
        return reference.features(image, *arguments)
    return score.features(_engine(arguments[2]), image, *arguments)


def compare(fx: Features, fy: Features, s: Settings) -> Distance:
    """As `reference.compare`."""
    if s.window is not None:
        return score.compare(_engine(fx.network), fx, fy, s)
    shares = fy.shares if fy.shares is not None else fx.shares
    return _pool(zip(fx.maps, fy.maps, strict=True), shares, fx.network.work)


class Engine(Torch):
    """See `stream.Engine`: sums and pooling by the kernels above."""

    def pool(self, h: torch.Tensor, at: Rectangle) -> torch.Tensor:
        # the kernel pools about even positions: a position more in front moves them to those that count
        shifted = F.pad(h, (at.column, 0, at.row, 0))
        return l2_pool(shifted, torch.float64 if h.dtype == torch.float64 else torch.float32)[
            :, :, at.row :, at.column :
        ]

    def planes(
        self, x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None, into: Into, scale: float = 1.0
    ) -> None:
        if into.cells is not None or not x.is_floating_point() or x.dtype != y.dtype:
            super().planes(x, y, share, into, scale)
            return
        channels = into.totals.shape[-1]
        x, y = _alike(*(v.expand(-1, channels, -1, -1) for v in (x, y)))
        found, weight = _statistics(x, y, None if share is None else share.contiguous())
        means = found[:2] * scale
        if into.fresh:
            into.near.copy_(means.transpose(0, 1))
        ma, mb = means - into.near.transpose(0, 1)
        var_x, var_y, both = found[2:] * scale**2
        terms = torch.stack((torch.ones_like(ma), ma, mb, var_x + ma * ma, var_y + mb * mb, both + ma * mb), dim=1)
        into.totals.add_(torch.where(weight[:, None] > 0, terms * weight[:, None], 0))


# Whose convolutions tensor cores take with the channels side by side, as they leave them; MIOpen does not.
_NARROW = (torch.float16, torch.bfloat16)


def _is_narrow(network: Network) -> bool:
    return network.dtype in _NARROW and torch.version.hip is None


def _engine(network: Network) -> Engine:
    return ChannelsLast() if _is_narrow(network) else Engine()


class ChannelsLast(Engine):
    """16-bit maps with their channels side by side from the first convolution to the last sum; forward alone."""

    memory_format = torch.channels_last

    def layer(
        self, network: Network, stage: int, layer: int, h: torch.Tensor, padding: tuple[int, int]
    ) -> torch.Tensor:
        return conv2d_relu(h, *_prepared(network)[stage][layer], padding)

    def rectified(self, h: torch.Tensor) -> torch.Tensor:
        return h  # `layer` did


_Stages = tuple[tuple[tuple[torch.Tensor, torch.Tensor], ...], ...]
_ready: weakref.WeakKeyDictionary[Network, _Stages] = weakref.WeakKeyDictionary()  # gone with their network


def _prepared(network: Network) -> _Stages:
    """Weights with the channels side by side: otherwise every call would bring them there."""
    if (made := _ready.get(network)) is None:
        with torch.inference_mode(False), torch.no_grad():
            stages = tuple(
                tuple((weight.contiguous(memory_format=torch.channels_last), bias) for weight, bias in stage)
                for stage in network.stages
            )
        made = _ready.setdefault(network, stages)
    for stage in made:
        for weight, _ in stage:
            kept(weight)
    return made


def _maps(network: Network, image: torch.Tensor) -> Iterator[torch.Tensor]:
    """As `network.maps`, pooled here."""
    yield image
    if _is_narrow(network) and not (torch.is_grad_enabled() and image.requires_grad):
        h = normalised(image).to(network.dtype, memory_format=torch.channels_last)
        for number, layers in enumerate(_prepared(network)):
            if number:
                h = l2_pool(h, network.work)
            for weight, bias in layers:
                h = conv2d_relu(h, weight, bias)
            yield h
        return
    h = normalised(image).to(network.dtype)
    for number, stage in enumerate(network.stages):
        if number:
            h = l2_pool(h, network.work)
        for weight, bias in stage:
            h = F.relu_(conv2d(h, weight, bias, padding=1))
        yield h


def _pool(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], shares: Iterable[torch.Tensor] | None, work: torch.dtype
) -> Distance:
    """As `reference._pool`, from the five numbers of each channel."""
    waiting = None if shares is None else iter(shares)
    structure, texture = [], []
    for number, (x, y) in enumerate(pairs):
        alpha, beta = alpha_beta_of(number, x.device)
        share = None if waiting is None else next(waiting).to(work)
        mean_x, mean_y, var_x, var_y, both = statistics(x, y, share)
        luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
        similarity = (2 * both + C2) / (var_x + var_y + C2)
        structure.append(((1 - luminance) * alpha).sum(1))
        texture.append(((1 - similarity) * beta).sum(1))
    s, t = torch.stack(structure, dim=1), torch.stack(texture, dim=1)
    return Distance(s.sum(1) + t.sum(1), s, t)


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds: statistics and pooling in each dtype of maps, a small map, a mask."""
    for dtype in _DTYPES:
        name = str(dtype).removeprefix("torch.")
        leaf = torch.zeros((1, 64, 96, 96), dtype=dtype, requires_grad=True)
        with triton_support.recording() as made:
            statistics(leaf, leaf.detach()).sum().backward()
        yield f"dists moments {name}", made[0]
        yield f"dists moments gradient {name}", made[-1]
        with triton_support.recording() as made:
            l2_pool(leaf, torch.float64 if dtype == torch.float64 else torch.float32).sum().backward()
        yield f"dists pool {name}", made[0]
        yield f"dists pool gradient {name}", made[-1]
    for dtype in _NARROW:
        name = f"{str(dtype).removeprefix('torch.')}, channels last"
        for size, masked in (((1, 64, 96, 96), False), ((1, 512, 6, 6), True)):
            h = torch.zeros(size, dtype=dtype).contiguous(memory_format=torch.channels_last)
            share = torch.ones((1, 1, *size[2:])) if masked else None
            with triton_support.recording() as made:
                statistics(h, h, share)
                l2_pool(h, torch.float32)
            more = f"{name}{', small maps, mask' if masked else ''}"
            yield f"dists moments {more}", made[0]
            if not masked:
                yield f"dists pool {more}", made[-1]
    small = torch.zeros((2, 512, 14, 14))
    with triton_support.recording() as made:
        statistics(small, small, torch.ones((2, 1, 14, 14)))
    yield "dists moments float32, small maps, mask", made[0]
