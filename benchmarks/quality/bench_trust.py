"""How often the guard sees what harms and leaves alone what does not, tile by tile, with intervals.

`python benchmarks/quality/bench_trust.py` runs the figure seeds (about twenty minutes on one core) and writes
results/trust.json; `--table` prints it and puts it into docs/trust.md; `--tuning` runs the seeds that the thresholds
were set on, fewer tiles, and writes nothing. The default rules are held, as they are in the package. Truth is what was
done to a tile (see semnr.stress), never a metric; what lies between harmful and harmless is counted apart.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records

from semnr.guarding import DEFAULT_RULES, tile_flags
from semnr.stress import FAULTS
from semnr.stress.faults import kept_contrast, probes
from semnr.stress.measure import measure
from semnr.stress.run import KEEP_NOISE, _undone, applied
from semnr.stress.scenes import Scenes, scenes_of

HERE = Path(__file__).resolve().parents[1]
RESULTS, PAGE = HERE / "results" / "trust.json", HERE.parent / "docs" / "trust.md"
TUNING, FIGURES = 100, (9101, 9102, 9103)  # thresholds were set on seeds 100 to 102, and after a look at 9001 to 9003
METRICS = ("psnr", "fsim", "cnr")  # what the comparing rules read; DISTS: bench_texture.py
GATES = [name for name, rule in DEFAULT_RULES.items() if rule.gate]
SMOOTHING = ("evidence_transfer", "evidence_ruined", "lost_detail")
# Mild denoisers, by the models of semnr.denoise; a tile counts as harmless where probes keep more than 0.95.
MILD = (("wavelet", {"strength": 0.3}), ("wavelet", {"strength": 0.6}), ("nlm", {"strength": 0.3}))
MILD += (("gaussian", {"sigma": 0.4}), ("gaussian", {"sigma": 0.5}), ("tv", {"strength": 0.1}))


def interval(count: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if n == 0:
        return 0.0, 1.0
    p, middle = count / n, 1 + z * z / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / middle), min(1.0, (centre + half) / middle)


class Tally:
    """Tiles and how many of them the guard flags, by what was done and how harmful it is."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, kind: str, truth: list[str], flags: dict[str, np.ndarray], names: list[str] | None = None) -> None:
        fired = np.any([flags[name] for name in names or GATES if name in flags], axis=0)
        for word in set(truth):
            chosen = np.array([t == word for t in truth])
            row = self.rows.setdefault((kind, word), {"tiles": 0, "flagged": 0, "signals": {}})
            row["tiles"] += int(chosen.sum())
            row["flagged"] += int(fired[chosen].sum())
            for name, flag in flags.items():
                row["signals"][name] = row["signals"].get(name, 0) + int(flag[chosen].sum())

    def table(self) -> list[dict[str, Any]]:
        found = []
        for (kind, truth), row in self.rows.items():
            low, high = interval(row["flagged"], row["tiles"])
            signals = {k: v for k, v in row["signals"].items() if v}
            share = row["flagged"] / row["tiles"]
            found.append(
                {"kind": kind, "truth": truth, **row, "signals": signals, "share": share, "interval": [low, high]}
            )
        return found


def fired(before: Any, after: Any) -> dict[str, np.ndarray]:
    return {name: flag for name, (_, flag) in tile_flags(before, after).items()}


def synthetic(tally: Tally, tiles: int, side: int, seed: int, say: Any = print) -> None:
    """Every fault at every strength, and the harmless changes, on lines, holes and metal."""
    scenes = scenes_of(None, tiles=tiles, side=side, seed=seed)
    noisy = scenes.record((seed, 0))
    before = scenes.clean + KEEP_NOISE * (noisy - scenes.clean)
    base = measure(scenes.clean, noisy, before, metrics=METRICS)
    for fault in FAULTS.values():
        for k, strength in enumerate(fault.strengths):
            if fault.judged == "strength" and fault.truth(strength, 1.0) == "grey":
                continue  # neither wrong nor right to flag
            cases = applied(fault, strength, scenes, noisy, before, (seed, 7, k))
            parts = {p: np.stack([getattr(c, p) for c in cases]) for p in ("scene", "noisy", "before", "after")}
            own = base
            if fault.name.startswith("erased"):
                own = measure(parts["scene"], parts["noisy"], parts["before"], metrics=METRICS)
            after = measure(parts["scene"], parts["noisy"], parts["after"], metrics=METRICS)
            truth = [fault.truth(strength, kept_contrast(fault, _undone(c), strength, seed)) for c in cases]
            name = f"{fault.name} of {strength:g} σ" if fault.defect_px else fault.name
            tally.add(name, truth, fired(own, after))
        say(f"  {fault.name}")
    harmless(tally, scenes, noisy, before, base, seed)
    say("  harmless changes")


def harmless(tally: Tally, scenes: Scenes, noisy: np.ndarray, before: np.ndarray, base: Any, seed: int) -> None:
    rng = np.random.default_rng((seed, 3))
    ok = ["harmless"] * len(scenes)
    for frame in (1, 2):
        again = scenes.record((seed, frame))
        d = scenes.clean + KEEP_NOISE * (again - scenes.clean)
        tally.add("fresh noise", ok, fired(base, measure(scenes.clean, again, d, metrics=METRICS)))
    coarse = np.rint(255 * np.clip(before, 0, 1)) / 255  # the released denoiser wrote 8 bit, the candidate 16
    base8 = measure(scenes.clean, noisy, coarse, metrics=METRICS)
    fine = np.rint(65535 * np.clip(before, 0, 1)) / 65535
    tally.add("8 to 16 bit", ok, fired(base8, measure(scenes.clean, noisy, fine, metrics=METRICS)))
    for distance in (0.02, 0.05):
        angles = rng.uniform(0, 2 * np.pi, len(scenes))
        moved = np.stack(
            [
                ndimage.shift(d, (distance * np.sin(a), distance * np.cos(a)), order=5, mode="mirror")
                for d, a in zip(before, angles, strict=True)
            ]
        )
        tally.add("shift of at most 0.05 px", ok, fired(base, measure(scenes.clean, noisy, moved, metrics=METRICS)))
    for name, d, kept in mild(scenes, noisy, seed):
        truth = [_word(k) for k in kept]
        tally.add(f"denoiser: {name}", truth, fired(base, measure(scenes.clean, noisy, d, metrics=METRICS)))


def mild(scenes: Scenes, noisy: np.ndarray, seed: int) -> Iterator[tuple[str, np.ndarray, list[float]]]:
    """Mild denoisers: what they make of the frames, and how much they keep of small discs of 2 σ and of faint grain,
    each put into the frames; the lesser of the two counts."""
    from semnr.denoising import denoise

    marks = [probes(scenes.clean[0].shape, seed + i) * 2 * float(scenes.sigma()) for i in range(len(scenes))]
    grain = ndimage.gaussian_filter(np.random.default_rng((seed, 5)).standard_normal(scenes.clean[0].shape), 1.5)
    grain *= 0.3 * float(scenes.sigma()) / grain.std()
    for left in (0.15, 0.6):  # of the noise; the rest is taken, and nothing else
        yield f"takes {1 - left:.0%} of the noise", scenes.clean + left * (noisy - scenes.clean), [1.0] * len(scenes)
    for model, settings in MILD:
        found, kept = [], []
        for x, mark in zip(noisy, marks, strict=True):
            images = (x, x + mark, x + grain)
            plain, marked, grained = (np.asarray(denoise(v, model=model, data_range=1.0, **settings)) for v in images)
            found.append(plain)
            both = ((marked, mark), (grained, grain))
            kept.append(min(float(((v - plain) * m).sum() / (m**2).sum()) for v, m in both))
        label = ", ".join(f"{k} {v:g}" for k, v in settings.items())
        yield f"{model} {label}", np.stack(found), kept


def real(tally: Tally, folder: Path, say: Any = print) -> None:
    """Over-smoothing on the real pairs, registered; tiles of 128 px, 18 filters, small features of the scene itself
    and discs of 2 σ put into the noisy frame."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

    filters: dict[str, Any] = {f"gauss {s}": lambda v, s=s: ndimage.gaussian_filter(v, s) for s in SIGMAS}
    filters |= {"none": lambda v: v, "wavelet": lambda v: denoise_wavelet(v, 0.12)}
    filters |= {f"median {k}": lambda v, k=k: ndimage.median_filter(v, k) for k in (3, 5, 7)}
    filters |= {f"tv {k}": lambda v, k=k: denoise_tv_chambolle(v, k) for k in (0.05, 0.1, 0.2, 0.4)}
    filters |= {f"nlm {k}": lambda v, k=k: denoise_nl_means(v, 5, 7, h=0.12 * k, sigma=0.08) for k in (0.5, 1.0)}
    for row in csv.DictReader((folder / "pairs" / "REGISTRATION.csv").open()):
        x, y = _registered(folder / "pairs", row)
        sigma = float((x - y).std())
        marks = np.stack([probes(x[0].shape, i) for i in range(len(x))]) * 2 * sigma
        for filtered in filters.values():
            d = np.stack([filtered(v) for v in x])
            marked = np.stack([filtered(v) for v in x + marks])
            own = _own_contrast(x, d, y)
            put = ((marked - d) * marks).sum((1, 2)) / (marks**2).sum((1, 2))
            after = measure(y, x, d, metrics=("psnr",))
            flags = fired(None, after)
            smoothing = {name: flags[name] for name in SMOOTHING}
            truth = [_word(p) for p in own]
            tally.add("real pairs, by transfer", truth, smoothing, list(SMOOTHING[:2]))
            tally.add("real pairs, by transfer or lost detail", truth, smoothing)
            truth = [_word(min(p, q)) for p, q in zip(own, put, strict=True)]
            tally.add("real pairs, and discs of 2 σ put in", truth, smoothing)
        say(f"  {row['pair']}")


def _word(kept: float) -> str:
    return "harmful" if kept < 0.85 else "harmless" if kept > 0.95 else "grey"


SIGMAS = (0.3, 0.5, 0.7, 1, 1.5, 2, 2.5, 3, 4)


def _own_contrast(x: np.ndarray, d: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the strongest small structures of the clean image in the filtered over that in the noisy frame: over
    many pixels the noise of the frame averages out."""

    def height(v: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.gaussian_filter(v, 0.7) - ndimage.gaussian_filter(v, 5.0))

    kept = []
    for noisy, filtered, clean in zip(x, d, y, strict=True):
        h = height(clean)
        strong = np.abs(h) >= np.quantile(np.abs(h), 0.98)
        sign = np.sign(h[strong])
        kept.append(float((height(filtered)[strong] * sign).sum() / (height(noisy)[strong] * sign).sum()))
    return np.array(kept)


def _registered(folder: Path, row: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Noisy and clean tiles of 128 px, (9, 128, 128), the clean laid onto the noisy, 12 px off the border."""
    from PIL import Image

    x, clean = (
        np.asarray(Image.open(next(folder.glob(f"{row['pair']}_{kind}*"))).convert("L"), dtype=np.float64) / 255
        for kind in ("noisy", "clean")
    )
    p = [float(row[f"p{i}"]) for i in range(6)]
    turn, centre = np.array([[1 + p[2], p[3]], [p[4], 1 + p[5]]]), np.array(clean.shape) / 2
    y = ndimage.affine_transform(clean, turn, offset=centre + np.array(p[:2]) - turn @ centre, order=3, mode="nearest")
    at = [(12 + 128 * i, 12 + 128 * j) for i in range(3) for j in range(3)]
    return tuple(np.stack([v[r : r + 128, c : c + 128] for r, c in at]) for v in (x, y))  # type: ignore[return-value]


def data() -> Path | None:
    folder = Path(os.environ.get("SEMNR_DATA", HERE.parents[1] / "shared" / "data"))
    return folder if (folder / "pairs" / "REGISTRATION.csv").is_file() else None


BARS = {"harmful": ("at least", 0.99), "harmless": ("at most", 0.01)}
REAL_BARS = {"harmful": ("at least", 0.97), "harmless": ("at most", 0.02)}


def together(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The harmless changes that the bar names, as one row, and the faults that are too weak to harm as another."""
    named = ("fresh noise", "8 to 16 bit", "shift of at most", "denoiser")
    mild = [r for r in rows if r["truth"] == "harmless" and r["kind"].startswith(named)]
    weak = [r for r in rows if r["truth"] == "harmless" and r not in mild and not r["kind"].startswith("real")]
    found = []
    for kind, chosen in ((ALL, mild), ("faults too weak to harm, together", weak)):
        tiles, flagged = (sum(r[k] for r in chosen) for k in ("tiles", "flagged"))
        signals: dict[str, int] = {}
        for name, count in (pair for r in chosen for pair in r["signals"].items()):
            signals[name] = signals.get(name, 0) + count
        more = {"signals": signals, "share": flagged / tiles, "interval": list(interval(flagged, tiles))}
        found.append({"kind": kind, "truth": "harmless", "tiles": tiles, "flagged": flagged, **more})
    return found


ALL = "harmless changes, together"


def text(result: dict[str, Any]) -> str:
    """The table, as Markdown."""
    head = ["| what was done | truth | tiles | flagged | 95 % interval | bar | by |", "|---|---|---|---|---|---|---|"]
    order = {"harmful": 0, "harmless": 1, "grey": 2}
    lines = []
    for row in sorted([*together(result["rows"]), *result["rows"]], key=lambda r: order[r["truth"]]):
        bars = REAL_BARS if row["kind"].startswith("real") else BARS
        if row["kind"] == "erased_defect of 2 σ":
            bars = {"harmful": ("at least", 0.95)}  # the bar of the scan for 2 σ
        bar = ""
        free = row["kind"].endswith("put in") or (row["kind"].startswith("denoiser") and row["truth"] == "harmful")
        free |= row["truth"] == "harmless" and row["kind"] != ALL and not row["kind"].startswith("real")
        if row["truth"] in bars and not free:
            word, value = bars[row["truth"]]
            met = row["share"] >= value if word == "at least" else row["share"] <= value
            bar = f"{'≥' if word == 'at least' else '≤'} {value:.0%}{'' if met else ' **missed**'}"
        low, high = row["interval"]
        by = sorted(row["signals"].items(), key=lambda kv: -kv[1])[:3]
        names = ", ".join(f"{k.replace('_', ' ')} {v / row['tiles']:.1%}" for k, v in by)
        share = f"{row['share']:.1%} | {low:.1%} to {high:.1%}"
        lines.append(
            f"| {row['kind'].replace('_', ' ')} | {row['truth']} | {row['tiles']} | {share} | {bar} | {names} |"
        )
    return "\n".join([*head, *lines])


def put(result: dict[str, Any]) -> None:
    """The table between the marks in docs/trust.md."""
    begin, end = "<!-- trust table: python benchmarks/quality/bench_trust.py --table -->", "<!-- end of trust table -->"
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(begin)
    seeds = ", ".join(map(str, result["seeds"]))
    note = f"Seeds {seeds}; {result['tiles']} tiles of {result['side']}² each. {result['when']}."
    PAGE.write_text(f"{head}{begin}\n\n{text(result)}\n\n{note}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def run(tiles: int, side: int, seeds: tuple[int, ...], *, say: Any = print) -> dict[str, Any]:
    tally = Tally()
    for seed in seeds:
        say(f"seed {seed}")
        synthetic(tally, tiles, side, seed, say)
    if (folder := data()) is not None:
        say("real pairs")
        real(tally, folder, say)
    else:
        say("real pairs are absent (set SEMNR_DATA): their rows are missing")
    return {"when": records.now(), "seeds": list(seeds), "tiles": tiles, "side": side, "rows": tally.table()}


def stored() -> dict[str, Any]:
    made = records.read(RESULTS)
    return {"when": made["when"], **records.tree_of(made["rows"])}


def test_a_small_run_of_the_trust_table_sees_strong_faults() -> None:
    tally = Tally()
    synthetic(tally, 3, 128, TUNING, say=lambda line: None)
    rows = {(row["kind"], row["truth"]): row for row in tally.table()}
    assert rows["offset", "harmful"]["share"] == 1
    assert rows["fresh noise", "harmless"]["share"] < 0.5


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=32)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--tuning", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        put(stored())
        print(text(stored()))
    else:
        made = run(args.tiles, args.side, (TUNING,) if args.tuning else FIGURES)
        print(text(made))
        if not args.tuning:
            tree = {name: value for name, value in made.items() if name != "when"}
            versions = {"torch": torch.__version__, "numpy": np.__version__}
            records.write(RESULTS, records.record(__file__, tree, versions=versions))
