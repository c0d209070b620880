"""Whether a part of a Zarr array was ever written: without its chunks, a tile is the fill value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_NOT_THERE = np.uint64(2**64 - 1)  # offset and length of an inner chunk that a shard does not hold


def never_written(array: Any, place: Sequence[int | slice], pixels: np.ndarray) -> bool:
    """Whether none of the chunks under `place` (an index or a slice an axis) exist; `pixels` is what was read there.

    Any store, format and layout: chunks smaller or larger than the tile, and shards. Only pixels of one value can be
    those of chunks that do not exist; for others nothing is looked up.
    """
    if pixels.size and not _of_one_value(pixels):
        return False
    spans = [_span(at, length) for at, length in zip(place, array.shape, strict=True)]
    outer = getattr(array, "shards", None) or array.chunks
    return not any(_exists(array, at, outer, spans) for at in _cells(spans, outer))


def _of_one_value(pixels: np.ndarray) -> bool:
    first = pixels.flat[0]
    return bool((pixels == first).all() or (first != first and np.isnan(pixels).all()))


def _span(at: int | slice, length: int) -> tuple[int, int]:
    if isinstance(at, slice):
        start, stop, _ = at.indices(length)
        return start, stop
    return int(at), int(at) + 1


def _cells(spans: Sequence[tuple[int, int]], size: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """The cells of a grid of this size that the spans touch."""
    ranges = [range(start // n, -(-stop // n)) for (start, stop), n in zip(spans, size, strict=True)]
    return itertools.product(*ranges)


def _exists(array: Any, at: tuple[int, ...], outer: Sequence[int], spans: Sequence[tuple[int, int]]) -> bool:
    from zarr.core.sync import sync

    key = (array.store_path / array.metadata.encode_chunk_key(at)).path
    if not sync(array.store.exists(key)):
        return False
    if getattr(array, "shards", None) is None:
        return True
    held = _held(array, key, tuple(outer))
    if held is None:
        return True
    inside = [
        (max(start - cell * n, 0), min(stop - cell * n, n))
        for (start, stop), cell, n in zip(spans, at, outer, strict=True)
    ]
    return any(held[cell] for cell in _cells(inside, array.chunks))


def _held(array: Any, key: str, outer: tuple[int, ...]) -> np.ndarray | None:
    """Which inner chunks a shard holds, by its index; None where the index is written in a way that is not known."""
    from zarr.abc.store import RangeByteRequest, SuffixByteRequest
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    sharding = next((c for c in map(_described, array.metadata.codecs) if c["name"] == "sharding_indexed"), None)
    if sharding is None:
        return None
    codecs = [codec["name"] for codec in sharding["configuration"]["index_codecs"]]
    grid = tuple(n // inner for n, inner in zip(outer, array.chunks, strict=True))
    size = 16 * math.prod(grid)
    if codecs not in (["bytes"], ["bytes", "crc32c"]):
        return None
    stored = size + 4 * (len(codecs) - 1)
    at_start = sharding["configuration"].get("index_location", "end") == "start"
    part: Any = RangeByteRequest(0, stored) if at_start else SuffixByteRequest(stored)
    buffer = sync(array.store.get(key, default_buffer_prototype(), part))
    content = b"" if buffer is None else buffer.to_bytes()
    if len(content) != stored:
        return None  # damaged: whoever reads it says so
    endian = sharding["configuration"]["index_codecs"][0].get("configuration", {}).get("endian", "little")
    entries = np.frombuffer(content[:size], ">u8" if endian == "big" else "<u8").reshape(*grid, 2)
    return ~(entries == _NOT_THERE).all(axis=-1)


def _described(codec: Any) -> dict[str, Any]:
    return dict(codec.to_dict())
