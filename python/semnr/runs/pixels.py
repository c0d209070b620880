"""The pixels behind a run's rows: read from the sources that run.json names, by tile and role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels.errors import SemnrError

from ..base.pictures import flat
from ..tiles import open_tiles
from ..tiles.pairs import ORDER
from ..tiles.together import together
from .parquet import MAPS

# role -> the sources of run.json that may hold it, in order
_HELD_BY = {"image": ("source",), "reference": ("reference", "source"), "noisy": ("noisy", "source", "reference")}


Images = Callable[[str, str], np.ndarray | None]  # (tile, role) -> pixels


class RunPixels:
    """Tiles of one run, paired and cropped as they were scored.

    Each source is opened once; `opened` may be shared by the readers of several runs. `images` gives pixels that no
    path leads to, and is asked first. `folder` None: there are no other pixels.
    """

    def __init__(
        self,
        folder: Path | None,
        info: Mapping[str, Any],
        opened: dict[str, Any] | None = None,
        images: Images | None = None,
    ) -> None:
        self._folder, self._info, self._images = folder, info, images
        self._open: dict[str, Any] = {} if opened is None else opened  # source, or the reason (str) why it is not open
        self._sources: dict[str, Any] | None = None  # the same by their name in run.json, as they were scored
        self._evidence: Any = None
        self._looked = False

    def read(self, tile: str, role: str) -> tuple[np.ndarray | None, str]:
        """Pixels as (H, W) and "", or None and the reason. `role`: reference, noisy or image (the candidate)."""
        if self._images is not None and (pixels := self._images(tile, role)) is not None:
            return flat(pixels), ""
        if self._sources is None:
            self._sources = self._as_scored()
        reasons = []
        for name in _HELD_BY[role]:
            source = self._sources.get(name)
            if source is None:
                continue
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

    def _as_scored(self) -> dict[str, Any]:
        """The source, the reference and the noisy input that run.json names; a reason in place of one that is gone."""
        settings = self._info.get("settings") or {}
        named = {name: self._info.get(name) or settings.get(name) for name in ("source", "noisy", "reference")}
        sources = {name: self._source(str(place)) for name, place in named.items() if place}
        made = settings.get("made") or {}
        there = [name for name, source in sources.items() if not isinstance(source, str) and name in made]
        changed = any({"paired", "crop"} & set(made[name]) for name in there)
        if "source" not in there or not changed:
            return sources
        places = {"candidate" if name == "source" else name: (sources[name], made[name]["role"]) for name in there}
        crop = next((made[name]["crop"] for name in there if "crop" in made[name]), None)
        rules = {name: made[name].get("paired", "") for name in there if name != "source"}
        match = [f"{name}:{rule.replace(' = ', '=')}" for name, rule in rules.items() if "{" in rule or rule == ORDER]
        try:
            laid = together(places, match or None, crop)  # the other rules are found in the names, as they were
        except (SemnrError, OSError, ValueError) as error:
            return sources | {name: f"cannot be paired as it was scored: {error}" for name in there}
        return sources | {name: laid.places["candidate" if name == "source" else name][0] for name in there}

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
        if self._folder is None:
            return "the rows are of no run on disk"
        beside = self._folder / name  # run.json names sources relative to its folder
        where = str(beside.resolve()) if "://" not in name and beside.exists() else name
        if where not in self._open:
            try:
                self._open[where] = open_tiles(where)
            except (SemnrError, OSError, ValueError, TypeError) as error:
                self._open[where] = f"source not at hand: {error}"
        return self._open[where]

    def _maps(self) -> Any:
        if not self._looked and self._folder is not None:
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
