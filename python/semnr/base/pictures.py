"""Small pictures of images, as WebP in data URIs: one grey scale for all that are compared, nothing sharpened."""

from __future__ import annotations

import base64
import io

import numpy as np

OVERVIEW_QUALITY = 60  # of a picture that is only an overview; what is judged by is stored without loss


def window(pixels: np.ndarray | None) -> tuple[float, float]:
    """Grey levels of black and white: a little wider than the image's range, so that noise is not clipped away."""
    if pixels is None:
        return 0.0, 1.0
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, (0.2, 99.8)))
    pad = 0.08 * (high - low) or 1.0
    return low - pad, high + pad


def grey(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """(H, W) uint8 of an image inside a window; NaN is black."""
    scaled = np.nan_to_num((np.asarray(pixels, dtype=np.float64) - low) * (255 / (high - low)))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def flat(pixels: np.ndarray) -> np.ndarray:
    """(H, W) of one tile, (H, W) or (C, H, W): the mean of its channels.

    Raises
    ------
    ValueError
        Another shape.
    """
    if pixels.ndim == 3:
        return pixels[0] if pixels.shape[0] == 1 else pixels.mean(axis=0)
    if pixels.ndim != 2:
        raise ValueError(f"a tile has shape {pixels.shape}; accepted: (H, W) or (C, H, W)")
    return pixels


def reduced(image: np.ndarray, side: int) -> np.ndarray:
    """float64, at most `side` px long, by area averaging: nothing aliases; small images stay as they are."""
    longest = max(image.shape)
    if longest <= side:
        return np.asarray(image, dtype=np.float64)
    from PIL import Image

    height, width = (max(1, round(n * side / longest)) for n in image.shape)
    small = Image.fromarray(np.asarray(image, dtype=np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def webp(pixels: np.ndarray, quality: int | None = None) -> str:
    """A data URI of (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA uint8. quality None: without loss."""
    from PIL import Image

    buffer = io.BytesIO()
    how = {"lossless": True, "quality": 70, "exact": True} if quality is None else {"quality": quality}
    Image.fromarray(pixels).save(buffer, "WEBP", method=4, **how)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def coloured(index: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8: rows of a (N, 3) table by index; transparent where the index is beyond its end."""
    inside = index < len(table)
    rgba = np.zeros((*index.shape, 4), np.uint8)
    rgba[..., :3] = table[np.where(inside, index, 0)]
    rgba[..., 3] = np.where(inside, 255, 0)
    rgba[~inside] = 0
    return rgba
