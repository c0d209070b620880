"""Profile: the scores of many tiles as rows, their aggregates, axes and area. Needs no torch."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from ..base.jsonable import plain
from ..columns import BY_NAME, METRICS
from . import radar
from . import statistics as statistics
from .intervals import grouped, intervals

SCORES = (
    "mse", "mae", "psnr", "ssim", "fsim", "dists", "lpips", "cnr_two_roi", "cnr_fixed_noise", "contrast_retention",
    "cnr_fixed_noise_worst", "contrast_retention_worst",  # of the tile's lowest window
)  # fmt: skip
# Known where the noisy input was: what the transfer rule reads.
INPUTS = ("psnr_noisy", "transfer", "transfer_se")
# Moments of the reference: two profiles whose moments differ were not scored against the same one.
FINGERPRINT = ("reference_mean", "reference_std")
UNFINISHED = "unfinished"  # begins the flag of a run that was cut off
KINDS = ("denoised", "noisy")
TEXTS = (
    "evidence_boxes",
    "lot_id",
    "wafer_id",
    "reason",
    "reference_problem",
    "frames_problem",
    "pair_note",
)  # the first is JSON


@dataclass(frozen=True, eq=False)
class Profile:
    """Scores of N tiles: one row a tile, one column a metric.

    `semnr.profile` makes one from pixels, `Run.profile` from a scored run.

    Parameters
    ----------
    tiles : tuple of str
        Tile ids, each once, in the order of the rows.
    columns : mapping of str to array, (N,)
        Every numeric column by its name, as float64. A column that is not there reads as NaN.
    data_range : float
        Width of the intensity scale that the metrics were computed with, in grey levels.
    settings : mapping, optional
        What the numbers depend on: metrics, FSIM factor, weights of DISTS, and so on.
    flags : tuple of str, optional
        What a reader should know, such as "uncalibrated: DISTS ran on random network weights".
    status : tuple of str, optional
        "ok", or why a tile of a run was not scored, one a tile. Default: all "ok".
    kind : {"denoised", "noisy"}, optional
        "noisy" where the candidate is the noisy input itself.
    label : str, optional
        Name of the candidate in tables.
    auto_ids : bool, optional
        True where the ids are counters of one call and no names.
    texts : mapping of str to tuple of (str or None), optional
        Columns of text, such as `evidence_boxes`.
    run : Run, optional
        The run that the rows are of; a notebook shows its verdict and pictures with the profile.

    Raises
    ------
    ValueError
        A column or `status` of another length than `tiles`, an id that occurs twice, or an unknown `kind`.

    Examples
    --------
    >>> scores = semnr.profile(denoised, clean, metrics=("psnr", "ssim"), label="gaussian")
    >>> len(scores), round(float(scores.psnr[0]), 1), round(float(scores.ssim[0]), 2)
    (1, 30.7, 0.9)
    >>> {name: round(value, 2) for name, value in scores.axes().items()}
    {'psnr': 0.52, 'ssim': 0.9}
    >>> scores.axes_rows().shape, scores.area_rows().shape, scores.clusters().tolist()
    ((1, 5), (1,), [0])
    >>> scores.column("fsim")  # was not asked for
    array([nan])
    >>> both = semnr.Profile.concat([scores, scores])  # two batches of one run
    >>> both.take([1]).tiles, both.key("lot_id")
    (('t000001',), ('', ''))
    >>> round(both.summary()["ssim"]["mean"], 2), both.to_dict()["tiles"]
    (0.9, ['t000000', 't000001'])
    >>> both.to_pandas().columns[:4].tolist()
    ['tile', 'status', 'mse', 'mae']
    """

    tiles: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    data_range: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    kind: str = "denoised"
    label: str = ""
    auto_ids: bool = False  # ids are counters of one call, not names
    texts: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)  # columns of text, such as boxes
    run: Any = field(default=None, repr=False)  # a `semnr.Run`, where the rows are those of one

    def __post_init__(self) -> None:
        n = len(self.tiles)
        rows = {k: np.asarray(v, dtype=np.float64) for k, v in self.columns.items()}
        wrong = {k: v.shape for k, v in rows.items() if v.shape != (n,)}
        if wrong:
            raise ValueError(f"columns has {wrong} for {n} tiles; accepted: ({n},) each")
        if len(set(self.tiles)) != n:
            twice = next(t for t in self.tiles if self.tiles.count(t) > 1)
            raise ValueError(f"tiles has {twice!r} twice; accepted: each id once")
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; accepted: {', '.join(map(repr, KINDS))}")
        if self.status and len(self.status) != n:
            raise ValueError(f"status has {len(self.status)} entries for {n} tiles")
        object.__setattr__(self, "columns", rows)
        if not self.status:
            object.__setattr__(self, "status", ("ok",) * n)

    def __len__(self) -> int:
        return len(self.tiles)

    def column(self, name: str) -> np.ndarray:
        """The rows of one column.

        Parameters
        ----------
        name : str
            Name of the column; "cnr" stands for "cnr_two_roi".

        Returns
        -------
        ndarray, (N,), float64
            NaN throughout where the profile does not have the column.
        """
        name = "cnr_two_roi" if name == "cnr" else name
        return self.columns.get(name, np.full(len(self), np.nan))

    mse = property(
        lambda self: self.column("mse"), doc="Mean squared error of each tile, (N,), in squared grey levels."
    )
    mae = property(lambda self: self.column("mae"), doc="Mean absolute error of each tile, (N,), in grey levels.")
    psnr = property(
        lambda self: self.column("psnr"),
        doc="Peak signal-to-noise ratio of each tile, (N,), in dB; infinite for identical images.",
    )
    ssim = property(lambda self: self.column("ssim"), doc="SSIM of each tile, (N,).")
    fsim = property(lambda self: self.column("fsim"), doc="FSIM of each tile, (N,).")
    dists = property(
        lambda self: self.column("dists"), doc="DISTS of each tile, (N,): a distance, 0 for identical images."
    )
    lpips = property(
        lambda self: self.column("lpips"),
        doc="LPIPS (AlexNet) of each tile, (N,): a distance, 0 for identical images; NaN unless it was asked for.",
    )
    cnr = property(lambda self: self.column("cnr_two_roi"), doc="Contrast-to-noise ratio `two_roi` of each tile, (N,).")
    cnr_fixed_noise = property(
        lambda self: self.column("cnr_fixed_noise"),
        doc="Contrast over the noise of the input, (N,); NaN unless the noise is known.",
    )
    contrast_retention = property(
        lambda self: self.column("contrast_retention"),
        doc="Contrast of the candidate over that of the reference, (N,); NaN unless the noise is known.",
    )
    psnr_noisy = property(
        lambda self: self.column("psnr_noisy"), doc="PSNR of the noisy input, (N,), in dB; NaN where it is not known."
    )
    transfer = property(
        lambda self: self.column("transfer"), doc="Evidence transfer T of each tile, (N,); NaN where it is not known."
    )
    transfer_se = property(lambda self: self.column("transfer_se"), doc="Standard error of `transfer`, (N,).")

    @property
    def calibrated(self) -> bool | None:
        """Whether DISTS ran on trained weights. None where it did not run."""
        dists = self.settings.get("dists") or {}
        if not np.isfinite(self.dists).any():
            return None
        return bool(dists.get("calibrated", not any("uncalibrated" in f for f in self.flags)))

    @property
    def unfinished(self) -> str | None:
        """The reason why these may not be all tiles of a run. None where the run came to its end."""
        return next((flag for flag in self.flags if flag.startswith(UNFINISHED)), None)

    @property
    def psnr_of_mean_mse(self) -> float:
        """The PSNR of all tiles together, in dB: that of their mean MSE, which is not the mean of their dB values."""
        mse = self.mse[np.isfinite(self.mse)]
        if not mse.size:
            return math.nan
        return math.inf if mse.mean() == 0 else 10 * math.log10(self.data_range**2 / float(mse.mean()))

    @property
    def cnr_axis(self) -> str:
        """The column that the CNR axis reads.

        It is `cnr_fixed_noise` where the noise of the input is known, because the ratio over an image's own noise rises
        when the image is over-smoothed. Otherwise it is `cnr_two_roi`.
        """
        return "cnr_two_roi" if np.isnan(self.cnr_fixed_noise).all() else "cnr_fixed_noise"

    def axes(self, ranges: Mapping[str, tuple[float, float]] | None = None) -> dict[str, float]:
        """The five axes of all tiles together, each mapped to [0, 1].

        PSNR is that of the mean MSE; the others are means of the finite rows.

        Parameters
        ----------
        ranges : mapping of str to (float, float), optional
            For a metric, the value that maps to 0 and the value that maps to 1, in place of those in
            `semnr.profiles.radar.RANGES`.

        Returns
        -------
        dict of str to float
            In the order PSNR, SSIM, FSIM, DISTS, CNR. A metric without a row is absent.

        Raises
        ------
        ValueError
            An unknown metric in `ranges`, or a range that is not two different finite numbers.
        """
        values: dict[str, float] = {}
        for name, ends in radar.checked_ranges(ranges).items():
            rows = self.column(self.cnr_axis if name == "cnr" else name)
            rows = rows[~np.isnan(rows)]
            if not rows.size:
                continue
            finite = rows[np.isfinite(rows)]
            value = float(finite.mean()) if finite.size else float(rows[0])
            if name == "psnr" and not math.isnan(self.psnr_of_mean_mse):
                value = self.psnr_of_mean_mse
            values[name] = float(radar.on_axis(value, ends))
        return values

    def axes_rows(self, ranges: Mapping[str, tuple[float, float]] | None = None) -> np.ndarray:
        """The five axes of each tile.

        Parameters
        ----------
        ranges : mapping of str to (float, float), optional
            As for `axes`.

        Returns
        -------
        ndarray, (N, 5), float64
            In [0, 1]; NaN where a metric is missing.
        """
        ends = radar.checked_ranges(ranges)
        names = {"cnr": self.cnr_axis}
        return np.stack([radar.on_axis(self.column(names.get(k, k)), v) for k, v in ends.items()], axis=1)

    @property
    def area(self) -> float:
        """Area of the radar chart over that of the full pentagon, in [0, 1].

        It is NaN unless all five axes are there, because areas over fewer axes do not compare. It depends on the order
        of the axes; `mean_axis` does not.
        """
        values = self.axes()
        return float(radar.area(list(values.values()))) if len(values) == len(METRICS) else math.nan

    @property
    def mean_axis(self) -> float:
        """Mean of the five axes, in [0, 1]; NaN unless all five are there."""
        values = self.axes()
        return float(np.mean(list(values.values()))) if len(values) == len(METRICS) else math.nan

    def area_rows(self) -> np.ndarray:
        """The area of the radar chart of each tile.

        Returns
        -------
        ndarray, (N,), float64
            In [0, 1]; NaN where an axis is missing.
        """
        return np.asarray(radar.area(self.axes_rows()))

    def clusters(self) -> np.ndarray:
        """Which tiles belong together, for intervals: tiles of one die are alike.

        Returns
        -------
        ndarray, (N,), int
            The number of the tile's die (by lot and wafer) where `die_x` and `die_y` are columns, else of the tile.
        """
        if not {"die_x", "die_y"} <= set(self.columns):
            return np.arange(len(self))
        more = [statistics.codes(self.key(name)) for name in ("lot_id", "wafer_id")]
        return statistics.clusters(self.column("die_x"), self.column("die_y"), *more)

    def key(self, name: str) -> tuple[str, ...]:
        """A column that names things, as text.

        Parameters
        ----------
        name : str
            A column such as "lot_id" or "die_x".

        Returns
        -------
        tuple of str
            One a tile; "" where a tile has none.
        """
        if name in self.texts:
            return tuple(v or "" for v in self.texts[name])
        return tuple("" if math.isnan(v) else f"{v:g}" for v in self.column(name))

    def intervals(
        self,
        *,
        confidence: float = 0.95,
        seed: int = 0,
        resamples: int = statistics.RESAMPLES,
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> dict[str, Any]:
        """Axes, area and mean axis with percentile bootstrap intervals.

        Whole dies are resampled where dies are known, else tiles.

        Parameters
        ----------
        confidence : float
            Coverage of the intervals, between 0 and 1.
        seed : int
            Seed of the bootstrap.
        resamples : int
            How many bootstrap samples are drawn.
        ranges : mapping, optional
            As for `axes`.

        Returns
        -------
        dict
            "axes": {name: (value, low, high)}; "area" and "mean_axis": (value, low, high); "tiles", "clusters" and
            "confidence". NaN where an axis is missing.

        Examples
        --------
        >>> pair, twice = np.stack([denoised, noisy])[:, None], np.stack([clean, clean])[:, None]
        >>> scores = semnr.profile(pair, twice, metrics="ssim")
        >>> value, low, high = scores.intervals(resamples=200)["axes"]["ssim"]
        >>> bool(low <= value <= high)
        True
        """
        return intervals(self, confidence, seed, resamples, ranges)

    def by(self, level: str, **options: Any) -> dict[str, dict[str, Any]]:
        """The `intervals` of each part: of each tile, die, wafer or lot.

        Parameters
        ----------
        level : {"tile", "die", "wafer", "lot"}
            What the tiles are grouped by.
        **options
            Arguments of `intervals`.

        Returns
        -------
        dict of str to dict
            By the name of the part. The name of a die carries its lot and wafer.

        Raises
        ------
        ValueError
            Another level.

        Examples
        --------
        >>> scores = semnr.profile(denoised, clean, metrics="ssim", tiles=["a"])
        >>> list(scores.by("tile", resamples=50))
        ['a']
        """
        return {name: self.take(rows).intervals(**options) for name, rows in grouped(self, level).items()}

    def take(self, rows: Sequence[int]) -> Profile:
        """The profile of some of the tiles.

        Parameters
        ----------
        rows : sequence of int
            Their places, from 0, in the order that the new profile shall have.

        Returns
        -------
        Profile
        """
        index = list(rows)
        return dataclasses.replace(
            self,
            tiles=tuple(self.tiles[i] for i in index),
            columns={k: v[index] for k, v in self.columns.items()},
            status=tuple(self.status[i] for i in index),
            texts={k: tuple(v[i] for i in index) for k, v in self.texts.items()},
        )

    def summary(self) -> dict[str, Any]:
        """Figures over all tiles.

        Returns
        -------
        dict
            For each score the mean, median, 5th and 95th percentile of its finite rows and their number "n". The mean
            of dB values is named "mean_of_db"; "psnr_of_mean_mse" is the PSNR of all tiles together, and infinite PSNR
            rows are counted in "infinite_psnr". "tiles" and "not_scored" count tiles.
        """
        figures: dict[str, Any] = {}
        for name, rows in self.columns.items():
            finite = rows[np.isfinite(rows)]
            if name in FINGERPRINT or name not in (*SCORES, *INPUTS) or not finite.size:
                continue
            low, middle, high = (float(v) for v in np.percentile(finite, (5, 50, 95)))
            mean = "mean_of_db" if name.startswith("psnr") else "mean"
            centre = {mean: float(finite.mean()), "median": middle}
            figures[name] = {**centre, "p05": low, "p95": high, "n": int(finite.size)}
        figures["psnr_of_mean_mse"] = self.psnr_of_mean_mse
        figures["infinite_psnr"] = int(np.isposinf(self.psnr).sum())
        figures["tiles"] = len(self)
        figures["not_scored"] = sum(s != "ok" for s in self.status)
        return figures

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain Python, for JSON.

        Returns
        -------
        dict
            NaN is None, an infinity is "inf" or "-inf".
        """
        return {
            "label": self.label,
            "kind": self.kind,
            "data_range": plain(self.data_range),
            "settings": plain(self.settings),
            "flags": list(self.flags),
            "tiles": list(self.tiles),
            "status": list(self.status),
            "columns": plain(dict(self.columns)),
            "summary": plain(self.summary()),
            "axes": plain(self.axes()),
            "area": plain(self.area),
            "mean_axis": plain(self.mean_axis),
        }

    def to_pandas(self) -> Any:
        """The profile as a pandas table, one row a tile.

        Returns
        -------
        pandas.DataFrame
            Columns "tile", "status" and every numeric column.

        Raises
        ------
        ImportError
            pandas is not installed (`pip install 'semnr[pandas]'`).
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("Profile.to_pandas needs pandas: pip install 'semnr[pandas]'") from error
        return pd.DataFrame({"tile": self.tiles, "status": self.status, **self.columns})

    def plot(self, ax: Any = None) -> Any:
        """Draw the radar chart.

        Parameters
        ----------
        ax : matplotlib polar axes, optional
            Where to draw; default: new axes.

        Returns
        -------
        matplotlib axes

        Raises
        ------
        ImportError
            matplotlib is not installed; it is in the extra `semnr[plot]`.

        Examples
        --------
        >>> scores = semnr.profile(denoised, clean, metrics="ssim")
        >>> scores.plot()  # doctest: +SKIP
        """
        return radar.plot({self.label or "profile": self.axes()}, ax)

    def __repr__(self) -> str:
        return f"<Profile {self.label or 'without a label'}: {len(self)} tiles, {self.kind}>"

    def _repr_html_(self) -> str:
        """For a notebook: the means of its columns, with the 5th and 95th percentile; what its run shows below."""
        rows = []
        for name, figures in self.summary().items():
            if isinstance(figures, dict) and name in BY_NAME:
                mean = figures.get("mean", figures.get("mean_of_db", math.nan))
                cells = "".join(f"<td>{v:.4g}</td>" for v in (mean, figures["p05"], figures["p95"]))
                rows.append(f"<tr><th>{escape(BY_NAME[name].heading)}</th>{cells}</tr>")
        head = "<tr><th></th><th>mean</th><th>5 %</th><th>95 %</th></tr>"
        below = "" if self.run is None else self.run._repr_html_()
        return f"<div>{escape(repr(self))}</div><table>{head}{''.join(rows)}</table>{below}"

    def __str__(self) -> str:
        axes = ", ".join(f"{k.upper()} {v:.2f}" for k, v in self.axes().items())
        head = f"profile {self.label} of {len(self)} tile(s), {self.kind}".replace("  ", " ")
        return f"{head}: axes {axes or 'none'}; area {self.area:.3f}, mean axis {self.mean_axis:.3f}"

    @classmethod
    def concat(cls, profiles: Sequence[Profile]) -> Profile:
        """One profile of the rows of several, in order.

        Parameters
        ----------
        profiles : sequence of Profile
            At least one; all of one data_range, settings and kind.

        Returns
        -------
        Profile

        Raises
        ------
        ValueError
            No profile, or profiles that differ in data_range, settings or kind.
        """
        if not profiles:
            raise ValueError("profiles is empty; accepted: at least one Profile")
        first = profiles[0]
        for other in profiles[1:]:
            for name in ("data_range", "settings", "kind"):
                a, b = getattr(first, name), getattr(other, name)
                if a != b:
                    raise ValueError(f"profiles differ in {name}: {a!r} and {b!r}; accepted: the same")
        auto = all(p.auto_ids for p in profiles)
        ids = [t for p in profiles for t in p.tiles]
        names = dict.fromkeys(k for p in profiles for k in p.columns)
        return dataclasses.replace(
            first,
            tiles=tuple(default_ids(len(ids)) if auto else ids),
            columns={k: np.concatenate([p.column(k) for p in profiles]) for k in names},
            flags=tuple(dict.fromkeys(f for p in profiles for f in p.flags)),
            status=tuple(s for p in profiles for s in p.status),
            auto_ids=auto,
            run=first.run if all(p.run is first.run for p in profiles) else None,
            texts={
                k: tuple(t for p in profiles for t in p.texts.get(k, (None,) * len(p)))
                for k in dict.fromkeys(k for p in profiles for k in p.texts)
            },
        )

    @classmethod
    def from_table(cls, table: Any, info: Mapping[str, Any], label: str) -> Profile:
        """The rows of a scored run, tiles that could not be scored included. `Run.profile` reads both from a folder.

        Parameters
        ----------
        table : pyarrow.Table
            The rows of the run, one a tile, as `Run.table` returns them.
        info : mapping
            What the run says of itself, as `Run.info` holds it.
        label : str
            Name of the candidate where `info` has none.

        Returns
        -------
        Profile

        Raises
        ------
        KeyError
            The table has no column `tile`.

        Examples
        --------
        >>> run = semnr.score(noisy, reference=clean, out="run", metrics=("psnr", "ssim"), tests=False)
        >>> semnr.Profile.from_table(run.table(), run.info, "a name").label
        'array'
        """
        columns, texts = {}, {}
        for name in table.column_names:
            values = table.column(name).to_pylist()
            if name in ("tile", "status", "path", "reason", *TEXTS):
                texts[name] = values
            elif all(v is None or isinstance(v, int | float) for v in values):
                columns[name] = np.array([math.nan if v is None else float(v) for v in values])
        settings = {k: v for k, v in (info.get("settings") or {}).items() if k != "reference"}
        # a source with references of its own says nothing by its name
        if info.get("reference") and info["reference"] != info.get("source"):
            settings["reference"] = str(info["reference"])
        flags = []
        if (settings.get("dists") or {}).get("calibrated") is False:
            flags.append("uncalibrated: DISTS ran on random network weights")
        if (state := info.get("state", "finished")) != "finished":
            flags.append(
                f"{UNFINISHED}: run.json says {state!r}; its {table.num_rows} rows may not be all of its tiles"
            )
        return cls(
            tiles=_unique(map(str, texts["tile"])),
            columns=columns,
            data_range=_range_of(settings.get("data_range"), columns),
            settings=settings,
            flags=tuple(flags),
            status=tuple(s or "ok" for s in texts.get("status", ["ok"] * table.num_rows)),
            kind=str(settings.get("kind") or _kind_of(columns)),
            label=str(info.get("label") or label),
            texts={n: tuple(None if v is None else str(v) for v in texts[n]) for n in TEXTS if n in texts},
        )


def _unique(tiles: Iterable[str]) -> tuple[str, ...]:
    """Ids of a run, where a tile that was listed twice is a row for each time."""
    seen: Counter[str] = Counter()
    ids = []
    for tile in tiles:
        seen[tile] += 1
        ids.append(tile if seen[tile] == 1 else f"{tile} (listed again {seen[tile] - 1})")
    return tuple(ids)


def default_ids(count: int) -> list[str]:
    return [f"t{i:06d}" for i in range(count)]


def _range_of(stated: float | None, columns: Mapping[str, np.ndarray]) -> float:
    """The range as stated; where it was the dtype's and is not on record, a row's MSE and PSNR hold it."""
    if stated is not None:
        return float(stated)
    if "mse" in columns and "psnr" in columns:
        range_ = np.sqrt(columns["mse"] * 10 ** (columns["psnr"] / 10))
        if np.isfinite(range_).any():
            return float(np.round(np.nanmedian(np.where(np.isfinite(range_), range_, np.nan)), 9))
    return math.nan


def _kind_of(columns: Mapping[str, np.ndarray]) -> str:
    """ "noisy" where every tile scores exactly as the noisy input does: it is the noisy input."""
    a, b = columns.get("psnr"), columns.get("psnr_noisy")
    if a is None or b is None or np.isnan(a).all() or np.isnan(b).all():
        return "denoised"
    both = ~(np.isnan(a) | np.isnan(b))
    return "noisy" if bool(both.any()) and np.allclose(a[both], b[both], rtol=0, atol=1e-9) else "denoised"
