"""Fingerprints of images, and the pairs of images that may be one: a comparison of all with all, by matrix products.

An image is reduced to a square thumbnail without its data bar. Its fingerprint is the low frequencies of its discrete
cosine transform, whole and in windows of three quarters to all of each side: a crop of an image agrees with one of the
windows. A mirrored or turned copy changes signs and the order of the frequencies alone, and brightness and contrast
drop out.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

SIDE = 96  # px of a thumbnail
FREQUENCIES = 8  # along each axis; the mean is left out
# windows along an axis: (begin, size) as shares of the side
RANGES = tuple(
    (round(k * 0.08, 2), size) for size, count in ((1.0, 1), (0.92, 2), (0.84, 3), (0.76, 4)) for k in range(count)
)
SYMMETRIES = tuple(
    (turned, down, right) for turned in (False, True) for down in (False, True) for right in (False, True)
)
LIKELY = 0.6  # agreement of two fingerprints from which on the pixels are compared
_MOST = 12  # images that each image is compared with
_PLACED = 0.5  # agreement of a placement from which on it is tried
_STARTS = 8  # placements of one image on another that are tried: of a periodic pattern many agree nearly as well
_BLOCK = 20_000_000  # numbers held of the comparison at once
_AT_ONCE = 256  # images whose spectra are held at once


Window = tuple[float, float, float, float]  # top, height, left, width, as shares of an image
_WHOLE: Window = (0.0, 1.0, 0.0, 1.0)
_CORNERS = (RANGES[-4], RANGES[-1])  # the smallest range, at either end of a side


@dataclass(frozen=True)
class Candidate:
    """A window of image `a` may show what a part of image `b` shows, once `b` is turned and mirrored."""

    a: int
    b: int
    window: Window
    part: Window
    symmetry: int
    agreement: float


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) float32 of a grey image, by area averaging, of mean 0 and variance 1; zero where it has none."""
    from PIL import Image

    grey = np.nan_to_num(np.asarray(image, dtype=np.float32))
    how = Image.Resampling.BOX if min(grey.shape) >= SIDE else Image.Resampling.BICUBIC
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), how), dtype=np.float32)
    spread = float(small.std())
    level = float(np.abs(small).max())
    return (small - small.mean()) / spread if spread > 1e-5 * max(level, 1e-12) else np.zeros_like(small)


@functools.cache
def _bases() -> np.ndarray:
    """(ranges, FREQUENCIES, SIDE): the cosine of each frequency in each range, zero outside of it."""
    at = (np.arange(SIDE) + 0.5) / SIDE
    bases = np.zeros((len(RANGES), FREQUENCIES, SIDE), np.float32)
    for r, (begin, size) in enumerate(RANGES):
        inside = (at >= begin) & (at < begin + size)
        for k in range(FREQUENCIES):
            bases[r, k, inside] = np.cos(np.pi * k * (at[inside] - begin) / size) / np.sqrt(inside.sum())
    return bases


def spectra(thumbnails: np.ndarray) -> np.ndarray:
    """(N, windows, FREQUENCIES²) float32 of (N, SIDE, SIDE); windows by ranges down, then ranges to the right."""
    bases = _bases()
    rows = np.einsum("rks,nst->nrkt", bases, thumbnails, optimize=True)
    both = np.einsum("nrkt,qlt->nrqkl", rows, bases, optimize=True)
    return both.reshape(len(thumbnails), len(RANGES) ** 2, FREQUENCIES**2)


def _unit(spectrum: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Fingerprints of length 1: each frequency by its usual strength, and roots, so that no frequency rules."""
    even = spectrum / scale
    even = np.sign(even) * np.sqrt(np.abs(even))
    even[..., 0] = 0  # the mean
    length = np.linalg.norm(even, axis=-1, keepdims=True)
    return (even / np.where(length > 0, length, 1)).astype(np.float32)


def _seen_as(fingerprints: np.ndarray, symmetry: int) -> np.ndarray:
    """What the fingerprint of an image becomes when the image is turned over its diagonal and mirrored."""
    turned, down, right = SYMMETRIES[symmetry]
    square = fingerprints.reshape(*fingerprints.shape[:-1], FREQUENCIES, FREQUENCIES)
    square = square.swapaxes(-1, -2) if turned else square
    sign = (-1.0) ** np.arange(FREQUENCIES)
    square = square * np.where(down, sign, 1.0)[:, None] * np.where(right, sign, 1.0)
    return square.reshape(fingerprints.shape).astype(np.float32)


def seen_as(image: np.ndarray, symmetry: int) -> np.ndarray:
    """The image turned over its diagonal and mirrored."""
    turned, down, right = SYMMETRIES[symmetry]
    image = image.T if turned else image
    return image[:: -1 if down else 1, :: -1 if right else 1]


def candidates(thumbnails: np.ndarray, likely: float = LIKELY) -> Iterator[list[Candidate]]:
    """Pairs of images whose fingerprints agree, the most alike first of each image, each pair as its best placements.

    The whole of each image is looked for in every window of the others: it may be a crop of one. Its four corners are
    looked for in the smallest windows: the fields of the two may overlap.
    """
    count = len(thumbnails)
    if count < 2:
        return
    held = [spectra(thumbnails[k : k + _AT_ONCE])[:, [_place(_WHOLE), *_corners()]] for k in range(0, count, _AT_ONCE)]
    own = np.concatenate(held)
    scale = np.sqrt((own[:, 0] ** 2).mean(axis=0)) + 1e-6
    own = _unit(own, scale)
    small = np.array([k for k in range(len(RANGES) ** 2) if all(n >= len(RANGES) - 4 for n in divmod(k, len(RANGES)))])
    groups = [
        (np.arange(len(RANGES) ** 2), [(s, _WHOLE) for s in range(len(SYMMETRIES))]),
        (small, [(s, (y[0], y[1], x[0], x[1])) for s in range(len(SYMMETRIES)) for y in _CORNERS for x in _CORNERS]),
    ]
    asked = [torch.from_numpy(np.stack([_asked(own, s, part) for s, part in group])) for _, group in groups]
    step = max(1, _BLOCK // (count * len(RANGES) ** 2 * len(SYMMETRIES)))
    for first in range(0, count, step):
        block = _unit(spectra(thumbnails[first : first + step]), scale)
        best = torch.stack([
            _agreement(block[:, windows], questions) for (windows, _), questions in zip(groups, asked, strict=True)
        ]).amax(dim=0)  # fmt: skip
        for i in range(len(block)):
            best[i, first + i] = -1
            order = torch.argsort(best[i], descending=True)[:_MOST]
            for b in order[best[i, order] >= likely].tolist():
                yield _placements(first + i, b, block[i], groups, [questions[:, b] for questions in asked])


def _agreement(block: np.ndarray, questions: torch.Tensor) -> torch.Tensor:
    """For each image of the block and each image: the greatest agreement over windows and questions."""
    count, length = questions.shape[1:]
    made = torch.from_numpy(np.ascontiguousarray(block.reshape(-1, length))) @ questions.reshape(-1, length).T
    return made.reshape(len(block), -1, count).amax(dim=1)


def _placements(
    a: int, b: int, windows_of_a: np.ndarray, groups: list[tuple[np.ndarray, list[tuple[int, Window]]]],
    asked: list[torch.Tensor],
) -> list[Candidate]:  # fmt: skip
    """The best placements of image b on image a."""
    found = []
    for (windows, group), questions in zip(groups, asked, strict=True):
        made = (torch.from_numpy(windows_of_a[windows]) @ questions.T).flatten()
        values, places = made.topk(min(_STARTS, len(made)))
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            if value < _PLACED:
                break
            at, question = divmod(place, len(group))
            (top, height), (left, width) = (RANGES[k] for k in divmod(int(windows[at]), len(RANGES)))
            symmetry, part = group[question]
            found.append(Candidate(a, b, (top, height, left, width), part, symmetry, value))
    return sorted(found, key=lambda one: -one.agreement)[:_STARTS]


def _place(window: Window) -> int:
    """Where a window stands among those of `spectra`."""
    return RANGES.index((window[0], window[1])) * len(RANGES) + RANGES.index((window[2], window[3]))


def _corners() -> list[int]:
    return [_place((y[0], y[1], x[0], x[1])) for y in _CORNERS for x in _CORNERS]


def _asked(own: np.ndarray, symmetry: int, part: Window) -> np.ndarray:
    """(N, FREQUENCIES²): the fingerprint of a part of each image after a symmetry; own: whole, then the corners."""
    if part == _WHOLE:
        return _seen_as(own[:, 0], symmetry)
    turned, down, right = SYMMETRIES[symmetry]
    y, x = (_CORNERS.index((part[k], part[k + 1])) for k in (0, 2))
    y, x = (1 - y if down else y), (1 - x if right else x)
    y, x = (x, y) if turned else (y, x)
    return _seen_as(own[:, 1 + 2 * y + x], symmetry)
