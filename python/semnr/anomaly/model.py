"""A fitted model: its files, what it says of itself, and the scores that it gives to tiles.

A model is a folder with `model.json` (what it is, its checksum, the version of the format) and `model.safetensors`
(its tensors). Nothing in either runs code when it is read. The threshold lies beside them, in `threshold.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels.errors import WeightsUnavailable

from ..base.files import atomic, write_json
from ..base.jsonable import from_plain
from ..base.outputs import has_keys, replaceable
from ..noise import NoiseModel
from ..tiles.pixels import to_numpy
from .autoencoder import Autoencoding
from .coreset import Nearest
from .gaussian import Gaussians
from .measured import Measured, Scores
from .normals import grey
from .thresholds import Threshold

FORMAT = "semnr-anomaly-1"
FACTS, TENSORS, THRESHOLD, CALIBRATION = "model.json", "model.safetensors", "threshold.json", "calibration.json"
KINDS: Mapping[str, Any] = {"autoencoder": Autoencoding, "padim": Gaussians, "patchcore": Nearest}
_PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
_PICKLES = (b"PK\x03\x04", b"\x80")  # a zip of torch, a bare pickle


@dataclass(frozen=True)
class AnomalyModel:
    """A model of normal tiles, ready to score.

    Attributes
    ----------
    path : Path
        Its folder.
    facts : mapping
        What model.json says: kind, data range, noise law, layout, errors on training and held-out tiles, checksum.
    engine : object
        What computes the scores.
    threshold : Threshold or None
        The threshold beside the model, where `calibrate` has written one.

    Examples
    --------
    >>> model = semnr.anomaly.load("model")  # doctest: +SKIP
    >>> model.kind, model.data_range, model.score_name  # doctest: +SKIP
    ('autoencoder', 255.0, 'scan')
    >>> model.keep(semnr.anomaly.Threshold(6.5))  # doctest: +SKIP
    >>> model.check_range(255.0)  # another one is refused  # doctest: +SKIP
    >>> model.scores(noisy).columns["anomaly_score"]  # doctest: +SKIP
    array([4.12])
    """

    path: Path
    facts: Mapping[str, Any]
    engine: Scores = field(repr=False)
    threshold: Threshold | None = None

    @property
    def kind(self) -> str:
        """ "autoencoder", "padim" or "patchcore"."""
        return str(self.facts["kind"])

    @property
    def data_range(self) -> float:
        """Width of the intensity scale that it was fitted on; tiles of another one are refused."""
        return float(self.facts["data_range"])

    @property
    def noise(self) -> NoiseModel:
        """The noise law of the normal tiles, in grey levels."""
        return law_of(self.facts)

    @property
    def score_name(self) -> str:
        """Which statistic `anomaly_score` is."""
        return str(self.engine.score_name)

    def check_range(self, data_range: float, name: str = "data_range") -> None:
        """Refuse tiles of another intensity scale: their errors would not compare with those of the fit.

        Parameters
        ----------
        data_range : float
            Width of the tiles' scale.
        name : str
            What to call it in the message.

        Raises
        ------
        ValueError
            Another scale than the model's.
        """
        if data_range != self.data_range:
            raise ValueError(
                f"{name} is {data_range:g}, the model at {self.path} was fitted on {self.data_range:g}: errors of "
                "different ranges do not compare; accepted: tiles of the model's range, or a model fitted on this one"
            )

    def keep(self, threshold: Threshold) -> Path:
        """Put a threshold beside the model, in place of an earlier one; the model's own files stay as they are.

        Parameters
        ----------
        threshold : Threshold
            For this model's score.

        Returns
        -------
        Path
            Its file.

        Raises
        ------
        ValueError
            A threshold for another score.
        """
        if threshold.score not in ("", self.score_name):
            raise ValueError(f"threshold is for the score {threshold.score!r}; accepted: {self.score_name!r}")
        path = replaceable("threshold", self.path / THRESHOLD, "a threshold", has_keys("value", "method"))
        write_json(path, threshold.to_dict())
        return path

    def scores(self, tiles: Any, *, data_range: float | None = None, with_map: bool = False) -> Measured:
        """Score tiles that are in memory.

        Parameters
        ----------
        tiles : Tensor or ndarray, (H, W), (N, H, W) or (N, C, H, W)
            Grey levels of the model's range, sides of at least 32 px. Channels are averaged.
        data_range : float, optional
            Width of their intensity scale. Default: that of an integer dtype; required for floating tiles.
        with_map : bool
            Also the map of the score.

        Returns
        -------
        Measured
            `columns` (float, one value a tile), `texts` and `map` (N, H, W).

        Raises
        ------
        ValueError
            Tiles of another range, of no such shape, too small, or not finite.
        """
        pixels = to_numpy(tiles)
        if pixels.ndim not in (2, 3, 4):
            raise ValueError(f"tiles has shape {pixels.shape}; accepted: (H, W), (N, H, W) or (N, C, H, W)")
        top = data_range if data_range is not None else dtype_range(pixels.dtype)
        self.check_range(top)
        pixels = pixels[None] if pixels.ndim == 2 else pixels
        images = np.stack([grey(tile) for tile in pixels])
        if not np.isfinite(images).all():
            raise ValueError("tiles has non-finite pixels; accepted: finite grey levels")
        return self.engine.measure(images, with_map)


def dtype_range(dtype: np.dtype[Any]) -> float:
    """The range of an integer dtype."""
    if dtype.kind != "u":
        raise ValueError(f"data_range is missing; it is required for {dtype} tiles (for example data_range=1.0)")
    return float(np.iinfo(dtype).max)


def law_of(facts: Mapping[str, Any]) -> NoiseModel:
    """The noise law as model.json keeps it."""
    law: NoiseModel = from_plain(NoiseModel, "noise", facts["noise"])
    return law


def save(folder: Path, engine: Scores, facts: Mapping[str, Any]) -> AnomalyModel:
    """Write a model; the same tensors and facts give the same bytes. The tensors are written from where they are."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in engine.tensors().items()}
    with atomic(folder / TENSORS) as temporary:
        save_file(state, temporary, metadata={"semnr": FORMAT})
    known = {**facts, **engine.facts(), "format": FORMAT, "sha256": _checksum(folder / TENSORS)}
    write_json(folder / FACTS, known)
    return AnomalyModel(folder, _facts(folder), engine, read_threshold(folder / THRESHOLD))


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: str | Path) -> AnomalyModel:
    """Read a model that `fit` wrote.

    Parameters
    ----------
    path : str or Path
        Its folder.

    Returns
    -------
    AnomalyModel

    Raises
    ------
    WeightsUnavailable
        No model there, another version of the format, pickled code, a damaged or altered file; names the file.

    Examples
    --------
    >>> semnr.anomaly.load("nothing.pth")
    Traceback (most recent call last):
    semnr_kernels.errors.WeightsUnavailable: nothing.pth is refused: a .pth file can hold pickled code; accepted: ...
    """
    folder = Path(path)
    if folder.suffix.lower() in _PICKLED:
        raise WeightsUnavailable(
            f"{folder} is refused: a {folder.suffix} file can hold pickled code; accepted: the folder of a model, with "
            f"{FACTS} and {TENSORS}"
        )
    folder = folder.parent if folder.name in (FACTS, TENSORS) else folder
    facts = _facts(folder)
    file = folder / TENSORS
    try:
        with file.open("rb") as opened:
            begins = opened.read(9)
        digest = _checksum(file)
    except OSError as error:
        raise WeightsUnavailable(f"{file} cannot be read: {error.strerror or error}") from error
    if begins.startswith(_PICKLES) and not begins.endswith(b"{"):  # safetensors: a length of 8 bytes, then JSON
        raise WeightsUnavailable(f"{file} is refused: it holds pickled code or a torch archive; accepted: safetensors")
    if digest != facts.get("sha256"):
        raise WeightsUnavailable(
            f"{file} does not have the checksum that {FACTS} names: it is truncated, altered or of another model"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        engine = KINDS[facts["kind"]].of(facts, load_file(file), law_of(facts))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsUnavailable(f"{file} does not hold what {FACTS} says of it: {error}") from error
    return AnomalyModel(folder, facts, engine, read_threshold(folder / THRESHOLD))


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    if not path.is_file():
        raise WeightsUnavailable(f"{folder} holds no {FACTS}; accepted: a folder that `semnr anomaly fit` wrote")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsUnavailable(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        was = facts.get("format") if isinstance(facts, dict) else type(facts).__name__
        raise WeightsUnavailable(f"{path} has format {was!r}; accepted by this version of semnr: {FORMAT!r}")
    if facts.get("kind") not in KINDS:
        raise WeightsUnavailable(f"{path} has kind {facts.get('kind')!r}; accepted: {', '.join(map(repr, KINDS))}")
    return facts


def read_threshold(path: Path) -> Threshold | None:
    """The threshold in a file; None where there is no file."""
    if not path.is_file():
        return None
    try:
        return Threshold.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path} is no threshold: {error}") from error
