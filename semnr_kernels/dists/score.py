"""From two images, or an image and what is kept of another, to the distance: common to every backend with an engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from ..fill import fill_masked
from .local import LocalMap, cell_of, upsampled
from .network import Network, hann_mean
from .stream import Beside, Engine, Job, Plan, plan, run
from .sums import CELL, Sums
from .weights import CHANNELS, alpha_beta_of

RESIZED_SIDE = 256


@dataclass(frozen=True)
class Settings:
    """All that DISTS needs beside the pixels and the network."""

    resize: str | None = None
    memory_budget: int = 2**30
    dtype: torch.dtype = torch.float32  # the network's
    data_range: float = 1.0
    window: int | None = None  # cells of 16 pixels across a window of the map, odd; None: no map
    store: torch.dtype | None = None  # of maps that are kept; None: the network's


@dataclass(frozen=True)
class Features:
    """The maps of one batch, kept for comparisons.

    Attributes
    ----------
    maps : tuple of Tensor, (N, C, h, w) each
        The image on the scale 0 to 1, and the five stages of the network.
    shares : tuple of Tensor, (N, 1, h, w) float64 each, optional
        With a mask: share of valid pixels under each position of each map.
    network : Network
        With which they were made.
    resize : {"authors", "piq"}, optional
        How the image was resized; None: not at all.
    data_range : float
        Width of the intensity scale in grey levels.
    size : (int, int)
        Height and width of the image that was passed, in pixels.
    filled : (Tensor, Tensor), optional
        With a mask: that image with its masked pixels filled, on the scale 0 to 1, and the valid pixels.

    Examples
    --------
    >>> kept = kernels.dists.features(y, weights="random")
    >>> kept.size, kept.nbytes // 192**2  # bytes a pixel
    ((192, 192), 492)
    """

    maps: tuple[torch.Tensor, ...]
    shares: tuple[torch.Tensor, ...] | None
    network: Network
    resize: str | None
    data_range: float
    size: tuple[int, int]
    filled: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """Memory that the maps take."""
        return sum(m.untyped_storage().nbytes() for m in self.maps)


@dataclass(frozen=True)
class Distance:
    """What the comparison of two images gives.

    Attributes
    ----------
    rows : Tensor, (N,)
        DISTS of each image.
    structure, texture : Tensor, (N, 6)
        What each of the six maps adds to the distance through its means and through its variances.
    map : Tensor, (N, 1, H, W), optional
        The distance of the window around each pixel.

    Examples
    --------
    >>> fx, fy = (kernels.dists.features(image, weights="random") for image in (x, y))
    >>> distance = kernels.dists.similarity(fx, fy)
    >>> distance.structure.shape, distance.map
    (torch.Size([1, 6]), None)
    """

    rows: torch.Tensor
    structure: torch.Tensor
    texture: torch.Tensor
    map: torch.Tensor | None = None


def dists(
    engine: Engine,
    x: torch.Tensor,
    y: torch.Tensor | Features,
    valid: torch.Tensor | None,
    network: Network,
    s: Settings,
) -> Distance:
    """Compare candidate `x` with reference `y`, (N, C, H, W) of any dtype, C 1 or 3; valid: (N, 1, H, W) or None."""
    size, resize, data_range, window = (x.shape[-2], x.shape[-1]), s.resize, s.data_range, s.window
    if isinstance(y, Features):
        x, data_range = candidate(x, y)
        on_1 = resampled(x.to(network.work) / data_range, resize)
        job = Job(on_1, None, tuple(m.expand(x.shape[0], -1, -1, -1) for m in y.maps), y.shares, 1.0)
    elif valid is None and resized(*size, resize) == size:
        job = Job(x, y, None, None, data_range)  # as they are: a band is converted when its turn comes
    else:
        x, y, share = pair_on_1(x, y, valid, network, s)
        job = Job(x, y, None, None if share is None else tuple(carried(share)), 1.0)
    height, width = job.x.shape[-2:]
    shared = plan(height, width, 2 if job.against is None else 1, network, s.memory_budget, window is not None)
    parts = []
    for start in range(0, x.shape[0], shared.together):
        part = job.part(slice(start, start + shared.together))
        sums = tuple(Sums(part.x.shape[0], c, x.device) for c in CHANNELS)
        local = None if window is None else _local(sums, width, window)
        run(part, network, engine, shared, sums, local=local)
        parts.append(_distance(sums, local, height, width))
    return joined(parts, size)


def whole(job: Job, engine: Engine, network: Network, shared: Plan, beside: Beside) -> Distance:
    """Pairs that go through the network at once, with another metric beside."""
    sums = tuple(Sums(job.x.shape[0], c, job.x.device) for c in CHANNELS)
    run(job, network, engine, shared, sums, beside=beside)
    return _distance(sums, None, *job.x.shape[-2:])


def features(
    engine: Engine,
    image: torch.Tensor,
    valid: torch.Tensor | None,
    reference: torch.Tensor | None,
    network: Network,
    s: Settings,
) -> Features:
    """Maps of one batch; masked pixels take the local mean of `reference`, or of the image itself."""
    frame = unfilled(image, valid, reference, network, s)
    (first,) = frame.maps
    count, _, height, width = first.shape
    kept, (h, w) = [], (height, width)
    for channels in CHANNELS[1:]:
        made = torch.empty(
            (count, channels, h, w),
            dtype=s.store or network.dtype,
            device=first.device,
            memory_format=engine.memory_format,
        )
        kept.append(made)
        h, w = -(-h // 2), -(-w // 2)
    shared = plan(height, width, 1, network, s.memory_budget, panels=False)
    for start in range(0, count, shared.together):
        some = slice(start, start + shared.together)
        job = Job(first[some], None, None, None, 1.0)
        run(job, network, engine, shared, None, kept=tuple(m[some] for m in kept))
    return replace(frame, maps=(first, *kept))


def unfilled(
    image: torch.Tensor,
    valid: torch.Tensor | None,
    reference: torch.Tensor | None,
    network: Network,
    s: Settings,
) -> Features:
    """Features that hold the image alone."""
    size, resize, data_range = (image.shape[-2], image.shape[-1]), s.resize, s.data_range
    on_1 = image.to(network.work) / data_range
    shares, filled = None, None
    if valid is not None:
        other = on_1 if reference is None else reference.to(network.work) / data_range
        on_1, _ = fill_masked(on_1, other, valid)
        shares, filled = tuple(carried(resampled(valid.double(), resize))), (on_1, valid)
    first = resampled(on_1, resize).expand(-1, 3, -1, -1)
    return Features((first,), shares, network, resize, data_range, size, filled)


def candidate(x: torch.Tensor, against: Features) -> tuple[torch.Tensor, float]:
    """A candidate with the pixels that the reference's mask covers taken from the reference; its scale."""
    if against.filled is None:
        return x, against.data_range
    filled, valid = against.filled
    return torch.where(valid, x.to(filled.dtype) / against.data_range, filled), 1.0


def compare(engine: Engine, fx: Features, fy: Features, s: Settings) -> Distance:
    """Compare the maps of candidates with those of references."""
    window = s.window
    count = max(fx.maps[0].shape[0], fy.maps[0].shape[0])
    height, width = fx.maps[0].shape[-2:]
    sums = tuple(Sums(count, c, fx.maps[0].device) for c in CHANNELS)
    local = None if window is None else _local(sums, width, window)
    shares = fy.shares if fy.shares is not None else fx.shares
    for number, maps in enumerate(zip(fx.maps, fy.maps, strict=True)):
        x, y = (m.expand(count, -1, -1, -1) for m in maps)
        share = None if shares is None else shares[number].expand(count, -1, -1, -1)
        cells, cell = None, 0
        if local is not None:
            cell = local[number].cell
            cells = local[number].room(0, -(-x.shape[2] // cell))
        engine.planes(x, y, share, sums[number].of(slice(0, count), cells, cell))
        if local is not None:
            local[number].advance(last=True)
    return joined([_distance(sums, local, height, width)], fx.size)


def _local(sums: tuple[Sums, ...], width: int, window: int) -> tuple[LocalMap, ...]:
    across = -(-width // CELL)
    return tuple(
        LocalMap(across, cell_of(number), window, s.near, *alpha_beta_of(number, s.near.device))
        for number, s in enumerate(sums)
    )


def _distance(sums: tuple[Sums, ...], local: tuple[LocalMap, ...] | None, height: int, width: int) -> Distance:
    """1 − Σ (α l + β s) over the channels of all maps (Ding 2020, eq. 8)."""
    structure, texture = [], []
    for number, one in enumerate(sums):
        luminance, similarity = one.similarities()
        a, b = alpha_beta_of(number, luminance.device)
        structure.append(((1 - luminance) * a).sum(1))
        texture.append(((1 - similarity) * b).sum(1))
    s, t = torch.stack(structure, dim=1), torch.stack(texture, dim=1)
    shown = None
    if local is not None:
        shown = upsampled(torch.stack([m.values() for m in local]).sum(0), height, width)
    return Distance(s.sum(1) + t.sum(1), s, t, shown)


def pair_on_1(
    x: torch.Tensor,
    y: torch.Tensor,
    valid: torch.Tensor | None,
    network: Network,
    s: Settings,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Both images as the network takes them, (N, C, h, w) on the 0-1 scale, and the share of valid pixels."""
    x, y = (v.to(network.work) / s.data_range for v in (x, y))
    x, y = fill_masked(x, y, valid)
    share = None if valid is None else resampled(valid.double(), s.resize)
    return resampled(x, s.resize), resampled(y, s.resize), share


def joined(parts: list[Distance], size: torch.Size | tuple[int, ...]) -> Distance:
    """The parts of a batch, one after the other; the map at the size of the images."""
    rows, structure, texture = (
        torch.cat([getattr(p, name) for p in parts]) for name in ("rows", "structure", "texture")
    )
    maps = [p.map for p in parts if p.map is not None]
    shown = torch.cat(maps) if maps else None
    if shown is not None and tuple(shown.shape[-2:]) != tuple(size):
        shown = F.interpolate(shown, size=tuple(size), mode="bilinear")
    return Distance(rows, structure, texture, shown)


def resized(height: int, width: int, resize: str | None) -> tuple[int, int]:
    """The size at which the network sees the image."""
    short = min(height, width)
    if resize is None or short <= RESIZED_SIDE:
        return height, width
    if resize == "piq":
        scale = RESIZED_SIDE / short
        return int(height * scale), int(width * scale)
    return tuple(RESIZED_SIDE if side == short else int(RESIZED_SIDE * side / short) for side in (height, width))  # type: ignore[return-value]


def resampled(image: torch.Tensor, resize: str | None) -> torch.Tensor:
    height, width = image.shape[-2:]
    short = min(height, width)
    if resize is None or short <= RESIZED_SIDE:
        return image
    if resize == "piq":  # sampled at the stated scale, not at the ratio of the rounded sizes
        scale = RESIZED_SIDE / short
        return F.interpolate(image, scale_factor=scale, recompute_scale_factor=False, mode="bilinear")
    return F.interpolate(image, size=resized(height, width, resize), mode="bilinear", antialias=True)


def carried(share: torch.Tensor) -> Iterator[torch.Tensor]:
    """Share of valid pixels at the size of each map: the image's, then through the network's own pooling windows."""
    yield share
    for stage in range(len(CHANNELS) - 1):
        if stage:
            share = hann_mean(share) / hann_mean(torch.ones_like(share))
        yield share
