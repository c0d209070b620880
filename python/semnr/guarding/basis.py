"""What a verdict rests on: which evidence was measured, estimated or unknown, and what would make it known."""

from __future__ import annotations

import numpy as np

from ..profiles import Profile
from ..runs.verdict import CLEAR, FIRED, NOT_EVALUATED, Signal
from .rules import AnyRule, Comparison

BASELINE = "the scores of the released denoiser (semnr guard BEFORE AFTER)"
WITNESS = "a second noisy frame of each site, or a clean reference"
NOISY = "the noisy input"
WEIGHTS = "trained DISTS weights (semnr weights fetch vgg16)"

# Columns that need a witness of what is structure: a clean reference or a further frame.
WITNESSED = (
    *("transfer", "transfer_high", "transfer_texture", "transfer_peak", "feature_contrast", "overshoot"),
    *("psnr", "ssim", "fsim", "dists"),
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
    if not _known(after, ("residual_variance", "psnr_noisy", "offset_change")):
        return NOISY
    witnessed = any(name in WITNESSED for name in signal.metrics)
    return WITNESS if witnessed and not _known(after, ("transfer", "reference_mean", "mse_estimated")) else ""


def _known(profile: Profile, names: tuple[str, ...]) -> bool:
    return any(bool(np.isfinite(profile.column(name)).any()) for name in names)
