"""Folders of images: every image below it is a tile, or one folder a role (noisy/, reference/, ...)."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from semnr_kernels import TileError

from .decode import IMAGE_SUFFIXES, decode, explained
from .places import Place
from .source import ROLES, Problem, TileKey, TileSource

_MAIN = ("image", "denoised", "candidate", "noisy")  # the role folder that names the tiles


def without_suffix(path: str) -> str:
    return posixpath.splitext(path)[0]


class FolderSource(TileSource):
    """Tile id: the path relative to the folder (to the role's folder), without its suffix."""

    def __init__(self, place: Place) -> None:
        self.name = place.name
        self._place = place
        paths = place.images()
        if not paths:
            raise ValueError(f"{place.name} holds no images; accepted: {', '.join(IMAGE_SUFFIXES)}, or a plan.csv")
        tops = {PurePosixPath(path).parts[0] if "/" in path else "" for path in paths}
        main = next((role for role in _MAIN if role in tops), None) if tops <= set(ROLES) else None
        by_role: dict[str, dict[str, str]] = {}
        problems = []
        for path in paths:
            role, _, rest = path.partition("/") if main is not None else ("image", "", path)
            tile = without_suffix(rest)
            known = by_role.setdefault(role, {})
            if tile in known:
                problems.append(Problem(tile, "duplicate", f"{path} has the id of {known[tile]}, which was kept"))
            else:
                known[tile] = path
        self._paths = {"image": by_role[main or "image"], **{r: p for r, p in by_role.items() if r != "image"}}
        self.roles = tuple(self._paths)
        self.problems = tuple(problems)
        self._tiles = list(self._paths["image"])
        self._places: dict[str, int] = {}
        self.pixel_nm = place.pixel_nm(next(iter(self._paths["image"].values())))

    def __len__(self) -> int:
        return len(self._tiles)

    def __iter__(self) -> Iterator[TileKey]:
        return (self._key(index, tile) for index, tile in enumerate(self._tiles))

    def _key(self, index: int, tile: str) -> TileKey:
        path = self._paths["image"][tile]
        pixel_nm = self._place.pixel_nm(path)
        return TileKey(tile, index, path, {} if pixel_nm is None else {"pixel_nm": pixel_nm})

    def find(self, tile: str) -> TileKey | None:
        if not self._places:
            self._places.update((name, index) for index, name in enumerate(self._tiles))
        return self._key(self._places[tile], tile) if tile in self._places else None

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        self._check_role(role)
        path = self._paths[role].get(key.tile)
        if path is None:
            raise TileError(key.tile, f"{self.name} has no {role} image of this name", "missing")
        with explained(key.tile, path), self._place.file(path) as file:
            return decode(file, key.tile)
