"""Near-duplicates in a set of images, and splits that do not tear them apart.

A model that was tested on a copy of what it had seen was not tested. `near_duplicates` finds copies that were cropped,
mirrored, turned by quarters, changed in brightness or contrast, scaled or recorded anew, and says which of them lie on
two sides of a split; `grouped_split` divides a set so that none does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels import TileError

from ..base.pictures import flat
from ..base.progress import Progress
from ..base.random_streams import number
from ..tiles import Problem, TileSource, open_tiles
from ..tiles.databar import find_bar, lower_end
from .fingerprints import SIDE, candidates, thumbnail
from .page import write_report
from .splits import grouped_split, joined
from .verify import bands, best_match, described

__all__ = ["Leakage", "Pair", "grouped_split", "near_duplicates", "write_report"]

SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing", "held_out")
LEAST = 0.6  # correlation of the fine structure from which on two images are one


@dataclass(frozen=True)
class Pair:
    """Two images that show the same.

    Attributes
    ----------
    first, second : int
        Their places in `Leakage.images`; `second` shows `first` or a part of it.
    correlation : float
        Of their fine structure once one is laid on the other, at most 1.
    how : str
        What was done to the first one, in words.

    Examples
    --------
    >>> semnr.leakage.Pair(0, 1, 0.98, "mirrored").how
    'mirrored'
    """

    first: int
    second: int
    correlation: float
    how: str


@dataclass(frozen=True)
class Leakage:
    """What `near_duplicates` found.

    Attributes
    ----------
    images : tuple of str
        The id of each image.
    splits : tuple of str
        The split of each image; "" where there are none.
    groups : tuple of int
        The group of each image: near-duplicates of each other have one number.
    pairs : tuple of Pair
        The pairs that were found.
    problems : tuple of Problem
        Images that could not be read.
    thumbnails : ndarray, (N, 96, 96)
        What was compared.

    Examples
    --------
    >>> found = semnr.leakage.near_duplicates({"train": clean[None], "test": clean[None, :, ::-1]})
    >>> found.crossing, found.exit_code
    ((0,), 1)
    >>> print(found)
    2 images, 1 group(s) of near-duplicates with 2 images; 1 of them on both sides of a split
      train/t000000 = test/t000000: mirrored, fields that overlap, correlation 1.00
    >>> found.to_dict()["crossing_images"]
    2
    """

    images: tuple[str, ...]
    splits: tuple[str, ...]
    groups: tuple[int, ...]
    pairs: tuple[Pair, ...]
    problems: tuple[Problem, ...] = ()
    thumbnails: np.ndarray = field(default_factory=lambda: np.zeros((0, SIDE, SIDE), np.float32), repr=False)

    @property
    def clusters(self) -> dict[int, tuple[int, ...]]:
        """The groups of more than one image: group to the places of its images."""
        members: dict[int, list[int]] = defaultdict(list)
        for k, group in enumerate(self.groups):
            members[group].append(k)
        return {group: tuple(held) for group, held in members.items() if len(held) > 1}

    @property
    def crossing(self) -> tuple[int, ...]:
        """The groups whose images lie in more than one split."""
        held = self.clusters
        return tuple(group for group in held if len({self.splits[k] for k in held[group]}) > 1)

    @property
    def exit_code(self) -> int:
        """1: near-duplicates lie on two sides of a split. 3: images could not be read. 0: neither."""
        return 1 if self.crossing else 3 if self.problems else 0

    def name(self, k: int) -> str:
        """An image with its split.

        Parameters
        ----------
        k : int
            Its place in `images`.

        Returns
        -------
        str

        Examples
        --------
        >>> semnr.leakage.Leakage(("a",), ("test",), (0,), ()).name(0)
        'test/a'
        """
        return f"{self.splits[k]}/{self.images[k]}" if self.splits[k] else self.images[k]

    def to_dict(self) -> dict[str, Any]:
        """All of it but the thumbnails as plain data.

        Returns
        -------
        dict
        """
        held = self.clusters
        return {
            "written_by": "semnr leakage",
            "images": len(self.images),
            "splits": {s: self.splits.count(s) for s in dict.fromkeys(self.splits)},
            "clusters": [[self.name(k) for k in members] for members in held.values()],
            "clustered_images": sum(map(len, held.values())),
            "crossing": [[self.name(k) for k in held[group]] for group in self.crossing],
            "crossing_images": sum(len(held[group]) for group in self.crossing),
            "pairs": [
                {"first": self.name(p.first), "second": self.name(p.second), "correlation": p.correlation, "how": p.how}
                for p in self.pairs
            ],
            "groups": {self.name(k): int(group) for k, group in enumerate(self.groups)},
            "problems": [{"image": p.tile, "status": p.status, "reason": p.reason} for p in self.problems],
        }

    def __str__(self) -> str:
        held, crossing = self.clusters, self.crossing
        line = f"{len(self.images)} images, {len(held)} group(s) of near-duplicates"
        line += f" with {sum(map(len, held.values()))} images" if held else ""
        line += f"; {len(crossing)} of them on both sides of a split" if len(set(self.splits)) > 1 else ""
        shown = [p for p in self.pairs if not crossing or self.splits[p.first] != self.splits[p.second]]
        lines = [
            f"  {self.name(p.first)} = {self.name(p.second)}: {p.how}, correlation {p.correlation:.2f}"
            for p in shown[:10]
        ]
        if len(shown) > 10:
            lines.append(f"  and {len(shown) - 10} more pairs")
        if self.problems:
            lines.append(f"  {len(self.problems)} image(s) could not be read, the first: {self.problems[0].reason}")
        return "\n".join([line, *lines])


def parts_of(sources: Sequence[str]) -> dict[str, str]:
    """The parts of a split that a command line names: several folders, or those of usual names in one folder."""
    if len(sources) == 1:
        inside = [path for path in sorted(Path(sources[0]).glob("*")) if path.is_dir()]
        if len(inside) > 1 and all(path.name.lower() in SPLIT_NAMES for path in inside):
            return {path.name: str(path) for path in inside}
        return {"": sources[0]}
    names = [Path(source).name or source for source in sources]
    return {name if names.count(name) == 1 else source: source for name, source in zip(names, sources, strict=True)}


def near_duplicates(
    sources: Any,
    *,
    crop: str | None = "auto",
    least: float = LEAST,
    quiet: bool = True,
) -> Leakage:
    """Find images that show the same, within a set or across the parts of a split.

    Every image is compared with every other, as thumbnails of 96 px: copies that were cropped to three quarters of a
    side or more, mirrored, turned by quarters, scaled, changed in brightness or contrast, or recorded again, and fields
    that overlap by three quarters of each side. Other turns and free warps are not looked for. Time grows with the
    square of the number of images.

    Parameters
    ----------
    sources : mapping of str to source, or a source
        Parts of a split by name, each what `semnr.open_tiles` takes; or one set without a split.
    crop : {"auto", None}
        "auto" leaves out the data bar of each image, which would make all images of a microscope alike.
    least : float
        Correlation of the fine structure, from 0 to 1, from which on two images are called one.
    quiet : bool
        No progress.

    Returns
    -------
    Leakage

    Raises
    ------
    ValueError
        Another `crop` or `least`, or no image that can be read.

    Examples
    --------
    >>> found = semnr.leakage.near_duplicates(np.stack([clean, clean[::-1], second]))
    >>> found.groups[0] == found.groups[1]
    True
    """
    if crop not in ("auto", None):
        raise ValueError(f"crop is {crop!r}; accepted: 'auto' or None")
    number("least", least, 0, 1, above=True)
    parts = dict(sources) if isinstance(sources, Mapping) else {"": sources}
    opened = {str(name): open_tiles(source) for name, source in parts.items()}
    images: list[str] = []
    splits: list[str] = []
    thumbs: list[np.ndarray] = []
    problems: list[Problem] = []
    for name, source in opened.items():
        for tile, small in _thumbnails(source, crop, problems):
            images.append(tile)
            splits.append(name)
            thumbs.append(small)
    if not images:
        reason = problems[0].reason if problems else "it holds none"
        raise ValueError(f"sources has no image that can be read ({reason}); accepted: images")
    return compare(images, splits, np.stack(thumbs), least=least, problems=problems, quiet=quiet)


def _thumbnails(source: TileSource, crop: str | None, problems: list[Problem]) -> Any:
    for key in source:
        try:
            pixels = source.read(key)
            box = None
            if crop == "auto":
                size = (pixels.shape[-2], pixels.shape[-1])
                box = find_bar(pixels[..., lower_end(size[0]) :, :], size, source.instrument(key)).box
            grey = flat(pixels)
            yield key.tile, thumbnail(grey if box is None else grey[box[1] : box[3], box[0] : box[2]])
        except TileError as error:
            problems.append(Problem(key.tile, error.status, error.reason))


def compare(
    images: Sequence[str],
    splits: Sequence[str],
    thumbnails: np.ndarray,
    *,
    least: float = LEAST,
    problems: Sequence[Problem] = (),
    quiet: bool = True,
) -> Leakage:
    """`near_duplicates` of thumbnails that are there already."""
    pairs: dict[tuple[int, int], Pair] = {}
    first: dict[bytes, int] = {}
    for k, small in enumerate(thumbnails):  # copies, also of images that show nothing
        same = first.setdefault(small.tobytes(), k)
        if same != k:
            pairs[same, k] = Pair(same, k, 1.0, "identical")
    held: dict[int, Any] = {}

    def of(k: int) -> Any:
        if k not in held:
            held[k] = bands(thumbnails[k])
        return held[k]

    with Progress("leakage", None, quiet=quiet) as progress:
        for placements in candidates(thumbnails):
            a, b = placements[0].a, placements[0].b
            ends = (min(a, b), max(a, b))
            progress.advance()
            if ends in pairs:
                continue
            value, window, placed = best_match(of(a), of(b), placements, least)
            if value >= least:
                pairs[ends] = Pair(a, b, round(value, 4), described(window, placed.part, placed.symmetry))
    groups = joined(len(images), list(pairs))
    ordered = sorted(pairs.values(), key=lambda pair: (pair.first, pair.second))
    return Leakage(
        tuple(images), tuple(splits), tuple(groups.tolist()), tuple(ordered), tuple(problems), np.asarray(thumbnails)
    )
