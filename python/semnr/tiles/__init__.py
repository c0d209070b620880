"""Reading and writing tiles: every file format and every source has one small interface.

`ROLES` holds what an image of a tile can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.outputs import local
from . import write_tiff as tiff_form
from . import write_zarr as zarr_form
from .array import ImageSource, SequenceSource, StreamSource, open_array, open_npy
from .decoding import PILLOW_SUFFIXES, TIFF_SUFFIXES, decode
from .folder import FolderSource
from .klarf import KlarfSource, is_klarf
from .names import require_file, shown
from .pixels import is_tensor
from .places import Here, Listed, There, globbed, has, is_glob, is_image, kind_of, parent
from .plan import PlanSource, read_columns
from .planes import tile_side
from .source import ROLES, Problem, Recipe, TileKey, TileSource, TileWriter
from .tiff import TiffSource
from .vendor import pixel_size_nm
from .watch import watch_folder
from .write_tiff import PLAN, journal_columns
from .writer import check_arguments
from .zarr import open_zarr

if TYPE_CHECKING:
    from .places import Place

__all__ = [
    "ROLES",
    "Problem",
    "TileKey",
    "TileSource",
    "TileWriter",
    "create_tiles",
    "decode",
    "open_tiles",
    "pixel_size_nm",
    "watch_folder",
]

_PLANS = ("plan.csv", "plan.parquet")
_ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")
_ACCEPTED = (
    "a Zarr (tile stack, OME-Zarr, array), a TIFF, a folder of images, a glob ('lot/*.tif'), a list of paths of "
    f"images, a plan (.csv, .parquet), KLARF, a .npy file, an image ({', '.join(PILLOW_SUFFIXES)}), an array, a "
    "tensor, or an iterable of arrays or (id, array[, meta])"
)


def open_tiles(
    source: Any,
    *,
    root: str | Path | None = None,
    array: str | None = None,
    tile: int | None = 512,
    storage_options: Mapping[str, Any] | None = None,
    first_page: int | None = None,
) -> TileSource:
    """Open whatever holds tiles. No pixels are read until `TileSource.read`.

    Parameters
    ----------
    source
        - "wafer.zarr": a tile stack (one (T, H, W) array a role), an OME-Zarr image (0.1 to 0.5; level 0, cut into
          tiles, every t/c/z index apart) or one array: (H, W) is cut, (T, H, W) holds one tile an index.
          "wafer.zarr/noisy" names one array of it. A URL ("s3://...") is opened through fsspec.
        - "mosaic.tif", BigTIFF, OME-TIFF: one page is cut into tiles; of several pages each is a tile, or is cut,
          where pages are stored tiled and are larger than `tile`.
        - a folder: its plan.csv or plan.parquet; else one folder a role (noisy/, reference/, ...), where its folders
          have the names of roles; else every image below it, sorted.
        - "lot/*_dn.tif", "lot/**/*.png" (a glob), or a list of paths: these images, each a tile.
        - "plan.csv" or "plan.parquet": column `path` and optionally `tile`, `reference`, `noisy`, `candidate`,
          `noisy_2` and any others, which become `TileKey.meta`.
        - "lot.klarf", "lot.001": KLARF 1.0 to 1.2 or 1.8; each image of each defect is a tile with its coordinates.
        - "tiles.npy" (memory-mapped), an ndarray or a torch tensor: (H, W) is cut, (T, H, W) is a stack.
        - a list, or any iterable read once: arrays, (id, array) or (id, array, meta).
    root
        Folder that the paths of a plan may lie in, besides the plan's own.
    array
        Zarr only: the array that stands for role "image".
    tile
        Side of the tiles that a mosaic is cut into, in pixels; edge tiles are smaller. A rest too narrow for the
        metrics (below 96 px with tiles of 512) makes the last tile larger. None: planes are not cut.
    storage_options
        URLs only: passed on to fsspec.
    first_page
        KLARF only: 0 or 1, from where its page numbers count. None: from 0 where one of them is 0, else from 1; where
        the file leaves it open, `problems` says so.

    Returns
    -------
    TileSource
        Role "image" is what is scored or denoised: the array or folder `image`, `denoised`, `candidate` or `noisy`,
        the first one there, or the plan's `path`.

    Raises
    ------
    FileNotFoundError
        No such file or folder.
    TypeError, ValueError
        What `source` was and what is accepted; a plan without tiles or with paths outside its folder.

    Examples
    --------
    >>> source = semnr.open_tiles(np.stack([noisy, second]))
    >>> [key.tile for key in source], source.roles
    (['t000000', 't000001'], ('image',))
    >>> key = next(iter(source))
    >>> source.read(key).shape
    (128, 128)
    """
    tile_side(tile)
    if first_page not in (None, 0, 1):
        raise ValueError(f"first_page is {first_page!r}; accepted: 0, 1 or None")
    if isinstance(source, TileSource):
        return source
    if isinstance(source, str | Path):
        opened = _open_path(source, None if root is None else Path(root), array, tile, storage_options, first_page)
        if root is not None and not Path(root).is_dir():
            raise ValueError(f"root is {str(root)!r}; accepted: a folder that exists, or None")
        recipe = {"root": root, "array": array, "tile": tile, "storage_options": storage_options}
        recipe["first_page"] = first_page
        opened.recipe = Recipe(open_tiles, source, recipe)
        return opened
    if array is not None:
        raise ValueError(f"array is {array!r}, but source is {type(source).__name__}; accepted: None (Zarr only)")
    if isinstance(source, np.ndarray) or is_tensor(source):
        return open_array(source, tile)
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return _open_list(source) if any(isinstance(item, str | Path) for item in source) else SequenceSource(source)
    if isinstance(source, Iterable) and not isinstance(source, bytes | Mapping):
        return StreamSource(source)
    raise TypeError(f"source is {type(source).__name__}; accepted: {_ACCEPTED}")


def _open_path(
    source: str | Path,
    root: Path | None,
    array: str | None,
    tile: int | None,
    options: Mapping[str, Any] | None,
    first_page: int | None,
) -> TileSource:
    text = str(source).removeprefix("file://") if isinstance(source, str) else str(source)
    url = "://" in text
    path = Path(text)
    if _is_zarr(text, None if url else path):
        return open_zarr(text.rstrip("/"), text.rstrip("/").rpartition("/")[2], array, tile, options)
    if array is not None:
        raise ValueError(f"array is {array!r}, but {text} is no Zarr; accepted: None")
    if url:
        return _open_url(text, tile, options, first_page)
    if not path.exists():
        if is_glob(text) and (paths := globbed(text)):
            return FolderSource(Listed(paths, text), roles=False)
        what = "no image has such a name" if is_glob(text) else "no such file or folder"
        raise FileNotFoundError(f"source is {text!r}: {what}; accepted: {_ACCEPTED}")
    if path.is_dir():
        return _open_folder(path, Here(path, root))
    return _open_file(path, Here(path.parent, root), tile, first_page)


def _open_list(paths: Sequence[Any]) -> TileSource:
    """Paths of images. What is at them shows when they are read."""
    for item in paths:
        if not isinstance(item, str | Path) or not is_image(Path(item).as_posix()):
            raise ValueError(f"source has {item!r} among its paths; accepted: paths of images, or arrays, not both")
    return FolderSource(Listed([Path(item) for item in paths]), roles=False)


def _open_url(
    url: str, tile: int | None, options: Mapping[str, Any] | None, first_page: int | None = None
) -> TileSource:
    """Plans, KLARF and folders fetch each image while it is read; a single file is fetched whole, once."""
    import tempfile
    import weakref

    if kind_of(url, options) == "directory":
        plan = next((name for name in _PLANS if has(url, name, options)), None)
        if plan is not None:
            return _open_url(f"{url.rstrip('/')}/{plan}", tile, options)
        return FolderSource(There(url, options))
    folder, name = parent(url)
    place = There(folder, options)
    kept = tempfile.TemporaryDirectory(prefix="semnr-")
    try:
        with place.file(name) as fetched:
            local = fetched.rename(Path(kept.name) / name)
        opened = _open_file(local, place, tile, first_page)
    except BaseException:
        kept.cleanup()
        raise
    weakref.finalize(opened, kept.cleanup)
    return opened


def _open_file(path: Path, place: Place, tile: int | None, first_page: int | None = None) -> TileSource:
    try:
        require_file(path)
    except OSError as error:
        raise ValueError(f"source is {shown(str(path))!r}: {error}") from error
    suffix = path.suffix.lower()
    if is_klarf(path):
        return KlarfSource(path, place, first_page)
    if suffix in (".csv", ".parquet", ".pq"):
        return PlanSource(read_columns(path), path.name, place)
    if suffix in TIFF_SUFFIXES:
        return TiffSource(path, tile)
    if suffix == ".npy":
        return open_npy(path, tile)
    if suffix in PILLOW_SUFFIXES:
        return ImageSource(path, tile)
    raise ValueError(f"source is {path.name!r} with suffix {path.suffix!r}; accepted: {_ACCEPTED}")


def _is_zarr(text: str, path: Path | None) -> bool:
    if path is not None and path.exists():
        return path.is_dir() and any((path / name).is_file() for name in _ZARR_FILES)
    return any(part.lower().endswith(".zarr") for part in text.replace("\\", "/").split("/"))


def _open_folder(folder: Path, place: Place) -> TileSource:
    for name in _PLANS:
        if (folder / name).is_file():
            return _open_file(folder / name, place, None)
    if (columns := journal_columns(folder)) is not None:  # its writer was interrupted before it wrote the plan
        return PlanSource(columns, PLAN, place)
    return FolderSource(place)


def create_tiles(
    out: str | Path,
    *,
    count: int | None = None,
    shape: Sequence[int] | None = None,
    dtype: Any = None,
    roles: Sequence[str] = ("image",),
    pixel_nm: float | None = None,
    data_range: float | None = None,
    overwrite: bool = False,
    resume: bool = False,
    compress: bool = True,
    instrument: Callable[[TileKey], Any] | None = None,
) -> TileWriter:
    """A writer of tiles whose output `open_tiles` reads.

    Each tile is there whole or not at all, whatever happens. A writer that was never closed leaves a source that
    opens: names and coordinates come from a journal, and tiles that were not written are missing.

    Parameters
    ----------
    out
        "x.zarr": a tile stack, a Zarr v3 group with one (T, H, W) array a role, one chunk a tile. Grey only; tiles
        smaller than the others are padded and cut again when read. Any other path: a folder of TIFFs, one folder a
        role, and a plan.csv.
    count
        Number of tiles; None: as many as are written.
    shape, dtype
        Of a tile, (H, W); None: those of the first one.
    roles
        Which of image, reference, noisy, noisy_2, candidate, denoised will be written.
    pixel_nm, data_range
        Kept with the tiles.
    compress
        Zarr only. False: chunks are the bare pixels, read fastest; noise hardly compresses. True: Zstandard with a
        checksum that tells damage from pixels.
    instrument
        Folders only: what the file that a tile was made of says beside its pixels (`TileSource.instrument`), which
        the tile's TIFF then says too: the microscope's tags, the pixel size, how grey is stored.
    overwrite
        Replace what an earlier writer left at `out`, by its own list. Where something else lies among it (raw data, a
        plan that was edited), nothing is deleted and that is named; anything beside it is never touched.
    resume
        Go on with what an interrupted writer left at `out`: `TileWriter.keep(key)` says whether a tile is there.

    Raises
    ------
    FileExistsError
        `out` holds tiles (or something else, for Zarr).
    TypeError, ValueError
        On creation, or by `write`: an unknown role, another dtype or a larger shape than the tiles before, an index
        beyond `count`, an id that is no relative file name.
    OSError
        From `write` and `close`, a full disk above all; names the path. What was written before stays readable.

    Returns
    -------
    TileWriter

    Examples
    --------
    >>> with semnr.tiles.create_tiles("lot.zarr", pixel_nm=1.0) as writer:
    ...     for index, image in enumerate([noisy, second]):
    ...         writer.write(semnr.tiles.TileKey(f"frame{index}", index), image)
    >>> source = semnr.open_tiles("lot.zarr")
    >>> len(source), source.pixel_nm
    (2, 1.0)
    """
    check_arguments(count, shape, dtype, roles, data_range, pixel_nm)
    path = local("out", out)
    options: dict[str, Any] = {"count": count, "shape": shape, "dtype": dtype, "roles": roles}
    options |= {"pixel_nm": pixel_nm, "data_range": data_range}
    if path.suffix.lower() == ".zarr":
        left = _left(path) if zarr_form.make_room(path, overwrite, resume, roles) else None
        return zarr_form.ZarrWriter(path, compress=compress, before=left, **options)
    left = _left(path) if tiff_form.make_room(path, overwrite, resume) else None
    return tiff_form.TiffWriter(path, before=left, instrument=instrument, **options)


def _left(path: Path) -> TileSource | None:
    """What an interrupted writer left; None where it did not come to its first tile."""
    try:
        source = open_tiles(path)
        len(source), source.find("")  # what describes the tiles is read now, before it is written to
    except (ValueError, FileNotFoundError):
        return None
    return source
