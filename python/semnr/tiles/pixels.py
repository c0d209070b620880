"""What counts as the pixels of a tile, and how other forms become it."""

from __future__ import annotations

from typing import Any

import numpy as np

from semnr_kernels import TileError

DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
ACCEPTED = "grey or RGB pixels of uint8, uint16, float16, float32 or float64"


def is_tensor(value: Any) -> bool:
    """Without importing torch; a subclass of a tensor is one."""
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(value).__mro__)


def to_numpy(value: Any) -> Any:
    """A torch tensor as the array that shares its memory; anything else as it is."""
    return value.detach().cpu().numpy() if is_tensor(value) else value


def known_dtype(dtype: np.dtype[Any]) -> bool:
    return dtype.newbyteorder("=").name in DTYPES


def as_pixels(tile: str, value: Any) -> np.ndarray:
    """`value` as (H, W) or (3, H, W) in native byte order; a memory map is read here, anything else is not copied.

    Raises
    ------
    TileError
        Not an array, of a dtype or shape that holds no image, or empty.
    """
    try:
        array = to_numpy(value)
    except (TypeError, RuntimeError) as error:  # bfloat16, or a tensor that lives nowhere
        raise TileError(tile, f"the tensor is no NumPy array: {error}; accepted: {ACCEPTED}") from error
    if not isinstance(array, np.ndarray):
        raise TileError(tile, f"it is {type(value).__name__}; accepted: an array of {ACCEPTED}")
    if not known_dtype(array.dtype):
        raise TileError(tile, f"its dtype is {array.dtype.name}; accepted: {ACCEPTED}")
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[0] == 3):
        raise TileError(tile, f"its shape is {array.shape}; accepted: (H, W), (1, H, W) or (3, H, W)")
    if array.size == 0:
        raise TileError(tile, f"it is empty, shape {array.shape}; accepted: at least one pixel")
    if isinstance(array, np.memmap):
        array = np.array(array)  # read now, once, so that a failing disk fails here
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def grey_or_rgb(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) as (H, W) where the three channels are equal, else as (3, H, W)."""
    red, green, blue = (pixels[..., c] for c in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return np.ascontiguousarray(red)
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
