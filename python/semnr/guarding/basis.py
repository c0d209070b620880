"""What a verdict rests on: which evidence was measured, estimated or unknown, and what would make it known."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from ..profiles import Profile
from ..runs.verdict import CLEAR, FIRED, NOT_COMPARABLE, NOT_EVALUATED, UNKNOWN, Signal
from .evaluate import Finding, Inputs, without_evidence
from .rules import AnyRule, Comparison, Conformal

BASELINE = "the scores of the released denoiser (semnr guard BEFORE AFTER)"
WITNESS = "a second noisy frame of each site, or a clean reference"
NOISY = "the noisy input"
WEIGHTS = "trained DISTS weights (semnr weights fetch vgg16)"

# Columns that need a witness of what is structure: a clean reference or a further frame.
WITNESSED = (
    *("transfer", "transfer_high", "transfer_texture", "transfer_peak", "feature_contrast", "overshoot"),
    *("psnr", "ssim", "fsim", "dists"),
)
# Columns that a reference which lies elsewhere makes meaningless.
OF_A_REFERENCE = (
    *WITNESSED,
    *("mse", "mae", "cnr_fixed_noise", "cnr_fixed_noise_worst", "contrast_retention", "contrast_retention_worst"),
    *("psnr_noisy", "gain_change", "row_noise_added"),
)
# Each kind of evidence, and the columns that hold it: measured, or estimated in its place.
AXES = {
    "psnr": (("psnr",), ("psnr_estimated",)),
    "ssim": (("ssim",), ()),
    "fsim": (("fsim",), ()),
    "dists": (("dists",), ()),
    "cnr": (("cnr_fixed_noise", "cnr_two_roi"), ("cnr_fixed_noise_estimated",)),
    "transfer": (("transfer",), ()),
    "residual": (("residual_variance",), ()),
}


def axes(profile: Profile) -> dict[str, str]:
    """ "measured", "estimated" or "unknown" of each of `AXES`."""
    said = {}
    for name, (measured, estimated) in AXES.items():
        if _known(profile, measured):
            said[name] = "estimated" if name == "dists" and profile.calibrated is False else "measured"
        else:
            said[name] = "estimated" if _known(profile, estimated) else "unknown"
    return said


def needs(rule: AnyRule, signal: Signal, before: Profile | None, after: Profile) -> str:
    """What to bring so that a rule without evidence can be judged; "" where nothing helps, or it was judged."""
    if signal.status in (FIRED, CLEAR):
        return ""
    if signal.status == NOT_EVALUATED:
        return WEIGHTS
    if isinstance(rule, Comparison):
        return BASELINE if before is None else ""
    if isinstance(rule, Conformal) and "p_value" in signal.evidence:
        return ""  # the tiles have evidence: the calibration is too small, or of other fields
    if not _known(after, ("residual_variance", "psnr_noisy", "offset_change")):
        return NOISY
    witnessed = any(name in WITNESSED for name in signal.metrics)
    return WITNESS if witnessed and not _known(after, ("transfer", "reference_mean", "mse_estimated")) else ""


def without_wrong_references(evidence: Inputs, after: Profile) -> tuple[Inputs, Profile]:
    """The same evidence without that of tiles whose reference is not that of the noisy frame (shifted, another)."""
    wrong = np.array([bool(text) for text in _problems(after)], dtype=bool)
    if not wrong.any():
        return evidence, after
    columns = {
        name: np.where(wrong, np.nan, rows) if name.removesuffix("_se") in OF_A_REFERENCE else rows
        for name, rows in after.columns.items()
    }
    transfer, se, gain = (np.where(wrong, np.nan, rows) for rows in (evidence.transfer, evidence.se, evidence.gain))
    evidence = dataclasses.replace(evidence, transfer=transfer, se=se, gain=gain)
    return evidence, dataclasses.replace(after, columns=columns)


def not_comparable(rule: AnyRule, finding: Finding, after: Profile) -> Finding:
    """A rule that has no evidence because of wrong references says so."""
    said = Counter(text for text in _problems(after) if text)
    reads = any(name in OF_A_REFERENCE for name in rule.metrics)
    if not said or not reads or finding.signal.status != UNKNOWN or isinstance(rule, Comparison):
        return finding
    (text, count), *others = said.most_common()
    more = f", and {sum(n for _, n in others)} tiles with another problem" if others else ""
    reason = f"{text} on {count} of {len(after)} tiles{more}: lay it onto the noisy image, or use --register"
    return without_evidence(rule, NOT_COMPARABLE, reason)


def notes(after: Profile) -> tuple[str, ...]:
    """What the pairs of images show beside evidence (JPEG, few grey levels, ...), each with how many tiles show it."""
    said = Counter(note for text in after.texts.get("pair_note") or () if text for note in text.split("; "))
    return tuple(f"{note} ({count} of {len(after)} tiles)" for note, count in said.most_common())


def _problems(after: Profile) -> list[str | None]:
    """Of each tile what is wrong with its reference, or with the further frames that stand in for one."""
    none: tuple[str | None, ...] = (None,) * len(after)
    texts = (after.texts.get(name) or none for name in ("reference_problem", "frames_problem"))
    return [reference or frames for reference, frames in zip(*texts, strict=True)]


def _known(profile: Profile, names: tuple[str, ...]) -> bool:
    return any(bool(np.isfinite(profile.column(name)).any()) for name in names)
