"""The rows of a candidate, however it is given: a profile, a run, or the folder of a run."""

from __future__ import annotations

import os
from typing import Any

from ..profiles import Profile
from .run import Run

ACCEPTED = "a semnr.Profile, a semnr.Run, or the folder of a run"


def as_run(name: str, value: Any) -> Run | None:
    """The run behind a `Run` or a folder; None for what is neither.

    Raises
    ------
    ValueError
        A path that is no folder of a scored run.
    """
    if isinstance(value, Run):
        return value
    if not isinstance(value, str | os.PathLike):
        return None
    try:
        run = Run.open(value)
    except ValueError as error:
        raise ValueError(f"{name}{str(error).removeprefix('run')}") from None
    if "settings" not in run.info:  # run.json of a denoised folder
        raise ValueError(f"{name} is {os.fspath(value)}, whose run.json is of no score run; accepted: {ACCEPTED}")
    return run


def as_profile(name: str, value: Any) -> Profile:
    """The rows of `value`.

    Raises
    ------
    TypeError, ValueError
        Something else, or a path that is no folder of a scored run.
    """
    if isinstance(value, Profile):
        return value
    run = as_run(name, value)
    if run is None:
        raise TypeError(f"{name} is {type(value).__name__}; accepted: {ACCEPTED}")
    profile: Profile = run.profile()
    return profile
