"""How a change between two candidates reads: better, worse, the same within a tolerance, or too few tiles to say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import statistics

BETTER, WORSE, SAME, TOO_FEW = "better", "worse", "same", "too few tiles"
READINGS = (BETTER, WORSE, SAME, TOO_FEW)
LEVEL = 0.05  # of significance, over all columns of a table together

# What a change may be and still be none, in the column's unit: that of the default rule (guarding/rules.toml), of a
# rule with bounds a tenth of the way from the ideal to its bound. tests/guarding holds both together.
TOLERANCE: Mapping[str, float] = {
    "psnr": 0.1,
    "psnr_estimated": 0.1,
    "ssim": 0.01,
    "fsim": 0.003,
    "dists": 0.01,
    "feature_contrast": 0.01,
    "overshoot": 0.0012,
    "transfer": 0.006,
    "transfer_bound": 0.012,
    "transfer_high": 0.0042,
    "transfer_texture": 0.006,
    "gain_change": 0.003,
    "offset_change": 0.001,
    "shift_y_px": 0.01,
    "shift_x_px": 0.01,
    "row_noise_added": 0.04,
    "removed_count": 0.05,
    "invented_count": 0.05,
    "cd_change_px": 0.02,
    "cd_bias_px": 0.02,
    "edge_rms_px": 0.02,
}
RELATIVE: Mapping[str, float] = {"cnr_fixed_noise_worst": 0.03}  # as a share of the baseline's mean
OTHERWISE = 0.02  # the same, for columns that no rule speaks of


def tolerance_of(column: str, before: float) -> float:
    """The change of a column that counts as none; `before` is the baseline's mean."""
    if column in TOLERANCE:
        return TOLERANCE[column]
    return RELATIVE.get(column, OTHERWISE) * abs(before)


def enough(clusters: int, columns: int) -> bool:
    """Whether so many tiles (or dies) could show any change at all, among so many columns.

    Of n clusters a sign-flip test can give a p of 2 / 2^n at the least, and Holm's correction multiplies it by the
    number of columns: 9 tiles for ten columns.
    """
    return clusters > 0 and columns * 2.0 ** (1 - min(clusters, 1000)) <= LEVEL


def read(gain: float, low: float, high: float, tolerance: float, *, significant: bool, sure: bool) -> str:
    """The reading of a gain (more is better) with its interval.

    significant : whether a corrected test tells it from 0. sure : `enough` tiles.
    """
    if not sure or not np.isfinite([gain, low, high]).all():
        return TOO_FEW
    if significant and not low <= 0 <= high and abs(gain) > tolerance:
        return BETTER if gain > 0 else WORSE
    within = -tolerance <= low and high <= tolerance
    return SAME if within or (significant and abs(gain) <= tolerance) else TOO_FEW


def readings(gains: Mapping[str, np.ndarray], group: np.ndarray, before: Mapping[str, float]) -> dict[str, str]:
    """How the gains of several columns read, by their means over tiles and the standard errors over clusters.

    Cheap enough for a million tiles; `semnr.compare` has the bootstrap and the exact test.
    """
    from scipy.special import stdtr, stdtrit

    words = {}
    for column, values in gains.items():
        total, number = (table[:, 0] for table in statistics.sums_by(values[:, None], group))
        total, number = total[number > 0], number[number > 0]
        clusters = len(total)
        if clusters < 2:
            words[column] = TOO_FEW
            continue
        mean = float(total.sum() / number.sum())
        spread = float(np.sum((total - mean * number) ** 2))
        error = float(np.sqrt(clusters / (clusters - 1) * spread) / number.sum())
        reach = float(stdtrit(clusters - 1, 1 - LEVEL / 2)) * error
        p = 2 * float(stdtr(clusters - 1, -abs(mean) / error)) if error > 0 else float(mean == 0)
        words[column] = read(
            mean, mean - reach, mean + reach, tolerance_of(column, before[column]),
            significant=p * len(gains) <= LEVEL, sure=enough(clusters, len(gains)),
        )  # fmt: skip
    return words
