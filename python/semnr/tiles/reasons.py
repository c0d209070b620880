"""What went wrong with a tile, in words that name its file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from semnr_kernels import TileError

from .names import shown


@contextmanager
def explained(tile: str, name: object) -> Iterator[None]:
    """Turn whatever a decoder raises into a TileError that names the file and the cause."""
    name = shown(str(name))
    try:
        yield
    except TileError:
        raise
    except MemoryError as error:
        raise TileError(tile, f"{name}: there is not enough memory for it ({error or 'out of memory'})") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TileError(tile, f"{name}: no such file ({shown(str(error))})", "missing") from error
    except Exception as error:  # codecs raise zlib.error, struct.error, SyntaxError, KeyError, RuntimeError, ...
        raise TileError(tile, f"{name}: {type(error).__name__}: {shown(str(error))}") from error
