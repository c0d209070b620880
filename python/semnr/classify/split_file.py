"""The split of a training as a table: which image lies in which part and group."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ..base.files import atomic
from .images import LabelledImages

SPLIT = "split.csv"


def split_text(images: LabelledImages, groups: Sequence[int], parts: Sequence[str]) -> str:
    """One line an image: its name, class, part, group of near-duplicates, and the SHA-256 of its file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "class", "part", "group", "sha256"])
    for k, name in enumerate(images.names):
        writer.writerow([name, images.classes[images.labels[k]], parts[k], groups[k], images.sha256[k]])
    return text.getvalue()


def write_split(path: Path, text: str, resume: bool) -> None:
    """A run is gone on with on the images and the split that it began with.

    Raises
    ------
    ValueError
        They are others.
    """
    if resume and path.is_file() and path.read_text(encoding="utf-8") != text:
        raise ValueError(f"the images of the folder are not those of {path}; accepted: the same images, or a new out")
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_split(path: Path) -> dict[str, tuple[str, int]]:
    """SHA-256 of each image of a training -> (its part, its group); empty where there is no such file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["sha256"]: (row["part"], int(row["group"])) for row in csv.DictReader(file)}
