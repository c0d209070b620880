"""Thresholds from repeated recordings: how far every column varies when only the noise changes."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from .. import __version__
from ..base.files import atomic
from ..base.outputs import holds, replaceable
from ..denoising import denoise
from ..guarding import evaluate, tile_flags
from ..guarding.calibration import digest, needed
from ..guarding.conformal import NAME, NEUTRAL, calibrate
from ..guarding.rules import (
    DEFAULT_RULES,
    AnyRule,
    Bound,
    Comparison,
    Condition,
    Conformal,
    Range,
    Rules,
    Transfer,
    as_rules,
    dump_rules,
)
from ..profiles import Profile
from ..runs.scored import as_profile
from .measure import measure
from .run import KEEP_NOISE
from .scenes import scenes_of

_SCENE = "scene"  # the column that names the field of a re-imaged tile
# What is tolerated in any case, however still the noise holds a column: a threshold is never set tighter.
TOLERATED: Mapping[str, float] = {
    "gain_change": 0.015, "offset_change": 0.006, "shift_y_px": 0.06, "shift_x_px": 0.06,
    "overshoot": 0.015, "transfer": 0.06, "transfer_high": 0.08, "transfer_peak": 0.08, "transfer_texture": 0.07,
    "transfer_bound": 0.06,
    "feature_contrast": 0.07, "row_noise_added": 0.25, "removed_count": 0.5, "invented_count": 0.5,
    "psnr": 0.05, "ssim": 0.001, "fsim": 0.001, "dists": 0.002, "lpips": 0.002,
    "cnr_fixed_noise_worst": 0.01,
}  # fmt: skip


@dataclass(frozen=True)
class Learnt:
    """Rules with learnt thresholds, and where they come from.

    Parameters
    ----------
    rules : Rules
        What `semnr.guard` takes.
    provenance : mapping
        How they were learnt; "unseen" tells the share of tiles of one more frame that each rule flags.

    Examples
    --------
    >>> learnt = semnr.learn_rules(tiles=4, side=64, frames=2, false_alarm=0.25)
    >>> learnt.save("rules.toml")
    >>> semnr.guarding.load_rules("rules.toml").keys() == semnr.DEFAULT_RULES.keys()
    True
    >>> learnt.to_toml().splitlines()[2]
    '[provenance]'
    """

    rules: Rules
    provenance: Mapping[str, Any]

    def to_toml(self) -> str:
        """The rules as TOML text, with their provenance at the top.

        Returns
        -------
        str
        """
        return dump_rules(self.rules, self.provenance)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the TOML file that `semnr.guarding.load_rules` and `semnr guard --rules` read.

        Parameters
        ----------
        path : path
            The file. Earlier learnt rules are replaced, rules made by hand are not.

        Raises
        ------
        FileExistsError
            Another file lies there.
        """
        with atomic(learnt_place(path)) as temporary:
            temporary.write_text(self.to_toml(), encoding="utf-8")


def learnt_place(path: str | os.PathLike[str]) -> Path:
    """Where learnt rules may be written: rules made by hand are not replaced."""
    return replaceable("rules-out", path, "learnt rules", holds(b"\n[provenance]\n"))


def learn_rules(
    source: Any = None,
    *,
    model: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    rules: Any = DEFAULT_RULES,
    false_alarm: float = 0.01,
    tiles: int = 48,
    side: int = 256,
    frames: int = 3,
    seed: int = 0,
    root: Any = None,
    level: float | None = None,
    wafer_level: float = 0.05,
    fields_per_wafer: int = 1,
    strata: Sequence[str] = (),
    doses: Sequence[float] = (1.0,),
) -> Learnt:
    """Set the thresholds of rules so that harmless tiles fire each rule on at most a stated share of them.

    Every scene is imaged `frames` times with fresh noise of the law that was fitted to the source, denoised and scored.
    A bound is put where only `false_alarm` (shared among the bounds of a rule) of these harmless tiles lie beyond it by
    the rule's z standard errors, but never tighter than `semnr.stress.learn.TOLERATED`. Comparing rules are learnt from
    pairs of frames. What a rule asks, its share, severity, advice and `certain` stay as they are.

    Parameters
    ----------
    source : anything that `semnr.open_tiles` takes, optional
        As for `semnr.stress_test`. None: synthetic scenes.
    model : str, optional
        The released denoiser, a model of `semnr.denoise`. It is thereby taken for harmless: whatever it loses will be
        tolerated. Default: the scene with 30 % of its noise left.
    parameters : mapping, optional
        Parameters of that model.
    rules : mapping or path
        What `semnr.guard` takes.
    false_alarm : float
        Share of harmless tiles that a rule may flag, above 0 and below 0.5.
    tiles, side, frames : int
        How many scenes of which side are imaged how often; tiles · frames · false_alarm must be at least 1.
    seed : int
        The same seed gives the same thresholds.
    root : path, optional
        Folder that the paths of a plan may lie in.
    level : float, optional
        Also learn the rule "conformal" (`semnr.guarding.Conformal`), whose false alarms are bounded: a random tile of
        a harmless field is flagged with at most this probability. Every scene is then a field.
    wafer_level, fields_per_wafer, strata
        As for `semnr.guarding.calibrate`: a harmless wafer of so many fields fires that rule with at most this
        probability; strata such as ("pattern", "dose") are read from what the source says of its tiles.
    doses : sequence of float
        With `level`: scenes are imaged at these multiples of the dose in turn.

    Returns
    -------
    Learnt
        `rules`, and `provenance` with the share of tiles of one more, unseen frame that each rule flags.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.

    Examples
    --------
    >>> learnt = semnr.learn_rules(tiles=4, side=64, frames=2, false_alarm=0.25)
    >>> verdict = semnr.guard(None, semnr.profile(denoised, clean, metrics=("psnr", "ssim")), rules=learnt.rules)
    >>> verdict.exit_code  # no evidence was brought
    3
    """
    held = {name: rule for name, rule in as_rules(rules).items() if not isinstance(rule, Conformal)}
    if not isinstance(false_alarm, float) or not 0 < false_alarm < 0.5:
        raise ValueError(f"false_alarm is {false_alarm!r}; accepted: a share between 0 and 0.5")
    if frames < 2 or tiles * frames * false_alarm < 1:
        raise ValueError(
            f"tiles {tiles} x frames {frames} at false_alarm {false_alarm:g} hold less than one alarm; "
            f"accepted: two frames or more, and at least {int(np.ceil(1 / false_alarm))} tiles in all"
        )
    if not doses or not all(isinstance(d, int | float) and d > 0 for d in doses):
        raise ValueError(f"doses is {doses!r}; accepted: multiples of the dose, above 0")
    if level is None and strata:
        raise ValueError(f"strata is {tuple(strata)!r} without level; accepted: both")
    if level is not None and tiles < needed(level):  # before minutes of work
        raise ValueError(
            f"tiles is {tiles}; accepted for level {level:g}: at least {needed(level)} fields of each stratum, and "
            "those that set the scales"
        )
    scenes = scenes_of(source, tiles=tiles, side=side, seed=seed, root=root)
    scenes = scenes if tuple(doses) == (1.0,) else scenes.at(doses)
    imaged = [_imaged(scenes, (seed, 11, k), model, parameters) for k in range(frames + 1)]
    unseen = imaged.pop()
    learnt: dict[str, AnyRule] = {name: _learnt(rule, imaged, false_alarm) for name, rule in held.items()}
    flagged = {name: _flagged(rule, imaged[0], unseen) for name, rule in learnt.items()}
    provenance: dict[str, Any] = {
        "learnt_by": f"semnr {__version__}",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": scenes.name,
        "denoiser": model or "takes 70 % of the noise and nothing else",
        "parameters": dict(parameters or {}),
        "noise": {"gain": scenes.gain, "offset": scenes.offset, "correlation": scenes.correlation},
        "false_alarm": false_alarm,
        "tiles": len(scenes),
        "side": side,
        "frames": frames,
        "seed": seed,
        "unseen_frame_flagged": flagged,
    }
    if level is not None:
        whole = np.arange(len(scenes) * frames) < len(scenes)  # a site to be judged has one frame
        rule = calibrate(
            [_together(scenes, imaged)], rules=held, level=level, wafer_level=wafer_level, unit=_SCENE, strata=strata,
            fields_per_wafer=fields_per_wafer, seed=seed, whole=[whole],
        )  # fmt: skip
        rule = _of_tiles(rule)
        learnt[NAME] = rule
        flagged[NAME] = _flagged(rule, imaged[0], _about(scenes, unseen))
        provenance |= {"doses": list(map(float, doses)), **_counted(rule)}
    return Learnt(MappingProxyType(learnt), provenance)


def learn_accepted(
    runs: Sequence[Any],
    *,
    rules: Any = DEFAULT_RULES,
    level: float = 0.01,
    wafer_level: float = 0.05,
    fields_per_wafer: int = 1,
    unit: str = "die",
    strata: Sequence[str] = (),
    seed: int = 0,
) -> Learnt:
    """Add a rule with a bound on its false alarms to rules, learnt from lots that were accepted.

    Parameters
    ----------
    runs : sequence of Profile, Run or path
        Scored runs of the released denoiser that were found good. What they hold is thereby taken for harmless.
    rules : mapping or path
        The other rules; their thresholds stay as they are.
    level, wafer_level, fields_per_wafer, unit, strata, seed
        As for `semnr.guarding.calibrate`.

    Returns
    -------
    Learnt

    Raises
    ------
    TypeError, ValueError
        As `semnr.guarding.calibrate`; too few fields: how many are needed.

    Examples
    --------
    >>> accepted = semnr.Profile(tuple(map(str, range(40))), {"removed_z": np.linspace(3, 5, 40)}, data_range=1.0)
    >>> learnt = semnr.stress.learn_accepted([accepted], level=0.05, unit="tile")
    >>> learnt.rules["conformal"].level, learnt.provenance["calibration_fields"]
    (0.05, {'all': 34})
    """
    held = {name: rule for name, rule in as_rules(rules).items() if not isinstance(rule, Conformal)}
    profiles = [as_profile("runs", run) for run in runs]
    rule = calibrate(
        profiles, rules=held, level=level, wafer_level=wafer_level, fields_per_wafer=fields_per_wafer, unit=unit,
        strata=strata, seed=seed,
    )  # fmt: skip
    provenance = {
        "learnt_by": f"semnr {__version__}",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": "accepted runs",
        "runs": [profile.label or f"run {i + 1}" for i, profile in enumerate(profiles)],
        "tiles": sum(map(len, profiles)),
        "seed": seed,
        **_counted(rule),
    }
    return Learnt(MappingProxyType({**held, NAME: rule}), provenance)


def _counted(rule: Conformal) -> dict[str, Any]:
    """What the provenance says of the rule: fields of each stratum, and the hash of what was learnt."""
    return {
        "level": rule.level,
        "wafer_level": rule.wafer_level,
        "calibration_fields": {kind: len(kept.field) for kind, kept in rule.calibration.items()},
        "sha256": rule.sha256,
    }


def _about(scenes: Any, profile: Profile, more: Mapping[str, tuple[str, ...]] | None = None) -> Profile:
    """The rows with what is known of their scenes, as a scored run has it."""
    names = dict.fromkeys(name for one in scenes.about for name in one)
    said = {name: tuple(_text(one.get(name)) for one in scenes.about) for name in names}
    return dataclasses.replace(profile, texts={**profile.texts, **said, **(more or {})})


def _text(value: Any) -> str | None:
    return None if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)


def _together(scenes: Any, imaged: Sequence[Profile]) -> Profile:
    """All frames as one profile, the scene of each tile beside it."""
    scene = {_SCENE: tuple(map(str, range(len(scenes))))}
    rows = [
        dataclasses.replace(_about(scenes, p, scene), tiles=tuple(f"{k}-{i}" for i in range(len(p))))
        for k, p in enumerate(imaged)
    ]
    return Profile.concat(rows)


def _of_tiles(rule: Conformal) -> Conformal:
    """A rule that was learnt with scenes as units, for tiles that are fields of their own."""
    sha256 = digest(rule.terms, rule.calibration, "tile", list(rule.strata), list(rule.combined))
    return dataclasses.replace(rule, unit="tile", sha256=sha256)


def _imaged(scenes: Any, seed: Any, model: str | None, parameters: Mapping[str, Any] | None) -> Profile:
    noisy = scenes.record(seed)
    if model is None:
        denoised = scenes.clean + KEEP_NOISE * (noisy - scenes.clean)
    else:
        denoised = np.stack([np.asarray(denoise(x, model=model, data_range=1.0, **(parameters or {}))) for x in noisy])
    return measure(scenes.clean, noisy, denoised, metrics=("psnr", "ssim", "fsim", "cnr"))


def _learnt(rule: AnyRule, imaged: list[Profile], false_alarm: float) -> AnyRule:
    if isinstance(rule, Range):
        share = false_alarm / len(rule.bounds)
        return dataclasses.replace(rule, bounds=tuple(_bound(b, rule.z, imaged, share) for b in rule.bounds))
    if isinstance(rule, Transfer):
        t = np.concatenate([p.transfer + rule.z * p.transfer_se for p in imaged])
        low = _quantile(-t, false_alarm)
        return rule if low is None else dataclasses.replace(rule, below=_rounded(min(-low, 1 - TOLERATED["transfer"])))
    if not isinstance(rule, Comparison):
        return rule
    conditions = tuple(_condition(c, imaged, false_alarm) for c in rule.conditions)
    return dataclasses.replace(rule, conditions=conditions)


def _bound(bound: Bound, z: float, imaged: list[Profile], share: float) -> Bound:
    pairs = [evaluate.columns_of(bound, p) for p in imaged]
    values, errors = (np.concatenate(v) for v in zip(*pairs, strict=True))
    neutral, least = NEUTRAL.get(bound.column, 0.0), TOLERATED.get(bound.column, 0.0)
    below, above = bound.below, bound.above
    if np.isfinite(above) and (high := _quantile(values - z * errors, share)) is not None:
        above = _rounded(max(high, neutral + least))
    if np.isfinite(below) and (low := _quantile(-(values + z * errors), share)) is not None:
        below = _rounded(min(-low, neutral - least))
    return dataclasses.replace(bound, below=below, above=above)


def _condition(condition: Condition, imaged: list[Profile], false_alarm: float) -> Condition:
    if condition.change == "stable":
        return condition
    pairs = [(a, b) for a in imaged for b in imaged if a is not b]
    change = np.concatenate([evaluate._change(condition, a, b) for a, b in pairs])
    high = _quantile(change if condition.change == "up" else -change, false_alarm)
    if high is None:
        return condition
    return dataclasses.replace(condition, by=_rounded(max(high, TOLERATED.get(condition.metric, 0.0))))


def _flagged(rule: AnyRule, before: Profile, after: Profile) -> float:
    known, fired = tile_flags(before, after, rules={rule.name: rule})[rule.name]
    return float(fired.sum() / known.sum()) if known.any() else float("nan")


def _quantile(values: np.ndarray, share: float) -> float | None:
    """The value that at most `share` of the sample exceeds; None where the column was not evaluated."""
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, 1 - share, method="higher")) if finite.size else None


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
