"""What the batched torch code of the evidence shares: a row a tile, nothing that makes the host wait.

Sizes follow from shapes and settings alone. What depends on the pixels (how many take part, where a search ends) is a
mask or a fixed number of steps, so that a batch can be captured in a CUDA graph.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from . import constants
from .convolution import conv2d, matmul_rounded

FLOAT_BITS = 32  # of a key: the bits of a float32 that is not negative sort as it does


def table(make: Callable[..., Any], device: torch.device, *arguments: Hashable) -> Any:
    """`make(*arguments)`, an array or a tuple of arrays, on `device`: copied there once. Nobody writes to it."""
    found = _tables(make, device, arguments)
    for one in found if isinstance(found, tuple) else (found,):
        constants.kept(one)
    return found


@functools.lru_cache(maxsize=64)
def _tables(make: Callable[..., Any], device: torch.device, arguments: tuple[Hashable, ...]) -> Any:
    made = make(*arguments)
    with torch.inference_mode(False), torch.no_grad():
        if isinstance(made, tuple):
            return tuple(torch.from_numpy(np.array(v)).to(device) for v in made)
        return torch.from_numpy(np.array(made)).to(device)


def total(v: torch.Tensor, *dims: int) -> torch.Tensor:
    """Sum in float64 over `dims`, without a copy in float64."""
    return v.sum(dims, dtype=torch.float64)


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A matrix product in the precision of its dtype: in float64 where torch is set to round float32 to TF32."""
    if a.is_cuda and matmul_rounded():
        wide = torch.complex128 if a.is_complex() else torch.float64
        return (a.to(wide) @ b.to(wide)).to(a.dtype)
    return a @ b


def by_tile(v: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(N,) beside (N, ...)."""
    return v.reshape(-1, *(1,) * (like.dim() - 1))


def blocks(size: int, count: int) -> np.ndarray:
    """Of each of `size` pixels, which of `count` near-equal blocks it lies in."""
    out: np.ndarray = np.arange(size) * count // size
    return out


def _members(size: int, count: int) -> np.ndarray:
    out: np.ndarray = (np.arange(count)[:, None] == blocks(size, count)).astype(np.float64)
    return out


def block_sums(v: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """(..., H, W) to (..., rows * columns) float64: sums over near-equal blocks."""
    *lead, height, width = v.shape
    if height % rows == 0 and width % columns == 0:
        parts = v.reshape(*lead, rows, height // rows, columns, width // columns)
        return parts.sum((-3, -1), dtype=torch.float64).flatten(-2)
    down, right = table(_members, v.device, height, rows), table(_members, v.device, width, columns)
    return (down @ v.double() @ right.T).flatten(-2)


def kth(v: torch.Tensor, k: int) -> torch.Tensor:
    """The k-th smallest, from 1, along the last axis."""
    return v.kthvalue(k, dim=-1).values


def median(v: torch.Tensor) -> torch.Tensor:
    """As NumPy's, along the last axis."""
    n = v.shape[-1]
    low = kth(v, (n + 1) // 2)
    return low if n % 2 else (low.double() + kth(v, n // 2 + 1)) / 2


def ordered(v: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Along the last axis: the values that are kept, sorted, then infinities; and how many they are."""
    return torch.where(kept, v, torch.inf).sort(dim=-1).values, kept.sum(-1)


def at_rank(sorted_values: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    """(..., K) of (..., n) at ranks (..., K) from 0, float64."""
    return sorted_values.gather(-1, rank.clamp(0, sorted_values.shape[-1] - 1)).double()


def quantiles(values: torch.Tensor, count: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """NumPy's linear quantiles, (..., K), of `count` sorted values each; `shares` is (K,) float64."""
    at = shares * (count[..., None] - 1).clamp(min=0)
    low = at.floor()
    below = at_rank(values, low.long())
    above = at_rank(values, torch.minimum(low.long() + 1, (count[..., None] - 1).clamp(min=0)))
    return below + (above - below) * (at - low)


def middle(values: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """NumPy's median of `count` sorted values each; NaN of none."""
    n = count[..., None]
    pair = at_rank(values, torch.cat([(n - 1).clamp(min=0) // 2, n // 2], -1))
    return torch.where(count > 0, pair.mean(-1), torch.nan)


def masked_median(v: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """NumPy's median of what is kept along the last axis; NaN of nothing."""
    return middle(*ordered(v, kept))


def float_bits(v: torch.Tensor) -> torch.Tensor:
    """int64 that sort as these values, none of them negative; infinite ones as the largest."""
    return v.float().contiguous().view(torch.int32).long()


def bits_float(bits: torch.Tensor) -> torch.Tensor:
    """The float32 values of `float_bits`."""
    return bits.int().view(torch.float32)


def separable(images: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(N, K, H', W') of (N, H, W): K pairs of taps, (K, taps) each, down the columns then along the rows; no border."""
    k = len(down)
    first = conv2d(images[:, None], down[:, None, :, None])
    return conv2d(first, right[:, None, None, :], groups=k)


def symmetric(v: torch.Tensor, reach: int) -> torch.Tensor:
    """(..., H, W) with `reach` px around it, mirrored about its edges (scipy's "reflect")."""
    rows, columns = table(_mirrored, v.device, *v.shape[-2:], reach)
    return v.index_select(-2, rows).index_select(-1, columns)


def _mirrored(height: int, width: int, reach: int) -> tuple[np.ndarray, ...]:
    found = []
    for n in (height, width):
        at = np.arange(-reach, n + reach) % (2 * n)
        found.append(np.minimum(at, 2 * n - 1 - at))
    return tuple(found)


def largest_around(v: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """(N, H, W): the largest within an odd window, what lies beyond the image aside."""
    down = F.max_pool2d(v[:, None], (rows, 1), 1, (rows // 2, 0))
    return F.max_pool2d(down, (1, columns), 1, (0, columns // 2))[:, 0]


def packed(figures: dict[str, torch.Tensor]) -> torch.Tensor:
    """(N, width) float64: figures of (N, ...) each side by side, so that they come back in one copy."""
    return torch.cat([v.double().reshape(len(v), -1) for v in figures.values()], 1)


def unpacked(rows: torch.Tensor, layout: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The figures on the host; `layout`: the shape of each for one tile."""
    values, out, start = rows.cpu().numpy(), {}, 0
    for name, shape in layout.items():
        width = math.prod(shape)
        out[name] = values[:, start : start + width].reshape(-1, *shape)
        start += width
    return out


def layout_of(figures: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each figure for one tile."""
    return {name: tuple(v.shape[1:]) for name, v in figures.items()}


def on_host(figures: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Figures of (N, ...) each, in one copy from the device: float64."""
    return unpacked(packed(figures), layout_of(figures))
