"""Labelled images: found by their folders, read, cropped of their data bar, reduced, and kept as 8-bit grey.

What a network sees of an image is the same in training and in prediction: `prepared` and `view` are the only way.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from semnr_kernels import TileError

from ..base.outputs import local
from ..base.pictures import flat
from ..base.progress import Progress
from ..base.threads import in_order, pool
from ..leakage.fingerprints import thumbnail
from ..tiles import Problem, decode
from ..tiles.databar import find_bar, lower_end
from ..tiles.decoding import IMAGE_SUFFIXES, instrument_of
from ..tiles.instrument import Instrument

_ENDS = (0.5, 99.5)  # percentiles that become black and white


@dataclass(frozen=True)
class LabelledImages:
    """Images of a folder with a folder a class.

    Attributes
    ----------
    folder : Path
    names : tuple of str
        Of each image, relative to the folder.
    classes : tuple of str
        The classes in order.
    labels : ndarray of int
        The class of each image.
    pixels : list of ndarray
        (h, w) uint8 each, the short side reduced.
    thumbnails : ndarray
        For the search of near-duplicates.
    sha256 : tuple of str
        Of each file.
    bars : int
        How many images had a data bar, which was cut.
    problems : tuple of Problem
        Images that could not be read.
    """

    folder: Path
    names: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    pixels: list[np.ndarray]
    thumbnails: np.ndarray
    sha256: tuple[str, ...]
    bars: int = 0
    problems: tuple[Problem, ...] = field(default=())

    def counts(self, among: Sequence[int] | None = None) -> dict[str, int]:
        """How many images each class has."""
        held = Counter(self.labels.tolist() if among is None else self.labels[list(among)].tolist())
        return {name: held[k] for k, name in enumerate(self.classes)}


def class_folders(folder: Path) -> list[Path]:
    """The folders of the classes, sorted.

    Raises
    ------
    FileNotFoundError, ValueError
        No such folder, or one without folders of images.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"folder is {folder}: no such folder; accepted: a folder that holds a folder a class")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise ValueError(f"folder is {folder}, which holds no folders; accepted: a folder that holds a folder a class")
    return found


def read_labelled(
    folder: str | Path, *, side: int, crop: str | None = "auto", workers: int = 2, quiet: bool = True,
    classes: Sequence[str] | None = None,
) -> LabelledImages:  # fmt: skip
    """Every image of every class; `side` is what the short side is reduced to, at most.

    classes : the order of the classes of a trained model; a folder of another name is refused.

    Raises
    ------
    FileNotFoundError, ValueError
        No folder, no image of a class that can be read, all images identical.
    """
    base = local("folder", folder)
    folders = class_folders(base)
    if classes is not None and (unknown := [f.name for f in folders if f.name not in classes]):
        raise ValueError(
            f"folder has a class {unknown[0]!r}, which the model does not have; accepted: {', '.join(classes)}"
        )
    names = tuple(f.name for f in folders) if classes is None else tuple(classes)
    files = [
        (path, names.index(f.name))
        for f in folders
        for path in sorted(f.rglob("*"))
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    kept, problems, bars = [], [], 0

    def read(item: tuple[Path, int]) -> tuple[np.ndarray, np.ndarray, str, bool] | Problem:
        path, _ = item
        name = path.relative_to(base).as_posix()
        try:
            whole = decode(path, name)
            image, cut = without_bar(whole, instrument_of(path), crop)
            return prepared(image, side), thumbnail(image), _sha256(path), cut
        except TileError as error:
            return Problem(name, error.status, error.reason)

    with pool(workers, "classify") as executor, Progress("read", len(files), quiet=quiet) as progress:
        for (path, label), made in in_order(executor, read, files, 4 * workers):
            progress.advance()
            if isinstance(made, Problem):
                problems.append(made)
            else:
                kept.append((path.relative_to(base).as_posix(), label, *made))
                bars += made[3]
    there = Counter(row[1] for row in kept)
    if lacking := [f.name for f in folders if not there[names.index(f.name)]]:
        why = next((p.reason for p in problems if p.tile.startswith(f"{lacking[0]}/")), "it holds none")
        raise ValueError(f"class {lacking[0]!r} has no image that can be read ({why}); accepted: at least one")
    return LabelledImages(
        base,
        tuple(row[0] for row in kept),
        names,
        np.array([row[1] for row in kept]),
        [row[2] for row in kept],
        np.stack([row[3] for row in kept]),
        tuple(row[4] for row in kept),
        bars,
        tuple(problems),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without_bar(pixels: np.ndarray, instrument: Instrument | None, crop: str | None) -> tuple[np.ndarray, bool]:
    """The grey image (H, W) without its data bar, and whether there was one."""
    grey = flat(pixels)
    if crop != "auto":
        return grey, False
    size = (grey.shape[0], grey.shape[1])
    box = find_bar(pixels[..., lower_end(size[0]) :, :], size, instrument).box
    if box is None:
        return grey, False
    return grey[box[1] : box[3], box[0] : box[2]], True


def prepared(image: np.ndarray, side: int) -> np.ndarray:
    """(h, w) uint8 of a grey image: its own black and white, the short side reduced to `side` px by area averaging."""
    from PIL import Image

    grey = np.nan_to_num(np.asarray(image, dtype=np.float32))
    scale = side / min(grey.shape)
    if scale < 1:
        height, width = (max(side, round(n * scale)) for n in grey.shape)
        grey = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BOX), dtype=np.float32)
    low, high = (float(v) for v in np.percentile(grey, _ENDS))
    if high <= low:
        low, high = float(grey.min()), float(grey.max())
    if high <= low:
        return np.full(grey.shape, 128, np.uint8)
    return np.clip(np.rint((grey - low) * (255 / (high - low))), 0, 255).astype(np.uint8)


def is_empty(image: np.ndarray) -> bool:
    """Whether a prepared image shows nothing: one level."""
    return bool(image.min() == image.max())


def view(image: np.ndarray, side: int) -> Tensor:
    """(crops, 1, side, side) float32 on 0 to 1: the whole image, as squares along its long side (at most three)."""
    x = torch.from_numpy(np.ascontiguousarray(image)).float()[None, None] / 255
    short, long = sorted(image.shape)
    size = tuple(side if n == short else max(side, round(n * side / short)) for n in image.shape)
    x = functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    spare = max(x.shape[-2:]) - side
    starts = sorted({0, spare // 2, spare}) if long / short > 1.15 else [spare // 2]
    crops = [x[..., s : s + side, :side] if x.shape[-2] > x.shape[-1] else x[..., :side, s : s + side] for s in starts]
    return torch.cat(crops)
