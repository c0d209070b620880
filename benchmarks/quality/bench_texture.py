"""Which score tells washed-out texture from harmless change: DISTS, LPIPS, SSIM, random weights, band energy.

`python benchmarks/quality/bench_texture.py` runs the tuning seed, the figure seeds and the real pairs on one thread and
writes results/texture.json; `--table` puts its table into docs/trust.md. A case is a tile and what a candidate made of
it; truth is what was done (semnr.stress), never a score. Harm is texture wash of 30 % and more. Harmless are fresh
noise, more and less noise left, 8 bits, a shift of 0.05 px, 1 % of gain, 0.5 % of offset. Every score is of the
candidate against the clean tile, less that of the released candidate. The threshold of each score is learnt on the
tuning seed, at 1 % false alarms, and held on the others.

The real pairs: one of each group of pairs that overlap, one tile of it; the clean frame takes the place of the scene,
with fresh noise of the pair's own strength. Intervals are by resampling tiles or groups.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_trust
import numpy as np
import records
import torch
from scipy import ndimage
from scipy.stats import rankdata

import semnr
from semnr.stress import FAULTS
from semnr.stress.faults import Case
from semnr.stress.run import KEEP_NOISE
from semnr.stress.scenes import scenes_of
from semnr.trust import changes
from semnr_kernels import dists, lpips

HERE = Path(__file__).resolve().parents[1]
RESULTS, PARTS = HERE / "results" / "texture.json", HERE.parent / "build" / "texture"  # as they come
TUNING, FIGURES = (300,), (9301, 9302)
WASHED = tuple(s for s in FAULTS["texture_wash"].strengths if FAULTS["texture_wash"].truth(s, 1.0) == "harmful")
FALSE_ALARMS = 0.01
STABLE, WORSE = 0.01, 0.01  # the rule texture_drift of semnr/guarding/rules.toml
BOOTSTRAP = 1000
# pairs that overlap, from the data's README: the first of each stands for all
GROUPS = (
    ("time_001", "time_002", "time_011", "line_001"),
    ("time_005", "time_006", "time_027", "line_022", "line_032"),
    ("time_014", "line_025", "line_026"),
    ("time_015", "time_045"),
    ("time_031", "line_010"),
    ("line_014", "line_015", "line_016"),
)
SCORES = {
    "dists": "DISTS, native size",
    "dists_authors": "DISTS, the authors' resize",
    "lpips_vgg": "LPIPS (VGG16)",
    "lpips_alex": "LPIPS (AlexNet)",
    "dists_random": "DISTS, random weights",
    "ssim": "1 − SSIM",
    "energy": "1 − band energy, noise-corrected",
    "texture": "1 − transfer of the texture",
}


@dataclass(frozen=True)
class Scored:
    """One case: the group that it is resampled with, what was done, whether that harms, and the scores' changes."""

    group: str
    kind: str
    harmful: bool
    changes: dict[str, float]


class Scores:
    """Every score of candidates against (N, H, W) clean tiles, each the larger the worse; features are kept."""

    def __init__(self, scene: np.ndarray, resized: bool) -> None:
        self.scene, self.y = scene, _tensor(scene)
        options: dict[str, Any] = {"data_range": 1.0, "nan": "error"}
        self.dists = {"dists": dists.features(self.y, **options)}
        self.lpips = {}
        if resized:  # large tiles: the two sizes alone
            self.dists["dists_authors"] = dists.features(self.y, resize="authors", **options)
        else:
            self.dists["dists_random"] = dists.features(self.y, weights="random", **options)
            self.lpips = {f"lpips_{net}": lpips.features(self.y, net=net, data_range=1.0) for net in ("alex", "vgg")}

    def of(self, noisy: np.ndarray, candidate: np.ndarray) -> dict[str, np.ndarray]:
        x = _tensor(candidate)
        found = {name: dists.against(x, kept, reduction="none") for name, kept in self.dists.items()}
        found |= {name: lpips.against(x, kept, reduction="none") for name, kept in self.lpips.items()}
        found["ssim"] = 1 - semnr.ssim(x, self.y, data_range=1.0, reduction="none")
        made = {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}
        energy = semnr.evidence(_tensor(noisy), x, reference=self.y, hints=False).energy[:, 0]
        stacks = (np.ascontiguousarray(v, dtype=np.float32)[:, None] for v in (noisy, candidate, self.scene))
        texture = changes.columns(*stacks, data_range=1.0)["transfer_texture"]
        return {**made, "energy": 1 - energy, "texture": 1 - texture}


def _tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))[:, None]


def washed(cases: list[Case], seed: int) -> Iterator[tuple[str, bool, np.ndarray, np.ndarray]]:
    """(kind, whether it harms, noisy, candidate) of stacks of tiles."""
    fault, noisy = FAULTS["texture_wash"], np.stack([c.noisy for c in cases])
    for strength in WASHED:
        made = [fault.apply(c, strength, np.random.default_rng(seed)).after for c in cases]
        yield f"texture wash of {strength:.0%}", True, noisy, np.stack(made)


def harmless(
    cases: list[Case], record: Any, seed: int, left: float
) -> Iterator[tuple[str, bool, np.ndarray, np.ndarray]]:
    """The same of changes that harm nothing; `record(k)`: another noisy frame of every tile."""
    scene, noisy, before = (np.stack([getattr(c, part) for c in cases]) for part in ("scene", "noisy", "before"))
    again, rng = record(1), np.random.default_rng((seed, 3))
    if left:
        yield "fresh noise", False, again, scene + left * (again - scene)
        yield "half of the noise that was left", False, noisy, scene + 0.5 * left * (noisy - scene)
        yield "half more noise left", False, noisy, scene + 1.5 * left * (noisy - scene)
    yield "8 bits", False, noisy, np.rint(255 * np.clip(before, 0, 1)) / 255
    angles = rng.uniform(0, 2 * np.pi, len(scene))
    moved = [
        ndimage.shift(d, (0.05 * np.sin(a), 0.05 * np.cos(a)), order=5, mode="mirror")
        for d, a in zip(before, angles, strict=True)
    ]
    yield "shift of 0.05 px", False, noisy, np.stack(moved)
    yield "gain of 1 %", False, noisy, 1.01 * before
    yield "offset of 0.5 %", False, noisy, before + 0.005


def cases_of(scene: np.ndarray, noisy: np.ndarray, spread: np.ndarray, left: float = KEEP_NOISE) -> list[Case]:
    """`left`: the share of the noise that the released candidate leaves."""
    before = scene + left * (noisy - scene)
    return [Case(*parts) for parts in zip(scene, noisy, before, before, spread, strict=True)]


def scored(
    cases: list[Case], record: Any, groups: list[str], seed: int, resized: bool = False, left: float = KEEP_NOISE
) -> list[Scored]:
    scene = np.stack([c.scene for c in cases])
    scores = Scores(scene, resized)
    base = scores.of(np.stack([c.noisy for c in cases]), np.stack([c.before for c in cases]))
    found = []
    for kind, harm, noisy, candidate in (*washed(cases, seed), *harmless(cases, record, seed, left)):
        after = scores.of(noisy, candidate)
        for i, group in enumerate(groups):
            found.append(Scored(group, kind, harm, {k: float(after[k][i] - base[k][i]) for k in after}))
    return found


def synthetic(seed: int, tiles: int, side: int, left: float = KEEP_NOISE) -> list[Scored]:
    scenes = scenes_of(None, tiles=tiles, side=side, seed=seed)
    noisy = scenes.record((seed, 0))
    cases = cases_of(scenes.clean, noisy, scenes.sigma(scenes.clean), left)
    names = [f"{seed}-{i}" for i in range(tiles)]
    return scored(cases, lambda k: scenes.record((seed, k)), names, seed, side > 256, left)


def real(folder: Path) -> list[Scored]:
    """A tile of 128 px of one pair of each group; the clean frame takes the place of the scene."""
    found, others = [], {pair for group in GROUPS for pair in group[1:]}
    for number, row in enumerate(csv.DictReader((folder / "pairs" / "REGISTRATION.csv").open())):
        if row["pair"] in others:
            continue
        pair = bench_trust._registered(folder / "pairs", row)
        at = int(np.random.default_rng(number).integers(len(pair[0])))
        frame, clean = (v[at : at + 1] for v in pair)
        sigma = float((frame - clean).std())

        def record(k: int, clean: np.ndarray = clean, sigma: float = sigma, number: int = number) -> np.ndarray:
            return clean + sigma * np.random.default_rng((number, k)).standard_normal(clean.shape)

        cases = cases_of(clean, record(0), np.full_like(clean, sigma))
        found += scored(cases, record, [row["pair"]], number)
    return found


def auc(values: np.ndarray, harmful: np.ndarray) -> float:
    """Share of (harmful, harmless) pairs that the score orders right, ties half."""
    n, m = int(harmful.sum()), int((~harmful).sum())
    return float((rankdata(values)[harmful].sum() - n * (n + 1) / 2) / (n * m))


def rates(rows: list[Scored], name: str, threshold: float | None) -> dict[str, Any] | None:
    """AUC with its interval by resampling groups; with a threshold also what it flags, of harm and of no harm."""
    rows = [r for r in rows if np.isfinite(r.changes.get(name, np.nan))]
    if not rows:
        return None
    values, harmful = np.array([r.changes[name] for r in rows]), np.array([r.harmful for r in rows])
    names = sorted({r.group for r in rows})
    members = [np.flatnonzero([r.group == g for r in rows]) for g in names]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(BOOTSTRAP):
        some = np.concatenate([members[i] for i in rng.integers(len(names), size=len(names))])
        drawn.append(auc(values[some], harmful[some]))
    found: dict[str, Any] = {
        "auc": auc(values, harmful),
        "interval": [float(v) for v in np.percentile(drawn, [2.5, 97.5])],
        "cases": len(rows),
        "groups": len(names),
        "harmful": int(harmful.sum()),
    }
    if threshold is not None:
        found |= {
            "threshold": threshold,
            "seen": float((values[harmful] > threshold).mean()),
            "false_alarms": float((values[~harmful] > threshold).mean()),
        }
    return found


def learnt(rows: list[Scored], name: str) -> float | None:
    """The threshold that the stated share of harmless cases exceeds."""
    values = [r.changes[name] for r in rows if not r.harmful and np.isfinite(r.changes.get(name, np.nan))]
    return float(np.quantile(values, 1 - FALSE_ALARMS)) if values else None


def drift(rows: list[Scored]) -> dict[str, Any]:
    """What the rule texture_drift flags as it is shipped: SSIM stable within 0.01, DISTS worse by more than 0.01."""
    counts = {}
    for name, harm in (("seen", True), ("false_alarms", False)):
        some = [r for r in rows if r.harmful == harm]
        fired = sum(abs(r.changes["ssim"]) <= STABLE and r.changes["dists"] > WORSE for r in some)
        counts |= {f"{name}_count": fired, f"{name}_of": len(some)}
        counts[f"{name}_interval"] = list(bench_trust.interval(fired, len(some)))
    return counts


def tables(tuning: list[Scored], parts: dict[str, list[Scored]]) -> dict[str, Any]:
    thresholds = {name: learnt(tuning, name) for name in SCORES}
    found: dict[str, Any] = {}
    for part, rows in parts.items():
        scored = {name: rates(rows, name, thresholds[name]) for name in SCORES}
        found[part] = {name: row for name, row in scored.items() if row is not None} | {"texture_drift": drift(rows)}
    return found


def run(tiles: int, say: Any = print) -> dict[str, Any]:
    begun = time.process_time()

    def done(part: str, rows: list[Scored]) -> list[Scored]:
        say(f"{part}: {len(rows)} cases, {time.process_time() - begun:.0f} s of CPU")
        PARTS.mkdir(parents=True, exist_ok=True)
        (PARTS / f"{part.replace(' ', '_')}.json").write_text(json.dumps([row.__dict__ for row in rows]))
        return rows

    tuning = [row for seed in TUNING for row in done(f"tuning {seed}", synthetic(seed, tiles, 128))]
    figures = [row for seed in FIGURES for row in done(f"seed {seed}", synthetic(seed, tiles, 128))]
    parts = {"synthetic, 128²": figures}
    if (folder := bench_trust.data()) is not None:
        parts["real pairs, 128²"] = done("real pairs", real(folder))
    bare = synthetic(FIGURES[0], tiles, 128, left=0.0)
    parts["synthetic, 128², no noise left"] = done("no noise left", bare)
    parts["synthetic, 384²"] = done("384", synthetic(FIGURES[0], tiles, 384))
    about = {
        "cpu_seconds": time.process_time() - begun,
        "tiles": tiles,
        "tuning": list(TUNING),
        "figures": list(FIGURES),
    }
    return {"run": about, **tables(tuning, parts)}


def text(found: dict[str, Any]) -> str:
    """The table, as Markdown."""
    lines = ["| score | AUC, 95 % interval | harm seen | false alarms |", "|---|---|---|---|"]
    for part, rows in found.items():
        if part == "run":
            continue
        first = rows["dists"]
        lines.append(f"| **{part}**: {first['cases']} cases of {first['groups']}, {first['harmful']} harmed | | | |")
        for name, title in SCORES.items():
            if (row := rows.get(name)) is None:
                continue
            low, high = row["interval"]
            seen = " | ".join("–" if row.get(k) is None else f"{row[k]:.0%}" for k in ("seen", "false_alarms"))
            lines.append(f"| {title} | {row['auc']:.3f}, {low:.3f} to {high:.3f} | {seen} |")
        rule = rows["texture_drift"]
        shares = []
        for name in ("seen", "false_alarms"):
            low, high = rule[f"{name}_interval"]
            shares.append(f"{rule[f'{name}_count']} of {rule[f'{name}_of']}, {low:.0%} to {high:.0%}")
        lines.append(f"| the rule texture_drift | | {' | '.join(shares)} |")
    return "\n".join(lines)


def put(found: dict[str, Any]) -> None:
    """The table between the marks in docs/trust.md."""
    begin, end = (
        "<!-- texture table: python benchmarks/quality/bench_texture.py --table -->",
        "<!-- end of texture table -->",
    )
    page = bench_trust.PAGE.read_text(encoding="utf-8")
    head, rest = page.split(begin)
    bench_trust.PAGE.write_text(f"{head}{begin}\n\n{text(found)}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=9, help="of each seed")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        stored = records.read_tree(RESULTS)
        print(text(stored))
        put(stored)
    else:
        made = run(args.tiles)
        print(text(made))
        records.write(RESULTS, records.record(__file__, made, versions={"torch": torch.__version__}))
