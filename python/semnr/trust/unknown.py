"""Which axes of a profile noisy frames alone cannot tell, and why."""

from __future__ import annotations

from collections.abc import Mapping

UNKNOWN: Mapping[str, str] = {
    "ssim": "its local variances and their ratio are biased by the frames' noise in a window of 11 px; the structure "
    "correlation over the tile stands in",
    "fsim": "phase congruency is not linear in the pixels: no unbiased estimate from noisy frames",
    "dists": "deep features are not linear in the pixels: no unbiased estimate from noisy frames",
}
