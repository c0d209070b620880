"""Images for stress tests: clean tiles, their noise, and new recordings of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from ..denoising import denoise, estimate_noise
from ..synth import tile
from ..tiles import open_tiles

# Noise of a scene whose source has no noisy frame: that of semnr.synth, on the 0-1 scale.
_DOSE = 80.0  # electrons a pixel at full scale
_LAW = (1 / _DOSE, 1e-4 + 1.6e-5)
_CORRELATION = 0.47
PATTERNS = ("lines", "holes", "metal")
# Grain that a frame can show: without it there would be no texture to wash out.
_TEXTURE = 0.03


@dataclass(frozen=True)
class Scenes:
    """Clean tiles (N, H, W) float64 on the 0-1 scale and the law of their noise: var = gain · level + offset,
    correlated along the line by `correlation`. `about`: what is known of each tile; `doses`: of each the dose, as a
    multiple of the one that the law is of."""

    clean: np.ndarray
    gain: float
    offset: float
    correlation: float
    name: str
    tiles: tuple[str, ...]
    about: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    doses: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.clean)

    def sigma(self, level: Any = None) -> Any:
        """Standard deviation of the noise at a level; default: at the scenes' mean level."""
        level = float(self.clean.mean()) if level is None else level
        return np.sqrt(np.maximum(self.gain * level + self.offset, 0.0))

    def record(self, seed: Any) -> np.ndarray:
        """A noisy frame of every tile; another seed is another frame."""
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal(self.clean.shape)
        if self.correlation:
            from scipy.signal import lfilter

            rho = self.correlation
            noise[..., 1:] *= math.sqrt(1 - rho**2)
            noise = lfilter([1.0], [1.0, -rho], noise, axis=-1)
        sigma = self.sigma(self.clean)
        if self.doses:
            gain = self.gain / np.array(self.doses)[:, None, None]
            sigma = np.sqrt(np.maximum(gain * self.clean + self.offset, 0.0))
        out: np.ndarray = self.clean + noise * sigma
        return out

    def at(self, doses: Sequence[float]) -> Scenes:
        """The same scenes, each at the next of these doses in turn; a tile whose dose is not known counts it as 1."""
        names = list(dict.fromkeys(str(one.get("pattern", "")) for one in self.about))
        turn = dict.fromkeys(names, 0)
        chosen, about = [], []
        for one in self.about:
            name = str(one.get("pattern", ""))
            dose = float(doses[turn[name] % len(doses)])
            turn[name] += 1
            chosen.append(dose)
            about.append({**one, "dose": dose * float(one.get("dose") or 1.0)})
        return replace(self, doses=tuple(chosen), about=tuple(about))


def scenes_of(source: Any, *, tiles: int, side: int, seed: int, root: Any = None) -> Scenes:
    """Scenes from what `semnr.open_tiles` takes, or synthetic ones where `source` is None.

    A source with references gives those as scenes; one with noisy frames alone their wavelet-denoised versions. The
    noise is fitted to the noisy frames where there are any. Tiles larger than `side` are cut to their centre.
    """
    if source is None:
        return _synthetic(tiles, side, seed)
    src = open_tiles(source, root=root)
    roles = [r for r in ("reference", "noisy", "image", "candidate") if r in src.roles]
    scene_role = roles[0] if roles else src.roles[0]
    noisy_role = "noisy" if "noisy" in src.roles else None if scene_role == "reference" else scene_role
    keys = list(islice(src, tiles))
    if not keys:
        raise ValueError(f"source {src.name} has no tile; accepted: at least one")
    span = src.data_range
    clean, noisy = [], []
    for key in keys:
        image = _cut(src.read(key, scene_role), side)
        if span is None:
            span = float(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else float(np.ptp(image)) or 1.0
        clean.append(image.astype(np.float64) / span)
        if noisy_role is not None:
            noisy.append(_cut(src.read(key, noisy_role), side).astype(np.float64) / span)
    shapes = {c.shape for c in clean}
    if len(shapes) > 1:
        raise ValueError(f"source {src.name} has tiles of {sorted(shapes)} px; accepted: one size of at least {side}")
    law, rho = _LAW, _CORRELATION
    if noisy:
        model = estimate_noise(np.stack(noisy))
        law = (model.gain, model.offset)
        rho = float(np.clip(model.correlation[0] if model.correlation else 0.0, 0.0, 0.95))
    if noisy_role == scene_role:  # no clean image: the structure of the frames, with their noise drawn anew
        clean = [np.asarray(denoise(c, model="wavelet", data_range=1.0)) for c in clean]
    about = tuple(k.meta for k in keys)
    return Scenes(np.stack(clean), *law, rho, src.name, tuple(str(k.tile) for k in keys), about)


def _synthetic(tiles: int, side: int, seed: int) -> Scenes:
    made = [
        tile(PATTERNS[i % len(PATTERNS)], side, seed=(seed, i), look={"texture": _TEXTURE}).clean for i in range(tiles)
    ]
    names = tuple(f"{PATTERNS[i % len(PATTERNS)]}-{i:03d}" for i in range(tiles))
    about = tuple({"pattern": PATTERNS[i % len(PATTERNS)], "dose": _DOSE} for i in range(tiles))
    return Scenes(np.stack(made), *_LAW, _CORRELATION, "synthetic lines, holes and metal", names, about)


def _cut(image: np.ndarray, side: int) -> np.ndarray:
    image = image.mean(axis=0) if image.ndim == 3 else image
    top, left = (max(0, (n - side) // 2) for n in image.shape)
    return image[top : top + side, left : left + side]
