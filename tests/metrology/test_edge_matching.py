"""The edges of an image together against edges one after another with SciPy's interpolators."""

from __future__ import annotations

import edges_by_scipy
import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter

import semnr.synth as synth
from semnr.metrology import edge_matching, find_edges, monotone_cubic

STEP = synth.render.LOOKS["lines"].inside - synth.render.LOOKS["lines"].outside


def lines(height: int, width: int, seed: int, snr: float | None) -> np.ndarray:
    clean = synth.tile("lines", (height, width), seed=seed).clean
    noise = 0.0 if snr is None else STEP / snr * np.random.default_rng(seed).standard_normal(clean.shape)
    return clean + noise


def uneven(height: int, width: int) -> np.ndarray:
    """Rough lines of all widths, from one border to the other."""
    borders = np.array([6.3, 14.8, 31.2, 36.9, 60.0, 97.4, 104.1, width - 8.6])
    rough = borders[:, None] + synth.rough_edges(borders.size, height, np.random.default_rng(5), sigma_nm=0.8)
    x = np.arange(width)
    bright = np.sum([(-1) ** i / (1 + np.exp((edge[:, None] - x) / 0.7)) for i, edge in enumerate(rough)], axis=0)
    return 0.2 + 0.6 * bright + 0.05 * np.random.default_rng(6).standard_normal(bright.shape)


def far_rows() -> np.ndarray:
    """A row far from the others: shifts at the end of the search."""
    image = lines(96, 128, 8, 5.0)
    image[40:44] = np.roll(image[40:44], 9, axis=1)
    return image


def straight(height: int, width: int) -> np.ndarray:
    """Most bins of the profile are empty."""
    return np.tile(lines(height, width, 9, None)[0], (height, 1))


IMAGES = {
    "clean": lambda: lines(128, 256, 1, None),
    "SNR 2": lambda: lines(128, 256, 2, 2.0),
    "smoothed": lambda: gaussian_filter(lines(128, 256, 3, 2.0), 1.5),
    "8 bits": lambda: np.rint(np.clip(255 * lines(128, 128, 4, 4.0), 0, 255)),
    "turned": lambda: lines(128, 256, 4, 3.0).T,
    "40 px wide": lambda: lines(128, 40, 7, 3.0),
    "40 px high": lambda: lines(40, 128, 7, 3.0),
    "all widths, near the borders": lambda: uneven(96, 160),
    "rows far off": far_rows,
    "straight": lambda: straight(64, 128),
    "straight but for a few rows": lambda: np.concatenate([straight(60, 128), lines(16, 128, 9, None)[:4]]),
    "16 bits": lambda: 40000 + 900 * lines(128, 128, 10, 3.0),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("together", [200, edge_matching._TOGETHER])
def test_edges_together_lie_where_edges_one_by_one_lie(name, together, monkeypatch) -> None:
    monkeypatch.setattr(edge_matching, "_TOGETHER", together)
    image = IMAGES[name]()
    found = find_edges(image)
    expected = edges_by_scipy.find_edges(image, found.orientation)
    assert len(expected) >= 2
    np.testing.assert_allclose(found.positions, expected, rtol=0, atol=1e-6)


def test_curves_of_several_lengths_have_the_slopes_of_scipy() -> None:
    rng = np.random.default_rng(0)
    curves = [(np.cumsum(rng.uniform(0.01, 2, n)), rng.standard_normal(n).round(1)) for n in (3, 40, 7, 200)]
    curves.append((np.arange(5.0), np.array([0.0, 0, 1, 1, 3])))  # flat pieces
    last = np.cumsum([x.size for x, _ in curves]) - 1
    first = np.concatenate([[0], last[:-1] + 1])
    x, y = np.concatenate([x for x, _ in curves]), np.concatenate([y for _, y in curves])
    slope = monotone_cubic.slopes(x, y, first, last)
    for begin, end in zip(first, last, strict=True):
        part = slice(begin, end + 1)
        theirs = PchipInterpolator(x[part], y[part])
        np.testing.assert_allclose(slope[part], theirs.derivative()(x[part]), rtol=1e-12, atol=1e-12)
        between = monotone_cubic.coefficients(x[part], y[part], slope[part])
        middle = y[part][:-1] + sum(c / 2**power for power, c in enumerate(between, 1))
        np.testing.assert_allclose(middle, theirs((x[part][1:] + x[part][:-1]) / 2), rtol=1e-12, atol=1e-12)


def test_image_is_left_as_it_was() -> None:
    image = lines(64, 128, 3, 3.0)
    kept = image.copy()
    find_edges(image)
    np.testing.assert_array_equal(image, kept)
