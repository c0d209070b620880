"""Verdicts and profiles in TensorBoard."""

from __future__ import annotations

import os
from typing import Any

from ..guarding.mlflow import figures
from ..profiles import Profile
from ..runs.verdict import Verdict
from .extras import need

__all__ = ["log"]


def log(
    verdict: Verdict, writer: Any, profile: Profile | None = None, *, step: int | None = None, prefix: str = "semnr"
) -> None:
    """Write a verdict as text and as 0 or 1 a rule, and the figures of the candidate's profile as scalars.

    Parameters
    ----------
    verdict : Verdict
        What `semnr.check` or `semnr.guard` gave.
    writer : SummaryWriter, or a path
        A `torch.utils.tensorboard.SummaryWriter`, which stays open; of a path one is made and closed.
    profile : Profile, optional
        The candidate's scores.
    step : int, optional
        The training step that the candidate belongs to.
    prefix : str
        Of all tags.

    Raises
    ------
    ImportError
        A path was given, and the extra `tensorboard` is not installed.
    """
    own = isinstance(writer, str | os.PathLike)
    if own:
        need("tensorboard", "tensorboard")
        writer = need("torch.utils.tensorboard", "tensorboard").SummaryWriter(os.fspath(writer))
    try:
        writer.add_scalar(f"{prefix}/passed", float(verdict.passed), step)
        writer.add_scalar(f"{prefix}/exit_code", float(verdict.exit_code), step)
        for signal in verdict.signals:
            if signal.status in ("fired", "clear"):
                writer.add_scalar(f"{prefix}/fired/{signal.name}", float(signal.status == "fired"), step)
        for name, value in figures(profile).items() if profile is not None else ():
            writer.add_scalar(f"{prefix}/{name}", value, step)
        writer.add_text(f"{prefix}/verdict", f"```\n{verdict}\n```", step)
        writer.flush()
    finally:
        if own:
            writer.close()
