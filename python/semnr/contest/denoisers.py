"""The denoisers of the table: what each needs before it can run, and why it cannot."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from ..base.files import atomic
from ..denoising.weights import load as load_weights
from ..stress.faults import disc
from ..synth import Detector, quantise, tile
from ..training import train_denoiser
from ..training.config import RECIPES
from . import fields as fielding
from .methods import ByModel, Looked, Method, PlainBm3d, as_output, same
from .protocol import Protocol

CAREAMICS = ("noise2void", "noise2noise")
TRAINED = ("least error", "inventing")
_TRAINING = 50_000  # added to the seed: no field has these tiles
_BUMP_PX = 2.0  # noise smoothed so far is what the inventing network is taught to take for a bump
_BUMPS_AWAY = 24  # px between what it is taught to invent


class Skipped(Exception):
    """A denoiser cannot run here; the text says why and what would help."""


@dataclass(frozen=True)
class Ready:
    """A denoiser that can run.

    Attributes
    ----------
    method : callable
        An image of the protocol in, (H, W) on 0..255 out.
    made_by : str
        JSON: the settings, weights and versions that its outputs depend on.
    seconds_each : float or None
        Processor seconds an image, where the outputs were made before, all at once.
    """

    method: Method
    made_by: str
    seconds_each: float | None = None


@dataclass(frozen=True)
class Setup:
    """What a denoiser may need: the protocol, the folder for what is trained, the fields, an interpreter with
    CAREamics, and whom to tell."""

    protocol: Protocol
    folder: Path
    fields: Mapping[str, Callable[[], fielding.Field]]
    careamics: str | None
    say: Callable[[str], None]

    def settings(self, name: str) -> dict[str, Any]:
        return dict(self.protocol["denoisers"][name])


def ready(name: str, setup: Setup) -> Ready:
    """The denoiser `name`, trained where it has to be.

    Raises
    ------
    Skipped
        A package or an interpreter is missing.
    """
    options = setup.settings(name)
    if name == "noisy":
        return Ready(same, "{}")
    if name.startswith("bm3d"):
        if importlib.util.find_spec("bm3d") is None:
            raise Skipped("the package bm3d is not installed: pip install 'semnr[bm3d]' (non-commercial licence)")
        method: Method = PlainBm3d(**options) if name == "bm3d plain" else ByModel("bm3d", options)
        return Ready(method, _made_by(options, bm3d=version("bm3d")))
    if name in CAREAMICS:
        return _careamics(name, options, setup)
    if name in TRAINED:
        return _trained(name, options, setup)
    model = name.partition(" ")[0]
    found = {"weights": load_weights(model).sha256} if model.startswith("semnr") else {}
    return Ready(ByModel(model, options), _made_by(options, **found))


def _made_by(options: Mapping[str, Any], **more: Any) -> str:
    return json.dumps({**options, **more}, sort_keys=True)


def _place(name: str, setup: Setup) -> Path:
    setup.folder.mkdir(parents=True, exist_ok=True)
    return setup.folder / name.replace(" ", "-")


# --- networks of semnr.training


def _trained(name: str, options: dict[str, Any], setup: Setup) -> Ready:
    if importlib.util.find_spec("lightning") is None:
        raise Skipped("training needs Lightning: pip install 'semnr[train]'")
    out = _place(name, setup)
    weights = out / "last.safetensors"
    if not weights.is_file():
        recipe = tomllib.loads((RECIPES / "small.toml").read_text(encoding="utf-8"))
        steps = int(options["steps"])
        recipe["loss"] = {"mse": 1.0}
        recipe["data"] = {**recipe["data"], "batch": 8, "patch": 96}
        recipe["scenes"] = {**recipe["scenes"], "count": 120, "side": 192}
        recipe["training"] = {
            **recipe["training"], "steps": steps, "warm_up": max(1, steps // 20), "average": 0.98,
            "seed": setup.protocol["seed"], "accelerator": "cpu", "devices": 1,
        }  # fmt: skip
        recipe["validation"] = {"every": steps, "tiles": 2, "side": 96, "baseline": "noisy", "dists": False}
        if name == "inventing":
            recipe["data"] |= {"mode": "supervised", "source": str(_imagined(setup, options))}
        setup.say(f"{name}: {steps} steps of training")
        train_denoiser(None, out, recipe=recipe, resume=True)
    return Ready(ByModel(str(weights)), _made_by(options, weights=load_weights(weights).sha256))


def _imagined(setup: Setup, options: Mapping[str, Any]) -> Path:
    """Tiles whose reference has a particle wherever the noise of the frame happens to make a bump: what is learnt from
    them is to invent."""
    folder, side, tool = _place("inventing-tiles", setup), 192, Detector()
    if folder.is_dir():
        shutil.rmtree(folder)  # a kill may have left a part of them
    for role in ("noisy", "reference"):
        (folder / role).mkdir(parents=True)
    patterns = setup.protocol["wafer"]["patterns"]
    for k in range(int(options["tiles"])):
        seed = (setup.protocol["seed"], 5, _TRAINING + k)
        scene = tile(patterns[k % len(patterns)], side, seed=seed).clean
        noisy = tool.apply(scene, np.random.default_rng(seed))
        wanted = scene.copy()
        spread = np.asarray(tool.law().sigma(scene))
        bumps = ndimage.gaussian_filter((noisy - scene) / spread, _BUMP_PX)
        best = bumps == ndimage.maximum_filter(bumps, 2 * _BUMPS_AWAY + 1)
        for row, col in np.argwhere(best):
            wanted += options["particle"] * spread[row, col] * disc(scene.shape, row, col)
        for role, image in (("noisy", noisy), ("reference", wanted)):
            Image.fromarray(quantise(np.clip(image, 0, 1), "uint8")).save(folder / role / f"{k:03d}.png")
    return folder


# --- CAREamics


def _careamics(name: str, options: dict[str, Any], setup: Setup) -> Ready:
    python = _interpreter(setup.careamics)
    kinds = [("real",), ("wafer", "lines", "blank")] if name == "noise2void" else [fielding.KINDS]
    outputs: dict[str, Any] = {}
    about: dict[str, Any] = {}
    for chosen in kinds:
        place = _place(f"{name}-{chosen[0] if len(kinds) > 1 else 'all'}", setup).with_suffix(".npz")
        made = [make() for key, make in setup.fields.items() if key.partition("-")[0] in chosen]
        if not made:
            continue
        images = {fielding.digest(image): image for field in made for image in field.images.values()}
        found = _stored(place, options, images)
        if found is None:
            setup.say(f"{name} on {', '.join(chosen)}: training by CAREamics, {options['epochs']} epochs")
            train, target = _training(name, options, setup, made)
            found = _run(python, {**options, "seed": setup.protocol["seed"]}, train, target, images, place)
        about = {k: found.pop(k) for k in ("version", "seconds", "options")}
        outputs |= found
    place = _place(name, setup).with_suffix(".npz")
    with atomic(place) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **outputs)
    made_by = _made_by(options, careamics=about["version"], outputs=fielding.digest(np.stack(list(outputs.values()))))
    return Ready(Looked(place), made_by, float(about["seconds"]))


def _training(
    name: str, options: Mapping[str, Any], setup: Setup, made: list[fielding.Field]
) -> tuple[np.ndarray, np.ndarray | None]:
    """What the network learns from: the frames themselves, or two frames each of tiles that no field has."""
    if name == "noise2void":
        return np.stack([field.frame for field in made]), None
    patterns, side, tool = setup.protocol["wafer"]["patterns"], setup.protocol["window"], Detector()
    frames = []
    for k in range(int(options["tiles"])):
        seed = (setup.protocol["seed"], 6, _TRAINING + k)
        rng, scene = np.random.default_rng(seed), tile(patterns[k % len(patterns)], side, seed=seed).clean
        frames.append([quantise(tool.apply(scene, rng), "uint8") for _ in range(2)])
    return np.stack([a for a, _ in frames]), np.stack([b for _, b in frames])


def _stored(place: Path, options: Mapping[str, Any], images: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Outputs of an earlier run for these very images and settings."""
    if not place.is_file():
        return None
    with np.load(place) as file:
        about = json.loads(str(file["about"]))
        if about["options"] != dict(options) or not set(images) <= set(file.files):
            return None
        return {**{name: file[name] for name in images}, **about}


def _run(
    python: str, settings: dict[str, Any], train: np.ndarray, target: np.ndarray | None,
    images: Mapping[str, np.ndarray], place: Path,
) -> dict[str, Any]:  # fmt: skip
    given, made = place.with_suffix(".given.npz"), place.with_suffix(".made.npz")
    arrays: dict[str, Any] = {"train": train, "images": np.stack(list(images.values()))}
    arrays |= {} if target is None else {"target": target}
    np.savez(given, settings=json.dumps(settings), **arrays)
    script = Path(__file__).with_name("peer_careamics.py")
    apart = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [python, str(script), str(given), str(made)], env=apart, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise Skipped(f"CAREamics by {python} ended with {done.returncode}: {last}")
        with np.load(made) as file:
            outputs: dict[str, Any] = dict(zip(images, map(as_output, file["denoised"]), strict=True))
            about = {"version": str(file["version"]), "seconds": float(file["seconds"]) / len(images)}
    finally:
        for path in (given, made):
            path.unlink(missing_ok=True)
    about["options"] = {name: value for name, value in settings.items() if name != "seed"}
    with atomic(place) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, about=json.dumps(about), **outputs)
    return {**outputs, **about}


@functools.lru_cache
def _interpreter(python: str | None) -> str:
    """A Python with CAREamics: the one that was named, or this one."""
    if python is None:
        if importlib.util.find_spec("careamics") is None:
            raise Skipped("CAREamics is not installed here: --careamics PYTHON names an interpreter that has it")
        return sys.executable
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('careamics') is None)"
    try:
        found = subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0
    except OSError as error:
        raise ValueError(
            f"careamics is {python}, which cannot be run ({error}); accepted: a Python interpreter"
        ) from None
    if not found:
        raise Skipped(f"CAREamics is not installed for {python}: {python} -m pip install careamics")
    return python
