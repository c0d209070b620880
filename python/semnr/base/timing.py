"""Where the time of a stream goes: seconds and latency quantiles by stage, at the cost of a few counters.

`with stages.stage("read"):` measures on the calling thread; code further down may split its share off with
`with stage("decode"):`, which does nothing where nobody measures. Times are exclusive: a stage's own, without those
inside it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

# Latencies are counted in bins of a twentieth of an octave from 1 µs to over an hour: quantiles within 4 %.
_BINS_AN_OCTAVE, _OCTAVES, _FIRST = 20, 32, 1e-6
_here = threading.local()


class Stages:
    """Counters of each stage, from any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._counts: dict[str, np.ndarray] = {}
        self._within: dict[str, str] = {}  # the outermost stage of each: those of one kind of thread
        self.alone = True  # no other process has counted
        self.threads: dict[str, int] = {}  # by outermost stage, how many threads may be in it at once; default: one
        self.begun = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block as `name` on this thread."""
        outer = getattr(_here, "stack", None)
        _here.stack = [*(outer or []), [self, name, 0.0]]
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            inside = _here.stack[-1][2]
            _here.stack = outer
            if outer:
                outer[-1][2] += spent
            self.add(name, spent - inside, outer[0][1] if outer else name)

    def add(self, name: str, seconds: float, within: str | None = None) -> None:
        """Count one pass of `name`, which the threads of stage `within` do."""
        octaves = np.log2(max(seconds, _FIRST) / _FIRST)
        at = min(int(octaves * _BINS_AN_OCTAVE), _BINS_AN_OCTAVE * _OCTAVES - 1)
        with self._lock:
            if name not in self._counts:
                self._counts[name] = np.zeros(_BINS_AN_OCTAVE * _OCTAVES, np.int64)
                self._seconds[name] = 0.0
                self._within[name] = within or name
            self._counts[name][at] += 1
            self._seconds[name] += seconds

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what another process counted: its `state()`."""
        with self._lock:
            self.alone = False
            for name, (seconds, places, counts) in other.items():
                mine = self._counts.setdefault(name, np.zeros(_BINS_AN_OCTAVE * _OCTAVES, np.int64))
                mine[places] += counts
                self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def state(self) -> dict[str, tuple[float, list[int], list[int]]]:
        """Plain numbers for `merge`."""
        with self._lock:
            stages = {}
            for name, counts in self._counts.items():
                places = np.flatnonzero(counts)
                stages[name] = (self._seconds[name], places.tolist(), counts[places].tolist())
            return stages

    def limit(self) -> tuple[str, float] | None:
        """The stage that limits the stream, and a share: of their time that its threads were busy, all their stages
        together. With the counts of other processes, whose threads are not known here, of the work of all stages.

        The limit is where threads have the least time left; among their stages, the one that takes longest. None
        before anything was counted.
        """
        elapsed = max(time.monotonic() - self.begun, 1e-9)
        with self._lock:
            if not self._seconds:
                return None
            if not self.alone:
                name = max(self._seconds, key=self._seconds.__getitem__)
                return name, self._seconds[name] / max(sum(self._seconds.values()), 1e-9)
            busy: dict[str, float] = {}
            for name, seconds in self._seconds.items():
                within = self._within[name]
                busy[within] = busy.get(within, 0.0) + seconds / (elapsed * self.threads.get(within, 1))
            tightest = max(busy, key=busy.__getitem__)
            mine = {name: s for name, s in self._seconds.items() if self._within[name] == tightest}
            return max(mine, key=mine.__getitem__), min(busy[tightest], 1.0)

    def table(self) -> dict[str, dict[str, float]]:
        """By stage: passes, seconds of work, passes a second of that work, p50_ms, p99_ms."""
        with self._lock:
            return {
                name: {
                    "passes": int(counts.sum()),
                    "seconds": round(self._seconds[name], 6),
                    "per_second": round(float(counts.sum()) / max(self._seconds[name], 1e-9), 3),
                    "p50_ms": _quantile(counts, 0.5),
                    "p99_ms": _quantile(counts, 0.99),
                }
                for name, counts in self._counts.items()
            }


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Split the block off from the stage that this thread is in, if it is in one."""
    stack = getattr(_here, "stack", None)
    if not stack:
        yield
        return
    with stack[-1][0].stage(name):
        yield


def _quantile(counts: np.ndarray, share: float) -> float:
    """Milliseconds: the middle of the bin that holds the quantile."""
    at = int(np.searchsorted(np.cumsum(counts), share * counts.sum()))
    return round(float(_FIRST * 2 ** ((at + 0.5) / _BINS_AN_OCTAVE)) * 1e3, 4)
