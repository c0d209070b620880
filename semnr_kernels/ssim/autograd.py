"""What the compiled backends of SSIM share: the torch autograd function.

A backend brings two functions of plain tensors. Gradients of first order are its own, over whole windows (a mirrored
border is padded, and folded back, by torch); a gradient of the gradient goes through the definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .. import library, native_support
from ..registry import Call, no_loop
from . import reference
from .reference import SSIMRows
from .settings import Settings

COMPONENTS = ("luminance", "contrast", "structure")


class Kernels(NamedTuple):
    """A backend's side. Rows are (N, C); `by_rows` (2, N, C) and `by_map` are the loss's derivatives by each window's
    index and contrast·structure, and by the map (None: zero). Gradients come in the type of the images.

    apart: whether the kernels measure |x − y| too under these settings, which ask for it with `want_apart`; `by_rows`
    is then (3, N, C), the last by |x − y| of each pixel. Otherwise torch does that beside them.
    """

    forward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, Settings], SSIMRows]
    backward: Callable[
        [torch.Tensor, torch.Tensor, Settings, torch.Tensor, torch.Tensor | None, Sequence[bool]],
        Sequence[torch.Tensor | None],
    ]
    apart: Callable[[Settings], bool] = lambda s: False


def _no_gradient_of_all(call: Call) -> str | None:
    wanted = call.masked or call.setting("want_components", False)
    return "has no gradient of masked images and of components" if call.needs_grad and wanted else None


UNSUPPORTED = (no_loop, _no_gradient_of_all)  # by every compiled backend


def run(kernels: Kernels, x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, settings: Settings) -> SSIMRows:
    """As `reference.ssim`."""
    s = settings.for_images(x.dtype, valid is not None)
    gradient = torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)
    # with a mirrored border the gradient is that of padded images, of which |x − y| would count some pixels twice
    if s.want_apart and ((gradient and s.reflect) or not kernels.apart(s)):
        rows = run(kernels, x, y, valid, replace(settings, want_apart=False))
        found = reference.measured(x, y)
        return rows._replace(absolute=found["absolute"], extent=found["extent"], squared=found["squared"])
    if not gradient:
        return kernels.forward(x, y, valid, s)
    if s.reflect:
        half = s.window_size // 2
        x, y = (F.pad(v, (half, half, half, half), mode="reflect") for v in (x, y))
        s = replace(s, border="valid")
    return SSIMRows(*_SSIM.apply(x, y, s, kernels))


def _unset(x: torch.Tensor, s: Settings) -> SSIMRows:
    """Outputs that nobody reads: the gradient does not depend on them."""
    rows = torch.zeros((2, *x.shape[:2]), dtype=torch.float64, device=x.device)
    ssim_map = x.new_zeros((*x.shape[:2], *s.windows(x)), dtype=s.work) if s.want_map else None
    zero = torch.zeros_like(rows[0])
    apart = (zero, rows.new_zeros(2), zero.clone()) if s.want_apart else (None, None, None)
    return SSIMRows(rows[0], rows[1], None, ssim_map, None, *apart)


class _SSIM(torch.autograd.Function):
    """Score, contrast·structure and map of whole windows; |x − y| and the extremes where they are asked for."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, y: torch.Tensor, s: Settings, kernels: Kernels
    ) -> tuple[torch.Tensor | None, ...]:
        ctx.save_for_backward(x, y)
        ctx.settings, ctx.kernels = s, kernels
        ctx.set_materialize_grads(False)
        rows = _unset(x, s) if library.gradient_only() else kernels.forward(x, y, None, s)
        if rows.extent is not None and rows.squared is not None:
            ctx.mark_non_differentiable(rows.extent, rows.squared)
        return rows.score, rows.contrast_structure, None, rows.map, None, rows.absolute, rows.extent, rows.squared

    @staticmethod
    def backward(ctx: Any, *by: torch.Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        x, y = ctx.saved_tensors
        wanted, s = ctx.needs_input_grad[:2], ctx.settings
        if torch.is_grad_enabled():  # create_graph
            rows = reference.ssim(x, y, None, s)
            outputs = (
                (rows.score, by[0]),
                (rows.contrast_structure, by[1]),
                (rows.map, by[3]),
                (rows.absolute, by[5]),
            )
            pairs = [(out, g.to(out.dtype)) for out, g in outputs if out is not None and g is not None]
            gradients = native_support.reference_gradient(
                tuple(o for o, _ in pairs), (x, y), tuple(g for _, g in pairs), wanted
            )
            return *gradients, None, None
        down, across = s.windows(x)
        height, width = x.shape[2:]
        counted = ((by[0], down * across), (by[1], down * across), (by[5], height * width))[: 3 if s.want_apart else 2]
        by_rows = torch.zeros((len(counted), *x.shape[:2]), dtype=torch.float64, device=x.device)
        for row, (g, count) in zip(by_rows, counted, strict=True):
            if g is not None:
                torch.div(g, count, out=row)
        by_map = None if by[3] is None else by[3].to(s.work).contiguous()
        return *ctx.kernels.backward(x, y, s, by_rows, by_map, wanted), None, None
