"""The only validation of shape, dtype, range, mask and NaN: every metric calls it first.

Every message names the argument, what it was and what is accepted.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from . import tensor_kinds

INTEGER_DTYPES = (torch.uint8, torch.uint16)
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


S = TypeVar("S", bound=_Dataclass)
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
    _dense(name, value)
    if value.dtype not in INTEGER_DTYPES and value.dtype not in FLOAT_DTYPES:
        raise TypeError(f"{name} has dtype {dtype_name(value.dtype)}; accepted: {_ACCEPTED}")
    if value.ndim not in (2, 3, 4):
        raise ValueError(f"{name} has shape {tuple(value.shape)}; accepted: (H, W), (C, H, W) or (N, C, H, W)")
    if value.numel() == 0:
        raise ValueError(f"{name} is empty, shape {tuple(value.shape)}; accepted: at least one image of one pixel")
    if value.ndim == 3 and value.shape[0] not in (1, 3):
        raise two_readings(name, value.shape)
    return tensor_kinds.plain(value).reshape((1,) * (4 - value.ndim) + tuple(value.shape))


def two_readings(name: str, shape: Sequence[int]) -> ValueError:
    """Of three dimensions that may be the channels of one image or a stack of images: what to give instead."""
    count, height, width = shape
    if width <= 4 < height:
        return ValueError(f"{name} has shape {tuple(shape)}; are the channels last? accepted: (C, H, W), C of 1 or 3")
    return ValueError(
        f"{name} has shape ({count}, {height}, {width}), which reads as one image of {count} channels and as a stack "
        f"of {count} images; accepted: ({count}, 1, {height}, {width}) for the stack, (1, {count}, {height}, {width}) "
        "for the channels"
    )


def _dense(name: str, value: torch.Tensor) -> None:
    if (kind := tensor_kinds.what(value)) is not None:
        raise TypeError(f"{name} is {kind}")


def is_plain(x: object, y: object) -> bool:
    """Whether `pair` would pass both as they are, and they are CPU tensors side by side in memory without a gradient.

    Decides nothing but speed: what is not plain takes the general path, which says what is wrong.
    """
    return (
        type(x) is torch.Tensor
        and type(y) is torch.Tensor
        and x.is_cpu
        and y.is_cpu
        and not (x.is_nested or y.is_nested)
        and x.layout is torch.strided
        and y.layout is torch.strided
        and tensor_kinds.quiet()
        and x.dtype is y.dtype
        and (x.dtype in FLOAT_DTYPES or x.dtype in INTEGER_DTYPES)
        and not (x.requires_grad or y.requires_grad)
        and 2 <= x.dim() <= 4
        and (x.dim() != 3 or x.shape[0] in (1, 3))
        and x.shape == y.shape
        and x.numel() > 0
        and x.is_contiguous()
        and y.is_contiguous()
        and not (x.is_neg() or y.is_neg())
    )


def is_plain_on_device(x: object, y: object) -> bool:
    """Whether `pair` would pass both as they are, and they are contiguous tensors of one device: as `is_plain`."""
    return (
        type(x) in tensor_kinds._PLAIN_TYPES
        and type(y) in tensor_kinds._PLAIN_TYPES
        and x.layout is y.layout is torch.strided  # type: ignore[attr-defined]
        and not (x.is_nested or y.is_nested)  # type: ignore[attr-defined]
        and x.dtype is y.dtype  # type: ignore[attr-defined]
        and x.shape == y.shape  # type: ignore[attr-defined]
        and x.is_contiguous()  # type: ignore[attr-defined]
        and y.is_contiguous()  # type: ignore[attr-defined]
        and x.device == y.device  # type: ignore[attr-defined]
        and not (x.is_neg() or y.is_neg())  # type: ignore[attr-defined]
        and tensor_kinds.quiet()
    )


# --- options --------------------------------------------------------------------------------------------------

# Widths of a scale whose squares, and the squares of the differences on them, stay far inside float64.
_SCALES = (1e-100, 1e100)


def as_data_range(dtype: torch.dtype, value: Any) -> float:
    """Width of the intensity scale: as given, or that of an integer dtype."""
    if value is None:
        if dtype in INTEGER_DTYPES:
            return float(torch.iinfo(dtype).max)
        raise ValueError(
            f"data_range is missing; it is required for {dtype_name(dtype)} images "
            "(for example data_range=1.0), because float data does not say its scale"
        )
    scale = number("data_range", value, accepted="a positive number")
    if not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"data_range is {value}; accepted: a finite number above 0")
    if not _SCALES[0] <= scale <= _SCALES[1]:
        raise ValueError(f"data_range is {value}; accepted: a number from {_SCALES[0]:g} to {_SCALES[1]:g}")
    return scale


def choice(name: str, value: object, accepted: tuple[object, ...]) -> None:
    if not any(isinstance(value, type(one)) and value == one for one in accepted):
        raise ValueError(f"{name} is {value!r}; accepted: {', '.join(map(repr, accepted))}")


def number(name: str, value: Any, *, least: float | None = None, accepted: str = "a number") -> float:
    """`value` as a Python float: any real number, NumPy's and 0-d arrays and tensors of them; no bool, no text.

    least: what is below it, or not finite, is refused.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        # an array or a tensor that holds one number says its dtype and shape
        shape, kind = getattr(value, "shape", None), str(getattr(value, "dtype", "bool"))
        if shape is None or tuple(shape) != () or "bool" in kind or "complex" in kind:
            raise TypeError(f"{name} is {type(value).__name__}; accepted: {accepted}")
    try:
        converted = float(value)
    except OverflowError:  # an integer beyond float64
        converted = math.inf
    if least is not None and not (math.isfinite(converted) and converted >= least):
        raise ValueError(f"{name} is {converted}; accepted: a finite number of at least {least:g}")
    return converted


def integer(name: str, value: Any, least: int | None = 1) -> int:
    """`value` as a Python int: any integer, NumPy's too; no bool, no float."""
    try:
        converted = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        converted = None
    if converted is None or "bool" in str(getattr(value, "dtype", "")) or (least is not None and converted < least):
        raise ValueError(f"{name} is {value!r}; accepted: an integer{'' if least is None else f' of at least {least}'}")
    return converted


def positive_int(name: str, value: Any) -> int:
    return integer(name, value)


def sides(name: str, value: Any) -> tuple[int, int]:
    """Rows and columns of a window or a stride, given as one number or as two."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} is {value!r}; accepted: an integer of at least 1, or (rows, columns) of them")
    return integer(name, pair[0]), integer(name, pair[1])


def option(name: str, kind: str, value: Any) -> Any:
    """`value` of an option annotated `kind` as the Python value that the contracts compute with.

    NumPy's numbers count as Python's. What an option may be beyond its kind, and which texts, its contract says.

    Raises
    ------
    TypeError, ValueError
        Not of that kind.
    """
    if value is None and kind.endswith("None"):
        return None
    kind = kind.removesuffix(" | None")
    if kind == "float":
        return value if type(value) in (float, int) else number(name, value)
    if kind == "int":
        return value if type(value) is int else integer(name, value, None)
    if kind == "bool":
        return value if type(value) is bool else _flag(name, value)
    if kind == "int | str" and not isinstance(value, str):
        return integer(name, value, None)
    if kind == "int | tuple[int, int]":
        return sides(name, value)
    if kind == "tuple[float, ...]":
        return _several(name, value)
    if kind == "torch.dtype" and not isinstance(value, torch.dtype):
        raise TypeError(f"{name} is {value!r}; accepted: a torch.dtype or None")
    return value


def _flag(name: str, value: Any) -> bool:
    if str(getattr(value, "dtype", type(value).__name__)) not in ("bool", "int", "torch.bool") or value not in (0, 1):
        raise TypeError(f"{name} is {value!r}; accepted: True or False")
    return bool(value)


def _several(name: str, value: Any) -> tuple[float, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__") or getattr(value, "shape", (1,)) == ():
        raise TypeError(f"{name} is {value!r}; accepted: numbers, as a tuple, list or array")
    return tuple(number(name, v) for v in value)


# --- masks and pairs ------------------------------------------------------------------------------------------


def as_mask(value: torch.Tensor | None, like: torch.Tensor, name: str = "mask") -> torch.Tensor | None:
    """`value` as a (N, 1, H, W) bool tensor on the device of `like`; True marks valid pixels."""
    if value is None:
        return None
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is {type(value).__name__}; accepted: a bool torch.Tensor or NumPy array")
    _dense(name, value)
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
    return tensor_kinds.plain(value).to(device=like.device, dtype=torch.bool).reshape(-1, 1, h, w).expand(n, 1, h, w)


def promoted(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Under autocast a network's output is float16 or bfloat16 and its target is not: both in the wider dtype."""
    if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)) or x.dtype == y.dtype:
        return x, y
    if not (x.is_floating_point() and y.is_floating_point() and torch.is_autocast_enabled(x.device.type)):
        return x, y
    wider = torch.promote_types(x.dtype, y.dtype)
    return x.to(wider), y.to(wider)


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
        if not tensor_kinds.holds(finite):
            valid = finite if valid is None else valid & finite
    if valid is not None and x.dtype in FLOAT_DTYPES:
        # 0 · NaN is NaN: a masked pixel must not reach the arithmetic at all
        x4 = torch.where(valid, x4, torch.zeros((), dtype=x4.dtype, device=x4.device))
        y4 = torch.where(valid, y4, torch.zeros((), dtype=y4.dtype, device=y4.device))
    clipped = 0.0
    if overshoot != "keep":
        x4, y4, clipped = _clip(x4, y4, valid, scale, overshoot)
    return Pair(x4, y4, scale, valid, nan, clipped, tuple(x.shape[: rank - 2]))


_OF_A_PAIR = ("x", "y", "data_range", "mask", "nan", "overshoot")


def pair_of(arguments: Mapping[str, Any], **instead: Any) -> Pair:
    """`pair` of a contract's arguments, by name; `instead`: values that take the place of some."""
    return pair(**{name: arguments[name] for name in _OF_A_PAIR if name in arguments} | instead)


def fields_of(settings: type[S], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a contract's arguments that are fields of its settings."""
    return {name: arguments[name] for name in settings.__dataclass_fields__ if name in arguments}


def _clip(
    x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, scale: float, overshoot: str
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Values of valid pixels outside [0, data_range]: counted, and clipped or refused."""
    far = [(v.double() < 0) | (v.double() > scale) for v in (x, y)]
    outside = [int(tensor_kinds.bare(f if valid is None else f & valid).sum()) for f in far]
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
            bad = int((~torch.isfinite(tensor_kinds.bare(value))).sum())
            if bad:
                raise ValueError(
                    f"{name} has {bad} non-finite pixels; accepted: finite values, "
                    'or nan="omit" (treat as masked) or nan="propagate"'
                )


def refuse_capture(image: torch.Tensor) -> None:
    """Under nan="error" pixels or results are read back, which a CUDA graph that is being captured cannot hold."""
    if image.is_cuda and torch.cuda.is_current_stream_capturing():
        raise ValueError(
            'nan is "error", which waits for the device; accepted while a CUDA graph is being captured: nan="propagate"'
        )


def refuse_nonfinite(checked: Pair, *results: torch.Tensor) -> None:
    """Under nan="error": where a result is not finite, the image that made it so is named."""
    if checked.nan != "error":
        return
    refuse_capture(checked.x)
    if not all(map(tensor_kinds.finite, results)):
        raise_if_nonfinite(x=checked.x, y=checked.y)


def reduce(rows: torch.Tensor, reduction: str, checked: Pair) -> torch.Tensor:
    """Per-image rows (N,) to what the caller asked: their mean, their sum, or the rows."""
    choice("reduction", reduction, ("mean", "sum", "none"))
    if reduction == "mean":
        return rows[0] if rows.shape[0] == 1 else rows.mean()
    if reduction == "sum":
        return rows.sum()
    return rows if checked.batched else rows[0]
