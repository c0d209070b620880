"""Muon: a step along the orthogonalised momentum for the weights of convolutions, AdamW for everything else.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the size of a step from Liu et
al., arXiv 2502.16982: 0.2 sqrt(max(rows, columns)) times the learning rate, which makes it as large as AdamW's, so that
one rate serves both. torch's own (`torch.optim.Muon`, since 2.9) takes matrices only; here a convolution counts as the
matrix of its output channels by everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_MOMENTUM = 0.95
_LEAST = 16  # rows and columns of a matrix that is worth orthogonalising
_QUINTIC = (3.4445, -4.7750, 2.0315)  # of Newton and Schulz: singular values come to between 0.7 and 1.2
_ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """Muon for convolutions of at least 16 output channels and 16 weights each, AdamW for the other parameters."""

    def __init__(
        self, params: Iterable[Tensor], lr: float, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        every = [p for p in params if p.requires_grad]
        matrices = [p for p in every if p.ndim == 4 and min(p.shape[0], p[0].numel()) >= _LEAST]
        rest = [p for p in every if all(p is not m for m in matrices)]
        groups = [{"params": found, "muon": found is matrices} for found in (matrices, rest) if found]
        super().__init__(groups, lr, weight_decay=weight_decay, betas=betas)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["muon"]:
                self._along(group)
        super().step()  # passes over parameters without a gradient
        return loss

    @torch.no_grad()
    def _along(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                # AdamW asks for "step" when it is loaded
                state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(p)}
            state["step"] += 1
            momentum = state["momentum"].lerp_(p.grad, 1 - _MOMENTUM)
            ahead = p.grad.lerp(momentum, _MOMENTUM).flatten(1)  # Nesterov's
            size = 0.2 * math.sqrt(max(ahead.shape))
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(orthogonal(ahead).reshape(p.shape), alpha=-group["lr"] * size)
            p.grad = None


def orthogonal(matrix: Tensor) -> Tensor:
    """(M, N) with the same singular vectors, and singular values of about 1."""
    a, b, c = _QUINTIC
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-12)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x
