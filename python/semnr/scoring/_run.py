"""A scored run on disk: `run.json` (settings, machine, counts) and the rows."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._sink import read_rows

METRICS: tuple[str, ...] = (
    "mse",
    "mae",
    "psnr",
    "ssim",
    "fsim",
    "dists",
    "cnr_two_roi",
    "cnr_fixed_noise",
    "contrast_retention",
)
METRICS += ("cnr_fixed_noise_worst", "contrast_retention_worst", "psnr_noisy", "transfer")


@dataclass(frozen=True)
class Run:
    """What `semnr.score` leaves; open an existing one with `Run.open(folder)`."""

    path: Path
    info: dict[str, Any]
    verdict: Any = None  # of the rules that `score` was given

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        path = Path(folder) / "run.json"
        try:
            return cls(path.parent, json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ValueError(f"run is {folder}: no run.json; accepted: a folder that semnr.score wrote") from None
        except json.JSONDecodeError as error:
            raise ValueError(f"run is {folder}: run.json is not JSON ({error})") from None

    @property
    def label(self) -> str:
        return str(self.info["label"])

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.info["counts"])

    @property
    def summary(self) -> dict[str, Any]:
        return dict(self.info["summary"])

    @property
    def problems(self) -> list[dict[str, str]]:
        return list(self.info["problems"])

    @property
    def exit_code(self) -> int:
        """1 when a rule fired, 3 when tiles or evidence are missing, else 0."""
        if self.verdict is not None and self.verdict.exit_code:
            return int(self.verdict.exit_code)
        return 0 if self.counts["ok"] == self.counts["tiles"] and self.counts["tiles"] else 3

    def table(self, columns: list[str] | None = None) -> Any:
        """The rows as a pyarrow Table, one a tile."""
        return read_rows(self.path, columns)

    def profile(self) -> Any:
        """The rows as a `semnr.Profile`."""
        from ..profiles import Profile

        return Profile.from_run(self.path)


def summarise(table: Any) -> dict[str, Any]:
    """Mean, median, 5th and 95th percentile of each metric over the tiles that have it."""
    summary: dict[str, Any] = {}
    for name in METRICS:
        if name not in table.column_names:
            continue
        values = np.array([math.nan if v is None else v for v in table.column(name).to_pylist()], dtype=np.float64)
        finite = values[np.isfinite(values)]
        if finite.size:
            low, middle, high = np.percentile(finite, [5, 50, 95])
            mean = float(finite.mean())
            summary[name] = {"mean": mean, "median": float(middle), "p05": float(low), "p95": float(high)}
            summary[name]["n"] = int(finite.size)
        if name == "psnr":
            summary["infinite_psnr"] = int(np.isposinf(values).sum())
    return summary


def machine() -> dict[str, Any]:
    """Enough to tell where a figure comes from."""
    import torch

    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
