"""Does a model of normal tiles find small defects on wafers that it never saw, and does its threshold keep its word?

`python benchmarks/quality/bench_anomaly.py` fits, calibrates and scores on seeded synthetic tiles, and writes
results/anomaly.json; `--table` puts its tables into docs/anomaly.md. `--set training.steps=400` and the like make a
smaller run; the record names them, and the sizes of all sets. Fit, calibration and test are wafers of their own: the
same site of the design on each die, with other roughness and other noise. The defects of the bar are particles of 6 to
10 px, either sign, whose contrast is three times the noise's σ at their place. The share of anomalous tiles in the test
set is larger than on a wafer, so that recall has a narrow interval; precision is that of a wafer with 5 % anomalous
tiles, from recall and false-alarm rate.

Peak memory is taken in a process of its own, less what it held before the fit. The one rate is that of PaDiM beside
anomalib's, in turn in one process, with `--anomalib`.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import betabinom

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records

from semnr import anomaly
from semnr.anomaly.backbones import load_backbone
from semnr.anomaly.seen import DENOISER, seen
from semnr.anomaly.thresholds import clopper_pearson
from semnr.backbones import lite0, read_tensors
from semnr.synth import Defect, Detector, SyntheticTile, tile
from semnr.synth.defects import NoRoom

RESULTS = records.RESULTS / "anomaly.json"
PAGE = records.REPOSITORY / "docs" / "anomaly.md"
MARKS = ("<!-- bench_anomaly: begin -->", "<!-- bench_anomaly: end -->")
DESIGN = 9400
FIT, NORMALS, LABELLED, TEST, KINDS = 9401, 9402, 9403, 9404, 9405  # wafers
CONTRAST, SIZES, PREVALENCE = 3.0, (6.0, 10.0), 0.05
HARD = ("bridge", "open", "missing_hole", "nick", "scratch")
RECALL, PRECISION, AUROC, FALSE_ALARMS = 0.95, 0.90, 0.98, 0.01


def scenes(pattern: str, wafer: int, count: int, side: int, defects: str = "") -> Iterator[SyntheticTile]:
    """Tiles of a wafer: "": normal; "bar": the particle of the bar; else a defect of this kind."""
    detector = Detector()
    for index in range(count):
        seed = (wafer, index, len(defects))
        if not defects:
            yield tile(pattern, side, seed=seed, layout_seed=DESIGN)
        elif defects == "bar":
            rng = np.random.default_rng((wafer, index))
            row, col = rng.uniform(12, side - 12, 2)
            level = tile(pattern, side, seed=seed, layout_seed=DESIGN).clean[round(row), round(col)]
            sign = 1 if level < 0.5 else -1
            contrast = sign * CONTRAST * float(detector.law().sigma(level))
            wanted = Defect("particle", row=row, col=col, size_px=float(rng.uniform(*SIZES)), contrast=contrast)
            yield tile(pattern, side, seed=seed, layout_seed=DESIGN, defects=[wanted])
        else:
            try:
                yield tile(pattern, side, seed=seed, layout_seed=DESIGN, defects=[Defect(defects)])
            except NoRoom:  # this pattern has no place for such a defect
                continue


def recorded(made: Sequence[SyntheticTile]) -> np.ndarray:
    return np.stack([one.noisy(dtype="uint8") for one in made])


def pixel_ap(model: anomaly.AnomalyModel, made: Sequence[SyntheticTile]) -> float:
    """Average precision of the pixels of anomalous tiles, the changed ones against the others."""
    good, bad = [], []
    for one in made:
        shown = np.abs(model.scores(recorded([one]), with_map=True).map[0])  # type: ignore[index]
        truth = np.zeros(shown.shape, bool)
        for defect in one.truth.defects:
            truth |= defect.mask()
        good.append(shown[~truth][::7])  # the others are many: one of seven, and their precision with them
        bad.append(shown[truth][::7])
    return anomaly.average_precision(np.concatenate(good), np.concatenate(bad))


def on_a_wafer(recall: float, false: float) -> float | None:
    """Precision where 5 % of the tiles are anomalous."""
    flagged = PREVALENCE * recall + (1 - PREVALENCE) * false
    return PREVALENCE * recall / flagged if flagged else None


def judged(scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The figures of one score by tile, with both ways to choose a threshold."""
    score = dict(scores)
    chosen = {
        "recall_first": anomaly.choose_threshold(score["normals"], score["labelled"], recall=RECALL),
        "normals_1_percent": anomaly.choose_threshold(score["normals"], method="normals", false_alarms=FALSE_ALARMS),
    }
    found: dict[str, Any] = {
        "auroc": anomaly.auroc(score["test_normal"], score["test_bar"]),
    }
    for name, limit in chosen.items():
        caught, false = limit.flags(score["test_bar"]), limit.flags(score["test_normal"])
        found[name] = {
            "threshold": limit.value,
            "recall": float(caught.mean()),
            "recall_interval": list(clopper_pearson(int(caught.sum()), len(caught))),
            "false_alarms": int(false.sum()),
            "normal_tiles": len(false),
            "precision_at_5_percent": on_a_wafer(float(caught.mean()), float(false.mean())),
        }
    rank, n, m = chosen["normals_1_percent"].figures["rank"], len(score["normals"]), len(score["test_normal"])
    low, high = (int(betabinom.ppf(q, m, n + 1 - rank, rank)) for q in (0.025, 0.975))
    found["normals_1_percent"] |= {"expected_interval": [low, high]}
    limit = chosen["normals_1_percent"]
    for kind in HARD:
        if f"kind_{kind}" in score:
            values = score[f"kind_{kind}"]
            found.setdefault("kinds_recall", {})[kind] = {
                "recall": float(limit.flags(values).mean()), "tiles": len(values)
            }  # fmt: skip
    return found


def peak(kind: str, source: Path, weights: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Memory of a fit in a process of its own: what was said before, and what it took."""
    asked = json.dumps({"kind": kind, "source": str(source), "weights": weights, "changes": dict(changes)})
    done = subprocess.run(
        [sys.executable, __file__, "--peak", asked], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:200]}
    made: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return made


def measure_peak(asked: Mapping[str, Any]) -> None:
    """In that process: warm up on a few tiles, then fit; the growth of the peak is the fit's."""
    tiles = np.load(asked["source"])
    options: dict[str, Any] = {}
    if asked["kind"] != "autoencoder":
        options = {"kind": asked["kind"], "weights": asked["weights"], "denoiser": None}
    changes = dict(asked["changes"])
    with tempfile.TemporaryDirectory() as folder:
        few = {**changes, "training.steps": 2} if not options else None
        anomaly.fit(tiles[:8], f"{folder}/warm", changes=few, dims=4, coreset=4, **options)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        model = anomaly.fit(tiles, f"{folder}/model", changes=changes if not options else None, coreset=3000, **options)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    parts = model.facts["memory"]
    new = sum(size for name, size in parts.items() if name != "backbone and a batch")  # the warm-up had that
    print(json.dumps({"predicted_bytes": new, "measured_bytes": after - before}))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    from semnr.cli.train import changed

    side, changes = args.side, {"data.patch": min(args.side, 64), **changed(args.set)}
    normal = [*scenes(args.pattern, FIT, args.fit, side)]
    sets = {
        "normals": [*scenes(args.pattern, NORMALS, args.normals, side)],
        "labelled": [*scenes(args.pattern, LABELLED, args.labelled, side, "bar")],
        "test_normal": [*scenes(args.pattern, TEST, args.test, side)],
        "test_bar": [*scenes(args.pattern, TEST, args.labelled, side, "bar")],
        **{f"kind_{kind}": [*scenes(args.pattern, KINDS, args.kinds, side, kind)] for kind in HARD},
    }
    sets = {name: made for name, made in sets.items() if made}
    found: dict[str, Any] = {
        "set": {
            "side": side, "fit": len(normal), **{name: len(made) for name, made in sets.items()},
            **{name: str(value) for name, value in changes.items()}, "pattern": args.pattern,
        }
    }  # fmt: skip
    models = args.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/fit.npy", recorded(normal))
        for name in models:
            path = Path(folder) / name
            options: dict[str, Any] = {"changes": changes, "quiet": args.quiet}
            if name == "autoencoder":
                model = anomaly.fit(recorded(normal), path, **options)
            else:
                model = anomaly.fit(recorded(normal), path, kind=name, weights=args.weights, dims=args.dims)
            columns = {kind: model.scores(recorded(made)).columns for kind, made in sets.items()}
            found[name] = judged({kind: each["anomaly_score"] for kind, each in columns.items()})
            found[name]["pixel_average_precision"] = pixel_ap(model, sets["test_bar"])
            if "generalisation" in model.facts:
                told = model.facts["generalisation"]
                found[name]["generalisation"] = {k: told[k] for k in ("training", "new", "ratio")}
                found[name]["steps"] = model.facts["steps"]
            print(name, json.dumps(found[name]), flush=True)
            keep(found)
            if name == "autoencoder":  # what the mean over all pixels would have found
                found["autoencoder, mse"] = judged({kind: each["anomaly_mse"] for kind, each in columns.items()})
        if args.anomalib:
            shots = {name: recorded(made).astype(np.float32) for name, made in sets.items()}
            found["anomalib"] = {
                name: against_anomalib(recorded(normal), shots, args, denoiser)
                for name, denoiser in (("denoised", DENOISER), ("as recorded", None))
            }
    return found


def with_memory(args: argparse.Namespace) -> dict[str, Any]:
    """The memory of each fit, on more pixels than the other figures need; they stay as they were."""
    with tempfile.TemporaryDirectory() as folder:
        tiles = recorded([*scenes(args.pattern, FIT, 80, 128)])
        np.save(f"{folder}/fit.npy", tiles)
        changes = {"training.steps": 20, "data.copies": 1}  # none of the memory is a matter of steps
        rows = {
            name: peak(name, Path(f"{folder}/fit.npy"), args.weights, changes) for name in args.only.split(",")
        }  # fmt: skip
    return {**records.tree_of(records.read(RESULTS)["rows"]), "memory": rows}


class Peer:
    """anomalib's PaDiM with our backbone file, channels and grid of features in place of its own extractor.

    Two things are its own: no averaging of the features over 3 x 3, and a Gaussian of 4 px over the map of distances.
    """

    def __init__(self, weights: str | None, chosen: torch.Tensor) -> None:
        from anomalib.models.image.padim.torch_model import PadimModel

        self.model = PadimModel("resnet18", ["layer1"], pre_trained=False, n_features=len(chosen))
        backbone = load_backbone("efficientnet-lite0", weights)
        trunk = lite0.Trunk(11).eval().requires_grad_(False)  # as it is published: nothing is folded for the peer
        state = read_tensors(Path(backbone.source), "efficientnet-lite0")
        trunk.load_state_dict({name: state[name] for name in trunk.state_dict() if name in state}, strict=False)

        class Features(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                made = trunk.features((x.expand(-1, 3, -1, -1) - lite0.MEAN) / lite0.STD)
                return {str(k): made[block] for k, block in enumerate((0, 2, 4, 10))}

        self.model.feature_extractor = Features()
        self.model.layers = [str(k) for k in range(len(backbone.channels))]
        self.model.idx = chosen

    def fit(self, tiles: np.ndarray) -> None:
        self.model.train()
        for at in range(0, len(tiles), 4):
            self.model(torch.from_numpy(tiles[at : at + 4, None] / 255.0))
        self.model.fit()
        self.model.eval()

    def scores(self, tiles: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            parts = [
                self.model(torch.from_numpy(t[:, None] / 255.0)).pred_score
                for t in np.split(tiles, range(4, len(tiles), 4))
            ]
        return torch.cat(parts).double().numpy()


def against_anomalib(
    normal: np.ndarray, tiles: Mapping[str, np.ndarray], args: argparse.Namespace, denoiser: str | None
) -> dict[str, Any]:
    """Both PaDiMs on the same tiles, after the denoiser or as recorded; the rate leaves the denoiser out."""
    sys.path.append(args.anomalib)
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as place:
        options: dict[str, Any] = {"kind": "padim", "weights": args.weights, "dims": args.dims, "denoiser": denoiser}
        ours = anomaly.fit(normal, Path(place) / "padim", **options)
        engine: Any = ours.engine
        extractor = engine.extractor
        clean = {
            name: seen(some, denoiser, ours.noise, 255.0, -1) for name, some in {"": normal, **tiles}.items()
        }  # once for both
        extractor.denoiser = None
        peer = Peer(args.weights, extractor.chosen)
        peer.fit(clean.pop(""))
        takers = {"ours": lambda t: engine.measure(t).columns["anomaly_score"], "anomalib": peer.scores}
        found: dict[str, Any] = {}
        for name, take in takers.items():
            found[name] = judged({kind: take(some) for kind, some in clean.items()})
        for name, take in takers.items():  # the better of three, in turn
            some = clean["test_normal"][:96]
            seconds = min(timeit.repeat(lambda take=take, some=some: take(some), number=1, repeat=3))
            found[name]["tiles_per_second"] = len(some) / seconds
    torch.set_num_threads(1)
    return found


def keep(found: Mapping[str, Any]) -> None:
    """Write what is measured so far."""
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    said = [argument for argument in sys.argv[1:] if argument != "--quiet"]
    records.write(RESULTS, records.record(__file__, found, versions=versions, arguments=said))


def met(figure: float | None, bar: float) -> str:
    return "–" if figure is None else f"{figure:.3f} ({'met' if figure >= bar else 'missed'})"


def tables(found: Mapping[str, Any]) -> str:
    """The tables of docs/anomaly.md."""
    sizes = found["set"]
    names = [name for name in found if isinstance(found[name], Mapping) and "auroc" in found[name]]
    lines = [
        f"Tiles of {sizes['side']} px, {sizes['pattern']}; {sizes['fit']} to fit, {sizes['normals']} normal and "
        f"{sizes['labelled']} anomalous ones to calibrate, {sizes['test_normal']} and {sizes['test_bar']} to test.",
        "",
        f"| particles of 6 to 10 px, 3 σ | AUROC (bar {AUROC}) | recall (bar {RECALL}) | precision at 5 % (bar "
        f"{PRECISION}) | pixel AP | false alarms at 1 % (expected) |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        row, first, normals = found[name], found[name]["recall_first"], found[name]["normals_1_percent"]
        low, high = first["recall_interval"]
        pixels = row.get("pixel_average_precision")
        a, b = normals["expected_interval"]
        lines.append(
            f"| {name} | {met(row['auroc'], AUROC)} | {met(first['recall'], RECALL)}, {low:.3f} to {high:.3f} | "
            f"{met(first['precision_at_5_percent'], PRECISION)} | {'–' if pixels is None else f'{pixels:.3f}'} | "
            f"{normals['false_alarms']} of {normals['normal_tiles']} ({a} to {b}) |"
        )
    kinds = [name for name in names if "kinds_recall" in found[name]]
    if kinds:
        lines += ["", "| recall at the 1 % threshold, natural contrast | " + " | ".join(HARD) + " |"]
        lines.append("|---|" + "---|" * len(HARD))
        for name in kinds:
            cells = (found[name]["kinds_recall"].get(kind) for kind in HARD)
            lines.append(f"| {name} | " + " | ".join("–" if c is None else f"{c['recall']:.2f}" for c in cells) + " |")
    if peers := found.get("anomalib"):
        lines += [
            "",
            "| PaDiM, same backbone, weights and channels | AUROC | precision at 5 % | tiles/s |",
            "|---|---|---|---|",
        ]
        for how, pair in peers.items():
            for name, row in pair.items():
                precision = row["recall_first"]["precision_at_5_percent"]
                rate = row["tiles_per_second"]
                lines.append(f"| {name}, tiles {how} | {row['auroc']:.3f} | {precision:.3f} | {rate:.0f} |")
    if memory := found.get("memory"):
        lines += ["", "| memory of the fit | said before, MiB | measured, MiB | ratio |", "|---|---|---|---|"]
        for name, row in memory.items():
            if "failed" in row:
                lines.append(f"| {name} | – | {row['failed']} | – |")
                continue
            said, took = row["predicted_bytes"] / 2**20, row["measured_bytes"] / 2**20
            lines.append(f"| {name} | {said:.1f} | {took:.1f} | {took / said if said else math.nan:.2f} |")
    return "\n".join(lines)


def text(found: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """What stands between the marks of docs/anomaly.md."""
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"{tables(found)}\n\n`{made['command']}`, {made['when'][:10]}; {versions}; one thread, the machine shared."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pattern", default="lines")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--fit", type=int, default=160)
    parser.add_argument("--normals", type=int, default=199)
    parser.add_argument("--labelled", type=int, default=120)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--kinds", type=int, default=30)
    parser.add_argument("--dims", type=int, default=80)
    parser.add_argument("--only", default="autoencoder,padim,patchcore")
    parser.add_argument("--weights", help="of EfficientNet-Lite0; default: as installed")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="TABLE.ENTRY=VALUE")
    parser.add_argument("--anomalib", metavar="FOLDER", help="where `pip install --target FOLDER anomalib` put it")
    parser.add_argument("--memory", action="store_true", help="measure the memory of each fit; the other figures stay")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--table", action="store_true", help="write the stored figures into docs/anomaly.md")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        measure_peak(json.loads(args.peak))
        return
    if not args.table:
        found = with_memory(args) if args.memory else measure(args)
        keep(found)
        print(tables(found))
        return
    made = records.read(RESULTS)
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(MARKS[0])[0], page.partition(MARKS[1])[2]
    PAGE.write_text(
        f"{before}{MARKS[0]}\n{text(records.tree_of(made['rows']), made)}\n{MARKS[1]}{after}", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
