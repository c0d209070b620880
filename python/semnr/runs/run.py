"""A scored run on disk: `run.json` (settings, machine, counts) and the rows."""

from __future__ import annotations

import json
import os
import platform
import re
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..base.lock import is_ours
from ..base.notebook import figure, picture
from ..base.outputs import holds, replaceable
from ..base.pictures import window
from ..base.plots import RESIDUAL, Panel, draw
from ..tiles.owned import clear, clear_zarr, written_arrays, zarr_files
from ..wafers import Wafer
from .brief import as_html
from .flagged import flagged, write_flagged
from .info import read_info
from .parquet import ALARMS, MAPS, read_rows
from .parquet import FOLDER as PARTS
from .pixels import Images, RunPixels
from .summaries import by_place, counts
from .verdict import NAME as VERDICT
from .verdict import Verdict


@dataclass(frozen=True)
class Run:
    """A scored run on disk: what `semnr.score` leaves in its folder.

    Parameters
    ----------
    path : Path
        The folder.
    info : dict
        What its `run.json` says: settings, machine, counts, summary.
    verdict : Verdict, optional
        Of the rules that `semnr.score` was given.
    images : callable (tile, role) -> ndarray or None, optional
        Pixels of a run of this process, where no path leads to them (arrays). It holds the arrays; it is not pickled.

    Examples
    --------
    >>> run = semnr.score(noisy, reference=clean, out="run", metrics=("psnr", "ssim"), tests=False, label="noisy")
    >>> run = semnr.Run.open("run")  # at any later time
    >>> run.label, run.counts, run.finished, run.exit_code
    ('noisy', {'tiles': 1, 'ok': 1}, True, 0)
    >>> run.table(["tile", "psnr"]).num_rows
    1
    >>> print(run.profile())
    profile noisy of 1 tile(s), denoised: axes PSNR 0.28, SSIM 0.46; area nan, mean axis nan
    >>> run.flagged(), run.alarms, run.by_place()
    ({}, [], {})
    >>> run.to_pandas().shape[0], isinstance(run.thumbnails_html(), str)  # as a notebook shows it
    (1, True)
    """

    path: Path
    info: dict[str, Any]
    verdict: Verdict | None = None  # of the rules that `score` was given
    images: Images | None = field(default=None, repr=False, compare=False)  # arrays of this process, by tile and role

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "images": None}

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """Open the folder of a run.

        Parameters
        ----------
        folder : path
            What `semnr.score` was given as `out`.

        Returns
        -------
        Run

        Raises
        ------
        ValueError
            No folder of a run, or a damaged file in it.
        """
        path = Path(folder)
        return cls(path, read_info(path), _verdict_of(path))

    @property
    def label(self) -> str:
        """Name of the candidate in tables and reports."""
        return str(self.info.get("label") or self.path.name)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end with a row for every tile."""
        return self.info.get("state", "finished") == "finished"

    @property
    def counts(self) -> dict[str, int]:
        """How many tiles there are, and how many of each status; of a run that was cut off, those that it came to."""
        return dict(self.info["counts"] if "counts" in self.info else counts(self.path))

    @property
    def summary(self) -> dict[str, Any]:
        """Mean, median, 5th and 95th percentile of each metric over the tiles that have it."""
        return dict(self.info.get("summary", {}))

    @property
    def problems(self) -> list[dict[str, str]]:
        """The first tiles that were not scored: "tile", "status" and "reason" of each."""
        return list(self.info.get("problems", []))

    @property
    def remarks(self) -> list[str]:
        """What a reader of the numbers should know: renamed columns, metrics left out, tiles that prove nothing."""
        return list(self.info.get("remarks", []))

    @property
    def exit_code(self) -> int:
        """1: a rule fired. 3: tiles or evidence are missing, or something could not be judged. 0: neither."""
        if self.verdict is not None and self.verdict.exit_code:
            return int(self.verdict.exit_code)
        counts = self.counts
        whole = self.finished and counts["ok"] == counts["tiles"] and counts["tiles"] and not self.info.get("unjudged")
        return 0 if whole else 3

    def table(self, columns: list[str] | None = None) -> Any:
        """The rows, one a tile.

        Parameters
        ----------
        columns : list of str, optional
            Which columns to read. Default: all.

        Returns
        -------
        pyarrow.Table
        """
        return read_rows(self.path, columns)

    def by_place(self, wafer: Any = None) -> dict[str, list[dict[str, Any]]]:
        """Means of the metrics by place on the wafer.

        Parameters
        ----------
        wafer : semnr.wafers.Wafer, optional
            Layout of the wafer. Default: the one that the run was given.

        Returns
        -------
        dict of str to list of dict
            "die": one entry a die. With a layout also "reticle" (by reticle field) and "ring" (by distance from the
            centre).
        """
        own = self.info.get("wafer")
        return by_place(self.path, wafer or (Wafer(**own) if own else None))

    def flagged(self) -> dict[str, list[str]]:
        """The tiles that somebody should look at, and why.

        Returns
        -------
        dict of str to list of str
            Tile id to reasons: alarms that name it, rules that fired on it, or its status where it was not scored.
        """
        return flagged(self.path)

    def write_klarf(self, path: str | os.PathLike[str], *, version: str = "1.2", wafer: Any = None) -> int:
        """Write the flagged tiles as KLARF, for a review tool.

        Parameters
        ----------
        path : path
            File to write. An earlier file of this kind is replaced, another one is not.
        version : {"1.2", "1.8"}
            Version of KLARF.
        wafer : semnr.wafers.Wafer, optional
            Layout of the wafer. Default: the one that the run was given.

        Returns
        -------
        int
            How many flagged tiles have no coordinates and are left out.

        Raises
        ------
        ValueError
            No layout is known, or another version.

        Examples
        --------
        >>> layout = semnr.wafers.Wafer(pitch_um=(8000, 6500))
        >>> run = semnr.score(noisy, reference=clean, out="run", metrics="psnr", tests=False)
        >>> run.write_klarf("flagged.klarf", wafer=layout)  # no tile is flagged: a file without defects
        0
        """
        own = self.info.get("wafer")
        place = replaceable("path", path, "a run's flagged tiles", holds(b'"semnr"'))
        return write_flagged(self.path, place, version, wafer or (Wafer(**own) if own else None), self.info)

    @property
    def alarms(self) -> list[dict[str, Any]]:
        """The alarms that sounded, in order, as `alarms.jsonl` has them."""
        path = self.path / ALARMS
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def __repr__(self) -> str:
        counts = self.counts
        outcome = "" if self.verdict is None else f", {self.verdict.outcome}"
        return f"<Run {self.label} at {self.path}: {counts['ok']} of {counts['tiles']} tiles scored{outcome}>"

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame, one a tile.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            pandas is not installed; it is in the extra `semnr[pandas]`.

        Examples
        --------
        >>> run = semnr.score(noisy, reference=clean, out="run", metrics="psnr", tests=False)
        >>> bool((run.to_pandas()["status"] == "ok").all())
        True
        """
        try:
            return self.table().to_pandas()
        except ImportError as error:
            raise ImportError("Run.to_pandas needs pandas: pip install 'semnr[pandas]'") from error

    def thumbnails_html(self, verdict: Verdict | None = None, count: int = 3) -> str:
        """Noisy input and denoised image of the first tiles to look at, as HTML; "" where no pixels are at hand.

        Parameters
        ----------
        verdict : Verdict, optional
            Whose tiles are shown; default: the run's own.
        count : int
            How many tiles.

        Returns
        -------
        str

        Examples
        --------
        >>> run = semnr.score(noisy, reference=clean, out="run", metrics="psnr", tests=False)
        >>> run.thumbnails_html()[:7]
        '<figure'
        >>> semnr.Run.open("run").thumbnails_html()  # the tiles were arrays, of which the folder keeps no pixels
        ''
        """
        verdict = verdict or self.verdict
        marked = [str(r["tile"]) for s in (verdict.fired if verdict else ()) for r in s.regions[:count]]
        tiles = list(dict.fromkeys(marked))[:count] or self.table(["tile"]).column("tile").to_pylist()[:count]
        pixels = RunPixels(self.path, self.info, images=self.images)
        try:
            return "".join(_thumbnail(pixels, tile) for tile in tiles)
        finally:
            pixels.close()

    def _repr_html_(self) -> str:
        """For a notebook: what the run is, its verdict, and thumbnails."""
        if self.verdict is not None:
            return f"<div>{escape(repr(self))}</div>{as_html(self.verdict, self.thumbnails_html())}"
        return f"<div>{escape(repr(self))}</div>{self.thumbnails_html()}"

    def plot(self, tile: str | None = None, *, axes: Any = None) -> Any:
        """Draw a tile: noisy input, denoised image and their difference, with the places that the tests marked.

        Parameters
        ----------
        tile : str, optional
            Its id. Default: the first tile to look at.
        axes : matplotlib axes, one a picture, optional
            Where to draw. Default: a new figure.

        Returns
        -------
        ndarray of matplotlib axes, one a picture

        Raises
        ------
        ValueError
            There is no such tile, or its pixels are not at hand.
        ImportError
            matplotlib is not installed; it is in the extra `semnr[plot]`.

        Examples
        --------
        >>> run = semnr.score(noisy, reference=clean, out="run", metrics="psnr", tests=False)
        >>> run.plot()  # doctest: +SKIP
        """
        rows = self.table(["tile", "evidence_boxes"]).to_pydict()  # a run without tests has no places
        tiles = rows["tile"]
        fired = () if self.verdict is None else self.verdict.fired
        chosen = tile or next((str(r["tile"]) for s in fired for r in s.regions), tiles[0])
        if chosen not in tiles:
            raise ValueError(f"tile is {tile!r}; accepted: one of the run's {len(tiles)} tiles, such as {tiles[0]!r}")
        pixels = RunPixels(self.path, self.info, images=self.images)
        try:
            read = {name: pixels.read(chosen, role) for name, role in (("noisy", "noisy"), ("denoised", "image"))}
        finally:
            pixels.close()
        places = rows.get("evidence_boxes", [None] * len(tiles))[tiles.index(chosen)]
        marks = json.loads(places) if places else []
        panels = [Panel(name, image, marks=marks) for name, (image, _) in read.items() if image is not None]
        if not panels:
            raise ValueError(f"tile {chosen!r} cannot be drawn: {read['denoised'][1]}; accepted: pixels at hand")
        noisy, denoised = (image for image, _ in read.values())
        if noisy is not None and denoised is not None and noisy.shape == denoised.shape:
            difference = noisy.astype(np.float64) - denoised
            panels.append(Panel("residual", difference, RESIDUAL, marks))
        return draw("Run.plot", panels, axes)

    def profile(self) -> Any:
        """The rows as a profile.

        Returns
        -------
        semnr.Profile
        """
        from ..profiles import Profile

        return replace(Profile.from_table(read_rows(self.path), self.info, self.path.name), run=self)


def _thumbnail(pixels: RunPixels, tile: str) -> str:
    images = {name: pixels.read(tile, role)[0] for name, role in (("noisy", "noisy"), ("denoised", "image"))}
    there = {name: image for name, image in images.items() if image is not None}
    levels = window(next(reversed(there.values()), None))
    pictures = [picture(f"{name} {tile}", image, levels) for name, image in there.items()]
    return figure(f"{tile}: {', '.join(there)}", pictures)


def _verdict_of(folder: Path) -> Verdict | None:
    path = folder / VERDICT
    try:
        return Verdict.from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"run is {folder}: {VERDICT} is damaged ({error}); score again with rules, or delete it"
        ) from None


_FILES = re.compile(
    rf"(run\.json|(earlier-)?verdict\.json|alarms\.jsonl|flagged\.klarf|report\.html|{PARTS}/part-\d+\.parquet)"
    rf"|\.(run\.json|verdict\.json|flagged\.klarf|report\.html)\.\d+\.tmp|{PARTS}/\.part-\d+\.parquet\.\d+\.tmp"
)  # and maps.zarr


def only_a_run(folder: Path) -> list[str]:
    """The files in `folder`: those of a run, or none.

    Raises
    ------
    FileExistsError
        Something that no run writes lies there.
    """
    files, stranger = run_files(folder)
    if stranger is not None:
        raise FileExistsError(
            f"out is {folder}, which holds {stranger}; accepted: another path (it was not written by semnr score)"
        )
    return files


def clear_run(folder: Path) -> None:
    """Delete the run in `folder`, if there is one and nothing else."""
    files = only_a_run(folder)
    maps = [name for name in files if name.startswith(f"{MAPS}/")]
    if maps:
        clear_zarr(folder / MAPS, (name[len(MAPS) + 1 :] for name in maps))
    clear(folder, (), dict.fromkeys((name for name in files if name not in maps), ()))
    if (folder / MAPS).is_dir():
        (folder / MAPS).rmdir()


def run_files(folder: Path) -> tuple[list[str], str | None]:
    """(the files of the run in `folder`, the first file there that is none of it)."""
    try:
        info = read_info(folder)
    except (OSError, ValueError):
        info = {}
    ours = {"semnr", "requested", "label"} <= info.keys()
    names: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if is_ours(name) or name.startswith(f"{MAPS}/"):
            continue
        if not ours or path.is_symlink() or not _FILES.fullmatch(name):
            return names, name
        names.append(name)
    if (folder / MAPS).is_dir():
        written = written_arrays(folder / MAPS, "maps")
        maps, stranger = ([], "") if written is None else zarr_files(folder / MAPS, written)
        names += [f"{MAPS}/{name}" for name in maps]
        return names, stranger if stranger is None else f"{MAPS}/{stranger}".rstrip("/")
    return names, None


def machine(device: Any = None) -> dict[str, Any]:
    """Enough to tell where a figure comes from; device: the GPU that is used, if any (None: the first)."""
    import torch

    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(device or 0) if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
