"""Zarr v2 and v3, local or by URL: tile stacks, OME-Zarr and plain arrays. Only the chunks of a tile are read."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from semnr_kernels import TileError

from .journal import read_journal
from .limits import fits
from .pixels import ACCEPTED, as_pixels, known_dtype
from .plan import cell
from .planes import PlaneSource, default_id
from .reasons import explained
from .source import ROLES, TileKey, TileSource
from .vendor import in_nm
from .zarr_chunks import never_written
from .zarr_direct import direct_reader

# written by our own writer, which stores every chunk: an absent chunk is a tile that was never written
ABSENT = {"absent_chunk": "missing"}
_SHOWN = ("image", "denoised", "candidate", "noisy")  # what "image" stands for, first one there
_UNITS = {"angstrom": 0.1, "nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6, "centimeter": 1e7, "meter": 1e9}
_UNITS |= {"picometer": 1e-3, "nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "mm": 1e6}


def open_zarr(
    where: str, name: str, array: str | None, tile: int | None, storage_options: Mapping[str, Any] | None
) -> TileSource:
    """A tile stack, an OME-Zarr image or an array, whichever is at `where`."""
    import zarr

    options = dict(storage_options) if storage_options else None

    def node_at(place: str) -> Any:
        try:
            with described(place):
                return zarr.open(place, mode="r", storage_options=options)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no Zarr at {place}") from error

    node = node_at(where)
    if isinstance(node, zarr.Array):
        if array is not None:
            raise ValueError(f"array is {array!r}, but {where} is itself an array; accepted: None")
        parent, _, leaf = where.rstrip("/").rpartition("/")
        group = _stack_group(parent, node_at)
        return ZarrStack(group, name, leaf, parent) if group is not None else ZarrPlanes(node, name, tile)
    with described(where):
        ome = node.attrs.get("ome", {})
        multiscales = ome.get("multiscales") or node.attrs.get("multiscales")
        first = dict(multiscales[0]) if multiscales else None
        arrays = dict(node.arrays())
    if first is not None and array is None:
        return _ome(node, first, name, tile)
    if array is not None and array not in arrays:
        if array in node and isinstance(node[array], zarr.Array):
            return ZarrPlanes(node[array], f"{name}/{array}", tile)
        raise ValueError(f"array is {array!r}; {where} holds: {', '.join(map(repr, sorted(arrays))) or 'no arrays'}")
    roles = [role for role in ROLES if role in arrays]
    if _is_stack(node) or (roles and all(arrays[role].ndim == 3 for role in roles)):
        return ZarrStack(node, name, array, where)
    if array is not None or len(arrays) == 1:
        return ZarrPlanes(arrays[array] if array is not None else next(iter(arrays.values())), name, tile)
    raise ValueError(
        f"{where} holds {_inside(node, arrays, where)}; accepted: a tile stack (arrays named "
        f"{', '.join(ROLES)}), OME-Zarr multiscales, a single array, or array=NAME"
    )


@contextmanager
def described(where: str) -> Iterator[None]:
    """Turn whatever damaged metadata lead zarr to into a ValueError that says where they are."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{where} cannot be opened as Zarr: {type(error).__name__}: {error}") from error


def _inside(group: Any, arrays: Mapping[str, Any], where: str) -> str:
    """What a group that is no source holds, with a hint where it is a container of OME images."""
    if arrays:
        return ", ".join(map(repr, sorted(arrays)))
    attributes = {**group.attrs, **(group.attrs["ome"] if isinstance(group.attrs.get("ome"), Mapping) else {})}
    for name, what, example in (
        ("plate", "a plate of OME images", "A/1/0"),
        ("well", "a well of OME images", "0"),
        ("bioformats2raw.layout", "a collection of OME images", "0"),
    ):
        if name in attributes:
            return f"no arrays of its own, it is {what}: open one of them, for example {where}/{example}"
    below = sorted(name for name, _ in group.groups())
    return f"no arrays, but the groups {', '.join(map(repr, below[:5]))}" if below else "no arrays"


def _is_stack(group: Any) -> bool:
    entry = group.attrs.get("semnr")
    return isinstance(entry, dict) and entry.get("format") == "tile-stack"


def _stack_group(place: str, node_at: Any) -> Any:
    """The tile stack at `place`, or None where there is none."""
    import zarr

    try:
        group = node_at(place) if place else None
    except (FileNotFoundError, ValueError):
        return None
    return group if isinstance(group, zarr.Group) and _is_stack(group) else None


def _chunks_fit(array: Any, window: tuple[slice, ...]) -> None:
    """The window, and each chunk of it as it is decoded, must fit into memory."""
    itemsize = np.dtype(array.dtype).itemsize
    fits(math.prod(part.stop - part.start for part in window) * itemsize)
    fits(math.prod(array.chunks) * itemsize, "one of its chunks")


def _check_dtype(array: Any, name: str) -> None:
    if not known_dtype(np.dtype(array.dtype)):
        raise TypeError(f"{name} has dtype {array.dtype}; accepted: {ACCEPTED}")


def _above_zero(value: Any, what: str, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name}: its {what} is {value!r}; accepted: a finite number above 0")
    return float(value)


class ZarrStack(TileSource):
    """A group with one (T, H, W) array a role, one chunk a tile, and the tiles' columns under `columns/`."""

    def __init__(self, group: Any, name: str, array: str | None, where: str) -> None:
        arrays = {key: value for key, value in group.arrays() if value.ndim == 3}
        if not arrays:
            raise ValueError(f"{name} holds no (T, H, W) arrays; accepted: at least one of {', '.join(ROLES)}")
        shown = array or next((role for role in _SHOWN if role in arrays), None)
        if shown is None and len(arrays) == 1:
            shown = next(iter(arrays))
        if shown is None or shown not in arrays:
            raise ValueError(f"array is {array!r}; {name} holds: {', '.join(map(repr, sorted(arrays)))}")
        for role, value in arrays.items():
            _check_dtype(value, f"{name}/{role}")
        self.name = name
        self._arrays = {"image": arrays[shown], **{r: a for r, a in arrays.items() if r in ROLES and r != "image"}}
        self.roles = tuple(sorted(self._arrays, key=lambda role: ROLES.index(role) if role in ROLES else len(ROLES)))
        self._group, self._where = group, where
        entry = group.attrs.get("semnr", {})
        entry = entry if isinstance(entry, Mapping) else {}
        self.pixel_nm, self.data_range = (_above_zero(entry.get(n), n, name) for n in ("pixel_nm", "data_range"))
        self._direct = {role: direct_reader(value) for role, value in self._arrays.items()}

    def __len__(self) -> int:
        return int(self._arrays["image"].shape[0])

    @cached_property
    def _columns(self) -> dict[str, np.ndarray | list[Any]]:
        """Column name -> values by index; an interrupted writer left them in its journal instead."""
        columns = _journal_columns(self._where, len(self))
        if columns or "columns" not in self._group:
            return columns
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a writer's journal and lock lie there while it is at work
            arrays = sorted(self._group["columns"].arrays())  # listed in any order
        for key, value in arrays:
            with explained(self.name, f"{self.name}/columns/{key}"):
                values = value[:]
            if values.ndim == 2 and values.dtype == np.uint8:  # text: UTF-8 rows padded with zeros
                columns[key] = [bytes(row).rstrip(b"\0").decode() or None for row in values]
            elif values.ndim == 1:
                columns[key] = values
        return columns

    @cached_property
    def _named(self) -> dict[str, int] | None:
        names = self._columns.get("tile")
        return None if names is None else {self._id(index): index for index in range(len(self))}

    def _id(self, index: int) -> str:
        names = self._columns.get("tile")
        given = names[index] if names is not None and index < len(names) else None
        return default_id(index) if given is None else str(given)

    def _key(self, index: int) -> TileKey:
        meta = {k: cell(v, index) for k, v in self._columns.items() if k not in ("tile", "tile_height", "tile_width")}
        return TileKey(self._id(index), index, None, meta)

    def __iter__(self) -> Iterator[TileKey]:
        return (self._key(index) for index in range(len(self)))

    def find(self, tile: str) -> TileKey | None:
        if self._named is not None:
            index = self._named.get(tile)
        else:
            digits = tile[1:] if tile.startswith("t") else ""
            index = int(digits) if digits.isdecimal() and tile == default_id(int(digits)) else None
        return self._key(index) if index is not None and index < len(self) else None

    def read(self, key: TileKey, role: str = "image") -> np.ndarray:
        self._check_role(role)
        array = self._arrays[role]
        if not 0 <= key.index < array.shape[0]:
            raise TileError(key.tile, f"{self.name} has no {role} tile {key.index}", "missing")
        with explained(key.tile, f"{self.name}/{array.basename}"):
            direct = self._direct[role]
            pixels = None if direct is None else direct(key.index)
            if pixels is None:
                whole = (slice(key.index, key.index + 1), *(slice(0, n) for n in array.shape[1:]))
                _chunks_fit(array, whole)
                pixels = np.asarray(array[key.index])
                if never_written(array, (key.index, slice(None), slice(None)), pixels):
                    raise TileError(key.tile, f"{self.name}: its {role} was never written", "missing")
        height, width = (cell(self._columns.get(f"tile_{side}"), key.index) for side in ("height", "width"))
        if height and width:  # the edge of a mosaic, stored in the corner of a whole chunk
            pixels = np.ascontiguousarray(pixels[: int(height), : int(width)])
        return as_pixels(key.tile, pixels)


def _journal_columns(where: str, count: int) -> dict[str, np.ndarray | list[Any]]:
    columns: dict[str, np.ndarray | list[Any]] = {}
    if "://" in where:
        return columns
    for row in read_journal(f"{where}/columns"):
        values = {"tile": row["tile"], **row["meta"]}
        if row.get("size"):
            values["tile_height"], values["tile_width"] = row["size"]
        for key, value in values.items():
            column = columns.setdefault(key, [None] * count)
            if row["index"] < count:
                column[row["index"]] = value
    return columns


class ZarrPlanes(PlaneSource):
    """(H, W): a mosaic, cut. More axes: one index a tile; with `cut`, each of those planes is cut as well."""

    def __init__(
        self, array: Any, name: str, tile: int | None, axes: tuple[str, ...] = (), pixel_nm: float | None = None
    ) -> None:
        _check_dtype(array, name)
        if array.ndim < 2 or 0 in array.shape:
            raise ValueError(f"{name} has shape {array.shape}; accepted: (H, W), (T, H, W) or more leading axes")
        super().__init__(name, tile if array.ndim == 2 or axes else None)
        self._array, self._lead, self._axes = array, tuple(array.shape[:-2]), axes
        self.pixel_nm = pixel_nm

    def sizes(self) -> list[tuple[int, int]]:
        return [tuple(self._array.shape[-2:])] * int(np.prod(self._lead))  # type: ignore[list-item]

    def _plane_meta(self, plane: int) -> dict[str, Any]:
        place = np.unravel_index(plane, self._lead) if self._lead else ()
        return {axis: int(at) for axis, at in zip(self._axes, place, strict=False)}

    def window(self, tile: str, plane: int, rows: slice, columns: slice) -> np.ndarray:
        place = tuple(int(at) for at in np.unravel_index(plane, self._lead)) if self._lead else ()
        with explained(tile, self.name):
            _chunks_fit(self._array, (*[slice(at, at + 1) for at in place], rows, columns))
            pixels = np.asarray(self._array[(*place, rows, columns)])
            if never_written(self._array, (*place, rows, columns), pixels):
                raise TileError(tile, f"{self.name}: none of its chunks was ever written", "missing")
            return as_pixels(tile, pixels)


def _ome(group: Any, multiscale: Mapping[str, Any], name: str, tile: int | None) -> ZarrPlanes:
    """Level 0 of an OME-Zarr image (0.1 to 0.5)."""
    import zarr

    try:
        dataset = multiscale["datasets"][0]
        array = group[dataset["path"]]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{name}: its multiscales name no level 0 ({type(error).__name__}: {error})") from error
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{name}: level 0 of its multiscales, {dataset['path']!r}, is no array")
    with described(f"{name} (its multiscales)"):
        axes = multiscale.get("axes") or list("tczyx")[-array.ndim :]  # 0.1 and 0.2 have no axes entry
        listed = [{"name": axis} if isinstance(axis, str) else dict(axis) for axis in axes]
        names = tuple(str(axis.get("name")) for axis in listed)
        pixel_nm = _ome_pixel_nm(multiscale, dataset, listed)
    if len(names) != array.ndim or names[-2:] != ("y", "x"):
        raise ValueError(f"{name} has axes {names} and shape {array.shape}; accepted: y and x as the last two axes")
    return ZarrPlanes(array, name, tile, names[:-2] or ("",), pixel_nm)


def _ome_pixel_nm(multiscale: Mapping[str, Any], dataset: Mapping[str, Any], axes: list[Any]) -> float | None:
    unit = _UNITS.get(axes[-1].get("unit", ""))
    steps = [*dataset.get("coordinateTransformations", []), *multiscale.get("coordinateTransformations", [])]
    scales = [step["scale"][-1] for step in steps if step.get("type") == "scale" and step.get("scale")]
    if unit is None or not scales:
        return None
    return in_nm(float(np.prod(scales)) * unit, "nm")
