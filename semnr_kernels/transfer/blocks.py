"""Blocks of a tile, over which standard errors are taken."""

from __future__ import annotations

import torch


def block_side(h: int, w: int, sigma: float) -> int:
    """Blocks wide against the band's correlation, but at least 4 × 4 of them."""
    return max(1, min(round(8 * sigma), h // 4, w // 4))


def block_sums(v: torch.Tensor, side: int) -> torch.Tensor:
    """(N, H, W) -> (N, blocks): sums over a grid of near-equal blocks of about `side` px."""
    n, h, w = v.shape
    rows, columns = max(1, h // side), max(1, w // side)
    for dim, (size, count) in enumerate(((h, rows), (w, columns)), start=1):
        index = torch.arange(size, device=v.device) * count // size
        shape = list(v.shape)
        shape[dim] = count
        v = torch.zeros(shape, dtype=v.dtype, device=v.device).index_add_(dim, index, v)
    return v.reshape(n, rows * columns)
