"""The comparison: every denoiser over every field, resumable; or a folder of outputs scored by the same rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .. import __version__
from ..base.files import atomic, keeping
from ..base.lock import only_writer
from ..base.machine import cores
from ..base.outputs import apart, local
from .denoisers import Ready, Setup, Skipped, ready
from .fields import FRAME, MARKED, Field, digest, fields
from .methods import as_output
from .protocol import Protocol, load
from .scores import NETWORKS_NEEDED, Truth
from .store import MEANS, NETWORKS, OUTPUTS, PROTOCOL, TABLE, Row, Store
from .submission import Submission, Unusable, submission
from .table import means, text, write_means

_EVERY = 15.0  # seconds between parts
_FAILED = "failed"  # in the reason of a row: it is tried again
Source = Ready | Submission


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    out : Path
        Its folder: protocol.toml, scores/ (a row a denoiser and field, Parquet), table.parquet, table.md.
    rows : list of dict
        All rows that are there, of earlier runs too.
    means : list of dict
        A row a denoiser, kind of field and figure: mean, interval, difference from the baseline.
    skipped : dict of str to str
        Denoisers and metrics that did not run, and why.
    problems : dict of str to list of str
        By submission or denoiser: what was not scored, and why.
    left : int
        Pairs of a denoiser and a field that were to be done and are not.
    """

    out: Path
    rows: list[Row]
    means: list[dict[str, Any]]
    skipped: dict[str, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)
    left: int = 0

    def __str__(self) -> str:
        return text(self.means, self.rows)

    def to_dict(self) -> dict[str, Any]:
        """In plain Python, for JSON."""
        return {
            "out": str(self.out), "means": self.means, "skipped": self.skipped, "problems": self.problems,
            "left": self.left,
        }  # fmt: skip


def compare_denoisers(
    out: str | Path,
    *,
    pairs: str | Path | None = None,
    denoisers: Sequence[str] | None = None,
    submissions: Mapping[str, str | Path] | None = None,
    careamics: str | None = None,
    split: str = "table",
    groups: int | None = None,
    minutes: float | None = None,
    workers: int | None = None,
    keep: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Run the denoisers of the protocol over its fields and score them, or score somebody's outputs.

    Parameters
    ----------
    out : path
        Folder of the comparison. What an earlier run of the same protocol left there is gone on with.
    pairs : path, optional
        Folder of the real pairs. Without it the synthetic fields alone are taken.
    denoisers : sequence of str, optional
        Names of the protocol. Default: all of them, or none where there is a submission.
    submissions : mapping of str to path, optional
        Name in the table to a folder of outputs, named like the inputs that `write_inputs` writes.
    careamics : str, optional
        A Python interpreter with CAREamics, for Noise2Void and Noise2Noise.
    split : {"table", "development"}
        The development fields are those that settings may be chosen on.
    groups : int, optional
        Only the first so many groups of real pairs and as large a share of each synthetic kind, in the protocol's
        seeded order.
    minutes : float, optional
        Begin no field after that time; a later run goes on.
    workers : int, optional
        Processes, one thread each. Default: one a core.
    keep : bool
        Also write every output as a 16-bit PNG, in the form of a submission.
    say : callable
        Called with a line of text now and then.

    Returns
    -------
    Comparison

    Raises
    ------
    FileExistsError, FileNotFoundError, ValueError
        Names the argument, what it was and what is accepted.
    """
    protocol, folder = load(), local("out", out)
    known = list(protocol["denoisers"])
    given = dict(submissions or {})
    chosen = list(denoisers) if denoisers is not None else ([] if given else known)
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"denoisers has {unknown[0]!r}; accepted: {', '.join(known)}")
    if split not in ("table", "development"):
        raise ValueError(f"split is {split!r}; accepted: 'table', 'development'")
    for name, value in (("groups", groups), ("workers", workers)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} is {value!r}; accepted: an integer of at least 1")
    apart("out", folder, [(str(pairs), True)] if pairs is not None else [])
    taken = some(fields(protocol, None if pairs is None else Path(pairs), split), protocol, groups)
    with only_writer(folder), keeping(folder, lambda: (folder / PROTOCOL).is_file()):
        store = Store(folder, protocol)
        skipped: dict[str, str] = {}
        problems: dict[str, list[str]] = {}
        sources: dict[str, Source] = {}
        for name, place in given.items():
            apart("out", folder, [(str(place), True)]) if not _ours(folder, Path(place)) else None
            sources[name] = submission(name, Path(place), image_names(taken), known)
            problems[name] = list(sources[name].problems)  # type: ignore[union-attr]
        setup = Setup(protocol, folder / NETWORKS, taken, careamics, say)
        for name in chosen:
            try:
                sources[name] = ready(name, setup)
            except Skipped as error:
                skipped[name] = str(error)
                say(f"{name} is left out: {error}")
        left = _run(store, taken, sources, split, minutes, workers or cores(), keep, say)
        rows = store.rows()
        for row in rows:
            for reason in (row["reason"] or "").splitlines():
                metric, _, why = reason.partition(": ")
                if metric in NETWORKS_NEEDED:
                    skipped[metric] = why
                elif reason and row["denoiser"] in sources and not reason.endswith("is missing"):
                    problems.setdefault(row["denoiser"], []).append(reason)
        judged = means(rows, protocol)
        write_means(judged, folder / MEANS)
        with atomic(folder / TABLE) as temporary:
            temporary.write_text(text(judged, rows) + "\n", encoding="utf-8")
    return Comparison(folder, rows, judged, skipped, {k: v for k, v in problems.items() if v}, left)


def _ours(folder: Path, place: Path) -> bool:
    """Outputs that --keep wrote may be scored where they lie."""
    return place.resolve().is_relative_to((folder / OUTPUTS).resolve())


def some(
    found: dict[str, Callable[[], Field]], protocol: Protocol, groups: int | None
) -> dict[str, Callable[[], Field]]:
    """The first groups of real pairs, and the same share of each synthetic kind, at least one field."""
    if groups is None:
        return found
    by_kind: dict[str, list[str]] = {}
    for name in found:
        kind, _, rest = name.partition("-")
        group = protocol.group(rest) if kind == "real" else rest
        if group not in by_kind.setdefault(kind, []):
            by_kind[kind].append(group)
    share = min(1.0, groups / len(by_kind["real"])) if "real" in by_kind else 1.0
    wanted = {kind: names[: max(1, round(share * len(names)))] for kind, names in by_kind.items()}
    if "real" not in by_kind:
        wanted = {kind: names[:groups] for kind, names in by_kind.items()}
    kept = {}
    for name, make in found.items():
        kind, _, rest = name.partition("-")
        if (protocol.group(rest) if kind == "real" else rest) in wanted[kind]:
            kept[name] = make
    return kept


def image_names(taken: Mapping[str, Callable[[], Field]]) -> list[str]:
    """Names of all images of these fields."""
    marked = ("real", "wafer")
    return [name + end for name in taken for end in ((FRAME, MARKED) if name.partition("-")[0] in marked else (FRAME,))]


def write_inputs(folder: str | Path, *, pairs: str | Path | None = None, groups: int | None = None) -> int:
    """Write every image that a denoiser gets as an 8-bit PNG; returns how many.

    Raises
    ------
    FileExistsError
        The folder is not empty.
    """
    out, protocol = local("inputs", folder), load()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"inputs is {out}, which is not empty; accepted: a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for make in some(fields(protocol, None if pairs is None else Path(pairs)), protocol, groups).values():
        for name, image in make().images.items():
            Image.fromarray(image).save(out / f"{name}.png")
            count += 1
    return count


def _run(
    store: Store, taken: Mapping[str, Callable[[], Field]], sources: Mapping[str, Source], split: str,
    minutes: float | None, workers: int, keep: bool, say: Callable[[str], None],
) -> int:  # fmt: skip
    """Do what is not there yet; returns how much is left."""
    made_by = {name: source.made_by for name, source in sources.items() if isinstance(source, Ready)}
    # a submission may have changed: its files are read again
    there = {
        (row["denoiser"], row["field"])
        for row in store.rows()
        if row["made_by"] == made_by.get(row["denoiser"]) and _FAILED not in (row["reason"] or "")
    }
    jobs = {name: {key: source for key, source in sources.items() if (key, name) not in there} for name in taken}
    jobs = {name: wanted for name, wanted in jobs.items() if wanted}
    whole, done, begun = sum(map(len, jobs.values())), 0, time.monotonic()
    if not jobs:
        return 0
    say(f"{len(sources)} denoisers, {len(jobs)} fields: {whole} to do, {len(there)} there")
    places = store.folder / OUTPUTS if keep else None
    waiting, rows, written = list(jobs), [], time.monotonic()
    running: set[Future[list[Row]]] = set()

    def over() -> bool:
        return minutes is not None and time.monotonic() - begun > 60 * minutes

    with ProcessPoolExecutor(workers, get_context("spawn"), _single_thread) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < workers and not over():
                    name = waiting.pop(0)
                    running.add(pool.submit(_field, taken[name], store.protocol, jobs[name], split, places))
                if not running:
                    break
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    rows += future.result()
                    done += len(future.result())
                if time.monotonic() - written > _EVERY or not running:
                    store.add(rows)
                    rows, written = [], time.monotonic()
                    say(f"{done} of {whole}, {time.monotonic() - begun:.0f} s")
        finally:
            # stopped or not: what is at work is waited for and kept
            rows += [row for future in wait(running).done if future.exception() is None for row in future.result()]
            store.add(rows)
    return whole - done


def _single_thread() -> None:
    torch.set_num_threads(1)


def _field(
    make: Callable[[], Field], protocol: Protocol, sources: Mapping[str, Source], split: str, keep: Path | None
) -> list[Row]:
    """One field by several denoisers: the truth about it is worked out once."""
    made = make()
    truth = Truth(made, protocol)
    rows = []
    for name, source in sources.items():
        row: Row = {
            "denoiser": name, "made_by": source.made_by if isinstance(source, Ready) else "submission",
            "kind": made.kind, "field": made.name, "group": made.group, "split": split, "protocol": protocol.sha256,
            "semnr": __version__, "reason": None,
        }  # fmt: skip
        outputs: dict[str, np.ndarray] = {}
        seconds, reasons = 0.0, []
        for key, x in made.images.items():
            begun = time.process_time()
            try:
                outputs[key] = source.output(key, x) if isinstance(source, Submission) else as_output(source.method(x))
            except Unusable as error:
                reasons.append(f"{key}: {error}" if str(error) != "missing" else f"{key} is missing")
            except Exception as error:  # a denoiser of others may raise anything: the rest of the table goes on
                told = " ".join(str(error).split())
                reasons.append(f"{_FAILED} on {key}: {type(error).__name__}: {told}")
            seconds += time.process_time() - begun
        if isinstance(source, Ready):
            each = source.seconds_each
            row["seconds"] = seconds if each is None else each * len(outputs)
            row["megapixels"] = sum(v.size for v in outputs.values()) / 1e6
        frame, marked = outputs.get(made.name + FRAME), outputs.get(made.name + MARKED)
        for start, image, key in (("", frame, FRAME), ("marked_", marked, MARKED)):
            given = made.images.get(made.name + key)
            row[f"{start}input_sha256"] = None if given is None else digest(given)
            row[f"{start}output_sha256"] = None if image is None else digest(image)
        if frame is not None:
            row |= truth.score(frame, marked)
        reasons += [f"{metric}: {why}" for metric, why in truth.missing.items()]
        row["reason"] = "\n".join(reasons) or None
        if keep is not None:
            _kept(keep / name.replace(" ", "-"), outputs)
        rows.append(row)
    return rows


def _kept(folder: Path, outputs: Mapping[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in outputs.items():
        with atomic(folder / f"{name}.png") as temporary:
            Image.fromarray(image).save(temporary, format="PNG")
