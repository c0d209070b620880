"""Planes: what the evidence reads. Images as float32 with one channel, each less a level of its own, made once.

The C++ kernels read these and nothing else, so a pixel is converted once whatever asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from . import native_support, registry


@dataclass(frozen=True)
class Planes:
    """(N, H, W) images on the CPU, channels averaged, rows `data.shape[2]` apart and 0 beyond W.

    `stats` is (N, 5): the level that was taken off; sum, least and largest of what is left; pixels not finite, which
    lie at that level.
    """

    data: torch.Tensor
    stats: torch.Tensor
    width: int

    @classmethod
    def of(cls, images: torch.Tensor, isa: str | None = None) -> Planes:
        """Of (N, C, H, W) images of any dtype that kernels read."""
        module = native_support.module(isa)
        n, _, height, width = images.shape
        data = native_support.empty((n, height, module.evidence_pitch(width)), torch.float32)
        stats = native_support.empty((n, module.EVIDENCE_STATS), torch.float64)
        module.evidence_planes(
            native_support.image(images),
            native_support.DTYPE_CODES[images.dtype],
            images.shape,
            torch.get_num_threads(),
            native_support.address(data),
            native_support.address(stats),
        )
        return cls(data, stats, width)

    @property
    def argument(self) -> tuple[int, int, int, int, int]:
        """As the bindings take them."""
        n, height, _ = self.data.shape
        return (native_support.address(self.data), native_support.address(self.stats), n, height, self.width)


class Levelled(NamedTuple):
    """(N, H, W) float32 images on any device, channels averaged, each less a level of its own (a whole grey level for
    integers, so that what is left is exact); 0 where a pixel is not finite. `level` is (N,) float64."""

    data: torch.Tensor
    level: torch.Tensor
    finite: torch.Tensor | None  # (N,): whether every pixel is; None: of integers

    @classmethod
    def of(cls, images: torch.Tensor) -> Levelled:
        """Of (N, C, H, W) images of any dtype that kernels read."""
        if _on_triton(images):
            from . import planes_triton

            return planes_triton.of(images)
        if images.dtype.is_floating_point:
            grey = images[:, 0] if images.shape[1] == 1 else images.double().mean(1)
            finite = torch.isfinite(grey)
            known = torch.where(finite, grey, 0.0)
            level = known.sum((1, 2), dtype=torch.float64) / finite.sum((1, 2)).clamp(min=1)
            level = level.float()[:, None, None]
            data = torch.where(finite, grey - level.to(grey.dtype), 0.0).float()
            return cls(data, level.double()[:, 0, 0], finite.flatten(1).all(1))
        whole = images if images.dtype == torch.uint8 else images.float()  # torch adds no wider ones on every device
        grey = whole[:, 0] if images.shape[1] == 1 else whole.double().mean(1)
        level = (grey.sum((1, 2), dtype=torch.float64) / (grey.shape[1] * grey.shape[2])).round()
        data = (grey - level.to(torch.promote_types(grey.dtype, torch.float32))[:, None, None]).float()
        return cls(data, level, None)


def _on_triton(images: torch.Tensor) -> bool:
    """Whether Triton's kernels level these."""
    if not images.is_cuda or images.shape[1] != 1 or images.shape[0] > 65535 or images.requires_grad:
        return False
    return images.dtype in native_support.DTYPE_CODES and registry.triton_by_default()


class Tiles:
    """(N, C, H, W) images of one place each, and what several ops need of them, made when first asked for."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self._planes: dict[str | None, Planes] = {}
        self._levelled: Levelled | None = None

    def __getitem__(self, rows: slice) -> Tiles:
        """Some of the images; all of them with what is made already."""
        return self if rows.indices(len(self.images)) == (0, len(self.images), 1) else Tiles(self.images[rows])

    def levels(self) -> torch.Tensor:
        """(N,) float64 on the images' device: mean of the pixels that are numbers; channels count alike."""
        if self.images.is_cpu and native_support.probe() is None:
            planes = self.planes()
            if not bool(planes.stats[:, 4].any()):  # infinite pixels are numbers, too
                height, width = planes.data.shape[1], planes.width
                return planes.stats[:, 0] + planes.stats[:, 1] / (height * width)
        return self.images.double().nanmean((1, 2, 3))

    def planes(self, isa: str | None = None) -> Planes:
        """Of images on the CPU."""
        if isa not in self._planes:
            self._planes[isa] = Planes.of(self.images, isa)
        return self._planes[isa]

    def levelled(self) -> Levelled:
        """On any device."""
        if self._levelled is None:
            self._levelled = Levelled.of(self.images)
        return self._levelled
