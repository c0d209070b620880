"""Synthetic SEM tiles and wafers with exact truth: edges, CD, roughness, defects, noise.

`tile` makes one tile, `SyntheticWafer` is a source of any number of them, `write_wafer` stores one tile by tile.
`PATTERNS` holds the patterns and `KINDS` the kinds of defects.
"""

from .defects import KINDS, Defect, DefectTruth
from .detector import Detector, quantise
from .render import Look
from .roughness import rough_edges, roughness_psd
from .scan import Scan
from .tiles import PATTERNS, SyntheticTile, Truth, tile
from .wafer import SyntheticWafer, WaferTile
from .writing import WrittenWafer, write_wafer

__all__ = [
    "KINDS",
    "PATTERNS",
    "Defect",
    "DefectTruth",
    "Detector",
    "Look",
    "Scan",
    "SyntheticTile",
    "SyntheticWafer",
    "Truth",
    "WaferTile",
    "WrittenWafer",
    "quantise",
    "rough_edges",
    "roughness_psd",
    "tile",
    "write_wafer",
]
