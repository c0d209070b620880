"""The only validation of shape, dtype, range, mask and NaN: one way in for every metric.

Every message names the argument, what it was and what is accepted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

INTEGER_DTYPES = (torch.uint8, torch.uint16)
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ACCEPTED = "uint8, uint16, float16, bfloat16, float32, float64"


@dataclass(frozen=True)
class Pair:
    """A checked candidate `x` and reference `y`, both (N, C, H, W), on one device, of one dtype."""

    x: torch.Tensor
    y: torch.Tensor
    data_range: float
    valid: torch.Tensor | None  # (N, 1, H, W) bool; None: every pixel counts
    nan: str
    clipped_fraction: float
    lead: tuple[int, ...]  # the leading dimensions that the caller passed: (), (C,) or (N, C)

    @property
    def batched(self) -> bool:
        return len(self.lead) == 2


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def as_image(name: str, value: torch.Tensor) -> torch.Tensor:
    """`value` as (N, C, H, W), without a copy.

    Raises
    ------
    TypeError
        Not a tensor, or of a dtype that holds no image.
    ValueError
        Wrong rank, or no pixels.
    """
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is {type(value).__name__}; accepted: a torch.Tensor or NumPy array")
    if value.dtype not in INTEGER_DTYPES and value.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{name} has dtype {dtype_name(value.dtype)}; accepted: {_ACCEPTED}")
    if value.ndim not in (2, 3, 4):
        raise ValueError(f"{name} has shape {tuple(value.shape)}; accepted: (H, W), (C, H, W) or (N, C, H, W)")
    if value.numel() == 0:
        raise ValueError(f"{name} is empty, shape {tuple(value.shape)}; accepted: at least one image of one pixel")
    return value.reshape((1,) * (4 - value.ndim) + tuple(value.shape))


def is_plain(x: object, y: object) -> bool:
    """Whether `pair` would pass both as they are, and they are CPU tensors side by side in memory without a gradient.

    Decides nothing but speed: what is not plain takes the general path, which says what is wrong.
    """
    return (
        type(x) is torch.Tensor
        and type(y) is torch.Tensor
        and x.is_cpu
        and y.is_cpu
        and x.dtype is y.dtype
        and (x.dtype in FLOAT_DTYPES or x.dtype in INTEGER_DTYPES)
        and not (x.requires_grad or y.requires_grad)
        and 2 <= x.dim() <= 4
        and x.shape == y.shape
        and x.numel() > 0
        and x.is_contiguous()
        and y.is_contiguous()
    )


def as_data_range(dtype: torch.dtype, value: float | None) -> float:
    """Width of the intensity scale: as given, or that of an integer dtype."""
    if value is None:
        if dtype in INTEGER_DTYPES:
            return float(torch.iinfo(dtype).max)
        raise ValueError(
            f"data_range is missing; it is required for {dtype_name(dtype)} images "
            "(for example data_range=1.0), because float data does not say its scale"
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"data_range is {type(value).__name__}; accepted: a positive number") from None
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"data_range is {value}; accepted: a finite number above 0")
    return float(value)


def choice(name: str, value: object, accepted: tuple[object, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} is {value!r}; accepted: {', '.join(map(repr, accepted))}")


def positive_int(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; accepted: an integer of at least 1")
    return value


def as_mask(value: torch.Tensor | None, like: torch.Tensor, name: str = "mask") -> torch.Tensor | None:
    """`value` as a (N, 1, H, W) bool tensor on the device of `like`; True marks valid pixels."""
    if value is None:
        return None
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is {type(value).__name__}; accepted: a bool torch.Tensor or NumPy array")
    if value.dtype not in (torch.bool, torch.uint8):
        raise TypeError(f"{name} has dtype {dtype_name(value.dtype)}; accepted: bool (or uint8, 0 = invalid)")
    n, _, h, w = like.shape
    shapes = {2: (h, w), 3: (1, h, w), 4: (n, 1, h, w)}
    wanted = shapes.get(value.ndim)
    shape = tuple(value.shape)
    if wanted is None or (shape != wanted and not (value.ndim == 4 and shape == (1, 1, h, w)) and shape != (n, h, w)):
        raise ValueError(f"{name} has shape {shape}; accepted: ({h}, {w}), ({n}, {h}, {w}) or ({n}, 1, {h}, {w})")
    if value.ndim == 3 and shape[0] == n:
        value = value[:, None]
    return value.to(device=like.device, dtype=torch.bool).reshape(-1, 1, h, w).expand(n, 1, h, w)


def pair(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float | None,
    mask: torch.Tensor | None = None,
    nan: str = "error",
    overshoot: str = "keep",
) -> Pair:
    """Check candidate `x` against reference `y` and bring both to (N, C, H, W).

    nan="omit" turns non-finite pixels of either image into masked ones. nan="error" is not decided here:
    a metric calls `raise_if_nonfinite` when its result is not finite, so that finite data pays nothing.

    Raises
    ------
    TypeError, ValueError
        The argument's name, what it was, and what is accepted.
    """
    rank = x.ndim if isinstance(x, torch.Tensor) else 0
    x4, y4 = as_image("x", x), as_image("y", y)
    if x.shape != y.shape:
        raise ValueError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; accepted: the same shape")
    if x.dtype != y.dtype:
        raise TypeError(
            f"x has dtype {dtype_name(x.dtype)} and y {dtype_name(y.dtype)}; accepted: the same dtype "
            "(convert one on purpose, so that both are on one scale)"
        )
    if x.device != y.device:
        raise ValueError(f"x is on {x.device} and y on {y.device}; accepted: the same device")
    choice("nan", nan, ("error", "propagate", "omit"))
    choice("overshoot", overshoot, ("keep", "clip", "error"))
    scale = as_data_range(x.dtype, data_range)
    valid = as_mask(mask, x4)
    if nan == "omit" and x.dtype in FLOAT_DTYPES:
        finite = (torch.isfinite(x4) & torch.isfinite(y4)).all(dim=1, keepdim=True)
        if not bool(finite.all()):
            valid = finite if valid is None else valid & finite
    if valid is not None and x.dtype in FLOAT_DTYPES:
        # 0 · NaN is NaN: a masked pixel must not reach the arithmetic at all
        x4 = torch.where(valid, x4, torch.zeros((), dtype=x4.dtype, device=x4.device))
        y4 = torch.where(valid, y4, torch.zeros((), dtype=y4.dtype, device=y4.device))
    clipped = 0.0
    if overshoot != "keep":
        x4, y4, clipped = _clip(x4, y4, scale, overshoot)
    return Pair(x4, y4, scale, valid, nan, clipped, tuple(x.shape[: rank - 2]))


def _clip(x: torch.Tensor, y: torch.Tensor, scale: float, overshoot: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Values outside [0, data_range]: counted, and clipped or refused."""
    outside = [int(((v.double() < 0) | (v.double() > scale)).sum()) for v in (x, y)]
    if overshoot == "error" and any(outside):
        name, count = next((n, c) for n, c in zip("xy", outside, strict=True) if c)
        raise ValueError(
            f'{name} has {count} values outside [0, {scale:g}]; accepted: values inside, or overshoot="keep" | "clip"'
        )
    if any(outside):
        if x.dtype == torch.uint16:  # torch has no clamp for uint16
            x, y = (v.to(torch.int32).clamp(max=int(scale)).to(torch.uint16) for v in (x, y))
        else:
            x, y = x.clamp(0, scale), y.clamp(0, scale)
    return x, y, sum(outside) / (x.numel() + y.numel())


def raise_if_nonfinite(**images: torch.Tensor) -> None:
    """Name the image that holds non-finite pixels; returns where none does."""
    for name, value in images.items():
        if value.dtype in FLOAT_DTYPES:
            bad = int((~torch.isfinite(value)).sum())
            if bad:
                raise ValueError(
                    f"{name} has {bad} non-finite pixels; accepted: finite values, "
                    'or nan="omit" (treat as masked) or nan="propagate"'
                )


def reduce(rows: torch.Tensor, reduction: str, checked: Pair) -> torch.Tensor:
    """Per-image rows (N,) to what the caller asked: their mean, their sum, or the rows."""
    choice("reduction", reduction, ("mean", "sum", "none"))
    if reduction == "mean":
        return rows[0] if rows.shape[0] == 1 else rows.mean()
    if reduction == "sum":
        return rows.sum()
    return rows if checked.batched else rows[0]
