"""Sources of one set of images laid together: under one id, and with the same part of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .framing import Frame, framed
from .pairs import pair
from .planes import PlaneSource
from .source import TileSource

Place = tuple[TileSource, str]  # a source, and which of its roles


@dataclass(frozen=True)
class Together:
    """Places whose tiles that belong together have the same id.

    Attributes
    ----------
    places : dict of str to (TileSource, str)
        By role ("candidate", "noisy", "reference", ...): the source, and which of its roles is read.
    frame : Frame or None
        What of each image counts; None where all of it does.
    remarks : tuple of str
        How images were paired, and which were left over.
    """

    places: dict[str, Place]
    frame: Frame | None
    remarks: tuple[str, ...]


def together(
    places: Mapping[str, Place], match: str | Sequence[str] | None = None, crop: Any = None, mask: Any = None
) -> Together:
    """Pair the images of several sources, and crop and mask them alike.

    Parameters
    ----------
    places : mapping of str to (TileSource, str)
        By role; "candidate" is one of them. The data bar is looked for in the noisy images, else in the references.
    match, crop, mask
        As for `semnr.score`.

    Returns
    -------
    Together

    Raises
    ------
    ValueError
        Names that do not fit, a bad crop or mask: what it was, and what is accepted.
    """
    candidate = places["candidate"][0]
    witness = next((name for name in ("noisy", "reference") if name in places), "candidate")
    laid, frame = dict(places), None
    is_cut = isinstance(candidate, PlaneSource) and candidate.is_cut
    if is_cut:  # what a mosaic is cut into depends on its size
        laid, frame = framed(laid, witness, crop, mask)
        candidate = laid["candidate"][0]
    paired = pair(candidate, {name: source for name, (source, _) in laid.items() if name != "candidate"}, match)
    laid = {name: (paired.others.get(name, paired.candidate), which) for name, (_, which) in laid.items()}
    if not is_cut:
        laid, frame = framed(laid, witness, crop, mask)
    return Together(laid, frame, paired.remarks)
