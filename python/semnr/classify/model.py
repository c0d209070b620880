"""A trained classifier: its file, and what it says of images."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from semnr_kernels.errors import WeightsUnavailable

from .. import backbones
from .categories import UNKNOWN
from .images import is_empty, prepared, view, without_bar

FORMAT = "semnr-classifier-1"


class Network(torch.nn.Module):
    """A backbone behind what it was trained on: grey of 0 to 1 becomes three channels, normalised."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: str, classes: int) -> None:
        super().__init__()
        mean, std = backbones.normalisation(backbone)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1), persistent=False)
        self.backbone = backbones.build(backbone, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return backbones.logits(self.backbone, (x.expand(-1, 3, -1, -1) - self.mean) / self.std)


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    Attributes
    ----------
    category : str
        The most likely class, or "unknown" where the confidence is below the threshold.
    confidence : float
        Probability of the most likely class, calibrated on the validation images.
    likeliest : str
        The most likely class in any case.
    probabilities : mapping of str to float
        Of each class.

    Examples
    --------
    >>> semnr.classify.Prediction("unknown", 0.4, "Tips", {"Tips": 0.4, "Powder": 0.35}).likeliest
    'Tips'
    """

    category: str
    confidence: float
    likeliest: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Classifier:
    """A trained classifier; `load_classifier` reads one.

    Attributes
    ----------
    network : torch.nn.Module
        Takes (N, 1, side, side) on 0 to 1 and gives logits.
    classes : tuple of str
        In the order of the logits.
    side : int
        Of its input, in pixels.
    temperature : float
        What logits are divided by before they become probabilities.
    threshold : float
        Confidence below which it abstains.
    sha256 : str
        Of its file.
    about : mapping
        What else its file says: recipe, split, figures.

    Examples
    --------
    >>> classifier = semnr.classify.load_classifier("run/best.safetensors")  # doctest: +SKIP
    >>> classifier.predict(noisy).category  # doctest: +SKIP
    'Patterned_surface'
    """

    network: torch.nn.Module
    classes: tuple[str, ...]
    side: int
    temperature: float
    threshold: float
    sha256: str
    about: Mapping[str, Any]

    @property
    def crop(self) -> str | None:
        """Whether data bars are looked for ("auto") or not (None)."""
        crop = self.about.get("recipe", {}).get("data", {}).get("crop", "auto")
        return None if crop == "none" else crop

    @property
    def kept_side(self) -> int:
        """What the short side of an image is reduced to before it is looked at."""
        return round(self.about.get("recipe", {}).get("data", {}).get("kept", 1.15) * self.side)

    def predict(self, image: np.ndarray, *, threshold: float | None = None) -> Prediction:
        """What one image shows.

        Parameters
        ----------
        image : ndarray, (H, W) or (3, H, W)
            Any size, 8 or 16 bit or floating; its grey level and contrast do not matter.
        threshold : float, optional
            In place of the model's own.

        Returns
        -------
        Prediction

        Examples
        --------
        >>> classifier.predict(noisy, threshold=0.9).confidence  # doctest: +SKIP
        0.97
        """
        grey, _ = without_bar(np.asarray(image), None, self.crop)
        return self.of_prepared([prepared(grey, self.kept_side)], threshold=threshold)[0]

    def logits(self, images: Sequence[np.ndarray], batch: int = 64) -> np.ndarray:
        """(N, classes) float64 of prepared images; the squares of a long image are averaged.

        Parameters
        ----------
        images : sequence of ndarray
            As `semnr.classify.images.prepared` makes them.
        batch : int
            How many squares go through the network at once.

        Returns
        -------
        ndarray

        Examples
        --------
        >>> classifier.logits([]).shape  # doctest: +SKIP
        (0, 10)
        """
        return run(self.network, images, self.side, batch, len(self.classes))

    def of_prepared(self, images: Sequence[np.ndarray], *, threshold: float | None = None) -> list[Prediction]:
        """Predictions of prepared images; of an image that shows one level only, nothing is known.

        Parameters
        ----------
        images : sequence of ndarray
            As `semnr.classify.images.prepared` makes them.
        threshold : float, optional
            In place of the model's own.

        Returns
        -------
        list of Prediction

        Examples
        --------
        >>> classifier.of_prepared([])  # doctest: +SKIP
        []
        """
        least = self.threshold if threshold is None else threshold
        probabilities = softmax(self.logits(images) / self.temperature, axis=1)
        made = []
        for image, row in zip(images, probabilities, strict=True):
            if is_empty(image):
                row = np.full(len(row), 1 / len(row))
            best = int(row.argmax())
            sure = row[best] >= least and not is_empty(image)
            named = {name: float(p) for name, p in zip(self.classes, row, strict=True)}
            made.append(
                Prediction(self.classes[best] if sure else UNKNOWN, float(row[best]), self.classes[best], named)
            )
        return made


def run(network: torch.nn.Module, images: Sequence[np.ndarray], side: int, batch: int, classes: int) -> np.ndarray:
    """(N, classes) logits of prepared images, the squares of each averaged."""
    device = next(network.parameters()).device
    out = np.zeros((len(images), classes))
    for first in range(0, len(images), batch):
        views = [view(image, side) for image in images[first : first + batch]]
        with torch.inference_mode():
            made = network(torch.cat(views).to(device)).double().cpu().numpy()
        ends = np.cumsum([len(v) for v in views])
        out[first : first + len(views)] = [part.mean(axis=0) for part in np.split(made, ends[:-1])]
    return out


def save_classifier(
    network: torch.nn.Module, path: Path, *, backbone: str, classes: Sequence[str], side: int,
    temperature: float, threshold: float, about: Mapping[str, Any],
) -> str:  # fmt: skip
    """Write a classifier; returns the file's SHA-256. The same tensors and facts give the same bytes."""
    from safetensors.torch import save_file

    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    facts = {
        **about, "format": FORMAT, "backbone": backbone, "classes": list(classes), "side": side,
        "temperature": temperature, "threshold": threshold,
    }  # fmt: skip
    part = path.with_name(path.name + ".part")
    save_file(state, str(part), metadata={"semnr": json.dumps(facts, sort_keys=True)})
    part.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_classifier(path: str | Path) -> Classifier:
    """A trained classifier from its file, or from the folder of its training.

    Parameters
    ----------
    path : path
        best.safetensors of `semnr classify train`, or the folder that holds it.

    Returns
    -------
    Classifier

    Raises
    ------
    WeightsUnavailable
        No such file, pickled code, another kind or version of file, or a damaged one.
    ImportError
        Its backbone needs torchvision or timm.

    Examples
    --------
    >>> semnr.classify.load_classifier("nothing.safetensors")
    Traceback (most recent call last):
    semnr_kernels.errors.WeightsUnavailable: model is nothing.safetensors, which does not exist; accepted: ...
    """
    file = Path(path)
    file = file / "best.safetensors" if file.is_dir() else file
    accepted = "best.safetensors of `semnr classify train`, or its folder"
    if not file.is_file():
        raise WeightsUnavailable(f"model is {file}, which does not exist; accepted: {accepted}")
    if file.suffix != ".safetensors":
        raise WeightsUnavailable(
            f"model is {file}: a {file.suffix or 'nameless'} file may hold pickled code and is not read; "
            f"accepted: {accepted}"
        )
    stat = file.stat()
    return _load(file.absolute(), stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=2)
def _load(path: Path, mtime_ns: int, size: int) -> Classifier:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        about = json.loads(meta.get("semnr", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsUnavailable(f"model {path} cannot be read: {error}") from error
    if about.get("format") != FORMAT:
        raise WeightsUnavailable(
            f"model {path} has format {about.get('format')!r}; accepted: {FORMAT!r}, as `semnr classify train` of this "
            "version writes it"
        )
    try:
        classes = tuple(map(str, about["classes"]))
        network = Network(str(about["backbone"]), len(classes))
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise WeightsUnavailable(f"model {path} does not fit its own description: {reason}") from error
    if bad := [key for key, value in state.items() if not bool(torch.isfinite(value.float()).all())]:
        raise WeightsUnavailable(f"model {path}: {bad[0]!r} has non-finite values")
    network.eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Classifier(
        network, classes, int(about["side"]), float(about["temperature"]), float(about["threshold"]), digest, about
    )
