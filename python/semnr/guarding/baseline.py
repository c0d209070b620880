"""A baseline that can be committed: the released denoiser's scores, small enough for a repository.

What the comparing rules pair is a tile's score before with its score after; a summary cannot give that back. So the
file holds the columns that rules compare, of every tile, to nine digits, with the tile ids, the settings that change
what a number means and the moments of each reference: everything by which `semnr guard` tells that two runs compare.
That is about 100 bytes a tile. Pixels, maps and the columns of one candidate alone stay in the run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .. import columns as catalogue
from ..base.files import atomic
from ..base.jsonable import plain
from ..base.outputs import has_keys, replaceable
from ..profiles import FINGERPRINT, Profile
from .rules import METRICS

FORMAT, VERSION = "semnr-baseline", 1
_COLUMNS = (*METRICS, *FINGERPRINT, "psnr_noisy", "transfer_se", "die_x", "die_y")


def write_baseline(profile: Profile, path: str | os.PathLike[str], *, allow_unknown: Iterable[str] | str = ()) -> None:
    """Write a profile as a baseline: a JSON file that can be committed, about 100 bytes a tile.

    Parameters
    ----------
    profile : Profile
        Of the released denoiser.
    path : path
        The file. An earlier baseline is replaced, another file is not.
    allow_unknown : str or iterable of str
        "tiles_scored" accepts a run that was cut off.

    Raises
    ------
    ValueError
        The run was cut off, and "tiles_scored" is not among the names of `allow_unknown`.

    Examples
    --------
    >>> released = semnr.profile(denoised, clean, metrics=("psnr", "ssim"), label="released")
    >>> semnr.guarding.write_baseline(released, "baseline.json")
    >>> semnr.guarding.read_baseline("baseline.json").label
    'released'
    """
    waived = (allow_unknown,) if isinstance(allow_unknown, str) else tuple(allow_unknown)
    if profile.unfinished and "tiles_scored" not in waived:
        raise ValueError(
            f"profile {profile.label!r} is {profile.unfinished}; accepted: a run that came to its end (`semnr score "
            "--resume`), or allow_unknown='tiles_scored'"
        )
    place = replaceable("baseline", path, "a baseline", has_keys("format", "tiles", "columns"))
    held = {
        "label": profile.label,
        "kind": profile.kind,
        "data_range": profile.data_range,
        "settings": plain(profile.settings),
        "flags": list(profile.flags),
        "summary": plain({k: v for k, v in profile.summary().items() if k in METRICS or not isinstance(v, dict)}),
        "tiles": list(profile.tiles),
        "not_ok": {t: s for t, s in zip(profile.tiles, profile.status, strict=True) if s != "ok"},
        "columns": {
            name: [_digits(v) for v in profile.columns[name]]
            for name in _COLUMNS
            if name in profile.columns and np.isfinite(profile.columns[name]).any()
        },
    }
    head = {"format": FORMAT, "version": VERSION, "sha256": _digest(held)}
    lines = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in head.items()]
    for key, value in plain(held).items():
        if key == "columns":
            rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f' "columns": {{\n{rows}\n }}')
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    with atomic(place) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_baseline(path: str | os.PathLike[str]) -> Profile:
    """Read the profile that `write_baseline` wrote.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    Profile
        With the columns that rules compare.

    Raises
    ------
    ValueError
        Another file, or one that was changed since: its checksum does not hold.

    Examples
    --------
    >>> semnr.guarding.write_baseline(semnr.profile(denoised, clean, metrics="ssim"), "baseline.json")
    >>> len(semnr.guarding.read_baseline("baseline.json"))
    1
    """
    file = Path(path)
    try:
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"baseline {file} cannot be read: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"baseline {file} is not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        raise ValueError(f"baseline {file} is no {FORMAT} of version {VERSION}; accepted: what --write-baseline wrote")
    held = {k: v for k, v in data.items() if k not in ("format", "version", "sha256")}
    if _digest(held) != data.get("sha256"):
        raise ValueError(f"baseline {file} was changed since it was written (its checksum differs); write it again")
    # an earlier version wrote what a plan claimed; what was asked for stands in the settings
    results = catalogue.computed({"settings": {"reference": True, **held["settings"]}})
    scored = np.array([t not in held["not_ok"] for t in held["tiles"]], dtype=bool)
    columns = {k: np.array([_number(v) for v in values]) for k, values in held["columns"].items()}
    return Profile(
        tiles=tuple(held["tiles"]),
        columns={
            name: np.where(scored, values, np.nan) if catalogue.is_result(name) else values
            for name, values in columns.items()
            if catalogue.holds(name, results)
        },
        data_range=_number(held["data_range"]),
        settings=held["settings"],
        flags=tuple(held["flags"]),
        status=tuple(held["not_ok"].get(t, "ok") for t in held["tiles"]),
        kind=held["kind"],
        label=held["label"],
    )


def _digits(value: float) -> float | str | None:
    value = float(value)
    if math.isfinite(value):
        return float(f"{value:.9g}")
    return None if math.isnan(value) else "inf" if value > 0 else "-inf"


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _digest(held: Any) -> str:
    text = json.dumps(plain(held), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
