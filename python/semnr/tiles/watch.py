"""A folder that fills while it is read: a tile is read when its files have stopped changing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semnr_kernels import TileError

from .decoding import decode
from .folder import MAIN, beside, main_role, role_of
from .names import tile_id
from .places import Here
from .reasons import explained
from .source import ROLES, Problem, TileKey, TileSource

_LOOK = 0.2  # seconds between looks at the folder
_SHARE = 4  # a look at a large folder takes long: so many times that long is the pause after it

State = tuple[int, int]  # size and time of change


@dataclass(frozen=True)
class _Roles:
    """The roles that a folder is read for, the one that is scored first."""

    names: tuple[str, ...]
    loose: bool = False  # "image" is what lies in no role's folder
    asked: bool = True  # by the caller; else they were found


@dataclass
class _File:
    """What is known of one file."""

    state: State  # when it was last looked at
    since: float  # when it got that state; the clock of the machine may jump, this one does not
    given: State | None = None  # its state when its tile was last given


class WatchSource(TileSource):
    """Images below `folder`, or below one folder a role in it, in the order in which they are whole.

    Tile ids and roles are those of the same folder opened at rest. The length is not known before the end. A tile
    whose files change after it came comes again, under the same id and index.
    """

    def __init__(
        self, folder: Path, roles: _Roles, *, settle: float, idle: float, until: str | None, look: float = _LOOK
    ) -> None:
        self.name, self._place = folder.name or str(folder), Here(folder)
        self._expected, self._main = roles, roles.names[0]
        self.roles = ("image", *(role for role in roles.names if role != "image"))
        self._settle, self._idle, self._until, self._look = settle, idle, until, look
        self._files: dict[str, _File] = {}
        self._paths: dict[str, dict[str, str]] = {}  # of each tile that came, by role
        self._order: dict[str, int] = {}
        self._next = 0
        self._repeated: set[str] = set()
        self._changed = time.monotonic()

    @property
    def origin(self) -> str:
        return str(self._place.folder)

    def __iter__(self) -> Iterator[TileKey]:
        """Tiles as they become whole; ends `idle` seconds after the last change, or when the file `until` is there.

        Files that never settle, or lack a role, come at the end all the same, and are reported when they are read.
        """
        self._changed = time.monotonic()
        while True:
            closing = self._until is not None and (self._place.folder / self._until).exists()
            now = time.monotonic()
            sites, left = self._looked(now)
            still = now - self._changed
            ending = still >= self._settle if closing else still > max(self._idle, self._settle)
            took = time.monotonic() - now
            for tile in sorted(sites):
                if self._is_new(sites[tile]) and (ending or self._whole(sites[tile], now)):
                    yield self._given(tile, sites[tile])
            if ending:
                self._conclude(left)
                return
            time.sleep(max(self._look, _SHARE * took))

    def _looked(self, now: float) -> tuple[dict[str, dict[str, str]], list[str]]:
        """(path by tile and role, paths of no use) as the folder is now."""
        sites: dict[str, dict[str, str]] = {}
        left = []
        for path in self._place.images():
            role, tile = self._of(path)
            if role not in self._expected.names:
                left.append(path)
                continue
            state = self._state(path)
            file = self._files.get(path)
            if file is None or file.state != state:
                self._files[path] = _File(state, now, None if file is None else file.given)
                self._changed = now
            paths = sites.setdefault(tile, {})
            if role not in paths:
                paths[role] = path
            elif self._paths.get(tile, {}).get(role) == path:  # the one that came stays the tile's
                left.append(paths[role])
                paths[role] = path
            else:
                left.append(path)
        return sites, left

    def _of(self, path: str) -> tuple[str | None, str]:
        role, rest = role_of(path)
        return "image" if role is None and self._expected.loose else role, tile_id(rest)

    def _state(self, path: str) -> State:
        try:
            status = (self._place.folder / path).stat()
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns

    def _is_new(self, paths: dict[str, str]) -> bool:
        return any(self._files[path].given != self._files[path].state for path in paths.values())

    def _whole(self, paths: dict[str, str], now: float) -> bool:
        settled = all(now - self._files[path].since >= self._settle for path in paths.values())
        return settled and len(paths) == len(self._expected.names)

    def _given(self, tile: str, paths: dict[str, str]) -> TileKey:
        if tile in self._paths:
            self._repeated.add(tile)
        if tile not in self._order:
            self._order[tile] = self._next
            self._next += 1
        for path in paths.values():
            self._files[path].given = self._files[path].state
        self._paths[tile] = paths
        main = paths.get(self._main)
        pixel_nm = None if main is None else self._place.pixel_nm(main)
        meta = {} if pixel_nm is None else {"pixel_nm": pixel_nm}
        return TileKey(tile, self._order[tile], main, meta)

    def number(self, indices: Iterable[tuple[str, int]]) -> None:
        self._order.update(indices)
        self._next = max(self._order.values(), default=-1) + 1

    def _conclude(self, left: list[str]) -> None:
        """What was not read, and why: files of one id, folders of roles that came too late, other images."""
        problems, late, stray = [], set(), []
        for path in left:
            role, tile = self._of(path)
            if role is None:
                stray.append(path)
            elif role not in self._expected.names:
                late.add(role)
            else:
                kept = self._paths[tile][role]
                problems.append(Problem(tile, "duplicate", f"{path} has the id of {kept}, which was kept"))
        self.problems = tuple(problems)
        self.remarks = beside(self.name, stray)
        begun = ", ".join(f"{role}/" for role in self._expected.names)
        self.unjudged = tuple(
            f"{self.name}/{role}/ came when the run had begun with {begun} and was not read; accepted: the roles that "
            "will come named at the start (--roles, or roles of watch_folder)"
            for role in sorted(late)
            if not self._expected.asked
        )

    def repeats(self, tile: str) -> bool:
        return tile in self._repeated

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        self._check_role(role)
        path = self._paths.get(key.tile, {}).get(self._main if role == "image" else role)
        if path is None:
            raise TileError(key.tile, f"{self.name} has no {role} image of this name", "missing")
        with explained(key.tile, path):
            return decode(self._place.folder / path, key.tile)

    def find(self, tile: str) -> TileKey | None:
        return TileKey(tile, self._order[tile], None) if tile in self._paths else None


def watch_folder(
    folder: str | Path,
    *,
    roles: Sequence[str] = (),
    given: Iterable[str] = (),
    settle: float = 1.0,
    idle: float = 60.0,
    until: str | None = None,
) -> TileSource:
    """A source of the tiles that appear in `folder` while it is read.

    Parameters
    ----------
    folder : path
        The folder.
    roles
        Names of the folders in it, the one that is scored first: ("denoised", "reference"). A tile comes when each
        has its file. Empty: those of the folder at rest (see `semnr.open_tiles`). They are waited for, at most `idle`
        seconds after the last change, until there is what is scored and what it is held against.
    given
        Where `roles` is empty: the roles that come from elsewhere ("reference") and are not waited for.
    settle
        Seconds without change after which a file counts as whole. A tile whose files change later comes again.
    idle
        Seconds without any change after which the stream ends.
    until
        Name of a file whose appearance ends the stream, when what is there has settled.

    Raises
    ------
    ValueError
        Names the argument, what it was, what is accepted; or no folder came that can be scored.

    Returns
    -------
    TileSource
        Its length is not known before the end.

    Examples
    --------
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> Path("lot").mkdir()
    >>> Image.fromarray(noisy).save("lot/a.png")
    >>> source = semnr.tiles.watch_folder("lot", settle=0.0, idle=0.0)
    >>> [key.tile for key in source]
    ['a']
    """
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"folder is {str(folder)!r}; accepted: an existing folder")
    if unknown := [role for role in (*roles, *given) if role not in ROLES]:
        raise ValueError(f"roles has {', '.join(map(repr, unknown))}; accepted: {', '.join(ROLES)}")
    if roles and (roles[0] not in MAIN or len(set(roles)) != len(roles)):
        raise ValueError(f"roles is {tuple(roles)!r}; accepted: each once, first what is scored: {', '.join(MAIN)}")
    for name, value in (("settle", settle), ("idle", idle)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value!r}; accepted: seconds, at least 0")
    chosen = _Roles(tuple(roles)) if roles else _roles_to_come(path, frozenset(given), settle, idle, until)
    return WatchSource(path, chosen, settle=settle, idle=idle, until=until)


def _roles_to_come(folder: Path, given: frozenset[str], settle: float, idle: float, until: str | None) -> _Roles:
    """The roles of the folder, once they are enough to be scored and no further one comes for `settle` seconds."""
    known, changed = _roles_there(folder), time.monotonic()
    while True:
        there = known.names and (known.names[0] in MAIN)
        held = given.union(known.names)
        enough = there and ("reference" in held or {"noisy", "noisy_2"} <= held)
        closing = until is not None and (folder / until).exists()
        waited = time.monotonic() - changed
        if waited >= (settle if enough or closing else max(idle, settle)):
            break
        time.sleep(_LOOK)
        if (now := _roles_there(folder)) != known:
            known, changed = now, time.monotonic()
    if there:
        return known
    what = f"has {', '.join(f'{role}/' for role in known.names)} only" if known.names else "holds no images"
    raise ValueError(
        f"{folder.name} {what}, after {waited:.0f} s; accepted: {', '.join(f'{r}/' for r in MAIN)}, or images"
    )


def _roles_there(folder: Path) -> _Roles:
    """As `FolderSource` has them, folders that hold nothing yet included."""
    names = {path.name.lower() for path in folder.iterdir() if path.is_dir()}.intersection(ROLES)
    main = main_role(names)
    loose = main is None and any(role_of(path)[0] is None for path in Here(folder).images())
    first = ("image",) if loose else (main,) if main is not None else ()
    return _Roles((*first, *(role for role in ROLES if role in names and role not in first)), loose, asked=False)
