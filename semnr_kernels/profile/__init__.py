"""PSNR, SSIM and two-region CNR from one read of the pixels, where the C++ or CUDA kernels can; see README.md."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch

from .. import native_support, registry, tensor_kinds
from ..cnr.reference import Moments
from ..errors import BackendUnavailable
from ..ssim import CONVENTIONS, too_wide
from ..ssim.settings import Settings
from . import cuda

_OPS = ("pixel", "ssim", "cnr")
# of the C++ kernels: 16-bit floats are scored one metric at a time
_DTYPES = (torch.uint8, torch.uint16, torch.float32, torch.float64)


# As `ssim` states them in its result.
SSIM_SETTINGS = {"convention": "wang2004", **CONVENTIONS["wang2004"].told(), "precision": "float32"}


class Noisy(NamedTuple):
    """What the noisy image adds, (N,) each: its squared error to y; ratio and contrast retention of `cnr` with
    kind="fixed_noise", and their lowest among windows of 64 pixels every 32 that hold enough of each region."""

    mse: torch.Tensor
    ratio: torch.Tensor
    retention: torch.Tensor
    ratio_worst: torch.Tensor
    retention_worst: torch.Tensor


class Together(NamedTuple):
    """(N,) float64 rows: errors over the pixels, SSIM as `semnr.ssim` by default, moments of the two regions of x
    and of all of y; `noisy` where a noisy image was given and read with them."""

    mse: torch.Tensor
    mae: torch.Tensor
    ssim: torch.Tensor
    signal: Moments
    background: Moments
    reference_mean: torch.Tensor
    reference_variance: torch.Tensor
    noisy: Noisy | None = None


def together(
    x: torch.Tensor,
    y: torch.Tensor,
    signal: torch.Tensor,
    background: torch.Tensor,
    *,
    data_range: float,
    noisy: torch.Tensor | None = None,
    min_pixels: int = 64,
    backend: str | None = "auto",
) -> Together | None:
    """The rows of `pixel`, `ssim` and `cnr`'s moments of one call, or None where they must be asked one by one.

    x, y: as `checks.pair` gives them, unmasked; signal, background: (N, 1, H, W) bool. One channel alone. None too
    where a row is not finite, a region empty or the two not disjoint: the op asked next says what is wrong.
    noisy: the image that x was made of, of its shape and dtype. It is read with the others on a CPU, where sides are
    of 64 pixels or more; elsewhere `noisy` of the result is None. min_pixels: of each region in a window that counts.
    """
    n, c, h, w = x.shape
    settings = replace(CONVENTIONS["wang2004"], data_range=data_range)
    if not tensor_kinds.ordinary((x, y, signal, background)):
        return None
    if c != 1 or (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)) or min(h, w) < settings.window_size:
        return None
    if (
        not x.is_cpu
        or x.dtype not in _DTYPES
        or any(v.stride(-1) != 1 for v in (x, y, signal, background))
        or not all(registry.native_by_default(op, backend) for op in _OPS)
    ):
        return _on_cuda(x, y, signal, background, settings, backend)
    module = native_support.module()
    rows = native_support.empty((n, module.PROFILE_ROW), torch.float64)
    cell = module.PROFILE_CELL
    beside = noisy is not None and min(h, w) >= 2 * cell and noisy.stride(-1) == 1 and tensor_kinds.ordinary((noisy,))
    seen = native_support.empty((n, module.PROFILE_NOISY_ROW), torch.float64) if beside else None
    module.profile_scores(
        native_support.image(x),
        native_support.image(y),
        native_support.mask(signal),
        native_support.mask(background),
        native_support.DTYPE_CODES[x.dtype],
        x.shape,
        settings.for_images(x.dtype, False).window_in_precision,
        (False, x.dtype == torch.float64),
        settings.constants,
        torch.get_num_threads(),
        native_support.address(rows),
        native_support.image(noisy) if beside and noisy is not None else None,
        min_pixels,
        native_support.address(seen),
    )
    if not all(row[3] == 0 and all(map(math.isfinite, row)) for row in rows.tolist()):  # row[3]: pixels in both regions
        return None
    mse, mae, ssim, _, mean, variance, *moments = rows.unbind(dim=1)
    beside_them = None if seen is None else Noisy(*seen.unbind(dim=1))
    return Together(mse, mae, ssim, Moments(*moments[:3]), Moments(*moments[3:]), mean, variance, beside_them)


def _on_cuda(
    x: torch.Tensor,
    y: torch.Tensor,
    signal: torch.Tensor,
    background: torch.Tensor,
    settings: Settings,
    backend: str | None,
) -> Together | None:
    """`together` where each of the three metrics would run on the CUDA kernels, else None."""
    named, _ = registry._requested(backend)
    if named != "cuda-emulated" and (x.is_cpu or named not in ("auto", "cuda")):
        return None
    if cuda.why_not(x, y) is not None:
        return None
    try:
        calls = [
            registry.Call.of(op, x, y, settings=settings if op == "ssim" else None, masked=op == "cnr") for op in _OPS
        ]
        chosen = {registry.choose(call, backend).backend for call in calls}
    except BackendUnavailable:
        return None
    if chosen not in ({"cuda"}, {"cuda-emulated"}) or too_wide(x, y, settings.data_range, settings.k2):
        return None
    emulated = chosen == {"cuda-emulated"}
    scores = cuda.scores(x, y, signal, background, settings, emulated=emulated)
    rows = torch.stack([scores.mse, scores.mae, scores.ssim, *scores.signal, *scores.background, *scores.reference])
    if not bool((torch.isfinite(rows).all(dim=0) & (scores.shared == 0)).all()):
        return None
    _, mean, variance = scores.reference
    return Together(scores.mse, scores.mae, scores.ssim, scores.signal, scores.background, mean, variance)
