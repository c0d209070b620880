"""Evidence transfer: how much of the structure that was there did the denoiser let through?

T = ⟨B·d, B·r⟩ / ⟨B·x, B·r⟩ per tile and band, with x the noisy input, d the denoised image and r a clean
reference or a second noisy frame of the site. B is a band pass, Gaussian(1 px) − Gaussian(4 px) by default:
it takes the mean out, so an offset of any image cancels, and so does any gain of r. Noise in r is independent
of x and d and cancels on average; noise in x meets only r. T = 1: the structure passed whole; below: it was
smoothed away; above: it was sharpened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from semnr_kernels import checks
from semnr_kernels.planes import Tiles
from semnr_kernels.transfer import Settings, Transfer
from semnr_kernels.transfer import reference as definition
from semnr_kernels.transfer import transfer as transfer_of
from semnr_kernels.transfer.bands import smooth
from semnr_kernels.transfer.blocks import block_side

from ..base.jsonable import plain
from ..noise import NoiseModel
from .images import as_tiles_once, valid_pixels
from .residual import ResidualTests, residual_tests
from .residual.hints import residual_hints
from .shown import Drawn

KNOWN, UNKNOWN = "known", "unknown"
# ⟨Bx, Br⟩ must stand this many standard errors above 0 before a ratio over it means anything.
MIN_STRUCTURE_Z = 4.0
_CHUNK_PIXELS = 4 * 2**20  # pixels worked on at once: bounds the float64 copies


@dataclass(frozen=True, repr=False)
class Evidence(Drawn):
    """What `semnr.evidence` found; rows are tiles, columns are bands.

    Attributes
    ----------
    transfer, se : ndarray, (N, bands), float64
        T and its standard error over the noise; NaN where nothing is known.
    status : ndarray of str, (N, bands)
        "known" or "unknown".
    structure_z : ndarray, (N, bands)
        ⟨Bx, Br⟩ over its standard error: is there structure in the band at all?
    energy : ndarray, (N, bands)
        |Bd|² over the structure's own energy in the band, which is free of noise: ⟨Bx, Br⟩ with a second frame,
        ⟨Bx, Br⟩² / |Br|² with a clean reference. Below 1: texture washed out; above: noise left or detail invented.
    mse_drop : ndarray, (N,)
        MSE(noisy) − MSE(denoised) against r, with r's gain and offset fitted to the noisy image; with a second
        frame its noise cancels in the difference. Above 0: the denoiser improved MSE (and PSNR).
    residual : mapping of ndarray, (N,)
        Hints from noisy − denoised alone: see `residual_hints`. They have no threshold; `residual_tests` has.
    against : str
        "reference", "second_frame" or "none".
    maps : mapping or None
        With ``return_maps=True``: "residual" (N, C, H, W) float32; "transfer" (N, bands, H, W) float32, T in a
        neighbourhood of a few wavelengths, NaN where there is too little structure; "evidence" (N, H, W) float32,
        the z of the residual's scan, above 0 where structure was removed and below where it was invented.
    tests : ResidualTests or None
        With ``return_maps=True``: the residual tests that the map "evidence" belongs to, see `residual_tests`.
    """

    transfer: np.ndarray
    se: np.ndarray
    status: np.ndarray
    structure_z: np.ndarray
    energy: np.ndarray
    mse_drop: np.ndarray
    residual: Mapping[str, np.ndarray]
    bands: tuple[tuple[float, float], ...]
    against: str
    reason: str = ""
    maps: Mapping[str, np.ndarray] | None = None
    tests: ResidualTests | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.transfer)

    def _in_short(self) -> str:
        """The lowest transfer of any band."""
        known = self.transfer[self.status == KNOWN]
        lowest = (
            f"lowest T {known.min():.3f}" if known.size else f"T unknown{f': {self.reason}' if self.reason else ''}"
        )
        return f"against {self.against.replace('_', ' ')}, {lowest}"

    def _table(self) -> dict[str, Any]:
        """Transfer, standard error and status of each band."""
        columns: dict[str, Any] = {}
        for b, (low, high) in enumerate(self.bands):
            band = f"{low:g}-{high:g} px"
            columns |= {
                f"T {band}": self.transfer[:, b],
                f"± {band}": self.se[:, b],
                f"status {band}": self.status[:, b],
            }
        return columns

    def _marks(self, tile: int) -> Sequence[Mapping[str, Any]]:
        """The places that the residual tests marked in a tile."""
        return () if self.tests is None else self.tests.boxes[tile]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, in plain lists (NaN as None)."""
        names = (
            "transfer",
            "se",
            "status",
            "structure_z",
            "energy",
            "mse_drop",
            "bands",
            "against",
            "reason",
            "settings",
        )
        tests = None if self.tests is None else self.tests.to_dict()
        found = {**{n: plain(getattr(self, n)) for n in names}, "residual": plain(dict(self.residual))}
        return found if tests is None else {**found, "tests": tests}

    def __str__(self) -> str:
        rows = [f"evidence transfer against {self.against.replace('_', ' ')}, {len(self)} tile(s)"]
        if self.reason:
            rows.append(f"  unknown: {self.reason}")
        for b, (low, high) in enumerate(self.bands):
            known = self.status[:, b] == KNOWN
            t = self.transfer[known, b]
            say = f"T mean {t.mean():.3f}, lowest {t.min():.3f}; " if len(t) else ""
            rows.append(f"  band {low:g}-{high:g} px: {say}{len(t)} known, {int((~known).sum())} unknown")
        return "\n".join(rows)


def evidence(
    noisy: Any,
    denoised: Any,
    reference: Any = None,
    second_frame: Any = None,
    *,
    bands: Sequence[tuple[float, float]] = ((1.0, 4.0),),
    data_range: float | None = None,
    mask: Any = None,
    block: int | None = None,
    nan: str = "error",
    hints: bool = True,
    return_maps: bool = False,
    noise: NoiseModel | Sequence[NoiseModel] | None = None,
    scan_axis: int = -1,
) -> Evidence:
    """Evidence transfer of a denoiser, per tile and band.

    Parameters
    ----------
    noisy, denoised : Tensor or ndarray, (N, C, H, W) with C of 1 or 3, (1, H, W) or (H, W)
        The denoiser's input and output, on one intensity scale. Dtypes may differ (8-bit in, float out).
    reference, second_frame : same shape, optional
        One of them: the clean image, or another noisy frame of the same site. Registered; its noise must be
        independent of `noisy`. Its gain and offset do not matter. With neither every status is "unknown".
    bands : sequence of (low, high)
        Sigmas in px of the two Gaussians whose difference is the band; low = 0 keeps the finest detail.
    data_range : float, optional
        Only recorded: T has no unit.
    mask : bool, (H, W), (N, H, W) or (N, 1, H, W), optional
        Valid pixels; the others take no part (normalised convolution).
    block : int, optional
        Side in px of the blocks that the standard error is taken over; default: 8 × the widest sigma,
        less where a tile would hold fewer than 4 × 4 of them.
    nan : {"error", "omit"}
        Non-finite pixels: refuse, or treat as masked.
    hints : bool
        Also the figures of the residual; False saves about half of the time.
    return_maps : bool
        Also the residual, the local transfer and the residual's scan as maps, with the residual tests; tiles of at
        least 32 px a side.
    noise, scan_axis
        For the residual tests: the noise of `noisy` (default: fitted to each tile) and the axis of the scan lines.

    Returns
    -------
    Evidence

    Raises
    ------
    TypeError, ValueError
        The argument, what it was, what is accepted.

    Examples
    --------
    >>> found = semnr.evidence(noisy, denoised, clean)
    >>> print(f"{found.transfer[0, 0]:.2f}, {found.status[0, 0]}")
    0.78, known
    >>> semnr.evidence(noisy, denoised, second_frame=second).against  # no clean image at hand
    'second_frame'
    >>> semnr.evidence(noisy, denoised).status.tolist()
    [['unknown']]
    """
    bands = as_bands(bands)
    checks.choice("nan", nan, ("error", "omit"))
    if reference is not None and second_frame is not None:
        raise ValueError("reference and second_frame are both given; accepted: one of them (or neither)")
    if block is not None:
        checks.positive_int("block", block)
    against = "reference" if reference is not None else "second_frame" if second_frame is not None else "none"
    x = as_tiles_once("noisy", noisy)
    d = as_tiles_once("denoised", denoised, like=x)
    given = reference if reference is not None else second_frame
    r = None if given is None else as_tiles_once(against, given, like=x)
    valid = checks.as_mask(torch.as_tensor(mask), x.images) if mask is not None else None
    n, c, h, w = x.images.shape
    side = block or block_side(h, w, max(high for _, high in bands))

    step = max(1, _CHUNK_PIXELS // (c * h * w))
    parts: list[dict[str, Any]] = []
    for start in range(0, n, step):
        rows = slice(start, start + step)
        part = _Part(x[rows], d[rows], None if r is None else r[rows], None if valid is None else valid[rows])
        parts.append(part.figures(bands, side, against, nan, hints, return_maps))

    joined: dict[str, Any] = {
        k: np.concatenate([p[k] for p in parts]) for k in parts[0] if k not in ("residual", "maps")
    }
    joined["residual"] = {k: np.concatenate([p["residual"][k] for p in parts]) for k in parts[0]["residual"]}
    maps = {k: np.concatenate([p["maps"][k] for p in parts]) for k in parts[0]["maps"]} if return_maps else None
    tests = None
    if maps is not None:
        tests = residual_tests(
            x, d, noise=noise, data_range=data_range, mask=valid, nan=nan, scan_axis=scan_axis, return_maps=True
        )
        maps["evidence"] = tests.maps["evidence"] if tests.maps else np.empty(0)
    return as_evidence(joined, bands, against, side, nan, data_range, maps, tests)


def as_evidence(
    joined: Mapping[str, Any],
    bands: tuple[tuple[float, float], ...],
    against: str,
    side: int,
    nan: str,
    data_range: float | None,
    maps: dict[str, np.ndarray] | None = None,
    tests: Any = None,
) -> Evidence:
    """The result, from (N, bands) figures by name, "mse_drop" (N,) and maybe those of the residual."""
    known = (joined["structure_z"] >= MIN_STRUCTURE_Z) & np.isfinite(joined["transfer"]) & np.isfinite(joined["se"])
    reason = ""
    if against == "none":
        reason = "one frame alone: transfer needs a reference or a second frame; the residual figures are hints"
    elif not known.all():
        reason = f"{int((~known).sum())} tile(s) × band(s) without enough structure (z below {MIN_STRUCTURE_Z:g})"
    return Evidence(
        transfer=np.where(known, joined["transfer"], np.nan),
        se=np.where(known, joined["se"], np.nan),
        status=np.where(known, KNOWN, UNKNOWN),
        structure_z=joined["structure_z"],
        energy=np.where(known, joined["energy"], np.nan),
        mse_drop=joined["mse_drop"],
        residual=joined.get("residual", {}),
        bands=bands,
        against=against,
        reason=reason,
        maps=maps,
        tests=tests,
        settings={"data_range": data_range, "block": side, "nan": nan, "min_structure_z": MIN_STRUCTURE_Z},
    )


def as_bands(bands: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    try:
        checked = tuple((float(low), float(high)) for low, high in bands)
    except (TypeError, ValueError):
        raise TypeError(f"bands is {bands!r}; accepted: pairs of sigmas in px, such as ((1.0, 4.0),)") from None
    for low, high in checked:
        if not (math.isfinite(high) and 0 <= low < high):
            raise ValueError(f"bands has ({low:g}, {high:g}); accepted: 0 <= low < high, finite")
    if not checked:
        raise ValueError("bands is empty; accepted: at least one pair of sigmas")
    return checked


class _Part:
    """Some of the tiles, as many as are worked on at once."""

    def __init__(self, x: Tiles, d: Tiles, r: Tiles | None, valid: torch.Tensor | None) -> None:
        self.x, self.d, self.r, self.valid = x, d, r, valid

    def figures(
        self, bands: tuple[tuple[float, float], ...], side: int, against: str, nan: str, hints: bool, maps: bool
    ) -> dict[str, Any]:
        images = {"noisy": self.x.images, "denoised": self.d.images}
        if self.r is not None:
            images[against] = self.r.images
        valid = valid_pixels(images, self.valid, nan)
        n = len(self.x.images)
        rows, local = [], []
        for k, (low, high) in enumerate(bands):
            settings = Settings(low, high, side, MIN_STRUCTURE_Z, against == "second_frame", with_drop=k == 0)
            if self.r is None:
                none = torch.full((n,), torch.nan, dtype=torch.float64)
                rows.append(Transfer(none, none, none, none, none))
                continue
            rows.append(transfer_of(self.x, self.d, self.r, valid, settings))
            if maps:
                local.append(_local_ratio(*definition.products(self.x, self.d, self.r, valid, settings), 4 * high))
        out: dict[str, Any] = {
            name: torch.stack([getattr(row, name) for row in rows], 1).cpu().numpy()
            for name in ("transfer", "se", "structure_z", "energy")
        }
        out["mse_drop"] = rows[0].mse_drop.cpu().numpy()
        x, d = (v.images.double() for v in (self.x, self.d)) if hints or maps else (None, None)
        if valid is not None and x is not None and d is not None:
            x, d = (torch.where(valid, v, 0.0) for v in (x, d))
        out["residual"] = residual_hints(x, d, valid) if hints and x is not None and d is not None else {}
        if maps and x is not None and d is not None:
            none = torch.full((n, len(bands), *x.shape[2:]), torch.nan)
            out["maps"] = {
                "residual": (x - d).float().cpu().numpy(),
                "transfer": (torch.stack(local, 1).float().cpu() if local else none).numpy(),
            }
        return out


def _local_ratio(upper: torch.Tensor, lower: torch.Tensor, sigma: float) -> torch.Tensor:
    a, b = (smooth(v[:, None], (sigma,))[0][:, 0] for v in (upper, lower))
    floor = 0.1 * b.mean(dim=(1, 2), keepdim=True)  # too little structure to divide by
    return torch.where((b > floor) & (floor > 0), a / b, torch.nan)
