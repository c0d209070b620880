"""The metrics as training losses: `nn.Module`s, differentiable, lower is better.

Each takes what its metric takes: a candidate `x` and a reference `y` of one shape and dtype, (H, W), (C, H, W) or (N,
C, H, W), tensors or NumPy arrays, floating or uint8 and uint16, and an optional `mask` of valid pixels. It returns a
tensor, 1 − metric (DISTS and LPIPS: the distance itself), in x's dtype where that is floating. They hold settings only:
no parameters, an empty `state_dict`, cheap to copy and to pickle. Networks stay in the kernels' cache.

Shared arguments

data_range : float, optional
    Width of the intensity scale. Required for floating images; default for integers: the range of the dtype.
reduction : {"mean", "sum", "none"}
    Over the images of the batch.
Other keywords
    Go to the metric as they are (see `semnr.ssim`, `semnr.ms_ssim`, `semnr.fsim`, `semnr.dists`).

    Raises TypeError or ValueError at construction for a keyword that the metric does not have, or a `data_range`
    that is not a finite number above 0; at the first call where floating images have no `data_range`.

Under torch.compile a loss is one node a metric, backward pass included, with nan="omit" of `CharbonnierLoss` as the
exception; nan="propagate" waits for no GPU, so that a
whole training step can be a CUDA graph (see `semnr.metrics`). Under autocast a loss computes in float32 and wider,
as without it, is float32 at least, and takes a float16 or bfloat16 output against a float32 target: both in the wider
dtype.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import semnr_kernels as kernels
from semnr_kernels import checks, library

from .metrics import to_tensor

__all__ = [
    "CNRRetentionLoss",
    "CharbonnierLoss",
    "DISTSLoss",
    "FSIMLoss",
    "L1SSIMLoss",
    "LPIPSLoss",
    "MSSSIMLoss",
    "ProfileLoss",
    "SSIMLoss",
]

# What a loss decides itself, or what would not return a single number.
_NOT_OPTIONS = {"x", "y", "mask", "data_range", "reduction", "return_map", "components", "details"}


class _Loss(nn.Module):
    __call__: Callable[..., torch.Tensor]  # nn.Module's own says Any


class _MetricLoss(_Loss):
    """`best` − metric, or the metric where it is a distance."""

    def __init__(
        self,
        metric: Callable[..., Any],
        best: float | None,
        data_range: float | None,
        reduction: str,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        checks.choice("reduction", reduction, ("mean", "sum", "none"))
        accepted = sorted(set(inspect.signature(metric).parameters) - _NOT_OPTIONS)
        for name in options:
            if name not in accepted:
                raise TypeError(f"{type(self).__name__} got {name!r}; accepted: {', '.join(accepted)}")
        self.metric = metric
        self.best = best
        self.data_range = _given(data_range)
        self.reduction = reduction
        self.options = options

    def forward(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of a candidate against a reference.

        Parameters
        ----------
        x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
            Candidate and reference.
        mask : bool Tensor or ndarray, optional
            True where a pixel is valid.

        Returns
        -------
        Tensor
            A scalar; with reduction="none" one value an image. Of the dtype of `x` where that is floating, else
            float64.

        Examples
        --------
        >>> import torch
        >>> loss = semnr.losses.SSIMLoss(data_range=255, reduction="none")
        >>> x = torch.from_numpy(np.stack([noisy, denoised])[:, None])
        >>> y = torch.from_numpy(np.stack([clean, clean])[:, None])
        >>> loss(x, y).round(decimals=2)
        tensor([0.5400, 0.1000], dtype=torch.float64)
        """
        x, y, mask = _tensors(x, y, mask)
        value = self.metric(x, y, data_range=self.data_range, mask=mask, reduction="none", **self.options)
        return _as_passed(_reduced(self._of(value), self.reduction), x)

    def _of(self, value: torch.Tensor) -> torch.Tensor:
        return value if self.best is None else self.best - value

    def extra_repr(self) -> str:
        """The settings, for `repr`.

        Returns
        -------
        str

        Examples
        --------
        >>> semnr.losses.SSIMLoss(data_range=1.0)
        SSIMLoss(data_range=1.0, reduction='mean')
        """
        shown = {"data_range": self.data_range, "reduction": self.reduction, **self.options}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


class _OfSSIM(_MetricLoss):
    """What `semnr_kernels.ssim.plain_loss` computes in a few launches, where the call is the usual one."""

    def __init__(
        self,
        metric: Callable[..., Any],
        best: float | None,
        data_range: float | None,
        reduction: str,
        options: dict[str, Any],
        ssim_weight: float = 1.0,
    ) -> None:
        more = {} if metric is kernels.ssim.ssim else {"ssim_weight": ssim_weight}
        super().__init__(metric, best, data_range, reduction, {**more, **options})
        self._short = {"data_range": self.data_range, **options} if reduction == "mean" else None
        self._ssim_weight = ssim_weight

    def forward(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """As the other losses; float32 tensors on a CUDA device without a mask take a path of few launches.

        Parameters
        ----------
        x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
            Candidate and reference.
        mask : bool Tensor or ndarray, optional
            True where a pixel is valid.

        Returns
        -------
        Tensor
            A scalar; with reduction="none" one value an image. Of the dtype of `x` where that is floating, else
            float64.

        Examples
        --------
        >>> import torch
        >>> semnr.losses.SSIMLoss(data_range=1.0)(torch.zeros(16, 16), torch.zeros(16, 16)).item()
        0.0
        """
        if mask is None and self._short is not None and not torch.compiler.is_compiling():
            loss = kernels.ssim.plain_loss(x, y, self._short, self._ssim_weight)
            if loss is not None:
                return loss
        return super().forward(x, y, mask)


class SSIMLoss(_OfSSIM):
    """1 − SSIM (Wang et al. 2004), in [0, 2]; 0 for identical images.

    Parameters
    ----------
    data_range : float, optional
        Width of the intensity scale. Default for integers: the range of the dtype.
    reduction : {"mean", "sum", "none"}
        Over the images of the batch.
    **options
        Those of `semnr.ssim`, such as `window_size` or `nan`.

    Raises
    ------
    TypeError, ValueError
        An option that the metric does not have, or a `data_range` that is no finite number above 0.

    Examples
    --------
    >>> import torch
    >>> loss = semnr.losses.SSIMLoss(data_range=1.0)
    >>> x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    >>> y = torch.zeros(1, 1, 32, 32)
    >>> loss(x, y).backward()
    >>> x.grad.shape, loss(y, y).item()
    (torch.Size([1, 1, 32, 32]), 0.0)
    """

    def __init__(self, data_range: float | None = None, *, reduction: str = "mean", **options: Any) -> None:
        super().__init__(kernels.ssim.ssim, 1.0, data_range, reduction, options)


class L1SSIMLoss(_OfSSIM):
    """(1 − w) · mean |x − y| / data_range + w · (1 − SSIM), in [0, 2]; 0 for identical images.

    One pass over the pixels makes both terms, forward and backward: on a CPU the L1 term costs about 5 % of an SSIM
    step. On a GPU that holds for windows of 11 without a mask or a mirrored border; otherwise torch computes the L1
    term beside the kernel of SSIM.

    Parameters
    ----------
    data_range : float, optional
        Width of the intensity scale. Default for integers: the range of the dtype.
    ssim_weight : float
        w, from 0 to 1.
    reduction : {"mean", "sum", "none"}
        Over the images of the batch.
    **options
        Those of `semnr_kernels.ssim.l1_ssim`, such as `window_size` or `nan`.

    Raises
    ------
    TypeError, ValueError
        As `SSIMLoss`; a `ssim_weight` outside [0, 1] at the first call.

    Examples
    --------
    >>> import torch
    >>> loss = semnr.losses.L1SSIMLoss(data_range=1.0, ssim_weight=0.5)
    >>> x = torch.full((1, 1, 32, 32), 0.5)
    >>> loss(x, x).item(), loss(x, x + 0.2).item() > 0.1
    (0.0, True)
    """

    def __init__(
        self, data_range: float | None = None, *, ssim_weight: float = 0.2, reduction: str = "mean", **options: Any
    ) -> None:
        super().__init__(kernels.ssim.l1_ssim, None, data_range, reduction, options, ssim_weight)


class CNRRetentionLoss(_MetricLoss):
    """|1 − Δμ(x) / Δμ(y)|: the share of the reference's contrast that the candidate lost or added, at least 0.

    Δμ is the difference of the means of two regions, which are built on the reference. An image whose reference has no
    two regions, or no contrast between them, has nothing to keep: its loss is 0, and so is its gradient.

    Parameters
    ----------
    data_range : float, optional
        Width of the intensity scale; the ratio does not depend on it.
    reduction : {"mean", "sum", "none"}
        Over the images of the batch.
    **options
        Those of `semnr_kernels.cnr.contrast_retention`, such as `signal` and `background`, or `nan`.

    Raises
    ------
    TypeError, ValueError
        As `SSIMLoss`.

    Examples
    --------
    >>> import torch
    >>> y = torch.from_numpy(clean / 255).float()
    >>> x = (0.5 * y).requires_grad_()
    >>> loss = semnr.losses.CNRRetentionLoss()(x, y)
    >>> loss.backward()
    >>> loss
    tensor(0.5000, grad_fn=<ToCopyBackward0>)
    """

    def __init__(self, data_range: float | None = None, *, reduction: str = "mean", **options: Any) -> None:
        super().__init__(kernels.cnr.contrast_retention, None, data_range, reduction, options)

    def _of(self, value: torch.Tensor) -> torch.Tensor:
        defined = ~torch.isnan(value)
        return torch.where(defined, (1 - torch.where(defined, value, 1.0)).abs(), 0.0)


class MSSSIMLoss(_MetricLoss):
    """1 − MS-SSIM (Wang et al. 2003), in [0, 1]. Sides of at least 161 pixels with the default window and scales.

    Parameters
    ----------
    data_range : float, optional
        Width of the intensity scale. Default for integers: the range of the dtype.
    reduction : {"mean", "sum", "none"}
        Over the images of the batch.
    **options
        Those of `semnr.ms_ssim`.

    Raises
    ------
    TypeError, ValueError
        As `SSIMLoss`.

    Examples
    --------
    >>> import torch
    >>> image = torch.rand(1, 1, 176, 176, generator=torch.Generator().manual_seed(0))
    >>> semnr.losses.MSSSIMLoss(data_range=1.0)(image, image).item()
    0.0
    """

    def __init__(self, data_range: float | None = None, *, reduction: str = "mean", **options: Any) -> None:
        super().__init__(kernels.ssim.ms_ssim, 1.0, data_range, reduction, options)


class FSIMLoss(_MetricLoss):
    """1 − FSIM (Zhang et al. 2011), in [0, 1).

    Parameters
    ----------
    data_range : float, optional
        Width of the intensity scale. Default for integers: the range of the dtype.
    reduction : {"mean", "sum", "none"}
        Over the images of the batch.
    **options
        Those of `semnr.fsim`.

    Raises
    ------
    TypeError, ValueError
        As `SSIMLoss`.

    Examples
    --------
    >>> import torch
    >>> x, y = (torch.from_numpy(image / 255).float() for image in (denoised, clean))
    >>> round(semnr.losses.FSIMLoss(data_range=1.0)(x, y).item(), 3)
    0.072
    """

    def __init__(self, data_range: float | None = None, *, reduction: str = "mean", **options: Any) -> None:
        super().__init__(kernels.fsim.fsim, 1.0, data_range, reduction, options)


class DISTSLoss(_MetricLoss):
    """DISTS (Ding et al. 2020), which is a distance: 0 for identical images.

    Parameters
    ----------
    data_range : float, optional
        Width of the intensity scale. Default for integers: the range of the dtype.
    reduction : {"mean", "sum", "none"}
        Over the images of the batch.
    **options
        Those of `semnr.dists`. `weights=None` needs the weights of VGG16 at the first call, and `WeightsUnavailable`
        says how to get them; `weights="random"` is a seeded, uncalibrated stand-in.

    Raises
    ------
    TypeError, ValueError
        As `SSIMLoss`.

    Examples
    --------
    >>> import torch
    >>> image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> loss = semnr.losses.DISTSLoss(data_range=1.0, weights="random")
    >>> loss(image, image).item() < 1e-6
    True
    """

    def __init__(self, data_range: float | None = None, *, reduction: str = "mean", **options: Any) -> None:
        super().__init__(kernels.dists.dists, None, data_range, reduction, options)


class CharbonnierLoss(_Loss):
    """A smooth absolute error: the mean of √(d² + ε²) over the pixels, with d = (x − y) / data_range.

    It is ε for identical images (Charbonnier et al., ICIP 1994). Computed in float32, for float64 images in float64.

    Parameters
    ----------
    data_range : float, optional
        Width of the intensity scale. Default for integers: the range of the dtype.
    epsilon : float
        ε, above 0: it keeps the gradient finite.
    reduction : {"mean", "sum", "none"}
        Over the images of the batch.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.

    Examples
    --------
    >>> import torch
    >>> loss = semnr.losses.CharbonnierLoss(data_range=1.0, epsilon=0.01)
    >>> loss(torch.zeros(8, 8), torch.zeros(8, 8))
    tensor(0.0100)
    >>> loss
    CharbonnierLoss(data_range=1.0, epsilon=0.01, reduction='mean')
    """

    def __init__(
        self, data_range: float | None = None, *, epsilon: float = 1e-3, reduction: str = "mean", nan: str = "error"
    ) -> None:
        super().__init__()
        checks.choice("nan", nan, ("error", "propagate", "omit"))
        checks.choice("reduction", reduction, ("mean", "sum", "none"))
        self.data_range = _given(data_range)
        self.epsilon = checks.number("epsilon", epsilon, least=0)
        if self.epsilon < torch.finfo(torch.float32).tiny:
            raise ValueError(
                f"epsilon is {self.epsilon:g}; accepted: a finite number above 0, of at least "
                f"{torch.finfo(torch.float32).tiny:.3g} (it keeps the gradient finite)"
            )
        self.reduction = reduction
        self.nan = nan

    def forward(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of a candidate against a reference.

        Parameters
        ----------
        x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
            Candidate and reference.
        mask : bool Tensor or ndarray, optional
            True where a pixel is valid.

        Returns
        -------
        Tensor
            A scalar; with reduction="none" one value an image. Of the dtype of `x` where that is floating, else
            float64.

        Examples
        --------
        >>> import torch
        >>> semnr.losses.CharbonnierLoss(data_range=1.0)(torch.ones(8, 8), torch.zeros(8, 8)).shape
        torch.Size([])
        """
        x, y, mask = _tensors(x, y, mask)
        checked = checks.pair(x, y, data_range=self.data_range, mask=mask, nan=self.nan)
        work = torch.promote_types(torch.float32, x.dtype) if x.is_floating_point() else torch.float64
        d = (checked.x.to(work) - checked.y.to(work)) / checked.data_range
        penalty = torch.hypot(d, torch.full_like(d[:1, :1, :1, :1], self.epsilon))  # ε² may be below float32
        if checked.valid is None:
            rows = penalty.mean(dim=(1, 2, 3))
        else:
            count = checked.valid.sum(dim=(1, 2, 3)) * penalty.shape[1]
            rows = torch.where(checked.valid, penalty, 0).sum(dim=(1, 2, 3)) / count
        if self.nan == "error":
            rows = library.require_finite(rows, checked.x, checked.y)
        return _as_passed(checks.reduce(rows, self.reduction, checked), x)

    def extra_repr(self) -> str:
        """The settings, for `repr`.

        Returns
        -------
        str

        Examples
        --------
        >>> semnr.losses.CharbonnierLoss(data_range=1.0).extra_repr()
        "data_range=1.0, epsilon=0.001, reduction='mean'"
        """
        return f"data_range={self.data_range!r}, epsilon={self.epsilon!r}, reduction={self.reduction!r}"


class LPIPSLoss(_MetricLoss):
    """LPIPS (Zhang et al. 2018) of VGG16, the authors' choice for a loss; 0 for identical images.

    `weights=None` needs the published weights at the first call (`semnr weights fetch vgg16 lpips`);
    `weights="random"` is a seeded, uncalibrated stand-in.

    Parameters
    ----------
    data_range : float, optional
        Width of the intensity scale. Default for integers: the range of the dtype.
    reduction : {"mean", "sum", "none"}
        Over the images of the batch.
    **options
        Those of `semnr.lpips`, such as `net`, `weights` or `dtype`.

    Raises
    ------
    TypeError, ValueError
        As `SSIMLoss`.

    Examples
    --------
    >>> import torch
    >>> loss = semnr.losses.LPIPSLoss(data_range=255, weights="random")
    >>> crop = torch.from_numpy(clean[:32, :32])
    >>> loss(crop, crop).item()
    0.0
    """

    def __init__(self, data_range: float | None = None, *, reduction: str = "mean", **options: Any) -> None:
        super().__init__(kernels.lpips.lpips, None, data_range, reduction, {"net": "vgg", **options})


TERMS: Mapping[str, type[nn.Module]] = {
    "charbonnier": CharbonnierLoss,
    "ssim": SSIMLoss,
    "l1_ssim": L1SSIMLoss,
    "cnr_retention": CNRRetentionLoss,
    "ms_ssim": MSSSIMLoss,
    "fsim": FSIMLoss,
    "dists": DISTSLoss,
    "lpips": LPIPSLoss,
}


class ProfileLoss(_Loss):
    """A weighted sum of several of the losses of this module.

    Parameters
    ----------
    weights : mapping of str to float
        Term ("charbonnier", "ssim", "l1_ssim", "cnr_retention", "ms_ssim", "fsim", "dists", "lpips") to its weight.
        Weights are finite and at least 0, one of them above 0. A term of weight 0 is not computed.
    data_range : float, optional
        Width of the intensity scale. Default for integers: the range of the dtype.
    reduction : {"mean", "sum", "none"}
        Over the images of the batch.
    options : mapping of str to mapping, optional
        Options of a term, such as ``{"dists": {"weights": "random"}}``.

    Raises
    ------
    TypeError, ValueError
        An unknown term, no weight above 0, or options of a term without weight.

    Examples
    --------
    >>> import torch
    >>> loss = semnr.losses.ProfileLoss({"charbonnier": 1.0, "ssim": 0.2}, data_range=1.0)
    >>> x = torch.full((1, 1, 32, 32), 0.5, requires_grad=True)
    >>> y = torch.zeros(1, 1, 32, 32)
    >>> loss(x, y).backward()
    >>> sorted(loss.terms(x, y))  # each term without its weight, for the log
    ['charbonnier', 'ssim']
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        data_range: float | None = None,
        *,
        reduction: str = "mean",
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(weights, Mapping):
            raise TypeError(f"weights is {type(weights).__name__}; accepted: a mapping of term to weight")
        options = {} if options is None else options
        for name in (*weights, *options):
            checks.choice("a term of ProfileLoss", name, tuple(TERMS))
        self.weights = {name: checks.number(f"weights[{name!r}]", weight, least=0) for name, weight in weights.items()}
        if not any(self.weights.values()):
            raise ValueError(f"weights is {dict(weights)!r}; accepted: at least one weight above 0")
        idle = sorted(set(options) - {name for name, weight in self.weights.items() if weight})
        if idle:
            raise ValueError(f"options are given for {', '.join(idle)}, of no weight; accepted: weighted terms")
        self.losses = nn.ModuleDict(
            {
                name: TERMS[name](data_range, reduction=reduction, **options.get(name, {}))
                for name, weight in self.weights.items()
                if weight
            }
        )

    def terms(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Each term of the loss, without its weight.

        Parameters
        ----------
        x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
            Candidate and reference.
        mask : bool Tensor or ndarray, optional
            True where a pixel is valid.

        Returns
        -------
        dict of str to Tensor
        """
        return {name: loss(x, y, mask=mask) for name, loss in self.losses.items()}

    def forward(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The weighted sum of the terms.

        Parameters
        ----------
        x, y : Tensor or ndarray, (H, W), (C, H, W) or (N, C, H, W)
            Candidate and reference.
        mask : bool Tensor or ndarray, optional
            True where a pixel is valid.

        Returns
        -------
        Tensor
            A scalar; with reduction="none" one value an image.

        Examples
        --------
        >>> import torch
        >>> x, y = (torch.from_numpy(image / 255) for image in (denoised, clean))
        >>> loss = semnr.losses.ProfileLoss({"ssim": 1.0, "fsim": 1.0}, data_range=1.0)
        >>> round(loss(x, y).item(), 2)
        0.17
        """
        weighted = [self.weights[name] * term for name, term in self.terms(x, y, mask).items()]
        return torch.stack(weighted).sum(dim=0)

    def extra_repr(self) -> str:
        """The settings, for `repr`.

        Returns
        -------
        str

        Examples
        --------
        >>> semnr.losses.ProfileLoss({"ssim": 1.0}, data_range=1.0).extra_repr()
        "weights={'ssim': 1.0}"
        """
        return f"weights={self.weights!r}"


def _given(data_range: float | None) -> float | None:
    """Checked; None is decided by the dtype of the images."""
    return None if data_range is None else checks.as_data_range(torch.float32, data_range)


def _tensors(x: Any, y: Any, mask: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Arrays as tensors; under autocast both images in the wider dtype."""
    x, y, mask = (to_tensor(name, value) for name, value in (("x", x), ("y", y), ("mask", mask)))
    return *checks.promoted(x, y), mask


def _reduced(rows: torch.Tensor, reduction: str) -> torch.Tensor:
    if reduction == "mean":
        return rows.mean()
    return rows.sum() if reduction == "sum" else rows


def _as_passed(loss: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """In x's dtype; float32 for 16-bit images under autocast, as torch's own losses: float16 overflows when scaled."""
    if not x.is_floating_point():
        return loss
    half = x.dtype in (torch.float16, torch.bfloat16) and torch.is_autocast_enabled(x.device.type)
    return loss.to(torch.float32 if half else x.dtype)
