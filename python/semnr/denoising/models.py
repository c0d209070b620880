"""The denoisers by name; of the classical ones the formula, the parameters and the reach around a pixel."""

from __future__ import annotations

import math
import threading
import warnings
from typing import Any

import numpy as np

from ..noise.model import line_spectrum
from . import learned, wavelet
from .model import Built, Model, Setting
from .weights import NAMES, is_learned


def find(name: object) -> Model:
    """A classical model by name, or a learned one by its name or the path of its weights."""
    if is_learned(name):
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
            wavelet.build,
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
