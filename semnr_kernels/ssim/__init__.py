"""SSIM and MS-SSIM: the checked calls, the choice of the backend and the reduction. The formulas are in README.md.

`CONVENTIONS` holds the `Settings` of each convention of SSIM by its name, `MS_WEIGHTS` the five exponents of MS-SSIM
(Wang 2003, section 3.2), from the finest scale to the coarsest. `window_taps` gives the window along one axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F

from .. import checks, library, native_support, outputs, registry, tensor_kinds
from ..errors import BackendUnavailable
from ..result import Result
from . import cuda, native, reference
from .autograd import COMPONENTS
from .reference import SSIMRows
from .settings import CONVENTIONS, MS_CONVENTIONS, Settings, settings_of, window_taps

__all__ = [
    "CONVENTIONS",
    "MS_WEIGHTS",
    "SSIMRows",
    "Settings",
    "l1_ssim",
    "ms_ssim",
    "plain_loss",
    "rows",
    "ssim",
    "too_wide",
    "window_taps",
]

registry.register("ssim", "reference", reference.ssim)
registry.register_native("ssim", native.ssim, native.supports, native.UNSUPPORTED)
registry.register_triton("ssim", "ssim")
registry.register_cuda("ssim", cuda.ssim, cuda.supports, cuda.UNSUPPORTED)

MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003, section 3.2


@dataclass(frozen=True)
class _Job:
    """A checked call: the images as they are compared, and the settings."""

    checked: checks.Pair
    settings: Settings
    factor: int = 1  # by which the images were downsampled

    @property
    def call(self) -> registry.Call:
        checked = self.checked
        return registry.Call.of("ssim", checked.x, checked.y, settings=self.settings, masked=checked.valid is not None)

    def choose(self, backend: str | None) -> tuple[_Job, registry.Implementation]:
        """The backend, and this job with the precision that its kernels need for these pixels."""
        implementation, checked, settings = registry.choose(self.call, backend), self.checked, self.settings
        narrow = implementation.backend in _ON_DEVICES and not settings.double and checked.valid is None
        if narrow and checked.nan != "propagate" and too_wide(checked.x, checked.y, checked.data_range, settings.k2):
            wide = replace(self, settings=settings.in_double)
            return wide, registry.choose(wide.call, backend)
        return self, implementation

    def explained(self, backend: str | None) -> registry.Call:
        """The call on which the choice rests at last."""
        try:
            return self.choose(backend)[0].call
        except BackendUnavailable as error:
            if error.call is None:  # an unknown name
                raise
            return error.call

    def run(self, backend: str | None) -> SSIMRows:
        job, implementation = self.choose(backend)
        return implementation.run(job.checked.x, job.checked.y, job.checked.valid, job.settings)


def _prepare(a: Mapping[str, Any]) -> _Job:
    checked = checks.pair_of(a)
    settings = settings_of(a, checked.data_range)
    factor = _factor(settings.downsample, checked.x.shape)
    if factor > 1:
        pooled = [_average_pool(v, factor, checked.valid, torch.float64) for v in (checked.x, checked.y)]
        checked = replace(checked, x=pooled[0], y=pooled[1], valid=_pool_mask(checked.valid, factor))
    _fits(checked.x.shape, settings, "x" if factor == 1 else f"x, downsampled by {factor},")
    return _Job(checked, settings, factor)


def _outputs(a: Mapping[str, Any]) -> outputs.Outputs:
    more: outputs.Outputs = {"map": lambda: _map(a)} if a["return_map"] else {}
    return outputs.with_parts(a, more | (outputs.scores(a, *COMPONENTS) if a["components"] else {}))


def _map(a: Mapping[str, Any]) -> outputs.Shape:
    settings, x = settings_of(a, 1.0), a["x"]
    height, width = x.shape[-2:]
    factor = max(1, round(min(height, width) / 256)) if settings.downsample == "auto" else settings.downsample
    less = 0 if settings.border == "reflect" else settings.window_size - 1
    wide = settings.double or x.dtype == torch.float64
    size = (height // factor - less, width // factor - less)
    return (*x.shape[:-2], *size), torch.float64 if wide else torch.float32


@library.op(
    outputs=_outputs,
    call=lambda a: _prepare(a).explained(a["backend"]),
    linear=True,
    short=lambda x, y, options: _short(x, y, options),
)
def ssim(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float | None = None,
    window: str | None = None,
    window_size: int | None = None,
    sigma: float | None = None,
    k1: float | None = None,
    k2: float | None = None,
    downsample: int | str | None = None,
    border: str | None = None,
    convention: str = "wang2004",
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    return_map: bool = False,
    components: bool = False,
    details: bool = False,
    nan: str = "error",
    overshoot: str = "keep",
    precision: str = "float32",
    backend: str | None = "auto",
) -> Any:
    """Structural similarity of candidate `x` to reference `y`, in [−1, 1]; 1 for identical images. Differentiable.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
    TIP 13(4), 2004, eq. 13. The formula as it is computed is in README.md.

    Parameters
    ----------
    x, y : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, of one shape and dtype: uint8, uint16, float16, bfloat16, float32 or float64.
    data_range : float, optional
        Width of the intensity scale in grey levels. It is required for floating images. Default for integers: the range
        of the dtype, so that 10-bit data in uint16 must say 1023.
    window : {"gaussian", "uniform"}, optional
        Shape of the window. Default: that of the convention.
    window_size : int, optional
        Side of the window in pixels, odd. Default: that of the convention, 11 for "wang2004".
    sigma : float, optional
        Standard deviation of the Gaussian window in pixels, above 0. Default: 1.5.
    k1, k2 : float, optional
        They stabilise the luminance term and the contrast-structure term, at least 0. Default: 0.01 and 0.03.
    downsample : int or "auto", optional
        Factor by which both images are averaged first. "auto" is the rule of piq: max(1, round(short side / 256)).
        Default: that of the convention; 1 leaves the images as they are.
    border : {"valid", "reflect"}, optional
        "valid": only windows that lie inside the image. "reflect": one window a pixel, the image mirrored.
    convention : {"wang2004", "piq", "skimage", "torchmetrics"}
        Whose defaults the options above take. What the caller passes overrides them.
    mask : bool Tensor, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid. The window's weights are normalised over the valid pixels, and windows whose centre
        is valid are averaged.
    reduction : {"mean", "sum", "none"}
        Over the images: their mean, their sum, or one value an image.
    return_map : bool
        Also return the map of the windows' values, (..., H − 10, W − 10) for the default window; NaN where the centre
        is masked.
    components : bool
        Also return the means of the luminance, contrast and structure terms.
    details : bool
        Return a `Result` with settings, coverage, clipped fraction and flags.
    nan : {"error", "propagate", "omit"}
        Pixels that are not finite: refused, passed on as NaN, or masked.
    overshoot : {"keep", "clip", "error"}
        Values outside [0, data_range]: taken as they are, clipped, or refused.
    precision : {"float32", "float64"}
        What a fast backend computes its moments in. The backend `reference` always computes in float64.
    backend : str, optional
        "auto", or a name of `backends()`. A named backend never falls back.

    Returns
    -------
    Tensor or Result
        A float64 scalar, or (N,) with reduction="none". A `Result` where the map, the components or details are asked
        for.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> kernels.ssim.ssim(x, y)
    tensor(0.9818, dtype=torch.float64)
    >>> value, ssim_map = kernels.ssim.ssim(x, y, return_map=True)
    >>> ssim_map.shape
    torch.Size([182, 182])
    """
    given = locals()
    if (score := _plain_score(given)) is not None:
        return torch.scalar_tensor(score, dtype=torch.float64, device=x.device)
    job = _prepare(given)
    checked, settings = job.checked, job.settings
    rows = job.run(backend)
    per_image = rows.score[:, 0] if rows.score.shape[1] == 1 else rows.score.mean(dim=1)
    checks.refuse_nonfinite(checked, per_image)
    value = checks.reduce(per_image, reduction, checked)
    if not (return_map or components or details):
        return value
    map_dtype = torch.float64 if precision == "float64" or x.dtype == torch.float64 else torch.float32
    return Result(
        value,
        checked.data_range,
        map=None if rows.map is None else _as_passed(rows.map.to(map_dtype), checked),
        components=None
        if rows.components is None
        else {k: checks.reduce(v.mean(dim=1), reduction, checked) for k, v in rows.components.items()},
        coverage=rows.coverage,
        clipped_fraction=checked.clipped_fraction,
        flags=_flags(per_image, checked),
        settings={"convention": convention, **settings.told(), "downsample": job.factor, "precision": precision},
    )


def rows(
    x: torch.Tensor,
    y: torch.Tensor,
    settings: Settings,
    *,
    valid: torch.Tensor | None = None,
    backend: str | None = "auto",
) -> SSIMRows:
    """What a backend returns for checked images and given settings: for code that reduces the rows in its own way.

    Parameters
    ----------
    x, y : Tensor, (N, C, H, W)
        Candidate and reference, of one shape, dtype and device, at least as large as the window. They are compared as
        they are: `settings.downsample` is not applied, and a NaN makes the rows of its image NaN.
    settings : Settings
        Everything else, with `data_range`. `want_apart` asks for |x − y| and the extremes of the pixels.
    valid : bool Tensor, (N, 1, H, W), optional
        True where a pixel is valid.
    backend : str, optional
        "auto", or a name of `backends()`. A named backend never falls back.

    Returns
    -------
    SSIMRows
        Differentiable as `ssim` is.

    Raises
    ------
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> job = kernels.ssim.Settings(data_range=255.0, want_apart=True)
    >>> found = kernels.ssim.rows(x[None, None], y[None, None], job)
    >>> found.score.shape, round(found.absolute.item(), 2), found.extent.tolist()
    (torch.Size([1, 1]), 1.98, [80.0, 164.0])
    """
    checked = checks.Pair(x, y, settings.data_range, valid, "propagate", 0.0, tuple(x.shape[:2]))
    return _Job(checked, settings).run(backend)


def _prepare_l1(a: Mapping[str, Any]) -> _Job:
    job = _prepare({**a, "convention": "wang2004", "return_map": False, "components": False})
    return replace(job, settings=replace(job.settings, want_apart=job.checked.valid is None))


@library.op(outputs=outputs.scores_alone, call=lambda a: _prepare_l1(a).explained(a["backend"]), linear=True)
def l1_ssim(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float | None = None,
    ssim_weight: float = 0.2,
    window: str | None = None,
    window_size: int | None = None,
    sigma: float | None = None,
    k1: float | None = None,
    k2: float | None = None,
    border: str | None = None,
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    nan: str = "error",
    overshoot: str = "keep",
    precision: str = "float32",
    backend: str | None = "auto",
) -> torch.Tensor:
    """(1 − w) · mean |x − y| / data_range + w · (1 − SSIM), w = `ssim_weight`: a loss, 0 for identical images.

    The backends `native`, `cuda` and `triton` read the pixels once for both terms, forward and backward (`cuda` and
    `triton` without a mask and a mirrored border, `cuda` with windows of 11 and float32 moments); elsewhere torch
    computes |x − y| beside the kernel of SSIM. The mix of an L1 term with SSIM is that of Zhao, Gallo, Frosio, Kautz,
    "Loss functions for image restoration with neural networks", IEEE TCI 3(1), 2017, without their Gaussian on the L1
    term; 0.2 is the weight of Kerbl et al., "3D Gaussian splatting", ACM TOG 42(4), 2023.

    Parameters
    ----------
    x, y : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, as for `ssim`.
    data_range : float, optional
        Width of the intensity scale in grey levels. Required for floating images.
    ssim_weight : float
        Share of the SSIM term, from 0 to 1.
    window, window_size, sigma, k1, k2, border, mask, reduction, nan, overshoot, precision, backend
        As for `ssim`; a mask leaves its pixels out of both terms.

    Returns
    -------
    Tensor
        A float64 scalar, or (N,) with reduction="none".

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> kernels.ssim.l1_ssim(x, y)
    tensor(0.0099, dtype=torch.float64)
    >>> kernels.ssim.l1_ssim(x, y, ssim_weight=1.0) == 1 - kernels.ssim.ssim(x, y)
    tensor(True)
    """
    if not 0 <= checks.number("ssim_weight", ssim_weight) <= 1:
        raise ValueError(f"ssim_weight is {ssim_weight}; accepted: a number from 0 to 1")
    job = _prepare_l1(locals())
    checked, found = job.checked, job.run(backend)
    score = found.score.mean(dim=1)
    if found.absolute is None:
        apart = (checked.x.double() - checked.y.double()).abs()
        if checked.valid is not None:
            apart = torch.where(checked.valid, apart, 0.0)
            absolute = apart.sum(dim=(1, 2, 3)) / (checked.valid.sum(dim=(1, 2, 3)) * apart.shape[1])
        else:
            absolute = apart.mean(dim=(1, 2, 3))
    else:
        absolute = found.absolute.mean(dim=1)
    per_image = (1 - ssim_weight) * absolute / checked.data_range + ssim_weight * (1 - score)
    checks.refuse_nonfinite(checked, per_image)
    return checks.reduce(per_image, reduction, checked)


def _prepare_scales(a: Mapping[str, Any]) -> tuple[_Job, tuple[float, ...]]:
    """The first scale of MS-SSIM, and the weights of all."""
    checked, weights = checks.pair_of(a), a["weights"]
    settings = settings_of(a, checked.data_range, MS_CONVENTIONS)
    scales = MS_WEIGHTS if weights is None else weights
    if not scales or any(not math.isfinite(w) or w < 0 for w in scales) or sum(scales) <= 0:
        raise ValueError(f"weights is {weights}; accepted: one number of at least 0 a scale, not all of them 0")
    smallest = (settings.window_size - 1) * 2 ** (len(scales) - 1) + 1
    if min(checked.x.shape[2:]) < smallest:
        raise ValueError(
            f"x has shape {tuple(a['x'].shape)}; accepted by ms_ssim: sides of at least {smallest} pixels "
            f"({len(scales)} scales of a window of {settings.window_size})"
        )
    return _Job(checked, settings), scales


@library.op(outputs=outputs.scores_alone, call=lambda a: _prepare_scales(a)[0].explained(a["backend"]))
def ms_ssim(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    data_range: float | None = None,
    window: str | None = None,
    window_size: int | None = None,
    sigma: float | None = None,
    k1: float | None = None,
    k2: float | None = None,
    weights: tuple[float, ...] | None = None,
    convention: str = "piq",
    mask: torch.Tensor | None = None,
    reduction: str = "mean",
    details: bool = False,
    nan: str = "error",
    overshoot: str = "keep",
    precision: str = "float32",
    backend: str | None = "auto",
) -> Any:
    """Multi-scale structural similarity of candidate `x` to reference `y`, in [0, 1]; 1 for identical images.

    Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment", Asilomar 2003, eq. 7.
    Differentiable.

    Parameters
    ----------
    x, y : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference, as for `ssim`. Five scales and a window of 11 pixels need sides of at least 161 pixels.
    weights : tuple of float, optional
        The exponent of each scale, at least 0, from the finest to the coarsest; as many as there are scales. Default:
        `MS_WEIGHTS`.
    convention : {"piq", "pytorch-msssim", "torchmetrics"}
        Whose rule for odd sides and for channels is taken.
    data_range, window, window_size, sigma, k1, k2, mask, reduction, details, nan, overshoot, precision, backend
        As for `ssim`. The components of a `Result` are "scale_1" to "scale_5", (N,).

    Returns
    -------
    Tensor or Result
        A float64 scalar, or (N,) with reduction="none".

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted; also an image that is too small for the scales.
    BackendUnavailable
        The named backend cannot run this call.

    Examples
    --------
    >>> kernels.ssim.ms_ssim(x, y)
    tensor(0.9986, dtype=torch.float64)
    """
    job, scale_weights = _prepare_scales(locals())
    checked, settings = job.checked, job.settings
    terms, level = [], checked
    for scale in range(len(scale_weights)):
        if scale:
            halved = [_halve(v, level.valid, convention, settings) for v in (level.x, level.y)]
            level = replace(level, x=halved[0], y=halved[1], valid=_halve_mask(level.valid, convention))
        last = scale == len(scale_weights) - 1
        if last and convention == "torchmetrics":  # its last scale reflects at the border, the others do not
            settings = replace(settings, border="reflect")
        rows = _Job(level, settings).run(backend)
        terms.append(rows.score if last else rows.contrast_structure)
    stacked = torch.stack(terms)  # (scales, N, C)
    if convention == "torchmetrics":
        stacked = stacked.mean(dim=2, keepdim=True)  # averages the channels before the product
    powers = [_safe_power(term, weight) for term, weight in zip(stacked, scale_weights, strict=True)]
    per_image = torch.stack(powers).prod(dim=0).mean(dim=1)
    checks.refuse_nonfinite(checked, per_image)
    value = checks.reduce(per_image, reduction, checked)
    if not details:
        return value
    return Result(
        value,
        checked.data_range,
        components={f"scale_{i + 1}": term.mean(dim=1) for i, term in enumerate(terms)},
        clipped_fraction=checked.clipped_fraction,
        flags=_flags(per_image, checked),
        settings={"convention": convention, **settings.told(), "weights": scale_weights, "precision": precision},
    )


def _factor(downsample: int | str, shape: torch.Size) -> int:
    """The downsampling factor; "auto" is piq's: max(1, round(short side / 256)), Python's rounding."""
    factor = max(1, round(min(shape[2:]) / 256)) if downsample == "auto" else int(downsample)
    if factor > min(shape[2:]):
        raise ValueError(f"downsample is {factor} and x {shape[2]}x{shape[3]} pixels; accepted: at most a side")
    return factor


def _fits(shape: torch.Size, settings: Settings, name: str) -> None:
    size = settings.window_size
    # a mirrored border needs half a window beside the border pixel
    least, what = (size, "the window") if settings.border == "valid" else ((size + 1) // 2, "half the window")
    if min(shape[2:]) < least:
        hint = "; are the channels last? accepted: (C, H, W)" if shape[3] <= 4 < shape[2] else ""
        raise ValueError(f"{name} is {shape[2]}x{shape[3]} pixels; accepted: at least {what}, {least}x{least}{hint}")


def _plain_score(a: Mapping[str, Any]) -> float | None:
    """The usual call, one plain image of one channel to one number; None: the general path answers, or says why not."""
    x, y = a["x"], a["y"]
    if (
        a["backend"] not in (None, "auto")
        or a["mask"] is not None
        or a["reduction"] != "mean"
        or a["nan"] != "error"
        or a["overshoot"] != "keep"
        or a["return_map"]
        or a["components"]
        or a["details"]
        or not checks.is_plain(x, y)
    ):
        return None
    settings = settings_of(a, checks.as_data_range(x.dtype, a["data_range"]))
    h, w = x.shape[-2:]
    if settings.downsample != 1 or x.numel() != h * w or min(h, w) < settings.window_size:
        return None
    if not registry.native_by_default("ssim", a["backend"]):
        return None
    score = native.one_image(x, y, settings)
    return score if math.isfinite(score) else None


_OF_PLAIN = ("data_range", "window", "window_size", "sigma", "k1", "k2", "downsample", "border", "convention",
             "precision", "nan")  # fmt: skip
_LOSS_OPTIONS = dict.fromkeys(_OF_PLAIN[:-3]) | {
    "convention": "wang2004", "precision": "float32", "nan": "error", "overshoot": "keep", "backend": "auto"
}  # fmt: skip
_prepared: dict[Any, Any] = {}  # launches, and calls that take them, by dtype, shape, device and options
_KEPT = 512


@dataclass(frozen=True)
class _Usual:
    """The usual call on a CUDA device, for images of one kind and one way to write its options."""

    launches: cuda.Plain
    by_image: bool
    waits: bool  # reads the score back
    grouped: bool  # several channels an image
    lone: bool  # one image, without a dimension that counts images


_SIMPLE = {float, int, str, bool, type(None)}


def _short(x: Any, y: Any, options: dict[str, Any]) -> torch.Tensor | None:
    """The usual call on a CUDA device; None: the contract takes the call, or says what is wrong with it."""
    backend = options.get("backend")
    if type(x) not in tensor_kinds._PLAIN_TYPES or not (x.is_cuda or backend == "cuda-emulated"):
        return None
    if not checks.is_plain_on_device(x, y) or ((x.requires_grad or y.requires_grad) and torch.is_grad_enabled()):
        return None
    index = x.get_device()
    # types too: 1 is True and 1.0, and what is taken for one may be refused for another
    key = (x.dtype, x.shape, index, *options.items(), *map(type, options.values()))
    try:
        usual = _prepared[key]
    except KeyError:
        usual = _usual(x, y, options, key)
    except TypeError:  # an option that is no key
        return None
    if usual is None or not registry.cuda_by_default("ssim", backend, None if index < 0 else index):
        return None
    told, rows, _ = cuda.plain_scores(usual.launches, x, y, usual.by_image, False)
    if usual.waits and not _is_told_well(told, usual.launches):
        return None
    if rows is None:
        return told[0]
    scores = rows[0].view(usual.launches.images, -1).mean(dim=1) if usual.grouped else rows[0]
    return scores[0] if usual.lone else scores


def _usual(x: torch.Tensor, y: torch.Tensor, options: dict[str, Any], key: Any) -> _Usual | None:
    """What `_short` keeps of the first call of a kind; None where it is not the usual one."""
    if not _SIMPLE.issuperset(map(type, options.values())):
        return None
    this = library.ops["ssim"]
    a = {**this.defaults, "x": x, "y": y, **library.options_of(this, options)}
    refused = a["mask"] is not None or a["overshoot"] != "keep" or a["reduction"] not in ("mean", "none")
    more = a["return_map"] or a["components"] or a["details"]
    plain = None if refused or more else _plain_launches(a)
    if plain is None:
        return None
    made = _Usual(plain, a["reduction"] == "none", a["nan"] == "error", plain.planes != plain.images, x.dim() != 4)
    _prepared[key] = made
    return made


def _is_told_well(told: torch.Tensor, plain: cuda.Plain) -> bool:
    """Whether the mean is finite and float32 was wide enough for the pixels; one wait for the device."""
    checks.refuse_capture(told)
    mean, extent = told.tolist()
    return math.isfinite(mean) and extent <= 1.01 * plain.limit


def _plain_launches(a: Mapping[str, Any], ssim_weight: float = 1.0) -> cuda.Plain | None:
    """The launches of a call whose images are plain, where they run on "cuda"; None: the general path decides.

    ssim_weight: of 1 − SSIM in the loss; the rest is that of mean |x − y| / data_range.
    """
    x, backend = a["x"], a["backend"]
    emulated = not x.is_cuda
    if not registry.cuda_by_default("ssim", backend, None if emulated else x.device.index):
        return None
    key = (x.dtype, x.shape, emulated or x.device.index, ssim_weight, *map(a.get, _OF_PLAIN))
    try:
        return _prepared[key]
    except (KeyError, TypeError):  # TypeError: an option that is no key
        pass
    if not 2 <= x.dim() <= 4 or (x.dim() == 3 and x.shape[0] not in (1, 3)) or not x.numel():
        return None
    if x.dtype not in native_support.DTYPE_CODES or a["nan"] not in ("error", "propagate"):
        return None
    settings = settings_of(a, checks.as_data_range(x.dtype, a["data_range"]))
    limit = settings.data_range * settings.k2 / 0.03
    safe = a["nan"] == "propagate" or (x.dtype in checks.INTEGER_DTYPES and torch.iinfo(x.dtype).max <= limit)
    weights = (ssim_weight, (1 - ssim_weight) / settings.data_range)
    made = cuda.plain(x.dtype, tuple(x.shape), settings, None if safe else limit, weights, x.device, emulated)
    if len(_prepared) >= _KEPT:
        _prepared.clear()
    try:
        _prepared[key] = made
    except TypeError:
        return None
    return made


class _Loss(torch.autograd.Function):
    """w (1 − mean SSIM) + (1 − w) mean |x − y| / data_range of plain images as one float32 number."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, plain: cuda.Plain) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        ctx.save_for_backward(x, y)
        ctx.plain = plain
        told, _, loss = cuda.plain_scores(plain, x, y, False, True)
        assert loss is not None
        ctx.mark_non_differentiable(told)
        return loss, told

    @staticmethod
    def backward(ctx: Any, by: torch.Tensor, _: Any) -> tuple[Any, ...]:  # type: ignore[override]
        x, y = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # create_graph
            a, b = (v.reshape(-1, 1, *v.shape[-2:]) for v in (x, y))
            by_index, by_absolute = ctx.plain.weights
            loss = by_index * (1 - reference.ssim(a, b, None, ctx.plain.settings).score.mean())
            if ctx.plain.apart:
                loss = loss + by_absolute * (x.double() - y.double()).abs().mean()
            return *native_support.reference_gradient((loss,), (x, y), (by.double(),), wanted), None
        return *cuda.plain_gradient(ctx.plain, x, y, by, wanted), None


def plain_loss(
    x: torch.Tensor, y: torch.Tensor, options: Mapping[str, Any], ssim_weight: float = 1.0
) -> torch.Tensor | None:
    """`l1_ssim` of two float32 tensors of one CUDA device, in a few launches forward and one backward.

    Parameters
    ----------
    x, y : Tensor, (H, W), (C, H, W) or (N, C, H, W)
        Candidate and reference.
    options : mapping of str to value
        Options of `ssim`.
    ssim_weight : float
        Share of 1 − SSIM; the default is that term alone.

    Returns
    -------
    Tensor or None
        A float32 scalar; None where `ssim` or `l1_ssim` has to take the call, or to say what is wrong with it.

    Examples
    --------
    >>> kernels.ssim.plain_loss(x, y, {}) is None  # images of the CPU
    True
    """
    if not checks.is_plain_on_device(x, y) or x.dtype is not torch.float32:
        return None
    a = {"x": x, "y": y, **_LOSS_OPTIONS, **options}
    if type(ssim_weight) not in (float, int) or not 0 <= ssim_weight <= 1:
        return None
    if a["overshoot"] != "keep" or (plain := _plain_launches(a, float(ssim_weight))) is None:
        return None
    loss, told = _Loss.apply(x, y, plain)
    if a["nan"] == "error" and not _is_told_well(told, plain):
        return None
    return loss


# These keep float32 whatever the pixels hold; the C++ kernel sees for itself where it is too narrow (csrc/ssim).
_ON_DEVICES = ("triton", "cuda", "triton-interpret", "cuda-emulated")


def too_wide(x: torch.Tensor, y: torch.Tensor, data_range: float, k2: float) -> bool:
    """Whether pixels lie so far apart that float32 moments beside C2 = (k2 L)² may lose their digits.

    Differences of up to L are safe for k2 = 0.03 (csrc/ssim/ssim_tile.hpp: kNarrow). The pixels are read only where
    they may lie further apart. That waits for the device, so `ssim` does not ask under nan="propagate".

    Parameters
    ----------
    x, y : Tensor, (N, C, H, W)
        Candidate and reference, checked.
    data_range : float
        Width of the intensity scale L in grey levels, above 0.
    k2 : float
        The constant of the contrast-structure term.

    Returns
    -------
    bool

    Examples
    --------
    >>> kernels.ssim.too_wide(x, y, 255, 0.03)
    False
    >>> kernels.ssim.too_wide(x.float() * 100, y.float() * 100, 255, 0.03)
    True
    """
    limit = data_range * k2 / 0.03
    if x.dtype == torch.float64 or (x.dtype in checks.INTEGER_DTYPES and torch.iinfo(x.dtype).max <= limit):
        return False

    def extent(image: torch.Tensor) -> torch.Tensor:
        wide = tensor_kinds.bare(image.to(torch.int32) if image.dtype == torch.uint16 else image)
        low, high = torch.aminmax(wide)
        return high.double() - low.double()

    checks.refuse_capture(x)
    # a NaN compares false, and its score is NaN in either precision
    return bool(torch.maximum(extent(x), extent(y)) > 1.01 * limit)


def _flags(per_image: torch.Tensor, checked: checks.Pair) -> tuple[str, ...]:
    if checked.valid is None:
        return ()
    if undefined := int(torch.isnan(per_image.detach()).sum()):
        return (f"{undefined} images without a valid window: undefined (NaN)",)
    return ()


def _as_passed(values: torch.Tensor, checked: checks.Pair) -> torch.Tensor:
    """(N, C, h, w) with the leading dimensions that the caller passed."""
    return values.reshape(*checked.lead, *values.shape[2:])


def _average_pool(image: torch.Tensor, factor: int, valid: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Mean of each factor x factor block (floor: a rest at the far edge is dropped), over its valid pixels."""
    wide = image.to(dtype)
    if valid is None:
        return F.avg_pool2d(wide, factor)
    share = F.avg_pool2d(valid.to(dtype), factor)
    return F.avg_pool2d(torch.where(valid, wide, 0.0), factor) / torch.where(share > 0, share, 1.0)


def _pool_mask(valid: torch.Tensor | None, factor: int) -> torch.Tensor | None:
    """A block is valid where any of its pixels is: its value is the mean of those."""
    return None if valid is None else F.max_pool2d(valid.float(), factor) > 0


def _halve(image: torch.Tensor, valid: torch.Tensor | None, convention: str, settings: Settings) -> torch.Tensor:
    """The next scale of MS-SSIM. Libraries part on odd sizes: see README.md.

    float32 holds four 2 x 2 means of 16-bit integers exactly.
    """
    dtype = torch.float64 if image.dtype == torch.float64 else settings.work
    padded, keep = image.to(dtype), valid
    odd = [size % 2 for size in image.shape[2:]]
    if convention == "pytorch-msssim" and any(odd):
        # zeros all round on the odd axes, counted in the mean
        return F.avg_pool2d(padded if keep is None else torch.where(keep, padded, 0.0), 2, padding=odd)
    if convention == "piq" and any(odd):
        padded = F.pad(padded, (1, 0, 1, 0), mode="replicate")
        keep = None if keep is None else F.pad(keep.to(dtype), (1, 0, 1, 0), mode="replicate") > 0
    return _average_pool(padded, 2, keep, dtype)


def _halve_mask(valid: torch.Tensor | None, convention: str) -> torch.Tensor | None:
    if valid is None:
        return None
    odd = [size % 2 for size in valid.shape[2:]]
    if convention == "pytorch-msssim" and any(odd):
        return F.max_pool2d(valid.float(), 2, padding=odd) > 0
    if convention == "piq" and any(odd):
        return _pool_mask(F.pad(valid.float(), (1, 0, 1, 0), mode="replicate") > 0, 2)
    return _pool_mask(valid, 2)


def _safe_power(base: torch.Tensor, exponent: float) -> torch.Tensor:
    """max(base, 0) ** exponent, with gradient 0 instead of infinity where the base is not positive."""
    positive = base > 0
    return torch.where(
        positive, torch.where(positive, base, 1.0) ** exponent, torch.where(torch.isnan(base), base, 0.0)
    )
