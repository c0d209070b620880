"""The pictures of the concept pages, drawn from a synthetic site by the functions that they explain.

python docs/_site/pictures.py FOLDER    # the same files, to look at
"""

from __future__ import annotations

import io
import sys
from functools import lru_cache
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

import semnr
from semnr_kernels.fsim import features

FILES = {
    "site": "site.webp",
    "ssim_terms": "ssim-terms.webp",
    "fsim_features": "fsim-features.webp",
    "blur": "blur.svg",
    "cnr": "cnr.svg",
    "residual": "residual.webp",
}
_SIGMAS = np.array([0.01, 0.4, 0.7, 1.0, 1.3, 1.6, 2.0, 2.5, 3.0, 4.0])
_SIDE = 192


def all_of_them() -> dict[str, bytes]:
    """File name -> content. The same bytes for the same versions of semnr and matplotlib."""
    plt.rcParams.update({"svg.hashsalt": "semnr", "font.size": 9, "svg.fonttype": "none", "axes.grid": True})
    draw = {"site": site, "ssim_terms": ssim_terms, "fsim_features": fsim_features, "blur": blur, "cnr": cnr}
    draw["residual"] = residual
    return {FILES[name]: function() for name, function in draw.items()}


@lru_cache
def scene() -> dict[str, np.ndarray]:
    """One site of contact holes: clean, noisy, a second frame, and three denoised images of it."""
    tile = semnr.synth.tile("holes", _SIDE, seed=4)
    noisy = tile.noisy(dtype="uint8")
    small = semnr.denoise(noisy)
    painted = small.copy()
    painted[60:100, 60:100] = gaussian_filter(small.astype(float), 6)[60:100, 60:100].astype(np.uint8)
    return {
        "clean": tile.reference("uint8"),
        "noisy": noisy,
        "semnr-small": small,
        "Gaussian, σ 2 px": _blurred(noisy, 2.0),
        "a place wiped": painted,
    }


def site() -> bytes:
    """The images that the other pictures are about, with what PSNR, SSIM and T say of them."""
    images = scene()
    figure, axes = plt.subplots(1, len(images), figsize=(11, 2.7))
    for axis, (name, image) in zip(axes, images.items(), strict=True):
        title = name
        if name != "clean":
            title += f"\n{semnr.psnr(image, images['clean']):.1f} dB, SSIM {semnr.ssim(image, images['clean']):.2f}"
        if name not in ("clean", "noisy"):
            title += f"\nT {_transfer(image):.2f}"
        _image(axis, image, title)
    return _webp(figure)


def ssim_terms() -> bytes:
    """SSIM of one pair as a map, and the three maps that it is the product of."""
    images = scene()
    clean = images["clean"]
    rows = {
        "20 % less contrast": np.clip(clean.mean() + 0.8 * (clean - clean.mean()), 0, 255).astype(np.uint8),
        "20 grey levels brighter": np.clip(clean.astype(int) + 20, 0, 255).astype(np.uint8),
        "noisy": images["noisy"],
        "Gaussian, σ 2 px": images["Gaussian, σ 2 px"],
    }
    figure, axes = plt.subplots(len(rows), 5, figsize=(11, 2.35 * len(rows)))
    for line, (name, image) in zip(axes, rows.items(), strict=True):
        result = semnr.ssim(image, clean, components=True, return_map=True)
        _image(line[0], image, name)
        maps = {"SSIM": result.map} | _terms(image, clean)
        for axis, (title, values) in zip(line[1:], maps.items(), strict=True):
            axis.imshow(np.squeeze(values), cmap="viridis", vmin=0, vmax=1)
            axis.set_title(f"{title}: mean {np.mean(values):.3f}")
            axis.axis("off")
    return _webp(figure)


def fsim_features() -> bytes:
    """What FSIM compares: phase congruency and gradient magnitude."""
    images = scene()
    chosen = ("clean", "noisy", "Gaussian, σ 2 px")
    figure, axes = plt.subplots(2, len(chosen), figsize=(7.5, 5.2))
    for column, name in zip(axes.T, chosen, strict=True):
        held = features(_tensor(images[name]), data_range=255.0)
        for axis, what in zip(column, ("phase congruency", "gradient magnitude"), strict=True):
            values = held.phase_congruency if what == "phase congruency" else held.gradient
            axis.imshow(np.squeeze(values.numpy()), cmap="magma", vmin=0)
            axis.set_title(f"{name}: {what}")
            axis.axis("off")
    return _webp(figure)


def blur() -> bytes:
    """Every metric over the σ of a Gaussian that is laid over the noisy image."""
    images = scene()
    clean, noisy = images["clean"], images["noisy"]
    candidates = [_blurred(noisy, s) for s in _SIGMAS]
    curves = {
        "PSNR, dB (higher is better)": [semnr.psnr(c, clean) for c in candidates],
        "SSIM (higher is better)": [semnr.ssim(c, clean) for c in candidates],
        "FSIM (higher is better)": [semnr.fsim(c, clean) for c in candidates],
        "fixed-noise CNR (higher is better)": _fixed_cnr(candidates),
        "evidence transfer T (best near 1)": [_transfer(c) for c in candidates],
        "DISTS (lower is better)": _dists(candidates, clean),
    }
    figure, axes = plt.subplots(2, 3, figsize=(10, 5), sharex=True)
    for axis, (name, values) in zip(axes.flat, curves.items(), strict=True):
        if values is None:
            axis.text(0.5, 0.5, "no weights here:\nsemnr weights fetch vgg16", ha="center", transform=axis.transAxes)
        else:
            axis.plot(_SIGMAS, np.asarray(values, dtype=float), marker=".")
        axis.set_title(name)
    for axis in axes[1]:
        axis.set_xlabel("σ of the Gaussian, px")
    return _svg(figure)


def cnr() -> bytes:
    """CNR over the image's own noise, and over the noise of the input."""
    images = scene()
    clean, noisy = images["clean"], images["noisy"]
    candidates = [_blurred(noisy, s) for s in _SIGMAS]
    figure, axis = plt.subplots(figsize=(6, 3.2))
    own = [float(semnr.cnr(c, clean)) for c in candidates]
    fixed = _fixed_cnr(candidates)
    axis.plot(_SIGMAS, np.array(own) / own[0], marker=".", label="own noise (`two_roi`)")
    axis.plot(_SIGMAS, np.array(fixed) / fixed[0], marker=".", label="noise of the input (`fixed_noise`)")
    axis.set_xlabel("σ of the Gaussian, px")
    axis.set_ylabel("CNR over that of the noisy image")
    axis.legend()
    return _svg(figure)


def residual() -> bytes:
    """A place that was wiped: denoised image, residual in σ of the noise, evidence map with the mark."""
    images = scene()
    noisy, candidate = images["noisy"], images["a place wiped"]
    found = semnr.residual_tests(noisy, candidate, return_maps=True)
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.9))
    _image(axes[0], noisy, "noisy")
    _image(axes[1], candidate, "denoised")
    difference = noisy.astype(float) - candidate
    reach = 4 * difference.std()
    axes[2].imshow(difference, cmap="RdBu", vmin=-reach, vmax=reach)
    axes[2].set_title("residual: noisy − denoised")
    assert found.maps is not None
    axes[3].imshow(np.abs(found.maps["evidence"][0]), cmap="magma", vmin=0)
    axes[3].set_title(f"evidence, |z| (limit {found.threshold[0]:.1f})")
    for axis in axes[2:]:
        axis.axis("off")
        for box in found.boxes[0]:
            side = box["width"] + 8
            corner = (box["col"] - side / 2, box["row"] - side / 2)
            axis.add_patch(plt.Rectangle(corner, side, side, fill=False, edgecolor="lime", linewidth=1.5))
    return _webp(figure)


def _terms(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The maps of the three terms, by the formula, in float64; tests hold their means to `components=True`."""
    x, y = x.astype(float), y.astype(float)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def mean(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.5, radius=5)[5:-5, 5:-5]

    mx, my = mean(x), mean(y)
    vx, vy = (np.maximum(mean(v * v) - m * m, 0) for v, m in ((x, mx), (y, my)))
    sx, sy, both = np.sqrt(vx), np.sqrt(vy), mean(x * y) - mx * my
    return {
        "luminance": (2 * mx * my + c1) / (mx**2 + my**2 + c1),
        "contrast": (2 * sx * sy + c2) / (vx + vy + c2),
        "structure": (both + c2 / 2) / (sx * sy + c2 / 2),
    }


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.clip(np.rint(gaussian_filter(image.astype(float), sigma)), 0, 255).astype(np.uint8)


def _transfer(candidate: np.ndarray) -> float:
    images = scene()
    return float(semnr.evidence(images["noisy"], candidate, images["clean"]).transfer[0, 0])


def _fixed_cnr(candidates: list[np.ndarray]) -> list[float]:
    images = scene()
    return [float(semnr.cnr(c, images["clean"], kind="fixed_noise", noise=images["noisy"])) for c in candidates]


def _dists(candidates: list[np.ndarray], clean: np.ndarray) -> list[float] | None:
    try:
        return [float(semnr.dists(c, clean)) for c in candidates]
    except semnr.WeightsUnavailable:
        return None


def _tensor(image: np.ndarray):
    import torch

    return torch.from_numpy(image)[None, None].float()


def _image(axis: plt.Axes, image: np.ndarray, title: str) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    axis.set_title(title)
    axis.axis("off")


def _webp(figure: plt.Figure) -> bytes:
    held = io.BytesIO()
    figure.tight_layout()
    figure.savefig(held, format="webp", dpi=110, bbox_inches="tight", pil_kwargs={"quality": 82})
    plt.close(figure)
    return held.getvalue()


def _svg(figure: plt.Figure) -> bytes:
    held = io.BytesIO()
    figure.tight_layout()
    figure.savefig(held, format="svg", metadata={"Date": None})
    plt.close(figure)
    return held.getvalue()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in all_of_them().items():
        (folder / name).write_bytes(content)
        print(name, len(content))
