"""The pixels behind a run's rows: read from the sources that run.json names, by tile and role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels.errors import SemnrError

from ..base.pictures import flat
from ..tiles import open_tiles
from .parquet import MAPS

# role -> the sources of run.json that may hold it, in order
_HELD_BY = {"image": ("source",), "reference": ("reference", "source"), "noisy": ("noisy", "source", "reference")}


class RunPixels:
    """Tiles of one run. Each source is opened once; `opened` may be shared by the readers of several runs."""

    def __init__(self, folder: Path, info: Mapping[str, Any], opened: dict[str, Any] | None = None) -> None:
        self._folder, self._info = folder, info
        self._open: dict[str, Any] = {} if opened is None else opened  # source, or the reason (str) why it is not open
        self._evidence: Any = None
        self._looked = False

    def read(self, tile: str, role: str) -> tuple[np.ndarray | None, str]:
        """Pixels as (H, W) and "", or None and the reason. `role`: reference, noisy or image (the candidate)."""
        settings = self._info.get("settings") or {}
        reasons = []
        for name in _HELD_BY[role]:
            place = self._info.get(name) or settings.get(name)
            if not place:
                continue
            source = self._source(str(place))
            if isinstance(source, str):
                reasons.append(source)
                continue
            held = _role_of(source.roles, role, name)
            if held is None:
                continue
            try:
                key = source.find(tile)
                if key is not None:
                    return flat(source.read(key, held)), ""
                reasons.append("no such tile in the source")
            except (SemnrError, OSError, ValueError) as error:
                reasons.append(str(error))
        return None, reasons[0] if reasons else f"the run names no {role} pixels"

    def evidence_map(self, index: int, shape: Sequence[int] | None) -> tuple[np.ndarray | None, str]:
        """Signed z of the tile with this index, above 0 where structure was removed; or None and the reason."""
        array = self._maps()
        if array is None:
            return None, "the run kept no evidence maps (semnr score --maps evidence)"
        if not 0 <= index < array.shape[0]:
            return None, "the run kept no evidence map of this tile"
        z = np.asarray(array[index])
        if shape is not None:
            z = z[: shape[0], : shape[1]]  # smaller tiles of a run lie in the corner
        return (z, "") if np.isfinite(z).any() else (None, "the run kept no evidence map of this tile")

    def close(self) -> None:
        """Close every source that is open."""
        for source in self._open.values():
            if not isinstance(source, str):
                source.close()
        self._open.clear()

    def _source(self, name: str) -> Any:
        beside = self._folder / name  # run.json names sources relative to its folder
        where = str(beside.resolve()) if "://" not in name and beside.exists() else name
        if where not in self._open:
            try:
                self._open[where] = open_tiles(where)
            except (SemnrError, OSError, ValueError, TypeError) as error:
                self._open[where] = f"source not at hand: {error}"
        return self._open[where]

    def _maps(self) -> Any:
        if not self._looked:
            self._looked = True
            path = self._folder / MAPS
            if path.is_dir():
                import zarr

                self._evidence = zarr.open_group(str(path), mode="r").get("evidence")
        return self._evidence


def _role_of(roles: Sequence[str], role: str, source: str) -> str | None:
    """Which of a source's roles answers for `role`."""
    accepted = {
        "image": ("candidate", "image", "denoised", "noisy"),
        "reference": ("reference", "image") if source == "reference" else ("reference",),
        "noisy": ("noisy", "image") if source == "noisy" else ("noisy",),
    }[role]
    return next((name for name in accepted if name in roles), None)
