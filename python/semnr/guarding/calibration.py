"""Conformal p-values: from scores of harmless fields to levels that hold whatever the distribution is.

The exchangeable unit is a field (or a wafer, a lot), not a tile: tiles of one field are alike. With n calibration
fields, field i of which has m_i tiles,

    p(s) = (1 + Σᵢ (share of the tiles of field i whose score is s or more)) / (n + 1)

is at most α with probability α or less for a random tile of a new field that is exchangeable with these (Lee, Barber,
Willett 2023, arXiv 2306.06342; Dunn, Wasserman, Ramdas 2022 for one random tile a field). Where each field
counts by its largest score, every tile of the new field is below the level at once. For the m new fields of a wafer,

    p(s) = 1 − Π_{j=0..r} (n − j) / (n + m − j),   r = fields of the calibration whose largest score is s or more,

is the probability that the largest of m new scores leaves no more than r of the n behind: the r + 1 largest of the
n + m must all be of the calibration (the ranks of exchangeable fields; Gazin, Blanchard, Roquain 2024, arXiv
2310.12731, have the joint law of such p-values). m = 1 gives (1 + r)/(n + 1). Ties make all of these larger, never
smaller.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

ALL = "combined"  # the score over all rules, beside that of each
SIDES = ("above", "below", "either")
_EXACT = 1e-9  # of sums of shares


@dataclass(frozen=True)
class Term:
    """How a column becomes a score: how far it lies on the bad side, in units of what harmless tiles scatter.

    Parameters
    ----------
    rule, column : str
        The rule whose score it is part of, and the column that it reads.
    side : {"above", "below", "either"}
        Where the fault lies; "either": away from `centre`.
    centre : float
        Of "either".
    z : float
        How many standard errors of the column are given to the tile.
    location, scale : float
        Median of harmless tiles, and how far their 90th percentile lies beyond it.
    where, exceeds : str, float
        The column counts only on tiles on which the column `where` exceeds this value.

    Examples
    --------
    >>> term = semnr.guarding.Term("lost_detail", "feature_contrast", "below", location=-1.0, scale=0.01)
    >>> term.score([0.93, 0.99], [0.0, 0.0]).round(6).tolist()
    [7.0, 1.0]
    """

    rule: str
    column: str
    side: str
    centre: float = 0.0
    z: float = 0.0
    location: float = 0.0
    scale: float = 1.0
    where: str = ""
    exceeds: float = -math.inf

    def excess(self, values: np.ndarray, errors: np.ndarray) -> np.ndarray:
        """How far a column lies on the bad side, in its own unit.

        Parameters
        ----------
        values, errors : ndarray, (N,)
            The column, and its standard errors.

        Returns
        -------
        ndarray, (N,), float64

        Examples
        --------
        >>> semnr.guarding.Term("r", "shift_x_px", "either", z=2.0).excess(np.array([-0.3]), np.array([0.1])).round(2)
        array([0.1])
        """
        if self.side == "either":
            return np.abs(values - self.centre) - self.z * errors
        return (values if self.side == "above" else -values) - self.z * errors

    def score(self, values: object, errors: object) -> np.ndarray:
        """The score of a column's values and standard errors, (N,) each; NaN where the value is.

        Parameters
        ----------
        values, errors : array-like, (N,)
            The column, and its standard errors: 0 where it has none.

        Returns
        -------
        ndarray, (N,), float64
            0 at the median of harmless tiles, 1 at their 90th percentile.
        """
        excess = self.excess(np.asarray(values, np.float64), np.asarray(errors, np.float64))
        return (excess - self.location) / self.scale


@dataclass(frozen=True)
class Stratum:
    """The scores of harmless fields of one kind, as they are kept.

    Parameters
    ----------
    fields, tiles : int
        How many there were.
    tile : mapping of str to tuple of float
        By rule, and "combined": as many scores as fields, largest first, whose count at or above a score is that of
        the first formula above, rounded up.
    field : tuple of float
        The largest combined score of each field, largest first.

    Examples
    --------
    >>> kept = semnr.guarding.Stratum.of({"combined": [0.1, 0.4, 0.2, 0.3]}, fields=["a", "a", "b", "c"])
    >>> kept.fields, kept.field, kept.tile["combined"]
    (3, (0.4, 0.3, 0.2), (0.4, 0.3, 0.2))
    >>> kept.tile_p([0.35, 0.05]).tolist(), kept.field_p([0.5]).tolist(), round(kept.wafer_p(0.5, fields=1), 9)
    ([0.5, 1.0], [0.25], 0.25)
    """

    fields: int
    tiles: int
    tile: Mapping[str, tuple[float, ...]]
    field: tuple[float, ...]

    @classmethod
    def of(cls, scores: Mapping[str, object], fields: Sequence[object], whole: object = None) -> Stratum:
        """What is kept of the scores of tiles.

        Parameters
        ----------
        scores : mapping of str to array-like, (N,)
            "combined" and any rules; a tile whose score is NaN is left out of that score.
        fields : sequence, (N,)
            The field of each tile.
        whole : array-like of bool, (N,), optional
            Tiles that count for the largest score of a field. Default: all. With several frames of a site, those of
            one frame, because a site to be judged has one.

        Returns
        -------
        Stratum
        """
        _, codes = np.unique(np.asarray(list(map(str, fields))), return_inverse=True)
        counted = np.ones(len(codes), bool) if whole is None else np.asarray(whole, bool)
        rows = {name: np.asarray(values, np.float64) for name, values in scores.items()}
        known = counted & ~np.isnan(rows[ALL])
        largest = np.full(codes.max(initial=-1) + 1, np.nan)
        np.fmax.at(largest, codes[known], rows[ALL][known])
        return cls(
            len(largest),
            len(codes),
            {name: _weighted(values, codes) for name, values in rows.items()},
            tuple(_up(v) for v in np.sort(largest[~np.isnan(largest)])[::-1]),
        )

    def tile_p(self, scores: object, rule: str = ALL) -> np.ndarray:
        """p of tiles.

        Parameters
        ----------
        scores : array-like, (N,)
            Their scores.
        rule : str
            Whose score it is; default: the combined one.

        Returns
        -------
        ndarray, (N,), float64
            NaN where the score is, or where the rule was not calibrated.
        """
        return _p(np.asarray(scores, np.float64), self.tile.get(rule, ()))

    def field_p(self, largest: object) -> np.ndarray:
        """p of fields.

        Parameters
        ----------
        largest : array-like, (N,)
            The largest combined score of each.

        Returns
        -------
        ndarray, (N,), float64
        """
        return _p(np.asarray(largest, np.float64), self.field)

    def wafer_p(self, largest: float, fields: int) -> float:
        """p of the strongest of several new fields.

        Parameters
        ----------
        largest : float
            The largest combined score of them all.
        fields : int
            How many there are.

        Returns
        -------
        float
        """
        n, reached = len(self.field), int((np.asarray(self.field) >= largest).sum())
        if math.isnan(largest) or not n:
            return math.nan
        if reached >= n:
            return 1.0
        j = np.arange(reached + 1)
        return float(-np.expm1(np.log1p(-fields / (n + fields - j)).sum()))


def digest(terms: Sequence[Term], strata: Mapping[str, Stratum], *more: object) -> str:
    """The sha256 of what was learnt: levels may be moved by hand, scores may not."""
    kept = {name: asdict(stratum) for name, stratum in sorted(strata.items())}
    text = json.dumps([[asdict(term) for term in terms], kept, *more], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def needed(level: float, fields: int = 1, strata: int = 1) -> int:
    """How many calibration fields of a kind a level takes.

    Parameters
    ----------
    level : float
        Between 0 and 1.
    fields : int
        How many fields of the kind are judged at once: 1 for a tile or a field, those of a wafer for a wafer.
    strata : int
        How many kinds of fields a wafer has; each gets its share of the level.

    Returns
    -------
    int
        ⌈1/level⌉ − 1 for one field.

    Examples
    --------
    >>> semnr.guarding.needed(0.01), semnr.guarding.needed(0.05), semnr.guarding.needed(0.05, fields=20)
    (99, 19, 380)
    """
    return max(1, math.ceil(fields * (strata / level - 1) - _EXACT))


def discovered(p: object, rate: float, dependence: str = "positive") -> np.ndarray:
    """Which of many p-values are discoveries at a false-discovery rate.

    Parameters
    ----------
    p : array-like, (N,)
        p-values; NaN is no discovery, and does not count.
    rate : float
        The share of the discoveries that may be false, on average.
    dependence : {"positive", "any"}
        "positive": Benjamini and Hochberg, for p-values of independent fields against shared calibration fields, which
        are PRDS (Bates et al. 2023, arXiv 2104.08279). "any": Benjamini and Yekutieli, for tiles that
        share a field.

    Returns
    -------
    ndarray, (N,), bool

    Examples
    --------
    >>> p = [0.001, 0.02, 0.04, 0.9]
    >>> semnr.guarding.discovered(p, 0.1).tolist(), semnr.guarding.discovered(p, 0.05, "any").tolist()
    ([True, True, True, False], [True, False, False, False])
    """
    if dependence not in ("positive", "any"):
        raise ValueError(f"dependence is {dependence!r}; accepted: 'positive', 'any'")
    rows = np.asarray(p, np.float64)
    known = np.flatnonzero(~np.isnan(rows))
    out = np.zeros(len(rows), bool)
    if known.size:
        order = known[np.argsort(rows[known], kind="stable")]
        rank = np.arange(1, len(order) + 1)
        worth = rate / ((1 / rank).sum() if dependence == "any" else 1.0)
        below = np.flatnonzero(rows[order] <= worth * rank / len(order))
        out[order[: below[-1] + 1 if below.size else 0]] = True
    return out


def _weighted(values: np.ndarray, codes: np.ndarray) -> tuple[float, ...]:
    """As many scores as fields, by which tiles of a field count with its share."""
    known = ~np.isnan(values)
    if not known.any():
        return ()
    counts = np.bincount(codes[known], minlength=codes.max() + 1)
    order = np.argsort(-values[known], kind="stable")
    reached = np.cumsum(1 / counts[codes[known][order]])
    at = np.searchsorted(reached, np.arange(int((counts > 0).sum())) + _EXACT, side="right")
    return tuple(_up(v) for v in values[known][order][at])


def _p(scores: np.ndarray, kept: Sequence[float]) -> np.ndarray:
    if not kept:
        return np.full(len(scores), np.nan)
    rising = np.asarray(kept)[::-1]
    reached = len(rising) - np.searchsorted(rising, scores, side="left")
    return np.where(np.isnan(scores), np.nan, (1 + reached) / (len(rising) + 1))


def _up(value: float) -> float:
    """Six significant digits, never below the value: a file stays readable, and p is not lowered by it."""
    if not math.isfinite(value) or value == 0:
        return float(value)
    near = float(f"{value:.6g}")
    return near if near >= value else float(f"{near + 10.0 ** (math.floor(math.log10(abs(value))) - 5):.6g}")
