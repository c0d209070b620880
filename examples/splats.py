# %% [markdown]
# # Fit 2-D Gaussian splats with L1 + SSIM
#
# Gaussian splatting (Kerbl et al. 2023) describes a scene by soft ellipses and fits them with (1 − λ) · L1 + λ · (1 −
# SSIM), λ = 0.2. This is the same in two dimensions: each splat has a position, two sizes, an angle and a brightness.
# L1 alone is compared with L1 + SSIM at the same number of steps.

# %%
import torch

import semnr
from common import need, row, settings, show

need("matplotlib")
given = settings()
side, count, steps = (48, 40, 80) if given.small else (64, 100, 200)
target = torch.from_numpy(semnr.synth.tile("holes", side, seed=5, pitch_nm=24.0).reference("float32"))[None, None]
rows, columns = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")


def render(splats):
    """The sum of all splats on a background, (1, 1, side, side)."""
    dy, dx = rows[None] - splats["y"][:, None, None], columns[None] - splats["x"][:, None, None]
    cos, sin = splats["angle"].cos()[:, None, None], splats["angle"].sin()[:, None, None]
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    long, wide = splats["size"].exp()[:, 0, None, None], splats["size"].exp()[:, 1, None, None]
    shape = torch.exp(-0.5 * ((u / long) ** 2 + (v / wide) ** 2))
    return (splats["background"] + (splats["level"][:, None, None] * shape).sum(0))[None, None]


def fit(weight):
    """Splats fitted with this weight of 1 − SSIM."""
    torch.manual_seed(0)
    splats = {
        "y": side * torch.rand(count),
        "x": side * torch.rand(count),
        "angle": 3 * torch.rand(count),
        "size": torch.full((count, 2), 1.0),
        "level": torch.zeros(count),
        "background": target.mean(),
    }
    splats = {name: value.clone().requires_grad_() for name, value in splats.items()}
    rates = {"y": 0.3, "x": 0.3, "angle": 0.05, "size": 0.03, "level": 0.02, "background": 0.01}
    optimiser = torch.optim.Adam([{"params": [value], "lr": rates[name]} for name, value in splats.items()])
    structure = semnr.losses.SSIMLoss(data_range=1.0)
    for _ in range(steps):
        optimiser.zero_grad()
        image = render(splats)
        ((1 - weight) * (image - target).abs().mean() + weight * structure(image, target)).backward()
        optimiser.step()
    return render(splats).detach()


# %%
fitted = {"L1": fit(0.0), "L1 + SSIM": fit(0.2)}
for name, image in fitted.items():
    psnr, ssim = semnr.psnr(image, target, data_range=1.0), semnr.ssim(image, target, data_range=1.0)
    print(f"{name:10s} PSNR {float(psnr):.2f} dB, SSIM {float(ssim):.4f}")

# %%
shown = {"target": target[0, 0], **{name: image[0, 0] for name, image in fitted.items()}}
show(row(shown, vmin=0, vmax=1), "splats", given.out)
assert semnr.ssim(fitted["L1 + SSIM"], target, data_range=1.0) > semnr.ssim(fitted["L1"], target, data_range=1.0)
