"""Verdicts and profiles in Weights & Biases, offline too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..guarding.mlflow import figures
from ..profiles import Profile
from ..runs.verdict import Verdict
from .extras import need

__all__ = ["log"]


def log(
    verdict: Verdict,
    run: Any = None,
    profile: Profile | None = None,
    *,
    artifacts: Iterable[str | Path] = (),
    step: int | None = None,
    prefix: str = "semnr",
) -> None:
    """Log a verdict, and the candidate's profile, to a run of Weights & Biases.

    The outcome, the exit code and the status of each rule go to the summary of the run; the figures of the profile, and
    0 or 1 for `passed`, to its history. Files (a report) go to an artefact of the type "semnr".

    Parameters
    ----------
    verdict : Verdict
        What `semnr.check` or `semnr.guard` gave.
    run : wandb run, optional
        What `wandb.init` gave; default: the active run.
    profile : Profile, optional
        The candidate's scores.
    artifacts : paths
        Files to keep with the run, such as report.html.
    step : int, optional
        The step of the history.
    prefix : str
        Of all names.

    Raises
    ------
    ImportError
        The extra `wandb` is not installed.
    ValueError
        There is no active run and none was given.
    """
    wandb = need("wandb", "wandb")
    run = wandb.run if run is None else run
    if run is None:
        raise ValueError("run is None and no run is active; accepted: what wandb.init gave")
    history = {f"{prefix}/passed": float(verdict.passed)}
    history |= {f"{prefix}/{k}": v for k, v in (figures(profile) if profile is not None else {}).items()}
    run.log(history, step=step)
    run.summary.update(
        {
            f"{prefix}/outcome": verdict.outcome,
            f"{prefix}/exit_code": verdict.exit_code,
            **{f"{prefix}/signal/{s.name}": s.status for s in verdict.signals},
        }
    )
    if files := [Path(path) for path in artifacts]:
        artefact = wandb.Artifact(f"{prefix}-verdict", type="semnr")
        for path in files:
            artefact.add_file(str(path))
        run.log_artifact(artefact)
