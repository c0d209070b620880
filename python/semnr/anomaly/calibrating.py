"""Choose the threshold of a model on tiles whose state is known, and leave what it rests on beside the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.files import write_json
from ..base.jsonable import plain
from ..base.progress import Progress
from ..tiles import Problem, TileSource, open_tiles
from .charts import calibration_chart
from .model import CALIBRATION, AnomalyModel, load
from .normals import digest, grey, usable
from .thresholds import (
    Threshold,
    auroc,
    average_precision,
    choose_threshold,
    generalisation,
    known_scores,
    populations,
    precision_recall,
)

_BATCH = 8  # tiles that are scored together
_TRUE, _FALSE = ("1", "true", "yes", "anomalous", "defect"), ("0", "false", "no", "normal", "good")


@dataclass(frozen=True)
class Calibration:
    """What a calibration found; the threshold is beside the model from then on.

    Attributes
    ----------
    threshold : Threshold
        The threshold and what may be expected of it.
    normal, anomalous : ndarray
        Scores of the tiles.
    curve : list of dict
        The precision-recall curve; empty without anomalous tiles.
    populations : mapping
        Histograms of both populations, and the gap between them.
    auroc, average_precision : float
        Over all thresholds; NaN without anomalous tiles.
    generalisation : mapping or None
        The error of these normal tiles against that of the training tiles, where the model knows its own.
    problems : tuple of Problem
        Tiles that could not be scored.

    Examples
    --------
    >>> found = semnr.anomaly.calibrate("model", "validation.zarr", "defects.zarr")  # doctest: +SKIP
    >>> print(found.threshold.statement)  # doctest: +SKIP
    """

    threshold: Threshold
    normal: np.ndarray
    anomalous: np.ndarray
    curve: list[dict[str, float]]
    populations: Mapping[str, Any]
    auroc: float
    average_precision: float
    generalisation: Mapping[str, Any] | None = None
    problems: tuple[Problem, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The calibration in plain Python, for JSON.

        Returns
        -------
        dict

        Examples
        --------
        >>> limit = semnr.anomaly.Threshold(1.0)
        >>> semnr.anomaly.Calibration(limit, np.zeros(1), np.zeros(0), [], {}, 0.5, 0.5).to_dict()["tiles"]
        {'normal': 1, 'anomalous': 0}
        """
        return {
            "threshold": self.threshold.to_dict(),
            "tiles": {"normal": int(self.normal.size), "anomalous": int(self.anomalous.size)},
            "auroc": plain(self.auroc),
            "average_precision": plain(self.average_precision),
            "curve": self.curve,
            "populations": plain(self.populations),
            "generalisation": plain(self.generalisation),
            "problems": [{"tile": p.tile, "status": p.status, "reason": p.reason} for p in self.problems],
        }


def calibrate(
    model: Any,
    normal: Any,
    anomalous: Any = None,
    *,
    label: str | None = None,
    method: str | None = None,
    recall: float = 0.95,
    cost_missed: float = 10.0,
    cost_false: float = 1.0,
    false_alarms: float = 0.01,
    confidence: float = 0.95,
    data_range: float | None = None,
    quiet: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """Choose a model's threshold and write it beside the model.

    Leaves `threshold.json`, `calibration.json` and `calibration.svg` (the precision-recall curve and both histograms)
    in the model's folder; an earlier calibration is replaced. The model itself is not changed.

    Parameters
    ----------
    model : path or AnomalyModel
        The model.
    normal : anything that `semnr.open_tiles` takes
        Normal tiles that the model was not fitted on.
    anomalous : anything that `semnr.open_tiles` takes, optional
        Tiles that must be flagged.
    label : str, optional
        Instead of `anomalous`: a column of the tiles of `normal` (of a plan, say) that tells which are anomalous, 1 or
        0, "anomalous" or "normal".
    method : {"recall", "f1", "cost", "normals"}, optional
        See `semnr.anomaly.choose_threshold`. Default: "recall" where there are anomalous tiles, else "normals".
    recall, cost_missed, cost_false, false_alarms, confidence : float
        See `semnr.anomaly.choose_threshold`.
    data_range : float, optional
        Width of the tiles' scale, as for `fit`.
    quiet : bool
        No progress on stderr.
    say : callable
        Takes a line of text at a time.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        Tiles that the model was fitted on, tiles of another range, no anomalous tile for a method that needs some, too
        few normal tiles, a label that cannot be read.

    Examples
    --------
    >>> found = semnr.anomaly.calibrate("model", "validation.zarr", false_alarms=0.01)  # doctest: +SKIP
    >>> found.threshold.method  # doctest: +SKIP
    'normals'
    """
    fitted = model if isinstance(model, AnomalyModel) else load(model)
    if label is not None and anomalous is not None:
        raise ValueError("label and anomalous are both given; accepted: one of them")
    problems: list[Problem] = []
    good, bad, errors = _scored(fitted, "normal", normal, data_range, label, problems, quiet)
    if anomalous is not None:
        bad = _scored(fitted, "anomalous", anomalous, data_range, None, problems, quiet)[0]
    labelled = label is not None or anomalous is not None
    method = method or ("recall" if labelled else "normals")
    threshold = choose_threshold(
        good, bad, method=method, recall=recall, cost_missed=cost_missed, cost_false=cost_false,
        false_alarms=false_alarms, confidence=confidence, score=fitted.score_name,
    )  # fmt: skip
    training = fitted.facts.get("error_of_training_tiles")
    told = generalisation(training, errors) if training and errors.size else None
    found = Calibration(
        threshold, good, bad, precision_recall(good, bad) if bad.size else [], populations(good, bad),
        auroc(good, bad), average_precision(good, bad), told, tuple(problems),
    )  # fmt: skip
    fitted.keep(threshold)
    write_json(fitted.path / CALIBRATION, found.to_dict())
    (fitted.path / "calibration.svg").write_text(calibration_chart(found.to_dict()), encoding="utf-8")
    say(threshold.statement)
    for line in (found.populations.get("gap_in_words"), told and told["statement"]):
        if line:
            say(str(line))
    return found


def _scored(
    model: AnomalyModel, name: str, source: Any, data_range: float | None, label: str | None, problems: list[Problem],
    quiet: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """(scores of normal tiles, of labelled anomalous ones, errors of the normal ones in units of the noise)."""
    opened = source if isinstance(source, TileSource) else open_tiles(source)
    fitted_on = set(model.facts.get("fitted_on", ()))
    known = 0
    rows: dict[bool, list[float]] = {False: [], True: []}
    errors: list[float] = []
    with Progress(f"anomaly calibrate, {name}", None, quiet=quiet) as progress:
        for keys, images, digests in _batches(model, name, opened, data_range, problems):
            known += sum(one in fitted_on for one in digests)
            if known:
                continue  # none of them is scored: they are counted, for the message
            columns = model.engine.measure(images).columns
            values = columns["anomaly_score"]
            wrong = columns.get("anomaly_mse", np.full(len(values), np.nan))
            for key, value, error in zip(keys, values, wrong, strict=True):
                anomalous = label is not None and _is_anomalous(key.meta.get(label), key.tile, label)
                rows[anomalous].append(float(value))
                if not anomalous:
                    errors.append(float(error))
            progress.advance(len(keys), images.size)
    if known:
        raise ValueError(
            f"{name} holds {known} tiles that the model was fitted on: their scores are too low, and so would the "
            "threshold be; accepted: tiles that it never saw"
        )
    total = len(rows[False]) + len(rows[True])
    if not total:
        why = f"; first {problems[0].tile}: {problems[0].reason}" if problems else ""
        raise ValueError(f"{name} has no tile that can be scored{why}; accepted: at least one")
    return np.array(rows[False]), np.array(rows[True]), known_scores("errors", np.array(errors))


def _batches(
    model: AnomalyModel, name: str, source: TileSource, data_range: float | None, problems: list[Problem]
) -> Iterator[tuple[list[Any], np.ndarray, list[str]]]:
    """Tiles of one shape together, a few at a time."""
    keys: list[Any] = []
    images: list[np.ndarray] = []
    digests: list[str] = []
    problems += source.problems
    for key, got in usable(name, source, data_range):
        if isinstance(got, Problem):
            problems.append(got)
            continue
        pixels, top = got
        model.check_range(top, f"the data range of {name}")
        image = grey(pixels)
        if images and (len(images) == _BATCH or images[0].shape != image.shape):
            yield keys, np.stack(images), digests
            keys, images, digests = [], [], []
        keys.append(key)
        images.append(image)
        digests.append(digest(image))
    if images:
        yield keys, np.stack(images), digests


def _is_anomalous(value: Any, tile: str, label: str) -> bool:
    text = str(value).strip().lower()
    text = text.removesuffix(".0")
    if text not in _TRUE + _FALSE:
        raise ValueError(
            f"label is {label!r}, and tile {tile} has {value!r} there; accepted: {', '.join(_TRUE)} or "
            f"{', '.join(_FALSE)}"
        )
    return text in _TRUE
