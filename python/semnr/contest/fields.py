"""The fields: real pairs and synthetic scenes, the images of each that a denoiser gets, and the truth about it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..stress.faults import disc
from ..synth import Detector, Look, quantise, tile
from ..tiles import decode
from ..trust.registration import fitted, register
from .protocol import Protocol

KINDS = ("real", "wafer", "lines", "blank")
FRAME, MARKED = "", "-marked"  # what follows the field's name in the name of an image


@dataclass(frozen=True)
class Disc:
    """A disc that was put into a frame: its centre, and its height over the standard deviation of the noise there."""

    row: int
    col: int
    contrast: float


@dataclass(frozen=True)
class Field:
    """One field.

    Attributes
    ----------
    name : str
        Its kind, a hyphen, and the pair's name or a number.
    kind : {"real", "wafer", "lines", "blank"}
    group : str
        What is drawn as one in the bootstrap.
    images : mapping of str to ndarray, (H, W) uint8
        What is denoised, by name: the frame, and for some fields the frame with discs in it.
    clean : ndarray, (H, W) float64, or None
        The truth on 0..255; of a pair the registered clean frame. None: there is nothing in the field.
    discs : tuple of Disc
        In the marked image.
    """

    name: str
    kind: str
    group: str
    images: Mapping[str, np.ndarray]
    clean: np.ndarray | None = None
    discs: tuple[Disc, ...] = field(default=())

    @property
    def frame(self) -> np.ndarray:
        return self.images[self.name + FRAME]

    @property
    def marked(self) -> np.ndarray | None:
        return self.images.get(self.name + MARKED)


def digest(image: np.ndarray) -> str:
    """SHA-256 of an image: its shape and depth, and its pixels as little-endian bytes."""
    head = f"{image.shape[0]}x{image.shape[1]} {image.dtype.name}\n".encode()
    return hashlib.sha256(head + np.ascontiguousarray(image, image.dtype.newbyteorder("<")).tobytes()).hexdigest()


def fields(protocol: Protocol, pairs: Path | None, split: str = "table") -> dict[str, Callable[[], Field]]:
    """Field by name, made when it is asked for, in the seeded order in which they are taken: whoever stops early has a
    random sample of the groups.

    Parameters
    ----------
    pairs : path or None
        Folder of the real pairs; None: synthetic fields alone.
    split : {"table", "development"}
        The development fields are the pairs of the groups that were used for choices, and other synthetic seeds.

    Raises
    ------
    FileNotFoundError
        The folder holds no pair.
    """
    rng = np.random.default_rng(protocol["seed"])
    found: dict[str, Callable[[], Field]] = {}
    if pairs is not None:
        there = [name for name in pair_names(pairs) if protocol.split(name) == split]
        groups = sorted({protocol.group(name) for name in there})
        for group in rng.permutation(groups):
            for name in (n for n in there if protocol.group(n) == group):
                found[f"real-{name}"] = functools.partial(_real, protocol, pairs, name)
    first = 0 if split == "table" else 1_000
    makers = {"wafer": _wafer, "lines": _lines, "blank": _blank}
    for kind, make in makers.items():
        for k in range(protocol[kind]["fields"]):
            found[f"{kind}-{first + k:03d}"] = functools.partial(make, protocol, first + k)
    return _interleaved(found)


def _interleaved(found: Mapping[str, Callable[[], Field]]) -> dict[str, Callable[[], Field]]:
    """The kinds spread over each other, each in its own order."""
    place: dict[str, float] = {}
    for kind in KINDS:
        names = [name for name in found if name.startswith(f"{kind}-")]
        place |= {name: (k + 0.5) / len(names) for k, name in enumerate(names)}
    return {name: found[name] for name in sorted(found, key=lambda name: (place[name], name))}


def pair_names(folder: Path) -> list[str]:
    """Names of the pairs in a folder of NAME_noisy_*.png and NAME_clean_*.png."""
    names = sorted({path.name.partition("_noisy")[0] for path in folder.glob("*_noisy*.png")})
    names = [name for name in names if any(folder.glob(f"{name}_clean*.png"))]
    if not names:
        raise FileNotFoundError(
            f"pairs is {folder}, which holds no pair; accepted: a folder of NAME_noisy_*.png and NAME_clean_*.png"
        )
    return names


def _real(protocol: Protocol, folder: Path, name: str) -> Field:
    noisy, clean = (decode(next(iter(sorted(folder.glob(f"{name}_{kind}*.png"))))) for kind in ("noisy", "clean"))
    moved = register(noisy, clean).image
    x, y = (_centre(image, protocol["window"]) for image in (noisy, moved))
    rest = x - fitted(y, x)
    half = protocol["discs"]["around"]
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(rest**2, 2 * half + 1), 1e-6))
    return _field(protocol, f"real-{name}", "real", protocol.group(name), x, y, spread, name)


def _centre(image: np.ndarray, side: int) -> np.ndarray:
    top, left = ((n - side) // 2 for n in image.shape)
    if min(top, left) < 0:
        raise ValueError(
            f"a pair has frames of {image.shape[0]} x {image.shape[1]} px; accepted: at least {side} a side"
        )
    return image[top : top + side, left : left + side]


def _wafer(protocol: Protocol, seed: int) -> Field:
    table = protocol["wafer"]
    pattern = table["patterns"][seed % len(table["patterns"])]
    scene = tile(pattern, protocol["window"], seed=(protocol["seed"], 1, seed), look={"texture": table["texture"]})
    tool = Detector()
    name = f"wafer-{seed:03d}"
    x = quantise(tool.apply(scene.clean, np.random.default_rng((protocol["seed"], 1, seed))), "uint8")
    return _field(protocol, name, "wafer", name, x, 255 * scene.clean, 255 * tool.law().sigma(scene.clean), seed)


def _lines(protocol: Protocol, seed: int) -> Field:
    table, look = protocol["lines"], Look(edge=0.25)
    scene = tile(
        "lines", protocol["window"], seed=(protocol["seed"], 2, seed), ler_sigma_nm=table["ler_sigma_nm"], look=look
    )
    noise = Detector(
        dose=1e6, read_noise=(look.inside - look.outside) / 2, row_noise=0.0, correlation=table["correlation"]
    )
    x = quantise(noise.apply(scene.clean, np.random.default_rng((protocol["seed"], 2, seed))), "uint8")
    name = f"lines-{seed:03d}"
    return Field(name, "lines", name, {name: x}, 255 * scene.clean)


def _blank(protocol: Protocol, seed: int) -> Field:
    table, rng = protocol["blank"], np.random.default_rng((protocol["seed"], 3, seed))
    level, dose = rng.uniform(*table["level"]), np.exp(rng.uniform(*np.log(table["dose"])))
    flat = np.full((protocol["window"],) * 2, level)
    name = f"blank-{seed:03d}"
    x = quantise(Detector(dose=float(dose), row_noise=0.0).apply(flat, rng), "uint8")
    return Field(name, "blank", name, {name: x})


def _field(
    protocol: Protocol, name: str, kind: str, group: str, x: np.ndarray, y: np.ndarray, spread: np.ndarray, seed: Any
) -> Field:
    """The frame, and the same frame with discs in it: nothing else differs between the two."""
    table, side = protocol["discs"], protocol["window"]
    words = [protocol["seed"], 4, *(str(seed).encode() if isinstance(seed, str) else (seed,))]
    rng = np.random.default_rng(words)
    places = [(r, c) for r in _grid(side, table) for c in _grid(side, table)]
    contrasts = rng.permutation([table["sigma"][i % len(table["sigma"])] for i in range(len(places))])
    change, discs = np.zeros(x.shape), []
    for (row, col), contrast in zip(places, contrasts, strict=True):
        sign = 1.0 if x[row - 3 : row + 4, col - 3 : col + 4].mean() < 128 else -1.0  # where the range has room for it
        height = sign * contrast * float(spread[row, col])
        change += height * disc(x.shape, row, col, table["diameter"])
        discs.append(Disc(row, col, float(contrast)))
    marked = np.clip(np.rint(x + change), 0, 255).astype(np.uint8)
    return Field(name, kind, group, {name + FRAME: x, name + MARKED: marked}, y, tuple(discs))


def _grid(side: int, table: Mapping[str, Any]) -> range:
    count = side // table["spacing"]
    first = (side - (count - 1) * table["spacing"]) // 2
    return range(first, first + count * table["spacing"], table["spacing"])


def images(made: Mapping[str, Callable[[], Field]]) -> Iterator[tuple[str, np.ndarray]]:
    """Every image that a denoiser gets, by name."""
    for make in made.values():
        yield from make().images.items()
