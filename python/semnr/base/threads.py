"""Work on threads with results in order; the number of items in memory is bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


@contextmanager
def pool(workers: int, name: str, begin: Callable[..., Any] | None = None, *args: Any) -> Iterator[Executor]:
    """Threads that each run `begin(*args)` first; what was not begun is dropped when the block fails."""
    executor = ThreadPoolExecutor(workers, f"semnr-{name}", begin, args)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def in_order(
    executor: Executor, function: Callable[[Item], Found], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Found]]:
    """Each item with its result, in the order of the items; at most `ahead` of them are held."""
    waiting: deque[tuple[Item, Future[Found]]] = deque()
    for item in items:
        waiting.append((item, executor.submit(function, item)))
        if len(waiting) >= ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()
