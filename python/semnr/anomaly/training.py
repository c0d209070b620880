"""One training run of the autoencoder: the tiles, the run on `semnr.training`'s loop, the files it leaves."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..base.files import write_json
from ..tiles import TileSource
from ..training import loop
from ..training.card import curves
from .autoencoder import Autoencoding
from .features import in_words
from .learning import HeldOut, Reconstruction, fixed, shown
from .model import AnomalyModel, save
from .network import Autoencoder
from .normals import Tiles, digest, read_tiles, split
from .recipe import Recipe, load_recipe
from .thresholds import generalisation

_COPIES = 4  # of the weights in training: themselves, their average, and two moments of the optimiser


def train(
    source: TileSource, out: Path, *, data_range: float | None, recipe: Any, changes: Mapping[str, Any], score: str,
    statistics: tuple[str, ...], scan_axis: int, resume: bool, quiet: bool, say: Callable[[str], None],
) -> AnomalyModel:  # fmt: skip
    """See `semnr.anomaly.fit`."""
    wanted = load_recipe(recipe, changes)
    loop.room(out, resume)
    tiles = read_tiles("source", source, data_range=data_range)
    small = [i for i, image in enumerate(tiles.images) if min(image.shape) < wanted.data.patch]
    if small:
        size = "x".join(map(str, tiles.images[small[0]].shape))
        raise ValueError(
            f"data.patch is {wanted.data.patch}, and tile {tiles.keys[small[0]].tile} is {size} px; accepted: a patch "
            f"that every tile holds, a multiple of {wanted.model.align}"
        )
    noise = tiles.noise(scan_axis)
    if noise.problem:
        raise ValueError(f"source: {noise.problem}; accepted: recorded tiles with their noise")
    for line in tiles.remarks():
        say(line)
    inside, outside, how = split(tiles, wanted.data.held_out, wanted.data.split)
    parts = memory(tiles, wanted)
    say(in_words(parts))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / loop.RECIPE, wanted.to_dict())
    known_tiles = shown(tiles, wanted, noise, scan_axis)
    top = tiles.data_range
    parts_of = {"held_out": [known_tiles[i] for i in outside], "training": [known_tiles[i] for i in inside]}
    batches = {name: fixed(wanted, some, noise, top, scan_axis) for name, some in parts_of.items()}
    module = Reconstruction(wanted, parts_of["training"], noise, top, scan_axis)
    judge = HeldOut(wanted, out, batches, quiet)
    trainer = loop.train(module, judge, out, resume=resume, quiet=quiet)
    network = Autoencoder(wanted.model)
    network.load_state_dict(judge.weights)
    network.eval()
    told = generalisation(judge.errors(network, "training"), judge.errors(network, "held_out"))
    curves(judge.rows, out / "curves.svg", ("held_out_error", "training_error", "loss"))
    facts = {
        "data_range": tiles.data_range,
        "dtype": tiles.dtype,
        "noise": asdict(noise),
        "tiles": {"used": len(inside), "held_out": len(outside), "left_out": len(tiles.problems), "split": how},
        "problems": [{"tile": p.tile, "status": p.status, "reason": p.reason} for p in tiles.problems[:100]],
        "generalisation": told,
        "memory": parts,
        "steps": int(trainer.global_step),
        "minutes": round(module.clock.seconds / 60, 3),
        "seed": wanted.training.seed,
        "recipe": wanted.name,
        "source": source.name,
    }
    denoiser = wanted.data.target if wanted.data.input == "denoised" else None
    engine = Autoencoding(network, noise, top, score, statistics, scan_axis, denoiser)
    engine.learn_usual([tiles.images[i] for i in outside])
    known = [tiles.images[i] for i in inside[: wanted.validation.tiles]]
    alike = np.stack([tile for tile in known if tile.shape == known[0].shape])
    facts["error_of_training_tiles"] = (
        engine.measure(alike).columns["anomaly_mse"].tolist() if "mse" in engine.statistics else []
    )
    facts["fitted_on"] = [digest(tiles.images[i]) for i in inside]
    model = save(out, engine, facts)
    write_card(out / "card.md", model, wanted)
    say(told["statement"])
    return model


def memory(tiles: Tiles, recipe: Recipe) -> dict[str, int]:
    """Bytes that a training run needs, by what they are for."""
    pixels = sum(image.size for image in tiles.images)
    weights = Autoencoder(recipe.model).parameter_count()
    cells = recipe.data.batch * recipe.data.patch**2 // 4
    layout = recipe.model
    # forward maps that the way back needs: five a block and two more at each resolution, on both ways
    maps = sum(12 * width * cells / 4**level for level, width in enumerate(layout.widths))
    maps += 5 * layout.middle * layout.widths[-1] * cells / 4 ** (len(layout.widths) - 1)
    copies = recipe.data.copies if recipe.data.input == "denoised" else 0
    return {
        "tiles and targets": ((2 if recipe.data.target != "tile" else 1) * 4 + 2 * copies) * pixels,
        "weights": 4 * (_COPIES + 1) * weights,
        "a step": int(4 * maps),
    }


def write_card(path: Path, model: AnomalyModel, recipe: Recipe) -> None:
    """The model card, in Markdown."""
    facts, noise = model.facts, model.noise
    tiles = facts["tiles"]
    path.write_text(
        "\n".join([
            f"# Model card: autoencoder, recipe {recipe.name}",
            "",
            f"- Weights: SHA-256 `{facts['sha256']}`, format {facts['format']}",
            f"- Fitted on {tiles['used']} normal tiles, {tiles['held_out']} held out ({tiles['split']}), "
            f"{tiles['left_out']} left out",
            f"- Intensity scale: 0 to {facts['data_range']:g}; tiles of another range are refused",
            f"- Noise law: variance {noise.gain:.4g} · level {noise.offset:+.4g}",
            f"- Training: {facts['steps']} steps, {facts['minutes']:.1f} minutes, seed {facts['seed']}, targets by "
            f"{recipe.data.target}, faults planted in {recipe.data.faults:.0%} of the patches",
            f"- Machine: {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            f"- Generalisation: {facts['generalisation']['statement']}",
            f"- Score: {facts['score']}; the threshold is not part of the model, see `semnr anomaly calibrate`",
            "",
            "## Limits",
            "",
            "- Normal is what the fitted tiles show. A pattern, a magnification or a tool that they do not show scores",
            "  as an anomaly, and a fault that they hold is normal.",
            "- Faults of 2 to 9 px and pieces of other tiles were planted in training. Others are found",
            "  where the network takes them for no part of the pattern; long thin ones (scratches) seldom.",
            "",
        ]),
        encoding="utf-8",
    )  # fmt: skip
