"""The profile: five metrics of the same tiles side by side, because no one of them can be trusted alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch

from semnr_kernels import checks, cnr, dists, fsim, lpips, pixel, ssim
from semnr_kernels import profile as kernel

from ..metrics import to_tensor
from .reference import Reference
from .rows import FINGERPRINT, KINDS, METRICS, Profile, default_ids

__all__ = ["Profile", "Reference", "profile"]

# What the CPU kernels score from one read of the pixels.
_TOGETHER = ("psnr", "ssim", "cnr")
# Windows of the worst-window columns (in one read: two by two of the kernel's cells), and the least pixels of each
# region in one: fewer, and noise picks the worst.
_WINDOW, _WINDOW_PIXELS = 64, 64


def profile(
    x: Any,
    y: Any,
    *,
    data_range: float | None = None,
    metrics: Sequence[str] = METRICS,
    masks: Any = None,
    noise: Any = None,
    mask: Any = None,
    nan: str = "error",
    fsim_downsample: int | str = "auto",
    dists_weights: Any = None,
    dists_resize: str | None = None,
    details: bool = False,
    backend: str | None = "auto",
    kind: str | None = None,
    tiles: Sequence[str] | None = None,
    label: str = "",
) -> Profile:
    """Score candidate `x` against reference `y` by five metrics, one row an image.

    Parameters
    ----------
    x, y : Tensor or ndarray, (N, C, H, W), (C, H, W) or (H, W)
        Candidate and reference, of one dtype.
    data_range : float, optional
        Width of the intensity scale. Required for floating images; default for integers: the range of the dtype.
    metrics : sequence of str
        Some of "psnr" (with mse and mae), "ssim", "fsim", "dists", "cnr". The columns of the others are NaN, and so is
        the area unless all five are there. "dists" needs the weights of VGG16, see `dists_weights`. "lpips" besides:
        LPIPS of AlexNet, with the published weights in the cache; it is no axis.
    masks : (signal, background), mapping with these keys, or Masks, optional
        Bool regions for CNR. Default: Otsu's threshold on `y`, see `semnr.otsu_masks`.
    noise : float, Tensor, ndarray or Sigma, optional
        Noise of the *noisy input*: its standard deviation in grey levels, or the noisy image. Adds the columns
        `cnr_fixed_noise` and `contrast_retention`, and the same with `_worst` appended: those of the tile's lowest
        window of 64 pixels. The noisy image adds `psnr_noisy` too, its own PSNR.
    mask : bool array, (H, W), (N, H, W) or (N, 1, H, W), optional
        True where a pixel is valid.
    nan : {"error", "propagate", "omit"}
        What happens to pixels that are not finite: refused, passed on as NaN, or masked.
    fsim_downsample : int or {"auto", "authors"}
        As `downsample` of `semnr.fsim`.
    dists_weights : path, state dict or "random", optional
        As `weights` of `semnr.dists`. "random" is flagged as uncalibrated.
    dists_resize : {"authors", "piq"}, optional
        As `resize` of `semnr.dists`.
    details : bool
        Also the columns `ssim_luminance`, `ssim_contrast`, `ssim_structure`, `clipped_low` and `clipped_high` (shares
        of the pixels of `x` at or below 0, and at or above data_range).
    backend : str
        As in the metrics: "auto", or a name of `semnr.backends()`.
    kind : {"denoised", "noisy"}, optional
        What `x` is. Default: "noisy" where `noise` is the very image `x`, else "denoised".
    tiles : sequence of str, optional
        Ids of the images. Default: "t000000", "t000001", ...
    label : str
        Name of the candidate in tables.

    Returns
    -------
    Profile

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.
    WeightsUnavailable
        "dists" or "lpips" is asked for and there are no weights.

    Examples
    --------
    >>> scores = semnr.profile(denoised, clean, metrics=("psnr", "ssim", "fsim", "cnr"), noise=noisy, label="gaussian")
    >>> print(scores)
    profile gaussian of 1 tile(s), denoised: axes PSNR 0.52, SSIM 0.90, FSIM 0.86, CNR 0.33; area nan, mean axis nan
    >>> round(float(scores.contrast_retention[0]), 2)
    0.97
    """
    reference = Reference(
        y, data_range=data_range, metrics=metrics, masks=masks, mask=mask, nan=nan, fsim_downsample=fsim_downsample,
        dists_weights=dists_weights, dists_resize=dists_resize, details=details, backend=backend, keep=False,
    )  # fmt: skip
    return against(reference, x, noise=noise, kind=kind, tiles=tiles, label=label)


def against(
    reference: Reference,
    x: Any,
    *,
    noise: Any = None,
    kind: str | None = None,
    tiles: Sequence[str] | None = None,
    label: str = "",
) -> Profile:
    """The profile of candidate `x` against a reference that is at hand; see `profile`."""
    if isinstance(x, np.ndarray) != reference.numpy and isinstance(x, np.ndarray | torch.Tensor):
        ours = "ndarray" if reference.numpy else "Tensor"
        raise TypeError(f"x is {type(x).__name__} and y {ours}; accepted: both of one kind")
    x, noise = to_tensor("x", x), to_tensor("noise", noise)
    if kind is not None:
        checks.choice("kind", kind, KINDS)
    with torch.no_grad():
        scored = _Scored(reference, x, noise)
        done = _TOGETHER if scored.together() else ()
        for name in reference.metrics:
            if name not in done:
                getattr(scored, name)()
        scored.psnr_noisy()
        scored.fingerprint()
        scored.settle()
        if kind is None:
            same = isinstance(noise, torch.Tensor) and noise.shape == x.shape and torch.equal(noise, x)
            kind = "noisy" if same else "denoised"
    n = len(reference)
    if tiles is not None and len(tiles) != n:
        raise ValueError(f"tiles has {len(tiles)} ids for {n} images; accepted: one an image")
    return Profile(
        tiles=tuple(default_ids(n) if tiles is None else map(str, tiles)),
        columns=scored.columns,
        data_range=reference.data_range,
        settings=scored.settings,
        flags=tuple(dict.fromkeys(map(str, scored.flags))),
        kind=kind,
        label=label,
        auto_ids=tiles is None,
    )


class _Scored:
    """One candidate's columns while they are gathered."""

    def __init__(self, reference: Reference, x: torch.Tensor, noise: Any) -> None:
        self.ref, self.x, self.noise = reference, x, noise
        self.columns: dict[str, np.ndarray] = {}
        self._pending: dict[str, torch.Tensor] = {}
        self.flags: list[str | Callable[[dict[str, np.ndarray]], tuple[str, ...]]] = []  # or what rows will say
        self._reasons: dict[str, torch.Tensor] = {}  # rows that become flags and no columns
        self.settings: dict[str, Any] = {"metrics": list(reference.metrics), "nan": reference.nan}
        self.common = {
            "data_range": reference.data_range,
            "mask": reference.mask,
            "nan": reference.nan,
            "backend": reference.backend,
        }
        # also the check of x against y, whatever metrics follow
        self.checked = checks.pair(
            x, reference.y, data_range=reference.data_range, mask=reference.mask, nan=reference.nan
        )

    @cached_property
    def regions(self) -> tuple[Any, Any]:
        """Signal and background, which more than one column asks for."""
        return self.ref.regions()

    def _rows(self, name: str, value: torch.Tensor) -> None:
        self._pending[name] = value.detach().double().reshape(-1)

    def settle(self) -> None:
        """Bring all rows to the host at once, and tell what they say: on a device the host waits here alone."""
        waiting = {**self._pending, **self._reasons}
        if waiting:
            rows = torch.stack([v.double() for v in waiting.values()]).cpu().numpy()
            host = dict(zip(waiting, rows, strict=True))
            self.columns |= {name: host[name] for name in self._pending}
            told = [flag(host) if callable(flag) else (flag,) for flag in self.flags]
            self.flags = [text for texts in told for text in texts]
            self._pending, self._reasons = {}, {}

    def together(self) -> bool:
        """PSNR, SSIM and CNR from one read of the pixels; False where they are to be scored one by one."""
        ref = self.ref
        plain = ref.mask is None and ref.nan == "error" and not ref.details
        if not plain or not set(_TOGETHER) <= set(ref.metrics):
            return False
        x, y = self.checked.x, self.checked.y
        regions = [checks.as_mask(v, x, n) for v, n in zip(self.regions, ("signal", "background"), strict=True)]
        noisy = self.noisy
        if noisy is not None and (noisy.dtype != x.dtype or noisy.device != x.device):
            return False
        options: dict[str, Any] = {"data_range": ref.data_range, "backend": ref.backend}
        beside = None if noisy is None else noisy.reshape(x.shape)
        scores = kernel.together(x, y, *regions, noisy=beside, min_pixels=_WINDOW_PIXELS, **options)  # type: ignore[arg-type]
        if scores is None or 0 in scores.mse.tolist():
            return False
        variance = cnr.reference.noise_variance("two_roi", scores.signal, scores.background)
        ratio = cnr.reference.ratio(scores.signal.mean - scores.background.mean, variance, signed=False)
        if not all(map(math.isfinite, ratio.tolist())):
            return False
        rows = {
            "mse": scores.mse,
            "mae": scores.mae,
            "psnr": pixel.to_db(scores.mse, ref.data_range),
            "ssim": scores.ssim,
            "cnr_two_roi": ratio,
            "reference_mean": scores.reference_mean,
            "reference_std": scores.reference_variance.sqrt(),
        }
        self._pending |= rows
        self.settings["ssim"] = dict(kernel.SSIM_SETTINGS)
        if self.noise is not None and not (scores.noisy and self._seen_noise(scores.noisy)):
            self._fixed_noise(lambda host: ())
        return True

    @property
    def noisy(self) -> torch.Tensor | None:
        """The noisy image, where `noise` is one."""
        is_image = isinstance(self.noise, torch.Tensor) and self.noise.ndim >= 2 and self.noise.shape == self.x.shape
        return self.noise if is_image else None

    def _seen_noise(self, seen: kernel.Noisy) -> bool:
        """The columns of the noisy image from the read that scored x; False where one is undefined and has a flag."""
        if not all(map(math.isfinite, [*seen.mse.tolist(), *seen.ratio.tolist(), *seen.retention.tolist()])):
            return False
        self._pending |= {
            "psnr_noisy": pixel.to_db(seen.mse, self.ref.data_range),
            "cnr_fixed_noise": seen.ratio,
            "contrast_retention": seen.retention,
            "cnr_fixed_noise_worst": seen.ratio_worst,
            "contrast_retention_worst": seen.retention_worst,
        }
        return True

    def psnr(self) -> None:
        if self.checked.valid is None:
            _, square, absolute = pixel.errors({"x": self.x, "y": self.ref.y, "overshoot": "keep", **self.common})
            value = pixel.to_db(square, self.ref.data_range)
            self.flags.append(lambda host: pixel.infinite(int(np.isinf(host["psnr"]).sum())))
        else:
            result = pixel.psnr(self.x, self.ref.y, reduction="none", details=True, **self.common)
            square, absolute, value = result.components["mse"], result.components["mae"], result.value
            self.flags += result.flags
        self._rows("mse", square)
        self._rows("mae", absolute)
        self._rows("psnr", value)
        if self.ref.details:
            x = self.checked.x if self.checked.x.dtype != torch.uint16 else self.checked.x.int()
            self._rows("clipped_low", (x <= 0).double().mean((1, 2, 3)))
            self._rows("clipped_high", (x >= self.ref.data_range).double().mean((1, 2, 3)))

    def ssim(self) -> None:
        result = ssim.ssim(
            self.x, self.ref.y, reduction="none", details=True, components=self.ref.details, **self.common
        )
        self._rows("ssim", result.value)
        for name, part in (result.components or {}).items():
            if part.numel() == len(self.ref):
                self._rows(f"ssim_{name}", part)
        self.flags += result.flags
        self.settings["ssim"] = {k: v for k, v in result.settings.items() if k not in ("reduction", "nan")}

    def fsim(self) -> None:
        ref = self.ref
        self.settings["fsim_downsample"] = (
            "authors"
            if ref.fsim_downsample == "authors"
            else fsim.downsampling_factor(ref.y4.shape[2], ref.y4.shape[3], ref.fsim_downsample)
        )
        rows = ref.rows("fsim", self.x, {"downsample": ref.fsim_downsample})
        if rows is not None:
            self._rows("fsim", rows)
            if ref.mask is not None:
                self.flags.append("approximate: masked pixels take the reference's local mean")
            return
        result = fsim.fsim(self.x, ref.y, downsample=ref.fsim_downsample, reduction="none", details=True, **self.common)
        self._rows("fsim", result.value)
        self.flags += result.flags

    def dists(self) -> None:
        ref = self.ref
        options = {"weights": ref.dists_weights, "resize": ref.dists_resize}
        rows = ref.rows("dists", self.x, options)
        if rows is not None:
            weights = dists.load(ref.dists_weights)
            self._rows("dists", rows)
            self.flags += dists._flags(weights, channels=self.checked.x.shape[1], masked=ref.mask is not None)
            source, sha256, calibrated = weights.source, weights.sha256, weights.calibrated
        else:
            result = dists.dists(self.x, ref.y, reduction="none", details=True, **options, **self.common)
            self._rows("dists", result.value)
            self.flags += result.flags
            source, sha256, calibrated = (result.settings[k] for k in ("weights", "weights_sha256", "calibrated"))
        self.settings["dists"] = {
            "weights": source, "weights_sha256": sha256, "calibrated": calibrated, "resize": ref.dists_resize,
        }  # fmt: skip

    def lpips(self) -> None:
        ref = self.ref
        rows = ref.rows("lpips", self.x, {})
        if rows is None:
            found = lpips.lpips(self.x, ref.y, reduction="none", details=True, **self.common)
            rows = found.value
            self.flags += found.flags
        self._rows("lpips", rows)
        self.settings["lpips"] = lpips.published()

    def cnr(self) -> None:
        signal, background = self.regions
        # what the reference built shares no pixel
        value, reasons = cnr.rows(
            self.x, self.ref.y, signal, background, disjoint=self.ref.builds_regions, **self.common
        )
        self._rows("cnr_two_roi", value)
        self._reasons |= {f"cnr: {text}": hit for text, hit in reasons.items()}

        def told(host: dict[str, np.ndarray]) -> tuple[str, ...]:
            return cnr.told({text: (host[f"cnr: {text}"] != 0).tolist() for text in reasons})

        self.flags.append(lambda host: tuple(f"cnr: {flag}" for flag in told(host)))
        if self.noise is not None:
            self._fixed_noise(told)

    def _fixed_noise(self, told: Callable[[dict[str, np.ndarray]], tuple[str, ...]]) -> None:
        """CNR over the noise of the noisy input; `told`: the flags of CNR over the candidate's own noise."""
        signal, background = self.regions
        options: dict[str, Any] = {
            "signal": signal, "background": background, "mask": self.ref.mask, "data_range": self.ref.data_range,
            "nan": self.ref.nan, "backend": self.ref.backend, "reduction": "none", "details": True,
        }  # fmt: skip
        fixed: Any = cnr.cnr(self.x, self.ref.y, kind="fixed_noise", noise=self.noise, **options)
        self._rows("cnr_fixed_noise", fixed.value)
        self._rows("contrast_retention", fixed.components["contrast_retention"])
        self.flags.append(lambda host: tuple(f"cnr_fixed_noise: {f}" for f in fixed.flags if f not in told(host)))
        self._worst_windows({k: v for k, v in options.items() if k != "reduction"})

    def _worst_windows(self, options: dict[str, Any]) -> None:
        """The lowest window of each image: contrast lost in one place does not show in the ratio of a whole tile."""
        side = min(_WINDOW, *self.ref.y4.shape[2:])
        result: Any = cnr.cnr_map(
            self.x, self.ref.y, kind="fixed_noise", noise=self.noise, window=side, stride=max(1, side // 2),
            min_pixels=_WINDOW_PIXELS, **options,
        )  # fmt: skip
        self._lowest(result.value, result.components["contrast_retention"])

    def _lowest(self, ratios: torch.Tensor, retention: torch.Tensor) -> None:
        for name, values in (("cnr_fixed_noise_worst", ratios), ("contrast_retention_worst", retention)):
            rows = values.reshape(len(self.ref), -1)
            lowest = torch.where(torch.isnan(rows), torch.inf, rows).amin(1)
            self._rows(name, torch.where(torch.isnan(rows).all(1), torch.nan, lowest))

    def psnr_noisy(self) -> None:
        """PSNR of the noisy image, beside that of the candidate."""
        if self.noisy is None or "psnr" not in self.ref.metrics or "psnr_noisy" in self._pending:
            return
        self._rows("psnr_noisy", pixel.psnr(self.noise, self.ref.y, reduction="none", **self.common))

    def fingerprint(self) -> None:
        """Mean and σ of the reference: enough to notice that two profiles were scored against different ones."""
        if set(FINGERPRINT) <= set(self._pending):  # from the read that scored it
            return
        for name, value in zip(FINGERPRINT, self.ref.fingerprint(), strict=True):
            self._rows(name, value)
