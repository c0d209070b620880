"""MSE, MAE and PSNR: the contract (checks, choice of backend, reduction). The formula is in README.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from .. import checks, library, outputs, registry
from ..result import Result
from . import cuda, native, reference

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
    """The checked images of a call with these arguments, and their rows (N,) of MSE and MAE.

    scaled: whether the images must say their data_range.
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
    """Mean squared error per image; see `semnr.mse`. `data_range` matters to `overshoot` alone."""
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
    """Mean absolute error per image; see `semnr.mae`."""
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
    """PSNR in dB; see `semnr.psnr`."""
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
    """What is said of `count` images that are identical to their reference."""
    return (f"{count} identical images: infinite PSNR",) if count else ()


def to_db(mse: torch.Tensor, data_range: float) -> torch.Tensor:
    """10 log10(L² / MSE); infinite where the images are identical."""
    return 10 * torch.log10(data_range**2 / mse)
