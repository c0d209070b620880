"""Stores a wafer tile by tile: tile-stack Zarr or a TIFF folder with its plan, and the truth of its defects."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.random_streams import choice
from ..tiles import create_tiles
from ..tiles.owned import digest_of
from .wafer import SyntheticWafer

_TRUTH = "defects.csv"
DEFECT_COLUMNS = ("tile", "kind", "row", "col", "height_px", "width_px", "contrast")


@dataclass(frozen=True)
class WrittenWafer:
    """Where a wafer was written.

    Attributes
    ----------
    tiles, defects : Path
        The tiles, and the truth of their defects.
    tile_count, defect_count : int
        How many of each.

    Examples
    --------
    >>> wafer = semnr.synth.SyntheticWafer(dies=2, tile=64, seed=1, defect_rate=1.0)
    >>> written = semnr.synth.write_wafer("wafer.zarr", wafer)
    >>> written.tile_count, written.defects.name
    (2, 'defects.csv')
    """

    tiles: Path
    defects: Path
    tile_count: int
    defect_count: int


def write_wafer(
    out: str | os.PathLike[str],
    wafer: SyntheticWafer,
    form: str | None = None,
    progress: Callable[[int, int], object] | None = None,
    *,
    overwrite: bool = False,
) -> WrittenWafer:
    """Write `wafer` to `out`, one tile in memory at a time, with defects.csv beside it.

    Parameters
    ----------
    out
        "wafer.zarr" (defects.csv lies next to it; wafer-defects.csv where there is another one), or a folder that takes
        the TIFF files, plan.csv and defects.csv.
    wafer : SyntheticWafer
        The wafer.
    form
        "zarr" or "tiff"; None: by the name of `out`.
    progress
        Called as progress(done, total) after each tile.
    overwrite
        Replace what an earlier call left at `out`; else that raises FileExistsError.

    Returns
    -------
    WrittenWafer

    Raises
    ------
    ValueError
        `form` and the name of `out` do not agree.
    FileExistsError
        Tiles lie at `out`, and `overwrite` is False.

    Examples
    --------
    >>> wafer = semnr.synth.SyntheticWafer(dies=2, tile=64, seed=1)
    >>> semnr.synth.write_wafer("lot", wafer).tile_count  # TIFF files and a plan
    2

    Notes
    -----
    defects.csv has the columns tile, kind, row, col, height_px, width_px (pixels, row and col the centre) and
    contrast (grey levels of the written images: the largest signed change that the defect makes to the
    reference). Its rows are written as the tiles are, so that a run cut short leaves both in step.
    """
    path = Path(out)
    by_name = "zarr" if path.suffix.lower() == ".zarr" else "tiff"
    if form is not None and choice("form", form, ("zarr", "tiff")) != by_name:
        wanted = "a name that ends in .zarr" if form == "zarr" else "a name that does not end in .zarr"
        raise ValueError(f"out is {str(path)!r} with form {form!r}; accepted: {wanted}")
    roles = tuple(role for role in wafer.roles if role != "image")
    beside = _truth_beside(path, overwrite) if by_name == "zarr" else None
    count = 0
    store = create_tiles(
        path,
        count=len(wafer),
        shape=wafer.shape,
        dtype=wafer.dtype,
        roles=roles,
        pixel_nm=wafer.pixel_nm,
        data_range=wafer.data_range,
        overwrite=overwrite,
    )
    truth = beside or store.claim(_TRUTH)
    with store as tiles, truth.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(DEFECT_COLUMNS)
        for done, made in enumerate(wafer.tiles(), 1):
            for role in roles:
                tiles.write(made.key, getattr(made, role), role)
            for d in made.truth.defects:
                place = (round(v, 3) for v in (d.row, d.col, d.height_px, d.width_px))
                rows.writerow((made.key.tile, d.kind, *place, round(d.contrast * (wafer.data_range or 1), 6)))
                count += 1
            file.flush()
            if progress is not None:
                progress(done, len(wafer))
    if beside is not None:
        _remember(path, truth)
    return WrittenWafer(path, truth, len(wafer), count)


def _truth_beside(stack: Path, overwrite: bool) -> Path:
    """Where the truth of a Zarr goes: a free name, or that of the truth which goes with the Zarr that is replaced."""
    names = (_TRUTH, f"{stack.stem}-{_TRUTH}")
    known = _remembered(stack) if overwrite else None
    for path in (stack.with_name(name) for name in names):
        if not os.path.lexists(path) or (path.is_file() and known == [path.name, digest_of(path)]):
            return path
    raise FileExistsError(
        f"{' and '.join(names)} in {stack.parent} are there already, and not those of this wafer; accepted: another out"
    )


def _remember(stack: Path, truth: Path) -> None:
    import zarr

    zarr.open_group(str(stack), mode="r+").attrs["truth"] = [truth.name, digest_of(truth)]


def _remembered(stack: Path) -> Any:
    import zarr

    return zarr.open_group(str(stack), mode="r").attrs.get("truth") if (stack / "zarr.json").is_file() else None
