"""Reference: what depends on a reference image alone, computed once and used for every candidate."""

from __future__ import annotations

import dataclasses
import inspect
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from semnr_kernels import checks, cnr, dists, fsim, lpips, registry

from .. import metrics as functions
from ..columns import ASKED
from ..metrics import to_numpy, to_tensor
from .rows import METRICS, Profile

__all__ = ["Reference"]

MEMORY_BUDGET = 2**30
# DISTS keeps about this much: known before the network runs, so that what does not fit is not made.
_DISTS_BYTES_PER_PIXEL = 500
_FEATURES = {"fsim": fsim, "dists": dists, "lpips": lpips}  # the ops whose features of the reference are kept
_NETWORKS = (dists.network.Network, lpips.network.Network)
# Fixed with the reference.
_FIXED = ("y", "data_range", "mask")
# Arguments of the functions that the features do not depend on.
_OF_THE_SCORE = ("reduction", "nan", "backend", "overshoot", "return_map", "details", "memory_budget")


class Reference:
    """A reference image that many candidates are scored against.

    What depends on the reference alone is computed once and kept. `Reference(y, ...).ssim(x)` is `semnr.ssim(x, y,
    ...)`, and so for every method: the same number (to 1e-12; DISTS in float32 to 1e-6, because the network then sees
    one image at a time), the same options, errors and kind of array. A gradient goes to the candidate only.

    Parameters
    ----------
    y : Tensor or ndarray, (N, C, H, W), (C, H, W) or (H, W)
        The reference. It is not copied: do not write to it afterwards.
    data_range : float, optional
        Width of the intensity scale, as in the metrics. With `mask`, it holds for every score.
    metrics : sequence of str
        What `profile` scores and `prepare` computes: some of "psnr", "ssim", "fsim", "dists", "cnr", "lpips".
    masks : (signal, background), mapping with these keys, or Masks, optional
        Bool regions for CNR. Default: Otsu's threshold on `y`.
    mask : bool array, optional
        True where a pixel is valid.
    nan, fsim_downsample, dists_weights, dists_resize, backend
        As for `semnr.profile`. They are defaults: a method takes others, as in `reference.fsim(x, downsample=2)`.
    details : bool
        More columns in `profile`.
    keep : bool
        False: compute everything anew for each candidate.
    memory_budget : int
        Bytes that may be kept. What does not fit is computed for each candidate.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.

    Notes ----- Kept from the first use on, or from `prepare`: the CNR regions (2 bytes a pixel), mean and standard
    deviation of each image, the FSIM features (two numbers a pixel at the downsampled size) and the feature maps of
    DISTS (about 500 bytes a pixel in float32) and LPIPS (26). `nbytes` says how much it is. Nothing is kept for PSNR,
    SSIM and MS-SSIM: three of the four sums under a window hold the candidate, and the reference's own sum would be
    larger than its pixels. Nothing is kept either for nan="omit", where the candidate's pixels mask those of the
    reference, nor for `details`, `return_map`, `overshoot` and weights that are a state dict.

    Any number of threads may score against one reference. It can be pickled and copied; the copy computes again what
    was kept.

    Examples
    --------
    >>> reference = semnr.Reference(clean, metrics=("psnr", "ssim", "fsim", "cnr")).prepare()
    >>> [round(float(reference.ssim(x)), 3) for x in (noisy, denoised)]
    [0.461, 0.898]
    >>> reference.mse(clean), reference.mae(clean), reference.psnr(clean)  # identical images
    (np.float64(0.0), np.float64(0.0), np.float64(inf))
    >>> round(float(reference.fsim(denoised)), 3), round(float(reference.cnr(denoised)), 1)
    (0.928, 6.1)
    >>> reference.cnr_map(denoised, window=64, stride=32).shape
    (3, 3)
    >>> [region.shape for region in reference.regions()], reference.builds_regions
    ([torch.Size([1, 1, 128, 128]), torch.Size([1, 1, 128, 128])], True)
    >>> mean, deviation = reference.fingerprint()
    >>> reference.profile(denoised, label="gaussian").label
    'gaussian'
    """

    def __init__(
        self,
        y: Any,
        *,
        data_range: float | None = None,
        metrics: Sequence[str] = METRICS,
        masks: Any = None,
        mask: Any = None,
        nan: str = "error",
        fsim_downsample: int | str = "auto",
        dists_weights: Any = None,
        dists_resize: str | None = None,
        details: bool = False,
        backend: str | None = "auto",
        keep: bool = True,
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
        for name in metrics:
            checks.choice("metrics", name, ASKED)
        checks.choice("nan", nan, ("error", "propagate", "omit"))
        if not metrics:
            raise ValueError(f"metrics is empty; accepted: some of {', '.join(map(repr, ASKED))}")
        self.numpy = isinstance(y, np.ndarray)
        self.y = to_tensor("y", y)
        if isinstance(self.y, torch.Tensor):
            self.y = self.y.detach()
        self.y4 = checks.as_image("y", self.y)
        self.data_range = checks.as_data_range(self.y.dtype, data_range)
        self.metrics, self.nan, self.details, self.backend = metrics, nan, details, backend
        self.mask = to_tensor("mask", mask)
        checks.as_mask(self.mask, self.y4)
        self.fsim_downsample, self.dists_weights, self.dists_resize = fsim_downsample, dists_weights, dists_resize
        self.memory_budget = checks.integer("memory_budget", memory_budget)
        self._keep = keep
        self._lock = threading.RLock()
        self._kept: dict[Any, Any] = {}
        self._too_large: set[Any] = set()
        self._given = _given_masks(masks)

    def __getstate__(self) -> dict[str, Any]:
        # a copy, in another process or not, has its own lock and computes again what was kept
        return {**self.__dict__, "_lock": None, "_kept": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def __len__(self) -> int:
        return len(self.y4)

    def __repr__(self) -> str:
        shape, dtype = "x".join(map(str, self.y.shape)), checks.dtype_name(self.y.dtype)
        return f"Reference({shape} {dtype}, data_range={self.data_range:g}, {self.nbytes} bytes kept)"

    @property
    def nbytes(self) -> int:
        """Bytes that are kept beside the reference itself."""
        with self._lock:
            return _nbytes(self._kept)

    # --- scores ---------------------------------------------------------------------------------------------------

    def mse(self, x: Any, **options: Any) -> Any:
        """As `semnr.mse` of `x` and the reference.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference.
        **options
            Those of `semnr.mse`, but for `y`, `data_range` and `mask`, which are the reference's own.

        Returns
        -------
        As `semnr.mse`
        """
        return self._plain(functions.mse, x, options)

    def mae(self, x: Any, **options: Any) -> Any:
        """As `semnr.mae` of `x` and the reference.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference.
        **options
            Those of `semnr.mae`, but for `y`, `data_range` and `mask`, which are the reference's own.

        Returns
        -------
        As `semnr.mae`
        """
        return self._plain(functions.mae, x, options)

    def psnr(self, x: Any, **options: Any) -> Any:
        """As `semnr.psnr` of `x` and the reference.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference.
        **options
            Those of `semnr.psnr`, but for `y`, `data_range` and `mask`, which are the reference's own.

        Returns
        -------
        As `semnr.psnr`
        """
        return self._plain(functions.psnr, x, options)

    def ssim(self, x: Any, **options: Any) -> Any:
        """As `semnr.ssim` of `x` and the reference.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference.
        **options
            Those of `semnr.ssim`, but for `y`, `data_range` and `mask`, which are the reference's own.

        Returns
        -------
        As `semnr.ssim`
        """
        return self._plain(functions.ssim, x, options)

    def ms_ssim(self, x: Any, **options: Any) -> Any:
        """As `semnr.ms_ssim` of `x` and the reference.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference; sides of at least 161 pixels by default.
        **options
            Those of `semnr.ms_ssim`, but for `y`, `data_range` and `mask`, which are the reference's own.

        Returns
        -------
        As `semnr.ms_ssim`

        Examples
        --------
        >>> reference = semnr.Reference(clean)
        >>> round(float(reference.ms_ssim(denoised, window_size=7)), 3)
        0.963
        """
        return self._plain(functions.ms_ssim, x, options)

    def fsim(self, x: Any, **options: Any) -> Any:
        """As `semnr.fsim` of `x` and the reference, whose phase congruency and gradient are kept.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference.
        **options
            Those of `semnr.fsim`, but for `y`, `data_range` and `mask`, which are the reference's own.

        Returns
        -------
        As `semnr.fsim`
        """
        return self._featured(functions.fsim, x, self._fsim_options() | options)

    def dists(self, x: Any, **options: Any) -> Any:
        """As `semnr.dists` of `x` and the reference, whose feature maps are kept: that is half of the network's work.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference.
        **options
            Those of `semnr.dists`, but for `y`, `data_range` and `mask`, which are the reference's own.

        Returns
        -------
        As `semnr.dists`

        Examples
        --------
        >>> reference = semnr.Reference(clean[:64, :64], dists_weights="random")
        >>> float(reference.dists(clean[:64, :64])) < 1e-6
        True
        """
        return self._featured(functions.dists, x, self._dists_options() | options)

    def lpips(self, x: Any, **options: Any) -> Any:
        """As `semnr.lpips` of `x` and the reference, whose feature maps are kept where there is no mask.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference.
        **options
            Those of `semnr.lpips`, but for `y`, `data_range` and `mask`, which are the reference's own.

        Returns
        -------
        As `semnr.lpips`

        Examples
        --------
        >>> reference = semnr.Reference(clean[:64, :64])
        >>> float(reference.lpips(clean[:64, :64], weights="random"))
        0.0
        """
        return self._featured(functions.lpips, x, options)

    def cnr(self, x: Any, **options: Any) -> Any:
        """As `semnr.cnr` of `x`, in the regions that were built on the reference once.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference.
        **options
            Those of `semnr.cnr`, but for `y`, `data_range` and `mask`, which are the reference's own.

        Returns
        -------
        As `semnr.cnr`
        """
        return self._plain(functions.cnr, x, self._with_regions(options))

    def cnr_map(self, x: Any, **options: Any) -> Any:
        """As `semnr.cnr_map` of `x`, in the regions that were built on the reference once.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference.
        **options
            Those of `semnr.cnr_map`, but for `y`, `data_range` and `mask`, which are the reference's own.

        Returns
        -------
        As `semnr.cnr_map`
        """
        return self._plain(functions.cnr_map, x, self._with_regions(options))

    def profile(
        self,
        x: Any,
        *,
        noise: Any = None,
        kind: str | None = None,
        tiles: Sequence[str] | None = None,
        label: str = "",
    ) -> Profile:
        """The profile of a candidate against this reference: what `semnr.profile` gives.

        Parameters
        ----------
        x : Tensor or ndarray
            The candidate, of the kind and shape of the reference.
        noise, kind, tiles, label
            As for `semnr.profile`.

        Returns
        -------
        Profile
        """
        from .score import against  # which makes a Reference of an image

        return against(self, x, noise=noise, kind=kind, tiles=tiles, label=label)

    # --- what is kept ---------------------------------------------------------------------------------------------

    def prepare(self) -> Reference:
        """Compute now what `metrics` keep, and not with the first candidate.

        Returns
        -------
        Reference
            The reference itself.
        """
        with torch.no_grad():
            self.fingerprint()
            if "cnr" in self.metrics:
                self.regions()
            for op, own in (("fsim", self._fsim_options()), ("dists", self._dists_options()), ("lpips", {})):
                if op in self.metrics and self._features_serve(op, options := self._common(own)):
                    call = registry.Call.of(op, self.y4, masked=self.mask is not None)
                    self._features(op, registry.choose(call, self.backend).backend, options)
        return self

    @property
    def builds_regions(self) -> bool:
        """Whether the regions of CNR are built here; False where they were passed as `masks`."""
        return self._given is None

    def regions(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The regions of CNR.

        Returns
        -------
        (signal, background) : tuple of bool Tensor
            Passed as `masks`, or built by Otsu's threshold on the reference.
        """
        if self._given is not None:
            return self._given
        return self._once("regions", self._build_regions)  # type: ignore[no-any-return]

    def _build_regions(self) -> tuple[torch.Tensor, torch.Tensor]:
        masks = cnr.build_masks(self.y4, checks.as_mask(self.mask, self.y4), nan=self.nan)
        return masks.signal, masks.background

    def fingerprint(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each image: enough to notice that two profiles had different references.

        Returns
        -------
        (mean, deviation) : tuple of Tensor, (N,), float64
        """
        return self._once("fingerprint", self._measure)  # type: ignore[no-any-return]

    def _measure(self) -> tuple[torch.Tensor, torch.Tensor]:
        """From the kernel that CNR takes its moments from: one read of the pixels, no copy of them."""
        n, _, height, width = self.y4.shape
        everywhere = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=self.y4.device).expand(n, 1, height, width)
        populations = registry.choose(registry.Call.of("cnr", self.y4, masked=True)).run(self.y4, everywhere)[0]
        variance = populations.variance.mean(1) + populations.mean.var(1, correction=0)
        return populations.mean.mean(1), variance.sqrt()

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._kept:
                return self._kept[key]
            with torch.inference_mode(False), torch.no_grad():
                made = make()
            if self._keep and _nbytes(self._kept) + _nbytes(made) <= self.memory_budget:
                self._kept[key] = made
            else:
                self._too_large.add(key)
            return made

    # --- how a score is made --------------------------------------------------------------------------------------

    def _common(self, options: Mapping[str, Any]) -> dict[str, Any]:
        for name in _FIXED:
            if name in options:
                raise TypeError(f"{name} is given; accepted: the reference's own, fixed when it was made")
        own = {"data_range": self.data_range, "mask": self.mask, "nan": self.nan, "backend": self.backend}
        return {**own, **options}

    def _plain(self, function: Callable[..., Any], x: Any, options: Mapping[str, Any]) -> Any:
        """The function itself, on both images."""
        options = self._common(options)
        return function(x, self.y.numpy() if self.numpy else self.y, **options)

    def _with_regions(self, options: Mapping[str, Any]) -> dict[str, Any]:
        _ = self._common(options)
        theirs = any(options.get(name) is not None for name in ("signal", "background"))
        own_rules = options.get("nan", self.nan) != self.nan or bool(options.get("details"))
        if theirs or (own_rules and self._given is None):
            return dict(options)
        return {**options, **dict(zip(("signal", "background"), self.regions(), strict=True))}

    def _featured(self, function: Callable[..., Any], x: Any, options: Mapping[str, Any]) -> Any:
        """FSIM and DISTS: from kept features where they give the function's number, else the function itself."""
        compared = self._compared(function.__name__, x, options)
        if compared is None:
            return self._plain(function, x, options)
        value = checks.reduce(compared[0], options.get("reduction", "mean"), compared[1])
        return to_numpy(value) if self.numpy else value

    def rows(self, op: str, x: Any, options: Mapping[str, Any]) -> torch.Tensor | None:
        """The scores of one op from kept features.

        Parameters
        ----------
        op : {"fsim", "dists", "lpips"}
            The metric.
        x : Tensor or ndarray
            The candidate.
        options : mapping
            Options of the metric.

        Returns
        -------
        Tensor, (N,), or None
            None where the pair is to be scored as a whole.

        Examples
        --------
        >>> reference = semnr.Reference(clean)
        >>> reference.rows("fsim", denoised, {}).shape
        torch.Size([1])
        """
        compared = self._compared(op, x, options)
        return None if compared is None else compared[0]

    def _compared(self, op: str, x: Any, options: Mapping[str, Any]) -> tuple[torch.Tensor, checks.Pair] | None:
        options = self._common(options)
        module: Any = _FEATURES[op]
        known = inspect.signature(getattr(module, op)).parameters
        usual = isinstance(x, np.ndarray) == self.numpy and all(name in known for name in options)
        if not usual or not self._features_serve(op, options):
            return None  # the function itself says what is wrong, or does what features cannot
        x = to_tensor("x", x)
        checked = checks.pair(x, self.y, data_range=self.data_range, mask=self.mask, nan=options["nan"])
        call = registry.Call.of(op, checked.x, checked.y, masked=checked.valid is not None)
        backend = registry.choose(call, options["backend"]).backend
        if (fy := self._features(op, backend, options)) is None:
            return None
        if op == "dists":
            budget = options.get("memory_budget")
            rows = dists.against(x, fy, reduction="none", nan="propagate", backend=backend, memory_budget=budget)
        elif op == "lpips":
            rows = lpips.against(x, fy, reduction="none", nan="propagate", backend=backend)
        else:
            fx = fsim.features(
                x, reference_image=None if self.mask is None else self.y, nan="propagate", backend=backend,
                **_of_the_image(options),
            )  # fmt: skip
            rows = fsim.similarity(fx, fy, backend=backend).rows
        rows = rows.reshape(-1)
        if options["nan"] == "error" and not bool(torch.isfinite(rows.detach()).all()):
            checks.raise_if_nonfinite(x=checked.x, y=checked.y)
        return rows, checked

    def _features_serve(self, op: str, options: Mapping[str, Any]) -> bool:
        if op == "lpips" and self.mask is not None:
            return False
        whole = options.get("details") or options.get("return_map") or options.get("overshoot", "keep") != "keep"
        return self._keep and options["nan"] in ("error", "propagate") and not whole

    def _features(self, op: str, backend: str, options: Mapping[str, Any]) -> Any:
        """The reference's features on one backend; None where it has none or they do not fit."""
        asked = _of_the_image(options)
        if op == "lpips":
            del asked["mask"]
        key = (op, backend, *((k, v) for k, v in sorted(asked.items()) if k not in _FIXED))
        if not all(isinstance(asked.get(name), str | os.PathLike | None) for name in ("weights", "linear")):
            return None  # tensors of the caller's own may change
        if key in self._too_large or not self._fits(op, asked):
            return None
        features = _FEATURES[op].features  # type: ignore[attr-defined]
        return self._once(key, lambda: features(self.y, nan="propagate", backend=backend, **asked))

    def _fits(self, op: str, asked: Mapping[str, Any]) -> bool:
        if op != "dists":
            return True
        n, _, height, width = self.y4.shape
        height, width = dists.reference.resized(height, width, asked.get("resize"))
        dtype = self.y.dtype if asked.get("dtype") is None else asked["dtype"]
        return n * height * width * _DISTS_BYTES_PER_PIXEL * max(4, dtype.itemsize) // 4 <= self.memory_budget

    def _fsim_options(self) -> dict[str, Any]:
        return {"downsample": self.fsim_downsample}

    def _dists_options(self) -> dict[str, Any]:
        return {"weights": self.dists_weights, "resize": self.dists_resize}


def _of_the_image(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the features of one image depend on."""
    return {k: v for k, v in options.items() if k not in _OF_THE_SCORE}


def _nbytes(kept: Any) -> int:
    """Bytes of the tensors in containers and dataclasses, each storage once; networks are not the reference's."""
    seen: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, Mapping):
            for part in value.values():
                visit(part)
        elif isinstance(value, tuple | list):
            for part in value:
                visit(part)
        elif dataclasses.is_dataclass(value) and not isinstance(value, _NETWORKS):
            for field in dataclasses.fields(value):
                visit(getattr(value, field.name))

    visit(kept)
    return sum(seen.values())


def _given_masks(masks: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    if masks is None:
        return None
    if isinstance(masks, Mapping):
        unknown = set(masks) - {"signal", "background"}
        if unknown or len(masks) != 2:
            raise ValueError(f"masks has the keys {sorted(map(str, masks))}; accepted: 'signal' and 'background'")
        masks = masks["signal"], masks["background"]
    elif hasattr(masks, "signal") and hasattr(masks, "background"):
        masks = masks.signal, masks.background
    if not isinstance(masks, tuple | list) or len(masks) != 2:
        raise TypeError(f"masks is {type(masks).__name__}; accepted: (signal, background), both bool images")
    return to_tensor("masks[0]", masks[0]), to_tensor("masks[1]", masks[1])
