"""Tiles that the suites of the evidence share: noisy, denoised, reference, as (1, 1, H, W) tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from scipy import ndimage

from semnr.synth import tile
from semnr.synth.detector import Detector, quantise

T = TypeVar("T")


class Case(NamedTuple):
    x: torch.Tensor
    d: torch.Tensor
    r: torch.Tensor


SIZES = ((32, 40), (97, 128), (243, 205), (256, 256), (300, 509))
KINDS = ("lines", "holes", "metal", "defects", "float", "pedestal", "clipped")
DEGENERATE = ("flat", "noise on flat", "identity", "constant rows", "rows alone", "white")


def _frame(clean: np.ndarray, seed: int) -> np.ndarray:
    return quantise(Detector().apply(np.clip(clean, 0, 1), np.random.default_rng(seed)), "uint8")


def _whole(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _smooth(image: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(image.astype(np.float64), 1.1)


@cache
def case(kind: str, height: int = 256, width: int = 256) -> Case:
    """A tile of that kind and size; its seed is fixed."""
    pattern = kind if kind in ("lines", "holes", "metal") else "lines"
    clean = tile(pattern, max(height, width), seed=7).clean[:height, :width]
    y, x = np.ogrid[:height, :width]
    noisy = _frame(clean, 1)
    denoised, reference = _whole(_smooth(noisy)), _whole(255 * clean)
    if kind == "defects":
        there = clean + 0.3 * (np.hypot(y - height // 3, x - width // 3) < 3)
        noisy = _frame(there, 2)
        made = 80 * (np.hypot(y - 2 * height // 3, x - width // 2) < 4)
        denoised, reference = _whole(255 * clean + made), _whole(255 * there)
    elif kind == "float":
        noisy, denoised, reference = ((v / 255).astype(np.float32) for v in (noisy, denoised, reference))
    elif kind == "pedestal":
        noisy, denoised, reference = (
            (40000 + v.astype(np.int64)).astype(np.uint16) for v in (noisy, denoised, reference)
        )
    elif kind == "clipped":
        noisy = np.where(noisy > 150, 255, noisy).astype(np.uint8)
        denoised = _whole(_smooth(noisy))
    elif kind == "flat":
        noisy = denoised = reference = np.full((height, width), 90, np.uint8)
    elif kind == "noise on flat":
        denoised = reference = np.full((height, width), 90, np.uint8)
        noisy = _whole(90 + 10 * np.random.default_rng(3).standard_normal((height, width)))
    elif kind == "identity":
        denoised = noisy
    elif kind == "constant rows":
        noisy = noisy.copy()
        noisy[: height // 5] = 12
        denoised = _whole(_smooth(noisy))
    elif kind == "rows alone":
        noisy = reference = np.repeat(np.random.default_rng(4).integers(0, 255, (height, 1)), width, 1).astype(np.uint8)
        denoised = _whole(_smooth(noisy))
    elif kind == "white":
        noisy = denoised = reference = np.full((height, width), 255, np.uint8)
    return Case(*(torch.from_numpy(np.ascontiguousarray(v))[None, None] for v in (noisy, denoised, reference)))


def batch() -> Case:
    """Three unlike tiles of one size."""
    tiles = [case(kind) for kind in ("lines", "defects", "metal")]
    return Case(*(torch.cat(images) for images in zip(*tiles, strict=True)))


def by_threads(call: Callable[[], T], counts: tuple[int, ...] = (1, 3)) -> list[T]:
    """What `call` returns with so many threads each."""
    usual = torch.get_num_threads()
    found = []
    try:
        for threads in counts:
            torch.set_num_threads(threads)
            found.append(call())
    finally:
        torch.set_num_threads(usual)
    return found


def one_by_one(images: Case) -> list[Case]:
    """The tiles of a batch, each a batch of its own."""
    return [Case(*(v[i : i + 1] for v in images)) for i in range(len(images[0]))]
