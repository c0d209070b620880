"""The interfaces of a source of tiles and of a writer of tiles, which everything that reads or writes pixels has."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .names import shown

if TYPE_CHECKING:
    from ..wafers import Wafer
    from .instrument import Instrument

ROLES = ("image", "reference", "noisy", "noisy_2", "noisy_3", "candidate", "denoised")


def _show(value: Any, *names: str) -> None:
    """Names of files in them become text that every table holds."""
    for name in names:
        text = getattr(value, name)
        if isinstance(text, str) and not text.isascii():
            object.__setattr__(value, name, shown(text))


@dataclass(frozen=True)
class TileKey:
    """A tile before its pixels are read.

    Parameters
    ----------
    tile : str
        Its id, unique within the source. Candidate and reference are paired by it.
    index : int
        Its place in the source, from 0.
    path : str, optional
        Its file, where it has one.
    meta : mapping
        Columns of a plan: die_x, die_y, x_um, ...

    Examples
    --------
    >>> semnr.tiles.TileKey("a", 0, meta={"die_x": 3}).meta["die_x"]
    3
    """

    tile: str  # unique within the source; candidate and reference are paired by it
    index: int
    path: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)  # plan columns: die_x, die_y, x_um, ...

    def __post_init__(self) -> None:
        _show(self, "tile", "path")


@dataclass(frozen=True)
class Problem:
    """Something about one tile that a run goes on without: counted and listed, never dropped in silence.

    Parameters
    ----------
    tile : str
        Id of the tile.
    status : str
        "missing", "duplicate", "unreadable", "wrong_size", ...
    reason : str
        What is wrong, in words.

    Examples
    --------
    >>> semnr.tiles.Problem("a", "missing", "no such file").status
    'missing'
    """

    tile: str
    status: str  # missing, duplicate, unreadable, wrong_size, ...
    reason: str

    def __post_init__(self) -> None:
        _show(self, "tile", "reason")


class Recipe(NamedTuple):
    """How a source was opened, and so how another process opens it anew."""

    opener: Callable[..., Any]
    source: Any
    options: dict[str, Any]


class TileSource(abc.ABC):
    """Tiles in a fixed order. Reading is thread-safe; pixels are read one tile at a time.

    `semnr.open_tiles` makes one. Subclasses define `__iter__` and `read`.

    Examples
    --------
    >>> source = semnr.open_tiles(np.stack([noisy, second]))
    >>> key = source.find("t000001")
    >>> key.index, source.read(key, "image").shape
    (1, (128, 128))
    >>> source.settings(), list(source.only_in("reference")), source.repeats("t000001")
    ({}, [], False)
    >>> list(source.files()), len(list(source.arrays()))
    ([], 1)
    >>> source.number([])  # of a resumed run
    >>> source.close()
    """

    name: str
    roles: tuple[str, ...] = ("image",)  # of ROLES
    problems: tuple[Problem, ...] = ()  # found on opening, or by the end of a stream: duplicates, paths refused
    remarks: tuple[str, ...] = ()  # what a reader of the run should know of the source
    unjudged: tuple[str, ...] = ()  # what should have been read and was not: a run with any is incomplete
    pixel_nm: float | None = None
    data_range: float | None = None  # where the file says its own (10- or 12-bit data in uint16)
    ranges: str | None = None  # where its tiles do not share a data_range: which they have
    layout: Wafer | None = None  # of the wafer, where the source knows it

    @abc.abstractmethod
    def __iter__(self) -> Iterator[TileKey]:
        """Keys in order. Holds no pixels."""

    @abc.abstractmethod
    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        """The pixels of one tile.

        Parameters
        ----------
        key : TileKey
            One of its keys.
        role : str
            One of `roles`.

        Returns
        -------
        ndarray, (H, W) or (3, H, W)
            uint8, uint16, float16, float32 or float64, in native byte order.

        Raises
        ------
        TileError
            Names the tile and the reason; its `status` is "missing" where nothing was ever written there, else
            "unreadable".
        ValueError
            The source has no such role.
        """

    recipe: Recipe | None = None  # how open_tiles opened it, where that was from a path

    @property
    def origin(self) -> str | None:
        """The path or URL that it was opened from; None for what lives in this process."""
        return None if self.recipe is None else str(self.recipe.source)

    def settings(self) -> dict[str, Any]:
        """What its pixels depend on beside `origin`: a run goes on only where all of it is the same.

        Returns
        -------
        dict
            Plain data.
        """
        usual = {"array": None, "tile": 512}
        given = {} if self.recipe is None else self.recipe.options
        return {name: given[name] for name, value in usual.items() if given.get(name, value) != value}

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A source from a path is pickled as its path: another process opens it anew."""
        return super().__reduce_ex__(protocol) if self.recipe is None else (_reopen, self.recipe)

    def __len__(self) -> int:
        """Number of tiles; TypeError where it is not known before the end (an iterator)."""
        raise TypeError(f"{type(self).__name__} does not know its length")

    def find(self, tile: str) -> TileKey | None:
        """The key of a tile, for pairing with another source.

        Parameters
        ----------
        tile : str
            Its id.

        Returns
        -------
        TileKey or None
            None where the source has no such tile.
        """
        return self._by_id().get(tile)

    def instrument(self, key: TileKey, role: str = "image") -> Instrument | None:
        """What the file of a whole image says beside its pixels: tags, pixel size.

        Parameters
        ----------
        key : TileKey
            One of its keys.
        role : str
            One of `roles`.

        Returns
        -------
        Instrument or None
            None where there is no file.

        Examples
        --------
        >>> source = semnr.open_tiles(noisy)
        >>> source.instrument(next(iter(source))) is None
        True
        """
        return None

    def only_in(self, role: str) -> Iterable[str]:
        """Tiles that the source has in another role but not in "image", where each role has a list of its own.

        Parameters
        ----------
        role : str
            The other role.

        Returns
        -------
        iterable of str
            Their ids.
        """
        return ()

    def number(self, indices: Iterable[tuple[str, int]]) -> None:  # noqa: B027 - most sources have an order of their own
        """Take over the numbers of a run that is resumed; a source that numbers tiles as they come keeps them.

        Parameters
        ----------
        indices : iterable of (str, int)
            Id and index of each tile.
        """

    def repeats(self, tile: str) -> bool:
        """Whether a tile came more than once because its files changed: its last row is the one that counts.

        Parameters
        ----------
        tile : str
            Its id.

        Returns
        -------
        bool
        """
        return False

    def _by_id(self) -> dict[str, TileKey]:
        if not hasattr(self, "_index"):
            self._index = {key.tile: key for key in self}
        return self._index

    def _check_role(self, role: str) -> None:
        if role not in self.roles:
            raise ValueError(f"role is {role!r}; {self.name} has: {', '.join(map(repr, self.roles))}")

    def files(self) -> Iterable[str]:
        """The files below its folder that its tiles are in, where it reads a folder of this machine.

        Returns
        -------
        iterable of str
        """
        return ()

    def arrays(self) -> Iterable[Any]:
        """The arrays of this process that its tiles are in.

        Returns
        -------
        iterable
        """
        return ()

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Release open files."""


def length_of(source: TileSource) -> int | None:
    """Number of tiles; None where it is not known before the end."""
    try:
        return len(source)
    except TypeError:
        return None


def one_range(sources: Iterable[TileSource]) -> float | None:
    """The data_range that the sources name, which must be one: scores and noise on two scales do not compare.

    Raises
    ------
    ValueError
        Tiles or sources differ.
    """
    named: dict[float, str] = {}
    for source in sources:
        if source.ranges is not None:
            raise ValueError(
                f"{source.name}: data_range differs by tile ({source.ranges}), and tiles on several scales do not "
                "compare; accepted: one value, a plan for each, or data_range=R (--data-range R) for all tiles"
            )
        if source.data_range is not None:
            named.setdefault(float(source.data_range), source.name)
    if len(named) > 1:
        given = ", ".join(f"{value:g} of {name}" for value, name in named.items())
        raise ValueError(
            f"data_range differs by source ({given}); accepted: one value, or data_range=R for all of them"
        )
    return next(iter(named), None)


def _reopen(opener: Callable[..., TileSource], source: Any, options: dict[str, Any]) -> TileSource:
    return opener(source, **options)


class TileWriter(abc.ABC):
    """Takes tiles in any order and leaves a source that `semnr.open_tiles` reads. Thread-safe.

    `create_tiles` makes one. It is a context manager; `len` counts the tiles that were written or kept.

    Examples
    --------
    >>> with semnr.tiles.create_tiles("lot.zarr", roles=("noisy", "reference")) as writer:
    ...     key = semnr.tiles.TileKey("a", 0)
    ...     writer.write(key, noisy, "noisy")
    ...     writer.write(key, clean, "reference")
    ...     writer.keep(key, "noisy")  # was it there already, in a run that is resumed?
    False
    >>> [key.tile for key in semnr.open_tiles("lot.zarr")]
    ['a']
    """

    @abc.abstractmethod
    def write(self, key: TileKey, pixels: np.ndarray, role: str = "image") -> None:
        """Store one tile. It is there whole or not at all, also after a kill.

        Parameters
        ----------
        key : TileKey
            Its id, index and columns.
        pixels : ndarray, (H, W) or (3, H, W)
            Its pixels.
        role : str
            One of the roles that the writer was made for.

        Raises
        ------
        TypeError, ValueError
            See `create_tiles`.
        """

    def keep(self, key: TileKey, role: str = "image") -> bool:
        """Whether the run that is resumed left this tile whole; then it counts as written.

        Parameters
        ----------
        key : TileKey
            The tile.
        role : str
            Its role.

        Returns
        -------
        bool
        """
        return False

    @abc.abstractmethod
    def claim(self, name: str) -> Path:
        """The path of a further file beside the tiles, which then belongs to the writer.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        Path

        Raises
        ------
        FileExistsError
            A file of that name lies there and is not the writer's.

        Examples
        --------
        >>> with semnr.tiles.create_tiles("lot", shape=(128, 128), dtype="uint8") as writer:
        ...     writer.claim("notes.txt").name
        'notes.txt'
        """

    @abc.abstractmethod
    def __len__(self) -> int:
        """Tiles written or kept."""

    @abc.abstractmethod
    def close(self) -> None:
        """Write what describes the tiles: columns, or the plan. Leaving a `with` block does it.

        Examples
        --------
        >>> writer = semnr.tiles.create_tiles("lot.zarr")
        >>> writer.write(semnr.tiles.TileKey("a", 0), noisy)
        >>> writer.close()
        """

    def __enter__(self) -> TileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OSError as second:
            if error is None:
                raise
            error.add_note(f"closing the tiles failed too: {second}")  # the first error is the one to act on
