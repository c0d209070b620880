"""Which signal tells harm from harmless change: ours, scanning FRC, CHEM; AUC and ROC with intervals.

`python benchmarks/quality/bench_rivals.py` runs synthetic tiles and the real pairs and writes results/rivals.json;
`--table` puts its tables into docs/benchmark.md; `--quick` is a look that writes nothing.

A case is a tile of 128 px and what a candidate made of it. The candidate before any harm is the clean tile with 30 % of
its noise left, as in the stress suite; harm is a fault of semnr.stress put onto it. Harmless are fresh noise, more and
less noise taken, mild denoisers, a shift of at most 0.05 px. Truth is what was done, never a score. Of real pairs the
registered clean frame, with gain and offset fitted to the noisy one, is the clean tile; one pair of each group.

Settings of the rivals are chosen for each harm and each kind of tile by AUC on the development tiles (the first five
pairs' groups, synthetic seeds of their own), from 12 of sFRC and 16 of CHEM; our signals are the shipped rules' columns
and have no setting. Rivals that see noise as harm are judged a second time, against those harmless changes alone that
leave as much noise as the candidate has ("same noise"). "One score" is the largest of several signals, each scaled on
the harmless development cases.
Intervals: 95 %, by resampling groups; differences are of the same resamples.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import bench_trust
import numpy as np
import records
import rivals
import torch
from bench_texture import auc
from scipy import ndimage

from semnr.base.machine import cores
from semnr.contest.fields import pair_names
from semnr.contest.protocol import Protocol, load
from semnr.denoising import denoise
from semnr.runs.run import machine
from semnr.stress import FAULTS
from semnr.stress.faults import Case, kept_contrast
from semnr.stress.measure import measure
from semnr.stress.run import KEEP_NOISE
from semnr.stress.scenes import Scenes, scenes_of
from semnr.tiles import decode
from semnr.trust.registration import fitted, register

HERE = Path(__file__).resolve().parents[1]
RESULTS, PAGE = HERE / "results" / "rivals.json", HERE.parent / "docs" / "benchmark.md"
PARTS = HERE.parent / "build" / "rivals"  # cases as they come
SIDE, BOOTSTRAP = 128, 2000
DEVELOPMENT, FIGURES = 400, (9401, 9402, 9403)  # seeds of synthetic tiles
HARMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "over-smoothing": ("blur", (1.0, 1.5, 2.0)),
    "texture wash": ("texture_wash", (0.3, 0.5, 0.8)),
    "over-sharpening": ("over_sharpening", (0.5, 1.0, 2.0)),
    "erased structure": ("erased_defect", (2.0, 3.0, 5.0)),
    "invented structure": ("invented_defect", (2.0, 3.0, 5.0)),
}
# Columns of the shipped rules that speak for each harm; each the larger the worse.
OURS: dict[str, tuple[str, ...]] = {
    "over-smoothing": ("lost detail",),
    "texture wash": ("lost texture",),
    "over-sharpening": ("sharpened",),
    "erased structure": ("erased",),
    "invented structure": ("invented",),
}
SIGNALS: dict[str, Callable[[Mapping[str, float]], float]] = {
    "lost detail": lambda c: 1 - c["feature_contrast"],
    "lost transfer": lambda c: 1 - c["transfer"],
    "lost texture": lambda c: 1 - c["transfer_texture"],
    # over the bounds of the rule over_sharpening
    "sharpened": lambda c: _largest(
        c["overshoot"] / 0.012,
        (c["transfer"] - 1) / 0.06,
        (c["transfer_high"] - 1) / 0.042,
        (c["transfer_peak"] - 1) / 0.12,
    ),
    "erased": lambda c: c["removed_z"],
    "invented": lambda c: c["invented_z"],
}  # fmt: skip


def _largest(*values: float) -> float:
    known = [v for v in values if np.isfinite(v)]
    return max(known, default=np.nan)


@dataclass(frozen=True)
class Scored:
    """One case: what is resampled as one, what was done (None: nothing that harms), every score by name."""

    group: str
    harm: str | None
    kind: str
    scores: dict[str, Any]


@dataclass(frozen=True)
class Tile:
    """A clean tile with the law of its noise, a frame of it, and a second one for the variant of sFRC without truth."""

    group: str
    scenes: Scenes
    noisy: np.ndarray
    seed: int

    @property
    def case(self) -> Case:
        clean = self.scenes.clean[0]
        before = clean + KEEP_NOISE * (self.noisy - clean)
        return Case(clean, self.noisy, before, before, self.scenes.sigma(clean))


def synthetic(seed: int, count: int) -> list[Tile]:
    scenes = scenes_of(None, tiles=count, side=SIDE, seed=seed)
    noisy = scenes.record((seed, 0))
    one = [
        Scenes(scenes.clean[i : i + 1], scenes.gain, scenes.offset, scenes.correlation, scenes.name, scenes.tiles)
        for i in range(count)
    ]
    return [Tile(f"{seed}-{i}", one[i], noisy[i], seed * 1000 + i) for i in range(count)]


def real(folder: Path, protocol: Protocol, split: str) -> list[Tile]:
    """A tile of one pair of each group, with the law of its noise: variance by level, correlation along the line."""
    found, seen = [], set()
    for number, name in enumerate(pair_names(folder)):
        group = protocol.group(name)
        if protocol.split(name) != split or group in seen:
            continue
        seen.add(group)
        frames = [decode(next(iter(sorted(folder.glob(f"{name}_{k}*.png"))))) / 255 for k in ("noisy", "clean")]
        x, y = frames[0], register(*frames).image
        border = protocol["border"]
        rng = np.random.default_rng((9400, number))
        top, left = (int(rng.integers(border, n - border - SIDE)) for n in x.shape)
        x, y = (v[top : top + SIDE, left : left + SIDE] for v in (x, y))
        y = fitted(y, x)
        rest = x - y
        gain, offset = np.polyfit(y.ravel(), (rest**2).ravel(), 1)
        if gain < 0 or gain * y.min() + offset <= 0:
            gain, offset = 0.0, float(rest.var())
        rho = float(np.clip((rest[:, 1:] * rest[:, :-1]).mean() / rest.var(), 0, 0.95))
        scenes = Scenes(y[None], float(gain), float(offset), rho, name, (name,))
        found.append(Tile(group, scenes, x, 7_000_000 + number))
    return found


def harmed(tile: Tile) -> Iterator[tuple[str, str, Case]]:
    """(harm, what was done, the case after it); strengths that do not harm this tile are left out."""
    case = tile.case
    for harm, (name, strengths) in HARMS.items():
        fault = FAULTS[name]
        for k, strength in enumerate(strengths):
            kept = kept_contrast(fault, case, strength, tile.seed)
            if fault.judged == "kept" and fault.truth(strength, kept) != "harmful":
                continue
            yield (
                harm,
                f"{name} {strength:g} {fault.unit}",
                fault.apply(case, strength, np.random.default_rng((tile.seed, k))),
            )


def harmless(tile: Tile) -> Iterator[tuple[str, Case]]:
    clean, noisy, case = tile.scenes.clean[0], tile.noisy, tile.case

    def of(x: np.ndarray, d: np.ndarray) -> Case:
        return Case(clean, x, d, d, case.spread)

    again = tile.scenes.record((tile.seed, 1))[0]
    yield "fresh noise", of(again, clean + KEEP_NOISE * (again - clean))
    yield "85 % of the noise taken", of(noisy, clean + 0.15 * (noisy - clean))
    yield "40 % of the noise taken", of(noisy, clean + 0.6 * (noisy - clean))
    for model, settings in (("wavelet", {"strength": 0.3}), ("gaussian", {"sigma": 0.4}), ("tv", {"strength": 0.1})):
        yield f"mild {model}", of(noisy, np.asarray(denoise(noisy, model=model, data_range=1.0, workers=1, **settings)))
    angle = np.random.default_rng((tile.seed, 2)).uniform(0, 2 * np.pi)
    for far in (0.02, 0.05):
        by = (far * np.sin(angle), far * np.cos(angle))
        yield f"shift of {far:g} px", of(noisy, ndimage.shift(case.before, by, order=5, mode="mirror"))


def learnt(development: Sequence[Tile]) -> list[rivals.Chem]:
    """CHEM at each setting, learnt on released candidates of development tiles: one half, corrected on the other."""
    pairs = []
    for tile in development:
        clean = tile.scenes.clean[0]
        for frame in (tile.noisy, tile.scenes.record((tile.seed, 3))[0]):
            pairs.append((clean + KEEP_NOISE * (frame - clean), clean))
    return [rivals.learn(*setting, pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]) for setting in rivals.CHEM]


def scored(job: tuple[Tile, list[rivals.Chem]]) -> list[Scored]:
    """Every case of a tile by every score."""
    tile, chem = job
    cases = [(harm, kind, case) for harm, kind, case in harmed(tile)]
    cases += [(None, kind, case) for kind, case in harmless(tile)]
    second = tile.scenes.record((tile.seed, 4))[0]
    parts = [np.stack([getattr(c, p) for *_, c in cases]) for p in ("scene", "noisy", "after")]
    ours = measure(*parts, metrics=("psnr",))
    names = ("feature_contrast", "transfer", "transfer_texture", "transfer_high", "transfer_peak", "overshoot",
             "removed_z", "invented_z")  # fmt: skip
    columns = {name: ours.column(name) for name in names}
    found = []
    for i, (harm, kind, case) in enumerate(cases):
        row = {name: float(columns[name][i]) for name in names}
        scores: dict[str, Any] = {f"ours: {name}": signal(row) for name, signal in SIGNALS.items()}
        scores |= {f"sFRC: {name}": value for name, value in rivals.sfrc(case.after, case.scene).items()}
        # a defect that was erased is in the second frame of that scene as well
        frame = second + (case.scene - tile.scenes.clean[0])
        scores |= {f"sFRC, second frame: {name}": value for name, value in rivals.sfrc(case.after, frame).items()}
        for one in chem:
            made = one.scores(case.after)
            scores |= {f"CHEM: {one.wavelet}, {one.outside:g} outside, {name}": v for name, v in made.items()}
        found.append(Scored(tile.group, harm, kind, scores))
    return found


def shares(rows: Sequence[Scored], development: Sequence[Scored]) -> None:
    """x_c of all windows become the share below x_h: the 5 % quantile of the harmless development windows."""
    for name in [k for k, v in rows[0].scores.items() if isinstance(v, list)]:
        harmless_ = [x for r in development if r.harm is None for x in _listed(r.scores[name])]
        limit = float(np.quantile(harmless_, 0.05))
        for row in rows:
            row.scores[name] = float(np.mean(np.asarray(row.scores[name]) <= limit))


def _listed(value: Any) -> list[float]:
    return value if isinstance(value, list) else []


def one_score(rows: Sequence[Scored], development: Sequence[Scored]) -> None:
    """The largest of our signals, each less its median and over its spread on the harmless development cases."""
    scale = {}
    for name in SIGNALS:
        values = [r.scores[f"ours: {name}"] for r in development if r.harm is None]
        low, high = np.nanquantile(values, (0.5, 0.95))
        scale[name] = (float(low), float(high - low) or 1.0)
    for row in rows:
        known = [
            (row.scores[f"ours: {n}"] - a) / b for n, (a, b) in scale.items() if np.isfinite(row.scores[f"ours: {n}"])
        ]
        row.scores["ours: one score"] = max(known, default=np.nan)


def chosen(development: Sequence[Scored], harm: str, family: str) -> str:
    """The setting of a rival with the best AUC on the development cases of this harm."""
    names = [n for n in development[0].scores if n.startswith(f"{family}: ")]
    some = [r for r in development if r.harm in (None, harm)]
    harmful = np.array([r.harm is not None for r in some])
    return max(names, key=lambda n: auc(values_of(some, n), harmful))


def values_of(rows: Sequence[Scored], name: str) -> np.ndarray:
    """A score of each row; what a tile does not allow counts as the least harm."""
    values = np.array([r.scores[name] for r in rows], float)
    return np.where(np.isfinite(values), values, -np.inf)


SAME_NOISE = ("fresh noise", "shift")


def same_noise(rows: Sequence[Scored]) -> list[Scored]:
    """Without the harmless cases that have more or less noise left than the harmed ones."""
    return [r for r in rows if r.harm is not None or r.kind.startswith(SAME_NOISE)]


def compared(rows: Sequence[Scored], development: Sequence[Scored]) -> dict[str, Any]:
    """By harm and method: AUC, its interval, the difference ours less rival, and the ROC at stated false alarms."""
    groups = sorted({r.group for r in rows})
    rng = np.random.default_rng(0)
    draws = rng.integers(len(groups), size=(BOOTSTRAP, len(groups)))
    found: dict[str, Any] = {}
    for harm in HARMS:
        some = [r for r in rows if r.harm in (None, harm)]
        harmful = np.array([r.harm is not None for r in some])
        members = [np.flatnonzero([r.group == g for r in some]) for g in groups]
        picks = [np.concatenate([members[i] for i in draw]) for draw in draws]
        methods = {"ours": f"ours: {OURS[harm][0]}", "ours, one score": "ours: one score"}
        for family in ("sFRC", "CHEM", "sFRC, second frame"):
            methods[family] = chosen(development, harm, family)
        table: dict[str, Any] = {}
        drawn: dict[str, np.ndarray] = {}
        for method, name in methods.items():
            values = values_of(some, name)
            drawn[method] = np.array([auc(values[p], harmful[p]) for p in picks])
            table[method] = {
                "score": name.partition(": ")[2], "auc": auc(values, harmful),
                "interval": [float(v) for v in np.percentile(drawn[method], [2.5, 97.5])],
                **roc(values, harmful), "cases": len(some), "harmful": int(harmful.sum()), "groups": len(groups),
            }  # fmt: skip
            if not method.startswith("ours"):
                less = drawn["ours"] - drawn[method]
                table[method]["ours_less_this"] = table["ours"]["auc"] - table[method]["auc"]
                table[method]["ours_less_this_interval"] = [float(v) for v in np.percentile(less, [2.5, 97.5])]
        found[harm] = table
    return found


ROC = (0.01, 0.05, 0.1, 0.2, 0.5)


def roc(values: np.ndarray, harmful: np.ndarray) -> dict[str, list[float]]:
    """Share of harm found where so large a share of harmless cases is flagged."""
    limits = [np.quantile(values[~harmful], 1 - share, method="higher") for share in ROC]
    return {"found_at": [float((values[harmful] > limit).mean()) for limit in limits]}


def by_tiles(tiles: Sequence[Tile], chem: list[rivals.Chem], pool: ProcessPoolExecutor) -> list[Scored]:
    return [row for rows in pool.map(scored, [(tile, chem) for tile in tiles]) for row in rows]


def run(quick: bool, workers: int, say: Any = print) -> dict[str, Any]:
    protocol, begun, found = load(), time.process_time(), {}
    dev_seed, per = DEVELOPMENT, 3 if quick else 12
    parts = {
        "synthetic": (synthetic(dev_seed, per), [t for s in FIGURES[: 1 if quick else 3] for t in synthetic(s, per)])
    }
    if (folder := bench_trust.data()) is not None:
        pairs = folder / "pairs"
        every = real(pairs, protocol, "table")
        parts["real pairs"] = (real(pairs, protocol, "development"), every[:3] if quick else every)
    else:
        say("no real pairs (set SEMNR_DATA): synthetic tiles alone")
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for part, (development, tiles) in parts.items():
            chem = learnt(development)
            dev = by_tiles(development, chem, pool)
            rows = by_tiles(tiles, chem, pool)
            plain = [Scored(r.group, r.harm, r.kind, dict(r.scores)) for r in dev]
            shares(rows, plain)
            shares(dev, plain)
            one_score(rows, plain)
            PARTS.mkdir(parents=True, exist_ok=True)
            (PARTS / f"{part.replace(' ', '_')}.json").write_text(json.dumps([row.__dict__ for row in rows]))
            found[part] = compared(rows, dev)
            found[f"{part}, same noise"] = compared(same_noise(rows), same_noise(dev))
            say(f"{part}: {len(rows)} cases of {len(tiles)} tiles, {time.process_time() - begun:.0f} s of this process")
    return found


def winner(table: Mapping[str, Any], rival: str) -> str:
    """Who is ahead by the paired difference, and whether the two intervals are apart as well."""
    low, high = table[rival]["ours_less_this_interval"]
    if low <= 0 <= high:
        return "not told apart"
    ahead, behind = ("ours", rival) if low > 0 else (rival, "ours")
    apart = table[ahead]["interval"][0] > table[behind]["interval"][1]
    return ahead if apart else f"{ahead}; intervals touch"


def text(found: Mapping[str, Any]) -> str:
    """The tables, as Markdown."""
    shown = ("ours", "ours, one score", "sFRC", "CHEM", "sFRC, second frame")
    lines = []
    for part, harms in found.items():
        first = next(iter(next(iter(harms.values())).values()))
        lines += [_line(f"{part}, {first['groups']} groups: AUC", *shown, "against sFRC", "against CHEM"), _rule(8)]
        for harm, table in harms.items():
            cells = [_auc(table[m]) for m in shown]
            won = [winner(table, rival) for rival in ("sFRC", "CHEM")]
            lines.append(_line(f"{harm} ({table['ours']['harmful']} of {table['ours']['cases']})", *cells, *won))
        heads = ("ours", "sFRC", "CHEM", "AUC, ours less sFRC", "ours less CHEM")
        lines += ["", _line(f"{part}: found at 1, 5, 10 % false alarms", *heads), _rule(6)]
        for harm, table in harms.items():
            rates = [", ".join(f"{v:.0%}" for v in table[m]["found_at"][:3]) for m in ("ours", "sFRC", "CHEM")]
            less = [_less(table[m]) for m in ("sFRC", "CHEM")]
            lines.append(_line(harm, *rates, *less))
        lines.append("")
    return "\n".join(lines).strip()


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|---" * columns + "|"


def _auc(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['auc']:.3f} ({low:.3f} to {high:.3f})"


def _less(row: Mapping[str, Any]) -> str:
    low, high = row["ours_less_this_interval"]
    return f"{row['ours_less_this']:+.3f} ({low:+.3f} to {high:+.3f})"


BEGIN, END = "<!-- rivals: python benchmarks/quality/bench_rivals.py --table -->", "<!-- end of rivals -->"


def put(found: Mapping[str, Any]) -> None:
    """The tables between the marks in docs/benchmark.md."""
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{text(found)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", action="store_true", help="measure nothing: put what is there into the page")
    parser.add_argument("--quick", action="store_true", help="few tiles; writes nothing")
    parser.add_argument("--workers", type=int, default=cores())
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        stored = records.read_tree(RESULTS)
        print(text(stored))
        put(stored)
    else:
        made = run(args.quick, args.workers)
        print(text(made))
        if not args.quick:
            versions = {name: version(name) for name in ("torch", "numpy", "scipy", "pywavelets")}
            records.write(RESULTS, records.record(__file__, made, machine=machine(), versions=versions))
