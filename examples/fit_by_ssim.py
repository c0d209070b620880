# %% [markdown]
# # Fit an image by SSIM alone
#
# A loss that can be optimised has a gradient at every image, also at one that has nothing in common with the target.
# Here an image of random noise becomes the target by gradient descent on `1 − SSIM`, without any squared error.
#
# SSIM looks at windows of 11 px. It cares little about the absolute brightness of a flat area, so this part of the
# image comes last.

# %%
import torch

import semnr
from common import need, row, settings, show

need("matplotlib")
given = settings()
steps = 60 if given.small else 400
torch.manual_seed(0)

# %%
target = torch.from_numpy(semnr.synth.tile("holes", 96, seed=3).reference("float32"))[None, None]
image = torch.rand_like(target).requires_grad_()
loss = semnr.losses.SSIMLoss(data_range=1.0)
optimiser = torch.optim.Adam([image], lr=0.05)
shown = {"target": target[0, 0], "start": image.detach().clone()[0, 0]}
for step in range(1, steps + 1):
    optimiser.zero_grad()
    value = loss(image, target)
    value.backward()
    optimiser.step()
    with torch.no_grad():
        image.clamp_(0, 1)
    if step in (steps // 10, steps):
        shown[f"after {step} steps"] = image.detach().clone()[0, 0]
        psnr = float(semnr.psnr(image.detach(), target, data_range=1.0))
        print(f"step {step:3d}: SSIM {1 - value.item():.4f}, PSNR {psnr:.1f} dB")

# %%
show(row(shown, vmin=0, vmax=1), "fit_by_ssim", given.out)
final = float(semnr.ssim(image.detach(), target, data_range=1.0))
print(f"SSIM at the end: {final:.4f}")
assert final > 0.9
