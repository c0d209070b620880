"""One synthetic tile: the clean image, its truth, and noisy recordings of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..base.random_streams import (
    DEFECTS,
    LAYOUT,
    NOISE,
    ROUGHNESS,
    TEXTURE,
    Seed,
    choice,
    number,
    seed_words,
    size,
    stream,
    whole,
)
from .defects import Defect, DefectTruth
from .detector import Detector, as_detector, quantise
from .insertion import insert
from .metal import metal
from .patterns import Layout, Rough, discs, lines
from .render import Look, Renderer, as_look
from .scan import Scan

PATTERNS = ("lines", "holes", "vias", "metal")
_PITCH_NM = {"lines": 48.0, "holes": 64.0, "vias": 64.0, "metal": 56.0}


@dataclass(frozen=True)
class Truth:
    """What is known of a synthetic tile.

    Positions are pixels (pixel centres at integers), sizes nm. Features that the border of the tile cuts are left out,
    so that everything here can be measured; wires count with their visible part. The truth is that of the pattern
    without its defects.

    Attributes
    ----------
    pattern : str
        One of `PATTERNS`.
    pixel_nm : float
        Size of a pixel.
    orientation : str
        Of lines.
    cd_nm : float
        Mean critical dimension; NaN where nothing is whole.
    cd_each_nm : ndarray
        That of each line (mean over its rows), hole or plug (diameter of the circle of the same area) or wire.
    edges_px : ndarray or None
        Lines: place of each edge in each row, (edges, length): left, right, left, right, ...
    centres_px : ndarray or None
        Holes, plugs, vias: (n, 2) row and column.
    boxes_px : ndarray or None
        Metal: (n, 4) top, left, bottom, right of each wire.
    sigma_nm, correlation_nm, hurst : float
        The roughness that was asked for.
    sigma_each_nm : ndarray
        Lines: standard deviation of each edge about its own mean in this tile.
    edge_level : float
        Grey level (of 0 to 1) at which the profile of a lone edge crosses its true place: the threshold for measuring a
        CD on the clean image.
    defects : tuple of DefectTruth
        In the order in which they were asked for.

    Examples
    --------
    >>> site.truth.pattern, site.truth.edges_px.shape[1]
    ('lines', 128)
    """

    pattern: str
    pixel_nm: float
    orientation: str
    cd_nm: float
    cd_each_nm: np.ndarray
    edges_px: np.ndarray | None
    centres_px: np.ndarray | None
    boxes_px: np.ndarray | None
    sigma_nm: float
    correlation_nm: float
    hurst: float
    sigma_each_nm: np.ndarray
    edge_level: float
    defects: tuple[DefectTruth, ...] = ()


@dataclass(frozen=True)
class SyntheticTile:
    """A noise-free tile with its truth; `tile` makes it.

    Attributes
    ----------
    clean : ndarray, (H, W), float64
        The image, on the scale of 0 to 1.
    truth : Truth
        Edges, sizes and defects.
    pixel_nm : float
        Size of a pixel.
    seed : tuple of int
        What it was made from.
    pattern : str
        Its pattern.

    Examples
    --------
    >>> made = semnr.synth.tile("holes", 64, seed=3)
    >>> made.reference("uint8").dtype, made.noisy(dtype="uint8").shape
    (dtype('uint8'), (64, 64))
    """

    clean: np.ndarray
    truth: Truth
    pixel_nm: float
    seed: tuple[int, ...]
    pattern: str

    def noisy(
        self,
        dose: float | None = None,
        frames: int | None = None,
        *,
        seed: Seed | None = None,
        frame: int = 0,
        noise: Detector | Mapping[str, float] | None = None,
        scan: Scan | None = None,
        dtype: object = "float64",
        data_range: float | None = None,
        **parameters: float,
    ) -> np.ndarray:
        """One recording of the tile.

        Parameters
        ----------
        dose, frames, **parameters
            Fields of `Detector`: electrons per pixel and frame at full scale, frames that are averaged,
            read_noise, row_noise, correlation, gain, offset. They replace those of `noise` (default: Detector()).
        seed, frame
            The noise is drawn from (seed, frame); seed None is the tile's own. Another `frame` is another,
            independent recording of the same site.
        noise : Detector or mapping, optional
            How the image is recorded, or the fields of a `Detector` that differ from the default.
        scan
            Drift within and between frames, and the charging trail along the line.
        dtype, data_range
            "uint8", "uint16" (with data_range=4095 for 12 bit), "float32" or "float64"; clipped to the range.

        Returns
        -------
        ndarray, (H, W)
        """
        model = as_detector(noise, dose=dose, frames=frames, **parameters)
        rng = stream(self.seed if seed is None else seed, NOISE, whole("frame", frame))
        return quantise(model.apply(self._scanned(scan, frame), rng), dtype, data_range)

    def reference(
        self, dtype: object = "float64", data_range: float | None = None, *, scan: Scan | None = None, frame: int = 0
    ) -> np.ndarray:
        """The clean image, scaled and quantised as a recording is.

        Parameters
        ----------
        dtype, data_range
            As for `noisy`.
        scan : Scan, optional
            Shows the field as that scan does.
        frame : int
            The frame of the scan.

        Returns
        -------
        ndarray, (H, W)
        """
        return quantise(self._scanned(scan, frame), dtype, data_range)

    def _scanned(self, scan: Scan | None, frame: int) -> np.ndarray:
        return self.clean if scan is None else scan.apply(self.clean, frame)


def tile(
    pattern: str = "lines",
    shape: int | tuple[int, int] = (512, 512),
    *,
    pixel_nm: float = 1.0,
    seed: Seed = 0,
    pitch_nm: float | None = None,
    cd_nm: float | None = None,
    ler_sigma_nm: float = 1.0,
    correlation_nm: float = 20.0,
    hurst: float = 0.6,
    edge_correlation: float = 0.0,
    orientation: str = "vertical",
    staggered: bool = False,
    placement_nm: float = 0.5,
    look: Look | dict[str, float] | None = None,
    defects: Sequence[Defect | str] = (),
    layout_seed: Seed | None = None,
) -> SyntheticTile:
    """A synthetic SEM tile with exact truth; the same arguments give the same bytes.

    Parameters
    ----------
    pattern
        "lines" (grating), "holes" (contact holes), "vias" (plugs), "metal" (Manhattan wires with vias).
    shape
        (height, width) in pixels, or one side; at least 16 each.
    pixel_nm
        Pixel size. Geometry, bloom and beam are in nm, so a finer pixel shows the same structure larger.
    seed
        Integer, or a sequence of integers.
    pitch_nm, cd_nm
        Defaults: 48 (lines), 64 (holes, vias), 56 (metal), and half of the pitch. cd_nm < pitch_nm.
    ler_sigma_nm, correlation_nm, hurst
        Roughness of every edge (Palasantzas spectrum, see `roughness_psd`): sigma 0 is straight.
    edge_correlation
        Lines: correlation of a line's two edges, -1 to 1. The variance of the width is 2 σ² (1 - c).
    orientation
        Lines: "vertical" or "horizontal".
    staggered, placement_nm
        Holes and vias: hexagonal arrangement; standard deviation of each centre's position.
    look
        A `Look`, or a dict of the fields that differ from the pattern's own.
    defects
        `Defect` objects, or kinds by name.
    layout_seed
        Seed of what the design fixes (phase of the grating, routing); default `seed`. Tiles that share it and
        differ in `seed` are the same place on two dies.

    Raises
    ------
    TypeError, ValueError
        Names the argument, what it was and what is accepted.

    Returns
    -------
    SyntheticTile

    Examples
    --------
    >>> made = semnr.synth.tile("holes", 128, seed=1, cd_nm=24.0)
    >>> made.clean.shape, 22 < made.truth.cd_nm < 26
    ((128, 128), True)
    """
    choice("pattern", pattern, PATTERNS)
    choice("orientation", orientation, ("vertical", "horizontal"))
    if orientation != "vertical" and pattern != "lines":
        raise ValueError(f"orientation is {orientation!r} for pattern {pattern!r}; accepted: only lines can be turned")
    extent = size("shape", shape)
    pixel = number("pixel_nm", pixel_nm, 0, above=True)
    pitch = number("pitch_nm", _PITCH_NM[pattern] if pitch_nm is None else pitch_nm, 0, above=True) / pixel
    cd = number("cd_nm", pitch * pixel / 2 if cd_nm is None else cd_nm, 0, above=True) / pixel
    if not 1 <= cd < pitch - 1:
        raise ValueError(
            f"cd_nm is {cd * pixel:g} with pitch_nm {pitch * pixel:g} at pixel_nm {pixel:g}; "
            "accepted: lines and spaces of more than one pixel each"
        )
    number("edge_correlation", edge_correlation, -1, 1)
    words = seed_words(seed)
    design = words if layout_seed is None else seed_words(layout_seed)
    rough = Rough(
        number("ler_sigma_nm", ler_sigma_nm, 0) / pixel,
        number("correlation_nm", correlation_nm, 0, above=True) / pixel,
        number("hurst", hurst, 0, 1, above=True),
        stream(words, ROUGHNESS),
    )
    renderer = Renderer(as_look(pattern, look), pixel)
    rng = stream(design, LAYOUT)
    if pattern == "lines":
        layout = lines(extent, pitch, cd, rough, rng, edge_correlation=edge_correlation, orientation=orientation)
    elif pattern == "metal":
        layout = metal(extent, pitch, cd, rough, rng, reach=renderer.foot, glow=renderer.halo)
    else:
        placement = number("placement_nm", placement_nm, 0) / pixel
        layout = discs(
            extent, pitch, cd, rough, rng, positive=pattern == "vias", staggered=staggered, placement=placement
        )
    clean = renderer.clean(layout.phi, layout.vias, stream(words, TEXTURE, 0), stream(words, TEXTURE, 1))
    np.clip(clean, 0, 1, out=clean)
    defects_made: tuple[DefectTruth, ...] = ()
    if wanted := [Defect(d) if isinstance(d, str) else d for d in defects]:
        if bad := [d for d in wanted if not isinstance(d, Defect)]:
            raise TypeError(f"defects holds {type(bad[0]).__name__}; accepted: Defect objects or kinds by name")
        clean, defects_made = insert(clean, layout, renderer, wanted, pixel, cd, pitch - cd, stream(words, DEFECTS))
    truth = _truth(pattern, pixel, orientation, layout, rough, renderer.edge_level, defects_made)
    return SyntheticTile(clean, truth, pixel, words, pattern)


def _truth(
    pattern: str,
    pixel: float,
    orientation: str,
    layout: Layout,
    rough: Rough,
    level: float,
    defects: tuple[DefectTruth, ...],
) -> Truth:
    cds = layout.cds * pixel
    sigmas = np.zeros(0) if layout.edges is None else layout.edges.std(axis=1) * pixel
    return Truth(
        pattern=pattern,
        pixel_nm=pixel,
        orientation=orientation,
        cd_nm=float(cds.mean()) if cds.size else float("nan"),
        cd_each_nm=cds,
        edges_px=layout.edges,
        centres_px=layout.centres,
        boxes_px=layout.boxes,
        sigma_nm=rough.sigma * pixel,
        correlation_nm=rough.correlation * pixel,
        hurst=rough.hurst,
        sigma_each_nm=sigmas,
        edge_level=level,
        defects=defects,
    )
