"""The page that shows near-duplicates side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..reporting.page import Picture, Section, Table, picture, write_page

if TYPE_CHECKING:
    from . import Leakage

_SHOWN = 60


def write_report(made: Leakage, out: str | Path) -> Path:
    """Write what was found as one HTML file; pairs on two sides of a split come first.

    Parameters
    ----------
    made : Leakage
        What `near_duplicates` gave.
    out : path
        The file; an earlier page is replaced.

    Returns
    -------
    Path

    Raises
    ------
    FileExistsError, ValueError
        `out` is a folder, or a file that semnr did not write.

    Examples
    --------
    >>> semnr.leakage.write_report(semnr.leakage.near_duplicates([clean, clean]), "pairs.html").name
    'pairs.html'
    """
    held = made.clusters
    crossing = [p for p in made.pairs if made.splits[p.first] != made.splits[p.second]]
    others = [p for p in made.pairs if made.splits[p.first] == made.splits[p.second]]
    rows = [(split or "(no split)", made.splits.count(split)) for split in dict.fromkeys(made.splits)]
    sections = [
        Section(
            "What was found",
            [str(made).split("\n", 1)[0] + ".", f"{sum(map(len, held.values()))} images have a near-duplicate."],
            [Table(("Part", "Images"), rows)],
        )
    ]
    for title, pairs in (("On two sides of the split", crossing), ("On one side", others)):
        if pairs:
            shown = [
                Picture(
                    [picture(made.thumbnails[p.first]), picture(made.thumbnails[p.second])],
                    f"{made.name(p.first)} | {made.name(p.second)}: {p.how}, correlation {p.correlation:.2f}",
                )
                for p in pairs[:_SHOWN]
            ]
            told = [f"{len(pairs)} pairs" + (f"; the first {_SHOWN} are shown." if len(pairs) > _SHOWN else ".")]
            sections.append(Section(title, told, pictures=shown))
    return write_page(out, "Near-duplicates", sections, name="report")
