"""One run on several devices of this machine: a process for each, tiles in partitions, rows back, one writer.

The processes run what a worker of a cluster runs (`on_cluster.score_partition`); results are taken in the order of the
source. A process that dies is replaced, and its tiles are scored again. Never ran on a GPU: two processes on the CPU
stand for two devices in the tests.
"""

from __future__ import annotations

import multiprocessing
import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from ..tiles.source import TileKey
from .engine import Engine, Rows
from .on_cluster import ClusterLost, Partition, Spec, score_partition, size_of

_AHEAD = 2  # partitions in flight for each device: one at work, one waiting
_TRIES = 3  # how often a partition is sent again whose process died


@dataclass
class _Job:
    """A partition on its way."""

    keys: list[TileKey]
    at: int  # which device
    future: Future[Partition]
    tries: int = 0


class Several:
    """The engine's work spread over processes, one a device; used as `Engine` is."""

    def __init__(self, devices: list[Any], spec: Spec, engine: Engine, used: dict[str, str]) -> None:
        self.devices, self.engine, self.used = devices, engine, used
        # the run's decisions were made on its first tile, here: every process holds the same
        self.specs = [pickle.dumps(replace(spec, device=str(device))) for device in devices]
        self.pools = [self._process() for _ in devices]

    def run(self, keys: Iterable[TileKey]) -> Iterator[tuple[int, Rows]]:
        keys, sent, count = iter(keys), 0, len(self.devices)
        waiting: deque[_Job] = deque()
        try:
            while True:
                while len(waiting) < _AHEAD * count and (part := list(islice(keys, size_of(sent, count)))):
                    busy = [sum(job.at == at and not job.future.done() for job in waiting) for at in range(count)]
                    waiting.append(self._sent(part, busy.index(min(busy))))
                    sent += 1
                if not waiting:
                    return
                result = self._result(waiting)
                self.used.update(result.backends)
                self.engine.stages.merge(result.stages)
                self.engine.scorer.learn(result.scorer)
                yield from result.results
        finally:
            for one in self.pools:
                one.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _process() -> ProcessPoolExecutor:
        # a fork would share the threads and the CUDA context of this process
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def _sent(self, keys: list[TileKey], at: int, tries: int = 0) -> _Job:
        try:
            future = self.pools[at].submit(score_partition, self.specs[at], keys)
        except BrokenProcessPool:  # it died between two partitions
            self._replace(at)
            future = self.pools[at].submit(score_partition, self.specs[at], keys)
        return _Job(keys, at, future, tries)

    def _replace(self, at: int) -> None:
        self.pools[at].shutdown(wait=False)
        self.pools[at] = self._process()

    def _result(self, waiting: deque[_Job]) -> Partition:
        """Of the first that waits; what a dead process had is sent again, in its place."""
        while True:
            job = waiting[0]
            try:
                found = job.future.result()
            except BrokenProcessPool as error:
                if job.tries >= _TRIES:
                    raise ClusterLost(
                        f"the process of {self.devices[job.at]} died {_TRIES + 1} times at tile {job.keys[0].tile} or "
                        "after it (out of memory?); --resume continues"
                    ) from error
                self._replace(job.at)
                for i, other in enumerate(waiting):
                    if other.at == job.at and (other is job or _lost(other.future)):
                        waiting[i] = self._sent(other.keys, other.at, other.tries + (other is job))
                continue
            waiting.popleft()
            return found


def _lost(future: Future[Partition]) -> bool:
    """Whether its process died before it was done."""
    return not future.done() or future.cancelled() or isinstance(future.exception(), BrokenProcessPool)
