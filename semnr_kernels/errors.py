"""The errors that callers catch; `semnr` re-exports them."""

from __future__ import annotations

from typing import Any


class SemnrError(Exception):
    """The base class of every error that is not a plain TypeError or ValueError.

    Examples
    --------
    >>> issubclass(semnr.TileError, semnr.SemnrError)
    True
    """


class BackendUnavailable(SemnrError):
    """No backend, or not the one that was named, can run this call.

    `call` holds the facts of the call, where there was one.

    Examples
    --------
    >>> try:
    ...     semnr.ssim(noisy, clean, backend="cuda")
    ... except semnr.BackendUnavailable as error:
    ...     print(error)
    no backend can run this call...
    """

    call: Any = None


class WeightsUnavailable(SemnrError):
    """Network weights are missing, truncated, of the wrong shape, or fail their checksum.

    Examples
    --------
    >>> try:
    ...     semnr.dists(noisy, clean, weights="nothing.pth")
    ... except semnr.WeightsUnavailable as error:
    ...     print("no weights")
    no weights
    """


class TileError(SemnrError):
    """One tile could not be read; a run goes on without it.

    Parameters
    ----------
    tile : str
        Id of the tile.
    reason : str
        What is wrong, in words.
    status : {"unreadable", "missing", "error"}
        What becomes of its row.

    Examples
    --------
    >>> print(semnr.TileError("t000007", "no such file", "missing"))
    tile t000007: no such file
    """

    def __init__(self, tile: str, reason: str, status: str = "unreadable") -> None:
        super().__init__(f"tile {tile}: {reason}")
        self.tile = tile
        self.reason = reason
        self.status = status  # "missing" or "unreadable"

    def __reduce__(self) -> tuple[type[TileError], tuple[str, str, str]]:
        return type(self), (self.tile, self.reason, self.status)
