"""Intervals and paired tests over tiles. Tiles of one die are alike: where dies are known, they are resampled whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 2000
_ROWS = 256  # resamples made at once: bounds memory


def clusters(*columns: np.ndarray) -> np.ndarray:
    """(N,) int: equal rows of the columns get one number; rows with NaN are clusters of their own."""
    table = np.stack(columns, axis=1)
    known = np.isfinite(table).all(axis=1)
    out = np.empty(len(table), dtype=np.int64)
    if known.any():
        out[known] = np.unique(table[known], axis=0, return_inverse=True)[1].reshape(-1)
    start = int(out[known].max()) + 1 if known.any() else 0
    out[~known] = start + np.arange(int((~known).sum()))
    return out


def codes(names: Sequence[str]) -> np.ndarray:
    """(N,) float: a number for each distinct name."""
    return np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1].astype(np.float64)


def sums_by(values: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G, K) sums of the finite entries of (N, K) and how many there were."""
    count = int(group.max()) + 1 if len(group) else 0
    finite = np.isfinite(values)
    total, number = np.zeros((count, values.shape[1])), np.zeros((count, values.shape[1]))
    np.add.at(total, group, np.where(finite, values, 0.0))
    np.add.at(number, group, finite)
    return total, number


def bootstrap(
    values: np.ndarray,
    group: np.ndarray,
    of: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """Replicates of `of`(means), (resamples, ...): clusters are drawn with replacement, `of` takes (B, K) means."""
    total, number = sums_by(values, group)
    rng, parts = np.random.default_rng(seed), []
    g = len(total)
    for start in range(0, resamples, _ROWS):
        b = min(_ROWS, resamples - start)
        drawn = rng.multinomial(g, np.full(g, 1 / g), size=b).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(of((drawn @ total) / (drawn @ number)))
    return np.concatenate(parts)


def ends(replicates: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval along the first axis; NaN where every replicate is."""
    tail = (1 - confidence) / 2
    out = []
    for q in (tail, 1 - tail):
        columns = replicates.reshape(len(replicates), -1)
        row = [float(np.quantile(c[~np.isnan(c)], q)) if (~np.isnan(c)).any() else np.nan for c in columns.T]
        out.append(np.array(row).reshape(replicates.shape[1:]))
    return out[0], out[1]


def sign_flip(differences: np.ndarray, group: np.ndarray, *, seed: int = 0, resamples: int = 10_000) -> float:
    """Two-sided p of "the mean paired difference is 0": signs of whole clusters are flipped, all of them where they are
    few enough to try. NaN without a cluster."""
    finite = np.isfinite(differences)
    if not finite.any():
        return float("nan")
    total = sums_by(differences[finite][:, None], np.unique(group[finite], return_inverse=True)[1])[0][:, 0]
    observed, g = abs(total.sum()), len(total)
    bound = observed * (1 - 1e-12)
    if g <= 13:
        signs = 1 - 2 * ((np.arange(2**g)[:, None] >> np.arange(g)) & 1)
        return float((np.abs(signs @ total) >= bound).mean())
    rng, beyond = np.random.default_rng(seed), 0
    for start in range(0, resamples, _ROWS):
        b = min(_ROWS, resamples - start)
        beyond += int((np.abs(rng.choice((-1.0, 1.0), size=(b, g)) @ total) >= bound).sum())
    return (beyond + 1) / (resamples + 1)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction for several tests; NaN stays."""
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known])]
    raised = 0.0
    for k, i in enumerate(order):
        raised = max(raised, min(1.0, float(p[i]) * (len(order) - k)))
        out[i] = raised
    return out
