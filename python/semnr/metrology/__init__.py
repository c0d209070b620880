"""SEM metrology: edges of lines and holes to a fraction of a pixel, CD, roughness, and what a denoiser did to them."""

from __future__ import annotations

from .compare import LineComparison, compare_lines
from .holes import Hole, measure_holes
from .line_roughness import Roughness, edge_psd, roughness
from .lines import LineEdges, find_edges
from .per_tile import columns

__all__ = [
    "Hole",
    "LineComparison",
    "LineEdges",
    "Roughness",
    "columns",
    "compare_lines",
    "edge_psd",
    "find_edges",
    "measure_holes",
    "roughness",
]
