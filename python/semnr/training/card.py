"""The model card (Markdown) and the curves (SVG) that a training run writes."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..base import svg
from . import judge as judging
from .config import Recipe

if TYPE_CHECKING:
    from ..denoising.network import SemDenoiser
    from .module import Chooser

_INK, _CHOSEN = "#1f5fa8", "#c0392b"
_COLUMNS = (
    ("PSNR", "psnr", "{:.2f}"),
    ("SSIM", "ssim", "{:.4f}"),
    ("FSIM", "fsim", "{:.4f}"),
    ("DISTS", "dists", "{:.4f}"),
    ("area", "area", "{:.4f}"),
    ("T", "transfer", "{:.3f}"),
    ("T < 0.88", "transfer_low", "{:.1%}"),
    ("MSE drop / σ²", "mse_drop", "{:.3f}"),
)


def write(
    path: Path, recipe: Recipe, network: SemDenoiser, chooser: Chooser, *, digest: str, step: int, minutes: float,
    passed: bool,
) -> Path:  # fmt: skip
    held_out = chooser.held_out
    assert held_out is not None
    layout = network.layout
    lines = [
        f"# Model card: {recipe.name}",
        "",
        f"- Weights: SHA-256 `{digest}`",
        f"- Network: bias-free residual U-Net on 2 × 2 cells, widths {list(layout.widths)}, blocks "
        f"{list(layout.blocks)}, middle {layout.middle}: {network.parameter_count():,} parameters, "
        f"{network.macs() / 1e3:.1f} kMAC a pixel, halo {layout.halo} px",
        f"- Training: {step} steps, {minutes:.1f} minutes, seed {recipe.training.seed}, mode {recipe.data.mode}"
        + (f", source {recipe.data.source}" if recipe.data.source else ", synthetic scenes only"),
        "- Loss: " + ", ".join(f"{name} {weight:g}" for name, weight in recipe.loss.items() if weight),
        f"- Machine: {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "- Choice: largest profile area among candidates with a mean evidence transfer within "
        f"{recipe.validation.transfer[0]:g} to {recipe.validation.transfer[1]:g}, no fired guardrail against "
        f"{recipe.validation.baseline} and an area above its own",
        *([] if chooser.dists else ["- DISTS had no calibrated weights here: the area is that of four axes"]),
        "",
    ]
    if not passed:
        lines += [
            "**No candidate passed the guardrails: these are the last weights. Do not use them for inspection.**", ""
        ]  # fmt: skip
    lines += ["## Held-out tiles", "", *_table(_rows(recipe, network, chooser)), ""]
    lines += ["## Noise family of the training", "", "Inputs outside it are reported by `semnr.denoise`.", ""]
    lines += [f"- {name}: {low:g} to {high:g}" for name, (low, high) in chooser._family().items()]
    lines += [
        "", "## Limits", "",
        "- Trained on one channel of secondary-electron images; noise independent between scan lines but for row "
        "offsets.",
        "- Structure below the noise is not restored: compare the evidence transfer of your own tiles.",
        "- Charging and shading are signal to it and stay in the image.",
        "- Not a substitute for unfiltered frames in unbiased roughness measurements.",
        "",
    ]  # fmt: skip
    path.write_text("\n".join(lines))
    return path


def _rows(recipe: Recipe, network: SemDenoiser, chooser: Chooser) -> dict[str, Mapping[str, float]]:
    held_out = chooser.held_out
    assert held_out is not None
    if held_out.against == "none":
        return {}
    limits: dict[str, Any] = {"transfer": recipe.validation.transfer, "dists": chooser.dists}
    rows = {"noisy": judging.judge(held_out.noisy, held_out, **limits).figures}
    if chooser.baseline is not None and recipe.validation.baseline != "noisy":
        rows[recipe.validation.baseline] = chooser.baseline.figures
    rows[recipe.name] = judging.judge(judging.run(network, held_out), held_out, **limits).figures
    if recipe.data.mode == "synthetic":
        other = judging.synthetic(recipe, kernel="gaussian", seed=recipe.training.seed + 1)
        name = f"{len(other)} tiles of a noise family not trained on (Gaussian low-pass)"
        rows[f"{name}: noisy"] = judging.judge(other.noisy, other, **limits).figures
        rows[f"{name}: {recipe.name}"] = judging.judge(judging.run(network, other), other, **limits).figures
    return rows


def _table(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    shown = [c for c in _COLUMNS if any(c[1] in row for row in rows.values())]
    if not rows:
        return ["Single frames only: nothing to score against."]
    out = ["| | " + " | ".join(c[0] for c in shown) + " |", "|---|" + "---|" * len(shown)]
    for name, row in rows.items():
        cells = [form.format(row[key]) if math.isfinite(row.get(key, math.nan)) else "–" for _, key, form in shown]
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    return out


def curves(
    rows: Sequence[Mapping[str, Any]], path: Path, keys: Sequence[str] = ("score", "psnr", "transfer", "loss")
) -> None:
    """Figures of the judgements over the steps, one small panel each; no plotting library is needed."""
    panels = [key for key in keys if any(_finite(row.get(key)) for row in rows)]
    width, height, left, gap = 640, 130, 70, 34
    parts = []
    for k, key in enumerate(panels):
        points = [(row["step"], row[key], row["chosen"]) for row in rows if _finite(row.get(key))]
        steps, values = [p[0] for p in points], [p[1] for p in points]
        low, high, last = min(values), max(values), max(steps)
        span = (high - low) or 1.0
        top = gap + k * (height + gap)

        def at(
            step: float, value: float, top: int = top, low: float = low, span: float = span, last: int = last
        ) -> tuple[float, float]:
            return left + (width - left - 20) * step / last, top + height * (1 - (value - low) / span)

        parts.append(svg.element("text", key, x=left, y=top - 8))
        parts.append(svg.element("text", f"{high:.4g}", x=4, y=top + 10))
        parts.append(svg.element("text", f"{low:.4g}", x=4, y=top + height))
        places = [at(step, value) for step, value in zip(steps, values, strict=True)]
        parts.append(svg.polyline(places, stroke=_INK, stroke_width=1.5))
        for (x, y), (_, _, chosen) in zip(places, points, strict=True):
            parts.append(svg.element("circle", cx=x, cy=y, r=3, fill=_CHOSEN if chosen else _INK))
    label = f"{', '.join(panels)} over the steps of the training; red: the best so far"
    style = "text{font:12px sans-serif}"
    path.write_text(svg.drawing(parts, width, gap + len(panels) * (height + gap), label, style), encoding="utf-8")


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
