"""The threshold of an anomaly score: chosen on labelled tiles, or on normal tiles with a statement on false alarms.

A tile is flagged where its score is *above* the threshold. A threshold is a value beside the model: it can be moved
without training anything again, and it says how it was chosen and what may be expected of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..base.jsonable import plain

METHODS = ("recall", "f1", "cost", "normals")
BINS = 24
_CURVE = 200  # points of the precision-recall curve that are kept
_FACTOR, _ERRORS = 1.5, 3.0  # held-out over training error, and standard errors, from which on it is overfitting


@dataclass(frozen=True)
class Threshold:
    """A threshold of an anomaly score, and what it is.

    Attributes
    ----------
    value : float
        A tile is flagged where its score is above it. Unit: that of the score.
    method : str
        "recall", "f1", "cost", "normals" or "given".
    statement : str
        What it is and what may be expected of it, in words.
    score : str
        Which score it is for; a threshold is refused for another one.
    figures : mapping
        Counts, the confusion at the threshold, precision and recall with their intervals, the false-alarm rate.

    Examples
    --------
    >>> limit = semnr.anomaly.Threshold(0.004)
    >>> limit.flags([0.002, 0.0015, 0.005, 0.0008, 0.007]).tolist()
    [False, False, True, False, True]
    >>> limit.moved(0.006).method, semnr.anomaly.Threshold.from_dict(limit.to_dict()) == limit
    ('given', True)
    """

    value: float
    method: str = "given"
    statement: str = "given by hand: nothing is stated about false alarms or missed tiles"
    score: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)

    def flags(self, scores: Any) -> np.ndarray:
        """Which scores are above the threshold.

        Parameters
        ----------
        scores : array-like, (N,)
            Scores; NaN (no score) is not above anything.

        Returns
        -------
        ndarray, (N,), bool
        """
        return np.asarray(scores, np.float64) > self.value

    def moved(self, value: float) -> Threshold:
        """The threshold at another value; what was stated of the old value is dropped.

        Parameters
        ----------
        value : float
            The new value.

        Returns
        -------
        Threshold
        """
        return Threshold(finite("value", value), score=self.score)

    def to_dict(self) -> dict[str, Any]:
        """The threshold in plain Python, for JSON.

        Returns
        -------
        dict
        """
        return {name: plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Threshold:
        """The threshold that `to_dict` gave.

        Parameters
        ----------
        given : mapping
            What `to_dict` gave.

        Returns
        -------
        Threshold
        """
        if not isinstance(given, Mapping) or "value" not in given:
            raise ValueError("this is no threshold; accepted: a JSON object with `value`, as calibrate writes it")
        return cls(
            finite("value", given["value"]),
            str(given.get("method", "given")),
            str(given.get("statement", "")),
            str(given.get("score", "")),
            dict(given.get("figures") or {}),
        )


def choose_threshold(
    normal: Any,
    anomalous: Any = (),
    *,
    method: str = "recall",
    recall: float = 0.95,
    cost_missed: float = 10.0,
    cost_false: float = 1.0,
    false_alarms: float = 0.01,
    confidence: float = 0.95,
    score: str = "",
) -> Threshold:
    """Choose a threshold from the scores of tiles whose state is known.

    Parameters
    ----------
    normal : array-like, (N,)
        Scores of normal tiles that no model was trained on.
    anomalous : array-like, (M,)
        Scores of anomalous tiles.
    method : {"recall", "f1", "cost", "normals"}
        "recall" (default): the highest precision at a recall of at least `recall`, for a missed defect is the costly
        error. "f1": the largest F1. "cost": the lowest mean cost of `cost_missed` a missed tile and `cost_false` a
        false alarm. "normals": a quantile of the normal scores, which needs no anomalous tile.
    recall : float
        For "recall": share of the anomalous tiles that must be flagged, above 0 to 1.
    cost_missed, cost_false : float
        For "cost": what an anomalous tile that is not flagged costs, and a normal one that is.
    false_alarms : float
        For "normals": probability that a new normal tile is flagged, at most; between 0 and 1.
    confidence : float
        Of every interval that is stated, between 0 and 1.
    score : str
        Which score these are, for the record.

    Returns
    -------
    Threshold

    Raises
    ------
    ValueError
        No anomalous or no normal tile for a method that needs them, too few normal tiles for `false_alarms`, or an
        argument outside its range.

    Notes
    -----
    "normals" is split conformal prediction (Vovk et al. 2005): the threshold is the k-th smallest of n scores,
    k = ceil((n + 1)(1 − false_alarms)). A new tile that is exchangeable with them exceeds it with a probability of at
    most (n + 1 − k)/(n + 1), whatever the distribution. The rate of this one threshold is a Beta(n + 1 − k, k)
    variable; its interval is stated beside.

    Examples
    --------
    >>> limit = semnr.anomaly.choose_threshold([1.0, 2.0, 3.0], [2.5, 7.0, 9.0], recall=0.6)
    >>> limit.value, limit.figures["recall"], limit.figures["precision"]
    (5.0, 0.6666666666666666, 1.0)
    >>> semnr.anomaly.choose_threshold(range(199), method="normals").figures["false_alarms_at_most"]
    0.01
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; accepted: {', '.join(map(repr, METHODS))}")
    good, bad = known_scores("normal", normal), known_scores("anomalous", anomalous)
    share("confidence", confidence)
    if not good.size:
        raise ValueError("normal holds no score; accepted: the scores of at least one normal tile")
    if method == "normals":
        return _of_normals(good, bad, share("false_alarms", false_alarms), confidence, score)
    if not bad.size:
        raise ValueError(
            f"anomalous holds no score, and method {method!r} needs anomalous tiles: a threshold chosen without any "
            "would say nothing of what is missed; accepted: at least one, or method='normals'"
        )
    candidates = _between(np.concatenate([good, bad]))
    caught = np.array([(bad > t).mean() for t in candidates])
    false = np.array([(good > t).sum() for t in candidates])
    right = caught * bad.size
    precision = np.divide(right, right + false, out=np.zeros(len(candidates)), where=right + false > 0)
    if method == "recall":
        if not 0 < recall <= 1:
            raise ValueError(f"recall is {recall!r}; accepted: above 0 to 1")
        rank = np.where(caught >= recall - 1e-12, precision, -1.0)
        said = f"the highest precision at a recall of at least {recall:g} on the validation tiles"
    elif method == "f1":
        rank = np.divide(2 * precision * caught, precision + caught, out=np.zeros(len(candidates)), where=caught > 0)
        said = "the largest F1 on the validation tiles"
    else:
        missed_cost, false_cost = positive("cost_missed", cost_missed), positive("cost_false", cost_false)
        rank = -(missed_cost * (1 - caught) * bad.size + false_cost * false)
        said = (
            f"the lowest cost on the validation tiles, {cost_missed:g} a missed tile and {cost_false:g} a false alarm"
        )
    best = np.flatnonzero(rank >= rank.max() - 1e-12)
    value = float(candidates[best[-1]])  # of equal ones the strictest
    figures = confusion(good, bad, value, confidence)
    statement = (
        f"{said}: recall {figures['recall']:.3f} ({_interval(figures['recall_interval'])} at {confidence:.0%} "
        f"confidence, {bad.size} anomalous tiles), precision {figures['precision']:.3f}, "
        f"{figures['false_positives']} of {good.size} normal tiles flagged"
    )
    return Threshold(value, method, statement, score, figures)


def _of_normals(good: np.ndarray, bad: np.ndarray, alpha: float, confidence: float, score: str) -> Threshold:
    n = good.size
    k = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    if k > n:
        raise ValueError(
            f"normal holds {n} scores, too few for false_alarms={alpha:g}; accepted: at least "
            f"{math.ceil(1 / alpha - 1 - 1e-9)} normal tiles, or a larger false_alarms"
        )
    value = float(np.sort(good)[k - 1])
    low, high = false_alarm_interval(n, k, confidence)
    figures = {
        **confusion(good, bad, value, confidence),
        "rank": k,
        "false_alarms_at_most": (n + 1 - k) / (n + 1),
        "false_alarm_rate_interval": [low, high],
        "confidence": confidence,
    }
    statement = (
        f"the {k}. smallest of {n} normal scores: a new normal tile that is exchangeable with them is flagged with a "
        f"probability of at most {figures['false_alarms_at_most']:.4g}; the false-alarm rate of this threshold lies "
        f"between {low:.4g} and {high:.4g} with {confidence:.0%} confidence. It says nothing of missed defects"
    )
    return Threshold(value, "normals", statement, score, figures)


def false_alarm_interval(n: int, k: int, confidence: float = 0.95) -> tuple[float, float]:
    """Where the false-alarm rate of the k-th smallest of n normal scores lies: the ends of a Beta(n + 1 − k, k)."""
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    return float(beta.ppf(tail, n + 1 - k, k)), float(beta.ppf(1 - tail, n + 1 - k, k))


def confusion(good: np.ndarray, bad: np.ndarray, value: float, confidence: float = 0.95) -> dict[str, Any]:
    """What a threshold does on known tiles: counts, and precision and recall with their intervals."""
    tp, fp = int((bad > value).sum()), int((good > value).sum())
    figures: dict[str, Any] = {
        "true_positives": tp,
        "false_negatives": int(bad.size) - tp,
        "false_positives": fp,
        "true_negatives": int(good.size) - fp,
        "false_alarm_rate": fp / good.size if good.size else None,
        "recall": tp / bad.size if bad.size else None,
        "precision": tp / (tp + fp) if tp + fp else None,
    }
    if bad.size:
        figures["recall_interval"] = list(clopper_pearson(tp, int(bad.size), confidence))
        figures["f1"] = 2 * tp / (2 * tp + fp + int(bad.size) - tp)
    if tp + fp:
        figures["precision_interval"] = list(clopper_pearson(tp, tp + fp, confidence))
    return figures


def clopper_pearson(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, count - hits + 1))
    high = 1.0 if hits == count else float(beta.ppf(1 - tail, hits + 1, count - hits))
    return low, high


def precision_recall(normal: Any, anomalous: Any) -> list[dict[str, float]]:
    """The precision-recall curve: threshold, precision and recall at each, from the loosest to the strictest.

    Parameters
    ----------
    normal, anomalous : array-like
        Scores of normal and of anomalous tiles.

    Returns
    -------
    list of dict
        "threshold", "precision", "recall"; at most 200 points, evenly spread.

    Examples
    --------
    >>> semnr.anomaly.precision_recall([1.0], [2.0])[-1]
    {'threshold': 1.5, 'precision': 1.0, 'recall': 1.0}
    """
    good, bad = known_scores("normal", normal), known_scores("anomalous", anomalous)
    values = _between(np.concatenate([good, bad]))
    rows = []
    for value in values[np.unique(np.linspace(0, len(values) - 1, min(_CURVE, len(values))).round().astype(int))]:
        tp, fp = int((bad > value).sum()), int((good > value).sum())
        if tp + fp and bad.size:
            rows.append({"threshold": float(value), "precision": tp / (tp + fp), "recall": tp / bad.size})
    return rows


def auroc(normal: Any, anomalous: Any) -> float:
    """Area under the ROC curve: how often an anomalous tile scores above a normal one; ties count half.

    Parameters
    ----------
    normal, anomalous : array-like
        Scores of normal and of anomalous tiles.

    Returns
    -------
    float
        0.5 where the score tells nothing; NaN without tiles of both kinds.

    Examples
    --------
    >>> semnr.anomaly.auroc([1, 2, 3], [2.5, 4])
    0.8333333333333334
    """
    good, bad = np.sort(known_scores("normal", normal)), known_scores("anomalous", anomalous)
    if not good.size or not bad.size:
        return math.nan
    below, up_to = (np.searchsorted(good, bad, side) for side in ("left", "right"))  # type: ignore[call-overload]
    return float((below + up_to).mean() / 2 / good.size)


def average_precision(normal: Any, anomalous: Any) -> float:
    """Average precision: the mean precision over the ranks at which an anomalous one stands; ties count as one rank.

    Parameters
    ----------
    normal, anomalous : array-like
        Scores of normal and of anomalous tiles, or of pixels.

    Returns
    -------
    float
        NaN without anomalous ones.

    Examples
    --------
    >>> semnr.anomaly.average_precision([1, 2], [3])
    1.0
    """
    good, bad = known_scores("normal", normal), known_scores("anomalous", anomalous)
    if not bad.size:
        return math.nan
    values, truth = np.concatenate([good, bad]), np.repeat([0, 1], [good.size, bad.size])
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    ends = np.flatnonzero(np.append(np.diff(values) != 0, True))
    hits = np.cumsum(truth)[ends]
    return float((np.diff(np.append(0, hits)) * hits / (ends + 1)).sum() / bad.size)


def populations(good: np.ndarray, bad: np.ndarray) -> dict[str, Any]:
    """Histograms of both populations on one scale, and the gap between them."""
    both = np.concatenate([good, bad])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    made: dict[str, Any] = {
        "edges": edges.tolist(),
        "normal": np.histogram(good, edges)[0].tolist(),
        "anomalous": np.histogram(bad, edges)[0].tolist(),
    }
    if bad.size:
        gap = float(bad.min() - good.max())
        inside = int((good >= bad.min()).sum()) + int((bad <= good.max()).sum())
        made["gap"] = gap
        made["gap_in_words"] = (
            f"the populations are apart by {gap:.4g}: the largest normal score is {good.max():.4g}, the smallest "
            f"anomalous one {bad.min():.4g}"
            if gap > 0
            else f"the populations overlap: {inside} of {both.size} tiles lie between {bad.min():.4g} and "
            f"{good.max():.4g}, where no threshold parts them"
        )
    return made


def generalisation(training: Any, new: Any) -> dict[str, Any]:
    """Hold the errors of new tiles against those of the tiles that a model was trained on.

    Parameters
    ----------
    training, new : array-like
        Reconstruction errors of training tiles and of tiles that the model never saw, in one unit; or one mean each.

    Returns
    -------
    dict
        "training", "new" (means), "ratio", "overfits" (the new error is at least half as large again, by more than
        three standard errors where there are several tiles) and "statement", the same in words.

    Examples
    --------
    >>> semnr.anomaly.generalisation(0.0005, 0.01)["statement"]
    'overfitting: the error is 0.01 on new tiles against 0.0005 on the training tiles, 20 times as large. The model ...'
    """
    one, other = (known_scores(name, np.atleast_1d(v)) for name, v in (("training", training), ("new", new)))
    if not one.size or not other.size:
        raise ValueError("training or new holds no error; accepted: at least one of each")
    before, after = float(one.mean()), float(other.mean())
    se = math.sqrt(sum(v.var(ddof=1) / v.size for v in (one, other) if v.size > 1))
    ratio = after / before if before > 0 else math.inf if after > 0 else 1.0
    overfits = ratio > _FACTOR and after - before > _ERRORS * se
    told = f"the error is {after:.4g} on new tiles against {before:.4g} on the training tiles"
    if overfits:
        statement = (
            f"overfitting: {told}, {ratio:.3g} times as large. The model has learnt its training tiles by heart; "
            "its scores of new tiles are too high. Give it more tiles, a smaller network or fewer steps"
        )
    else:
        statement = f"no overfitting seen: {told}"
    return {"training": before, "new": after, "ratio": ratio, "overfits": overfits, "statement": statement}


def known_scores(name: str, values: Any) -> np.ndarray:
    """(N,) float64 without NaN; infinite scores are refused."""
    scores = np.asarray(values if isinstance(values, np.ndarray) else list(values), np.float64).ravel()
    scores = scores[~np.isnan(scores)]
    if np.isinf(scores).any():
        raise ValueError(f"{name} holds infinite scores; accepted: finite ones")
    return scores


def finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; accepted: a finite number")
    return float(value)


def share(name: str, value: Any) -> float:
    if not 0 < finite(name, value) < 1:
        raise ValueError(f"{name} is {value!r}; accepted: a number between 0 and 1")
    return float(value)


def positive(name: str, value: Any) -> float:
    if finite(name, value) <= 0:
        raise ValueError(f"{name} is {value!r}; accepted: a number above 0")
    return float(value)


def _between(scores: np.ndarray) -> np.ndarray:
    """Thresholds that part the scores in every way there is: below all, and midway between neighbours."""
    values = np.unique(scores)
    below = values[:1] - max(1.0, abs(float(values[0])))
    return np.concatenate([below, (values[:-1] + values[1:]) / 2, values[-1:]])


def _interval(ends: Any) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"
