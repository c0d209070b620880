"""A scored run on disk: `run.json` (settings, machine, counts) and the rows."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._sink import read_rows


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
            info = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"run is {folder}: no run.json; accepted: a folder that semnr.score wrote") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"run is {folder}: run.json is not JSON ({error})") from None
        if not isinstance(info, dict):
            raise ValueError(f"run is {folder}: run.json holds a JSON {type(info).__name__}; accepted: an object")
        return cls(path.parent, info)

    @property
    def label(self) -> str:
        return str(self.info.get("label") or self.path.name)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end with a row of every tile."""
        return self.info.get("state", "finished") == "finished"

    @property
    def counts(self) -> dict[str, int]:
        """Tiles in all, and by status; of a run that was cut off, those that it came to."""
        from ._summaries import counts

        return dict(self.info["counts"] if "counts" in self.info else counts(self.path))

    @property
    def summary(self) -> dict[str, Any]:
        return dict(self.info.get("summary", {}))

    @property
    def problems(self) -> list[dict[str, str]]:
        return list(self.info.get("problems", []))

    @property
    def remarks(self) -> list[str]:
        """What a reader of the numbers should know: renamed columns, metrics left out, tiles that prove nothing."""
        return list(self.info.get("remarks", []))

    @property
    def exit_code(self) -> int:
        """1 when a rule fired, 3 when tiles or evidence are missing or something could not be judged, else 0."""
        if self.verdict is not None and self.verdict.exit_code:
            return int(self.verdict.exit_code)
        counts = self.counts
        whole = self.finished and counts["ok"] == counts["tiles"] and counts["tiles"] and not self.info.get("unjudged")
        return 0 if whole else 3

    def table(self, columns: list[str] | None = None) -> Any:
        """The rows as a pyarrow Table, one a tile."""
        return read_rows(self.path, columns)

    def by_place(self, wafer: Any = None) -> dict[str, list[dict[str, Any]]]:
        """Means by `die`, and with the layout of the wafer by `reticle` field and `ring`; see README.

        wafer: `semnr.wafers.Wafer`; default: the run's own.
        """
        from ..wafers import Wafer
        from ._summaries import by_place

        own = self.info.get("wafer")
        return by_place(self.path, wafer or (Wafer(**own) if own else None))

    def flagged(self) -> dict[str, list[str]]:
        """Tiles that somebody should look at, and why: alarms, rules that fired, tiles that were not scored."""
        from ._flagged import flagged

        return flagged(self.path)

    def write_klarf(self, path: str | os.PathLike[str], *, version: str = "1.2", wafer: Any = None) -> int:
        """Write the flagged tiles as KLARF 1.2 or 1.8 with die and in-die coordinates, for a review tool.

        wafer: `semnr.wafers.Wafer`; default: the run's own. Returns how many tiles have no coordinates and are left
        out; ValueError where no layout is known.
        """
        from ..wafers import Wafer
        from ._flagged import write_flagged

        own = self.info.get("wafer")
        return write_flagged(self.path, Path(path), version, wafer or (Wafer(**own) if own else None), self.info)

    @property
    def alarms(self) -> list[dict[str, Any]]:
        """What sounded, in order."""
        path = self.path / "alarms.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def profile(self) -> Any:
        """The rows as a `semnr.Profile`."""
        from ..profiles import Profile

        return Profile.from_run(self.path)


def machine(device: Any = None) -> dict[str, Any]:
    """Enough to tell where a figure comes from; device: the GPU that is used, if any (None: the first)."""
    import torch

    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(device or 0) if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
