"""What the compiled backends of SSIM share: the numbers their kernels take, and the gradient's way through torch.

A backend brings two functions of plain tensors. Gradients of first order are its own, over whole windows (a mirrored
border is padded, and folded back, by torch); a gradient of the gradient goes through the definition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .. import library, native_support
from ..registry import Call, no_loop
from . import float32_window, reference
from .reference import SSIMRows

COMPONENTS = ("luminance", "contrast", "structure")


class Setup(NamedTuple):
    """What a kernel needs beside the pixels."""

    taps: tuple[float, ...]
    reflect: bool
    double: bool  # float64 moments
    numbers: tuple[float, float, float, float]  # C1, C2, L, n / (n − 1)
    want_map: bool
    want_components: bool

    @property
    def work(self) -> torch.dtype:
        """The type of the moments and of the map."""
        return torch.float64 if self.double else torch.float32

    @property
    def window(self) -> tuple[float, ...]:
        """The taps in the precision of the moments."""
        return self.taps if self.double else float32_window.normalised(self.taps)

    def windows(self, x: torch.Tensor) -> tuple[int, int]:
        """How many windows an image has, down and across."""
        less = 0 if self.reflect else len(self.taps) - 1
        return x.shape[2] - less, x.shape[3] - less


class Kernels(NamedTuple):
    """A backend's side. Rows are (N, C); `by_rows` (2, N, C) and `by_map` are the loss's derivatives by each window's
    index and contrast·structure, and by the map (None: zero). Gradients come in the type of the images.
    """

    forward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, Setup], SSIMRows]
    backward: Callable[
        [torch.Tensor, torch.Tensor, Setup, torch.Tensor, torch.Tensor | None, Sequence[bool]],
        Sequence[torch.Tensor | None],
    ]


def in_double(dtype: torch.dtype, precision: str, masked: bool, components: bool) -> bool:
    """float64 moments: on request, for float64 images, and where speed is not the point."""
    return precision == "float64" or dtype == torch.float64 or masked or components


def numbers(
    data_range: float, k1: float, k2: float, count: int, sample_covariance: bool
) -> tuple[float, float, float, float]:
    """C1, C2, L and n / (n − 1), of windows of `count` pixels."""
    unbiased = count / (count - 1) if sample_covariance and count > 1 else 1.0
    return (k1 * data_range) ** 2, (k2 * data_range) ** 2, data_range, unbiased


def _no_gradient_of_all(call: Call) -> str | None:
    wanted = call.options.get("valid") or call.options.get("want_components")
    return "has no gradient of masked images and of components" if call.needs_grad and wanted else None


UNSUPPORTED = (no_loop, _no_gradient_of_all)  # by every compiled backend


def run(
    kernels: Kernels,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float,
    taps: tuple[float, ...],
    k1: float,
    k2: float,
    border: str,
    sample_covariance: bool,
    clamp_variance: bool,
    valid: torch.Tensor | None,
    want_map: bool,
    want_components: bool,
    precision: str,
) -> SSIMRows:
    """As `reference.ssim`.

    clamp_variance: variances never come out negative of these kernels, so there is nothing to switch.
    """
    setup = Setup(
        taps,
        border == "reflect" and len(taps) > 1,
        in_double(x.dtype, precision, valid is not None, want_components),
        numbers(data_range, k1, k2, len(taps) ** 2, sample_covariance),
        want_map,
        want_components,
    )
    if not (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)):
        return kernels.forward(x, y, valid, setup)
    if setup.reflect:
        half = (len(taps) - 1) // 2
        x, y = (F.pad(v, (half, half, half, half), mode="reflect") for v in (x, y))
        setup = setup._replace(reflect=False)
    again = functools.partial(
        reference.ssim,
        data_range=data_range,
        taps=taps,
        k1=k1,
        k2=k2,
        border="valid",
        sample_covariance=sample_covariance,
        clamp_variance=clamp_variance,
        valid=None,
        want_map=want_map,
        want_components=False,
        precision=precision,
    )
    score, structure, ssim_map = _SSIM.apply(x, y, setup, kernels, again)
    return SSIMRows(score, structure, None, ssim_map, None)


def _unset(x: torch.Tensor, s: Setup) -> SSIMRows:
    """Outputs that nobody reads: the gradient does not depend on them."""
    rows = torch.zeros((2, *x.shape[:2]), dtype=torch.float64, device=x.device)
    ssim_map = x.new_zeros((*x.shape[:2], *s.windows(x)), dtype=s.work) if s.want_map else None
    return SSIMRows(rows[0], rows[1], None, ssim_map, None)


class _SSIM(torch.autograd.Function):
    """Score, contrast·structure and map of whole windows."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: torch.Tensor, y: torch.Tensor, setup: Setup, kernels: Kernels, again: Callable[..., SSIMRows]
    ) -> tuple[torch.Tensor | None, ...]:
        ctx.save_for_backward(x, y)
        ctx.setup, ctx.kernels, ctx.again = setup, kernels, again
        ctx.set_materialize_grads(False)
        found = _unset(x, setup) if library.gradient_only() else kernels.forward(x, y, None, setup)
        return found.score, found.contrast_structure, found.map

    @staticmethod
    def backward(ctx: Any, *by: torch.Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        x, y = ctx.saved_tensors
        wanted, s = ctx.needs_input_grad[:2], ctx.setup
        if torch.is_grad_enabled():  # create_graph
            rows = ctx.again(x, y)
            pairs = [
                (out, g if out.dtype == g.dtype else g.to(out.dtype))
                for out, g in zip((rows.score, rows.contrast_structure, rows.map), by, strict=True)
                if g is not None
            ]
            found = native_support.reference_gradient(
                tuple(o for o, _ in pairs), (x, y), tuple(g for _, g in pairs), wanted
            )
            return *found, None, None, None
        down, across = s.windows(x)
        by_rows = torch.zeros((2, *x.shape[:2]), dtype=torch.float64, device=x.device)
        for row, g in zip(by_rows, by[:2], strict=True):
            if g is not None:
                torch.div(g, down * across, out=row)
        by_map = None if by[2] is None else by[2].to(s.work).contiguous()
        return *ctx.kernels.backward(x, y, s, by_rows, by_map, wanted), None, None, None
