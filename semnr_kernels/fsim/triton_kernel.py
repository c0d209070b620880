"""FSIM in Triton around the transforms of torch.fft: filters are made as they are used, planes kept only to be read.

Small images, both of a pair and as many as there is room for, go through all filters at once; large ones an
orientation at a time. Products with the filters, their inverse transforms, the noise threshold, the sums. The kernels
are in triton_stages.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from .. import native_support, triton_support
from ..fill import local_mean
from ..registry import Call, no_gradient, no_loop, refusal
from . import reference, triton_stages
from .reference import EPS, LAMBDA, T1, T2, T3, T4, YIQ, Comparison, Features, Filters, Settings

_ROOM = 2**25  # complex numbers that the responses of a group of images may take, and their products as many
# Where one image needs more than that, an orientation at a time:
_STEP = 2**20  # pixels that go through a step together, about: enough to fill a device, few enough for its cache
_TOGETHER = 2  # scales in a transform: they share what a filter takes longest to compute, and each takes two planes
_PROGRAMS = 512  # an image, at most, where programs loop; fixed, so that a sum depends on neither device nor batch
_PIXELS = 2**30  # below this, places within a complex plane fit 32 bits
_LAST_COEFFICIENT = {torch.float32: 9, torch.float64: 19}  # of the series for the angle, whose ratio is below 0.15
_WORK = {torch.float32: tl.float32, torch.float64: tl.float64}


def _many_images(call: Call) -> str | None:
    too_many = call.shape[0] > triton_support.SECOND_AXIS
    return f"takes at most {triton_support.SECOND_AXIS} images a call" if too_many else None


def _large_image(call: Call) -> str | None:
    return None if call.shape[-2] * call.shape[-1] < _PIXELS else "takes images below 2**30 pixels"


UNSUPPORTED = (no_loop, no_gradient, _many_images, _large_image)


def supports(call: Call) -> str | None:
    """Every dtype, layout and mask, images below 2³⁰ pixels; no gradient."""
    return refusal(UNSUPPORTED, call)


def fsim(x: torch.Tensor, y: torch.Tensor, valid: torch.Tensor | None, s: Settings) -> Comparison:
    """As `reference.fsim`."""
    fill, share, gains = _fill(y, valid), _share(valid, s), _gains(s, *_size(x, s), x.device)
    inputs = [_Input(v, valid, fill, s) for v in (x, y)]
    together = _Plan.of(*inputs[0].size, s.filters).whole and 2 * x.shape[0] <= triton_support.SECOND_AXIS
    groups = [inputs] if together else [[one] for one in inputs]  # of large images one after the other
    planes = [found for group in groups for found in _planes(group, gains)]
    # colour last: its planes would lie beside those of the transforms
    fx, fy = (Features(*p, one.chroma(), share, s) for p, one in zip(planes, inputs, strict=True))
    return compare(fx, fy, s)


def features(image: torch.Tensor, valid: torch.Tensor | None, other: torch.Tensor | None, s: Settings) -> Features:
    """As `reference.features`."""
    one = _Input(image, valid, _fill(image if other is None else other, valid), s)
    (planes,) = _planes([one], _gains(s, *one.size, image.device))
    return Features(*planes, one.chroma(), _share(valid, s), s)


# --- one image ------------------------------------------------------------------------------------------------


def _dtype(s: Settings) -> torch.dtype:
    return torch.float64 if s.precision == "float64" else torch.float32


def _block(on_device: int, pixels: int) -> int:
    """Pixels of a program; under the interpreter a whole small image."""
    return min(triton_support.block(on_device, 2**17), max(on_device, triton_support.power_of_2(pixels)))


def _tiles(on_device: int, rows: int, columns: int) -> tuple[int, dict[str, int]]:
    """Programs that cover a plane in tiles, and a tile's size; few lanes stick out on the right."""
    lanes = _block(on_device, rows * columns)
    across = triton_support.lanes(columns, 64, 2**11)
    tile = {"ROWS": max(1, lanes // across), "COLUMNS": across}
    return triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(columns, across), tile


def _size(image: torch.Tensor, s: Settings) -> tuple[int, int]:
    height, width = image.shape[-2:]
    up = s.factor - 1 if s.authors else 0
    return (height + up) // s.factor, (width + up) // s.factor


def _fill(image: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor | None:
    """What masked pixels take, contiguous; a channel at a time, which is what its arithmetic holds."""
    if valid is None:
        return None
    fill = torch.empty(image.shape, dtype=torch.float64, device=image.device)
    for channel in range(image.shape[1]):
        some = slice(channel, channel + 1)
        fill[:, some] = local_mean(image[:, some].double(), valid)
    return fill


def _share(valid: torch.Tensor | None, s: Settings) -> torch.Tensor | None:
    return None if valid is None else reference.downsample(valid.to(_dtype(s)), s).contiguous()


def _turns(p: Filters, device: torch.device) -> torch.Tensor:
    """Cosine and sine of each orientation."""
    angles = [o * math.pi / p.orientations for o in range(p.orientations)]
    return triton_support.numbers(device, *(turn(angle) for angle in angles for turn in (math.cos, math.sin)))


@functools.cache
def _filters(p: Filters, dtype: torch.dtype) -> dict[str, Any]:
    """What the filters' kernels are compiled for; logarithms and exponents are those of 2."""
    spread = math.pi / (p.orientations * p.delta_theta)
    return {
        "FILTERS": (
            math.log2(p.min_length),
            math.log2(p.mult),
            math.log(2) / (2 * math.log(p.sigma_f) ** 2),
            1 / (2 * spread**2 * math.log(2)),
            math.log2(reference.LOW_PASS_CUTOFF),
            2.0 * reference.LOW_PASS_ORDER,
        ),
        "SERIES": tuple(1 / (k * k * math.comb(2 * k, k)) for k in range(_LAST_COEFFICIENT[dtype], 0, -1)),
        "WORK": _WORK[dtype],
    }


def _gains(s: Settings, h: int, w: int, device: torch.device) -> torch.Tensor:
    """As `reference._noise_gain`, of every orientation: (orientations,) float64."""
    p = s.filters
    programs, tile = _tiles(256, h, w // 2 + 1)
    partial = torch.empty((p.orientations, programs, 2), dtype=torch.float64, device=device)
    triton_support.launch(
        triton_stages.powers, (programs, p.orientations), partial, _turns(p, device), h, w, SCALES=p.scales, **tile,
        **_filters(p, _dtype(s)),
    )  # fmt: skip
    gains = torch.empty(p.orientations, dtype=torch.float64, device=device)
    rayleigh = math.sqrt(math.pi / 2) + p.k * math.sqrt(2 - math.pi / 2)
    triton_support.launch(
        triton_stages.gains, (p.orientations,), partial, gains, programs,
        PER=rayleigh / reference.NOISE_RESCALE / math.sqrt(math.log(2)), BLOCK=256,
    )  # fmt: skip
    return gains


@dataclass(frozen=True)
class _Plan:
    """How images of a size go through the filters."""

    images: int  # together
    orientations: int
    scales: int
    whole: bool  # through all filters

    @staticmethod
    def of(h: int, w: int, p: Filters) -> _Plan:
        images = _ROOM // (h * w * p.orientations * p.scales)
        if images:
            return _Plan(min(images, triton_support.SECOND_AXIS // p.orientations), p.orientations, p.scales, True)
        return _Plan(max(1, _STEP // (h * w)), 1, min(_TOGETHER, p.scales), False)


@dataclass(frozen=True)
class _Input:
    """An image as it came, (N, C, H, W), sampled as it is asked for."""

    image: torch.Tensor
    valid: torch.Tensor | None
    fill: torch.Tensor | None  # contiguous, float64
    settings: Settings

    @property
    def size(self) -> tuple[int, int]:
        return _size(self.image, self.settings)

    def luminance(self, luma: torch.Tensor, base: torch.Tensor, first: int) -> None:
        """Less that of each image's first pixel into luma, (more, h, w), and what was taken off into base, (more,)."""
        self._sample(luma, base, None, first)

    def chroma(self) -> torch.Tensor | None:
        """(N, 2, h, w), or None where only the luminance is compared."""
        if not self.settings.chromatic:
            return None
        n, dtype, device = self.image.shape[0], _dtype(self.settings), self.image.device
        chroma = torch.empty((n, 2, *self.size), dtype=dtype, device=device)
        self._sample(None, None, chroma, 0)
        return chroma

    def _sample(
        self, luma: torch.Tensor | None, base: torch.Tensor | None, chroma: torch.Tensor | None, first: int
    ) -> None:
        s, valid, fill, (h, w) = self.settings, self.valid, self.fill, self.size
        n, channels, height, width = self.image.shape
        masks: tuple[int, ...] = (0,) * 5
        if valid is not None and fill is not None:
            masks = (valid.stride(0), *valid.stride()[2:], *fill.stride()[:2])
        scale = triton_support.numbers(self.image.device, 255 / s.data_range / s.factor**2)
        before = s.factor - 1 - s.factor // 2 if s.authors else 0
        block = _block(256, h * w)
        triton_support.launch(
            triton_stages.sample, (triton.cdiv(h * w, block), n), self.image, valid, fill, scale, luma, base, chroma,
            first, height, width, h, w, s.factor, before, *self.image.stride(), *masks,
            CHANNELS=channels, YIQ=sum(YIQ, ()), MASKED=valid is not None, BLOCK=block, WORK=_WORK[_dtype(s)],
            WIDE=valid is not None or torch.float64 in (self.image.dtype, _dtype(s)),  # a local mean is no integer
        )  # fmt: skip


def _planes(inputs: list[_Input], gains: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Phase congruency and gradient of each, (N, 1, h, w)."""
    s, (h, w), device = inputs[0].settings, inputs[0].size, gains.device
    counts = [one.image.shape[0] for one in inputs]
    n, dtype, plan = sum(counts), _dtype(s), _Plan.of(h, w, s.filters)
    luma = torch.empty((n, h, w), dtype=dtype, device=device)
    base = torch.empty(n, dtype=dtype, device=device)
    for k, one in enumerate(inputs):
        one.luminance(luma, base, sum(counts[:k]))
    slope, congruency = (torch.empty((n, 1, h, w), dtype=dtype, device=device) for _ in range(2))
    block = _block(256, h * w)
    triton_support.launch(triton_stages.gradient, (triton.cdiv(h * w, block), n), luma, base, slope, h, w, BLOCK=block)
    for start in range(0, n, plan.images):
        spectrum = torch.view_as_real(torch.fft.rfft2(luma[start : start + plan.images]).contiguous())
        if start + plan.images >= n:
            del luma
        _phase_congruency(spectrum, congruency[start : start + plan.images], gains, s, plan)
    return list(zip(congruency.split(counts), slope.split(counts), strict=True))


def _phase_congruency(spectrum: torch.Tensor, out: torch.Tensor, gains: torch.Tensor, s: Settings, plan: _Plan) -> None:
    """Into `out`, (n, 1, h, w); spectrum: (n, h, w // 2 + 1, 2)."""
    (n, _, h, w), p, device = out.shape, s.filters, out.device
    product = torch.empty((plan.orientations, plan.scales, n, h, w, 2), dtype=out.dtype, device=device)
    amplitude = None if plan.whole else torch.empty((n, h, w), dtype=out.dtype, device=device)
    # of each orientation and image the median and how many are below it, and room to count
    zeros = torch.zeros((p.orientations + plan.orientations * triton_stages.BINS // 4) * n * 2, dtype=torch.int64,
                        device=device)  # fmt: skip
    medians = zeros[: p.orientations * n * 2].view(p.orientations, n, 2)
    histogram = zeros[medians.numel() :].view(torch.int32).view(plan.orientations, n, triton_stages.BINS)
    block = _block(
        256 if plan.whole else 512, h * w
    )  # a thread holds as many numbers whether of one orientation or all
    for first in range(0, p.orientations, plan.orientations):
        responses = _responses(spectrum, product, first, p)
        some = medians[first : first + plan.orientations]
        _median(responses[0], some, histogram)
        triton_support.launch(
            triton_stages.accumulate, (triton.cdiv(h * w, block), n), some, gains, out, amplitude, responses, h * w,
            first, EPS=EPS, SCALES=p.scales, TOGETHER=plan.scales, COUNT=plan.orientations,
            ORIENTATIONS=p.orientations, BLOCK=block,
        )  # fmt: skip
        del responses


def _responses(spectrum: torch.Tensor, product: torch.Tensor, first: int, p: Filters) -> tuple[torch.Tensor, ...]:
    """The images through the filters of the orientations from `first` on, (orientations, scales, n, h, w, 2) each.

    `product` is room for one of them.
    """
    orientations, together, n, h, w, _ = product.shape
    turns, (programs, tile) = _turns(p, product.device), _tiles(512, h, w)
    responses: tuple[torch.Tensor, ...] = ()
    for scale in range(0, p.scales, together):
        some = product[:, : p.scales - scale]
        triton_support.launch(
            triton_stages.multiply, (programs, n, orientations), spectrum, some, turns, h, w, first, scale,
            COUNT=some.shape[1], **tile, **_filters(p, product.dtype),
        )  # fmt: skip
        # "forward": the product is over the pixels already, and torch would divide in a launch of its own
        response = torch.fft.ifft2(torch.view_as_complex(some), norm="forward")
        responses = (*responses, torch.view_as_real(response.contiguous()))
    return responses


def _median(response: torch.Tensor, medians: torch.Tensor, histogram: torch.Tensor) -> None:
    """The bits of the lower median of |response|² at the finest scale into medians[..., 0], which begins with zeros.

    response: (orientations, scales, n, h, w, 2); medians: (orientations, n, 2).
    """
    orientations, scales, n, h, w, _ = response.shape
    block = _block(1024, h * w)
    tiles = triton.cdiv(h * w, block)
    todo = 63 if response.dtype == torch.float64 else 31  # bits without the sign
    while todo:
        width = min(triton_stages.BITS, todo)
        todo -= width
        triton_support.launch(
            triton_stages.count, (min(triton.cdiv(tiles, 2), _PROGRAMS), orientations * n), response, medians,
            histogram, n, scales * n, h * w, tiles, todo, width, BLOCK=block,
        )  # fmt: skip
        triton_support.launch(triton_stages.settle, (orientations * n,), histogram, medians, h * w, width)


# --- two images -----------------------------------------------------------------------------------------------


def compare(fx: Features, fy: Features, s: Settings) -> Comparison:
    """As `reference.compare`; one of the two may hold a single image."""
    n = max(fx.phase_congruency.shape[0], fy.phase_congruency.shape[0])
    h, w = fx.phase_congruency.shape[-2:]
    dtype, device = _dtype(s), fx.phase_congruency.device
    chroma = (None, None) if fx.chroma is None or fy.chroma is None else (fx.chroma, fy.chroma)
    pairs = (
        (fx.phase_congruency, fy.phase_congruency), (fx.gradient, fy.gradient), chroma, (fx.valid, fy.valid)
    )  # fmt: skip
    planes = [None if v is None else v.contiguous() for pair in pairs for v in pair]
    block = _block(512, h * w)
    tiles = triton.cdiv(h * w, block)
    partial = torch.empty((n, min(triton.cdiv(tiles, 2), _PROGRAMS), 2), dtype=torch.float64, device=device)
    parts = (5 if chroma[0] is not None else 4) if s.want_maps else 0
    maps = torch.empty((parts, n, 1, h, w), dtype=dtype, device=device) if s.want_maps else None
    triton_support.launch(
        triton_stages.compare, (partial.shape[1], n), *planes, partial, maps, h * w, tiles,
        *(int(f.phase_congruency.shape[0] > 1) for f in (fx, fy)), T=(T1, T2, T3, T4, LAMBDA), WORK=_WORK[dtype],
        BLOCK=block,
    )  # fmt: skip
    rows = torch.empty(n, dtype=torch.float64, device=device)
    programs = partial.shape[1]
    room = triton_support.power_of_2(programs) if triton_support.interpreted() else _PROGRAMS
    triton_support.launch(triton_stages.pool, (n,), partial, rows, programs, BLOCK=room)
    return Comparison(rows, *(() if maps is None else maps))


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds: each stage in both precisions, sampling of every dtype, masks, colour."""

    def stages(
        dtype: torch.dtype, channels: int = 1, mask: bool = False, **changed: Any
    ) -> list[triton_support.Launch]:
        image = torch.zeros((1, channels, 64, 64), dtype=dtype)
        valid = torch.ones((1, 1, 64, 64), dtype=torch.bool) if mask else None
        with triton_support.recording() as made:
            fsim(image, image, valid, Settings(chromatic=channels == 3, want_maps=mask, **changed))
        return made

    named = {
        triton_stages.gradient: "gradient", triton_stages.powers: "filters' powers", triton_stages.gains: "gains",
        triton_stages.multiply: "product", triton_stages.count: "median, counts",
        triton_stages.settle: "median, settled", triton_stages.accumulate: "energy",
        triton_stages.compare: "similarity", triton_stages.pool: "pooled",
    }  # fmt: skip
    for precision in ("float32", "float64"):
        made = {one.kernel: one for one in reversed(stages(torch.float32, precision=precision))}
        for kernel, name in named.items():
            yield f"fsim {name}, {precision}", made[kernel]
    for dtype in native_support.DTYPE_CODES:
        yield (
            f"fsim sampling of {str(dtype).removeprefix('torch.')}",
            next(one for one in stages(dtype) if one.kernel is triton_stages.sample),
        )
    made = {one.kernel: one for one in stages(torch.uint8, 3, mask=True, factor=2)}
    yield "fsim sampling of uint8, colour, mask, factor 2", made[triton_stages.sample]
    yield "fsim similarity, colour, mask, maps", made[triton_stages.compare]
