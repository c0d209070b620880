"""Verdicts and profiles in MLflow. Needs the package mlflow, which nothing else here imports."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..profiles import Profile
from ..runs.verdict import Verdict
from .junit_xml import junit

__all__ = ["log"]


def log(
    verdict: Verdict,
    profile: Profile | None = None,
    *,
    artifacts: Iterable[str | os.PathLike[str]] = (),
    prefix: str = "semnr",
    mlflow: Any = None,
) -> None:
    """Log a verdict, and the candidate's profile, to the active MLflow run.

    Tags `semnr.passed`, `semnr.exit_code`, `semnr.fired`, `semnr.lacking`, and one a rule with its status; as metrics
    the profile's means, axes, area and mean axis; as artefacts verdict.json and junit.xml under `semnr/`, and the files
    given (reports). A model registry can then refuse a version whose tag is not `semnr.passed = true`.

    Parameters
    ----------
    artifacts : paths
        Further files, such as report.html.
    prefix : str
        Of tags and metrics, and the folder of the artefacts.
    mlflow : module, optional
        What has mlflow's functions; default: the installed package.

    Raises
    ------
    ImportError
        mlflow is not installed.
    """
    if mlflow is None:
        try:
            import mlflow  # type: ignore[no-redef]
        except ImportError as error:
            raise ImportError("semnr.guarding.mlflow needs the package mlflow: pip install mlflow") from error
    mlflow.set_tags(
        {
            f"{prefix}.passed": str(verdict.passed).lower(),
            f"{prefix}.exit_code": str(verdict.exit_code),
            f"{prefix}.fired": ", ".join(s.name for s in verdict.fired),
            f"{prefix}.lacking": ", ".join(s.name for s in verdict.lacking),
            **{f"{prefix}.signal.{s.name}": s.status for s in verdict.signals},
        }
    )
    if profile is not None:
        mlflow.log_metrics({f"{prefix}.{name}": value for name, value in figures(profile).items()})
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("verdict.json", json.dumps(verdict.to_dict(), indent=1)), ("junit.xml", junit(verdict))):
            file = Path(folder) / name
            file.write_text(text + "\n", encoding="utf-8")
            mlflow.log_artifact(str(file), artifact_path=prefix)
        for path in artifacts:
            mlflow.log_artifact(os.fspath(path), artifact_path=prefix)


def figures(profile: Profile) -> dict[str, float]:
    """Finite figures of a profile: means of the scores, the PSNR of the mean MSE, axes, area, mean axis."""
    summary = profile.summary()
    means = {k: v.get("mean", v.get("mean_of_db")) for k, v in summary.items() if isinstance(v, dict)}
    means |= {k: summary[k] for k in ("psnr_of_mean_mse", "tiles", "not_scored")}
    means |= {f"axis.{k}": v for k, v in profile.axes().items()} | {
        "area": profile.area,
        "mean_axis": profile.mean_axis,
    }
    return {k: float(v) for k, v in means.items() if v is not None and math.isfinite(float(v))}
