"""A wider network that starts as the function that a narrower one is.

T. Chen, I. Goodfellow and J. Shlens, "Net2Net: accelerating learning via knowledge transfer", arXiv 1511.05641. The
channels that are new see everything and are seen by no old channel at first: those weights are 0, and training lets
them in.
"""

from __future__ import annotations

import torch
from torch import nn

from ..denoising.network import Layout, SemDenoiser


def fits(narrow: Layout, wide: Layout) -> bool:
    """Whether only widths differ, and none is smaller."""
    return (narrow.blocks, narrow.middle, len(narrow.widths)) == (wide.blocks, wide.middle, len(wide.widths)) and all(
        a <= b for a, b in zip(narrow.widths, wide.widths, strict=True)
    )


@torch.no_grad()
def begin(network: SemDenoiser, narrow: SemDenoiser) -> None:
    """Give a fresh network the function of a narrower one; its part for texture stays fresh where the widths differ."""
    if network.layout == narrow.layout:
        network.load_state_dict(narrow.state_dict())
        return
    for new, old in zip(network.network.modules(), narrow.network.modules(), strict=True):
        if isinstance(new, nn.Conv2d | nn.ConvTranspose2d) and isinstance(old, nn.Conv2d | nn.ConvTranspose2d):
            own = [slice(n) for n in old.weight.shape[:2]]
            out = 1 if isinstance(new, nn.ConvTranspose2d) else 0
            to_old: list[slice] = [slice(None), slice(None)]
            to_old[out] = own[out]
            new.weight[tuple(to_old)] = 0.0
            new.weight[tuple(own)] = old.weight
