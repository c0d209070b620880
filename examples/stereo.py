# %% [markdown]
# # Self-supervised disparity with SSIM and smoothness
#
# Two cameras (or two tilts of a stage) see one scene from two places. Each pixel of the left image is found in the
# right image, moved by its *disparity*. Nobody tells the true disparity: a field is good if it warps the right image
# into the left one. This is the loss of self-supervised depth (Godard et al. 2017): 0.85 · (1 − SSIM) / 2 + 0.15 ·
# L1, and a term that keeps the field smooth except at edges of the image.
#
# The pair is synthetic, so that the error of the field is known. The true field is not used for the fit.

# %%
import torch
from torch.nn import functional

import semnr
from common import need, row, settings, show

need("matplotlib")
given = settings()
side, steps = (96, 150) if given.small else (128, 240)
torch.manual_seed(0)


def warp(right, disparity):
    """The right image as the left camera would see it, if the disparity (in px) is right."""
    height, width = right.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = (columns - disparity[:, 0]) / (width - 1) * 2 - 1
    y = (rows / (height - 1) * 2 - 1).expand_as(x)
    return functional.grid_sample(right, torch.stack((x, y), -1), align_corners=True, padding_mode="border")


def smoothness(disparity, image):
    """Gradients of the field, where the image has none."""
    total = 0.0
    for axis in (2, 3):
        weight = torch.exp(-10 * torch.diff(image, dim=axis).abs())
        total = total + (weight * torch.diff(disparity, dim=axis).abs()).mean()
    return total


# %%
# a textured scene: two octaves of noise; a field with a hill of 3 px on a slope of 2 px
noise = [torch.rand(1, 1, n, n) for n in (side // 2, side // 6)]
octaves = [functional.interpolate(one, size=(side, side), mode="bicubic") for one in noise]
right = (sum(octaves) / 2).clamp(0, 1)
y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
truth = (1 + x + 3 * torch.exp(-(x**2 + y**2) / 0.15))[None, None]
left = warp(right, truth)

# %%
structure = semnr.losses.SSIMLoss(data_range=1.0)
field = torch.zeros_like(truth)
for coarse in (8, 4, 2, 1):  # from a coarse field to a fine one
    size = side // coarse
    field = functional.interpolate(field, size=(size, size), mode="bilinear", align_corners=True).requires_grad_()
    optimiser = torch.optim.Adam([field], lr=0.1)
    for _ in range(steps // 4):
        optimiser.zero_grad()
        disparity = functional.interpolate(field, size=(side, side), mode="bilinear", align_corners=True)
        seen = warp(right, disparity)
        photometric = 0.85 * structure(seen, left) / 2 + 0.15 * (seen - left).abs().mean()
        (photometric + 0.01 * smoothness(disparity, left)).backward()
        optimiser.step()
    field = field.detach()
    error = (disparity.detach() - truth).abs()[..., 8:-8, 8:-8]
    ssim = float(semnr.ssim(seen.detach(), left, data_range=1.0))
    print(f"field of {size:3d}²: warped image SSIM {ssim:.3f}, mean error {error.mean():.2f} px")

# %%
show(row({"left": left[0, 0], "right": right[0, 0], "warped": seen.detach()[0, 0]}), "stereo_images", given.out)
fields = {"true disparity, px": truth[0, 0], "found": disparity.detach()[0, 0]}
show(row(fields, cmap="viridis", vmin=0, vmax=5), "stereo_field", given.out)
before = truth[..., 8:-8, 8:-8].abs().mean()
print(f"mean error {error.mean():.2f} px; with no disparity at all it is {before:.2f} px")
assert error.mean() < 0.25 * before
