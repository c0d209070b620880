"""A small residual network for small images and no pretrained weights: it learns in minutes on a few cores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTHS = (16, 32, 64, 128)


class Compact(nn.Module):
    """Four stages at halves of the resolution, a residual block each, and mean and greatest value over the places.

    Parameters
    ----------
    classes : int
        How many outputs it has.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        before, layers = 3, []
        for width in WIDTHS:
            layers += [_convolution(before, width, 2), _Residual(width)]
            before = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * before, classes))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        out: Tensor = self.head(torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1))
        return out


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width, 1)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )
