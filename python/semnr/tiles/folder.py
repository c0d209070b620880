"""Folders of images: every image below it is a tile, or one folder a role (noisy/, reference/, ...)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from semnr_kernels import TileError

from .decoding import IMAGE_SUFFIXES, decode
from .instrument import Instrument
from .names import tile_id
from .places import Place, instrument_in
from .reasons import explained
from .source import ROLES, Problem, TileKey, TileSource

MAIN = ("image", "denoised", "candidate", "noisy")  # the role folder that names the tiles: the first one there
_SHOWN = 3  # paths that a remark lists


def role_of(path: str) -> tuple[str | None, str]:
    """The role whose folder `path` begins with, in any capitals, and the path in it; (None, path) outside of them."""
    top, slash, rest = path.partition("/")
    return (top.lower(), rest) if slash and top.lower() in ROLES else (None, path)


def main_role(roles: Collection[str]) -> str | None:
    return next((role for role in MAIN if role in roles), None)


def beside(name: str, stray: Sequence[str]) -> tuple[str, ...]:
    """The remark on images that lie beside the folders of the roles."""
    if not stray:
        return ()
    shown = ", ".join(stray[:_SHOWN]) + (", ..." if len(stray) > _SHOWN else "")
    return (f"{name} has {len(stray)} image(s) beside the folders of its roles, which were not read: {shown}",)


class FolderSource(TileSource):
    """Tile id: the path relative to the folder (to the role's folder), without its suffix.

    Role "image" is the first folder of `MAIN` that is there; where there is none, what lies in no role's folder.
    roles: whether folders with the names of roles hold roles; of a list of files each one is an image.
    """

    def __init__(self, place: Place, *, roles: bool = True) -> None:
        self.name = place.name
        self._place = place
        paths = place.images()
        if not paths:
            raise ValueError(f"{place.name} holds no images; accepted: {', '.join(IMAGE_SUFFIXES)}, or a plan.csv")
        placed = [(path, *(role_of(path) if roles else (None, path))) for path in paths]
        there = {role for _, role, _ in placed if role is not None}
        main = main_role(there)
        stray = [path for path, role, _ in placed if role is None]
        if main is None and not stray:
            raise ValueError(
                f"{place.name} has {', '.join(f'{role}/' for role in sorted(there))} only; accepted: one of "
                f"{', '.join(f'{role}/' for role in MAIN)} beside it, or one of its folders by itself"
            )
        self.remarks = () if main is None else beside(place.name, stray)
        by_role: dict[str, dict[str, str]] = {}
        problems = []
        for path, folder, rest in placed:
            role = folder or ("image" if main is None else None)
            if role is None:
                continue
            tile = tile_id(rest)
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

    def files(self) -> list[str]:
        return [path for paths in self._paths.values() for path in paths.values()]

    def __len__(self) -> int:
        return len(self._tiles)

    def __iter__(self) -> Iterator[TileKey]:
        return (self._key(index, tile) for index, tile in enumerate(self._tiles))

    def _key(self, index: int, tile: str) -> TileKey:
        path = self._paths["image"][tile]
        pixel_nm = self._place.pixel_nm(path)
        return TileKey(tile, index, path, {} if pixel_nm is None else {"pixel_nm": pixel_nm})

    def only_in(self, role: str) -> Iterator[str]:
        return (tile for tile in self._paths.get(role, ()) if tile not in self._paths["image"])

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

    def instrument(self, key: TileKey, role: str = "image") -> Instrument | None:
        path = self._paths.get(role, {}).get(key.tile)
        return instrument_in(self._place, path)
