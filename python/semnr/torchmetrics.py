"""The metrics as `torchmetrics.Metric`s: update / compute over a stream of batches, on one process or many.

`update(x, y)` takes a candidate and a reference as the functions do (`semnr.ssim`, ...) and adds sums, in float64, to
the state: two halves of a stream, merged or synchronised over processes, give the value of the whole stream up to the
last bits of a float64 sum. Every image counts once, whatever its batch. Images without a value are never averaged in
and never dropped in silence: `summary()` counts the undefined (NaN) and the infinite ones beside the mean. Under
nan="propagate" a NaN makes the mean NaN. Under autocast a float16 or bfloat16 candidate is taken against a float32
target, both in the wider dtype.

data_range : float
    Width of the intensity scale, required (CNR: optional, it does not enter).
keep_rows : bool
    Keep one number an image, for `rows()`; images are never stored. Default: False, running sums alone.
Other keywords
    Those of the metric go to it as they are; those of `torchmetrics.Metric` (`dist_sync_on_step`, `process_group`,
    ...) go there. TypeError for any other.

Needs torchmetrics: ``pip install 'semnr[torchmetrics]'``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch

import semnr_kernels as kernels
from semnr_kernels import checks

try:
    from torchmetrics import Metric  # absolute: the installed package, not this module
except ImportError as error:
    raise ImportError(
        f"semnr.torchmetrics needs torchmetrics, which does not import here ({error}): "
        "pip install 'semnr[torchmetrics]'"
    ) from error

__all__ = ["CNR", "DISTS", "FSIM", "LPIPS", "MSSSIM", "PSNR", "SSIM"]

_METRIC_KEYWORDS = (
    "compute_on_cpu",
    "dist_sync_on_step",
    "process_group",
    "dist_sync_fn",
    "distributed_available_fn",
    "sync_on_compute",
    "compute_with_cache",
)
# Decided here, or given to update().
_NOT_OPTIONS = {"x", "y", "mask", "data_range", "reduction", "return_map", "components", "details"}


class _Mean(Metric):
    """Mean over images of one value an image."""

    is_differentiable = True
    higher_is_better = True
    full_state_update = False

    if TYPE_CHECKING:  # TorchScript reads the annotations of a class, and no strings
        _kernel: ClassVar[Callable[..., Any]]
        total: torch.Tensor
        finite: torch.Tensor
        infinite: torch.Tensor
        undefined: torch.Tensor
        kept: Any  # with keep_rows: (images, 2) of place and value

    _per_update = frozenset[str]()  # keywords of the kernel that belong to update()
    _needs_range = True

    def __init__(self, data_range: float | None, **options: Any) -> None:
        super().__init__(**{name: options.pop(name) for name in _METRIC_KEYWORDS if name in options})
        keep_rows = checks.option("keep_rows", "bool", options.pop("keep_rows", False))
        kernel = type(self)._kernel
        accepted = sorted(set(inspect.signature(kernel).parameters) - _NOT_OPTIONS - self._per_update)
        for name in options:
            if name not in accepted:
                raise TypeError(f"{type(self).__name__} got {name!r}; accepted: {', '.join([*accepted, 'keep_rows'])}")
        unstated = data_range is None and not self._needs_range
        self.data_range = None if unstated else checks.as_data_range(torch.float32, data_range)
        self.options = options
        for name in ("finite", "infinite", "undefined"):
            self.add_state(name, torch.zeros((), dtype=torch.int64, device="cpu"), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64, device="cpu"), dist_reduce_fx="sum")
        # MetricCollection shares one state between metrics whose states look equal after the first batch (identical
        # images: SSIM = FSIM = 1), and merge_state adds whatever has the same names. A name of its own for each
        # class and setting keeps unlike metrics apart in both.
        self.add_state(
            f"of_{self._fingerprint()}", torch.zeros((), dtype=torch.int64, device="cpu"), dist_reduce_fx="sum"
        )
        self.keep_rows = keep_rows
        if keep_rows:
            self.add_state("kept", [], dist_reduce_fx="cat")

    def _fingerprint(self) -> str:
        facts = (type(self).__name__, self.data_range, _shown(self.options))
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def _rows(self, x: torch.Tensor, y: torch.Tensor | None, **extra: Any) -> torch.Tensor:
        options = {**self.options, **{name: value for name, value in extra.items() if value is not None}}
        x, y = (x, y) if y is None else checks.promoted(x, y)
        rows = type(self)._kernel(x, y, data_range=self.data_range, reduction="none", **options)
        return rows.reshape(-1)

    def update(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None, index: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        x, y : Tensor, (N, C, H, W), (C, H, W) or (H, W)
            Candidate and reference.
        mask : bool Tensor, optional
            True where a pixel is valid.
        index : int or Tensor of int, (N,), optional
            With keep_rows=True, the place of each image in the data set: `rows()` is in that order.

        Examples
        --------
        >>> import torch
        >>> metric = semnr.torchmetrics.SSIM(data_range=255)
        >>> metric.update(torch.from_numpy(denoised), torch.from_numpy(clean))
        """
        self._add(self._rows(x, y, mask=mask), index)

    def _add(self, rows: torch.Tensor, index: Any = None) -> None:
        self._keep(rows, index)
        undefined, infinite = torch.isnan(rows), torch.isinf(rows)
        if self.options.get("nan") == "propagate":
            undefined = torch.zeros_like(undefined)
        left_out = undefined | infinite
        self.total = self.total + torch.where(left_out, 0.0, rows).sum()
        self.finite = self.finite + (~left_out).sum()
        self.infinite = self.infinite + infinite.sum()
        self.undefined = self.undefined + undefined.sum()

    def _keep(self, rows: torch.Tensor, index: Any) -> None:
        if not self.keep_rows:
            if index is not None:
                raise ValueError("index is given, but no rows are kept; accepted: keep_rows=True, or index=None")
            return
        places = torch.full_like(rows, -1.0) if index is None else torch.as_tensor(index, device=rows.device).double()
        if places.numel() != rows.numel():
            raise ValueError(f"index has {places.numel()} places for {rows.numel()} images; accepted: one an image")
        self.kept.append(torch.stack((places.reshape(-1), rows.detach().double()), dim=1))

    def rows(self) -> torch.Tensor:
        """One value an image, over every process; needs keep_rows=True.

        Returns
        -------
        Tensor, (images,) float64
            In the order of the `index` given to `update`; without one, in that of the updates, process after process.
            A place that comes twice, as of a sampler that fills up the last batch, gives one row.

        Raises
        ------
        RuntimeError
            The metric was made without keep_rows=True.

        Examples
        --------
        >>> import torch
        >>> metric = semnr.torchmetrics.SSIM(data_range=255, keep_rows=True)
        >>> for place, image in ((1, noisy), (0, denoised)):
        ...     metric.update(torch.from_numpy(image), torch.from_numpy(clean), index=place)
        >>> metric.rows().round(decimals=2)
        tensor([0.9000, 0.4600], dtype=torch.float64)
        """
        if not self.keep_rows:
            raise RuntimeError(f"{type(self).__name__} keeps no rows; accepted: {type(self).__name__}(keep_rows=True)")
        if isinstance(self.kept, list) and not self.kept:  # a process without images still takes part
            self.kept.append(torch.zeros((0, 2), dtype=torch.float64, device=self.device))
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            kept: Any = self.kept
            table = torch.cat(kept) if isinstance(kept, list) else kept
        placed = table[:, 0] >= 0
        if not placed.any():
            return table[:, 1]
        if not placed.all():
            raise ValueError("some updates gave an index and some none; accepted: an index with each, or with none")
        order = torch.argsort(table[:, 0], stable=True)
        table = table[order]
        first = torch.ones(len(table), dtype=torch.bool, device=table.device)
        first[1:] = table[1:, 0] != table[:-1, 0]
        return table[first, 1]

    def compute(self) -> torch.Tensor:
        """The mean of all images so far.

        Returns
        -------
        Tensor, float64
            Mean of the finite values; NaN where there is none.

        Examples
        --------
        >>> import torch
        >>> metric = semnr.torchmetrics.SSIM(data_range=255)
        >>> metric.update(torch.from_numpy(clean), torch.from_numpy(clean))
        >>> metric.compute().item()
        1.0
        """
        return self._mean()

    def _mean(self) -> torch.Tensor:
        return self.total / self.finite

    def summary(self) -> dict[str, float | int]:
        """The mean and the counts behind it, over every process.

        Returns
        -------
        dict
            "mean", "images", "infinite" and "undefined" (NaN): images without a finite value are counted apart.

        Examples
        --------
        >>> import torch
        >>> metric = semnr.torchmetrics.SSIM(data_range=255)
        >>> metric.update(torch.from_numpy(clean), torch.from_numpy(clean))
        >>> metric.summary()
        {'mean': 1.0, 'images': 1, 'infinite': 0, 'undefined': 0}
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self.sync_on_compute):
            return self._summary()

    def _summary(self) -> dict[str, float | int]:
        infinite, undefined = int(self.infinite), int(self.undefined)
        images = int(self.finite) + infinite + undefined
        return {"mean": float(self._mean()), "images": images, "infinite": infinite, "undefined": undefined}


def _shown(value: Any) -> Any:
    """An option as text that is the same for the same value alone, on every process."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        return (
            str(value.dtype),
            tuple(value.shape),
            hashlib.sha256(value.view(-1).view(torch.uint8).numpy()).hexdigest(),
        )
    if isinstance(value, np.ndarray) and value.ndim and value.dtype != object:
        return (str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest())
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0:
        return repr(value.item())
    if isinstance(value, Mapping):
        return tuple((str(name), _shown(value[name])) for name in sorted(value, key=str))
    if isinstance(value, tuple | list):
        return tuple(map(_shown, value))
    if isinstance(value, os.PathLike):
        return ("path", os.fspath(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return (type(value).__name__, _shown({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}))
    if isinstance(value, str | int | float | complex | torch.dtype | torch.device | None):
        return repr(value)
    return (type(value).__name__, id(value))  # nobody's but this object's


class SSIM(_Mean):
    """Mean SSIM over a stream of batches.

    Parameters
    ----------
    data_range : float
        Width of the intensity scale.
    **options
        Those of `semnr.ssim`, and those of `torchmetrics.Metric`.

    Raises
    ------
    TypeError, ValueError
        An unknown option, or a `data_range` that is no finite number above 0.

    Examples
    --------
    >>> import torch
    >>> metric = semnr.torchmetrics.SSIM(data_range=255)
    >>> for image in (denoised, noisy):
    ...     metric.update(torch.from_numpy(image), torch.from_numpy(clean))
    >>> round(metric.compute().item(), 2)
    0.68
    """

    _kernel = staticmethod(kernels.ssim.ssim)


class MSSSIM(_Mean):
    """Mean MS-SSIM over a stream of batches.

    Parameters
    ----------
    data_range : float
        Width of the intensity scale.
    **options
        Those of `semnr.ms_ssim`, and those of `torchmetrics.Metric`.

    Raises
    ------
    TypeError, ValueError
        As `SSIM`.

    Examples
    --------
    >>> import torch
    >>> metric = semnr.torchmetrics.MSSSIM(data_range=255, window_size=7)
    >>> metric.update(torch.from_numpy(denoised), torch.from_numpy(clean))
    >>> round(metric.compute().item(), 2)
    0.96
    """

    _kernel = staticmethod(kernels.ssim.ms_ssim)


class FSIM(_Mean):
    """Mean FSIM, or FSIMc, over a stream of batches.

    Parameters
    ----------
    data_range : float
        Width of the intensity scale.
    **options
        Those of `semnr.fsim`, and those of `torchmetrics.Metric`. Fix `downsample` where the sizes of the images
        differ.

    Raises
    ------
    TypeError, ValueError
        As `SSIM`.

    Examples
    --------
    >>> import torch
    >>> metric = semnr.torchmetrics.FSIM(data_range=255, downsample=1)
    >>> metric.update(torch.from_numpy(denoised), torch.from_numpy(clean))
    >>> round(metric.compute().item(), 2)
    0.93
    """

    _kernel = staticmethod(kernels.fsim.fsim)


class DISTS(_Mean):
    """Mean DISTS, a distance, over a stream of batches.

    Parameters
    ----------
    data_range : float
        Width of the intensity scale.
    **options
        Those of `semnr.dists`, and those of `torchmetrics.Metric`.

    Raises
    ------
    TypeError, ValueError
        As `SSIM`.

    Examples
    --------
    >>> import torch
    >>> metric = semnr.torchmetrics.DISTS(data_range=255, weights="random")
    >>> crop = torch.from_numpy(clean[:32, :32])
    >>> metric.update(crop, crop)
    >>> metric.compute().item() < 1e-6
    True
    """

    higher_is_better = False
    _kernel = staticmethod(kernels.dists.dists)


class LPIPS(_Mean):
    """Mean LPIPS, a distance, over a stream of batches.

    Parameters
    ----------
    data_range : float
        Width of the intensity scale.
    **options
        Those of `semnr.lpips`, such as `net`, and those of `torchmetrics.Metric`.

    Raises
    ------
    TypeError, ValueError
        As `SSIM`.

    Examples
    --------
    >>> import torch
    >>> metric = semnr.torchmetrics.LPIPS(data_range=255, weights="random")
    >>> crop = torch.from_numpy(clean[:32, :32])
    >>> metric.update(crop, crop)
    >>> metric.compute().item()
    0.0
    """

    higher_is_better = False
    _kernel = staticmethod(kernels.lpips.lpips)


class CNR(_Mean):
    """Mean CNR of the images that have one, over a stream of batches.

    Parameters
    ----------
    data_range : float, optional
        Width of the intensity scale; no ratio depends on it.
    **options
        Those of `semnr.cnr` but for regions and noise, which go to `update`; and those of `torchmetrics.Metric`.

    Raises
    ------
    TypeError, ValueError
        As `SSIM`.

    Examples
    --------
    >>> import torch
    >>> metric = semnr.torchmetrics.CNR(kind="fixed_noise")
    >>> metric.update(torch.from_numpy(denoised), torch.from_numpy(clean), noise=torch.from_numpy(noisy))
    >>> round(metric.compute().item(), 1)
    3.3
    """

    _kernel = staticmethod(kernels.cnr.cnr)
    _needs_range = False
    _per_update = frozenset({"signal", "background", "noise"})

    def __init__(self, data_range: float | None = None, **options: Any) -> None:
        super().__init__(data_range, **options)

    def update(  # type: ignore[override]
        self,
        x: torch.Tensor,
        y: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        signal: torch.Tensor | None = None,
        background: torch.Tensor | None = None,
        noise: Any = None,
        index: Any = None,
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        x : Tensor
            Candidate.
        y : Tensor, optional
            Reference, on which the regions are built where none are passed; without it they are built on `x`.
        mask : bool Tensor, optional
            True where a pixel is valid.
        signal, background : bool Tensor, optional
            The two regions.
        noise : float, Tensor or Sigma, optional
            For kind="fixed_noise": the noise of the input.
        index : int or Tensor of int, (N,), optional
            With keep_rows=True, the place of each image in the data set.
        """
        self._add(self._rows(x, y, mask=mask, signal=signal, background=background, noise=noise), index)


class PSNR(_Mean):
    """PSNR over a stream of batches: that of the mean MSE, or the mean of the dB values.

    Parameters
    ----------
    data_range : float
        Width of the intensity scale.
    aggregate : {"mean_mse", "mean_db"}
        "mean_mse": 10 log10(L² / mean MSE), the one to quote for a wafer; identical images enter with an MSE of 0.
        "mean_db": the mean of the dB values that are finite.
    **options
        Those of `semnr.mse`, and those of `torchmetrics.Metric`.

    Raises
    ------
    TypeError, ValueError
        As `SSIM`.

    Examples
    --------
    >>> import torch
    >>> metric = semnr.torchmetrics.PSNR(data_range=255)
    >>> metric.update(torch.from_numpy(denoised), torch.from_numpy(clean))
    >>> metric.update(torch.from_numpy(clean), torch.from_numpy(clean))
    >>> round(metric.compute().item(), 1), metric.summary()["infinite"]
    (33.7, 1)
    """

    _kernel = staticmethod(kernels.pixel.mse)

    if TYPE_CHECKING:
        total_mse: torch.Tensor

    def __init__(self, data_range: float, *, aggregate: str = "mean_mse", **options: Any) -> None:
        checks.choice("aggregate", aggregate, ("mean_mse", "mean_db"))
        super().__init__(data_range, **options)
        self.aggregate = aggregate
        self.add_state("total_mse", torch.zeros((), dtype=torch.float64, device="cpu"), dist_reduce_fx="sum")

    def update(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None, index: Any = None) -> None:
        """Add a batch.

        Parameters
        ----------
        x, y : Tensor, (N, C, H, W), (C, H, W) or (H, W)
            Candidate and reference.
        mask : bool Tensor, optional
            True where a pixel is valid.
        index : int or Tensor of int, (N,), optional
            With keep_rows=True, the place of each image in the data set.
        """
        mse = self._rows(x, y, mask=mask)
        if self.options.get("nan") != "propagate":
            self.total_mse = self.total_mse + torch.where(torch.isnan(mse), 0.0, mse).sum()
        else:
            self.total_mse = self.total_mse + mse.sum()
        self._add(kernels.pixel.to_db(mse, cast(float, self.data_range)), index)

    def compute(self) -> torch.Tensor:
        """PSNR of all images so far.

        Returns
        -------
        Tensor, float64
            In dB.
        """
        return self._of_mean_mse() if self.aggregate == "mean_mse" else self._mean()

    def _of_mean_mse(self) -> torch.Tensor:
        return kernels.pixel.to_db(self.total_mse / (self.finite + self.infinite), cast(float, self.data_range))

    def _summary(self) -> dict[str, float | int]:
        counts = super()._summary()
        mean_db = counts.pop("mean")
        return {"psnr_of_mean_mse": float(self._of_mean_mse()), "mean_of_db": mean_db, **counts}
