"""The memory that one tile may take: compared with the sizes in a file before memory is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LIMIT: ContextVar[int | None] = ContextVar("bytes of one tile", default=None)


@contextmanager
def at_most(nbytes: int) -> Iterator[None]:
    """Within the block a tile that takes more than `nbytes` is refused unread."""
    token = _LIMIT.set(nbytes)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def fits(nbytes: int, what: str = "it") -> None:
    """ValueError where `what` takes more memory than one tile may."""
    limit = _LIMIT.get()
    if limit is not None and nbytes > limit:
        raise ValueError(
            f"{what} takes {nbytes} bytes of memory, one tile may take {limit}; accepted: a larger memory_budget, or "
            "the image opened by itself, which cuts it into tiles"
        )
