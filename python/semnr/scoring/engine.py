"""The engine: tiles are read ahead, batched, scored in parallel and handed on in order, by threads with backpressure.

One engine serves every run: this process, or each worker of a cluster on its partition of the tiles.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..base.threads import in_order, pool
from ..base.timing import Stages
from ..tiles.source import Problem, TileKey
from ..wafers import Wafer
from . import device as devices
from .device import Upload
from .scorer import Scorer, unscored
from .stream import Batch, Inputs, batches

Rows = list[dict[str, Any]]
# Of candidate pixels in a batch: a 512 x 512 tile of 8 bit. Several batches are at work, larger ones gain nothing.
BATCH_BYTES = 2**18
LEAST_TILE_BYTES = 2**20  # a tile may take this whatever the budget


@dataclass
class Engine:
    """Scores tiles of `inputs`. `run(keys)` gives (pixels, rows) in the order of the keys, whatever the workers."""

    inputs: Inputs
    scorer: Scorer
    readers: int
    budget: int
    layout: Wafer | None = None
    upload: Upload | None = None
    stages: Stages = field(default_factory=Stages)

    def run(self, keys: Iterable[TileKey]) -> Iterator[tuple[int, Rows]]:
        self.stages.threads["read"] = self.readers
        with pool(self.readers, "read") as threads:
            loaded = in_order(threads, self._load, keys, self.readers * 2 + 2)
            yield from self._in_parallel(self._jobs(loaded))

    def decide(self, keys: Iterable[TileKey]) -> None:
        """Let the first tile that can be read decide what it decides for the whole run, before any worker does.

        Raises
        ------
        BackendUnavailable
            The backend that was named cannot score this tile.
        """
        for key in keys:
            loaded = self.inputs.load(key, self._tile_bytes, computed=False)
            if not isinstance(loaded, Problem):
                first = {name: pixels if pixels.ndim == 3 else pixels[None] for name, pixels in loaded.items()}
                if self.inputs.computes:  # what is denoised later has the shape and dtype of its input
                    first["x"] = first["noisy"]
                self.scorer.begin(key.tile, first)
                if self.upload is None:
                    self.scorer.rehearse(key, first)
                return

    def _load(self, key: TileKey) -> Any:
        with self.stages.stage("read"):
            return self.inputs.load(key, self._tile_bytes)

    @property
    def _tile_bytes(self) -> int:
        """Of one tile with its reference and noisy input: several are read ahead, and scoring needs a multiple."""
        return max(self.budget // 8, LEAST_TILE_BYTES)

    def _jobs(self, loaded: Iterator[tuple[TileKey, Any]]) -> Iterator[tuple[int, Callable[[], Rows]]]:
        """(pixels, job) for each batch or problem; a job returns rows."""
        # a tile is held as candidate, reference and noisy, in the read-ahead and in the batches at work
        most = max(1, min(BATCH_BYTES if self.upload is None else devices.BATCH_BYTES, self.budget // 64))
        for item in batches(loaded, most):
            if not isinstance(item, Batch):
                key, problem = item
                yield 0, partial(self.placed, unscored([key], problem.status, problem.reason))
                continue
            x = item.parts["x"]
            self.scorer.begin(item.keys[0].tile, {name: images[0] for name, images in item.parts.items()})
            if x.dtype == self.scorer.dtype:
                yield x.size, partial(self._score, item.keys, item.parts, *self._sent(item))
            else:
                reason = f"tile is {x.dtype}, the run {self.scorer.dtype}"
                yield 0, partial(self.placed, unscored(item.keys, "wrong_dtype", reason))

    def _sent(self, batch: Batch) -> tuple[dict[str, Any], Any]:
        """The pixels where they are scored, and the event of their arrival there."""
        if self.upload is None:
            return batch.parts, None
        with self.stages.stage("upload"):
            there = self._there(batch)
            sent, arrival = self.upload({name: v for name, v in batch.parts.items() if name not in there})
        return {name: there[name] if name in there else sent[name] for name in batch.parts}, arrival

    def _there(self, batch: Batch) -> dict[str, Any]:
        """The parts of a batch that lie on the device, because its tiles were denoised there."""
        if batch.there is None:
            return {}
        import torch

        roles = {"x": "image"}
        if self.inputs.noisy == (self.inputs.candidate[0], "noisy"):
            roles["noisy"] = "noisy"
        found = {name: [tile[role] for tile in batch.there] for name, role in roles.items()}
        return {name: torch.stack([v if v.ndim == 3 else v[None] for v in images]) for name, images in found.items()}

    def _score(self, keys: list[TileKey], host: dict[str, Any], parts: dict[str, Any], arrival: Any) -> Rows:
        with self.stages.stage("compute"):
            if self.upload is None:
                return self.placed(self.scorer.rows(keys, parts))
            with self.upload.arrived(parts, arrival):
                return self.placed(self.scorer.rows(keys, parts, host))

    def placed(self, rows: Rows) -> Rows:
        return rows if self.layout is None else [self.layout.complete(row) for row in rows]

    def _in_parallel(self, jobs: Iterable[tuple[int, Callable[[], Rows]]]) -> Iterator[tuple[int, Rows]]:
        """(pixels, rows) of the jobs in their order, as many at work as torch has threads, each on one of them.

        Many small operations on several tiles at once beat each operation split over all threads, and do not
        suffer when the machine is busy.
        """
        import torch

        usual = torch.get_num_threads()
        count = usual if self.upload is None else devices.BUFFERS
        self.stages.threads["compute"] = count
        # the context carries use_backend and the record of backends into the threads
        ready = ((pixels, job, contextvars.copy_context()) for pixels, job in jobs)
        with pool(count, "score", torch.set_num_threads, 1) as threads:
            try:
                for (pixels, *_), rows in in_order(threads, lambda item: item[2].run(item[1]), ready, count + 1):
                    yield pixels, rows
            finally:
                torch.set_num_threads(usual)


def problem_row(problem: Problem) -> dict[str, Any]:
    """The row of a problem that the source itself names."""
    return {"tile": problem.tile, "path": None, "index": None, "status": problem.status, "reason": problem.reason}
