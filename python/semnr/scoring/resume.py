"""What a run's numbers depend on, kept in run.json from its start, and whether an earlier run may be gone on with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..base import lock
from ..base.jsonable import plain
from ..runs.parquet import FOLDER, done_tiles, part_files
from ..runs.run import Run
from ..runs.seen_ids import TileIds
from ..runs.verdict import NAME as VERDICT
from ..tiles.source import Problem, TileSource
from ..wafers import Wafer
from .scorer import fingerprint
from .stream import Inputs


@dataclass(frozen=True)
class Before:
    """What an earlier run in the folder left; empty where there is none."""

    info: Mapping[str, Any] = field(default_factory=dict)
    done: TileIds = field(default_factory=TileIds)

    @property
    def decided(self) -> dict[str, Any] | None:
        """What its first tile decided; of a run that scored nothing, nothing was."""
        return self.info.get("decided") if len(self.done) else None


def identity(inputs: Inputs, layout: Wafer | None, folder: Path) -> dict[str, Any]:
    """Where pixels come from, what they are made by, and the layout that places them, as run.json keeps it."""
    named = {"source": inputs.candidate, **inputs.named()}
    places = {name: None if place is None else whence(place[0], folder) for name, place in named.items()}
    made: dict[str, Any] = {}
    for name, (source, role) in ((name, place) for name, place in named.items() if place is not None):
        known = any(place is not None and place[0] is source for n, place in named.items() if n in made)
        made[name] = {"role": role} if known else {"role": role, **source.settings()}
    return plain({**places, "made": made, "wafer": None if layout is None else layout.to_dict()})


def whence(source: TileSource, folder: Path) -> str:
    """Where a source lies, as run.json names it: relative to the run, so that both can move together.

    Links are resolved: a link that leads to another lot by now is another source.
    """
    made = source.settings()
    text = source.name if source.origin is None else _relative(source.origin, folder)
    if source.origin is not None and "fused" in made:
        text += f", {len(made['fused'])} frames fused"
    return f"{text} denoised by {made['denoiser']['model']}" if source.origin and "denoiser" in made else text


def _relative(origin: str, folder: Path) -> str:
    if "://" in origin.removeprefix("file://"):
        return origin
    real = os.path.realpath(origin.removeprefix("file://"))
    try:
        return Path(os.path.relpath(real, os.path.realpath(folder))).as_posix()
    except ValueError:  # another drive
        return real


def may_write(folder: Path, resume: bool) -> None:
    """Refuse a folder of somebody else's, or a run that was not to be gone on with, before anything is touched."""
    if (folder / "run.json").exists():
        if not {"requested", "settings"} & Run.open(folder).info.keys():
            raise ValueError(f"out is {folder}, whose run.json is of no score run; accepted: another folder")
        if not resume:
            raise ValueError(f"out is {folder}, which holds a run already; accepted: another folder, or resume=True")
    elif others := _others(folder):
        raise ValueError(
            f"out is {folder}, which holds other files ({others[0]!r}); accepted: a new, empty or scored folder"
        )


def _others(folder: Path) -> list[str]:
    """What is in `folder` besides the traces of a run that did not come to its first run.json (a kill, a full disk)."""
    if not folder.is_dir():
        return [folder.name] if folder.exists() else []
    left = [entry.name for entry in folder.glob(".run.json.*.tmp")]
    left += [FOLDER] if (folder / FOLDER).is_dir() and not any((folder / FOLDER).iterdir()) else []
    return sorted(e.name for e in folder.iterdir() if e.name not in left and not lock.is_ours(e.name))


def metrics_before(folder: Path) -> list[str] | None:
    """What an earlier run in `folder` measures; None where there is none that has scored anything."""
    if not (folder / "run.json").exists() or not part_files(folder):
        return None
    asked = Run.open(folder).info.get("requested")
    return list(asked.get("metrics") or []) if isinstance(asked, Mapping) else None


def begin(folder: Path, settings: Mapping[str, Any], resume: bool) -> Before:
    """What an earlier run in `folder` left, which is gone on with; refuses to mix settings.

    Only tiles that were scored are done: the others are tried again, since what ailed them may be mended. Nothing is
    changed here; `drop_unscored` takes their rows out once run.json says that the run goes on.

    Raises
    ------
    ValueError
        Which settings differ, or what an earlier version did not record.
    """
    may_write(folder, resume)
    if not (folder / "run.json").exists():
        return Before()
    run, done = Run.open(folder), done_tiles(folder)
    if len(done):
        _check(folder, run.info.get("requested"), settings)
    return Before(run.info, done)


def _check(folder: Path, before: Any, settings: Mapping[str, Any]) -> None:
    before = before if isinstance(before, Mapping) else {}
    if missing := [name for name in settings if name not in before]:
        raise ValueError(
            f"out is {folder}, a run of an earlier version of semnr, which did not record {', '.join(missing)}: "
            "whether more tiles would be scored alike cannot be told. It can be read, reported and guarded; accepted "
            "to score more: another folder"
        )
    changed = [f"{name}: was {was!r}, is {now!r}" for name, was, now in _differences(before, plain(dict(settings)))]
    if changed:
        raise ValueError(f"out is {folder}, a run with other settings ({'; '.join(changed)}); accepted: the same ones")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, was, is) of each entry that differs, the innermost ones of tables."""
    for name in dict.fromkeys((*now, *(before if within else ()))):
        was, value = before.get(name), now.get(name)
        if isinstance(was, Mapping) and isinstance(value, Mapping):
            yield from _differences(was, value, f"{within}{name}.")
        elif was != value:
            yield f"{within}{name}", was, value


def set_aside_verdict(folder: Path) -> None:
    """A verdict on fewer rows is none on these: it is kept under a name that no report reads."""
    verdict = folder / VERDICT
    if verdict.is_file():
        verdict.replace(folder / "earlier-verdict.json")


def same_first_tile(inputs: Inputs, decided: Mapping[str, Any], out: Path) -> None:
    """Refuse a source whose first scored tile has other pixels by now, whatever its path.

    Raises
    ------
    ValueError
        Which tile, and that it changed.
    """
    try:
        key = inputs.candidate[0].find(decided["tile"])
        if key is None:
            return  # counted at the end: there are more rows than tiles
        loaded = inputs.load(key, computed=False)
    except TypeError:  # a stream is read once
        return
    if not isinstance(loaded, Problem) and fingerprint(loaded) != decided["pixels"]:
        raise ValueError(
            f"out is {out}, a run of other pixels: tile {key.tile} of {inputs.candidate[0].name} has changed since it "
            "was scored; accepted: the tiles as they were, or another folder"
        )
