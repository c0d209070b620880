"""One run on many processes or machines through dask.distributed: tiles in partitions, rows back, one writer.

Workers read pixels and send rows; this process alone writes, so that a worker that dies, or is thought dead and
comes back, can neither lose nor repeat a row. Results are taken in the order of the source. Partitions that were lost
with their workers are sent again; what workers die of again and again is cut in half until one tile is left, which
becomes a row with that reason.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import torch

from semnr_kernels import SemnrError
from semnr_kernels.registry import recording

from ..base.machine import cores
from ..tiles.source import TileKey
from ..wafers import Wafer
from .device import Upload
from .engine import Engine, Rows
from .scorer import Scorer, unscored
from .stream import Inputs

PARTITION = 64  # tiles that a worker takes at most at a time: small enough that a dead one costs seconds
_AHEAD = 4  # partitions in flight for each worker
_ROUND = 2  # partitions of one size that each worker gets, from one tile up, so that none is idle in a short run
_TRIES = 3  # how often a partition is sent again that was lost, or a tile that workers died of
_POLL = 2.0  # seconds between looks at whether there are workers
PATIENCE = 60.0  # seconds that a run waits for workers when all are gone


class ClusterLost(SemnrError):
    """No workers, or no scheduler, for longer than a run waits; the rows that came before are kept."""


@dataclass(frozen=True)
class Spec:
    """What a worker needs to score any partition of a run."""

    inputs: Inputs
    scorer: Scorer
    readers: int
    budget: int
    threads: int  # torch threads of a worker; 0: as many as the worker has
    layout: Wafer | None
    device: str | None = None  # that the worker scores on; None: the CPU


@dataclass(frozen=True)
class Partition:
    """What a worker sends back."""

    results: list[tuple[int, Rows]]
    backends: dict[str, str]
    stages: dict[str, Any]
    scorer: dict[str, Any]


@contextmanager
def cluster(scheduler: str) -> Iterator[tuple[Any, int]]:
    """(client, cores a worker may use) of "tcp://host:port", or of "local:N" processes started here.

    Local workers and their scheduler listen on loopback only.

    Raises
    ------
    ImportError
        dask.distributed is not installed.
    ValueError
        `scheduler` is neither, or nobody answers there.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ImportError(f"scheduler={scheduler!r} needs dask.distributed: pip install 'semnr[cluster]'") from error
    count = workers_of(scheduler)
    if count is None:
        try:
            client = Client(scheduler, timeout="20s")
        except (OSError, TimeoutError) as error:
            raise ValueError(
                f"scheduler is {scheduler!r}: {error}; accepted: the address of a running scheduler"
            ) from error
        with client:
            yield client, 0
        return
    share = max(1, cores() // count)
    options: dict[str, Any] = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    try:
        local = LocalCluster(n_workers=count, processes=True, **options)
    except (OSError, RuntimeError, TimeoutError) as error:
        raise SemnrError(f"scheduler is {scheduler!r}: its workers did not start: {error}") from error
    with local, Client(local) as client:
        yield client, share


def workers_of(scheduler: object) -> int | None:
    """N of "local:N" (a "local" alone: one a core); None for an address."""
    if isinstance(scheduler, str):
        kind, _, number = scheduler.partition(":")
        if kind == "local" and (not number or (number.isdecimal() and int(number) > 0)):
            return int(number) if number else cores()
        if kind in ("tcp", "tls", "ucx", "inproc") and "://" in scheduler:
            return None
    raise ValueError(
        f"scheduler is {scheduler!r}; accepted: None (this process), 'local:N' (N processes here), or the address of "
        "a dask scheduler, such as 'tcp://host:8786'"
    )


@dataclass
class _Job:
    """A partition on its way."""

    keys: list[TileKey]
    future: Any
    tries: int = 0


class Cluster:
    """The engine's work spread over the workers of a dask client; used as `Engine` is."""

    def __init__(self, client: Any, spec: Spec, engine: Engine, used: dict[str, str]) -> None:
        self.client, self.engine, self.used = client, engine, used
        # the run's decisions were made on its first tile, here: every worker holds the same
        self.spec, self.sent = pickle.dumps(spec), None

    def run(self, keys: Iterable[TileKey]) -> Iterator[tuple[int, Rows]]:
        keys, sent = iter(keys), 0
        waiting: deque[_Job] = deque()
        workers = max(1, len(self.client.nthreads()))
        try:
            while True:
                while len(waiting) < _AHEAD * workers and (part := list(islice(keys, size_of(sent, workers)))):
                    waiting.append(_Job(part, self._submit(part)))
                    sent += 1
                if not waiting:
                    return
                job = waiting.popleft()
                result = self._result(job)
                if isinstance(result, list):
                    waiting.extendleft(reversed(result))
                    continue
                self.used.update(result.backends)
                self.engine.stages.merge(result.stages)
                self.engine.scorer.learn(result.scorer)
                yield from result.results
        finally:
            for job in waiting:
                job.future.cancel()

    def _submit(self, keys: list[TileKey]) -> Any:
        if self.sent is None or self.sent.status not in ("pending", "finished"):
            # a task and not scattered data: made again where the workers that hold it are gone
            self.sent = self.client.submit(bytes, self.spec, pure=False)
        return self.client.submit(score_partition, self.sent, keys, pure=False)

    def _result(self, job: _Job) -> Partition | list[_Job]:
        """What the workers found, or the jobs that take the place of one that was lost with its workers."""
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            return self._waited(job.future)
        except KilledWorker:
            if len(job.keys) > 1:
                half = len(job.keys) // 2
                return [_Job(part, self._submit(part)) for part in (job.keys[:half], job.keys[half:])]
            if job.tries >= _TRIES:
                reason = "every worker that had this tile died: see the workers' logs, out of memory above all"
                rows = self.engine.placed(unscored(job.keys, "error", reason))
                return Partition([(0, rows)], {}, {}, self.engine.scorer.learnt())
        except (CancelledError, CommClosedError) as error:
            if job.tries >= _TRIES or self.client.status != "running":
                raise ClusterLost(f"the scheduler is gone or forgot its work ({error}); --resume continues") from error
        return [_Job(job.keys, self._submit(job.keys), job.tries + 1)]

    def _waited(self, future: Any) -> Partition:
        """The future's result; ClusterLost where nobody is there to find it."""
        alone = None  # since when
        while True:
            try:
                partition: Partition = future.result(timeout=_POLL)
                return partition
            except TimeoutError:
                if future.done():
                    raise
                now = time.monotonic()
                alone = None if self._workers() else (alone or now)
                if alone is not None and now - alone >= PATIENCE:
                    raise ClusterLost(f"no worker was there for {PATIENCE:.0f} s; --resume continues") from None

    def _workers(self) -> int:
        """How many there are; 0 also where the scheduler does not answer."""
        try:
            return len(self.client.nthreads())
        except (OSError, TimeoutError, RuntimeError, CancelledError):
            return 0


def size_of(sent: int, workers: int) -> int:
    """Tiles in the next partition: one at first, then twice as many each round."""
    return min(PARTITION, 2 ** min(sent // (_ROUND * workers), PARTITION.bit_length()))


def score_partition(blob: bytes, keys: list[TileKey]) -> Partition:
    """Runs on a worker."""
    spec = _spec(blob)
    torch.set_num_threads(spec.threads or _threads_here())
    engine = Engine(spec.inputs, spec.scorer, spec.readers, spec.budget, spec.layout, _upload(spec.device))
    with recording() as used:
        results = list(engine.run(keys))
    return Partition(results, dict(used), engine.stages.state(), spec.scorer.learnt())


@lru_cache(maxsize=4)
def _spec(blob: bytes) -> Spec:
    """Sources are opened once in a worker, not once a partition."""
    spec: Spec = pickle.loads(blob)
    return spec


@lru_cache(maxsize=4)
def _upload(device: str | None) -> Upload | None:
    """The way to the worker's device, with its buffers, for all its partitions."""
    return None if device is None else Upload(torch.device(device))


def _threads_here() -> int:
    from distributed import get_worker

    return int(get_worker().state.nthreads)
