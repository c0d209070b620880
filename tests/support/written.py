"""Run folders as the scoring writes them, verdicts and pictures: what the tests and benchmarks of the report read."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

AXES = ("psnr", "ssim", "fsim", "dists", "cnr")
NASTY = """<script>alert("1")</script>&'"><img src=x onerror=alert(2)>"""


def wafer_dies(count: int) -> list[tuple[int, int]]:
    """The `count` dies closest to the wafer's centre."""
    reach = math.ceil(math.sqrt(count))
    grid = [(x, y) for x in range(-reach, reach + 1) for y in range(-reach, reach + 1)]
    return sorted(sorted(grid, key=lambda d: (d[0] ** 2 + d[1] ** 2, d))[:count])


def write_run(
    path: Path,
    *,
    label: str = "candidate",
    dies: int = 15,
    seed: int = 0,
    means: tuple[float, ...] = (28.0, 0.85, 0.92, 0.1, 3.5, 0.97),
    change=lambda columns: columns,
    meta: dict | None = None,
) -> Path:
    """A run folder: four sites a die, DISTS on every fifth tile, three tiles that failed."""
    rng = np.random.default_rng(seed)
    places = [(x, y, site) for x, y in wafer_dies(dies) for site in range(4)]
    n = len(places)
    pitch = 2 * 145_000 / (2 * max(abs(v) for p in places for v in p[:2]) + 2)
    radial = np.hypot(*np.array(places)[:, :2].T)
    radial = radial / max(1e-9, radial.max())
    psnr = means[0] - 2.0 * radial + 0.4 * rng.standard_normal(n)

    def scores(mean: float, spread: float) -> np.ndarray:
        return np.clip(mean - spread * radial + spread * 0.4 * rng.standard_normal(n), 0, None)

    columns: dict[str, list] = {
        "tile": [f"t{i:06d}" for i in range(n)],
        "path": [None] * n,
        "index": list(range(n)),
        "lot_id": ["L4711"] * n,
        "wafer_id": ["W07"] * n,
        "die_x": [p[0] for p in places],
        "die_y": [p[1] for p in places],
        "site_id": [p[2] for p in places],
        "x_um": [pitch * (0.25 + 0.5 * (p[2] % 2)) for p in places],
        "y_um": [pitch * (0.25 + 0.5 * (p[2] // 2)) for p in places],
        "psnr": psnr.tolist(),
        "mse": (255**2 / 10 ** (psnr / 10)).tolist(),
        "mae": (4 + 0.3 * rng.standard_normal(n)).tolist(),
        "ssim": np.minimum(scores(means[1], 0.06), 1).tolist(),
        "fsim": np.minimum(scores(means[2], 0.03), 1).tolist(),
        "dists": [v if i % 5 == 0 else None for i, v in enumerate(scores(means[3], 0.02).tolist())],
        "cnr_two_roi": scores(means[4] + 1, 0.5).tolist(),
        "cnr_fixed_noise": scores(means[4], 0.4).tolist(),
        "contrast_retention": scores(means[5], 0.03).tolist(),
        "clipped_fraction": [0.0] * n,
        "psnr_noisy": (18.9 + 0.2 * np.random.default_rng(99).standard_normal(n)).tolist(),
        "transfer": scores(means[5], 0.04).tolist(),
        "transfer_se": [0.01] * n,
        "status": ["ok"] * n,
        "reason": [None] * n,
    }
    columns["wafer_x_um"] = [d * pitch + x - pitch / 2 for d, x in zip(columns["die_x"], columns["x_um"], strict=True)]
    columns["wafer_y_um"] = [d * pitch + y - pitch / 2 for d, y in zip(columns["die_y"], columns["y_um"], strict=True)]
    for i, status in ((1, "missing"), (6, "unreadable"), (12, "wrong_size")):
        if i < n:
            for name in list(columns)[list(columns).index("psnr") : list(columns).index("status")]:
                columns[name][i] = None
            columns["status"][i], columns["reason"][i] = status, f"the file is {status}"
    columns = change(columns)
    shutil.rmtree(path, ignore_errors=True)
    (path / "tiles").mkdir(parents=True)
    pq.write_table(pa.table(columns), path / "tiles" / "part-00000.parquet")
    status = columns["status"]
    described = {
        "semnr": "0.1.0", "created": "2026-01-15T08:30:00+00:00", "label": label,
        "source": f"{label}.zarr", "reference": "wafer.zarr",
        "settings": {"data_range": 255.0, "metrics": list(AXES), "fsim_downsample": 2,
                     "dists": {"weights": "random", "calibrated": False, "sample": 12}},
        "machine": {"cpu": "2 cores", "system": "Linux"}, "backends": {"mse": "native", "ssim": "reference"},
        "weights": {"vgg16": {"name": "random", "sha256": "9f2c" * 16}},
        "counts": {"tiles": len(status), "ok": status.count("ok"), "missing": status.count("missing")},
        "seconds": 41.3, "problems": [], "summary": {},
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps({**described, **(meta or {})}), encoding="utf-8")
    return path


def example_verdicts(labels: list[str]) -> list[dict]:
    """One verdict a label: the first passes, the second fails, the third is incomplete."""

    def signal(name, status, advice="", regions=(), metrics=(), severity=None, **evidence):
        return {"name": name, "status": status, "severity": severity, "metrics": list(metrics), "evidence": evidence,
                "regions": [{"tile": t} for t in regions], "advice": advice}  # fmt: skip

    quiet = "Nothing to do."
    drift = signal(
        "texture_drift",
        "not_evaluated",
        "DISTS ran with uncalibrated weights; fetch the published ones.",
        metrics=["dists"],
    )
    contrast = ["psnr", "cnr_fixed_noise"]
    remove = "Structure is being removed: lower the strength and compare the evidence maps."
    below = [f"t{i:06d}" for i in (3, 17, 21, 22, 34, 41, 47, 50)]
    numbers = {"transfer": 0.66, "transfer_se": 0.008, "threshold": 0.88, "tiles_below": 8}
    release = "PSNR rose while FSIM fell: do not release this model."
    clear = {"transfer": 0.97, "transfer_se": 0.006, "threshold": 0.88}
    second = "No second frame of this site: record one and run again."
    against = "Compared with the noisy input; give a released denoiser."
    verdicts = [
        [
            signal("evidence_transfer", "clear", quiet, metrics=["transfer"], **clear),
            signal("lost_local_contrast", "clear", quiet, metrics=contrast, cnr_change=0.12),
            drift,
        ],
        [
            signal("evidence_transfer", "fired", remove, below, ["transfer"], "high", **numbers),
            signal("over_smoothing", "fired", release, ["t000017"], ["psnr", "fsim"], "high", psnr_change_db=1.7),
            signal("lost_local_contrast", "clear", quiet, metrics=contrast, cnr_change=-0.01),
            drift,
        ],
        [
            signal("evidence_transfer", "unknown", second, metrics=["transfer"]),
            signal("over_smoothing", "not_comparable", against, metrics=["psnr", "fsim"]),
        ],
    ]
    paths = [
        ["PSNR up? no (−0.2 dB)", "Evidence transfer below 0.88? no (0.97 ± 0.006)"],
        ["PSNR up? yes (+1.7 dB)", "FSIM down? yes (−0.06)", "Evidence transfer below 0.88? yes (0.66 ± 0.008)"],
        ["Before is the noisy input", "Evidence transfer known? no"],
    ]
    ends = [(True, 0), (False, 1), (False, 3)]
    return [
        {"passed": passed, "exit_code": code, "signals": s, "path": p, "before": "released", "after": label}
        for label, s, p, (passed, code) in zip(labels, verdicts, paths, ends, strict=False)
    ]


def pictures(tile: str, role: str) -> np.ndarray:
    rng = np.random.default_rng([int(tile[1:]), ["reference", "noisy", "image"].index(role)])
    clean = 100 + 60 * np.sin(np.arange(48) / 4)[None, :] * np.ones((40, 1))
    return np.clip(
        clean + {"reference": 0, "noisy": 25, "image": 5}[role] * rng.standard_normal((40, 48)), 0, 255
    ).astype("u1")


def with_boxes(columns: dict[str, list]) -> dict[str, list]:
    n = len(columns["tile"])
    columns["removed_z"] = [9.5 if i % 7 == 3 else 1.0 for i in range(n)]
    box = {"kind": "removed", "row": 10.0, "col": 36.0, "height": 6.0, "width": 6.0, "z": 9.5}
    columns["evidence_boxes"] = [json.dumps([box]) if z > 5 else None for z in columns["removed_z"]]
    return columns
