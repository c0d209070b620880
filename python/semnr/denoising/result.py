"""What a run over a source of tiles did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..noise import NoiseModel
from ..runs import Run
from ..tiles import Problem


@dataclass(frozen=True, repr=False)
class Denoised:
    """What a denoising run over a source did.

    Attributes
    ----------
    out : str
        Where the denoised tiles are.
    source, origin : str
        Name of the source; where it lies seen from `out`, or what its first tile holds.
    model : str
        Name of the model, or path of its weights.
    weights : str or None
        SHA-256 of the weights of a learned model.
    params : dict
        Parameters of the model.
    role : str
        The role that was denoised.
    data_range : float or None
        Upper end of the intensity scale.
    vst : bool or None
        Whether the variance was stabilised; None: decided for each image.
    sigma : float or None
        Standard deviation of the noise, where the model takes one.
    noise : NoiseModel or None
        The noise law of the run.
    halo, tile : int
        Pixels read around a window, and the side of a window.
    exact_tiling : bool
        Whether tiles equal the whole image.
    counts : dict
        How many tiles of each status.
    crop : "auto", tuple or None
        What of each image was denoised: all but its data bar, a box, or all of it.
    mask : str or None
        SHA-256 of the mask outside of which pixels were left as they were.
    problems : tuple of Problem
        Tiles that were left out, with the reason.
    seconds : float
        How long it took.
    remarks : tuple of str
        What a reader should know, such as an input unlike the training of the network.
    kept : int
        Tiles of an interrupted run that this one went on with.
    run : Run or None
        The scores, with `score=`.

    Examples
    --------
    >>> done = semnr.denoise(np.stack([noisy, second]), "clean.zarr", model="gaussian")
    >>> done.counts["ok"], done.exit_code, done.to_dict()["model"]
    (2, 0, 'gaussian')
    """

    out: str
    source: str
    origin: str  # where it lies, seen from `out`, or what its first tile holds: names of sources repeat
    model: str
    weights: str | None  # SHA-256 of a learned model's
    params: dict[str, Any]
    role: str  # of the source, that was denoised
    data_range: float | None
    vst: bool | None  # None: decided for each image
    sigma: float | None
    noise: NoiseModel | None
    halo: int | None
    tile: int
    exact_tiling: bool
    counts: dict[str, int]
    crop: Any = None  # what of each image was denoised: "auto", a box, or None for all of it
    mask: str | None = None  # SHA-256 of the mask
    problems: tuple[Problem, ...] = field(default=())
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()  # such as an input outside the noise family that a network was trained on
    kept: int = 0  # tiles of an earlier run that this one went on with
    run: Run | None = None  # the scores, with score=True

    @property
    def exit_code(self) -> int:
        """0: every tile is there. 1: a rule fired on the scores. 3: tiles were left out."""
        if self.run is not None and self.run.exit_code:
            return self.run.exit_code
        return 3 if self.problems or not self.counts.get("ok") else 0

    def __repr__(self) -> str:
        done, scored = f"{self.counts.get('ok', 0)} of {self.counts.get('tiles', 0)} tiles", f", scored: {self.run!r}"
        return f"<Denoised by {self.model} at {self.out}: {done}{'' if self.run is None else scored}>"

    def to_dict(self) -> dict[str, Any]:
        """The record in plain Python, for JSON.

        Returns
        -------
        dict
        """
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["noise"] = None if self.noise is None else self.noise.to_dict()
        plain["run"] = None if self.run is None else str(self.run.path)
        plain["problems"] = [{"tile": p.tile, "status": p.status, "reason": p.reason} for p in self.problems]
        return plain
