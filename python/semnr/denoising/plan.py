"""From the arguments of a call to a runner: the noise is estimated once, the model is built, everything is fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..noise.model import NoiseModel, fit_noise
from ..noise.stabilise import Stabiliser
from .model import Model, Setting
from .models import find
from .tiled import Runner

UNTOUCHED = "no noise was measured, so nothing was removed: give sigma= (--set sigma=...) where there is some"
Samples = Callable[[], list[np.ndarray]]  # reads windows of the run; called only where something is estimated


@dataclass(frozen=True)
class Plan:
    """What a run, or one image of it, is denoised with."""

    runner: Runner
    noise: NoiseModel | None
    sigma: float | None  # in grey levels; None where the model asks for none
    vst: bool
    remarks: tuple[str, ...] = ()  # on this input, as an input of this model


@dataclass(frozen=True)
class Request:
    """The caller's choices, checked."""

    model: Model
    params: Mapping[str, Any]
    vst: str | bool
    noise: str | NoiseModel
    data_range: float | None
    halo: int | None

    @property
    def looks(self) -> bool:
        """Whether a plan needs sample windows of the run."""
        return self.model.by_sigma or self.model.by_law or self.vst is True

    def plan(self, samples: Samples) -> Plan:
        """Estimate what has to be estimated, from sample windows, and fix it."""
        given = self.params.get("sigma") if self.model.by_sigma else None
        needs_noise = (self.model.by_sigma and given is None) or self.model.by_law or self.vst is True
        windows: list[np.ndarray] = []

        def read() -> list[np.ndarray]:
            if not windows:
                windows.extend(samples())
            return windows

        noise = self.noise if isinstance(self.noise, NoiseModel) else None
        if needs_noise and noise is None:
            noise = self._estimate(read())
        stabiliser = self._stabiliser(noise, given)
        level = given
        if self.model.by_sigma and level is None and noise is not None:
            # a law that was given says nothing of the levels that it is used at
            level = float(noise.sigma(None if noise.counts else np.mean([window.mean() for window in read()])))
        sigma = 1.0 if stabiliser else level or 0.0
        if self.model.by_sigma and sigma == 0:  # a noise-free image: nothing to remove
            told = () if noise is None else noise.remarks
            return Plan(Runner(lambda x: x, 0, 1, self.data_range), noise, 0.0, False, (*told, UNTOUCHED))
        forward = stabiliser.forward if stabiliser else lambda x: x
        built = self.model.build(
            Setting(self.params, sigma, noise, lambda: [forward(window.astype(np.float64)) for window in read()])
        )
        halo = built.halo if self.halo is None else self.halo
        if self.model.exact_tiling and halo < built.halo:
            raise ValueError(
                f"halo is {halo}; accepted for model {self.model.name!r} with these parameters: at least {built.halo}, "
                "or None for just that (less would leave seams)"
            )
        halo = math.ceil(halo / built.align) * built.align
        apply = built.apply
        if stabiliser is not None:
            apply = _stabilised(built.apply, stabiliser)
        runner = Runner(apply, halo, built.align, self.data_range, None if stabiliser else built.there)
        told = () if noise is None else noise.remarks
        return Plan(runner, noise, level, stabiliser is not None, (*told, *built.remarks))

    def _estimate(self, windows: list[np.ndarray]) -> NoiseModel:
        large = [window for window in windows if min(window.shape) >= 5]
        if not large:
            sizes = sorted({window.shape for window in windows})[:3]
            raise ValueError(
                f"src is too small to take its noise from (shape {sizes}); accepted: at least 5 x 5 pixels, "
                "or the noise given as sigma= or noise=NoiseModel(...)"
            )
        top, kind = self.data_range, large[0].dtype
        if top is None and kind.kind == "u":
            top = float(np.iinfo(kind).max)
        return fit_noise(large, data_range=top, name="src")

    def _stabiliser(self, noise: NoiseModel | None, given: float | None) -> Stabiliser | None:
        if self.vst is False or noise is None or (self.vst == "auto" and given is not None):
            return None
        if self.vst is True and noise.gain <= 0:
            raise ValueError(
                f"vst is True, but the noise does not grow with the signal (gain {noise.gain:.3g}); "
                "accepted here: 'auto' or False"
            )
        wanted = self.vst is True or (self.model.by_sigma and noise.signal_dependent and noise.stabilisable)
        return Stabiliser(noise.gain, noise.offset) if wanted else None


def _stabilised(
    apply: Callable[[np.ndarray], np.ndarray], stabiliser: Stabiliser
) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: stabiliser.inverse(apply(stabiliser.forward(x)))


def request(
    model: object, params: Mapping[str, Any], vst: object, noise: object, data_range: object, halo: object
) -> Request:
    """Check what does not need the pixels."""
    chosen = find(model)
    checked = chosen.parameters(params)
    if not isinstance(vst, bool) and vst != "auto":
        raise ValueError(f"vst is {vst!r}; accepted: 'auto', True, False")
    if not isinstance(noise, NoiseModel) and noise not in ("run", "image"):
        raise ValueError(f"noise is {noise!r}; accepted: 'run', 'image' or a NoiseModel (of semnr.denoising)")
    if vst is True and chosen.by_law:
        raise ValueError(
            f"vst is True, but model {chosen.name!r} takes the noise law itself; accepted: 'auto' or False"
        )
    if vst is True and checked.get("sigma") is not None and chosen.by_sigma:
        raise ValueError(
            f"sigma is {checked['sigma']:g} and vst is True; accepted: one of them "
            "(stabilised noise has sigma 1; give noise=NoiseModel(gain, offset) to set its law)"
        )
    if data_range is not None:
        if isinstance(data_range, bool) or not isinstance(data_range, int | float | np.number):
            raise TypeError(f"data_range is {type(data_range).__name__}; accepted: a positive number or None")
        if not math.isfinite(float(data_range)) or data_range <= 0:
            raise ValueError(f"data_range is {data_range}; accepted: a finite number above 0")
        data_range = float(data_range)
    if halo is not None and (isinstance(halo, bool) or not isinstance(halo, int) or halo < 0):
        raise ValueError(f"halo is {halo!r}; accepted: an integer of at least 0, or None for the model's own")
    return Request(chosen, checked, vst, noise, data_range, halo)  # type: ignore[arg-type]
