"""A classifier on a stream of tiles: one row a tile in the folder of a run."""

from __future__ import annotations

import datetime
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels import TileError

from .. import __version__
from ..base.files import write_json
from ..base.lock import is_ours, only_writer
from ..base.outputs import apart
from ..base.progress import Progress
from ..columns import metadata_name
from ..runs import ParquetSink, Run, machine
from ..runs.info import NAME as INFO
from ..tiles.extent import extent_of
from ..tiles.source import TileKey, TileSource, length_of
from .images import prepared, without_bar
from .model import Classifier

_BATCH = 32


@dataclass(frozen=True)
class Predicted:
    """What `semnr.classify.predict` did.

    Attributes
    ----------
    run : Run
        The folder with a row a tile: `category`, `category_confidence`, `category_likeliest`.
    counts : mapping of str to int
        Tiles of each category, "unknown" among them.
    tiles, lost : int
        How many there are, and how many of them could not be read.
    threshold : float
        Confidence below which it abstained.

    Examples
    --------
    >>> done = semnr.classify.predict("run", "lot.zarr", "classes")  # doctest: +SKIP
    >>> done.counts  # doctest: +SKIP
    {'Patterned_surface': 118, 'unknown': 2}
    """

    run: Run
    counts: dict[str, int]
    tiles: int
    lost: int
    threshold: float

    @property
    def exit_code(self) -> int:
        """3: tiles could not be read, or there are none. 0: neither."""
        return 3 if self.lost or not self.tiles else 0


def classified(
    classifier: Classifier, source: TileSource, out: Path, *, threshold: float | None, quiet: bool
) -> Predicted:
    """See `semnr.classify.predict`."""
    least = classifier.threshold if threshold is None else threshold
    if out.is_dir() and (others := [p.name for p in out.iterdir() if not is_ours(p.name)]):
        raise FileExistsError(f"out is {out}, which holds {sorted(others)[0]}; accepted: a new or empty folder")
    apart("out", out, extent_of(source))
    counts: Counter[str] = Counter()
    status: Counter[str] = Counter()
    problems: list[dict[str, str]] = []
    started, total = time.monotonic(), length_of(source)
    info: dict[str, Any] = {
        "semnr": __version__,
        "by": "classify predict",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "label": source.name,
        "state": "running",
        "source": source.origin or source.name,
        "settings": {
            "classifier": classifier.sha256, "classes": list(classifier.classes), "threshold": least,
            "temperature": classifier.temperature, "crop": classifier.crop,
        },
        "wafer": None if source.layout is None else source.layout.to_dict(),
        "machine": machine(),
    }  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(only_writer(out))
        write_json(out / INFO, info)
        sink = ParquetSink(out)
        stack.callback(sink.flush)  # whatever stops the run, the rows that are known are kept
        with Progress("classify", total, quiet=quiet) as progress:
            for row in _rows(classifier, source, least):
                sink.add(row)
                status[row["status"]] += 1
                if row["status"] == "ok":
                    counts[row["category"]] += 1
                else:
                    problems.append({name: row[name] for name in ("tile", "status", "reason")})
                progress.advance()
        sink.flush()
        tiles, ok = status.total(), status.pop("ok", 0)
        info.update(
            state="finished" if tiles == ok else "incomplete",
            counts={"tiles": tiles, "ok": ok, **dict(sorted(status.items()))},
            categories=dict(counts),
            remarks=[_remark(counts, ok, least), *source.remarks],
            problems=problems[:1000],
            summary={},
            seconds=round(time.monotonic() - started, 3),
        )
        write_json(out / INFO, info)
    return Predicted(Run(out, info), dict(counts.most_common()), tiles, tiles - ok, least)


def _remark(counts: Counter[str], ok: int, least: float) -> str:
    told = ", ".join(f"{name} {count}" for name, count in counts.most_common())
    return f"categories of {ok} tiles (unknown below a confidence of {least:.3f}): {told or 'none'}"


def _rows(classifier: Classifier, source: TileSource, least: float) -> Iterator[dict[str, Any]]:
    for problem in source.problems:
        yield {"tile": problem.tile, "status": problem.status, "reason": problem.reason}
    waiting = iter(source)
    while keys := list(islice(waiting, _BATCH)):
        read = [(key, _image(classifier, source, key)) for key in keys]
        good = [image for _, image in read if isinstance(image, np.ndarray)]
        said = iter(classifier.of_prepared(good, threshold=least))
        for key, image in read:
            named = {metadata_name(str(name)): value for name, value in key.meta.items()}
            row = {"tile": key.tile, "path": key.path, "index": key.index, **named}
            if isinstance(image, TileError):
                yield {**row, "status": image.status, "reason": image.reason}
                continue
            made = next(said)
            yield {
                **row, "status": "ok", "reason": None, "category": made.category,
                "category_confidence": made.confidence, "category_likeliest": made.likeliest,
            }  # fmt: skip


def _image(classifier: Classifier, source: TileSource, key: TileKey) -> np.ndarray | TileError:
    try:
        pixels = source.read(key)
        grey, _ = without_bar(pixels, source.instrument(key), classifier.crop)
        return prepared(grey, classifier.kept_side)
    except TileError as error:
        return error
