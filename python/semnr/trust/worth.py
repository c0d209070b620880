"""What one denoised frame is worth in noisy ones, from its error and that of the noisy frame: N = σ² / MSE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from ..base.jsonable import plain
from ..profiles import Profile

LEAST_UNITS = 8  # fields or strips below which nothing is resampled
_MOST_UNITS = 2000  # beyond it neighbours are resampled together
_DRAWS = 1000


@dataclass(frozen=True)
class DoseEquivalence:
    """How many noisy frames one denoised frame is worth, with an interval.

    Attributes
    ----------
    frames : float
        N: the mean of N frames of the input's dose has the mean squared error of the denoised frame. Infinite where the
        error is not above 0.
    low, high : float
        Interval of that; NaN where there is too little to say.
    noise_variance, error : float
        Variance of the input's noise, and mean squared error of the denoised frame, in squared grey levels.
    basis : str
        "two frames", "three frames" or "reference".
    units : int
        How many fields or strips were resampled; 0: the interval is by the standard errors of the tiles.
    resampled : str
        "fields", "strips of lines" or "".
    confidence : float
        Of the interval.
    tile : ndarray, (N,)
        N of each tile; infinite where its error is not above 0.
    problems : tuple of str, (N,)
        What speaks against the frames of a tile.

    Examples
    --------
    >>> found = semnr.dose_equivalence(noisy, denoised, second)
    >>> found.low < found.frames < found.high, found.to_dict()["basis"]
    (True, 'two frames')
    >>> run = semnr.score(denoised, noisy=noisy, noisy_2=second, out="run", tests=False)
    >>> semnr.DoseEquivalence.of(run.profile()).basis
    'two frames'
    """

    frames: float
    low: float
    high: float
    noise_variance: float
    error: float
    basis: str
    units: int
    resampled: str
    confidence: float
    tile: np.ndarray
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, scores: Profile, confidence: float = 0.95, seed: int = 0) -> DoseEquivalence | None:
        """The same from the rows of a scored run.

        Parameters
        ----------
        scores : Profile
            Rows with the noisy input's PSNR and the candidate's, by a reference or estimated from frames.
        confidence : float
            Of the interval.
        seed : int
            Of the bootstrap: dies are resampled where they are known, else tiles.

        Returns
        -------
        DoseEquivalence or None
            None where the rows do not tell. A reference counts as free of noise.
        """
        peak = scores.data_range**2
        # frames first: a reference is there in their place alone
        if np.isfinite(scores.column("mse_estimated")).any():
            error, se, noisy = (scores.column(n) for n in ("mse_estimated", "mse_estimated_se", "psnr_noisy_estimated"))
            count = np.nanmax(scores.column("frames"), initial=2)
            basis = "three frames" if count > 2 else "two frames"
        else:
            error, se, noisy = scores.mse, np.full(len(scores), np.nan), scores.psnr_noisy
            basis = "reference"
        noise = peak / 10 ** (noisy / 10)
        known = np.isfinite(noise) & np.isfinite(error)
        if not known.any() or not np.isfinite(noise[known]).all():
            return None
        units = scores.clusters()[known]
        if basis == "reference" and not (error[known] > 0).any():
            return None
        return pooled(noise[known], error[known], np.ones(int(known.sum())), units, basis=basis, resampled="fields",
                      confidence=confidence, seed=seed, se=se[known], tile=ratio(noise, error))  # fmt: skip

    def __str__(self) -> str:
        """In one line: what a frame is worth, on what that rests."""
        open_ended = math.isinf(self.high)
        span = f"at least {_number(self.low)}" if open_ended else f"{_number(self.low)} to {_number(self.high)}"
        ends = f" ({self.confidence:.0%}: {span})" if self.low == self.low else ""
        how = f"{self.units} {self.resampled} resampled" if self.units else "by standard errors of the tiles"
        basis = "by the reference" if self.basis == "reference" else self.basis
        shown = f"{basis}, {how}" if ends else basis
        count = "more noisy ones than can be told" if math.isinf(self.frames) else f"{_number(self.frames)} noisy ones"
        return f"one denoised frame is worth {count}{ends}; {shown}"

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain Python, for JSON.

        Returns
        -------
        dict
            NaN is None, what is infinite "inf".
        """
        return {name: plain(value) for name, value in asdict(self).items()}


def pooled(
    noise: np.ndarray,
    error: np.ndarray,
    weight: np.ndarray,
    units: Sequence[int] | np.ndarray,
    *,
    basis: str,
    resampled: str,
    confidence: float,
    seed: int,
    se: np.ndarray | None = None,
    tile: np.ndarray,
    problems: tuple[str, ...] = (),
) -> DoseEquivalence:
    """One ratio of sums over rows (means `noise` and `error` of `weight` pixels each), units of rows resampled.

    The interval is the percentile bootstrap with the percentiles widened for few units as a t distribution is wider
    than a normal one (Hesterberg 2015, The American Statistician 69). Fewer than LEAST_UNITS:
    by `se` where it is given.
    """
    _, codes = np.unique(units, return_inverse=True)
    n = int(codes.max()) + 1
    if n > _MOST_UNITS:
        codes = codes * _MOST_UNITS // n
        n = _MOST_UNITS
    top, bottom = (np.bincount(codes, v * weight, minlength=n) for v in (noise, error))
    total = float(weight.sum())
    low = high = math.nan
    tail = (1 - confidence) / 2
    drawn = 0
    if n >= LEAST_UNITS:
        tail = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, tail)))
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_DRAWS)
        low, high = np.quantile(ratio(counts @ top, counts @ bottom), (tail, 1 - tail), method="closest_observation")
        drawn = n
    elif se is not None and np.isfinite(se).all():
        mean = float(bottom.sum()) / total
        spread = float(-ndtri(tail) * np.sqrt(((se * weight) ** 2).sum()) / total)
        low, high = ratio(np.full(2, top.sum() / total), np.array([mean + spread, mean - spread]))
    return DoseEquivalence(
        float(ratio(top.sum(), bottom.sum())), float(low), float(high), float(top.sum()) / total,
        float(bottom.sum()) / total, basis, drawn, resampled if drawn else "", confidence, tile, problems,
    )  # fmt: skip


def ratio(noise: Any, error: Any) -> np.ndarray:
    """N = noise / error; infinite where the error is not above 0."""
    noise, error = np.asarray(noise, np.float64), np.asarray(error, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.isnan(error), np.nan, np.where(error > 0, noise / error, np.inf))


def _number(value: float) -> str:
    return "any number" if math.isinf(value) else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
