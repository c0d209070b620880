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

from ..base.jsonable import plain
from ..noise import NoiseModel
from .bands import band_pass, smooth
from .blocks import block_side, block_sums
from .images import as_tiles, finite
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
    bands = _as_bands(bands)
    checks.choice("nan", nan, ("error", "omit"))
    if reference is not None and second_frame is not None:
        raise ValueError("reference and second_frame are both given; accepted: one of them (or neither)")
    if block is not None:
        checks.positive_int("block", block)
    against = "reference" if reference is not None else "second_frame" if second_frame is not None else "none"
    x = as_tiles("noisy", noisy)
    d = as_tiles("denoised", denoised, like=x)
    r = None if against == "none" else as_tiles(against, reference if reference is not None else second_frame, like=x)
    valid = checks.as_mask(torch.as_tensor(mask), x) if mask is not None else None
    n, c, h, w = x.shape
    side = block or block_side(h, w, max(high for _, high in bands))

    step = max(1, _CHUNK_PIXELS // (c * h * w))
    parts: list[dict[str, Any]] = []
    for start in range(0, n, step):
        rows = slice(start, start + step)
        r_rows = None if r is None else r[rows].double()
        m = None if valid is None else valid[rows]
        images = {"noisy": x[rows].double(), "denoised": d[rows].double()}
        if r_rows is not None:
            images[against] = r_rows
        m = finite(images, m, nan)
        parts.append(
            _chunk(
                images["noisy"], images["denoised"], images.get(against), m, bands, side, against, hints, return_maps
            )
        )

    joined = {k: np.concatenate([p[k] for p in parts]) for k in parts[0] if k not in ("residual", "maps")}
    maps = {k: np.concatenate([p["maps"][k] for p in parts]) for k in parts[0]["maps"]} if return_maps else None
    tests = None
    if maps is not None:
        tests = residual_tests(
            x, d, noise=noise, data_range=data_range, mask=valid, nan=nan, scan_axis=scan_axis, return_maps=True
        )
        maps["evidence"] = tests.maps["evidence"] if tests.maps else np.empty(0)
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
        residual={k: np.concatenate([p["residual"][k] for p in parts]) for k in parts[0]["residual"]},
        bands=bands,
        against=against,
        reason=reason,
        maps=maps,
        tests=tests,
        settings={"data_range": data_range, "block": side, "nan": nan, "min_structure_z": MIN_STRUCTURE_Z},
    )


def _as_bands(bands: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
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


def _chunk(
    x: torch.Tensor,
    d: torch.Tensor,
    r: torch.Tensor | None,
    valid: torch.Tensor | None,
    bands: tuple[tuple[float, float], ...],
    side: int,
    against: str,
    hints: bool,
    return_maps: bool,
) -> dict[str, Any]:
    n, nan = x.shape[0], np.full((x.shape[0], len(bands)), np.nan)
    weight = torch.ones_like(x[:, :1]) if valid is None else valid.double()
    out: dict[str, Any] = {"transfer": nan.copy(), "se": nan.copy(), "structure_z": nan.copy(), "energy": nan.copy()}
    local: list[torch.Tensor] = []
    for b, (low, high) in enumerate(bands):
        if r is None:
            break
        bx, bd, br = (band_pass(v, low, high, valid) * weight for v in (x, d, r))
        upper, lower = (bd * br).sum(1), (bx * br).sum(1)
        t, se, z = ratio(upper, lower, side)
        few = torch.nonzero(~(z >= MIN_STRUCTURE_Z)).flatten()  # structure in few blocks only, or none
        if len(few):
            t_few = t[few, None, None, None]
            se[few], z[few] = _isolated(bx[few], bd[few], br[few], t_few)
        out["transfer"][:, b], out["se"][:, b], out["structure_z"][:, b] = (v.cpu().numpy() for v in (t, se, z))
        own = lower.sum((1, 2))
        if against == "reference":
            own = own.square() / br.square().sum((1, 2, 3))
        out["energy"][:, b] = (bd.square().sum((1, 2, 3)) / own).cpu().numpy()
        if return_maps:
            local.append(_local_ratio(upper, lower, 4 * high))
    out["mse_drop"] = np.full(n, np.nan) if r is None else _mse_drop(x, d, r, weight, against).cpu().numpy()
    out["residual"] = residual_hints(x, d, valid) if hints else {}
    if return_maps:
        none = torch.full((n, len(bands), *x.shape[2:]), torch.nan)
        out["maps"] = {
            "residual": (x - d).float().cpu().numpy(),
            "transfer": (torch.stack(local, 1).float().cpu() if local else none).numpy(),
        }
    return out


def ratio(upper: torch.Tensor, lower: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Σ upper / Σ lower per tile, its standard error, and Σ lower over its own standard error.

    upper, lower: (N, H, W) products. Blocks of `side` px are taken as independent; the delete-one-block
    jackknife in its linear form: the spread of upper − T · lower over the blocks.
    """
    a, b = block_sums(upper, side), block_sums(lower, side)
    k = a.shape[1]
    total_b = b.sum(1)
    t = a.sum(1) / total_b
    scale = k / (k - 1) if k > 1 else math.nan
    se = (scale * (a - t[:, None] * b).square().sum(1)).sqrt() / total_b.abs()
    se_b = (scale * (b - b.mean(1, keepdim=True)).square().sum(1)).sqrt()
    return t, se, total_b / se_b


def _isolated(
    bx: torch.Tensor, bd: torch.Tensor, br: torch.Tensor, t: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard error of T and z of ⟨Bx, Br⟩ for structure that lies in too few blocks for their spread to tell
    (one edge, one defect): from the spectra, as if what is left after regression were stationary and independent."""
    dims = (1, 2, 3)
    cross = (bx * br).sum(dims)
    gain = (cross / br.square().sum(dims))[:, None, None, None]
    back = (cross / bx.square().sum(dims))[:, None, None, None]
    z = cross / _product_sigma(bx - gain * br, br - back * bx)
    return _product_sigma(bd - t * bx, br) / cross.abs(), z


def _product_sigma(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Standard deviation of ⟨u, v⟩ for independent stationary fields: √(Σ |U|² |V|²) / pixels."""
    power = torch.fft.fft2(u).abs().square() * torch.fft.fft2(v).abs().square()
    return power.sum((1, 2, 3)).sqrt() / (u.shape[2] * u.shape[3])


def _local_ratio(upper: torch.Tensor, lower: torch.Tensor, sigma: float) -> torch.Tensor:
    a, b = (smooth(v[:, None], (sigma,))[0][:, 0] for v in (upper, lower))
    floor = 0.1 * b.mean(dim=(1, 2), keepdim=True)  # too little structure to divide by
    return torch.where((b > floor) & (floor > 0), a / b, torch.nan)


def _mse_drop(x: torch.Tensor, d: torch.Tensor, r: torch.Tensor, weight: torch.Tensor, against: str) -> torch.Tensor:
    """MSE(x) − MSE(d) against a·r + b. A clean r is fitted by least squares; the noise of a second frame would
    pull that slope towards 0, so there the ratio of the standard deviations is the gain (equal doses)."""
    dims = (1, 2, 3)
    count = weight.sum(dims, keepdim=True) * x.shape[1]

    def centre(v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = (v * weight).sum(dims, keepdim=True) / count
        return (v - mean) * weight, mean

    (x0, mean_x), (r0, _) = centre(x), centre(r)
    power_r = r0.square().sum(dims, keepdim=True)
    slope = (x0 * r0).sum(dims, keepdim=True) / power_r
    if against == "second_frame":
        slope = (x0.square().sum(dims, keepdim=True) / power_r).sqrt()
    slope = torch.where(power_r > 0, slope, 0.0)
    target = slope * r0
    d0 = (d - mean_x) * weight
    return (((x0 - target).square() - (d0 - target).square()).sum(dims, keepdim=True) / count).flatten()
