"""The stress test: every fault at every strength on every tile, and which figures notice it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import atomic, write_json
from ..base.jsonable import plain
from ..base.outputs import has_keys, holds, replaceable
from ..guarding import DEFAULT_RULES, tile_flags
from ..guarding.rules import as_rules
from ..profiles import Profile
from .draw import heat_map, page, text
from .faults import FAULTS, Case, Fault, kept_contrast
from .measure import ADVERSE, measure
from .scenes import Scenes, scenes_of

KEEP_NOISE = 0.3  # of the candidate that is harmed: a denoiser that takes 70 % of the noise and nothing else
NOTICED = 0.5  # share of the tiles from which on a fault counts as noticed
_NULL = 0.99  # a metric notices what is further off than this share of harmless re-imagings


@dataclass(frozen=True)
class Stress:
    """What `semnr.stress_test` gives: which metric and which signal notices which harm.

    Attributes
    ----------
    rows : list of dict
        One a fault and strength: "fault", "strength", "unit", "kept" (mean share of the contrast of small features that
        is left), "truth" (share of tiles that are harmful, harmless and grey), "signals" {rule: share of tiles that
        show it}, "detected" (share of tiles on which any signal that gates shows it), "metrics" {name: {"change": mean,
        "noticed": share of tiles beyond what re-imaging does, "adverse": share of tiles that changed for the worse}}.
    harmless : dict
        The same signals on harmless re-imaging: fresh noise and nothing else.
    settings : dict
        What the figures depend on.

    Examples
    --------
    >>> report = semnr.stress_test(tiles=2, side=64, faults=["offset"], metrics=("psnr", "ssim"))
    >>> report.share(report.rows[-1], "brightness_shift")  # an offset of 10 % of the range
    1.0
    >>> report.thresholds()["offset"]["psnr"] <= 0.1
    True
    >>> report.notices[:2], sorted(report.to_dict())
    (['psnr', 'ssim'], ['harmless', 'rows', 'settings', 'thresholds'])
    >>> [path.name for path in report.save("stress")]
    ['stress.json', 'stress.html', 'stress.svg']
    """

    rows: list[dict[str, Any]]
    harmless: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def notices(self) -> list[str]:
        """Names of the columns of the matrix: metrics, then signals."""
        return [*self.rows[0]["metrics"], *self.rows[0]["signals"]] if self.rows else []

    def share(self, row: dict[str, Any], name: str) -> float:
        """How often a metric or a signal notices one fault.

        Parameters
        ----------
        row : dict
            One of `rows`.
        name : str
            Metric or signal.

        Returns
        -------
        float
            Share of the tiles.
        """
        return float(row["metrics"][name]["noticed"] if name in row["metrics"] else row["signals"][name])

    def thresholds(self, share: float = NOTICED) -> dict[str, dict[str, float | None]]:
        """From which strength on each fault is noticed.

        Parameters
        ----------
        share : float
            Share of the tiles from which on a fault counts as noticed.

        Returns
        -------
        dict of str to dict
            Fault to metric or signal to the least strength from which on it notices; None where it never does.
        """
        table: dict[str, dict[str, float | None]] = {}
        for name in dict.fromkeys(row["fault"] for row in self.rows):
            rows = [row for row in self.rows if row["fault"] == name]  # from weak to strong
            table[name] = {}
            for notice in self.notices:
                first = None
                for row in reversed(rows):
                    if not self.share(row, notice) >= share:
                        break
                    first = row["strength"]
                table[name][notice] = first
        return table

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain Python, for JSON.

        Returns
        -------
        dict
        """
        data = {"settings": self.settings, "harmless": self.harmless, "rows": self.rows}
        return {**{k: plain(v) for k, v in data.items()}, "thresholds": plain(self.thresholds())}

    def save(self, folder: str | Path) -> list[Path]:
        """Write stress.json, stress.html (a heat map that opens from disk) and stress.svg.

        Parameters
        ----------
        folder : path
            Where to; made where it is not there. Earlier files of a stress test are replaced, others are not.

        Returns
        -------
        list of Path
            The three files.
        """
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / f"stress.{kind}" for kind in ("json", "html", "svg")]
        marks = (has_keys("harmless", "rows"), holds(b"semnr stress"), holds(b"Sensitivity matrix: "))
        for path, ours in zip(paths, marks, strict=True):
            replaceable("out", path, "a stress test", ours)
        write_json(paths[0], self.to_dict())
        for path, drawn in zip(paths[1:], (page(self), heat_map(self)), strict=True):
            with atomic(path) as temporary:
                temporary.write_text(drawn, encoding="utf-8")
        return paths

    def __str__(self) -> str:
        return text(self)


def stress_test(
    source: Any = None,
    *,
    tiles: int = 12,
    side: int = 256,
    faults: Iterable[str] | None = None,
    metrics: Sequence[str] = ("psnr", "ssim", "fsim", "cnr"),
    dists_weights: Any = None,
    rules: Any = DEFAULT_RULES,
    seed: int = 0,
    root: Any = None,
    say: Callable[[str], None] = lambda line: None,
) -> Stress:
    """Harm images in known ways and see what notices: the sensitivity matrix of metrics and signals.

    The candidate before the fault is the scene with 30 % of its noise left: a denoiser that did nothing wrong. Every
    fault is put on top of it at graded strengths, and each tile is scored and guarded as a run is.

    Parameters
    ----------
    source : anything that `semnr.open_tiles` takes, optional
        Its references are the scenes, or else its denoised frames; the noise is fitted to the noisy frames and drawn
        anew. None: synthetic lines, holes and metal.
    tiles, side : int
        How many tiles, cut to `side` pixels. These bound the time.
    faults : iterable of str, optional
        Names of `semnr.stress.FAULTS`. Default: all.
    metrics, dists_weights
        As for `semnr.profile`. DISTS is left out unless asked for, because it is slow.
    rules : mapping or path
        What `semnr.guard` takes.
    seed : int
        The same seed gives the same figures.
    root : path, optional
        Folder that the paths of a plan may lie in.
    say : callable, optional
        Called with a line of text at each step.

    Returns
    -------
    Stress

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.

    Examples
    --------
    >>> report = semnr.stress_test(tiles=2, side=64, faults=["gain"], metrics=("psnr",))
    >>> [row["strength"] for row in report.rows]
    [0.01, 0.03, 0.06, 0.1, 0.2]
    """
    for name, value, least in (("tiles", tiles, 2), ("side", side, 64)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; accepted: an integer of at least {least}")
    chosen = list(FAULTS) if faults is None else list(faults)
    if unknown := [f for f in chosen if f not in FAULTS]:
        raise ValueError(f"faults has {unknown[0]!r}; accepted: {', '.join(map(repr, FAULTS))}")
    held = as_rules(rules)
    scenes = scenes_of(source, tiles=tiles, side=side, seed=seed, root=root)
    options = {"metrics": tuple(metrics), "dists_weights": dists_weights}
    noisy = scenes.record((seed, 0))
    before = scenes.clean + KEEP_NOISE * (noisy - scenes.clean)
    base = measure(scenes.clean, noisy, before, **options)
    names = [m for m in ADVERSE if np.isfinite(base.column(m)).any()]
    say("fresh noise")
    null, limits = _re_imaged(scenes, base, options, names, held, seed)
    rows = []
    for fault in (FAULTS[name] for name in chosen):
        for k, strength in enumerate(fault.strengths):
            say(f"{fault.name} {strength:g} {fault.unit}")
            cases = applied(fault, strength, scenes, noisy, before, (seed, 7, k))
            rows.append(_row(fault, strength, cases, base, limits, names, options, held, seed))
    settings = {
        "source": scenes.name, "tiles": len(scenes), "side": side, "seed": seed, "metrics": list(metrics),
        "noise_left": KEEP_NOISE, "sigma": float(scenes.sigma()), "noticed_from": NOTICED, "rules": list(held),
        "metric_limits": limits,
    }  # fmt: skip
    return Stress(rows, null, settings)


def applied(
    fault: Fault, strength: float, scenes: Scenes, noisy: np.ndarray, before: np.ndarray, seed: tuple[int, ...]
) -> list[Case]:
    """The fault on every tile, each with its own random numbers."""
    cases = []
    for i in range(len(scenes)):
        case = Case(scenes.clean[i], noisy[i], before[i], before[i], scenes.sigma(scenes.clean[i]))
        cases.append(fault.apply(case, strength, np.random.default_rng((*seed, i))))
    return cases


def _row(
    fault: Fault, strength: float, cases: list[Case], base: Profile, limits: dict[str, float], names: list[str],
    options: dict[str, Any], rules: Any, seed: int,
) -> dict[str, Any]:  # fmt: skip
    parts = {k: np.stack([getattr(c, k) for c in cases]) for k in ("scene", "noisy", "before", "after")}
    if fault.defect_px and fault.name.startswith("erased"):  # another scene: the baseline is scored on it too
        base = measure(parts["scene"], parts["noisy"], parts["before"], **options)
    after = measure(parts["scene"], parts["noisy"], parts["after"], **options)
    flags = tile_flags(base, after, rules=rules)
    kept = [kept_contrast(fault, _undone(c), strength, seed) for c in cases]
    truth = [fault.truth(strength, k) for k in kept]
    gates = [flags[name][1] for name, rule in rules.items() if rule.gate]
    return {
        "fault": fault.name,
        "strength": strength,
        "unit": fault.unit,
        "kept": float(np.mean(kept)),
        "truth": {word: truth.count(word) / len(truth) for word in ("harmful", "grey", "harmless")},
        "detected": float(np.any(gates, axis=0).mean()),
        "signals": {name: float(fired.mean()) for name, (_, fired) in flags.items()},
        "metrics": {name: _noticed(name, base, after, limits[name]) for name in names},
    }


def _undone(case: Case) -> Case:
    return Case(case.scene, case.noisy, case.before, case.before, case.spread)


def _noticed(name: str, base: Profile, after: Profile, limit: float) -> dict[str, float]:
    change = after.column(name) - base.column(name)
    change = change[np.isfinite(change)]
    if not change.size:
        return {"change": float("nan"), "noticed": float("nan"), "adverse": float("nan")}
    beyond = np.abs(change) > limit
    return {
        "change": float(change.mean()),
        "noticed": float(beyond.mean()),
        "adverse": float((beyond & (change * ADVERSE[name] > 0)).mean()),
    }


def _re_imaged(
    scenes: Scenes, base: Profile, options: dict[str, Any], names: list[str], rules: Any, seed: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Fresh frames of the same scenes: what the signals make of them, and how far each metric then strays."""
    changes: dict[str, list[np.ndarray]] = {name: [] for name in names}
    shares: dict[str, list[float]] = {name: [] for name in rules}
    for frame in (1, 2):
        noisy = scenes.record((seed, frame))
        again = measure(scenes.clean, noisy, scenes.clean + KEEP_NOISE * (noisy - scenes.clean), **options)
        for name in names:
            changes[name].append(np.abs(again.column(name) - base.column(name)))
        for name, (_, fired) in tile_flags(base, again, rules=rules).items():
            shares[name].append(float(fired.mean()))
    limits = {name: float(np.nanquantile(np.concatenate(v), _NULL)) for name, v in changes.items()}
    return {"signals": {name: float(np.mean(v)) for name, v in shares.items()}, "frames": 2}, limits
