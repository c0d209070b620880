"""Recordings of clean images by tools of many kinds, a batch at a time, in torch.

Every image of a batch gets a tool of its own: dose, read noise, correlation along the scan line, row noise, gain and
offset of the recording, clipping, rounding to 8 bit. Charging (a ramp over the field, and a trail along the line
behind bright structure) and shading belong to the signal: a denoiser is not asked to take them out, so they are in
the target too. `semnr.synth.Detector` is one such tool, in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..base.jsonable import from_plain

KERNELS = ("detector", "first_order", "gaussian")


@dataclass(frozen=True)
class Family:
    """From what the tools are drawn. Pairs are (lowest, highest); levels are parts of the range.

    Parameters
    ----------
    sigma
        Noise at half of full scale, one frame (drawn evenly in its logarithm).
    poisson
        Share of that variance that grows with the signal; drawn densest near the highest, since a good detector adds
        little of its own.
    correlation
        Of the noise with the pixel before on its line.
    row
        Row noise over sigma, in half of the images (none in the others).
    gain, offset
        The recorded level is gain · level + offset, then clipped to 0..1.
    charging
        Half the difference of level over the field that a charging ramp makes.
    trail
        Part of the local signal that is missing, or added, behind it on the line (decay 8 to 60 px).
    rounded
        Share of the images that are rounded to 8 bit.
    law_error, correlation_error
        Errors of the noise law that the network is told: relative, absolute (one standard deviation).
    kernel
        How the line correlates beyond its first lag. "detector": an amplifier's pole, a new one for each image, and the
        pixel's integration time over it; "first_order": the pole alone; "gaussian" (a low-pass filter): held out from
        the shipped recipe, the noise that training has not seen.
    """

    sigma: tuple[float, float] = (0.02, 0.2)
    poisson: tuple[float, float] = (0.0, 1.0)
    correlation: tuple[float, float] = (0.0, 0.7)
    row: tuple[float, float] = (0.0, 0.25)
    gain: tuple[float, float] = (0.7, 1.2)
    offset: tuple[float, float] = (-0.05, 0.1)
    charging: tuple[float, float] = (0.0, 0.08)
    trail: tuple[float, float] = (-0.06, 0.06)
    rounded: float = 0.5
    law_error: float = 0.05
    correlation_error: float = 0.03
    kernel: str = "detector"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "kernel":
                if value not in KERNELS:
                    raise ValueError(f"noise.kernel is {value!r}; accepted: {', '.join(map(repr, KERNELS))}")
            elif field.name in ("rounded", "law_error", "correlation_error"):
                if not 0 <= value <= 1:
                    raise ValueError(f"noise.{field.name} is {value}; accepted: 0 to 1")
            elif len(value) != 2 or not all(map(math.isfinite, value)) or value[0] > value[1]:
                raise ValueError(f"noise.{field.name} is {value}; accepted: two numbers, the lower one first")
        if self.sigma[0] <= 0 or self.correlation[0] < 0 or self.correlation[1] > 0.9:
            raise ValueError(
                f"noise.sigma is {self.sigma}, noise.correlation {self.correlation}; accepted: sigma above 0, "
                "correlation within 0 to 0.9"
            )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Family:
        made: Family = from_plain(cls, "noise", given)
        return made


@dataclass(frozen=True)
class Tools:
    """One tool an image, each field (N, 1, 1, 1)."""

    electrons: Tensor  # at full scale of the scene; infinite: no Poisson part
    read: Tensor
    correlation: Tensor
    pole: Tensor  # of the kernel "detector"; the others have none of their own
    row: Tensor
    gain: Tensor
    offset: Tensor
    rounded: Tensor  # bool
    kernel: str

    @staticmethod
    def draw(count: int, family: Family, generator: torch.Generator) -> Tools:
        def uniform(ends: tuple[float, float]) -> Tensor:
            return ends[0] + (ends[1] - ends[0]) * torch.rand(count, 1, 1, 1, generator=generator)

        sigma = torch.exp(uniform((math.log(family.sigma[0]), math.log(family.sigma[1]))))
        below, correlation = uniform((0.0, 1.0)), uniform(family.correlation)
        poisson = family.poisson[1] - (family.poisson[1] - family.poisson[0]) * below**2
        low = (2 * correlation - 1).clamp(min=0)
        row = uniform(family.row) * sigma * (torch.rand(count, 1, 1, 1, generator=generator) < 0.5)
        return Tools(
            electrons=0.5 / (poisson * sigma**2).clamp(min=1e-12),
            read=torch.sqrt((1 - poisson).clamp(min=0)) * sigma,
            correlation=correlation,
            # from as much of the correlation by integration as two pixels can have, to all of it by the pole
            pole=low + (correlation - low) * torch.rand(count, 1, 1, 1, generator=generator),
            row=row,
            gain=uniform(family.gain),
            offset=uniform(family.offset),
            rounded=torch.rand(count, 1, 1, 1, generator=generator) < family.rounded,
            kernel=family.kernel,
        )

    def recorded(self, clean: Tensor) -> Tensor:
        """The noise-free recording of scenes (N, 1, H, W) on 0..1: the target."""
        return (self.gain * clean + self.offset).clamp(0, 1)

    def noisy(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """One recording of each scene. Another call with the same generator is another frame."""
        clean = clean.clamp(min=0)
        drawn = torch.poisson(clean * self.electrons.clamp(max=1e6), generator=generator)
        noise = drawn / self.electrons.clamp(max=1e6) - clean
        variance = clean / self.electrons.clamp(max=1e6)
        noise += self.read * torch.randn(clean.shape, generator=generator)
        sigma = torch.sqrt(variance + self.read**2)
        unit = torch.where(sigma > 0, noise / sigma.clamp(min=1e-9), 0.0)
        noise = sigma * correlated(unit, self.correlation, self.kernel, self.pole)
        rows = torch.randn((*clean.shape[:2], clean.shape[2], 1), generator=generator)
        out = (self.gain * (clean + noise + self.row * rows) + self.offset).clamp(0, 1)
        return torch.where(self.rounded, torch.round(out * 255) / 255, out)

    def law(self, darkest: Tensor | float = 0.4) -> Tensor:
        """(N, 6): gain, offset, floor, centre and two correlations as a measurement on the recording would give them.

        The floor is half of the variance at the darkest recorded level, as the estimator sets it.

        Row noise and rounding count as noise; row noise also correlates fully along its line.
        """
        a = self.gain / self.electrons
        rows = (self.gain * self.row) ** 2
        rounding = torch.where(self.rounded, 1 / 12 / 255**2, 0.0)
        b = (self.gain * self.read) ** 2 + rows + rounding - a * self.offset
        middle = a * 0.4 + b - rows - rounding  # variance of the correlated part at a typical level
        whole = (middle + rows + rounding).clamp(min=1e-12)
        first = (self.correlation * middle + rows) / whole
        second = (second_lag(self.correlation, self.kernel, self.pole) * middle + rows) / whole
        floor = torch.maximum(0.5 * (a * darkest + b), 0.05 * (a * 0.4 + b))
        return torch.cat([v.reshape(-1, 1) for v in (a, b, floor, torch.full_like(a, 0.4), first, second)], dim=1)

    def sigma(self, level: float = 0.4) -> Tensor:
        """(N, 1, 1, 1): standard deviation of the recorded noise at a recorded level."""
        a, b, floor = (self.law()[:, i].reshape(-1, 1, 1, 1) for i in range(3))
        return torch.sqrt(torch.maximum(a * level + b, floor))


def told(law: Tensor, family: Family, generator: torch.Generator) -> Tensor:
    """(N, 7): the law with the errors of a measurement, no texture asked for."""
    law = law.clone()
    law[:, :3] *= torch.exp(family.law_error * torch.randn(len(law), 1, generator=generator))
    law[:, 3] += 0.1 * torch.randn(len(law), generator=generator)
    law[:, 4:] += family.correlation_error * torch.randn(len(law), 2, generator=generator)
    law[:, 4:].clamp_(0, 0.95)
    return torch.cat([law, torch.zeros(len(law), 1)], dim=1)


def correlated(white: Tensor, correlation: Tensor, kernel: str = "first_order", pole: Tensor | None = None) -> Tensor:
    """White noise (N, 1, H, W), variance 1, with this correlation of neighbours on a line; variance 1 stays 1.

    "detector" is the process x_t = pole · x_(t-1) + e_t + share · e_(t-1), with the share that gives the correlation.
    """
    if kernel == "gaussian":
        return _low_pass(white, correlation)
    if kernel == "first_order" or pole is None:
        pole, share = correlation, torch.zeros_like(correlation)
    else:
        a, b = correlation - pole, 1 + pole**2 - 2 * pole * correlation
        share = 2 * a / (b + torch.sqrt((b**2 - 4 * a**2).clamp(min=0)))
    spread = torch.sqrt((1 + 2 * pole * share + share**2) / (1 - pole**2))
    # the first pixel of a line stands for all before it
    before = torch.cat([white[..., :1] / spread, white[..., 1:-1]], dim=-1)
    out = torch.cat([white[..., :1], (white[..., 1:] + share * before) / spread], dim=-1)
    lag, power = 1, pole
    # 1/(1 - ρB) = (1 + ρB)(1 + ρ²B²)(1 + ρ⁴B⁴)...: a few passes and no loop over columns
    while lag < white.shape[-1] and float(power.max()) > 1e-6:
        out = torch.cat([out[..., :lag], out[..., lag:] + power * out[..., :-lag]], dim=-1)
        lag, power = 2 * lag, power**2
    return out


def second_lag(correlation: Tensor, kernel: str, pole: Tensor) -> Tensor:
    """Correlation with the pixel before the last one."""
    return {"detector": pole * correlation, "first_order": correlation**2, "gaussian": correlation**4}[kernel]


def _low_pass(white: Tensor, correlation: Tensor) -> Tensor:
    """Gaussian taps of width s correlate at lag k as exp(-k² / 4s²)."""
    width = torch.sqrt(-1 / (4 * torch.log(correlation.clamp(0.01, 0.95))))
    radius = 8
    offsets = torch.arange(-radius, radius + 1, dtype=white.dtype)
    taps = torch.exp(-0.5 * (offsets / width.reshape(-1, 1)) ** 2)
    taps = taps / torch.sqrt((taps**2).sum(dim=1, keepdim=True))
    # the ends of a line share noise: mirrored ones would have more of it
    padded = torch.nn.functional.pad(white[:, 0], (radius, radius), mode="circular")
    # one image a group: each has its own taps
    return torch.nn.functional.conv1d(
        padded.transpose(0, 1), taps.unsqueeze(1), groups=len(white)
    ).transpose(0, 1).unsqueeze(1)  # fmt: skip


def charged(scene: Tensor, family: Family, generator: torch.Generator) -> Tensor:
    """Scenes with a charging ramp and a trail along the line behind bright structure."""
    count, _, height, width = scene.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

    angle, ramp = uniform(0, 2 * math.pi), uniform(*family.charging)
    y = torch.linspace(-1, 1, height).reshape(1, 1, -1, 1)
    x = torch.linspace(-1, 1, width).reshape(1, 1, 1, -1)
    out = scene + ramp * (torch.sin(angle) * y + torch.cos(angle) * x)
    decay = torch.exp(-1 / uniform(8, 60))
    part = uniform(*family.trail)
    trail = (1 - decay) * (scene - scene.mean(dim=-1, keepdim=True))
    lag, power = 1, decay
    while lag < width:
        trail = torch.cat([trail[..., :lag], trail[..., lag:] + power * trail[..., :-lag]], dim=-1)
        lag, power = 2 * lag, power**2
    return (out - part * trail).clamp(0, 1)
