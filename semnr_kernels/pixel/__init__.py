"""MSE, MAE and PSNR: the checked calls, the choice of the backend and the reduction. The formulas are in README.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from .. import checks, library, outputs, registry
from ..result import Result
from . import cuda, native, reference

__all__ = ["errors", "infinite", "mae", "mse", "psnr", "to_db"]

registry.register("pixel", "reference", reference.errors)
registry.register_native("pixel", native.errors, native.supports, native.UNSUPPORTED)
registry.register_triton("pixel", "errors")
registry.register_cuda("pixel", cuda.errors, cuda.supports, cuda.UNSUPPORTED)

REDUCTIONS = ("mean", "sum", "none")


def _prepare(a: Mapping[str, Any], scaled: bool) -> tuple[checks.Pair, registry.Call]:
    # an error in grey levels has no scale: only `overshoot` asks for one
    unasked = not scaled and a["data_range"] is None and a["overshoot"] == "keep"
    checked = checks.pair_of(a, **({"data_range": 1.0} if unasked else {}))
    return checked, registry.Call.of("pixel", checked.x, checked.y, masked=checked.valid is not None)


def errors(a: Mapping[str, Any], scaled: bool = True) -> tuple[checks.Pair, torch.Tensor, torch.Tensor]:
    """MSE and MAE of one call, computed in one pass over the pixels.

    Parameters
    ----------
    a : mapping of str to value
        The arguments of a call of `psnr`, by name.
    scaled : bool
        Whether floating images must come with their `data_range`.

    Returns
    -------
    checks.Pair
        The checked images, (N, C, H, W).
    Tensor
        MSE, (N,) float64, in squared grey levels.
    Tensor
        MAE, (N,) float64, in grey levels.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> options = {"mask": None, "data_range": None, "nan": "error", "overshoot": "keep", "backend": "auto"}
    >>> checked, square, absolute = kernels.pixel.errors({"x": x, "y": y, **options})
    >>> square, absolute
    (tensor([5.9427], dtype=torch.float64), tensor([1.9844], dtype=torch.float64))
    """
    checked, call = _prepare(a, scaled)
    square, absolute = registry.choose(call, a["backend"]).run(checked.x, checked.y, checked.valid)
    checks.refuse_nonfinite(checked, square)
    return checked, square, absolute


def _plain_error(
    x: torch.Tensor,
    y: torch.Tensor,
    mask: torch.Tensor | None,
    reduction: str,
    nan: str,
    overshoot: str,
    backend: str | None,
    *,
    absolute: bool = False,
) -> float | None:
    """MSE or MAE of the usual call, one plain image to one number; None: the general path answers, or says why not."""
    if (
        mask is not None
        or reduction != "mean"
        or nan != "error"
        or overshoot != "keep"
        or not checks.is_plain(x, y)
        or (x.dim() == 4 and x.shape[0] != 1)
        or not registry.native_by_default("pixel", backend)
    ):
        return None
    error = native.one_image(x, y, absolute=absolute)
    return error if math.isfinite(error) else None


_op = library.op(outputs=outputs.scores_alone, call=lambda a: _prepare(a, False)[1], linear=True)


@_op
def mse(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    nan: str = "error",
    overshoot: str = "keep",
    data_range: float | None = None,
    backend: str | None = "auto",
) -> torch.Tensor:
    """Mean squared error (x − y)², in squared grey levels, at least 0. It is exact for integers and differentiable.

    Parameters
    ----------
    x, y : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, of one shape and dtype: uint8, uint16, float16, bfloat16, float32 or float64.
    mask : bool Tensor, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid. Only valid pixels count.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range]: taken as they are, clipped, or refused.
    data_range : float, optional
        Width of the intensity scale in grey levels. Only `overshoot` reads it. Default for integers: the range of the
        dtype.
    backend : str, optional
        "auto", or a name of `backends()`. A named backend never falls back.

    Returns
    -------
    Tensor
        A float64 scalar, or (N,) with reduction="none".

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> kernels.pixel.mse(x, y)
    tensor(5.9427, dtype=torch.float64)
    """
    if data_range in (None, 1) and (error := _plain_error(x, y, mask, reduction, nan, overshoot, backend)) is not None:
        return torch.scalar_tensor(error, dtype=torch.float64, device=x.device)
    checked, square, _ = errors(locals(), scaled=False)
    return checks.reduce(square, reduction, checked)


@_op
def mae(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    nan: str = "error",
    overshoot: str = "keep",
    data_range: float | None = None,
    backend: str | None = "auto",
) -> torch.Tensor:
    """Mean absolute error |x − y|, in grey levels, at least 0. It is exact for integers and differentiable.

    Parameters
    ----------
    x, y, mask, reduction, nan, overshoot, data_range, backend
        As for `mse`.

    Returns
    -------
    Tensor
        A float64 scalar, or (N,) with reduction="none".

    Raises
    ------
    TypeError, ValueError, BackendUnavailable
        As `mse`.

    Examples
    --------
    >>> kernels.pixel.mae(x, y)
    tensor(1.9844, dtype=torch.float64)
    """
    error = (
        _plain_error(x, y, mask, reduction, nan, overshoot, backend, absolute=True) if data_range in (None, 1) else None
    )
    if error is not None:
        return torch.scalar_tensor(error, dtype=torch.float64, device=x.device)
    checked, _, absolute = errors(locals(), scaled=False)
    return checks.reduce(absolute, reduction, checked)


@library.op(outputs=outputs.scores_alone, call=lambda a: _prepare(a, True)[1])
def psnr(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float | None = None,
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    nan: str = "error",
    overshoot: str = "keep",
    details: bool = False,
    backend: str | None = "auto",
) -> Any:
    """Peak signal-to-noise ratio 10 log10(L² / MSE), in dB, L the data range. It is infinite for identical images.

    Parameters
    ----------
    x, y : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, of one shape and dtype: uint8, uint16, float16, bfloat16, float32 or float64.
    data_range : float, optional
        Width of the intensity scale L in grey levels. It is required for floating images. Default for integers: the
        range of the dtype, so that 10-bit data in uint16 must say 1023.
    mask : bool Tensor, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid. Only valid pixels count.
    reduction : {"mean", "sum", "none", "mean_mse"}
        Over the images: their mean in dB, their sum, one value an image, or the PSNR of their mean squared error.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range]: taken as they are, clipped, or refused.
    details : bool
        Return a `Result`, whose components "mse" and "mae" are (N,).
    backend : str, optional
        "auto", or a name of `backends()`. A named backend never falls back.

    Returns
    -------
    Tensor or Result
        A float64 scalar, or (N,) with reduction="none".

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> kernels.pixel.psnr(x, y)
    tensor(40.3910, dtype=torch.float64)
    >>> kernels.pixel.psnr(x, y, details=True).components["mse"]
    tensor([5.9427], dtype=torch.float64)
    """
    checks.choice("reduction", reduction, (*REDUCTIONS, "mean_mse"))
    if not details and (error := _plain_error(x, y, mask, reduction, nan, overshoot, backend)) is not None:
        scale = checks.as_data_range(x.dtype, data_range)
        decibels = 10 * math.log10(scale**2 / error) if error else math.inf
        return torch.scalar_tensor(decibels, dtype=torch.float64, device=x.device)
    checked, square, absolute = errors(locals())
    rows = to_db(square, checked.data_range)
    value = (
        to_db(square.mean(), checked.data_range) if reduction == "mean_mse" else checks.reduce(rows, reduction, checked)
    )
    if not details:
        return value
    flags = [*infinite(int(torch.isinf(rows).sum()))]
    if checked.valid is not None and (empty := int((~checked.valid.any(dim=3).any(dim=2).any(dim=1)).sum())):
        flags.append(f"{empty} images without a valid pixel: undefined (NaN)")
    return Result(
        value,
        checked.data_range,
        components={"mse": square, "mae": absolute},
        clipped_fraction=checked.clipped_fraction,
        flags=tuple(flags),
        settings={"reduction": reduction, "nan": nan, "overshoot": overshoot},
    )


def infinite(count: int) -> tuple[str, ...]:
    """The flags of a result in which some images are identical to their reference.

    Parameters
    ----------
    count : int
        Number of such images, at least 0.

    Returns
    -------
    tuple of str
        One text, or none where the count is 0.

    Examples
    --------
    >>> kernels.pixel.infinite(2)
    ('2 identical images: infinite PSNR',)
    """
    return (f"{count} identical images: infinite PSNR",) if count else ()


def to_db(mse: torch.Tensor, data_range: float) -> torch.Tensor:
    """PSNR of a mean squared error: 10 log10(L² / MSE).

    Parameters
    ----------
    mse : Tensor, any shape
        Mean squared errors in squared grey levels, at least 0.
    data_range : float
        Width of the intensity scale L in grey levels, above 0.

    Returns
    -------
    Tensor
        dB, of the shape and dtype of `mse`; infinite where the error is 0.

    Examples
    --------
    >>> kernels.pixel.to_db(torch.tensor([100.0, 0.0]), 255)
    tensor([28.1308,     inf])
    """
    return 10 * torch.log10(data_range**2 / mse)
