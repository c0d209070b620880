"""What a classifier is worth on labelled images: figures, and the report that shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from ..base import svg
from ..reporting.page import Picture, Section, Table, picture, write_page
from . import measures
from .categories import CATEGORIES, PUBLISHED
from .images import LabelledImages
from .model import Classifier

_INK, _SOFT, _MARK = "#1f5fa8", "#9ba5b2", "#c0392b"
_STYLE = "text{font:12px sans-serif;fill:#1a1f26}"


@dataclass(frozen=True)
class Mistake:
    """An image that was taken for something else.

    Attributes
    ----------
    image : str
        Its name.
    truth, predicted : str
        Its class, and the one that was said.
    confidence : float
        With which it was said.
    thumbnail : str
        A picture of it, as a data URI.

    Examples
    --------
    >>> semnr.classify.Mistake("a.png", "Tips", "Powder", 0.9, "").predicted
    'Powder'
    """

    image: str
    truth: str
    predicted: str
    confidence: float
    thumbnail: str = field(repr=False, default="")


@dataclass(frozen=True)
class Evaluation:
    """What a classifier was worth on labelled images.

    Attributes
    ----------
    figures : mapping
        "accuracy", "macro_f1" and their 95 % intervals, "ece", "classes" (precision, recall, F1 of each), "confusion",
        "reliability", "abstention" and more.
    mistakes : tuple of Mistake
        The most confident mistakes first.
    model : str
        SHA-256 of the classifier's file.
    images : str
        Where the images are from.
    left_out : int
        Images that training or choice had seen, and that were not counted.
    problems : tuple of str
        Images that could not be read, with the reason.

    Examples
    --------
    >>> done = semnr.classify.evaluate("run", "sem")  # doctest: +SKIP
    >>> done.figures["macro_f1"], done.figures["ece"]  # doctest: +SKIP
    (0.95, 0.021)
    """

    figures: Mapping[str, Any]
    mistakes: tuple[Mistake, ...]
    model: str
    images: str
    left_out: int = 0
    problems: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """3: images could not be read. 0: all were."""
        return 3 if self.problems else 0

    def to_dict(self) -> dict[str, Any]:
        """All of it but the pictures, as plain data; published rows apart from what was measured.

        Returns
        -------
        dict

        Examples
        --------
        >>> semnr.classify.Evaluation({"accuracy": 1.0}, (), "", "sem").to_dict()["measured"]["accuracy"]
        1.0
        """
        rows = [
            {name: getattr(m, name) for name in ("image", "truth", "predicted", "confidence")} for m in self.mistakes
        ]
        return {
            "written_by": "semnr classify",
            "model_sha256": self.model,
            "images": self.images,
            "left_out": self.left_out,
            "problems": list(self.problems),
            "measured": dict(self.figures),
            "mistakes": rows,
            "published_by_others": [vars(row) for row in PUBLISHED],
        }

    def write(self, out: str | Path) -> Path:
        """Write the report as one HTML file.

        Parameters
        ----------
        out : path
            The file; an earlier page is replaced.

        Returns
        -------
        Path

        Examples
        --------
        >>> semnr.classify.evaluate("run", "sem").write("report.html")  # doctest: +SKIP
        """
        return write_page(out, "What the classifier is worth", _sections(self))

    def __str__(self) -> str:
        f = self.figures
        lines = [
            f"{f['images']} images: accuracy {f['accuracy']:.4f} ({_span(f['accuracy_interval'])}), macro-F1 "
            f"{f['macro_f1']:.4f} ({_span(f['macro_f1_interval'])}), ECE {f['ece']:.4f}",
            f"decides on {f['decided']:.1%} at a confidence of at least {f['threshold']:.3f}: accuracy "
            f"{f['accuracy_decided']:.4f}",
        ]
        if self.left_out:
            lines.append(f"{self.left_out} images were left out: training or the choice of the model had seen them")
        if self.problems:
            lines.append(f"{len(self.problems)} image(s) could not be read, the first: {self.problems[0]}")
        return "\n".join(lines)


def judged(
    classifier: Classifier, images: LabelledImages, chosen: Sequence[int], groups: Sequence[int] | None = None,
    left_out: int = 0, worst: int = 24,
) -> Evaluation:  # fmt: skip
    """The figures of some of the images, and the pictures of the worst mistakes."""
    if not len(chosen):
        raise ValueError(
            f"folder is {images.folder}, of which no image is left to judge: training or the choice of the model had "
            "seen all of them; accepted: other images, or seen=True to count them all the same"
        )
    pixels = [images.pixels[i] for i in chosen]
    labels = images.labels[list(chosen)]
    logits = classifier.logits(pixels)
    figures = measures.summary(
        logits, labels, classifier.classes, temperature=classifier.temperature, threshold=classifier.threshold,
        groups=groups,
    )  # fmt: skip
    probabilities = softmax(logits / classifier.temperature, axis=1)
    predicted = probabilities.argmax(axis=1)
    wrong = [k for k in np.argsort(-probabilities.max(axis=1)) if predicted[k] != labels[k]][:worst]
    mistakes = tuple(
        Mistake(
            images.names[chosen[k]], classifier.classes[labels[k]], classifier.classes[predicted[k]],
            round(float(probabilities[k].max()), 4), picture(pixels[k]),
        )
        for k in wrong
    )  # fmt: skip
    problems = tuple(f"{p.tile}: {p.reason}" for p in images.problems)
    return Evaluation(figures, mistakes, classifier.sha256, images.folder.name, left_out, problems)


def _sections(made: Evaluation) -> list[Section]:
    f = made.figures
    names = list(f["classes"])
    told = [
        f"{f['images']} labelled images of {made.images}, classifier {made.model[:16]}...",
        "Intervals are 95 %: of the accuracy by Clopper and Pearson, of macro-F1 by a bootstrap over groups of "
        "near-duplicates.",
    ]
    if made.left_out:
        told.append(f"{made.left_out} images were left out: training or the choice of the model had seen them.")
    if made.problems:
        told.append(f"{len(made.problems)} image(s) could not be read: {'; '.join(made.problems[:5])}")
    headline = [
        ("Accuracy", _share(f["accuracy"]), _span(f["accuracy_interval"])),
        ("Macro-F1", _share(f["macro_f1"]), _span(f["macro_f1_interval"])),
        ("Macro precision, macro recall", f"{_share(f['macro_precision'])}, {_share(f['macro_recall'])}", ""),
        ("ECE, 15 bins", f"{f['ece']:.4f}", f"{f['ece_without_temperature']:.4f} without the temperature"),
        ("Temperature", f"{f['temperature']:.3f}", "fitted on the validation images"),
        ("Decided", _share(f["decided"]), f"confidence of at least {f['threshold']:.3f}"),
        ("Accuracy on what was decided", _share(f["accuracy_decided"]), ""),
    ]
    each = [
        (name, row["images"], _share(row["precision"]), _share(row["recall"]), _share(row["f1"]), row["unknown"])
        for name, row in f["classes"].items()
    ]
    pictures = [
        Picture([m.thumbnail], f"{m.image}: {m.truth}, taken for {m.predicted} with {m.confidence:.2f}")
        for m in made.mistakes
    ]
    sections = [
        Section("Measured here", told, [Table(("Figure", "Value", ""), headline)]),
        Section(
            "By class", (),
            [Table(("Class", "Images", "Precision", "Recall", "F1", "Unknown"), each)], [_confusion(f, names)],
        ),
        Section("Confidence", ["Left: how often a stated confidence was right. Right: what abstaining buys."], (),
                [_reliability(f["reliability"]), _abstention(f["abstention"], f["threshold"])]),
        Section("Worst mistakes", [] if pictures else ["None."], pictures=pictures),
    ]  # fmt: skip
    if tuple(sorted(names)) == tuple(sorted(CATEGORIES)):
        rows = [
            (row.method, f"{row.accuracy:g}", _published(row.precision), _published(row.recall), row.split, row.source)
            for row in PUBLISHED
        ]
        head = ("Method", "Accuracy %", "Precision %", "Recall %", "Split", "Source")
        sections.append(
            Section(
                "Published by others",
                [
                    "Not measured here, on images that are not those above, and mostly on random splits, which "
                    "near-duplicates leak through: no comparison.",
                ],
                [Table(head, rows)],
            )
        )
    return sections


def _share(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"


def _span(ends: Sequence[float]) -> str:
    return f"{ends[0]:.4f} to {ends[1]:.4f}"


def _published(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _confusion(figures: Mapping[str, Any], names: Sequence[str]) -> str:
    """Rows are the truth; each cell has its count, and is as dark as its share of the row."""
    counts, cell, left, top = np.array(figures["confusion"]), 40, 220, 150
    parts = []
    for i, name in enumerate(names):
        y = top + i * cell
        parts.append(svg.element("text", svg.words(name), x=left - 8, y=y + cell / 2 + 4, text_anchor="end"))
        x = left + i * cell + cell / 2
        turned = f"rotate(-50 {x + 4:.0f} {top - 8})"
        parts.append(svg.element("text", svg.words(name), x=x + 4, y=top - 8, transform=turned))
        for j, count in enumerate(counts[i].tolist()):
            share = count / max(1, counts[i].sum())
            fill = _INK if i == j else _MARK
            at = {"x": left + j * cell, "y": y, "width": cell - 1, "height": cell - 1}
            parts.append(svg.element("rect", fill=fill, fill_opacity=f"{0.06 + 0.8 * share:.2f}", **at))
            if count:
                parts.append(
                    svg.element("text", str(count), x=left + (j + 0.5) * cell, y=y + cell / 2 + 4, text_anchor="middle")
                )
    size = cell * len(names)
    return svg.drawing(
        parts, left + size + 120, top + size + 8, "Confusion: rows the truth, columns the prediction", _STYLE
    )


def _axes(parts: list[str], left: int, top: int, size: int, across: str, up: str) -> None:
    parts.append(svg.element("rect", x=left, y=top, width=size, height=size, fill="none", stroke=_SOFT))
    for tick in (0.0, 0.5, 1.0):
        parts.append(svg.element("text", f"{tick:g}", x=left + size * tick, y=top + size + 16, text_anchor="middle"))
        parts.append(svg.element("text", f"{tick:g}", x=left - 6, y=top + size * (1 - tick) + 4, text_anchor="end"))
    parts.append(svg.element("text", across, x=left + size / 2, y=top + size + 32, text_anchor="middle"))
    parts.append(svg.element("text", up, x=left, y=top - 8))


def _reliability(rows: Sequence[Mapping[str, float]]) -> str:
    left, top, size = 44, 28, 240
    parts: list[str] = []
    _axes(parts, left, top, size, "confidence", "accuracy")
    parts.append(svg.polyline([(left, top + size), (left + size, top)], stroke=_SOFT, stroke_dasharray="4 4"))
    points = [(left + size * r["confidence"], top + size * (1 - r["accuracy"])) for r in rows]
    parts.append(svg.polyline(points, stroke=_INK, stroke_width=1.5))
    most = max((r["images"] for r in rows), default=1)
    for (x, y), row in zip(points, rows, strict=True):
        parts.append(svg.element("circle", cx=x, cy=y, r=2 + 4 * math.sqrt(row["images"] / most), fill=_INK))
    return svg.drawing(parts, left + size + 20, top + size + 40, "Reliability: accuracy over confidence", _STYLE)


def _abstention(rows: Sequence[Mapping[str, float]], threshold: float) -> str:
    left, top, size = 44, 28, 240
    parts: list[str] = []
    _axes(parts, left, top, size, "share decided", "accuracy on what is decided")
    known = [r for r in rows if math.isfinite(r["accuracy"])]
    points = [(left + size * r["decided"], top + size * (1 - r["accuracy"])) for r in known]
    parts.append(svg.polyline(points, stroke=_INK, stroke_width=1.5))
    if known:
        at = min(range(len(known)), key=lambda k: abs(known[k]["threshold"] - threshold))
        parts.append(svg.element("circle", cx=points[at][0], cy=points[at][1], r=4, fill=_MARK))
    label = "Abstention: accuracy over the share of images that are decided; red: the threshold"
    return svg.drawing(parts, left + size + 20, top + size + 40, label, _STYLE)
