"""SSIM in Triton: a lane walks down one column of windows and keeps the sums of the last rows in registers.

No shared memory but for the last sums, no barrier in the walk, no atomics. The arithmetic is in README.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import triton

from .. import native_support, triton_support
from ..registry import Call, refusal
from . import autograd, triton_gradient, triton_windows
from .reference import SSIMRows
from .settings import Settings

_ROWS = 122  # windows that a lane walks down, about: the rows above them are read twice
_WINDOW = 25  # the largest, in float32; beyond it the sums leave the registers
_SUMS = 66  # rows of a window × sums a row, in float64; so a window of 15, of 11 with a mask and components


def _large_image(call: Call) -> str | None:
    too_large = call.shape[2] * call.shape[3] >= 2**31
    return "takes images below 2**31 pixels a channel" if too_large else None


def _many_images(call: Call) -> str | None:
    too_many = call.shape[0] * call.shape[1] > triton_support.SECOND_AXIS
    return f"takes at most {triton_support.SECOND_AXIS} channels of images a call" if too_many else None


def _large_window(call: Call) -> str | None:
    if call.settings is None:
        return None
    double = call.needs_grad or call.settings.for_images(call.dtype, call.masked).double
    sums = 4 + call.settings.want_components + call.masked
    if (size := call.settings.window_size) > (_SUMS // sums if double else _WINDOW):
        return f"keeps no window of {size} with {sums} {'float64' if double else 'float32'} sums in registers"
    return None


UNSUPPORTED = (*autograd.UNSUPPORTED, _large_image, _many_images, _large_window)


def supports(call: Call) -> str | None:
    """Any layout and dtype; the window must fit the registers; gradients without masks and components."""
    return refusal(UNSUPPORTED, call)


class _Plan(NamedTuple):
    """How the windows of one channel are dealt to lanes; fixed by the image's size alone."""

    down: int  # windows
    across: int
    segments: int  # lanes one above the other
    rows: int  # windows that a lane walks down
    programs: int
    block: int


def _plan(height: int, width: int, size: int, reflect: bool) -> _Plan:
    less = 0 if reflect else size - 1
    down, across = height - less, width - less
    # the interpreter pays a row, not a lane: short walks of many lanes
    rows = triton.cdiv(down, triton.cdiv(down, triton_support.block(_ROWS, 3)))
    segments = triton.cdiv(down, rows)
    block = triton_support.lanes(segments * across, 256, 8192)
    return _Plan(down, across, segments, rows, triton.cdiv(segments * across, block), block)


def ssim(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Settings) -> SSIMRows:
    """As `reference.ssim`."""
    plain = valid is None and not s.want_components
    return autograd.run(autograd.Kernels(_forward, _backward, lambda s: plain and not s.reflect), x, y, valid, s)


def _forward(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Settings) -> SSIMRows:
    n, c, h, w = x.shape
    plan, masked = _plan(h, w, len(s.taps), s.reflect), valid is not None
    width = 2 + 3 * s.want_components + 2 * masked + 4 * s.want_apart
    partial = torch.empty((n * c, plan.programs, width), dtype=torch.float64, device=x.device)
    ssim_map = None
    if s.want_map:
        ssim_map = torch.empty((n, c, plan.down, plan.across), dtype=s.work, device=x.device)
    _launch(x, y, valid, s, plan, partial, ssim_map, None, None, None)
    sums = triton_support.fold(partial).reshape(width, n, c)
    count = sums[-1] if masked else torch.full((), plan.down * plan.across, dtype=torch.float64, device=x.device)
    means = 1 - sums / count
    components = dict(zip(autograd.COMPONENTS, means[2:5], strict=True)) if s.want_components else None
    coverage = (sums[-2] / count)[:, 0] if masked else None
    if not s.want_apart:
        return SSIMRows(means[0], means[1], components, ssim_map, coverage)
    absolute, squared = sums[2:4] / (h * w)
    extent = torch.stack((partial[..., 4].amin(), partial[..., 5].amax()))
    return SSIMRows(means[0], means[1], None, ssim_map, None, absolute, extent, squared)


def _launch(
    x: torch.Tensor,
    y: torch.Tensor,
    valid: torch.Tensor | None,
    s: Settings,
    plan: _Plan,
    *outputs: torch.Tensor | None,
) -> None:
    n, c, h, w = x.shape
    by_mask = (0, 0, 0) if valid is None else (valid.stride(0), *valid.stride()[2:])
    numbers = triton_support.numbers(x.device, *s.constants[:2], s.constants[3])
    triton_support.launch(
        triton_windows.walk, (plan.programs, n * c), x, y, valid, numbers, *outputs, c, h, w,
        *plan[:4], *x.stride(), *y.stride(), *by_mask,
        TAPS=s.window_in_precision, SIZE=len(s.taps), REFLECT=s.reflect, MASKED=valid is not None,
        SPLIT=s.want_components,
        DOUBLE=s.double, BLOCK=plan.block,
        APART=triton.cdiv(w, plan.across) if s.want_apart and outputs[0] is not None else 0, threads=plan.block,
    )  # fmt: skip


def _backward(
    x: torch.Tensor,
    y: torch.Tensor,
    s: Settings,
    by_rows: torch.Tensor,
    by_map: torch.Tensor | None,
    wanted: Sequence[bool],
) -> list[torch.Tensor | None]:
    """Two passes in float64, whatever the precision asked for."""
    n, c, h, w = x.shape
    plan = _plan(h, w, len(s.taps), False)
    windows = torch.empty((4, n * c, plan.down, plan.across), dtype=torch.float64, device=x.device)
    upstream = None if by_map is None else by_map.double()
    _launch(x, y, None, s.in_double, plan, None, None, windows, by_rows, upstream)
    by_absolute = by_rows[2] if s.want_apart else None
    return triton_gradient.spread(
        x, y, windows, by_absolute, s.taps, (wanted[0], wanted[1]), triton_support.block(_ROWS, 3)
    )


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds: the default window in every dtype, and each option once."""

    def made(
        dtype: torch.dtype, size: int = 11, gradient: bool = False, mask: torch.Tensor | None = None, **changed: Any
    ) -> list[triton_support.Launch]:
        x = torch.zeros((1, 1, 160, 160), dtype=dtype, requires_grad=gradient)
        with triton_support.recording() as recorded:
            rows = ssim(x, x.detach(), mask, Settings(window_size=size, **changed))
            if gradient:
                rows.score.sum().backward()
        return recorded

    def one(dtype: torch.dtype, size: int = 11, **changed: Any) -> triton_support.Launch:
        return made(dtype, size, **changed)[0]

    for dtype in native_support.DTYPE_CODES:
        yield f"ssim {str(dtype).removeprefix('torch.')}", one(dtype)
    yield "ssim float32, map", one(torch.float32, want_map=True)
    yield "ssim float32, apart", one(torch.float32, want_apart=True)
    *_, pixels = made(torch.float32, gradient=True, want_apart=True)
    yield "ssim gradient, pixels, float32, apart", pixels
    yield "ssim float32, reflect", one(torch.float32, border="reflect")
    yield f"ssim float32, window {_WINDOW}", one(torch.float32, _WINDOW)
    yield ("ssim float32, window 15 in float64", one(torch.float32, 15, precision="float64"))
    yield "ssim uint16 in float64", one(torch.uint16, precision="float64")
    for dtype, size in ((torch.float32, 11), (torch.bfloat16, 11), (torch.float64, 15)):
        name = f"{str(dtype).removeprefix('torch.')}{', window 15' if size == 15 else ''}"
        *_, windows, pixels = made(dtype, size, gradient=True)
        yield f"ssim gradient, windows, {name}", windows
        yield f"ssim gradient, pixels, {name}", pixels
    mask = torch.ones((1, 1, 160, 160), dtype=torch.bool)
    yield "ssim float32, mask, window 13", one(torch.float32, 13, mask=mask)
    everything: dict[str, Any] = {"mask": mask, "want_components": True, "want_map": True}
    yield "ssim uint8, mask, map, components", one(torch.uint8, **everything)
