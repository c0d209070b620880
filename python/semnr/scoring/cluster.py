"""One run on many processes or machines through dask.distributed: tiles in partitions, rows back, one writer.

Workers read pixels and send rows; this process alone writes, so that a worker that dies, or is thought dead and
comes back, can neither lose nor repeat a row. Results are taken in the order of the source.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from ..tiles.source import TileKey
from ..wafers import Wafer
from .engine import Engine, Rows
from .scorer import Scorer
from .stream import Inputs

PARTITION = 64  # tiles that a worker takes at a time: small enough that a dead one costs seconds
_AHEAD = 4  # partitions in flight for each worker


@dataclass(frozen=True)
class Spec:
    """What a worker needs to score any partition of a run."""

    inputs: Inputs
    scorer: Scorer
    readers: int
    budget: int
    threads: int  # torch threads of a worker; 0: as many as the worker has
    layout: Wafer | None


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
            with Client(scheduler, timeout="20s") as client:
                yield client, 0
        except (OSError, TimeoutError) as error:
            raise ValueError(
                f"scheduler is {scheduler!r}: {error}; accepted: the address of a running scheduler"
            ) from error
        return
    from ..base.machine import cores

    share = max(1, cores() // count)
    with LocalCluster(
        n_workers=count, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as local, Client(local) as client:  # fmt: skip
        yield client, share


def workers_of(scheduler: object) -> int | None:
    """N of "local:N" (a "local" alone: one a core); None for an address."""
    from ..base.machine import cores

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


class Cluster:
    """The engine's work spread over the workers of a dask client; used as `Engine` is."""

    def __init__(self, client: Any, spec: Spec, engine: Engine, used: dict[str, str]) -> None:
        self.client, self.engine, self.used = client, engine, used
        # the run's decisions were made on its first tile, here: every worker holds the same
        self.blob = pickle.dumps(spec)

    def run(self, keys: Iterable[TileKey]) -> Iterator[tuple[int, Rows]]:
        keys = iter(keys)
        blob = self.client.scatter(self.blob, broadcast=True, hash=False)
        workers = max(1, len(self.client.scheduler_info()["workers"]))
        waiting: deque[Any] = deque()
        try:
            while True:
                while len(waiting) < _AHEAD * workers and (part := list(islice(keys, PARTITION))):
                    waiting.append(self.client.submit(score_partition, blob, part, pure=False))
                if not waiting:
                    return
                found: Partition = waiting.popleft().result()
                self.used.update(found.backends)
                self.engine.stages.merge(found.stages)
                self.engine.scorer.learn(found.scorer)
                yield from found.results
        finally:
            for future in waiting:
                future.cancel()


def score_partition(blob: bytes, keys: list[TileKey]) -> Partition:
    """Runs on a worker."""
    import torch

    from semnr_kernels._registry import recording

    spec = _spec(blob)
    torch.set_num_threads(spec.threads or _threads_here())
    engine = Engine(spec.inputs, spec.scorer, spec.readers, spec.budget, spec.layout)
    with recording() as used:
        results = list(engine.run(keys))
    return Partition(results, dict(used), engine.stages.state(), spec.scorer.learnt())


@lru_cache(maxsize=4)
def _spec(blob: bytes) -> Spec:
    """Sources are opened once in a worker, not once a partition."""
    spec: Spec = pickle.loads(blob)
    return spec


def _threads_here() -> int:
    from distributed import get_worker

    return int(get_worker().state.nthreads)
