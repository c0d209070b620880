"""SSIM in C++: float32 moments shifted per tile (or float64), any odd symmetric window, masks, maps and components.

The gradient is fused and recomputes the moments; a gradient of the gradient goes through the definition.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import native_support
from ..registry import Call, refusal
from . import autograd
from .reference import SSIMRows
from .settings import Settings

_BACKWARD_SIZE = 65  # csrc/ssim/ssim_cpu.hpp: the largest window with a gradient


def _large_gradient(call: Call) -> str | None:
    large = call.needs_grad and call.setting("window_size", 0) > _BACKWARD_SIZE
    return f"has no gradient for windows above {_BACKWARD_SIZE}" if large else None


UNSUPPORTED = (*autograd.UNSUPPORTED, _large_gradient)


def supports(call: Call) -> str | None:
    """Any layout and dtype; gradients without masks and components."""
    return refusal(UNSUPPORTED, call)


def one_image(x: torch.Tensor, y: torch.Tensor, settings: Settings) -> float:
    """The score of a plain pair (`checks.is_plain`) of one channel."""
    h, w = x.shape[-2:]
    s = settings.for_images(x.dtype, False)
    return native_support.module().ssim_flat(
        native_support.address(x),
        native_support.address(y),
        h,
        w,
        native_support.DTYPE_CODES[x.dtype],
        s.window_in_precision,
        (s.reflect, s.double),
        s.constants,
        torch.get_num_threads(),
    )


def ssim(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Settings, *, isa: str | None = None
) -> SSIMRows:
    """As `reference.ssim`, for CPU tensors; `isa` forces an instruction set."""
    kernels = autograd.Kernels(
        lambda a, b, valid, s: _forward(a, b, valid, s, isa),
        lambda a, b, s, by_rows, by_map, wanted: _backward(a, b, s, by_rows, by_map, wanted, isa),
        apart=lambda s: True,
    )
    return autograd.run(kernels, x, y, valid, s)


def _forward(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Settings, isa: str | None = None
) -> SSIMRows:
    n, c = x.shape[:2]
    rows = native_support.empty((5 if s.want_components else 2, n, c), torch.float64)
    ssim_map = native_support.empty((n, c, *s.windows(x)), s.work) if s.want_map else None
    coverage = None if valid is None else native_support.empty(n, torch.float64)
    apart = native_support.empty(2 * n * c + 2, torch.float64) if s.want_apart else None
    native_support.module(isa).ssim_forward(
        native_support.image(x),
        native_support.image(y),
        native_support.mask(valid),
        native_support.DTYPE_CODES[x.dtype],
        x.shape,
        s.window_in_precision,
        (s.reflect, s.double),
        s.constants,
        torch.get_num_threads(),
        native_support.address(rows),
        s.want_components,
        native_support.address(ssim_map),
        native_support.address(coverage),
        native_support.address(apart),
    )
    components = dict(zip(autograd.COMPONENTS, rows[2:], strict=True)) if s.want_components else None
    if apart is None:
        return SSIMRows(rows[0], rows[1], components, ssim_map, coverage)
    absolute, squared = apart[:-2].view(2, n, c)
    return SSIMRows(rows[0], rows[1], components, ssim_map, coverage, absolute, apart[-2:], squared)


def _backward(
    x: torch.Tensor,
    y: torch.Tensor,
    s: Settings,
    by_rows: torch.Tensor,
    by_map: torch.Tensor | None,
    wanted: Sequence[bool],
    isa: str | None = None,
) -> list[torch.Tensor | None]:
    out = [native_support.empty(x.shape, s.work) if w else None for w in wanted]
    native_support.module(isa).ssim_backward(
        native_support.image(x),
        native_support.image(y),
        native_support.DTYPE_CODES[x.dtype],
        x.shape,
        s.window_in_precision,
        (False, s.double),
        s.constants,
        torch.get_num_threads(),
        native_support.address(by_rows),
        native_support.address(by_map),
        s.want_apart,
        *(native_support.address(g) for g in out),
    )
    return [None if g is None else g.to(x.dtype) for g in out]
