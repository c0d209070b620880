"""Reads uncompressed local Zarr v3 chunks directly: one file a tile, one positioned read.

zarr-python takes about 420 µs for a 1 MiB chunk, a plain read 60. Everything else (codecs, sharding, stores, v2)
goes through zarr.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Reader = Callable[[int], "np.ndarray | None"]


def direct_reader(array: Any) -> Reader | None:
    """A function from tile index to pixels (H, W), None where the chunk does not exist; None where zarr must read."""
    folder = _folder(array)
    if folder is None or array.ndim != 3 or array.chunks != (1, *array.shape[1:]):
        return None
    metadata = array.metadata
    if metadata.zarr_format != 3 or getattr(array, "shards", None) is not None:
        return None
    codecs = [codec.to_dict() for codec in metadata.codecs]
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    dtype = np.dtype(array.dtype)
    if codecs not in ([little], [{"name": "bytes"}]) or (dtype.itemsize > 1 and codecs != [little]):
        return None
    shape, nbytes = array.shape[1:], int(np.prod(array.shape[1:])) * dtype.itemsize
    dtype = dtype.newbyteorder("<")

    def read(index: int) -> np.ndarray | None:
        path = folder / metadata.encode_chunk_key((index, 0, 0))
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            size = os.fstat(descriptor).st_size
            if size != nbytes:
                raise OSError(f"chunk {path.name} has {size} bytes, {nbytes} are needed")
            pixels = np.empty(shape, dtype)
            view, got = pixels.view(np.uint8).reshape(-1), 0
            while got < nbytes:
                count = os.preadv(descriptor, [view[got:].data], got)
                if not count:
                    raise OSError(f"chunk {path} ended after {got} of {nbytes} bytes")
                got += count
        finally:
            os.close(descriptor)
        return pixels

    return read if hasattr(os, "preadv") else None


def _folder(array: Any) -> Path | None:
    """Where the array's chunks lie as files."""
    root = getattr(array.store, "root", None)
    if type(array.store).__name__ != "LocalStore" or root is None:
        return None
    return Path(root) / array.path if array.path else Path(root)
