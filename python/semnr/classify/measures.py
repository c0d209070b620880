"""What predictions are worth: confusion, precision and recall, calibration, and what abstaining would buy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest

from ..base.random_streams import stream

BINS = 15  # of the confidence, for ECE
_BOOTSTRAP, _DRAWS = 93, 1000


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts: rows are the true classes, columns the predicted ones.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def per_class(counts: np.ndarray) -> list[dict[str, float]]:
    """Precision, recall, F1 and number of images of each class; NaN where nothing was predicted or is there."""
    hits = np.diag(counts).astype(float)
    predicted, there = counts.sum(axis=0), counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / predicted, hits / there
        f1 = 2 * hits / (predicted + there)
    rows = zip(precision, recall, f1, there, strict=True)
    return [{"precision": float(p), "recall": float(r), "f1": float(f), "images": int(n)} for p, r, f, n in rows]


def macro_f1(counts: np.ndarray) -> float:
    """Mean F1 of the classes that have images; a class that is never predicted rightly counts 0."""
    there = counts.sum(axis=1) > 0
    f1 = np.nan_to_num([row["f1"] for row in per_class(counts)])
    return float(f1[there].mean()) if there.any() else float("nan")


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """ECE (Guo et al., ICML 2017): the mean distance of confidence and accuracy in bins of one width.

    >>> expected_calibration_error(np.array([0.9, 0.9, 0.9, 0.9]), np.array([1, 1, 1, 0])) # 0.9 against 0.75
    0.15
    """
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(float((confidence[at == b] - correct[at == b]).sum())) for b in range(bins)]
    return round(sum(gaps) / max(1, len(confidence)), 12)


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Mean confidence, accuracy and number of images of each bin that has any."""
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {"confidence": float(confidence[at == b].mean()), "accuracy": float(correct[at == b].mean()), "images": n}
        for b in range(bins)
        if (n := int((at == b).sum()))
    ]


def log_loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative logarithm of the probability of the true class."""
    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The one number that logits are divided by so that confidence is right on these images (Guo et al., 2017)."""
    best = minimize_scalar(
        lambda t: log_loss(logits, labels, float(np.exp(t))), bounds=(np.log(0.05), np.log(20)), method="bounded"
    )
    return float(np.exp(best.x))


def abstention(confidence: np.ndarray, correct: np.ndarray) -> list[dict[str, float]]:
    """For thresholds of the confidence: the share of images that are decided, and the accuracy on them."""
    rows = []
    for threshold in np.round(np.arange(0, 1, 0.02), 2):
        decided = confidence >= threshold
        accuracy = float(correct[decided].mean()) if decided.any() else float("nan")
        rows.append({"threshold": float(threshold), "decided": float(decided.mean()), "accuracy": accuracy})
    return rows


def choose_threshold(confidence: np.ndarray, correct: np.ndarray, accept: float) -> tuple[float, bool]:
    """The lowest threshold at which the decided images reach an accuracy, and whether any does.

    Where none does, it is the threshold with the highest accuracy on at least a tenth of the images.
    """
    order = np.sort(np.unique(confidence))
    best, threshold = -1.0, 0.0
    for value in [0.0, *order.tolist()]:
        decided = confidence >= value
        if decided.mean() < 0.1:
            break
        accuracy = float(correct[decided].mean())
        if accuracy >= accept:
            return float(value), True
        if accuracy > best:
            best, threshold = accuracy, float(value)
    return threshold, False


def interval(hits: int, of: int) -> tuple[float, float]:
    """95 % interval of a share (Clopper and Pearson)."""
    if of == 0:
        return float("nan"), float("nan")
    found = binomtest(hits, of).proportion_ci()
    return float(found.low), float(found.high)


def macro_f1_interval(
    labels: np.ndarray, predicted: np.ndarray, classes: int, groups: Sequence[int] | None = None, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of macro-F1 by a bootstrap over groups: near-duplicates are drawn together."""
    held = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(held.max()) + 1
    each = np.zeros((count, classes * classes))
    np.add.at(each, (held, labels * classes + predicted), 1)
    rng = stream(seed, _BOOTSTRAP)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=_DRAWS)
    values = [macro_f1(row.reshape(classes, classes)) for row in drawn @ each]
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)


def summary(
    logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, temperature: float, threshold: float,
    groups: Sequence[int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Every figure of a set of predictions, as plain data."""
    probabilities = softmax(logits / temperature, axis=1)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    correct = (predicted == labels).astype(float)
    raw = softmax(logits, axis=1).max(axis=1)
    counts = confusion(labels, predicted, len(classes))
    decided = confidence >= threshold
    rows = per_class(counts)
    unknown = [int((~decided & (labels == k)).sum()) for k in range(len(classes))]
    there = [row for row in rows if row["images"]]
    kept: Mapping[str, Any] = {
        "images": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_interval": list(interval(int(correct.sum()), len(labels))),
        "macro_f1": macro_f1(counts),
        "macro_f1_interval": list(macro_f1_interval(labels, predicted, len(classes), groups)),
        "macro_precision": float(np.nan_to_num([row["precision"] for row in there]).mean()),
        "macro_recall": float(np.nan_to_num([row["recall"] for row in there]).mean()),
        "log_loss": log_loss(logits, labels, temperature),
        "ece": expected_calibration_error(confidence, correct),
        "ece_without_temperature": expected_calibration_error(raw, correct),
        "temperature": temperature,
        "threshold": threshold,
        "decided": float(decided.mean()),
        "accuracy_decided": float(correct[decided].mean()) if decided.any() else float("nan"),
        "classes": {
            name: {**row, "unknown": unknown[k]} for k, (name, row) in enumerate(zip(classes, rows, strict=True))
        },
        "confusion": counts.tolist(),
        "reliability": reliability(confidence, correct),
        "abstention": abstention(confidence, correct),
    }
    return dict(kept)
