"""A denoising network with random weights."""

from __future__ import annotations

import torch

from semnr.denoising.network import Layout, SemDenoiser

SMALL = Layout((8, 16), (1,), 1)
WIDE = {"correlation": (-1.0, 1.0), "contrast": (0.0, 1e6)}


def network(layout: Layout = SMALL, seed: int = 0) -> SemDenoiser:
    """An untrained network that changes its input strongly."""
    torch.manual_seed(seed)
    made = SemDenoiser(layout)
    with torch.no_grad():
        made.network.tail.weight.mul_(10)
        made.grain.look[-2].weight.normal_(0, 1.0)
    return made
