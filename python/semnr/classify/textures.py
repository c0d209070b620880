"""A synthetic set of ten classes: textures that stand for the ten categories, from a seed.

They are no microscope images and say nothing about accuracy on such: they are there so that training, splits and
report can be tried and tested. A specimen is drawn once and recorded once to three times, as real sets have it: those
images are near-duplicates, and a split must keep them together. Magnification, beam width, response of the detector,
shading, grey level, contrast and noise are drawn from the same wide ranges for all classes. Histograms and power
spectra of the classes therefore overlap, and what tells a class is the shape of what is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from ..base.outputs import local
from ..base.random_streams import choice, stream, whole
from ..synth import Detector, quantise, tile
from .categories import CATEGORIES

_SPECIMEN, _RECORDED = 91, 92  # purposes of the seed
_MARGIN = 1.25  # of the drawn field over the side of an image
_ZOOM = (1.0, 2.0)  # magnification
_BLUR = (0.5, 1.3)  # sigma of the beam, px
_RESPONSE = 2.0  # exponent of the detector's grey levels, or its inverse, at most
_SHADING = 0.5  # over the image, in standard deviations of its grey levels

Grid = tuple[np.ndarray, np.ndarray]


def specimen(category: str, side: int, seed: int, index: int) -> np.ndarray:
    """The field of one specimen, (side, side) float32 on 0 to 1, without noise.

    Parameters
    ----------
    category : str
        One of `CATEGORIES`.
    side : int
        In pixels, at least 32.
    seed, index : int
        Which specimen.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> semnr.classify.specimen("Tips", 64, seed=0, index=1).shape
    (64, 64)
    """
    choice("category", category, CATEGORIES)
    rng = stream(seed, _SPECIMEN, CATEGORIES.index(category), whole("index", index))
    field = max(32, round(whole("side", side, 32) / _scale(rng, *_ZOOM)))
    drawn = _DRAWN[category](rng, field, _places(field)).astype(np.float32)
    drawn = gaussian_filter(_resized(drawn, side), _scale(rng, *_BLUR), mode="nearest")
    shading = rng.uniform(-_SHADING, _SHADING, 2)
    rows, columns = _places(side)
    drawn = drawn + (shading[0] * rows + shading[1] * columns) / side * drawn.std()
    low, high = np.percentile(drawn, (1, 99))
    dark, contrast = rng.uniform(0.1, 0.35), rng.uniform(0.3, 0.55)
    even = np.clip((drawn - low) / max(high - low, 1e-6), -0.2, 1.2)
    even = ((even + 0.2) / 1.4) ** _scale(rng, 1 / _RESPONSE, _RESPONSE)
    return np.clip(dark + contrast * even, 0, 1).astype(np.float32)


def recordings(category: str, side: int, seed: int, index: int, count: int) -> list[np.ndarray]:
    """That many images of one specimen, (side, side) uint8: moved a little, some mirrored, each with its own noise."""
    field = specimen(category, round(_MARGIN * side), seed, index)
    rng = stream(seed, _RECORDED, CATEGORIES.index(category), index)
    images = []
    for _ in range(count):
        top, left = rng.integers(0, field.shape[0] - side + 1, 2)
        cut = field[top : top + side, left : left + side]
        if rng.random() < 0.3:
            cut = cut[:, ::-1]
        cut = np.clip(rng.uniform(0.85, 1.15) * cut + rng.uniform(-0.05, 0.05), 0, 1)
        tool = Detector(dose=float(np.exp(rng.uniform(np.log(80), np.log(600)))), row_noise=0.0)
        images.append(quantise(tool.apply(cut.astype(np.float64), rng), "uint8"))
    return images


def write_textures(out: str | Path, *, specimens: int = 20, side: int = 96, seed: int = 0, bar: bool = False) -> int:
    """Write the synthetic set as the published one is laid out: a folder a category.

    Parameters
    ----------
    out : path
        A folder that is new or empty.
    specimens : int
        Of each category. Each is recorded once, twice or three times; files of one specimen share their number.
    side : int
        Of an image, in pixels, at least 32.
    seed : int
        Another seed, other images.
    bar : bool
        Burn a data bar into two thirds of the images, as 61 % of the published ones have it.

    Returns
    -------
    int
        How many images were written.

    Raises
    ------
    FileExistsError
        `out` holds something.

    Examples
    --------
    >>> semnr.classify.write_textures("textures", specimens=1, side=32)
    10
    """
    from PIL import Image

    folder = local("out", out)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"out is {folder}, which is not empty; accepted: a new or empty folder")
    written = 0
    for category in CATEGORIES:
        (folder / category).mkdir(parents=True, exist_ok=True)
        for index in range(whole("specimens", specimens, 1)):
            for k, image in enumerate(recordings(category, whole("side", side, 32), seed, index, 1 + index % 3)):
                pixels = _with_bar(image, index) if bar and (index + k) % 3 else image
                Image.fromarray(pixels).save(folder / category / f"{index:04d}_{k}.png")
                written += 1
    return written


def _with_bar(image: np.ndarray, index: int) -> np.ndarray:
    """A black strip with white marks below the image."""
    height, width = max(8, image.shape[0] // 8), image.shape[1]
    strip = np.zeros((height, width), np.uint8)
    rng = np.random.default_rng(index)
    for left in range(4, width - 8, 6):
        top = int(rng.integers(3, height - 4))
        strip[top : top + 2, left : left + int(rng.integers(2, 5))] = 255
    return np.vstack([image, strip])


def _places(side: int) -> Grid:
    """Row and column of each pixel."""
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    return rows, columns


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    """(side, side) float32: by cubic interpolation, with the averaging that a smaller image needs."""
    from PIL import Image

    resized = Image.fromarray(np.ascontiguousarray(image)).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float32)


def _objects(rng: np.random.Generator, side: int, count: int) -> np.ndarray:
    """(count, 2) centres anywhere, a little beyond the border too."""
    return rng.uniform(-0.1 * side, 1.1 * side, (count, 2))


def _box(centre: np.ndarray, reach: float) -> tuple[slice, slice]:
    """The rows and columns within reach of a place."""
    rows, columns = (slice(max(0, int(c - reach)), max(0, int(c + reach) + 2)) for c in centre)
    return rows, columns


def _scale(rng: np.random.Generator, low: float, high: float) -> float:
    """Drawn evenly in its logarithm."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _turned(grid: Grid, centre: np.ndarray, angle: float) -> Grid:
    dy, dx = grid[0] - np.float32(centre[0]), grid[1] - np.float32(centre[1])
    return dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)


def _biological(rng: np.random.Generator, side: int, grid: Grid) -> np.ndarray:
    """Rods with round ends, bent a little, that lie over each other."""
    image = np.full((side, side), 0.2, np.float32)
    radius = _scale(rng, 4, 9)
    for centre in _objects(rng, side, int(rng.integers(14, 34))):
        p, q = _turned(grid, centre, rng.uniform(0, np.pi))
        half, r = radius * rng.uniform(0.6, 2.0), radius * rng.uniform(0.8, 1.2)
        q = q + rng.uniform(-0.12, 0.12) * p * p / radius
        depth = r - np.hypot(np.maximum(np.abs(p) - half, 0), q)
        body = 0.35 + 0.35 * np.sqrt(np.clip(depth / r, 0, 1)) + 0.25 * np.exp(-np.clip(depth, 0, None) / 1.2)
        image = np.where(depth > 0, body, image * (1 - 0.5 * np.exp(-np.clip(-depth, 0, None) / 2)))
    return image


def _fibres(rng: np.random.Generator, side: int, grid: Grid) -> np.ndarray:
    """Long curved threads of one width over each other."""
    image = np.full((side, side), 0.1, np.float32)
    width = _scale(rng, 2.5, 6)
    for centre in _objects(rng, side, int(rng.integers(8, 22))):
        p, q = _turned(grid, centre, rng.uniform(0, np.pi))
        wave, phase, bend = side / rng.uniform(0.8, 2.5), rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.16) * side
        slope = bend * 2 * np.pi / wave * np.cos(2 * np.pi * p / wave + phase)
        far = np.abs(q - bend * np.sin(2 * np.pi * p / wave + phase)) / np.sqrt(1 + slope**2)
        inside = far < width
        image = np.where(inside, 0.35 + 0.5 * np.sqrt(np.clip(1 - (far / width) ** 2, 0, 1)), image)
        image = np.where(~inside & (far < width + 2), 0.6 * image, image)
    return image


def _films(rng: np.random.Generator, side: int, grid: Grid) -> np.ndarray:
    """A coat with cracks: fields between thin dark lines."""
    first, second, cell = _cells(rng, side, _scale(rng, 16, 40), grid)
    level = 0.7 + 0.08 * rng.standard_normal(int(cell.max()) + 1)[cell]
    grain = gaussian_filter(rng.standard_normal((side, side)), 1.5)
    crack = np.exp(-(((second - first) / rng.uniform(1.2, 2.4)) ** 2))
    return level + 0.05 * grain / grain.std() - 0.7 * crack


def _mems(rng: np.random.Generator, side: int, grid: Grid) -> np.ndarray:
    """Combs, beams and pads with right angles."""
    image = np.full((side, side), 0.2, np.float32)
    angle = rng.uniform(0, np.pi)
    p, q = _turned(grid, np.array([side / 2, side / 2]), angle)
    reach = 0.75 * side
    for _ in range(int(rng.integers(3, 6))):
        level, (x, y) = rng.uniform(0.45, 0.9), rng.uniform(-0.5, 0.5, 2) * side
        long, wide = rng.uniform(0.25, 0.6) * side, rng.uniform(0.08, 0.25) * side
        long, wide = (long, wide) if rng.random() < 0.5 else (wide, long)
        depth = np.minimum(long - np.abs(p - x), wide - np.abs(q - y))
        image = np.where(depth > 0, level + 0.25 * np.exp(-np.clip(depth, 0, None) / 1.2), image)
        image = np.where((depth <= 0) & (depth > -3), 0.6 * image, image)
    pitch, x = _scale(rng, 9, 16), rng.uniform(-0.3, 0.1) * reach
    finger = np.abs((q / pitch) % 1 - 0.5) * pitch < pitch * rng.uniform(0.18, 0.3)
    along = (p > x) & (p < x + rng.uniform(0.3, 0.5) * side) & (np.abs(q) < rng.uniform(0.25, 0.45) * side)
    image = np.where(along, np.where(finger, 0.85, 0.15), image)
    return image


def _nanowires(rng: np.random.Generator, side: int, grid: Grid) -> np.ndarray:
    """Many thin straight rods, some way aligned or not."""
    image = np.full((side, side), 0.15, np.float32)
    width, main, spread = _scale(rng, 0.8, 1.8), rng.uniform(0, np.pi), rng.uniform(0.2, 1.6)
    for centre in _objects(rng, side, int(rng.integers(30, 80))):
        p, q = _turned(grid, centre, main + spread * rng.standard_normal())
        half = side * rng.uniform(0.1, 0.35)
        far = np.hypot(np.maximum(np.abs(p) - half, 0), q)
        image = np.maximum(image, rng.uniform(0.5, 0.95) * np.exp(-((far / width) ** 2)))
    return image


def _particles(rng: np.random.Generator, side: int, grid: Grid) -> np.ndarray:
    """Round grains apart from each other on an even ground."""
    image = np.full((side, side), 0.2, np.float32)
    typical = _scale(rng, 4, 10)
    placed: list[tuple[np.ndarray, float]] = []
    for centre in _objects(rng, side, 300):
        radius = typical * rng.uniform(0.6, 1.4)
        if all(np.hypot(*(centre - c)) > radius + r + 2 for c, r in placed):
            placed.append((centre, radius))
        if len(placed) >= (side / typical) ** 2 / 8:
            break
    for centre, radius in placed:
        box = _box(centre, radius + 1)
        far = np.hypot(grid[0][box] - np.float32(centre[0]), grid[1][box] - np.float32(centre[1]))
        image[box] = np.where(far < radius, 0.55 + 0.35 * np.clip(far / radius, 0, 1) ** 3, image[box])
    return image


def _patterned(rng: np.random.Generator, side: int, grid: Grid) -> np.ndarray:
    """Gratings and arrays of `semnr.synth`, turned by quarters, with fields that were left out."""
    pattern = str(rng.choice(["lines", "holes", "vias"]))
    pitch = _scale(rng, 11, 26)
    made = tile(
        pattern, side, seed=[int(rng.integers(2**31)), 7], pitch_nm=pitch, cd_nm=pitch * rng.uniform(0.35, 0.6),
        ler_sigma_nm=float(rng.uniform(0.2, 0.8)), correlation_nm=10.0, look={"texture": 0.01},
    ).clean.copy()  # fmt: skip
    ground = np.percentile(made, rng.uniform(5, 95))
    for row, column in rng.uniform(0, side, (int(rng.integers(3, 9)), 2)).astype(int):
        high, wide = (max(2, round(pitch * n)) for n in rng.uniform(0.8, 3.0, 2))
        made[row : row + high, column : column + wide] = ground
    return np.rot90(made, int(rng.integers(4)))


def _porous(rng: np.random.Generator, side: int, grid: Grid) -> np.ndarray:
    """Walls around dark round pores of many sizes."""
    image = np.full((side, side), 0.75, np.float32)
    typical = _scale(rng, 4, 10)
    for centre in _objects(rng, side, int(1.6 * (side / typical) ** 2 / 3)):
        radius = typical * rng.uniform(0.5, 1.4)
        box = _box(centre, radius + 2)
        p, q = _turned((grid[0][box], grid[1][box]), centre, rng.uniform(0, np.pi))
        depth = radius - np.hypot(p, q * rng.uniform(1.0, 1.4))
        part = image[box]
        part = np.where(depth > 0, np.minimum(part, 0.6 - 0.5 * np.clip(depth / radius, 0, 1) ** 0.5), part)
        image[box] = np.where((depth <= 0) & (depth > -1.2), np.maximum(part, 0.85), part)
    return image


def _powder(rng: np.random.Generator, side: int, grid: Grid) -> np.ndarray:
    """Angular fragments with flat facets that cover everything."""
    image = np.full((side, side), 0.3, np.float32)
    typical = _scale(rng, 5, 12)
    for centre in _objects(rng, side, int(1.3 * (side / typical) ** 2)):
        radius, corners = typical * rng.uniform(0.4, 1.3), int(rng.integers(4, 7))
        angles = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners + rng.uniform(-0.3, 0.3, corners)
        box = _box(centre, 1.3 * radius)
        dy, dx = grid[0][box] - np.float32(centre[0]), grid[1][box] - np.float32(centre[1])
        if not dy.size:
            continue
        depth = np.min([radius * rng.uniform(0.7, 1) - dx * np.cos(a) - dy * np.sin(a) for a in angles], axis=0)
        light = rng.uniform(0, 2 * np.pi)
        body = rng.uniform(0.3, 0.8) + 0.2 * (dx * np.cos(light) + dy * np.sin(light)) / radius
        body = body + 0.25 * np.exp(-np.clip(depth, 0, None) / 0.9)
        image[box] = np.where(depth > 0, body, np.where(depth > -1.5, 0.6 * image[box], image[box]))
    return image


def _tips(rng: np.random.Generator, side: int, grid: Grid) -> np.ndarray:
    """One cone from the border to a sharp end, with bright rims."""
    image = np.full((side, side), 0.15, np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    p, q = _turned(grid, side * rng.uniform(0.35, 0.65, 2), angle)
    opening, round_ = rng.uniform(0.12, 0.5), rng.uniform(0.5, 4)
    half = opening * np.clip(p, 0, None) ** rng.uniform(0.85, 1.1) + np.sqrt(np.clip(round_ * p, 0, None)) * 0.3
    depth = half - np.abs(q)
    body = 0.4 + 0.15 * np.clip(q / np.maximum(half, 1), -1, 1) + 0.4 * np.exp(-np.clip(depth, 0, None) / 2.0)
    grain = gaussian_filter(rng.standard_normal((side, side)), rng.uniform(1, 3))
    return np.where((p > 0) & (depth > 0), body, image) + rng.uniform(0.01, 0.04) * grain / grain.std()


def _cells(rng: np.random.Generator, side: int, size: float, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances to the nearest and to the second centre, and which centre is nearest."""
    centres = _objects(rng, side, max(6, int(1.44 * (side / size) ** 2)))
    distances, nearest = cKDTree(centres).query(np.stack(grid, axis=-1).reshape(-1, 2), k=2)
    shape = (side, side)
    return distances[:, 0].reshape(shape), distances[:, 1].reshape(shape), nearest[:, 0].reshape(shape)


_DRAWN: dict[str, Callable[[np.random.Generator, int, Grid], np.ndarray]] = {
    "Biological": _biological,
    "Fibres": _fibres,
    "Films_Coated_Surface": _films,
    "MEMS_devices_and_electrodes": _mems,
    "Nanowires": _nanowires,
    "Particles": _particles,
    "Patterned_surface": _patterned,
    "Porous_Sponge": _porous,
    "Powder": _powder,
    "Tips": _tips,
}
