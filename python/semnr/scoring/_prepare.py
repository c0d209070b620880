"""The arguments of a run, checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._lock import is_ours
from ..tiles import open_tiles
from ..tiles._source import TileSource
from ..wafers import Wafer
from ._ids import TileIds
from ._run import Run
from ._sink import FOLDER as PARTS
from ._sink import done_tiles
from ._stream import Inputs

if TYPE_CHECKING:
    from ._trust import Trust

METRICS = ("psnr", "ssim", "fsim", "dists", "cnr")


def count_of(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; accepted: an integer of at least 1")
    return value


def metrics_of(metrics: Sequence[str]) -> tuple[str, ...]:
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    unknown = [m for m in names if m not in METRICS]
    if unknown or not names:
        raise ValueError(f"metrics is {list(names)!r}; accepted: one or more of {', '.join(METRICS)}")
    return tuple(m for m in METRICS if m in names)


def scale_of(value: float | None) -> float | None:
    """A given data_range, checked; None is decided by the tiles' dtype."""
    import torch

    from semnr_kernels._checks import as_data_range

    return None if value is None else as_data_range(torch.uint8, value)


def bytes_of(value: int | str) -> int:
    """2048, "512MiB", "2GiB" in bytes."""
    units = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9, "b": 1}
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if isinstance(value, str):
        text = value.strip().lower()
        for unit, size in units.items():
            number = text.removesuffix(unit).strip()
            if number != text and number.replace(".", "", 1).isdigit() and float(number) > 0:
                return int(float(number) * size)
    raise ValueError(f"memory_budget is {value!r}; accepted: bytes, or a text such as '512MiB' or '2GiB'")


def inputs_of(
    source: TileSource, reference: Any, noisy: Any, root: Any, noisy_2: Any = None, noisy_3: Any = None
) -> Inputs:
    candidate = "candidate" if "candidate" in source.roles else "image"

    def place(given: Any, role: str) -> tuple[TileSource, str] | None:
        if given is not None:
            other = open_tiles(given, root=root)
            return other, role if role in other.roles else "image"
        return (source, role) if role in source.roles else None

    where, input_ = place(reference, "reference"), place(noisy, "noisy")
    if where is not None:  # clean pixels know better than further frames, which are then not read
        return Inputs((source, candidate), where, input_)
    second, third = place(noisy_2, "noisy_2"), place(noisy_3, "noisy_3")
    if input_ is None or second is None:
        raise ValueError(
            f"reference is missing: {source.name} has {', '.join(source.roles)} only; accepted: reference=SOURCE, "
            "a plan with a `reference` column or a tile stack with a `reference` array; or noisy frames of each site, "
            "`noisy`, `noisy_2` and perhaps `noisy_3`, from which PSNR, transfer and contrast are estimated"
            + "".join(f" ({remark})" for remark in source.remarks)
        )
    return Inputs((source, candidate), None, input_, second, third)


def trust_of(tests: bool, metrology: str | None, scan_axis: int) -> Trust:
    from ._trust import Trust

    if not isinstance(tests, bool):
        raise TypeError(f"tests is {tests!r}; accepted: True or False")
    if metrology not in (None, "lines", "holes"):
        raise ValueError(f"metrology is {metrology!r}; accepted: 'lines', 'holes' or None")
    if scan_axis not in (-1, -2):
        raise ValueError(f"scan_axis is {scan_axis!r}; accepted: -1 (scan lines are rows), -2 (they are columns)")
    return Trust(tests, metrology, scan_axis)


def maps_can_be(names: Sequence[str], inputs: Inputs) -> None:
    """Each map needs its pixels: the noisy input for `evidence`, a reference for `ssim` and `cnr`."""
    for name in names:
        if name == "evidence" and inputs.noisy is None:
            raise ValueError("maps has 'evidence' without the noisy input; accepted: with noisy=SOURCE or such a role")
        if name in ("ssim", "cnr") and inputs.reference is None:
            raise ValueError(f"maps has {name!r} without a reference; accepted without one: 'evidence', 'image'")


def layout_of(wafer: Any, source: TileSource) -> Wafer | None:
    """The wafer's layout as given, or as the source knows it."""
    if wafer is None:
        return source.layout
    if isinstance(wafer, Wafer):
        return wafer
    raise TypeError(f"wafer is {type(wafer).__name__}; accepted: semnr.wafers.Wafer, or None")


def can_travel(inputs: Inputs, scheduler: str) -> None:
    """Sources that live in this process's memory cannot be opened by another."""
    for place in (inputs.candidate, *inputs.others.values()):
        if place[0]._recipe is None:
            raise ValueError(
                f"{place[0].name} is held in this process; accepted with scheduler={scheduler!r}: sources opened from "
                "a path or URL that the workers can open too"
            )


def whence(source: TileSource, given: Any, folder: Path) -> str:
    """Where a source lies, as run.json names it: relative to the run, so that both can move together."""
    if isinstance(given, str | os.PathLike) and "://" not in str(given):
        try:
            return Path(os.path.relpath(given, folder)).as_posix()
        except ValueError:  # another drive
            return str(Path(given).absolute())
    return str(given) if isinstance(given, str) else source.name


def begin(folder: Path, settings: dict[str, Any], resume: bool) -> tuple[dict[str, Any], TileIds]:
    """What an earlier run in `folder` says of itself and the ids it scored; refuses to mix settings."""
    if not (folder / "run.json").exists():
        if others := _others(folder):
            raise ValueError(
                f"out is {folder}, which holds other files ({others[0]!r}); accepted: a new, empty or scored folder"
            )
        return {}, TileIds()
    if not resume:
        raise ValueError(f"out is {folder}, which holds a run already; accepted: another folder, or resume=True")
    run, done = Run.open(folder), done_tiles(folder)
    before = run.info["requested"]
    changed = []
    for name, value in settings.items():
        if not _same(before.get(name), value):
            changed.append(f"{name}: was {before.get(name)!r}, is {value!r}")
    if changed and done:
        raise ValueError(f"out is {folder}, a run with other settings ({'; '.join(changed)}); accepted: the same ones")
    return run.info, done


def _others(folder: Path) -> list[str]:
    """What is in `folder` besides the traces of a run that did not come to its first run.json (a full disk)."""
    if not folder.is_dir():
        return [folder.name] if folder.exists() else []
    left = [entry.name for entry in folder.glob(".run.json.*.tmp")]
    left += [PARTS] if (folder / PARTS).is_dir() and not any((folder / PARTS).iterdir()) else []
    return sorted(entry.name for entry in folder.iterdir() if entry.name not in left and not is_ours(entry.name))


def _same(before: Any, now: Any) -> bool:
    if isinstance(now, dict) and isinstance(before, dict):
        return all(before.get(k) == v for k, v in now.items())
    return bool(before == now)
