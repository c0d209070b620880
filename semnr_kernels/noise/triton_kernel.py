"""The fit of the noise law in Triton: pixels are put in order by bin once, each round is four launches.

Nothing sorts: quantiles and medians are found by counting bits (triton_select.py). A tile's numbers are summed in an
order of their own, so that they depend on neither batch nor device. The kernels: triton_stages.py, triton_line.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl

from .. import batched, native_support, triton_support
from ..noise_law import LAGS, SOME, Ends, Fitted
from ..registry import Call, no_loop, refusal
from ..triton_support import launch
from . import on_device, triton_line, triton_stages
from .on_device import Laws
from .triton_line import POINTS, PRODUCTS, ROW
from .triton_stages import BINS, ROOM, STATE

_ROUNDS = 4
_SEGMENT, _RANKED = 2048, 64  # pixels that are put in order one after another, and together
_WHOLE, _RANK, _PIXELS = 4096, 1024, 512  # pixels that a program takes at a time: for a tile or a bin, or of a part


def _many_images(call: Call) -> str | None:
    too_many = call.shape[0] > triton_support.SECOND_AXIS
    return f"takes at most {triton_support.SECOND_AXIS} images a call" if too_many and len(call.shape) > 2 else None


UNSUPPORTED = (no_loop, _many_images)


def supports(call: Call) -> str | None:
    """Any dtype and layout."""
    return refusal(UNSUPPORTED, call)


def fit(sets: Sequence[Sequence[torch.Tensor]], ends: Sequence[Ends]) -> list[Fitted]:
    """As `reference.fit`: sets whose windows have the same sizes together."""
    return on_device.fitted(sets, ends, laws)


def laws(windows: Sequence[torch.Tensor], low: torch.Tensor, high: torch.Tensor, piled: torch.Tensor) -> Laws:
    """As `on_device.laws`."""
    of = _Windows.of(windows, _part())
    n, pixels, device, image = of.tiles, of.pixels, of.images.device, of.images
    work = {"WORK": _work(image)}
    whole, part = {"threads": 512, "BLOCK": _whole()}, {"BLOCK": _part()}

    def room(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    state, row = room(n, STATE, dtype=torch.float64), room(n, ROW, dtype=torch.float64)
    near = room(n, dtype=torch.int32)
    launch(triton_stages.begin, (n,), image, of.geometry, low, high, piled, state, near, of.apart, of.windows,
           moved=of.bytes, **work, **whole)  # fmt: skip
    plane = [room(n, pixels) for _ in range(3)]  # of one tensor they would lie aligned for some sizes alone
    launch(triton_stages.fields, (of.programs, n), image, of.geometry, state, near, *plane, of.apart, of.windows,
           pixels, moved=of.bytes + _bytes(*plane), threads=256, **work, **part)  # fmt: skip
    levels, differences, slopes = plane
    spare = room(2, n, pixels, dtype=torch.int32)
    starts = room(n, ROOM, dtype=torch.int32)

    def quantile(kind: int, place: int, shares: tuple[float, ...], level: torch.Tensor, slope: torch.Tensor) -> None:
        # a tensor of their own: the address of a slice is a multiple of 16 for some of them alone, another kernel
        wanted, programs = triton_support.numbers(device, *shares), len(shares)
        launch(triton_stages.quantiles, (programs, n), state, near, starts, wanted, level, slope, spare, pixels,
               KIND=kind, PLACE=place, moved=_quantile(level, 2 if kind == 2 else programs),
               BLOCK=triton_support.block(_RANK // 2 if kind == 1 else _RANK, 2**12))  # fmt: skip

    quantile(0, triton_stages.QUANTILE, (0.001, 0.999), levels, slopes)
    quantile(1, triton_stages.QUANTILE + 2, (0.25,), levels, slopes)

    segment = {"SEGMENT": triton_support.block(_SEGMENT, 2**13)}
    segments = triton.cdiv(pixels, segment["SEGMENT"])
    table = room(n, segments, ROOM, dtype=torch.int32)
    launch(triton_stages.count, (segments, n), state, near, levels, slopes, table, pixels,
           moved=_bytes(levels, table), **segment)  # fmt: skip
    launch(triton_stages.scan, (n,), table, starts, segments, ROWS=64, moved=3 * _bytes(table))
    ordered = [room(n, pixels) for _ in range(3)]
    launch(triton_stages.put, (segments, n), state, near, levels, differences, slopes, table, *ordered, pixels,
           threads=256, BLOCK=triton_support.block(_RANKED, 2**11), moved=_bytes(*plane, table, *ordered),
           **segment)  # fmt: skip
    level, square, slope = ordered

    found = room(n, 3, ROOM, dtype=torch.float64)
    for k in range(_ROUNDS):
        for alone in (False, True):
            launch(triton_line.points, (1 if alone else BINS, n), state, starts, level, square, slope, spare, found,
                   pixels, FIRST=k == 0, ALONE=alone, moved=_bytes(found, *(() if alone else ordered)),
                   **whole)  # fmt: skip
        launch(triton_line.line, (n,), state, found, row, threads=256)
        quantile(2, triton_stages.LIMIT, (0.2,), level, slope)
    partial = room(n, of.programs, triton_line.SUMS, dtype=torch.float64)
    launch(triton_line.tail, (of.programs, n), image, of.geometry, state, near, levels, differences, slopes, partial,
           of.apart, of.windows, pixels, moved=of.bytes + _bytes(*plane, partial), **work, **part)  # fmt: skip
    launch(triton_line.finish, (n,), partial, of.geometry, row, of.programs, of.windows, BLOCK=32,
           moved=_bytes(partial))  # fmt: skip
    return _laws(row)


def ends(windows: Sequence[torch.Tensor], data_range: float | None) -> tuple[torch.Tensor, ...]:
    """As `on_device.ends`."""
    of = _Windows.of(windows, _part())
    image = of.images
    out = torch.empty((3, of.tiles), dtype=torch.float64, device=image.device)
    launch(
        triton_stages.ends, (of.tiles,), image, of.geometry, triton_support.numbers(image.device, data_range or 0.0),
        out, of.apart, of.windows, KNOWN=bool(data_range), WORK=_work(image),
        BLOCK=triton_support.block(_WHOLE // 2, 2**12), threads=512, moved=(2 if data_range else 1) * of.bytes,
    )  # fmt: skip
    return tuple(out.unbind(0))


def steps(windows: Sequence[torch.Tensor]) -> torch.Tensor:
    """As `on_device.steps`."""
    if any(v.dtype.is_floating_point for v in windows):
        return on_device.steps(windows)
    of = _Windows.of(windows, _part())
    out = torch.empty(of.tiles, dtype=torch.float64, device=of.images.device)
    some = min(of.bytes, 2 * SOME * 32 * of.windows * of.tiles)  # of a sector of memory each
    launch(triton_stages.steps, (of.tiles,), of.images, of.geometry, out, of.apart, of.windows, SOME, BLOCK=_whole(),
           threads=512, moved=some)  # fmt: skip
    return out


def whitening(products: torch.Tensor) -> torch.Tensor:
    """As `on_device.whitening`."""
    if products.stride()[1:] != (2, 1):
        products = products.contiguous()
    out = torch.empty((len(products), 4), dtype=torch.float64, device=products.device)
    shrinks = batched.table(on_device._shrinks, products.device)
    launch(triton_line.whiten, (len(products),), products, shrinks, out, products.stride(0), BLOCK=len(shrinks))
    return out


def _work(image: torch.Tensor) -> Any:
    return tl.float64 if image.dtype == torch.float64 else tl.float32


def _whole() -> int:
    return triton_support.block(_WHOLE, 2**12)


def _part() -> int:
    return triton_support.block(_PIXELS, 2**16)


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(v.numel() * v.element_size() for v in tensors)


def _quantile(plane: torch.Tensor, planes: int) -> int:
    """Bytes that a quantile moves: a sample, a pass over all, and what lies near it written and read. Where many values
    are equal that is more, at most `planes` + 5 times the plane."""
    return _bytes(plane) * planes * (triton_stages.SAMPLED + 1) // triton_stages.SAMPLED + _bytes(plane) // 4


class _Windows(NamedTuple):
    """Windows of one tensor, told by numbers."""

    images: torch.Tensor
    geometry: torch.Tensor
    tiles: int
    apart: int  # elements from one tile to the next
    windows: int
    programs: int  # that cover the interiors
    pixels: int  # of the interiors of a tile
    bytes: int  # of all pixels

    @classmethod
    def of(cls, windows: Sequence[torch.Tensor], block: int) -> _Windows:
        """Of (N, h, w) windows, which are not copied where they are views of one tensor."""
        first = windows[0]
        tiles, size = len(first), sum(v[0].numel() for v in windows)
        same = all(v.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for v in windows)
        if len(windows) > 1 and not (same and all(v.stride(0) == first.stride(0) for v in windows)):
            kept, at, places = torch.cat([v.reshape(tiles, -1) for v in windows], 1), 0, []
            for v in windows:
                places.append((at, *v.shape[1:], v.shape[2], 1))
                at += v[0].numel()
            first = kept
        else:
            places = [(v.storage_offset() - first.storage_offset(), *v.shape[1:], *v.stride()[1:]) for v in windows]
        geometry = batched.table(_geometry, first.device, tuple(places), block)
        interiors = [(h - 2) * (w - 4) for _, h, w, _, _ in places]
        programs = sum(triton.cdiv(v, block) for v in interiors)
        moved = tiles * size * first.element_size()
        return cls(first, geometry, tiles, first.stride(0), len(places), programs, sum(interiors), moved)


def _geometry(places: tuple[tuple[int, ...], ...], block: int) -> np.ndarray:
    """(windows, 8): see triton_stages.py; the last is the program after its own."""
    rows, pixels, programs = [], 0, 0
    for place, h, w, down, right in places:
        own = (h - 2) * (w - 4)
        more = -(-own // block)
        rows.append((place, h, w, down, right, pixels, programs, programs + more))
        pixels, programs = pixels + own, programs + more
    return np.array(rows, np.int64)


def _laws(row: torch.Tensor) -> Laws:
    """The columns of `triton_line`'s rows."""
    numbers = row[:, :POINTS].unbind(1)
    levels, variances, sizes, counted = row[:, POINTS:PRODUCTS].unflatten(1, (4, BINS)).unbind(1)
    last = row[:, PRODUCTS:]
    products, spacing = last[:, : 2 * LAGS].unflatten(1, (LAGS, 2)), last[:, 2 * LAGS : 2 * LAGS + 6]
    gain, offset, error, low, high, unclipped = numbers
    return Laws(
        gain, offset, error, low, high, levels, variances, sizes, counted, unclipped, products, spacing, row[:, ROW - 1]
    )


def launches() -> Iterator[tuple[str, triton_support.Launch]]:
    """What ahead-of-time compilation builds: what reads pixels for every dtype, the rest once."""

    def made(run: Callable[[], object]) -> dict[str, triton_support.Launch]:
        with triton_support.recording() as launches:
            run()
        return {" ".join((one.kernel.fn.__name__, *map(str, told(one.constants)))): one for one in launches}

    def told(constants: dict[str, Any]) -> list[Any]:
        names = ("first" if constants.get("FIRST") else "", "alone" if constants.get("ALONE") else "")
        return [constants["KIND"]] if "KIND" in constants else [name for name in names if name]

    for dtype in native_support.DTYPE_CODES:
        image, name = torch.zeros((2, 64, 80), dtype=dtype), str(dtype).removeprefix("torch.")
        row = torch.zeros(2, dtype=torch.float64)
        found = made(lambda v=image, end=row: laws([v], end, end, end))  # type: ignore[misc]
        for kernel in ("begin", "fields", "tail"):
            yield f"noise {kernel} {name}", found.pop(kernel)
        yield f"noise ends {name}", made(lambda v=image: ends([v], 1.0))["ends"]  # type: ignore[misc]
        if dtype == torch.uint8:
            yield from ((f"noise {kernel}", one) for kernel, one in found.items())
            yield "noise ends, no range", made(lambda v=image: ends([v], None))["ends"]  # type: ignore[misc]
            yield "noise whiten", made(lambda end=row: whitening(torch.zeros(2, LAGS, 2)))["whiten"]  # type: ignore[misc]
        if not dtype.is_floating_point:
            yield f"noise steps {name}", made(lambda v=image: steps([v]))["steps"]  # type: ignore[misc]
