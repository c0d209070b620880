"""Held-out tiles, and how a model scores on them: the profile, the evidence transfer, the guardrails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semnr_kernels.pretrained import VGG16

from ..denoising import NoiseModel, denoise, estimate_noise
from ..denoising.learned import law
from ..denoising.network import SemDenoiser
from ..guarding import guard
from ..noise.family import figures
from ..profiles import Profile, profile, radar
from ..trust.transfer import Evidence
from ..trust.transfer import evidence as measure_evidence
from . import scenes as scene_kinds
from .config import Recipe
from .noise import Family, Tools, charged

HELD_OUT = 1_000_003  # added to the seed: scenes and tools that no batch has
_LOW = 0.88  # evidence transfer below which structure was lost


@dataclass(frozen=True)
class HeldOut:
    """Tiles that training never sees; `reference` is the clean image, or a second frame, or None."""

    noisy: Tensor  # (N, 1, H, W) float32 on 0..1
    reference: Tensor | None
    against: str  # "reference", "second_frame", "none"
    laws: Tensor  # (N, 7), as measured on each tile
    noises: tuple[NoiseModel, ...]

    def __len__(self) -> int:
        return len(self.noisy)

    def evidence(self, denoised: Tensor) -> Evidence:
        """What of these tiles' structure reached `denoised`."""
        if self.against == "second_frame":
            return measure_evidence(self.noisy, denoised, second_frame=self.reference, hints=False)
        return measure_evidence(self.noisy, denoised, self.reference, hints=False)


def synthetic(
    recipe: Recipe, *, kernel: str | None = None, tiles: int | None = None, seed: int | None = None,
    sigma: tuple[float, float] | None = None,
) -> HeldOut:  # fmt: skip
    """Held-out scenes, recorded by held-out tools, of the recipe's family or of another kernel of correlation.

    The noise law is measured on each tile as `semnr.denoise` does it: its errors are part of the figures.
    """
    from dataclasses import replace

    count, side = tiles or recipe.validation.tiles, recipe.validation.side
    seed = (recipe.training.seed if seed is None else seed) + HELD_OUT
    shares = {k: v for k, v in recipe.scenes.shares.items() if k != "blank"}  # nothing to score there
    rough = recipe.scenes.roughness
    made = [scene_kinds.scene(seed, i, side, {kind: 1.0}, rough) for i, kind in enumerate(_kinds(shares, count))]
    scenes = torch.from_numpy(np.stack(made))[:, None]
    generator = torch.Generator().manual_seed(seed)
    changes: dict[str, Any] = {"kernel": kernel, "sigma": sigma or recipe.validation.sigma}
    family: Family = replace(recipe.noise, **{name: value for name, value in changes.items() if value is not None})
    if recipe.scenes.charging:
        scenes = charged(scenes, family, generator)
    tools = Tools.draw(count, family, generator)
    noisy = tools.noisy(scenes, generator)
    return _held_out(noisy, tools.recorded(scenes), "reference")


def _kinds(shares: Mapping[str, float], count: int) -> list[str]:
    """Each kind by its share, at least once where there is room: with few tiles a draw would leave some out."""
    whole = sum(shares.values())
    wanted = {kind: max(1.0, count * share / whole) for kind, share in shares.items() if share > 0}
    given: dict[str, int] = dict.fromkeys(wanted, 0)
    for _ in range(count):
        given[max(wanted, key=lambda kind: wanted[kind] - given[kind])] += 1
    return [kind for kind, n in given.items() for _ in range(n)]


def from_tiles(images: Sequence[np.ndarray], mode: str, align: int, limit: int) -> HeldOut:
    side = min(min(image.shape[-2:]) for image in images) // align * align
    stack = torch.from_numpy(np.stack([image[:, :side, :side] for image in images[:limit]]))
    against = {"supervised": "reference", "noise2noise": "second_frame", "blind_spot": "none"}[mode]
    return _held_out(stack[:, :1].contiguous(), None if against == "none" else stack[:, 1:2].contiguous(), against)


def _held_out(noisy: Tensor, reference: Tensor | None, against: str) -> HeldOut:
    noises = tuple(estimate_noise(x[0].numpy(), data_range=1.0) for x in noisy)
    laws = [law(noise, float(x.median())) for noise, x in zip(noises, noisy, strict=True)]
    return HeldOut(noisy, reference, against, torch.tensor(laws, dtype=torch.float32), noises)


def run(network: SemDenoiser, held_out: HeldOut, texture: float = 0.0) -> Tensor:
    """Denoised tiles, float32, on the processor."""
    laws = held_out.laws.clone()
    laws[:, -1] = texture
    # with a halo of mirrored pixels, as `semnr.denoise` does it: the loss knows nothing of a patch's border
    halo, side = network.layout.halo, held_out.noisy.shape[-1]
    padded = np.pad(held_out.noisy.numpy(), ((0, 0), (0, 0), (halo, halo), (halo, halo)), "symmetric")
    noisy, inner = torch.from_numpy(padded), slice(halo, halo + side)
    device = next(network.parameters()).device
    out = []
    with torch.inference_mode():
        for k in range(len(held_out)):
            x = noisy[k : k + 1].to(device)
            done = (network if texture else network.plain)(x, laws[k : k + 1].to(device))
            out.append(done.float().cpu()[..., inner, inner])
    return torch.cat(out)


def classical(held_out: HeldOut, model: str) -> Tensor:
    out = [
        denoise(x[0].numpy(), model=model, data_range=1.0, workers=1, noise=noise)
        for x, noise in zip(held_out.noisy, held_out.noises, strict=True)
    ]
    return torch.from_numpy(np.stack(out))[:, None].float()


@dataclass(frozen=True)
class Judged:
    """What one candidate is worth. `score` is the profile's area where there is a reference."""

    score: float
    eligible: bool
    fired: tuple[str, ...]
    figures: Mapping[str, float]
    profile: Profile | None


def judge(
    denoised: Tensor,
    held_out: HeldOut,
    *,
    baseline: Judged | None = None,
    transfer: tuple[float, float] = (0.97, 1.03),
    dists: bool = False,
    label: str = "",
    asked: Tensor | None = None,
) -> Judged:
    """Profile area, evidence transfer and the guardrails against a baseline.

    asked : the same tiles denoised with all the texture asked for, where the network knows how: the evidence is taken
        from these, since who wants the least error gives some of it away; the scores are those of `denoised`.

    Eligible is a candidate whose mean transfer lies within `transfer`, on which no rule fires, and whose area exceeds
    the baseline's: a network that has not begun to denoise passes all evidence too. With a second
    frame in place of a reference the score is minus the error that its noise does not touch, over the noise's
    variance; with neither it is NaN and nothing is eligible on evidence.
    """
    if held_out.against == "none" or held_out.reference is None:
        return Judged(math.nan, True, (), {}, None)
    noisy, reference = held_out.noisy, held_out.reference
    evidence = held_out.evidence(denoised)
    known = evidence.transfer[evidence.status == "known"]
    mean = float(known.mean()) if known.size else math.nan
    figures = {"transfer": mean, "transfer_low": float((known < _LOW).mean()) if known.size else math.nan}
    within = bool(transfer[0] <= mean <= transfer[1])
    if held_out.against == "second_frame":
        drop = float(np.mean(evidence.mse_drop))
        variance = float(np.mean([noise.sigma() ** 2 for noise in held_out.noises]))
        figures["mse_drop"] = drop / variance
        return Judged(drop / variance, within, () if within else ("transfer",), figures, None)
    metrics = ("psnr", "ssim", "fsim", "cnr", *(("dists",) if dists else ()))
    scores = profile(
        denoised,
        reference,
        data_range=1.0,
        metrics=metrics,
        noise=noisy,
        fsim_downsample=1,
        kind="denoised",
        label=label,
    )
    axes = scores.axes()
    figures |= {f"axis_{name}": value for name, value in axes.items()}
    figures |= {
        "psnr": scores.psnr_of_mean_mse,
        "psnr_mean_of_db": float(np.mean(scores.psnr[np.isfinite(scores.psnr)])),
        "ssim": float(np.nanmean(scores.ssim)),
        "fsim": float(np.nanmean(scores.fsim)),
        "area": float(radar.area(list(axes.values()))),
    }
    if dists:
        figures["dists"] = float(np.nanmean(scores.dists))
    before = None if baseline is None else baseline.profile
    if asked is not None:
        evidence = held_out.evidence(asked)
        figures["transfer_asked"] = float(np.nanmean(evidence.transfer))
        within = bool(transfer[0] <= figures["transfer_asked"] <= transfer[1])
    verdict = guard(before, scores, evidence)
    fired = tuple(signal.name for signal in verdict.signals if signal.status == "fired")
    above = baseline is None or figures["area"] > baseline.score
    return Judged(figures["area"], within and above and not fired, fired, figures, scores)


def dists_there() -> bool:
    """Whether DISTS has its calibrated weights here; without them the area is that of four axes."""
    return VGG16.installed is not None


def family(recipe: Recipe, tiles: int = 64, limit: float = 0.02) -> dict[str, tuple[float, float]]:
    """Range of each figure of the noise over tiles of the training, outermost `limit` left out: what an input is
    held against when it is denoised."""
    from dataclasses import replace

    recipe = replace(recipe, validation=replace(recipe.validation, side=max(192, recipe.validation.side)))
    drawn = synthetic(recipe, tiles=tiles, seed=recipe.training.seed + 17, sigma=recipe.noise.sigma)
    rows = [figures(n, [x[0].numpy()]) for n, x in zip(drawn.noises, drawn.noisy, strict=True)]
    return ranges(rows, limit)


def ranges(rows: Sequence[Mapping[str, float]], limit: float = 0.0) -> dict[str, tuple[float, float]]:
    bounds = {}
    for name in sorted({key for row in rows for key in row}):
        values = np.array([row[name] for row in rows if math.isfinite(row.get(name, math.nan))])
        if not values.size:
            continue
        low, high = np.quantile(values, (limit, 1 - limit))
        spare = 0.1 * (high - low) + 0.02  # the ends of a sample lie inside the range
        least = -1.0 if name in ("correlation", "tail") else 0.0  # the others cannot be negative
        bounds[name] = (round(max(least, float(low - spare)), 4), round(float(high + spare), 4))
    return bounds
