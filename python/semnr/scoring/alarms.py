"""Alarm rules on the stream of rows, written as they happen: bounds with debounce by place, drift by EWMA.

Rules are data, a TOML file or a mapping:

    [alarms.low_ssim]          # a bound, debounced: `count` tiles of one `per` before it sounds, once
    metric = "ssim"            # a column of the rows
    below = 0.80               # or: above
    per = "die"                # run, lot, wafer, die, or cluster (tiles within radius_um of each other)
    count = 3

    [alarms.drift]             # an EWMA control chart (Roberts 1959) of each lot, against the run's first tiles
    metric = "fsim"
    ewma = 0.1                 # weight of the newest tile
    sigmas = 4.0               # control limit
    baseline = 100             # tiles that mean and σ are taken from; or: mean, sigma
    direction = "down"         # down, up or both
"""

from __future__ import annotations

import difflib
import json
import math
import os
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs.parquet import ALARMS

PLACES = {
    "run": (),
    "lot": ("lot_id",),
    "wafer": ("lot_id", "wafer_id"),
    "die": ("lot_id", "wafer_id", "die_x", "die_y"),
}
_CLUSTER = "cluster"


@dataclass(frozen=True)
class Bound:
    """Sounds when `count` tiles of one place lie beyond the bound."""

    name: str
    metric: str
    below: float | None = None
    above: float | None = None
    per: str = "die"
    count: int = 1
    radius_um: float = 0.0

    def hit(self, value: float) -> bool:
        return (self.below is not None and value < self.below) or (self.above is not None and value > self.above)


@dataclass(frozen=True)
class Drift:
    """Sounds when a lot's exponentially weighted mean leaves the control limits."""

    name: str
    metric: str
    ewma: float = 0.1
    sigmas: float = 4.0
    baseline: int = 100
    mean: float | None = None
    sigma: float | None = None
    direction: str = "both"


def read_alarms(given: Any) -> tuple[Bound | Drift, ...]:
    """Rules from a TOML file or a mapping, with or without the outer `alarms`.

    Raises
    ------
    TypeError, ValueError
        Names the rule, the key, what it was and what is accepted.
    """
    if given is None:
        return ()
    if isinstance(given, str | os.PathLike):
        try:
            given = tomllib.loads(Path(given).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"alarms is {str(given)!r}: no such file; accepted: a TOML file of alarm rules") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"alarms is {str(given)!r}, which is not TOML: {error}") from None
    if not isinstance(given, Mapping):
        raise TypeError(f"alarms is {type(given).__name__}; accepted: a TOML file or a mapping of rules")
    rules = given.get("alarms", given)
    return tuple(_rule(name, dict(entry)) for name, entry in rules.items())


def _rule(name: str, entry: dict[str, Any]) -> Bound | Drift:
    kind: type[Bound | Drift] = Drift if "ewma" in entry else Bound
    known = set(kind.__dataclass_fields__) - {"name"}
    if unknown := sorted(set(entry) - known):
        raise ValueError(f"alarm {name} has {', '.join(unknown)}; accepted: {', '.join(sorted(known))}")
    if not isinstance(entry.get("metric"), str):
        raise ValueError(f"alarm {name}: metric is {entry.get('metric')!r}; accepted: the name of a column")
    for key, value in entry.items():
        if key in ("metric", "per", "direction"):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"alarm {name}: {key} is {value!r}; accepted: a finite number")
    rule = kind(name=name, **entry)
    for key, good, accepted in _limits(rule):
        if not good:
            raise ValueError(f"alarm {name}: {key} is {getattr(rule, key)!r}; accepted: {accepted}")
    return rule


def _limits(rule: Bound | Drift) -> list[tuple[str, bool, str]]:
    if isinstance(rule, Drift):
        return [
            ("ewma", 0 < rule.ewma <= 1, "above 0, at most 1"),
            ("sigmas", rule.sigmas > 0, "above 0"),
            ("baseline", isinstance(rule.baseline, int) and rule.baseline >= 2, "an integer of at least 2"),
            ("sigma", (rule.sigma is None) == (rule.mean is None), "with mean, or neither"),
            ("sigma", rule.sigma is None or rule.sigma > 0, "above 0"),
            ("direction", rule.direction in ("down", "up", "both"), "'down', 'up' or 'both'"),
        ]
    return [
        ("below", (rule.below is None) != (rule.above is None), "one of below and above"),
        ("per", rule.per in (*PLACES, _CLUSTER), ", ".join((*PLACES, _CLUSTER))),
        ("count", isinstance(rule.count, int) and rule.count >= 1, "an integer of at least 1"),
        ("radius_um", (rule.per == _CLUSTER) == (rule.radius_um > 0), "above 0 with per='cluster', and only there"),
    ]


class Alarms:
    """Watches rows in order and appends what sounds to alarms.jsonl, each line flushed to the disk."""

    def __init__(self, run: Path, rules: Iterable[Bound | Drift], *, resumed: bool = False) -> None:
        self.path = run / ALARMS
        self._watchers = [_Chart(rule) if isinstance(rule, Drift) else _Counter(rule) for rule in rules]
        self.raised = _kept(self.path) if resumed else []
        # after a kill a tile may be scored again whose alarm is on the disk already
        self._known = {_sounded(alarm) for alarm in self.raised}

    def replay(self, tables: Iterable[Any]) -> None:
        """Bring the counters back to where the rows of before left them, and sound what is not on the disk yet.

        A kill between a part and its alarm, or rules that were not given then, leave rows whose alarm nobody heard.
        """
        if self._watchers:
            for table in tables:
                for row in table.to_pylist():
                    self.watch(row)

    def watch(self, row: Mapping[str, Any]) -> None:
        """Look at one row; a tile that was not scored shows nothing."""
        if row.get("status", "ok") != "ok":
            return
        for watcher in self._watchers:
            value = row.get(watcher.rule.metric)
            if not isinstance(value, int | float) or value != value:
                continue
            watcher.values += 1
            alarm = watcher.see(float(value), row)
            if alarm is not None:
                self._raise({"alarm": watcher.rule.name, "metric": watcher.rule.metric, **alarm})

    def unjudged(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Rules that could not have sounded, and why; `columns`: those of the run, for names that were meant."""
        known = list(columns)
        return tuple(
            f"alarm {watcher.rule.name}: {why}"
            for watcher in self._watchers
            if (why := watcher.blind(known)) is not None
        )

    def _raise(self, alarm: dict[str, Any]) -> None:
        if (key := _sounded(alarm)) in self._known:
            return
        self._known.add(key)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(alarm) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.raised.append(alarm)


def _sounded(alarm: Mapping[str, Any]) -> str:
    """What sounds once: a rule, with its bound, at a place."""
    return json.dumps([alarm.get(name) for name in ("alarm", "metric", "below", "above", "place")], sort_keys=True)


def _kept(path: Path) -> list[dict[str, Any]]:
    """Alarms of an earlier run; a line that a kill tore off is cut away."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.decode().splitlines()]


class _Watcher:
    """What the watchers share: whether they saw anything."""

    rule: Any  # Bound or Drift
    values = 0  # tiles that had the column

    def blind(self, columns: list[str]) -> str | None:
        """Why the rule could not have sounded; None where it could."""
        if self.values:
            return None
        metric = self.rule.metric
        near = difflib.get_close_matches(metric, columns, 1)
        meant = f" (did you mean {near[0]!r}?)" if near and near[0] != metric else ""
        return f"no tile has a number {metric!r}{meant}"


class _Counter(_Watcher):
    """Tiles beyond a bound, by place."""

    def __init__(self, rule: Bound) -> None:
        self.rule = rule
        self._lost = 0  # tiles beyond the bound whose place is not known
        self._tiles: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        self._clusters: list[tuple[float, float, list[str]]] = []

    def see(self, value: float, row: Mapping[str, Any]) -> dict[str, Any] | None:
        if not self.rule.hit(value):
            return None
        place, tiles = self._cluster(row) if self.rule.per == _CLUSTER else self._place(row)
        if tiles is None:
            self._lost += 1
            return None
        if len(tiles) > self.rule.count or str(row["tile"]) in tiles:
            return None  # it has sounded, or the tile is read again
        tiles.append(str(row["tile"]))
        if len(tiles) != self.rule.count:
            return None
        tiles.append("")  # beyond count: never again here
        bound = {"below": self.rule.below} if self.rule.below is not None else {"above": self.rule.above}
        return {"place": place, "tiles": tiles[:-1], "value": value, **bound}

    def blind(self, columns: list[str]) -> str | None:
        if not self._lost:
            return super().blind(columns)
        return f"{self._lost} tiles beyond the bound have no wafer_x_um and wafer_y_um, which per='cluster' needs"

    def _place(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        place = {name: row.get(name) for name in PLACES[self.rule.per]}
        return place, self._tiles[tuple(place.values())]

    def _cluster(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[str] | None]:
        """The cluster that the tile lies in, by distance to its first tile; coordinates are required."""
        x, y = row.get("wafer_x_um"), row.get("wafer_y_um")
        if x is None or y is None:
            return {}, None
        near = (c for c in self._clusters if math.hypot(x - c[0], y - c[1]) <= self.rule.radius_um)
        if (cluster := next(near, None)) is None:
            cluster = (float(x), float(y), [])
            self._clusters.append(cluster)
        at_x, at_y, tiles = cluster
        return {"wafer_x_um": at_x, "wafer_y_um": at_y}, tiles


class _Chart(_Watcher):
    """EWMA of each lot against mean and σ of the run's first tiles."""

    def __init__(self, rule: Drift) -> None:
        self.rule = rule
        self._first: list[float] = []
        self._lots: dict[Any, tuple[float, int]] = {}

    def see(self, value: float, row: Mapping[str, Any]) -> dict[str, Any] | None:
        rule = self.rule
        if not math.isfinite(value):
            return None
        if rule.mean is None and len(self._first) < rule.baseline:
            self._first.append(value)
            return None
        mean, sigma = self._baseline()
        lot = row.get("lot_id")
        smooth, count = self._lots.get(lot, (mean, 0))
        smooth, count = smooth + rule.ewma * (value - smooth), count + 1
        self._lots[lot] = (smooth, count)
        share = rule.ewma / (2 - rule.ewma) * (1 - (1 - rule.ewma) ** (2 * count))
        limit = rule.sigmas * sigma * math.sqrt(share)
        down, up = smooth < mean - limit, smooth > mean + limit
        if not ((down and rule.direction != "up") or (up and rule.direction != "down")):
            return None
        return {
            "place": {"lot_id": lot},
            "tiles": [str(row["tile"])],
            "value": smooth,
            "mean": mean,
            "limit": limit,
            "direction": "down" if down else "up",
        }

    def blind(self, columns: list[str]) -> str | None:
        known = len(self._first)
        if not self.values or self.rule.mean is not None or known == self.rule.baseline:
            return super().blind(columns)
        return f"its baseline is {self.rule.baseline} tiles with a finite {self.rule.metric}, the run has {known}"

    def _baseline(self) -> tuple[float, float]:
        if self.rule.mean is not None and self.rule.sigma is not None:
            return self.rule.mean, self.rule.sigma
        mean = math.fsum(self._first) / len(self._first)
        return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in self._first) / (len(self._first) - 1))
