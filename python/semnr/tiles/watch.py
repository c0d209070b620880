"""A folder that fills while it is read: a tile comes when its files have stopped changing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from semnr_kernels import TileError

from .decode import decode
from .folder import without_suffix
from .places import Here
from .source import ROLES, TileKey, TileSource

_LOOK = 0.2  # seconds between looks at the folder


class WatchSource(TileSource):
    """Images below `folder`, or below one folder a role in it, in the order in which they are whole.

    Tile ids are those of the same folder opened at rest. The length is not known before the end.
    """

    def __init__(
        self, folder: Path, *, roles: Sequence[str], settle: float, idle: float, until: str | None, look: float = _LOOK
    ) -> None:
        self.name, self._place = folder.name or str(folder), Here(folder)
        self._folders = {role: f"{role}/" for role in roles}
        self.roles = ("image", *(role for role in roles[1:] if role != "image"))
        self._main = roles[0] if roles else None
        self._settle, self._idle, self._until, self._look = settle, idle, until, look
        self._paths: dict[str, dict[str, str]] = {}

    def __iter__(self) -> Iterator[TileKey]:
        """Tiles as they become whole; ends `idle` seconds after the last change, or when the file `until` is there.

        Files that never settle, or lack a role, come at the end all the same, and are reported when they are read.
        """
        sizes: dict[str, tuple[int, int]] = {}  # of each file when it was last looked at
        since: dict[str, float] = {}  # when it got that size; the clock of the machine may jump, this one does not
        given: set[str] = set()
        changed, index = time.monotonic(), 0
        while True:
            ending = self._until is not None and (self._place.folder / self._until).exists()
            now = time.monotonic()
            by_tile: dict[str, dict[str, str]] = {}
            for path in self._place.images():
                role, tile = self._of(path)
                if role is None or tile in given:
                    continue
                state = self._state(path)
                if state != sizes.get(path):
                    sizes[path], since[path], changed = state, now, now
                by_tile.setdefault(tile, {}).setdefault(role, path)
            ending = ending or now - changed > self._idle
            whole = [tile for tile, paths in by_tile.items() if self._whole(paths, since, now)]
            for tile in sorted(by_tile if ending else whole):
                given.add(tile)
                self._paths[tile] = by_tile[tile]
                for path in by_tile[tile].values():
                    sizes.pop(path, None)
                    since.pop(path, None)
                yield TileKey(tile, index, by_tile[tile].get(self._main or "image"))
                index += 1
            if ending:
                return
            time.sleep(self._look)

    def _of(self, path: str) -> tuple[str | None, str]:
        if self._main is None:
            return "image", without_suffix(path)
        for role, folder in self._folders.items():
            if path.startswith(folder):
                return role, without_suffix(path[len(folder) :])
        return None, path

    def _state(self, path: str) -> tuple[int, int]:
        try:
            found = (self._place.folder / path).stat()
        except OSError:
            return -1, -1
        return found.st_size, found.st_mtime_ns

    def _whole(self, paths: dict[str, str], since: dict[str, float], now: float) -> bool:
        complete = self._main is None or len(paths) == len(self._folders)
        return complete and all(now - since[path] >= self._settle for path in paths.values())

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        self._check_role(role)
        paths = self._paths.get(key.tile, {})
        path = paths.get((self._main or "image") if role == "image" else role)
        if path is None:
            raise TileError(key.tile, f"{self.name} has no {role} image of this name", "missing")
        return decode(self._place.folder / path, key.tile)

    def find(self, tile: str) -> TileKey | None:
        return TileKey(tile, 0, None) if tile in self._paths else None


def watch_folder(
    folder: str | Path,
    *,
    roles: Sequence[str] = (),
    settle: float = 1.0,
    idle: float = 60.0,
    until: str | None = None,
) -> TileSource:
    """A source of the tiles that appear in `folder` while it is read.

    Parameters
    ----------
    roles
        Names of the folders in it, the one that is scored first: ("denoised", "reference"). A tile comes when each
        has its file. Empty: every image below `folder` is a tile.
    settle
        Seconds without change after which a file counts as whole.
    idle
        Seconds without any change after which the stream ends.
    until
        Name of a file whose appearance ends the stream.

    Raises
    ------
    ValueError
        Names the argument, what it was, what is accepted.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"folder is {str(folder)!r}; accepted: an existing folder")
    if unknown := [role for role in roles if role not in ROLES]:
        raise ValueError(f"roles has {', '.join(map(repr, unknown))}; accepted: {', '.join(ROLES)}")
    for name, value in (("settle", settle), ("idle", idle)):
        if not value >= 0:
            raise ValueError(f"{name} is {value!r}; accepted: seconds, at least 0")
    return WatchSource(path, roles=roles, settle=settle, idle=idle, until=until)
