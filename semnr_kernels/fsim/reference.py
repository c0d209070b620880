"""FSIM and FSIMc, as defined, in float64. README.md has the formulas in the same order and names."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from ..constants import constant, kept
from ..convolution import conv2d
from ..fill import fill_masked

T1, T2, T3, T4, LAMBDA = 0.85, 160.0, 200.0, 200.0, 0.03  # Zhang 2011, section III.C, on the 0-255 scale
EPS = torch.finfo(torch.float64).eps
# The estimate of the noise's energy holds for an older measure; for this one it is 1.7 times too large (Kovesi).
NOISE_RESCALE = 1.7
LOW_PASS_CUTOFF, LOW_PASS_ORDER = 0.45, 15
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
SCHARR = ((-3.0, 0.0, 3.0), (-10.0, 0.0, 10.0), (-3.0, 0.0, 3.0))
_CHUNK_PIXELS = 2**16  # images go through the filters in groups of this many pixels: bounds the memory
_CACHE_BYTES = 2**28


@dataclass(frozen=True)
class Filters:
    """The parameters of the log-Gabor filters.

    Attributes
    ----------
    scales, orientations : int
        Number of wavelengths and of directions of the log-Gabor filters.
    min_length : float
        Shortest wavelength in pixels, at least 2.
    mult : float
        Ratio between the wavelengths of neighbouring scales, above 1.
    sigma_f : float
        Relative bandwidth of the filters, between 0 and 1.
    delta_theta : float
        Angular spacing of the filters over their angular spread, above 0.
    k : float
        Noise threshold in standard deviations, at least 0.

    Examples
    --------
    >>> kernels.fsim.Filters(scales=3).longest  # the coarsest wavelength, in pixels
    24
    """

    scales: int = 4
    orientations: int = 4
    min_length: float = 6
    mult: float = 2
    sigma_f: float = 0.55
    delta_theta: float = 1.2
    k: float = 2.0

    @property
    def longest(self) -> float:
        """Wavelength of the coarsest filter, in (downsampled) pixels."""
        return self.min_length * self.mult ** (self.scales - 1)


@dataclass(frozen=True)
class Settings:
    """All that FSIM needs beside the pixels. Features of two images can be compared where the first five agree.

    Attributes
    ----------
    factor : int
        By which the images are averaged first.
    authors : bool
        Sample as MATLAB's conv2(..., "same") and stride, not as average pooling.
    chromatic : bool
        Whether colour enters (FSIMc).
    filters : Filters
        The log-Gabor filters.
    precision : {"float32", "float64"}
        What a fast backend computes in. The backend `reference` computes in float64.
    data_range : float
        Width of the intensity scale in grey levels.
    want_maps : bool
        Whether the backend returns the local similarity and its factors.

    Examples
    --------
    >>> kernels.fsim.Settings(factor=2) == kernels.fsim.Settings(factor=2, want_maps=True)
    True
    """

    factor: int = 1
    authors: bool = False
    chromatic: bool = False
    filters: Filters = field(default_factory=Filters)
    precision: str = "float32"
    data_range: float = field(default=1.0, compare=False)
    want_maps: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Features:
    """All that FSIM reads from one image, at the downsampled size; float64, or the precision of a fast backend.

    Attributes
    ----------
    phase_congruency : Tensor, (N, 1, h, w)
        In (0, 1].
    gradient : Tensor, (N, 1, h, w)
        Gradient magnitude, in grey levels a pixel on the scale 0 to 255.
    chroma : Tensor, (N, 2, h, w), optional
        The colour channels I and Q.
    valid : Tensor, (N, 1, h, w), optional
        With a mask: share of valid pixels under each averaged one.
    settings : Settings
        How they were made.

    Examples
    --------
    >>> kept = kernels.fsim.features(y)
    >>> kept.gradient.shape, kept.chroma, kept.settings.factor
    (torch.Size([1, 1, 192, 192]), None, 1)
    """

    phase_congruency: torch.Tensor
    gradient: torch.Tensor
    chroma: torch.Tensor | None
    valid: torch.Tensor | None
    settings: Settings


@dataclass(frozen=True)
class Comparison:
    """What the comparison of two images gives.

    Attributes
    ----------
    rows : Tensor, (N,) float64
        FSIM of each image.
    similarity : Tensor, (N, 1, h, w), optional
        The local similarity.
    weight : Tensor, (N, 1, h, w), optional
        Its weight in the mean: the larger phase congruency.
    phase_congruency, gradient : Tensor, (N, 1, h, w), optional
        The two factors of the local similarity.
    chroma : Tensor, (N, 1, h, w), optional
        The third factor; None where only the luminance was compared.

    Examples
    --------
    >>> comparison = kernels.fsim.similarity(kernels.fsim.features(x), kernels.fsim.features(y), maps=True)
    >>> comparison.rows, comparison.similarity.shape
    (tensor([0.9693], dtype=torch.float64), torch.Size([1, 1, 192, 192]))
    """

    rows: torch.Tensor
    similarity: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    phase_congruency: torch.Tensor | None = None
    gradient: torch.Tensor | None = None
    chroma: torch.Tensor | None = None


def fsim(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Settings) -> Comparison:
    """Compare candidate `x` with reference `y`, (N, C, H, W) of any dtype; valid: (N, 1, H, W) bool or None."""
    x, y = fill_masked(on_255(x, s.data_range), on_255(y, s.data_range), valid)  # [N, C, H, W] each
    return compare(extract(x, valid, s), extract(y, valid, s), s)


def features(image: torch.Tensor, valid: torch.Tensor | None, reference: torch.Tensor | None, s: Settings) -> Features:
    """Features of one batch; masked pixels take the local mean of `reference`, or of the image itself."""
    scaled = on_255(image, s.data_range)
    if valid is not None:
        scaled, _ = fill_masked(scaled, scaled if reference is None else on_255(reference, s.data_range), valid)
    return extract(scaled, valid, s)


def on_255(image: torch.Tensor, data_range: float) -> torch.Tensor:
    return image.double() / data_range * 255


def extract(image: torch.Tensor, valid: torch.Tensor | None, s: Settings) -> Features:
    """Features of a float64 batch on the 0-255 scale."""
    luminance, chroma = planes(image, s)  # [N, 1, h, w], [N, 2, h, w]
    share = None if valid is None else downsample(valid.double(), s)  # [N, 1, h, w]
    return Features(phase_congruency(luminance, s.filters), gradient_magnitude(luminance), chroma, share, s)


def planes(image: torch.Tensor, s: Settings) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Luminance and, where it is compared, chroma (I and Q) of a batch, downsampled."""
    image = downsample(image, s)  # [N, C, h, w]
    if image.shape[1] == 1:
        return image, None
    red, green, blue = image.split(1, dim=1)  # [N, 1, h, w] each
    y, i, q = (r * red + g * green + b * blue for r, g, b in YIQ)
    return y, torch.cat((i, q), dim=1) if s.chromatic else None


def compare(fx: Features, fy: Features, s: Settings) -> Comparison:
    """Pool the local similarities, weighted by the larger phase congruency (Zhang 2011, eq. 3 to 9)."""
    pc_x, pc_y = fx.phase_congruency.double(), fy.phase_congruency.double()  # [N, 1, h, w], as all planes here
    s_pc = _similarity(pc_x, pc_y, T1)  # eq. 4
    s_g = _similarity(fx.gradient.double(), fy.gradient.double(), T2)  # eq. 5
    local, s_c = s_pc * s_g, None  # eq. 6
    if fx.chroma is not None and fy.chroma is not None:
        chroma_x, chroma_y = fx.chroma.double(), fy.chroma.double()
        s_i = _similarity(chroma_x[:, :1], chroma_y[:, :1], T3)
        s_q = _similarity(chroma_x[:, 1:], chroma_y[:, 1:], T4)
        s_c = _safe_power((s_i * s_q).abs(), LAMBDA)
        local = local * s_c
    weight = torch.maximum(pc_x, pc_y)
    shares = [valid for valid in (fx.valid, fy.valid) if valid is not None]
    if shares:
        weight = weight * torch.minimum(shares[0], shares[-1])
    rows = (local * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))  # [N], eq. 8
    return Comparison(rows, local, weight, s_pc, s_g, s_c) if s.want_maps else Comparison(rows)


def downsample(image: torch.Tensor, s: Settings) -> torch.Tensor:
    if s.factor == 1:
        return image
    if s.authors:  # the part that MATLAB's conv2(..., "same") keeps, zeros beyond the border
        after = s.factor // 2
        before = s.factor - 1 - after
        image = F.pad(image, (before, after, before, after))
    return F.avg_pool2d(image, s.factor)


def gradient_magnitude(luminance: torch.Tensor) -> torch.Tensor:
    """Scharr gradient, zeros beyond the border."""
    across = constant(luminance.device, luminance.dtype, *(v / 16 for row in SCHARR for v in row)).reshape(3, 3)
    both = conv2d(luminance, torch.stack((across, across.T))[:, None], padding=1)
    return _modulus(both[:, :1], both[:, 1:])


def phase_congruency(luminance: torch.Tensor, p: Filters) -> torch.Tensor:
    """Kovesi's phase congruency of (N, 1, h, w) float64, noise threshold included."""
    n, _, h, w = luminance.shape
    bank = _bank(h, w, p, luminance.device)
    group = max(1, _CHUNK_PIXELS // (h * w))
    return torch.cat([_phase_congruency(luminance[i : i + group], bank) for i in range(0, n, group)])


def _phase_congruency(luminance: torch.Tensor, bank: _Bank) -> torch.Tensor:
    # No filter passes the mean. Taking one pixel off first makes a flat image answer with exact zeros
    # where the transform would leave rounding errors, whose phase congruency is arbitrary.
    spectrum = torch.fft.fft2(luminance - luminance[..., :1, :1].detach())  # [N, 1, h, w] complex
    energies: list[torch.Tensor] = []
    amplitudes: list[torch.Tensor] = []
    for angular, noise_gain in zip(bank.angular, bank.noise_gain, strict=True):
        response = torch.fft.ifft2(spectrum * (bank.radial * angular))  # [N, scales, h, w] complex
        even, odd = response.real.contiguous(), response.imag.contiguous()
        amplitude = _modulus(even, odd)
        sum_even, sum_odd = even.sum(1, keepdim=True), odd.sum(1, keepdim=True)  # [N, 1, h, w]
        length = _modulus(sum_even, sum_odd) + EPS
        mean_even, mean_odd = sum_even / length, sum_odd / length
        along = sum_even * mean_even + sum_odd * mean_odd  # summed over the scales
        across = (even * mean_odd - odd * mean_even).abs().sum(1, keepdim=True)
        threshold = noise_gain * amplitude[:, :1].flatten(1).median(dim=1).values  # [N]
        energies.append(torch.relu(along - across - threshold[:, None, None, None]))
        amplitudes.append(amplitude.sum(1, keepdim=True))
    return (_total(energies) + EPS) / (_total(amplitudes) + EPS)


@dataclass(frozen=True)
class _Bank:
    radial: torch.Tensor  # (scales, h, w)
    angular: torch.Tensor  # (orientations, h, w)
    noise_gain: tuple[float, ...]  # one an orientation: median amplitude at the finest scale -> threshold

    @property
    def nbytes(self) -> int:
        return self.radial.nbytes + self.angular.nbytes


_banks: OrderedDict[tuple[int, int, Filters, torch.device], _Bank] = OrderedDict()
_banks_lock = threading.Lock()


def _bank(h: int, w: int, p: Filters, device: torch.device) -> _Bank:
    """The filters of one size, kept while they fit the cache."""
    key = (h, w, p, device)
    with _banks_lock:
        bank = _banks.get(key)
        if bank is not None:
            _banks.move_to_end(key)
    if bank is None:
        with torch.no_grad(), torch.inference_mode(False):
            bank = _build_bank(h, w, p, device)
        with _banks_lock:
            _banks[key] = bank
            while sum(b.nbytes for b in _banks.values()) > _CACHE_BYTES:
                _banks.popitem(last=False)
    kept(bank.radial)  # a graph that is being captured reads them by their address
    kept(bank.angular)
    return bank


def _build_bank(h: int, w: int, p: Filters, device: torch.device) -> _Bank:
    u, v = _frequencies(h, device)[:, None], _frequencies(w, device)[None, :]
    radius, theta = torch.sqrt(u**2 + v**2), torch.atan2(-v, u)
    low_pass = 1 / (1 + (radius / LOW_PASS_CUTOFF) ** (2 * LOW_PASS_ORDER))
    radius[0, 0] = 1  # any value: the filters are set to 0 there
    radial = torch.stack(
        [
            torch.exp(-(torch.log(radius * p.min_length * p.mult**s) ** 2) / (2 * math.log(p.sigma_f) ** 2)) * low_pass
            for s in range(p.scales)
        ]
    )
    radial[:, 0, 0] = 0
    spread = math.pi / (p.orientations * p.delta_theta)
    angular = []
    for o in range(p.orientations):
        turn = theta - o * math.pi / p.orientations
        distance = torch.atan2(torch.sin(turn), torch.cos(turn))  # wrapped to [-π, π]
        angular.append(torch.exp(-(distance**2) / (2 * spread**2)))
    gains = tuple(_noise_gain(radial * a, p.k) for a in angular)
    return _Bank(radial, torch.stack(angular), gains)


def _noise_gain(filters: torch.Tensor, k: float) -> float:
    """Noise threshold of one orientation per unit of the median amplitude at its finest scale; see README.md."""
    # The real part of a filter's impulse response is the transform of the filter's even part (Parseval).
    total = filters.sum(0)
    even = (total + total.flip(0, 1).roll((1, 1), (0, 1))) / 2
    return threshold_gain(float(even.square().sum() / filters[0].square().sum()), k)


def threshold_gain(ratio: float, k: float) -> float:
    """The same from Σ (even Σ_s F_so)² / Σ F_0o²."""
    rayleigh = math.sqrt(math.pi / 2) + k * math.sqrt(2 - math.pi / 2)
    return rayleigh * math.sqrt(ratio / math.log(2)) / NOISE_RESCALE


def _frequencies(n: int, device: torch.device) -> torch.Tensor:
    """Cycles a pixel in FFT order. On odd sizes the divisor is n - 1, as in Kovesi's code: ±0.5 is reached."""
    index = torch.arange(n, device=device)
    return torch.where(index < (n + 1) // 2, index, index - n).double() / (n - n % 2)


def _similarity(a: torch.Tensor, b: torch.Tensor, constant: float) -> torch.Tensor:
    return (2 * a * b + constant) / (a**2 + b**2 + constant)


def _modulus(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """√(a² + b²) whose gradient at 0 is 0, not NaN."""
    square = a * a + b * b
    if not square.requires_grad:
        return square.sqrt()
    zero = square == 0
    return torch.sqrt(square + zero) * ~zero


def _safe_power(a: torch.Tensor, exponent: float) -> torch.Tensor:
    """a^exponent for a >= 0, whose gradient at 0 is 0, not infinite."""
    zero = a == 0
    return torch.where(zero, a, torch.where(zero, 1.0, a) ** exponent)


def _total(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(parts).sum(0)
