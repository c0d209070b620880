"""The classifier on ten synthetic classes against simple statistics, and near-duplicates that were planted.

`python benchmarks/quality/bench_classify.py` makes the set from its seed, trains the recipe `small` on a grouped
split, fits the logistic regression on the same images and split, plants the copies, writes results/classify.json and
puts the table into docs/classify.md; `--table` does that with what is there; `--specimens 6 --copies 20 --try` is a
quick look and writes nothing.

The set stands for the ten categories (`semnr.classify.write_textures`). It says whether training, split and calibration
do their work, and nothing about microscope images.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest, kurtosis, skew

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records

import semnr
from semnr.classify import CATEGORIES
from semnr.classify.images import read_labelled
from semnr.classify.split_file import SPLIT, read_split
from semnr.classify.textures import recordings
from semnr.leakage import compare
from semnr.leakage.fingerprints import SYMMETRIES, seen_as, thumbnail
from semnr.runs import machine

HERE = Path(__file__).resolve().parents[1]
RESULTS, PAGE = HERE / "results" / "classify.json", HERE.parent / "docs" / "classify.md"
RECIPE = "small"
SEED, SIDE = 20_261, 96  # other seeds than those that thresholds were set on
PLANTED = 20_267  # of the planted copies: thresholds of the comparison were set on 777
BARS = {"accuracy": 0.95, "ece": 0.05, "statistics": 0.80, "found": 0.99, "false": 0.01}


def statistics(image: np.ndarray, rings: int = 24) -> np.ndarray:
    """Moments and percentiles of the grey levels, and the logarithm of the power in rings of spatial frequency."""
    grey = image.astype(float)
    levels = np.percentile(grey, (5, 25, 50, 75, 95))
    values = [grey.mean(), grey.std(), skew(grey, axis=None), kurtosis(grey, axis=None), *levels]
    height, width = grey.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.rfft2((grey - grey.mean()) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    ring = np.minimum((radius * 2 * rings).astype(int), rings - 1)
    mean = np.bincount(ring.ravel(), power.ravel(), rings) / np.maximum(np.bincount(ring.ravel(), minlength=rings), 1)
    return np.array([*values, *np.log(mean + 1e-6)])


def regression(x: np.ndarray, labels: np.ndarray, parts: np.ndarray, classes: int) -> dict[str, float]:
    """Multinomial logistic regression; its penalty is chosen on the validation images."""
    train = parts == "train"
    mean, std = x[train].mean(axis=0), x[train].std(axis=0) + 1e-9
    z, y = torch.from_numpy((x - mean) / std), torch.from_numpy(labels)
    best: tuple[float, float, float] = (-1.0, 0.0, 0.0)
    for penalty in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1):
        weights = torch.zeros(z.shape[1] + 1, classes, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([weights], max_iter=300, line_search_fn="strong_wolfe")

        def loss(weights: torch.Tensor = weights, penalty: float = penalty, optimiser: Any = optimiser) -> torch.Tensor:
            optimiser.zero_grad()
            logits = z[train] @ weights[:-1] + weights[-1]
            value = torch.nn.functional.cross_entropy(logits, y[train]) + penalty * weights[:-1].square().sum()
            value.backward()
            return value

        optimiser.step(loss)
        said = (z @ weights[:-1] + weights[-1]).argmax(dim=1).numpy()
        right = said == labels
        validation, test = (float(right[parts == part].mean()) for part in ("validation", "test"))
        if validation > best[0]:
            best = (validation, test, penalty)
    count = int((parts == "test").sum())
    found = binomtest(round(best[1] * count), count).proportion_ci()
    return {"accuracy": best[1], "low": float(found.low), "high": float(found.high), "penalty": best[2]}


def classifier(specimens: int, minutes: float | None, epochs: list[int] | None, named: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place) / "sem", Path(place) / "run"
        semnr.classify.write_textures(folder, specimens=specimens, side=SIDE, seed=SEED, bar=True)
        begun = time.perf_counter()
        changes: dict[str, Any] = {"training.seed": SEED, "training.minutes": minutes}
        if epochs:
            changes["data.epochs"] = epochs
        if named:
            changes |= {"data.duplicates": False, "data.specimen": "_"}
        done = semnr.classify.train(folder, out, recipe=RECIPE, changes=changes, quiet=False)
        seconds = time.perf_counter() - begun
        known = read_split(out / SPLIT)
        images = read_labelled(folder, side=SIDE)
        parts = np.array([known[digest][0] for digest in images.sha256])
        x = np.stack([statistics(image) for image in images.pixels])
        simple = regression(x, images.labels, parts, len(images.classes))
        twins: dict[str, set[str]] = {}
        for name, part in zip(images.names, parts, strict=True):
            twins.setdefault(name.rpartition("_")[0], set()).add(part)
        figures = done.evaluation.figures
        return {
            "set": {
                "images": len(images.names),
                "test": int((parts == "test").sum()),
                "specimens": specimens,
                "side": SIDE,
                "seed": SEED,
                "data_bars_cut": done.split["data_bars_cut"],
                "near_duplicate_images": done.split["near_duplicate_images"],
                "specimens_torn": sum(len(held) > 1 for held in twins.values()),
                "specimens_all": len(twins),
            },
            "network": {
                **{k: figures[k] for k in ("accuracy", "accuracy_interval", "macro_f1", "macro_f1_interval", "ece",
                                           "ece_without_temperature", "decided", "accuracy_decided")},
                "minutes": done.minutes, "seconds_with_reading_and_search": seconds, "steps": done.steps,
            },
            "statistics": simple,
        }  # fmt: skip


def planted(copies: int) -> dict[str, Any]:
    """As many images of specimens of their own, and of each a copy that was changed, in another part."""
    rng = np.random.default_rng(PLANTED)
    images = [
        recordings(CATEGORIES[k % 10], 160, PLANTED + 1, k // 10, 1)[0] for k in range(copies)
    ]  # each a specimen of its own
    thumbs = [thumbnail(image) for image in images]
    for image in images:
        height, width = (int(n * rng.uniform(0.8, 1)) for n in image.shape)
        top, left = (int(rng.integers(0, n - m + 1)) for n, m in zip(image.shape, (height, width), strict=True))
        copy = seen_as(image[top : top + height, left : left + width].astype(float), int(rng.integers(len(SYMMETRIES))))
        copy = rng.uniform(0.6, 1.4) * copy + rng.uniform(-40, 40) + rng.normal(0, 6, copy.shape)
        thumbs.append(thumbnail(np.clip(copy, 0, 255)))
    splits = ["train"] * copies + ["test"] * copies
    begun = time.perf_counter()
    made = compare([str(k) for k in range(2 * copies)], splits, np.stack(thumbs))
    seconds = time.perf_counter() - begun
    pairs = {(min(p.first, p.second), max(p.first, p.second)) for p in made.pairs}
    truth = {(k, copies + k) for k in range(copies)}
    wrong = {k for pair in pairs - truth if pair[1] - pair[0] != copies for k in pair}
    found, false = len(pairs & truth), len({k % copies for k in wrong})
    ends = {name: binomtest(n, copies).proportion_ci() for name, n in (("found", found), ("false", false))}
    return {
        "images": 2 * copies,
        "found": {"share": found / copies, "low": float(ends["found"].low), "high": float(ends["found"].high)},
        "false": {"share": false / copies, "low": float(ends["false"].low), "high": float(ends["false"].high)},
        "seconds": seconds,
    }


def conditions() -> dict[str, str]:
    """On what, and by which command, a part was measured."""
    threads, load = torch.get_num_threads(), os.getloadavg()[1]
    told = f"{os.cpu_count()} cores shared with others (load {load:.0f}), {threads} thread(s)"
    return {"machine": told, "command": " ".join(["python", "benchmarks/quality/bench_classify.py", *sys.argv[1:]])}


def tables(made: dict[str, Any]) -> str:
    def ends(low: float, high: float, percent: bool = True) -> str:
        return f"{low:.1%} to {high:.1%}" if percent else f"{low:.3f} to {high:.3f}"

    def verdict(good: bool) -> str:
        return "met" if good else "**missed**"

    lines = ["| | measured | 95 % interval | bar | |", "|---|---|---|---|---|"]
    if "classifier" in made:
        whole = made["classifier"]
        c, s = whole["network"], whole["statistics"]
        lines += [
            f"| accuracy on the test images, grouped split | {c['accuracy']:.1%} | {ends(*c['accuracy_interval'])} | "
            f"≥ {BARS['accuracy']:.0%} | {verdict(c['accuracy'] >= BARS['accuracy'])} |",
            f"| macro-F1 | {c['macro_f1']:.3f} | {ends(*c['macro_f1_interval'], percent=False)} | – | |",
            f"| ECE, 15 bins ({c['ece_without_temperature']:.3f} without the temperature) | {c['ece']:.3f} | – | "
            f"≤ {BARS['ece']:g} | {verdict(c['ece'] <= BARS['ece'])} |",
            f"| logistic regression on grey-level statistics and power spectrum | {s['accuracy']:.1%} | "
            f"{ends(s['low'], s['high'])} | < {BARS['statistics']:.0%} | "
            f"{verdict(s['accuracy'] < BARS['statistics'])} |",
        ]
    if "planted" in made:
        p = made["planted"]
        lines += [
            f"| planted near-duplicates across a split that were found | {p['found']['share']:.1%} | "
            f"{ends(p['found']['low'], p['found']['high'])} | ≥ {BARS['found']:.0%} | "
            f"{verdict(p['found']['share'] >= BARS['found'])} |",
            f"| specimens that were taken for another one's | {p['false']['share']:.1%} | "
            f"{ends(p['false']['low'], p['false']['high'])} | ≤ {BARS['false']:.0%} | "
            f"{verdict(p['false']['share'] <= BARS['false'])} |",
        ]
    if "classifier" in made:
        whole = made["classifier"]
        c, t = whole["network"], whole["set"]
        lines += [
            "",
            f"The set: {t['images']} images of {t['side']} px, {t['specimens']} specimens a class, seed {t['seed']}; "
            f"{t['data_bars_cut']} data bars were cut; {t['specimens_torn']} of {t['specimens_all']} specimens lie in "
            f"two parts of the split; {t['test']} images are in the test part. Recipe `{RECIPE}`: {c['steps']} steps "
            f"in {c['minutes']:.1f} minutes. {whole['machine']}. Command: `{whole['command']}`.",
        ]
    if "planted" in made:
        lines += [
            "",
            f"Copies: {p['images'] // 2} specimens and a copy of each (cropped to 80 to 100 % of each side, one of "
            f"eight positions, other brightness and contrast, new noise), compared in {p['seconds']:.0f} s. "
            f"{p['machine']}. Command: `{p['command']}`.",
        ]
    return "\n".join(lines)


def publish(text: str) -> None:
    """Put the table into the page, between its marks."""
    start, end = "<!-- tables -->", "<!-- end of tables -->"
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(start)
    PAGE.write_text(f"{head}{start}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--specimens", type=int, default=48, help="of each class; default 48")
    parser.add_argument("--copies", type=int, default=300, help="that are planted; default 300")
    parser.add_argument("--minutes", type=float, help="of training, at most")
    parser.add_argument("--epochs", type=int, nargs="+", help="of each stage, in place of the recipe's")
    parser.add_argument("--names", action="store_true", help="group by the specimens that file names tell; no search")
    parser.add_argument("--only", choices=("classifier", "planted"), help="one of the two; the other stays as it was")
    parser.add_argument("--try", dest="look", action="store_true", help="write nothing")
    parser.add_argument("--table", action="store_true", help="print what is there")
    args = parser.parse_args()
    if args.table:
        text = tables(records.read_tree(RESULTS))
        print(text)
        publish(text)
        return
    made: dict[str, Any] = {}
    if args.only != "planted":
        made["classifier"] = {**classifier(args.specimens, args.minutes, args.epochs, args.names), **conditions()}
    if args.only != "classifier":
        made["planted"] = {**planted(args.copies), **conditions()}
    if args.only and RESULTS.is_file():  # the other one stays as it was
        made = {**records.read_tree(RESULTS), **made}
    print(tables(made))
    if not args.look:
        versions = {"torch": torch.__version__, "numpy": np.__version__}
        records.write(
            RESULTS, records.record(__file__, made, machine=machine(), versions=versions, arguments=sys.argv[1:])
        )
        publish(tables(made))


if __name__ == "__main__":
    main()
