"""One batch of tiles to rows: the profile of each tile, and what its noisy input says of it where that is known."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from semnr_kernels import BackendUnavailable, SemnrError, WeightsUnavailable, registry
from semnr_kernels.fsim import downsampling_factor

from .. import metrics
from ..base.timing import stage
from ..columns import metadata_name
from ..profiles import profile
from ..tiles.pixels import to_numpy
from ..tiles.source import TileKey
from ..trust.columns import Trust
from ..trust.comparable import Pairs
from ..trust.registration import BORDER, fitted, register
from .maps import MapSink

MISMATCHED = "mismatched"  # status of a tile whose noisy and denoised image are no pair
# The parts of a batch by the names that the evidence has for them.
_IMAGES = {"x": "denoised", "y": "reference", "noisy": "noisy", "noisy_2": "second_frame", "noisy_3": "third_frame"}


@dataclass
class Scorer:
    """Settings of a run, applied to batch after batch."""

    metrics: tuple[str, ...]
    data_range: float | None
    fsim_downsample: int | str
    dists_weights: Any
    dists_resize: str | None
    dists_every: int
    nan: str
    backend: str | None
    trust: Trust = field(default_factory=Trust)
    pixel_nm: float | None = None
    calibrated: bool | None = None
    scale_used: float | None = None
    weights: dict[str, Any] = field(default_factory=dict)
    maps: MapSink | None = None
    register: bool = False  # lay each reference onto its noisy image before anything is scored
    computes: bool = False  # whether the candidate is denoised as it is read
    decided: dict[str, Any] | None = None  # by the first tile, for the whole run; see `begin`
    remarks: tuple[str, ...] = ()  # what the first tile shows that a reader should know
    dtype: Any = None  # of the run: that of its first tile
    one_network: threading.Lock = field(default_factory=threading.Lock)  # VGG16's feature maps are large

    def begin(self, tile: str, first: dict[str, np.ndarray]) -> None:
        """Fix what the first tile decides for the run; later ones change nothing."""
        if self.decided is not None:
            return
        x = first["x"]
        if x.dtype.kind == "f" and self.data_range is None:
            raise ValueError(f"data_range is missing; it is required for {x.dtype} tiles (for example data_range=1.0)")
        factor = self.fsim_downsample
        if factor == "auto":  # one factor for all tiles, or they would not compare
            factor = downsampling_factor(x.shape[-2], x.shape[-1], "auto")
        self.remarks = _unused_bits(first) if self.data_range is None else ()
        made = {name: pixels for name, pixels in first.items() if name != "x" or not self.computes}
        self.go_on(
            {
                "tile": tile,
                "dtype": x.dtype.name,
                "data_range": self.data_range or float(np.iinfo(x.dtype).max),
                "fsim_downsample": factor,
                "pixels": fingerprint(made),
            }
        )

    def go_on(self, decided: dict[str, Any]) -> None:
        """Take over what the first tile of the run decided, in this process or in an earlier one."""
        self.decided = decided
        self.dtype = np.dtype(decided["dtype"])
        self.scale_used = decided["data_range"]
        self.fsim_downsample = decided["fsim_downsample"]

    def rehearse(self, key: TileKey, first: dict[str, np.ndarray]) -> None:
        """Score one tile for nothing where a backend was named: one that cannot is known before anything is written."""
        if registry.is_named(self.backend):
            self.rows([key], {name: pixels[None] for name, pixels in first.items()})

    def learnt(self) -> dict[str, Any]:
        """What scoring found out, for `learn` in the process that keeps the run."""
        return {"calibrated": self.calibrated, "weights": self.weights}

    def learn(self, found: dict[str, Any]) -> None:
        self.calibrated = self.calibrated if found["calibrated"] is None else found["calibrated"]
        self.weights = found["weights"] or self.weights

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "one_network"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, one_network=threading.Lock())

    def rows(
        self, keys: list[TileKey], parts: dict[str, Any], host: dict[str, np.ndarray] | None = None
    ) -> list[dict[str, Any]]:
        """A row a tile. A tile that cannot be scored gets its reason; the others of its batch are scored.

        host: the pixels as they were read, where `parts` lie on a device.
        """
        host = parts if host is None else host
        try:
            return self._batch(keys, parts, host)
        except (BackendUnavailable, WeightsUnavailable):
            raise  # of this machine, not of a tile
        except (SemnrError, ValueError, ArithmeticError, MemoryError, RuntimeError) as error:  # torch's of memory too
            if len(keys) == 1:
                return unscored(keys, "error", _why(error))
            one = [slice(i, i + 1) for i in range(len(keys))]
            return [row for part in one for row in self.rows(keys[part], _some(parts, part), _some(host, part))]

    def _batch(self, keys: list[TileKey], parts: dict[str, Any], host: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        pairs, problems = self._pairs(host)
        if any(problems):
            return self._apart(keys, parts, host, problems)
        if self.register and "y" in parts:
            parts, (x, y, noisy) = self._registered(parts)
            host = parts
        else:
            x, y, noisy = parts["x"], parts.get("y"), parts.get("noisy")
        columns: dict[str, Any] = {}
        if y is not None:
            most = tuple(m for m in self.metrics if m != "dists")  # of every tile; DISTS may run on a sample
            columns = dict(self._profile(x, y, most, noisy).columns) if most else {}
            if "dists" in self.metrics:
                columns["dists"] = self._dists(keys, x, y)
            if noisy is not None and "psnr_noisy" not in columns:
                columns["psnr_noisy"] = self._profile(noisy, y, ("psnr",), None).psnr
        mapped = self.maps is not None and "evidence" in self.maps.names
        with stage("evidence"):
            found = self.trust.measure(
                {_IMAGES[name]: images for name, images in parts.items()},
                data_range=self.data_range,
                nan="omit" if self.nan == "omit" else "error",
                pixel_nm=self.pixel_nm,
                with_map=mapped,
                pairs=pairs,
                host=None if host is parts else {_IMAGES[name]: images for name, images in host.items()},
            )
        columns |= found.columns | found.texts
        if self.maps is not None:
            self._write_maps(self.maps, keys, parts, found.map)
        rows = []
        for i, key in enumerate(keys):
            values = {name: _value(column[i]) for name, column in columns.items()}
            rows.append({**row_of(key), **values, "status": "ok", "reason": None})
        return rows

    def _pairs(self, parts: dict[str, np.ndarray]) -> tuple[Pairs | None, list[str]]:
        """(The noisy and denoised images as they are compared, with the references where these stay as they are; of
        each tile why it is no pair, "" where nothing speaks against it)."""
        if not self.trust.tests or "noisy" not in parts:
            return None, []
        with stage("evidence"):
            kept = {name: images for name, images in parts.items() if name != "y" or not self.register}
            pairs = self.trust.pairs_of({_IMAGES[name]: images for name, images in kept.items()})
            return pairs, [pairs.problem(i) for i in range(len(pairs))]

    def _apart(
        self, keys: list[TileKey], parts: dict[str, Any], host: dict[str, np.ndarray], problems: list[str]
    ) -> list[dict[str, Any]]:
        """Rows of a batch in which some tiles are no pair: these are not scored, the others between them are."""
        rows: list[dict[str, Any]] = []
        for reason, members in groupby(range(len(keys)), problems.__getitem__):
            here = list(members)
            part = slice(here[0], here[-1] + 1)
            if reason:
                rows += unscored(keys[part], MISMATCHED, reason)
            else:
                rows += self._batch(keys[part], _some(parts, part), _some(host, part))
        return rows

    def _registered(self, parts: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Any]:
        """(The parts, the reference laid onto the noisy image; what the metrics read: candidate, reference and noisy
        image without the border, with gain and offset fitted to the reference)."""
        x, y = (to_numpy(parts[name]) for name in ("x", "y"))
        noisy = to_numpy(parts["noisy"]) if "noisy" in parts else None
        against = x if noisy is None else noisy
        laid = np.stack(
            [
                np.stack([register(a.mean(axis=0), channel).image for channel in tile])
                for a, tile in zip(against, y, strict=True)
            ]
        )
        most = min(x.shape[-2:])
        cut = (..., *((slice(BORDER, -BORDER),) * 2)) if most > 4 * BORDER else (...,)
        read = [
            None if v is None else np.stack([fitted(a, b) for a, b in zip(v[cut], laid[cut], strict=True)])
            for v in (x, noisy)
        ]
        kind = y.dtype
        whole = laid if kind.kind == "f" else np.clip(laid, 0, np.iinfo(kind).max).round()
        return {**parts, "y": whole.astype(kind)}, (read[0], laid[cut], read[1])

    def _write_maps(
        self, sink: MapSink, keys: list[TileKey], parts: dict[str, np.ndarray], evidence: np.ndarray | None
    ) -> None:
        x, y = parts["x"], parts.get("y")
        options: dict[str, Any] = {"data_range": self.data_range, "nan": self.nan, "backend": self.backend}
        for name in sink.names:
            found: Any
            if name == "image":
                found = x[:, 0]
            elif name == "evidence":
                found = evidence
            elif name == "ssim":
                found = metrics.ssim(x, parts["y"], return_map=True, reduction="none", **options).map
            else:
                found = metrics.cnr_map(x, y, **options)
            for key, values in zip(keys, to_numpy(found), strict=True):
                sink.write(name, key.index, values.mean(axis=0) if values.ndim == 3 else values)

    def _profile(self, x: np.ndarray, y: np.ndarray, metrics: tuple[str, ...], noise: np.ndarray | None) -> Any:
        scored = profile(
            x,
            y,
            data_range=self.scale_used if self.register else self.data_range,
            metrics=metrics,
            noise=noise,
            nan=self.nan,
            fsim_downsample=self.fsim_downsample,
            dists_weights=self.dists_weights,
            dists_resize=self.dists_resize,
            backend=self.backend,
        )
        return scored

    def _dists(self, keys: list[TileKey], x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """DISTS of every `dists_every`-th tile of the source, NaN elsewhere."""
        values = np.full(len(keys), np.nan)
        chosen = [i for i, key in enumerate(keys) if key.index % self.dists_every == 0]
        if chosen:
            with self.one_network:
                scored = self._profile(x[chosen], y[chosen], ("dists",), None)
            values[chosen] = scored.dists
            settings = scored.settings["dists"]
            self.calibrated = settings["calibrated"]
            self.weights = {"dists": {"source": settings["weights"], "sha256": settings["weights_sha256"]}}
        return values


def _some(parts: dict[str, Any], rows: slice) -> dict[str, Any]:
    """Some tiles of a batch."""
    return {name: images[rows] for name, images in parts.items()}


def fingerprint(parts: dict[str, np.ndarray]) -> str:
    """Tells the pixels of one tile from others; channels of one make no difference."""
    found = hashlib.sha256()
    for name in sorted(parts):
        pixels = np.ascontiguousarray(parts[name])
        found.update(f"{name} {pixels.dtype} {'x'.join(map(str, pixels.shape[-2:]))} ".encode())
        found.update(pixels.data)
    return found.hexdigest()


def _unused_bits(first: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Of uint16 tiles whose top bits the first one does not use: that the scale was taken to be the dtype's."""
    brightest = max(int(pixels.max()) for pixels in first.values()) if first["x"].dtype == np.uint16 else 2**16
    if brightest >= 2**14:
        return ()
    return (
        f"the tiles are uint16 and no pixel of the first is above {brightest}, but the scale was taken to end at "
        "65535: PSNR, SSIM and FSIM of 10-, 12- or 14-bit data need --data-range 1023, 4095 or 16383",
    )


def _why(error: Exception) -> str:
    if isinstance(error, ValueError | SemnrError):
        return str(error)
    memory = isinstance(error, MemoryError) or "memory" in str(error)
    return f"{'there is not enough memory to score it; ' * memory}{type(error).__name__}: {error}"


def row_of(key: TileKey) -> dict[str, Any]:
    """What is known of a tile before its pixels are: never under the name of a result."""
    meta = {metadata_name(str(name)): value for name, value in key.meta.items()}
    return {**meta, "tile": key.tile, "path": key.path, "index": key.index}


def unscored(keys: list[TileKey], status: str, reason: str) -> list[dict[str, Any]]:
    """Rows of tiles that were not scored, and why."""
    return [{**row_of(key), "status": status, "reason": reason} for key in keys]


def _value(value: Any) -> float | str | None:
    """A float or text for Parquet; NaN (not evaluated, undefined) and no text as null, infinity kept."""
    if value is None or isinstance(value, str):
        return value or None
    value = float(value)
    return None if value != value else value
