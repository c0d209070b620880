"""The errors that callers catch; `semnr` re-exports them."""

from __future__ import annotations

from typing import Any


class SemnrError(Exception):
    """Base of every error that is not a plain TypeError or ValueError."""


class BackendUnavailable(SemnrError):
    """No backend, or not the one that was named, can run this call: `call`, where there was one."""

    call: Any = None


class WeightsUnavailable(SemnrError):
    """Network weights are missing, truncated, of the wrong shape or fail their checksum."""


class TileError(SemnrError):
    """One tile could not be read; the run goes on without it."""

    def __init__(self, tile: str, reason: str, status: str = "unreadable") -> None:
        super().__init__(f"tile {tile}: {reason}")
        self.tile = tile
        self.reason = reason
        self.status = status  # "missing" or "unreadable"

    def __reduce__(self) -> tuple[type[TileError], tuple[str, str, str]]:
        return type(self), (self.tile, self.reason, self.status)
