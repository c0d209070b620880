# %% [markdown]
# # Train a denoiser by profile loss, and by PSNR alone
#
# Two copies of one small network learn from the same pairs of noisy and clean tiles. One minimises the squared error,
# which is the same as maximising PSNR. The other minimises a profile loss: an absolute error plus SSIM and FSIM. Then
# both are judged by the guardrails on tiles that neither has seen.
#
# The networks are small and trained for a short time, so do not expect that one of them passes. What counts here is
# what differs, and what the guardrails say about it: a better PSNR is not the same as less lost structure.
#
# `semnr train denoiser` is the real training: a larger network, more data, terms of evidence, and no model that a
# rule fires on.

# %%
import numpy as np
import torch
from torch import nn

import semnr
from common import need, row, settings, show

need("matplotlib")
given = settings()
side, train, test, steps = (64, 12, 6, 40) if given.small else (64, 96, 12, 400)


def tiles(count, first_seed):
    """Noisy and clean tiles as uint8 arrays (count, side, side): lines, holes and vias in turn."""
    made = [semnr.synth.tile(("lines", "holes", "vias")[i % 3], side, seed=first_seed + i) for i in range(count)]
    return np.stack([t.noisy(dtype="uint8") for t in made]), np.stack([t.reference("uint8") for t in made])


class Small(nn.Module):
    """The noise is estimated and removed: a residual network of five convolutions."""

    def __init__(self, width=24):
        super().__init__()
        inner = [layer for _ in range(3) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU())]
        first, last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.layers = nn.Sequential(first, nn.ReLU(), *inner, last)

    def forward(self, noisy):
        return noisy - self.layers(noisy)


def trained(loss):
    """A network trained with this loss; the same start and the same batches for each loss."""
    torch.manual_seed(0)
    network = Small()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        chosen = torch.randint(train, (8,))
        optimiser.zero_grad()
        loss(network(noisy[chosen]), clean[chosen]).backward()
        optimiser.step()
        schedule.step()
    return network


def denoised(network, images):
    with torch.no_grad():
        made = network(torch.from_numpy(images / np.float32(255))[:, None]).clamp(0, 1)
    return (255 * made[:, 0]).round().byte().numpy()


# %%
noisy, clean = (torch.from_numpy(images / np.float32(255))[:, None] for images in tiles(train, 1000))
losses = {
    "PSNR alone": nn.MSELoss(),
    "profile loss": semnr.losses.ProfileLoss({"charbonnier": 1.0, "ssim": 0.3, "fsim": 0.3}, data_range=1.0),
}
networks = {name: trained(loss) for name, loss in losses.items()}

# %%
seen_noisy, seen_clean = tiles(test, 1)
candidates = {name: denoised(network, seen_noisy) for name, network in networks.items()}
candidates["Gaussian, σ 1.5 px"] = semnr.denoise(seen_noisy, model="gaussian", sigma=1.5)
for name, images in candidates.items():
    profile = semnr.profile(images[:, None], seen_clean[:, None], metrics=("psnr", "ssim", "fsim"))
    transfer = semnr.evidence(seen_noisy[:, None], images[:, None], seen_clean[:, None]).transfer.mean()
    scores = ", ".join(f"{metric.upper()} {np.mean(profile.column(metric)):.3f}" for metric in ("psnr", "ssim", "fsim"))
    verdict = semnr.check(seen_noisy, images, reference=seen_clean)
    fired = ", ".join(signal.name for signal in verdict.fired) or "nothing"
    print(f"{name}: {scores}, T {transfer:.2f}; {verdict.outcome}, fired: {fired}")

# %%
shown = {"noisy": seen_noisy[0], "clean": seen_clean[0], **{name: images[0] for name, images in candidates.items()}}
show(row(shown, vmin=0, vmax=255), "train_denoiser", given.out)
improved = [np.mean(semnr.psnr(i[:, None], seen_clean[:, None], reduction="none")) for i in candidates.values()]
assert min(improved) > np.mean(semnr.psnr(seen_noisy[:, None], seen_clean[:, None], reduction="none"))
