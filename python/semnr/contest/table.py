"""From rows to the table: means over groups with their intervals, differences from the baseline, Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import atomic
from .protocol import Protocol
from .scores import BANDS, figures
from .store import Row

TITLES = {"real": "Real pairs", "wafer": "Synthetic wafer tiles", "lines": "Synthetic gratings", "blank": "Noise alone"}
# figure -> (heading, digits, which way is better: +1, -1, or the value that is best)
_SHOWN: Mapping[str, tuple[str, int, str]] = {
    "psnr": ("PSNR, dB", 2, "higher"),
    "ssim": ("SSIM", 4, "higher"),
    "fsim": ("FSIM", 4, "higher"),
    "lpips": ("LPIPS", 4, "lower"),
    "dists": ("DISTS", 4, "lower"),
    "cnr_retention": ("CNR kept", 3, "near 1"),
    "transfer": ("T", 3, "near 1"),
    "kept_2": ("2 σ kept", 2, "near 1"),
    "kept_3": ("3 σ kept", 2, "near 1"),
    "kept_5": ("5 σ kept", 2, "near 1"),
    "invented": ("places invented a tile", 2, "lower"),
    "removed": ("places removed a tile", 2, "lower"),
    "invented_blank": ("structures invented a tile", 2, "lower"),
    "edge_error": ("edge error, px", 3, "lower"),
    "cd_bias": ("CD bias, px", 3, "near 0"),
    **{f"edge_psd_{a}_{b}": (f"edge PSD {a} to {b} px", 2, "near 1") for a, b in BANDS},
}


def means(rows: Iterable[Row], protocol: Protocol) -> list[dict[str, Any]]:
    """A row a denoiser, kind of field and figure.

    A group counts as one: its value is the mean over its fields. Intervals are by resampling groups; the difference is
    of the groups that both the denoiser and the baseline have.

    Parameters
    ----------
    rows : iterable of dict
    protocol : Protocol

    Returns
    -------
    list of dict
        "denoiser", "kind", "split", "figure", "fields", "groups", "mean", "low", "high", and "difference",
        "difference_low", "difference_high", "paired_groups" from the baseline (null without it).
    """
    table: dict[tuple[str, str, str], dict[str, dict[str, list[Row]]]] = {}
    for row in rows:
        by_group = table.setdefault((row["kind"], row["split"], ""), {}).setdefault(row["denoiser"], {})
        by_group.setdefault(row["group"], []).append(row)
    found = []
    for (kind, split, _), of_denoisers in table.items():
        for name, by_group in of_denoisers.items():
            for figure in figures():
                values = _by_group(by_group, figure)
                if not values:
                    continue
                low, high = _interval(list(values.values()), protocol)
                one: dict[str, Any] = {
                    "denoiser": name, "kind": kind, "split": split, "figure": figure,
                    "fields": sum(row.get(figure) is not None for rows in by_group.values() for row in rows),
                    "groups": len(values), "mean": float(np.mean(list(values.values()))), "low": low, "high": high,
                    "difference": None, "difference_low": None, "difference_high": None, "paired_groups": 0,
                }  # fmt: skip
                base = _by_group(of_denoisers.get(protocol["baseline"], {}), figure)
                both = [values[group] - base[group] for group in values if group in base]
                if both and name != protocol["baseline"]:
                    low, high = _interval(both, protocol)
                    one |= {
                        "difference": float(np.mean(both)), "difference_low": low, "difference_high": high,
                        "paired_groups": len(both),
                    }  # fmt: skip
                found.append(one)
    return found


def _by_group(by_group: Mapping[str, Sequence[Row]], figure: str) -> dict[str, float]:
    values = {group: [row[figure] for row in rows if _known(row.get(figure))] for group, rows in by_group.items()}
    return {group: float(np.mean(found)) for group, found in values.items() if found}


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _interval(values: Sequence[float], protocol: Protocol) -> tuple[float, float]:
    """95 % by resampling; of one value there is none."""
    if len(values) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(protocol["seed"])
    drawn = np.asarray(values)[rng.integers(len(values), size=(protocol["draws"], len(values)))].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def write_means(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The means as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, counts = ("denoiser", "kind", "split", "figure"), ("fields", "groups", "paired_groups")
    numbers = ("mean", "low", "high", "difference", "difference_low", "difference_high")
    schema = pa.schema(
        [(name, pa.string()) for name in texts]
        + [(name, pa.int64()) for name in counts]
        + [(name, pa.float64()) for name in numbers]
    )
    with atomic(path) as temporary:
        pq.write_table(pa.Table.from_pylist([dict(row) for row in found], schema=schema), temporary)


def speeds(rows: Iterable[Row]) -> dict[str, float]:
    """Megapixels a second of one core, by denoiser: all pixels over all processor seconds."""
    sums: dict[str, list[float]] = {}
    for row in rows:
        if row.get("seconds"):
            pair = sums.setdefault(row["denoiser"], [0.0, 0.0])
            pair[0] += row["megapixels"]
            pair[1] += row["seconds"]
    return {name: pixels / seconds for name, (pixels, seconds) in sums.items()}


def text(found: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> str:
    """The tables, as Markdown: a mean with its interval, and below, the difference from the baseline.

    A difference whose interval holds no 0 is bold.
    """
    rates, parts = speeds(rows), []
    for split in ("table", "development"):
        for kind, title in TITLES.items():
            some = [row for row in found if row["kind"] == kind and row["split"] == split]
            if not some:
                continue
            heading = title if split == "table" else f"{title}, development"
            shown = [name for name in _SHOWN if any(row["figure"] == name for row in some)]
            parts.append(_table(heading, some, shown, rates if kind == "real" else {}))
            if any(row["difference"] is not None for row in some):
                parts.append(_differences(heading, some, shown))
    return "\n\n".join(parts)


def _table(title: str, found: Sequence[Mapping[str, Any]], shown: Sequence[str], rates: Mapping[str, float]) -> str:
    heads = [title, "fields (groups)", *(f"{_SHOWN[name][0]}" for name in shown)] + (["MP/s a core"] if rates else [])
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for name, cells in _by_denoiser(found).items():
        counts = max(cells.values(), key=lambda row: row["fields"])
        line = [name, f"{counts['fields']} ({counts['groups']})"]
        for figure in shown:
            row, digits = cells.get(figure), _SHOWN[figure][1]
            line.append("–" if row is None else _with_interval(row["mean"], row["low"], row["high"], digits))
        lines.append(_line(line + ([_rate(rates.get(name))] if rates else [])))
    return "\n".join(lines)


def _differences(title: str, found: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> str:
    heads = [f"{title}: less `semnr-small`", "groups", *(_SHOWN[name][0] for name in shown)]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for name, cells in _by_denoiser(found).items():
        if all(row["difference"] is None for row in cells.values()):
            continue
        line = [name, str(max(row["paired_groups"] for row in cells.values()))]
        for figure in shown:
            row, digits = cells.get(figure), _SHOWN[figure][1]
            if row is None or row["difference"] is None:
                line.append("–")
                continue
            low, high = row["difference_low"], row["difference_high"]
            mean = f"{row['difference']:+.{digits}f}"
            mean = f"**{mean}**" if low > 0 or high < 0 else mean
            line.append(f"{mean} ({low:+.{digits}f} to {high:+.{digits}f})" if math.isfinite(low) else mean)
        lines.append(_line(line))
    return "\n".join(lines)


def _by_denoiser(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    cells: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in found:
        cells.setdefault(row["denoiser"], {})[row["figure"]] = row
    return cells


def _with_interval(mean: float, low: float, high: float, digits: int) -> str:
    return f"{mean:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if math.isfinite(low) else "")


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.3g}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
