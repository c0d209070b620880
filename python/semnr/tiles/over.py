"""Sources that wrap another source: the same tiles with other pixels or under other names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .source import Problem, TileKey, TileSource

if TYPE_CHECKING:
    from .instrument import Instrument


class Over(TileSource):
    """Tiles made of those of `inner`, under the same keys.

    What a stream knows by its end only is asked of it, not copied.
    """

    def __init__(self, inner: TileSource) -> None:
        self.name, self.roles = inner.name, inner.roles
        self.pixel_nm, self.layout = inner.pixel_nm, inner.layout
        self.data_range, self.ranges = inner.data_range, inner.ranges
        self._source = inner

    @property
    def inner(self) -> TileSource:
        return self._source

    @property
    def problems(self) -> tuple[Problem, ...]:  # type: ignore[override]
        return self._source.problems

    @property
    def remarks(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._source.remarks

    @property
    def unjudged(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._source.unjudged

    def only_in(self, role: str) -> Iterable[str]:
        return self._source.only_in(role)

    def number(self, indices: Iterable[tuple[str, int]]) -> None:
        self._source.number(indices)

    def repeats(self, tile: str) -> bool:
        return self._source.repeats(tile)

    @property
    def origin(self) -> str | None:
        return self._source.origin

    def settings(self) -> dict[str, Any]:
        return self._source.settings()

    def instrument(self, key: TileKey, role: str = "image") -> Instrument | None:
        return self._source.instrument(key, role)

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[TileKey]:
        return iter(self._source)

    def find(self, tile: str) -> TileKey | None:
        return self._source.find(tile)

    def close(self) -> None:
        self._source.close()
