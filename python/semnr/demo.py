"""The main job on a small synthetic wafer: tiles streamed, denoised in three ways, scored, guarded, reported."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ._files import write_json

# name, model, its parameters, what it stands for
RELEASED = ("wavelet", "wavelet", {"strength": 0.6}, "the released denoiser: careful, leaves noise")
CANDIDATES = (
    ("nlm", "nlm", {"strength": 0.5}, "a candidate that keeps structure"),
    ("gaussian", "gaussian", {"sigma": 2.0}, "a candidate that over-smooths on purpose"),
)
DISTS_EVERY = 20  # VGG16 is the slow metric (0.3 TFLOP a pair of 512 x 512): a sample, and it says so
TIMED_TILES = 4
MARKER = ".semnr-demo"


@dataclass
class Demo:
    """What `run_demo` made: everything lies in `folder`."""

    folder: Path
    runs: dict[str, Any]
    verdicts: dict[str, Any]
    report: Path
    seconds: dict[str, float] = field(default_factory=dict)  # of each step
    metric_seconds: dict[str, float] = field(default_factory=dict)  # of each metric, a tile


def run_demo(
    out: str | Path = "semnr-demo",
    *,
    dies: int = 20,
    sites_per_die: int = 3,
    tile: int = 512,
    seed: int = 7,
    say: Callable[[str], None] = lambda line: None,
    quiet: bool = False,
) -> Demo:
    """Make a wafer of dies x sites tiles with defects, denoise, score, guard and report it into folder `out`.

    An `out` that an earlier demo made is replaced; any other folder that holds files is refused (ValueError).
    """
    from .denoising import denoise
    from .guarding import guard
    from .reporting import report
    from .scoring import score
    from .synth import Wafer, write_wafer

    folder = _fresh(Path(out))
    seconds: dict[str, float] = {}

    def timed(step: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        begun = time.monotonic()
        result = function(*args, **options)
        seconds[step] = seconds.get(step, 0.0) + time.monotonic() - begun
        return result

    wafer = Wafer(
        dies, sites_per_die, tile, pattern=("lines", "holes", "metal"), defect_rate=0.3, seed=seed, pixel_nm=1.0
    )
    say(f"1/5  wafer: {len(wafer)} tiles of {tile} x {tile} px on {dies} dies, noisy and clean, with defects")
    stack = folder / "wafer.zarr"
    timed("wafer", write_wafer, stack, wafer)

    runs, verdicts = {}, {}
    for name, model, parameters, purpose in (RELEASED, *CANDIDATES):
        say(f"2/5  denoise with {name}: {purpose}")
        clean = folder / "denoised" / f"{name}.zarr"
        clean.parent.mkdir(exist_ok=True)
        timed(f"denoise {name}", denoise, stack, clean, model=model, **parameters)
        say(f"3/5  score {name} against the clean reference (DISTS, uncalibrated, on every {DISTS_EVERY}th tile)")
        runs[name] = timed(
            f"score {name}",
            score,
            clean,
            reference=stack,
            noisy=stack,
            out=folder / "scores" / name,
            label=name,
            dists_weights="random",
            dists_every=DISTS_EVERY,
            quiet=quiet,
        )
    before = runs[RELEASED[0]].profile()
    say(f"4/5  guard: each candidate against {RELEASED[0]}")
    for name, *_ in CANDIDATES:
        # random VGG weights say nothing of texture: the rule has no evidence here, which is waived by name
        verdicts[name] = timed("guard", guard, before, runs[name].profile(), allow_unknown=("texture_drift",))
        write_json(folder / f"verdict-{name}.json", verdicts[name].to_dict())
    say("5/5  report")
    page = timed(
        "report",
        report,
        [run.path for run in runs.values()],
        out=folder / "report.html",
        verdict=[v.to_dict() for v in verdicts.values()],
        title="semnr demo: can these denoised images be trusted?",
    )
    times = timed("metrics one by one", metric_times, clean, stack)
    return Demo(folder, runs, verdicts, Path(page), seconds, times)


def metric_times(candidate: Path, reference: Path, tiles: int = TIMED_TILES) -> dict[str, float]:
    """Seconds a tile of each metric on its own, over a few tiles at once; calls made once are not counted."""
    import numpy as np

    from .profiles import profile
    from .tiles import open_tiles

    found, true = open_tiles(candidate), open_tiles(reference)
    keys = list(islice(found, tiles))
    role = next(r for r in ("image", "denoised", "candidate") if r in found.roles)
    x = np.stack([found.read(key, role) for key in keys])[:, None]
    y = np.stack([true.read(key, "reference") for key in keys])[:, None]
    times = {}
    for name in ("psnr", "ssim", "fsim", "dists", "cnr"):
        profile(x[:1, :, :64, :64], y[:1, :, :64, :64], metrics=(name,), dists_weights="random")
        begun = time.perf_counter()
        profile(x, y, metrics=(name,), dists_weights="random")
        times[name] = (time.perf_counter() - begun) / len(keys)
    return times


def _fresh(folder: Path) -> Path:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise ValueError(f"out is {folder}, which holds files; accepted: a new or empty folder, or an older demo's")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    return folder
