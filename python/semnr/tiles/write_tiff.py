"""The TIFF folder: `noisy/t000000.tif`, `reference/t000000.tif`, ... and a plan.csv."""

from __future__ import annotations

import csv
import io
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .instrument import Instrument
from .journal import NAME as JOURNAL
from .journal import read_journal
from .names import file_of
from .owned import MARKER, clear, digest_of, first_stranger, listed, write_marker
from .plan import COLUMNS, ROLE_COLUMNS, Columns, checked_columns
from .source import ROLES, TileKey
from .writer import BaseWriter, refuse

PLAN = "plan.csv"
_SHOWN = ("image", "denoised", "candidate", "noisy", "reference", "noisy_2")  # which role column path names


class TiffWriter(BaseWriter):
    """Each file is written beside its place and renamed: it is there whole or not at all. Files of others stay."""

    def __init__(
        self, out: Path, *, instrument: Callable[[TileKey], Instrument | None] | None = None, **options: Any
    ) -> None:
        self._listed = listed(out)  # of the run that is resumed
        self._instrument = instrument
        super().__init__(out, **options)

    def claim(self, name: str) -> Path:
        self._refuse_another(name)
        self._journal.note(name)
        return self._out / name

    def _refuse_another(self, name: str) -> None:
        if name not in self._listed and (self._out / name).exists():
            refuse(self._out, name, ours=False)

    def _store(self, key: TileKey, pixels: np.ndarray, role: str) -> None:
        import tifffile

        kind = "minisblack" if pixels.ndim == 2 else "rgb"
        path = self._out / file_of(role, key.tile)
        self._refuse_another(file_of(role, key.tile))
        path.parent.mkdir(parents=True, exist_ok=True)
        interleaved = pixels if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
        form = None if self._instrument is None else self._instrument(key)
        options: dict[str, Any] = {"photometric": kind, "metadata": None}
        order: Any = None
        if form is not None and form.fits(pixels):
            interleaved, options, order = form.stored(interleaved), {**options, **form.options}, form.byteorder
        # encoded in memory: written by NumPy itself, a full disk would be an OSError without its number
        encoded = io.BytesIO()
        tifffile.imwrite(encoded, interleaved, byteorder=order, **options)
        replace_file(path, lambda part: part.write_bytes(encoded.getbuffer()))

    def _describe(self) -> None:
        rows = (plan_row(row.tile, row.roles, row.meta) for _, row in self._written())
        metas = (row.meta for row in self._rows.values())
        names = plan_header([r for r in ROLE_COLUMNS if r in self._roles], (name for meta in metas for name in meta))
        fixed = {"pixel_nm": self._pixel_nm, "data_range": self._data_range}
        constants = {name: value for name, value in fixed.items() if value is not None}
        names += [name for name in constants if name not in names]

        def write(part: Path) -> None:
            with part.open("w", newline="", encoding="utf-8") as file:
                blanks = any(row.tile != row.tile.strip() for row in self._rows.values())
                form: Any = {"quoting": csv.QUOTE_ALL} if blanks else {}  # quoted, they are of the name
                plan = csv.DictWriter(file, names, lineterminator="\n", **form)
                plan.writeheader()
                for row in rows:
                    plan.writerow({**constants, **{k: v for k, v in row.items() if v is not None}})
            self._journal.note(PLAN, digest_of(part))  # an edited plan is no longer ours

        replace_file(self._out / PLAN, write)
        replace_file(self._out / MARKER, lambda part: write_marker(part, listed(self._out)))


def make_room(out: Path, overwrite: bool, resume: bool) -> bool:
    """Whether a run is resumed at `out`. Refuses what is another's; deletes what is ours where that is asked for."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"out is {out}, a file; accepted: a folder that does not exist yet")
    files, traces = listed(out), (PLAN, *ROLES)
    there = [name for name in (*traces, JOURNAL, MARKER) if os.path.lexists(out / name)]
    if not there:
        return False
    ours = any((out / name).is_file() for name in (JOURNAL, MARKER))
    stranger = first_stranger(out, (PLAN,) if resume else traces, files) if ours else there[0]
    if stranger is not None:
        refuse(out, f"{stranger}, which was changed since" if stranger in files else stranger, ours=False)
    if not resume and not overwrite:
        refuse(out, ", ".join(there[:3]), ours=True)
    if not resume:
        clear(out, traces, files)
    return resume


def plan_header(roles: list[str], meta: Any) -> list[str]:
    wanted = {"path", "tile", *roles, *(names := dict.fromkeys(meta))}
    return [name for name in COLUMNS if name in wanted] + [name for name in (*roles, *names) if name not in COLUMNS]


def plan_row(tile: str, roles: set[str], meta: dict[str, Any]) -> dict[str, Any]:
    shown = next(role for role in _SHOWN if role in roles)
    return {
        **meta,
        "path": file_of(shown, tile),
        "tile": tile,
        **{role: file_of(role, tile) for role in roles if role in ROLE_COLUMNS},
    }


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write `path` by way of a temporary file beside it."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        write(part)
        os.replace(part, path)  # noqa: PTH105 - one seam for tests of a full disk
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def journal_columns(folder: Path) -> Columns | None:
    """The plan of a folder whose writer was interrupted, from its journal; None where there is none."""
    tiles: dict[int, tuple[str, set[str], dict[str, Any]]] = {}
    for row in read_journal(folder):
        _, roles, meta = tiles.setdefault(row["index"], (row["tile"], set(), {}))
        roles.add(row["role"])
        meta.update(row["meta"])
    rows = [plan_row(tile, roles, meta) for _, (tile, roles, meta) in sorted(tiles.items())]
    names = list(dict.fromkeys(name for row in rows for name in row))
    path = folder / PLAN
    return checked_columns(names, [[row.get(name) for row in rows] for name in names], path) if rows else None
