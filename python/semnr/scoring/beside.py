"""Scores that are taken while something else reads the tiles: `semnr.denoise(score=)`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from ..base.outputs import apart, local
from ..runs import Run
from ..runs.run import clear_run, only_a_run
from ..tiles import TileSource
from ..tiles.extent import extent_of
from . import score as score_tiles
from .device import devices_of
from .prepare import inputs_of, ready
from .resume import may_write, metrics_before


class Scores:
    """The scores of tiles that are denoised as they are read; see `score` of `semnr.denoise`."""

    def __init__(self, score: Any, out: Any) -> None:
        place = Path(out) if isinstance(out, str | Path) else Path()
        options: dict[str, Any] = {"out": place.with_name(f"{place.stem}-scores") if place.name else place}
        if isinstance(score, Mapping):
            options |= score
        elif isinstance(score, str | Path):
            options["out"] = score
        elif score is not True:
            raise TypeError(f"score is {type(score).__name__}; accepted: True, False, a path, arguments of semnr.score")
        if taken := sorted({"src", "resume", "workers", "quiet"} & set(options)):
            raise ValueError(
                f"score has {taken[0]!r}, which denoise sets itself; accepted: other arguments of semnr.score"
            )
        self.options = options

    @property
    def device(self) -> Any:
        """The one device that tiles are scored on; None: the processor, or several."""
        first, *more = devices_of(self.options.get("device") or "cpu")
        return None if more else first

    def prepare(self, source: TileSource, out: Path, *, overwrite: bool, resume: bool) -> None:
        """Refuse what cannot be scored, or would be written over something, before a tile is denoised."""
        asked = self.options
        inputs = inputs_of(
            source,
            *(
                asked.get(name)
                for name in ("reference", "noisy", "root", "noisy_2", "noisy_3", "match", "crop", "mask")
            ),
        )
        scores = asked["out"] = local("score out", asked["out"])
        for name, place in (("out", out), ("score out", scores)):
            apart(name, place, chain.from_iterable(extent_of(one) for one in inputs.sources()))
        apart("score out", scores, [(str(out), True)])
        before = None
        if overwrite:
            only_a_run(scores)
        else:
            may_write(scores, resume)
            before = metrics_before(scores)
        weights, backend, device = (asked.get(name) for name in ("dists_weights", "backend", "device"))
        ready(inputs, asked.get("metrics"), weights, backend, devices_of(device or "cpu")[0], before)

    def clear(self) -> None:
        """Delete the run that an earlier call left."""
        clear_run(self.options["out"])

    def run(self, source: TileSource, *, resume: bool, workers: int, quiet: bool) -> Run:
        """Score every tile of `source`, which denoises it as it is read."""
        return score_tiles(source, resume=resume, workers=workers, quiet=quiet, **self.options)
