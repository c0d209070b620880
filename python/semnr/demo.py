"""The main job on a small synthetic wafer: tiles streamed, denoised in four ways, scored, guarded, reported.

The report tells the story by itself: what was done, which candidates look better by the usual measures, which of them
lost evidence and where, and, since the defects were implanted, whether the guardrails were right.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels.pretrained import VGG16

from .base.files import write_json
from .base.outputs import local
from .base.text import listed
from .guarding import guard
from .pipeline import denoise
from .profiles import profile
from .reporting import report
from .runs.run import clear_run, only_a_run
from .scoring import score
from .synth import SyntheticWafer, write_wafer
from .tiles import create_tiles, open_tiles
from .tiles.owned import clear_zarr, written_arrays, zarr_files
from .wafers import Wafer

# name, model, its parameters, what it stands for
RELEASED = ("wavelet", "wavelet", {"strength": 0.4}, "the released denoiser: careful, leaves noise")
NETWORKS = ("semnr-small", "semnr-base")
KEPT, LOST = 0.85, 0.5  # shares of a defect's contrast: above the first it is kept, below the second lost
NEAR_PX = 4.0  # a marked place within this of a defect's box is that defect
PATTERNS = ("lines", "holes")  # taken in turn by the sites of a die
DEFECT_RATE = 0.5
DISTS_EVERY = 22  # VGG16 is the slow metric (0.3 TFLOP a pair of 512 x 512): a sample, and it says so
NO_DISTS = "DISTS is left out: no VGG16 weights in the cache. To have it: `semnr weights fetch vgg16`, once"
TIMED_TILES = 1
MARKER = ".semnr-demo"
PRODUCTS = ("defects.csv", "verdict-*.json", "report.html")  # besides the Zarrs and the runs


def candidates(network: str) -> tuple[tuple[str, str | None, dict[str, Any], str], ...]:
    """What would replace the released denoiser; no model: the network's images without their defects."""
    return (
        (network, network, {"texture": 1.0}, "the network that semnr ships, asked to keep faint texture"),
        ("gaussian", "gaussian", {"sigma": 2.0}, "a candidate that over-smooths"),
        ("painter", None, {}, f"stands for a network that restores the design: {network}'s images without the defects"),
    )


@dataclass
class Demo:
    """What `run_demo` made: everything lies in `folder`."""

    folder: Path
    runs: dict[str, Any]
    verdicts: dict[str, Any]
    report: Path
    seconds: dict[str, float] = field(default_factory=dict)  # of each step
    metric_seconds: dict[str, float] = field(default_factory=dict)  # of each metric, a tile
    fates: dict[str, dict[str, int]] = field(default_factory=dict)  # of the implanted defects, by denoiser


def run_demo(
    out: str | Path = "semnr-demo",
    *,
    dies: int = 11,
    sites_per_die: int = 2,
    tile: int = 512,
    seed: int = 7,
    network: str = NETWORKS[0],
    say: Callable[[str], None] = lambda line: None,
    quiet: bool = False,
) -> Demo:
    """Make a wafer of dies x sites tiles with defects, denoise, score, guard and report it into folder `out`.

    Fewer than ten dies are too few for a difference between two denoisers to be sure. `network`, "semnr-small" or
    "semnr-base", is one of the candidates; the second takes four times the time.

    An `out` that an earlier demo made is replaced; any other folder that holds files is refused (ValueError).
    """
    if network not in NETWORKS:
        raise ValueError(f"network is {network!r}; accepted: {', '.join(map(repr, NETWORKS))}")
    folder = _fresh(Path(out))
    others = candidates(network)
    seconds: dict[str, float] = {}

    def timed(step: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        begun = time.monotonic()
        result = function(*args, **options)
        seconds[step] = seconds.get(step, 0.0) + time.monotonic() - begun
        return result

    made: dict[str, Any] = {"pattern": PATTERNS, "seed": seed, "pixel_nm": 1.0}
    wafer = SyntheticWafer(dies, sites_per_die, tile, defect_rate=DEFECT_RATE, **made)
    say(f"1/5  wafer: {len(wafer)} tiles of {tile} x {tile} px on {dies} dies, noisy and clean, with defects")
    stack = folder / "wafer.zarr"
    written = timed("wafer", write_wafer, stack, wafer)
    defects = Defects(wafer, SyntheticWafer(dies, sites_per_die, tile, **made), written.defects)
    width, height = (1000 * side for side in wafer.die_size_mm)
    layout = Wafer((width, height), (width / 2, height / 2), edge_exclusion_um=1000 * wafer.edge_exclusion_mm)

    texture = VGG16.installed is not None
    if not texture:
        say(NO_DISTS)
    runs, verdicts = {}, {}
    (folder / "denoised").mkdir()
    for name, model, parameters, purpose in (RELEASED, *others):
        say(f"2/5  denoise with {name}: {purpose}")
        clean = folder / "denoised" / f"{name}.zarr"
        if model is None:
            timed(f"denoise {name}", defects.paint_out, folder / "denoised" / f"{network}.zarr", clean)
        else:
            timed(f"denoise {name}", denoise, stack, clean, model=model, **parameters)
        sample = f" (DISTS on one tile of {DISTS_EVERY})" if texture else ""
        say(f"3/5  score {name} against the clean reference{sample}")
        runs[name] = timed(
            f"score {name}",
            score,
            clean,
            reference=stack,
            noisy=stack,
            out=folder / "scores" / name,
            label=name,
            dists_every=DISTS_EVERY,
            metrology="lines",
            maps=("evidence",),
            wafer=layout,
            quiet=quiet,
        )
    before = runs[RELEASED[0]].profile()
    say(f"4/5  guard: each candidate against {RELEASED[0]}")
    for name, *_ in others:
        # DISTS on a sample, or not at all, is no evidence on texture drift: that is waived by name
        verdicts[name] = timed("guard", guard, before, runs[name].profile(), allow_unknown=("texture_drift",))
        write_json(folder / f"verdict-{name}.json", verdicts[name].to_dict())
    fates = timed("truth", lambda: {name: defects.fates(run, name) for name, run in runs.items()})
    say("5/5  report")
    page = timed(
        "report",
        report,
        [run.path for run in runs.values()],
        out=folder / "report.html",
        verdict=[v.to_dict() for v in verdicts.values()],
        worst=4,
        title="semnr demo: can these denoised images be trusted?",
        notes=_story(wafer, {name: purpose for name, _, _, purpose in (RELEASED, *others)}, runs, verdicts, fates),
    )
    times = timed("metrics one by one", metric_times, clean, stack)
    return Demo(folder, runs, verdicts, Path(page), seconds, times, fates)


class Defects:
    """The implanted defects, their clean signals, and what became of them."""

    def __init__(self, wafer: Any, twin: Any, table: Path) -> None:
        self.wafer, self.twin = wafer, twin  # the twin is the same wafer without its defects
        with table.open(encoding="utf-8", newline="") as file:
            self.rows: list[dict[str, Any]] = [
                {key: value if key in ("tile", "kind") else float(value) for key, value in row.items()}
                for row in csv.DictReader(file)
            ]
        self.by_tile = {row["tile"]: row for row in self.rows}

    def signal(self, tile: str) -> tuple[np.ndarray, np.ndarray]:
        """(what the defect adds to the clean tile, the clean tile without it)."""
        key = self.wafer.find(tile)
        without = self.twin.read(key, "reference").astype(np.float64)
        return self.wafer.read(key, "reference") - without, without

    def paint_out(self, source: Path, out: Path) -> None:
        """Write the images of `source` with every defect taken out of them."""
        images = open_tiles(source)
        role = next(r for r in ("image", "denoised", "candidate") if r in images.roles)
        with create_tiles(out, count=len(self.wafer), pixel_nm=self.wafer.pixel_nm) as writer:
            for key in images:
                pixels = images.read(key, role)
                if key.tile in self.by_tile:
                    painted = np.rint(pixels - self.signal(key.tile)[0])
                    pixels = np.clip(painted, 0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)
                writer.write(key, pixels, "image")
        images.close()

    def fates(self, run: Any, name: str) -> dict[str, Any]:
        """How many defects a denoiser kept, weakened and lost, and how many of the lost ones the scan located."""
        import json

        images = open_tiles(run.path.parents[1] / "denoised" / f"{name}.zarr")
        role = next(r for r in ("image", "denoised", "candidate") if r in images.roles)
        keys = {key.tile: key for key in images}
        texts = run.table(["tile", "evidence_boxes"]).to_pydict()
        boxes = {t: json.loads(b) if b else [] for t, b in zip(texts["tile"], texts["evidence_boxes"], strict=True)}
        counts = {"defects": len(self.rows), "kept": 0, "weakened": 0, "lost": 0, "located": 0, "marked_intact": 0}
        for row in self.rows:
            signal, without = self.signal(row["tile"])
            change = images.read(keys[row["tile"]], role) - without
            kept = float((change * signal).sum() / (signal * signal).sum())
            fate = "kept" if kept > KEPT else "lost" if kept < LOST else "weakened"
            counts[fate] += 1
            counts["located"] += fate == "lost" and any(_near(box, row) for box in boxes[row["tile"]])
        counts["marked_intact"] = sum(bool(marked) for tile, marked in boxes.items() if tile not in self.by_tile)
        counts["intact"] = len(boxes) - len(self.by_tile)
        images.close()
        return counts


def _near(box: Mapping[str, Any], defect: Mapping[str, Any]) -> bool:
    """Whether a marked place, removed or invented, lies within a few pixels of the defect's own box."""
    return all(
        abs(box[at] - defect[at]) <= defect[size] / 2 + NEAR_PX
        for at, size in (("row", "height_px"), ("col", "width_px"))
    )


def _story(
    wafer: Any,
    purposes: Mapping[str, str],
    runs: Mapping[str, Any],
    verdicts: Mapping[str, Any],
    fates: Mapping[str, Any],
) -> list[Any]:
    """What a reader of the report should know first: what was done, what the scores say, what was really lost."""
    released = RELEASED[0]
    better = [
        name
        for name in verdicts
        if all(runs[name].summary[m]["mean"] > runs[released].summary[m]["mean"] for m in ("psnr", "ssim"))
    ]
    refused = [name for name in better if not verdicts[name].passed]
    rows = []
    for name, run in runs.items():
        verdict = verdicts.get(name)
        fired = ", ".join(s.name.replace("_", " ") for s in verdict.fired) if verdict is not None else ""
        word = "released" if verdict is None else {0: "passed", 1: "failed", 3: "incomplete"}[verdict.exit_code]
        scores = [f"{run.summary[m]['mean']:.{d}f}" for m, d in (("psnr", 2), ("ssim", 3), ("transfer", 3))]
        rows.append([name, purposes[name], *scores, word, fired or "–"])
    truth = [
        [name, f["kept"], f["weakened"], f["lost"], f["located"], f"{f['marked_intact']} of {f['intact']}"]
        for name, f in fates.items()
    ]
    count = next(iter(fates.values()))["defects"]
    return [
        f"A synthetic wafer was made: {len(wafer)} tiles of {listed(list(wafer.patterns))} on {len(wafer.dies)} dies, "
        f"each as a clean image and as a noisy recording, with {count} defects implanted. The released denoiser and "
        f"{len(verdicts)} that would replace it ran on the noisy tiles; each was scored against the clean images and "
        "held against the released one by the guardrails.",
        f"By PSNR and SSIM, {listed(better)} {'beat' if len(better) > 1 else 'beats'} the released denoiser. A gate "
        f"on these two would let all of them through; the guardrails refuse {listed(refused)}.",
        {
            "caption": "What the scores say, and what the guardrails say. T is evidence transfer: the share of the "
            "structure that reached the output.",
            "header": ["Denoiser", "What it is", "PSNR (dB)", "SSIM", "T", "Verdict", "Signals that fired"],
            "rows": rows,
        },
        "Because the defects were implanted, it is known what became of each. The guardrails knew nothing of it:",
        {
            "caption": f"Fate of the {count} defects: kept with more than {KEPT:.0%} of their contrast, lost with less "
            f"than {LOST:.0%}. “Located”: the scan of noisy − denoised marked the place within {NEAR_PX:g} px, as "
            "removed structure or, where a missing contact was painted in, as invented.",
            "header": ["Denoiser", "Kept", "Weakened", "Lost", "Lost and located", "Tiles without a defect, marked"],
            "rows": truth,
        },
        "What to do: each verdict above ends with its advice. Look at the tiles below: the residual, noisy − denoised, "
        "should show noise only. Where the pattern shows in it, structure was smoothed away; where a spot shows in it, "
        "a defect was.",
    ]


def metric_times(candidate: Path, reference: Path, tiles: int = TIMED_TILES) -> dict[str, float]:
    """Seconds a tile of each metric on its own, over a few tiles at once; calls made once are not counted."""
    scored, true = open_tiles(candidate), open_tiles(reference)
    keys = list(islice(scored, tiles))
    role = next(r for r in ("image", "denoised", "candidate") if r in scored.roles)
    x = np.stack([scored.read(key, role) for key in keys])[:, None]
    y = np.stack([true.read(key, "reference") for key in keys])[:, None]
    times = {}
    for name in ("psnr", "ssim", "fsim", "dists", "cnr"):
        if name == "dists" and VGG16.installed is None:
            continue
        profile(x[:1, :, :64, :64], y[:1, :, :64, :64], metrics=(name,))
        begun = time.perf_counter()
        profile(x, y, metrics=(name,))
        times[name] = (time.perf_counter() - begun) / len(keys)
    return times


def _fresh(folder: Path) -> Path:
    """An empty folder: what an older demo made is deleted, by the lists of those that wrote it."""
    local("out", folder)
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise ValueError(f"out is {folder}, which holds files; accepted: a new or empty folder, or an older demo's")
        stacks = {
            path: zarr_files(path, written_arrays(path) or ())
            for path in (folder / "wafer.zarr", *sorted((folder / "denoised").glob("*.zarr")))
            if path.is_dir()
        }
        runs = [path for path in sorted((folder / "scores").glob("*")) if path.is_dir()]
        singles = [folder / MARKER, *(path for name in PRODUCTS for path in sorted(folder.glob(name)))]
        known = {*singles, *(p / name for p, (names, _) in stacks.items() for name in names)}
        known |= {run / name for run in runs for name in only_a_run(run)}
        for path in folder.rglob("*"):
            if path not in known and (path.is_symlink() or not path.is_dir()):
                raise FileExistsError(f"out is {folder}, which holds {path} that no demo wrote; accepted: another out")
        for path, (names, _) in stacks.items():
            clear_zarr(path, names)
            path.rmdir()
        for run in runs:
            clear_run(run)
            run.rmdir()
        for path in (folder / "denoised", folder / "scores"):
            if path.is_dir():
                path.rmdir()
        for path in reversed(singles):  # the marker last
            path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    return folder
