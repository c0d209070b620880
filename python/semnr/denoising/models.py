"""The denoisers by name: what each computes, its parameters, and how far around a pixel it looks.

A model is built once per run, from parameters and the noise of the run, into a filter with everything fixed:
nothing is estimated from the window that a filter happens to get, which is what makes tiled results equal whole
ones.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semnr.noise.model import NoiseModel

Filter = Callable[[np.ndarray], np.ndarray]  # (h, w) float64 -> (h, w) float64


@dataclass(frozen=True)
class Setting:
    """What a model is built for."""

    params: Mapping[str, Any]
    sigma: float  # the noise's standard deviation in the units the filter sees; 0: nothing to remove
    noise: NoiseModel | None
    samples: Callable[[], list[np.ndarray]]  # windows of the run, in the units the filter sees


@dataclass(frozen=True)
class Built:
    """A filter with every parameter fixed."""

    apply: Filter
    halo: int  # pixels around a pixel that its result depends on
    align: int = 1  # a window must start at a multiple of this
    remarks: tuple[str, ...] = ()  # what the reader of the result should know of this input


@dataclass(frozen=True)
class Model:
    """One denoiser of the registry.

    `exact_tiling`: tiles with their halo give the result of the whole image, within 1e-6.
    `by_sigma`: takes the noise's sigma (estimated, or the parameter `sigma`) and expects it uniform, so that
    variance stabilisation applies. `by_law`: takes the noise law itself, and so no stabilisation.
    """

    name: str
    build: Callable[[Setting], Built]
    defaults: Mapping[str, Any]
    summary: str
    by_sigma: bool = False
    by_law: bool = False
    exact_tiling: bool = True
    checks: Mapping[str, Callable[[str, Any], Any]] = field(default_factory=dict)
    checksum: Callable[[], str | None] = lambda: None  # of the weights, where there are any

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults with what was given, checked."""
        unknown = sorted(set(given) - set(self.defaults))
        if unknown:
            raise TypeError(
                f"{unknown[0]} is no parameter of model {self.name!r}; accepted: "
                + ", ".join(f"{name}={value!r}" for name, value in self.defaults.items())
            )
        params = {**self.defaults, **given}
        return {name: self.checks[name](name, value) for name, value in params.items()}


def find(name: object) -> Model:
    """A classical model by name, or a learned one by its name or the path of its weights."""
    from semnr.denoising.weights import NAMES, is_learned

    if is_learned(name):
        from semnr.denoising import learned

        return learned.model(str(name))
    if not isinstance(name, str) or name not in MODELS:
        raise ValueError(
            f"model is {name!r}; accepted: {', '.join(map(repr, (*MODELS, *NAMES)))}, a path of .safetensors weights"
        )
    return MODELS[name]


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} is {type(value).__name__}; accepted: a number above 0")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is {value}; accepted: a finite number above 0")
    return float(value)


def _positive_or_none(name: str, value: Any) -> float | None:
    return None if value is None else _positive(name, value)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} is {value!r}; accepted: an integer of at least 1")
    return int(value)


def _odd(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1 or value % 2 == 0:
        raise ValueError(f"{name} is {value!r}; accepted: an odd integer of at least 1")
    return int(value)


def _gaussian(setting: Setting) -> Built:
    from scipy import ndimage

    sigma = setting.params["sigma"]
    radius = int(4 * sigma + 0.5)
    return Built(lambda x: ndimage.gaussian_filter(x, sigma, mode="reflect", radius=radius), radius)


def _median(setting: Setting) -> Built:
    from scipy import ndimage

    size = setting.params["size"]
    return Built(lambda x: ndimage.median_filter(x, size, mode="reflect"), size // 2)


def _nlm(setting: Setting) -> Built:
    from skimage.restoration import denoise_nl_means

    params = setting.params
    patch, distance, sigma = params["patch_size"], params["patch_distance"], setting.sigma
    h = params["strength"] * sigma

    def apply(x: np.ndarray) -> np.ndarray:
        # float64: the patch distances come from running sums over the whole window
        return denoise_nl_means(
            x, patch, distance, h=h, sigma=sigma, fast_mode=True, preserve_range=True, channel_axis=None
        )

    return Built(apply, distance + patch // 2 + 1)


def _tv(setting: Setting) -> Built:
    from skimage.restoration import denoise_tv_chambolle

    weight, iterations = setting.params["strength"] * setting.sigma, setting.params["iterations"]
    # Each iteration looks one pixel further. eps=0: the usual stop looks at the energy of all pixels, which
    # would make the number of iterations, and so the result, depend on the window.
    return Built(lambda x: denoise_tv_chambolle(x, weight, eps=0.0, max_num_iter=iterations), iterations + 1)


def _bm3d(setting: Setting) -> Built:
    try:
        import bm3d
    except ImportError as error:
        raise ImportError(
            "model 'bm3d' needs the package bm3d, which is not installed: pip install 'semnr[bm3d]' "
            "(its licence allows non-commercial use only); models that need nothing more: "
            + ", ".join(repr(name) for name in MODELS if name != "bm3d")
        ) from error
    warnings.warn(
        "model 'bm3d' runs the package bm3d, whose licence allows non-commercial use only", UserWarning, stacklevel=2
    )
    sigma, noise = setting.params["strength"] * setting.sigma, setting.noise
    alone = threading.Lock()  # the package keeps one pool of threads, which takes one call at a time

    def apply(x: np.ndarray) -> np.ndarray:
        psd = line_spectrum(noise.correlation if noise else (), x.shape[1])
        try:
            with alone:
                return np.asarray(bm3d.bm3d(x, sigma**2 * x.size * np.tile(psd, (x.shape[0], 1))), dtype=np.float64)
        except AttributeError as error:  # bm4d 4.2.5 calls numpy.trapz, which NumPy 2.4 no longer has
            raise ImportError(
                f"the installed bm3d does not run with NumPy {np.__version__} ({error}); pip install 'numpy<2.4'"
            ) from error

    return Built(apply, 48)


def line_spectrum(correlation: tuple[float, ...], width: int) -> np.ndarray:
    """Power spectrum along a line of noise of this autocorrelation (lags 1, 2, ...), mean 1."""
    row = np.zeros(width)
    row[0] = 1.0
    for lag, value in enumerate(correlation[: max(0, (width - 1) // 2)], start=1):
        row[lag] = row[-lag] = max(value, 0.0)
    spectrum = np.maximum(np.fft.fft(row).real, 0.0)
    return spectrum / spectrum.mean()


def _wavelet(setting: Setting) -> Built:
    from semnr.denoising import wavelet as module

    return module.build(setting)


_SIGMA = {"strength": _positive, "sigma": _positive_or_none}

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            "gaussian",
            _gaussian,
            {"sigma": 1.5},
            "Gaussian filter of `sigma` px, cut at 4 sigma; over-smooths on purpose",
            checks={"sigma": _positive},
        ),
        Model("median", _median, {"size": 5}, "median over size x size pixels", checks={"size": _odd}),
        Model(
            "nlm",
            _nlm,
            {"strength": 0.8, "sigma": None, "patch_size": 7, "patch_distance": 6},
            "non-local means (scikit-image, fast mode), h = strength x sigma",
            by_sigma=True,
            checks={**_SIGMA, "patch_size": _odd, "patch_distance": _count},
        ),
        Model(
            "wavelet",
            _wavelet,
            {"strength": 1.2, "sigma": None, "wavelet": "db2", "levels": 3, "shifts": 4},
            "BayesShrink soft thresholds, averaged over shifts x shifts grids; thresholds follow the noise's spectrum",
            by_sigma=True,
            checks={**_SIGMA, "wavelet": lambda _, value: value, "levels": _count, "shifts": _count},
        ),
        Model(
            "tv",
            _tv,
            {"strength": 1.2, "sigma": None, "iterations": 50},
            "total variation (Chambolle, scikit-image), weight = strength x sigma, a fixed number of iterations",
            by_sigma=True,
            checks={**_SIGMA, "iterations": _count},
        ),
        Model(
            "bm3d",
            _bm3d,
            {"strength": 1.0, "sigma": None},
            "BM3D with the noise's spectrum along the scan (package bm3d, non-commercial licence); "
            "its block grid starts at the window: tiles differ from the whole (rms 0.6, at most 14 of 255 grey levels)",
            by_sigma=True,
            exact_tiling=False,
            checks=_SIGMA,
        ),
    )
}
