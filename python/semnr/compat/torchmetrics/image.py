"""`torchmetrics.image`: the classes for SSIM, MS-SSIM, PSNR and DISTS, with the states of torchmetrics 1.9.

Needs torchmetrics for its base class `Metric`: ``pip install 'semnr[torchmetrics]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .functional import image as functions
from .functional.image import Range

try:
    from torchmetrics import Metric  # absolute: the installed package, not this one
except ImportError as error:
    raise ImportError(
        f"semnr.compat.torchmetrics.image needs torchmetrics, which does not import here ({error}): "
        "pip install 'semnr[torchmetrics]'"
    ) from error

__all__ = [
    "DeepImageStructureAndTextureSimilarity",
    "MultiScaleStructuralSimilarityIndexMeasure",
    "PeakSignalNoiseRatio",
    "StructuralSimilarityIndexMeasure",
]


class _Similarity(Metric):
    """A sum over images, or a list of one value an image."""

    higher_is_better = True
    is_differentiable = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    if TYPE_CHECKING:  # TorchScript reads the annotations of a class, and no strings
        similarity: Any
        total: torch.Tensor

    def __init__(self, reduction: str | None, accepted: tuple[str | None, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if reduction not in accepted:
            raise ValueError(f"reduction is {reduction!r}; accepted: {', '.join(map(repr, accepted))}")
        self.reduction = reduction
        if reduction in ("none", None):
            self.add_state("similarity", default=[], dist_reduce_fx=None)
        else:
            self.add_state("similarity", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0.0), dist_reduce_fx="sum")

    def _add(self, rows: torch.Tensor) -> None:
        self.total = self.total + rows.shape[0]
        if isinstance(self.similarity, list):
            self.similarity.append(rows)
        else:
            self.similarity = self.similarity + rows.sum()

    def _result(self) -> torch.Tensor:
        if self.reduction in ("none", None):
            rows: Any = self.similarity
            return torch.cat([row.reshape(-1) for row in rows]) if isinstance(rows, list) else rows
        return self.similarity if self.reduction == "sum" else self.similarity / self.total

    def compute(self) -> Any:
        """Over all images so far."""
        return self._result()

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """One value, or several, drawn by torchmetrics."""
        return self._plot(val, ax)


class StructuralSimilarityIndexMeasure(_Similarity):
    """SSIM as `torchmetrics.image.StructuralSimilarityIndexMeasure`.

    Parameters
    ----------
    gaussian_kernel, sigma, kernel_size, reduction, data_range, k1, k2, return_full_image, return_contrast_sensitivity
        As for `semnr.compat.torchmetrics.functional.image.structural_similarity_index_measure`.
    **kwargs
        Those of `torchmetrics.Metric`.

    Raises
    ------
    ValueError
        Another `reduction`.
    """

    if TYPE_CHECKING:  # TorchScript reads the annotations of a class, and no strings
        image_return: Any

    def __init__(
        self,
        gaussian_kernel: bool = True,
        sigma: float | Sequence[float] = 1.5,
        kernel_size: int | Sequence[int] = 11,
        reduction: str | None = "elementwise_mean",
        data_range: Range = None,
        k1: float = 0.01,
        k2: float = 0.03,
        return_full_image: bool = False,
        return_contrast_sensitivity: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(reduction, functions.REDUCTIONS, **kwargs)
        if return_contrast_sensitivity or return_full_image:
            self.add_state("image_return", default=[], dist_reduce_fx="cat")
        self.gaussian_kernel = gaussian_kernel
        self.sigma = sigma
        self.kernel_size = kernel_size
        self.data_range = data_range
        self.k1 = k1
        self.k2 = k2
        self.return_full_image = return_full_image
        self.return_contrast_sensitivity = return_contrast_sensitivity

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch, (N, C, H, W) or (N, C, D, H, W)."""
        preds, target = functions.check(preds, target)
        rows, more = functions.similarity(
            preds,
            target,
            functions.Window.of(preds, self.gaussian_kernel, self.sigma, self.kernel_size),
            self.data_range,
            (self.k1, self.k2),
            want_map=self.return_full_image,
            want_structure=self.return_contrast_sensitivity,
        )
        if more is not None:
            self.image_return.append(more)
        self._add(rows)

    def compute(self) -> Any:
        """Over all images so far; with the maps or terms where they were asked for."""
        if not (self.return_contrast_sensitivity or self.return_full_image):
            return self._result()
        kept: Any = self.image_return
        return self._result(), torch.cat(kept) if isinstance(kept, list) else kept


class MultiScaleStructuralSimilarityIndexMeasure(_Similarity):
    """MS-SSIM as `torchmetrics.image.MultiScaleStructuralSimilarityIndexMeasure`.

    Parameters
    ----------
    gaussian_kernel, kernel_size, sigma, reduction, data_range, k1, k2, betas, normalize
        As for `semnr.compat.torchmetrics.functional.image.multiscale_structural_similarity_index_measure`.
    **kwargs
        Those of `torchmetrics.Metric`.

    Raises
    ------
    ValueError
        Another `reduction`, `betas`, `normalize` or kind of `kernel_size`.
    """

    def __init__(
        self,
        gaussian_kernel: bool = True,
        kernel_size: int | Sequence[int] = 11,
        sigma: float | Sequence[float] = 1.5,
        reduction: str | None = "elementwise_mean",
        data_range: Range = None,
        k1: float = 0.01,
        k2: float = 0.03,
        betas: tuple[float, ...] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
        normalize: str | None = "relu",
        **kwargs: Any,
    ) -> None:
        super().__init__(reduction, functions.REDUCTIONS, **kwargs)
        several = isinstance(kernel_size, Sequence)
        sizes = list(kernel_size) if isinstance(kernel_size, Sequence) else [kernel_size]
        if not all(isinstance(size, int) for size in sizes) or (several and len(sizes) not in (2, 3)):
            raise ValueError(f"kernel_size is {kernel_size!r}; accepted: an int, or 2 or 3 of them")
        functions.check_scales(betas, normalize)
        self.gaussian_kernel = gaussian_kernel
        self.sigma = sigma
        self.kernel_size = kernel_size
        self.data_range = data_range
        self.k1 = k1
        self.k2 = k2
        self.betas = betas
        self.normalize = normalize

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch, (N, C, H, W) or (N, C, D, H, W)."""
        preds, target = functions.check(preds, target)
        rows = functions.multiscale(
            preds,
            target,
            self.gaussian_kernel,
            self.sigma,
            self.kernel_size,
            self.data_range,
            (self.k1, self.k2),
            self.betas,
            self.normalize,
        )
        self._add(rows)


class PeakSignalNoiseRatio(Metric):
    """PSNR as `torchmetrics.image.PeakSignalNoiseRatio`: of all pixels so far, or of the axes that `dim` names.

    Parameters
    ----------
    data_range, base, reduction, dim
        As for `semnr.compat.torchmetrics.functional.image.peak_signal_noise_ratio`.
    **kwargs
        Those of `torchmetrics.Metric`.
    """

    is_differentiable = True
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0

    if TYPE_CHECKING:  # TorchScript reads the annotations of a class, and no strings
        data_range: torch.Tensor
        sum_squared_error: Any
        total: Any

    def __init__(
        self,
        data_range: float | tuple[float, float],
        base: float = 10.0,
        reduction: str | None = "elementwise_mean",
        dim: int | tuple[int, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim is None and reduction != "elementwise_mean":
            functions.warnings.warn(f"reduction={reduction!r} has no effect where dim is None", stacklevel=2)
        if dim is None:
            self.add_state("sum_squared_error", default=torch.tensor(0.0), dist_reduce_fx="sum")
            self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")
        else:
            self.add_state("sum_squared_error", default=[], dist_reduce_fx="cat")
            self.add_state("total", default=[], dist_reduce_fx="cat")
        self.limits = data_range if isinstance(data_range, tuple) else None
        width = data_range[1] - data_range[0] if isinstance(data_range, tuple) else float(data_range)
        self.add_state("data_range", default=torch.tensor(width), dist_reduce_fx="mean")
        self.base = base
        self.reduction = reduction
        self.dim = tuple(dim) if isinstance(dim, Sequence) else dim

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch of any shape."""
        if self.limits is not None:
            preds, target = (v.clamp(*self.limits) for v in (preds, target))
        total, count = functions.squared_error(preds, target, self.dim)
        if self.dim is None:
            self.sum_squared_error = self.sum_squared_error + total
            self.total = self.total + count
        else:
            self.sum_squared_error.append(total)
            self.total.append(count)

    def compute(self) -> torch.Tensor:
        """In dB."""
        total, count = (
            torch.cat([one.flatten() for one in state]) if isinstance(state, list) else state
            for state in (self.sum_squared_error, self.total)
        )
        return functions.decibels(total, count, self.data_range, self.base, self.reduction)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """One value, or several, drawn by torchmetrics."""
        return self._plot(val, ax)


class DeepImageStructureAndTextureSimilarity(Metric):
    """DISTS as `torchmetrics.image.DeepImageStructureAndTextureSimilarity`.

    Parameters
    ----------
    reduction : {"mean", "sum"}
        Over the images.
    **kwargs
        Those of `torchmetrics.Metric`.

    Raises
    ------
    ValueError
        Another `reduction`.
    """

    higher_is_better = False
    is_differentiable = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    if TYPE_CHECKING:  # TorchScript reads the annotations of a class, and no strings
        score: torch.Tensor
        total: torch.Tensor

    def __init__(self, reduction: str = "mean", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction is {reduction!r}; accepted: 'mean', 'sum'")
        self.reduction = reduction
        self.add_state("score", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Add a batch, (N, 3, H, W) in [0, 1]."""
        rows = functions.deep_image_structure_and_texture_similarity(preds, target)
        self.score = self.score + rows.sum()
        self.total = self.total + rows.shape[0]

    def compute(self) -> torch.Tensor:
        """Over all images so far."""
        return self.score / self.total if self.reduction == "mean" else self.score

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """One value, or several, drawn by torchmetrics."""
        return self._plot(val, ax)
