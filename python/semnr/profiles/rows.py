"""Profile: the scores of many tiles as rows, their aggregates, axes and area. Needs no torch."""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..base.jsonable import plain
from ..columns import METRICS
from ..runs.info import read_info
from ..runs.parquet import read_rows
from . import radar
from . import statistics as statistics
from .intervals import grouped, intervals

SCORES = (
    "mse", "mae", "psnr", "ssim", "fsim", "dists", "cnr_two_roi", "cnr_fixed_noise", "contrast_retention",
    "cnr_fixed_noise_worst", "contrast_retention_worst",  # of the tile's lowest window
)  # fmt: skip
# Known where the noisy input was: what the transfer rule reads.
INPUTS = ("psnr_noisy", "transfer", "transfer_se")
# Moments of the reference: two profiles whose moments differ were not scored against the same one.
FINGERPRINT = ("reference_mean", "reference_std")
UNFINISHED = "unfinished"  # begins the flag of a run that was cut off
KINDS = ("denoised", "noisy")
TEXTS = ("evidence_boxes", "lot_id", "wafer_id")  # the first is JSON: where structure was removed or invented


@dataclass(frozen=True, eq=False)
class Profile:
    """Scores of N tiles, float64 rows; a metric that was not asked for is a column of NaN.

    Attributes
    ----------
    tiles : tuple of str
        Tile ids, in the order of the rows.
    columns : mapping of ndarray, (N,)
        Every numeric column by name; the usual ones are attributes as well.
    mse, mae, psnr, ssim, fsim, dists, cnr, cnr_fixed_noise, contrast_retention : ndarray, (N,)
        `cnr` is the `two_roi` ratio. The last two are NaN unless the noise is known.
    psnr_noisy, transfer, transfer_se : ndarray, (N,)
        Of the noisy input and of evidence transfer; NaN where the run did not know it.
    status : tuple of str
        "ok", or why a tile of a run was not scored.
    kind : str
        "denoised", or "noisy" where the noisy input itself was scored.
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
        """Rows of one column; NaN throughout where the profile does not have it."""
        name = "cnr_two_roi" if name == "cnr" else name
        return self.columns.get(name, np.full(len(self), np.nan))

    mse = property(lambda self: self.column("mse"))
    mae = property(lambda self: self.column("mae"))
    psnr = property(lambda self: self.column("psnr"))
    ssim = property(lambda self: self.column("ssim"))
    fsim = property(lambda self: self.column("fsim"))
    dists = property(lambda self: self.column("dists"))
    cnr = property(lambda self: self.column("cnr_two_roi"))
    cnr_fixed_noise = property(lambda self: self.column("cnr_fixed_noise"))
    contrast_retention = property(lambda self: self.column("contrast_retention"))
    psnr_noisy = property(lambda self: self.column("psnr_noisy"))
    transfer = property(lambda self: self.column("transfer"))
    transfer_se = property(lambda self: self.column("transfer_se"))

    @property
    def calibrated(self) -> bool | None:
        """Whether DISTS ran on trained weights; None where it did not run."""
        dists = self.settings.get("dists") or {}
        if not np.isfinite(self.dists).any():
            return None
        return bool(dists.get("calibrated", not any("uncalibrated" in f for f in self.flags)))

    @property
    def unfinished(self) -> str | None:
        """Why these may not be all the tiles of a run; None where they are."""
        return next((flag for flag in self.flags if flag.startswith(UNFINISHED)), None)

    @property
    def psnr_of_mean_mse(self) -> float:
        """The PSNR of all tiles together: from their mean MSE, not a mean of dB."""
        mse = self.mse[np.isfinite(self.mse)]
        if not mse.size:
            return math.nan
        return math.inf if mse.mean() == 0 else 10 * math.log10(self.data_range**2 / float(mse.mean()))

    @property
    def cnr_axis(self) -> str:
        """The column that the CNR axis reads: `cnr_fixed_noise` where the noise is known, because the ratio over
        an image's own noise rises when it is over-smoothed; `cnr_two_roi` otherwise."""
        return "cnr_two_roi" if np.isnan(self.cnr_fixed_noise).all() else "cnr_fixed_noise"

    def axes(self, ranges: Mapping[str, tuple[float, float]] | None = None) -> dict[str, float]:
        """The five axes of all tiles together, each in [0, 1], in the order PSNR, SSIM, FSIM, DISTS, CNR.

        ranges : mapping of (value at 0, value at 1), in place of those of `semnr.profiles.radar.RANGES`. PSNR
        is that of the mean MSE, the others are means of the finite rows. A metric without a row is absent.
        """
        found: dict[str, float] = {}
        for name, ends in radar.checked_ranges(ranges).items():
            rows = self.column(self.cnr_axis if name == "cnr" else name)
            rows = rows[~np.isnan(rows)]
            if not rows.size:
                continue
            finite = rows[np.isfinite(rows)]
            value = float(finite.mean()) if finite.size else float(rows[0])
            if name == "psnr" and not math.isnan(self.psnr_of_mean_mse):
                value = self.psnr_of_mean_mse
            found[name] = float(radar.on_axis(value, ends))
        return found

    def axes_rows(self, ranges: Mapping[str, tuple[float, float]] | None = None) -> np.ndarray:
        """(N, 5): the axes of each tile; NaN where a metric is missing."""
        ends = radar.checked_ranges(ranges)
        names = {"cnr": self.cnr_axis}
        return np.stack([radar.on_axis(self.column(names.get(k, k)), v) for k, v in ends.items()], axis=1)

    @property
    def area(self) -> float:
        """Area of the radar over the full pentagon, in [0, 1]; NaN unless all five axes are there, since areas over
        fewer do not compare. It depends on the order of the axes: see `mean_axis`."""
        values = self.axes()
        return float(radar.area(list(values.values()))) if len(values) == len(METRICS) else math.nan

    @property
    def mean_axis(self) -> float:
        """Mean of the five axes, which knows no order; NaN unless all five are there."""
        values = self.axes()
        return float(np.mean(list(values.values()))) if len(values) == len(METRICS) else math.nan

    def area_rows(self) -> np.ndarray:
        """(N,): the radar area of each tile."""
        return np.asarray(radar.area(self.axes_rows()))

    def clusters(self) -> np.ndarray:
        """(N,) int: the die of each tile where `die_x` and `die_y` are known (by lot and wafer), else the tile."""
        if not {"die_x", "die_y"} <= set(self.columns):
            return np.arange(len(self))
        more = [statistics.codes(self.key(name)) for name in ("lot_id", "wafer_id")]
        return statistics.clusters(self.column("die_x"), self.column("die_y"), *more)

    def key(self, name: str) -> tuple[str, ...]:
        """A column that names things, as text: "" where a tile has none."""
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
        """Axes, area and mean axis with percentile bootstrap intervals over tiles (over dies where they are known).

        Returns {"axes": {name: (value, low, high)}, "area": ..., "mean_axis": ..., "tiles", "clusters", "confidence"};
        NaN where an axis is missing.
        """
        return intervals(self, confidence, seed, resamples, ranges)

    def by(self, level: str, **options: Any) -> dict[str, dict[str, Any]]:
        """`intervals` of each "tile", "die", "wafer" or "lot", by name; a die carries its lot and wafer in its name."""
        return {name: self.take(rows).intervals(**options) for name, rows in grouped(self, level).items()}

    def take(self, rows: Sequence[int]) -> Profile:
        """The profile of some of the tiles, by index."""
        index = list(rows)
        return dataclasses.replace(
            self,
            tiles=tuple(self.tiles[i] for i in index),
            columns={k: v[index] for k, v in self.columns.items()},
            status=tuple(self.status[i] for i in index),
            texts={k: tuple(v[i] for i in index) for k, v in self.texts.items()},
        )

    def summary(self) -> dict[str, Any]:
        """Figures over the tiles. Infinite PSNR rows are counted apart; `psnr_of_mean_mse` is the PSNR of all tiles
        together, and the mean of the dB values is named `mean_of_db`."""
        found: dict[str, Any] = {}
        for name, rows in self.columns.items():
            finite = rows[np.isfinite(rows)]
            if name in FINGERPRINT or name not in (*SCORES, *INPUTS) or not finite.size:
                continue
            low, middle, high = (float(v) for v in np.percentile(finite, (5, 50, 95)))
            mean = "mean_of_db" if name.startswith("psnr") else "mean"
            found[name] = {mean: float(finite.mean()), "median": middle, "p05": low, "p95": high, "n": int(finite.size)}
        found["psnr_of_mean_mse"] = self.psnr_of_mean_mse
        found["infinite_psnr"] = int(np.isposinf(self.psnr).sum())
        found["tiles"] = len(self)
        found["not_scored"] = sum(s != "ok" for s in self.status)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain Python, for JSON: NaN as None, infinities as "inf"."""
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
        """A DataFrame, a row a tile. Needs pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("Profile.to_pandas needs pandas: pip install semnr[pandas]") from error
        return pd.DataFrame({"tile": self.tiles, "status": self.status, **self.columns})

    def plot(self, ax: Any = None) -> Any:
        """The radar, on a polar matplotlib axes, which is returned. Needs matplotlib."""
        return radar.plot({self.label or "profile": self.axes()}, ax)

    def __str__(self) -> str:
        axes = ", ".join(f"{k.upper()} {v:.2f}" for k, v in self.axes().items())
        head = f"profile {self.label} of {len(self)} tile(s), {self.kind}".replace("  ", " ")
        return f"{head}: axes {axes or 'none'}; area {self.area:.3f}, mean axis {self.mean_axis:.3f}"

    @classmethod
    def concat(cls, profiles: Sequence[Profile]) -> Profile:
        """Rows of several profiles, in order; they must share data_range, settings and kind."""
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
            texts={
                k: tuple(t for p in profiles for t in p.texts.get(k, (None,) * len(p)))
                for k in dict.fromkeys(k for p in profiles for k in p.texts)
            },
        )

    @classmethod
    def from_run(cls, path: str | os.PathLike[str]) -> Profile:
        """The rows of a folder that `semnr.score` wrote, tiles that could not be scored included.

        Raises
        ------
        ValueError
            Not such a folder.
        """
        folder = Path(path)
        info = read_info(folder)
        table = read_rows(folder)
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
            label=str(info.get("label") or folder.name),
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
