# %% [markdown]
# # Invert a small trained generator by SSIM + L1
#
# A generator makes images from a few numbers, its latent code. To *invert* it means to find the code of a given
# image. The search needs a distance that says whether the code gets better. Here it is SSIM + L1, and squared error
# for comparison. On this simple scene both find most codes; the worst of the eight images shows the difference, in
# either direction, from seed to seed.
#
# The generator is trained here, on images of lines with random width and position. Every training image has a code of
# its own that is learned with the network (generative latent optimisation, Bojanowski et al. 2018).

# %%
import torch
from torch import nn

import semnr
from common import need, row, settings, show

need("matplotlib")
given = settings()
side, count, epochs, search = (32, 64, 90, 20) if given.small else (32, 192, 240, 60)
torch.manual_seed(0)


def lines(width, offset):
    """Lines of a width at an offset (in px, pitch 16) with soft edges, as (N, 1, side, side) in 0 to 1."""
    x = torch.arange(side)[None, :]
    distance = ((x - offset[:, None] + 8) % 16 - 8).abs()
    profile = torch.sigmoid((width[:, None] / 2 - distance) / 0.8)
    return (0.2 + 0.6 * profile)[:, None, None, :].expand(-1, 1, side, side).contiguous()


class Generator(nn.Module):
    """Four numbers in, an image out."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 128), nn.SiLU(), nn.Linear(128, 16 * 64), nn.SiLU())
        self.last = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(16, 16, 3, padding=1), nn.SiLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(16, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, code):
        return torch.sigmoid(self.last(self.first(code).view(-1, 16, 8, 8)))


# %%
width, offset = 5 + 5 * torch.rand(count), 16 * torch.rand(count)
images = lines(width, offset)
generator = Generator()
codes = nn.Parameter(torch.randn(count, 4))
structure = semnr.losses.SSIMLoss(data_range=1.0)


def distance(made, wanted):
    return 0.5 * structure(made, wanted) + (made - wanted).abs().mean()


optimiser = torch.optim.Adam([{"params": generator.parameters(), "lr": 3e-3}, {"params": [codes], "lr": 3e-2}])
for epoch in range(1, epochs + 1):
    chosen = torch.randperm(count)[:16]
    optimiser.zero_grad()
    value = distance(generator(codes[chosen]), images[chosen])
    value.backward()
    optimiser.step()
    if epoch % (epochs // 3) == 0:
        print(f"training, step {epoch}: SSIM + L1 loss {value.item():.3f}")

# %%
# invert: eight new images, searched from several codes each, by SSIM + L1 and by squared error
generator.requires_grad_(False)
new = lines(5 + 5 * torch.rand(8), 16 * torch.rand(8))
starts = codes.detach()[torch.randint(count, (3 if given.small else 6, 8))]
losses = {"SSIM + L1": distance, "squared error": lambda made, wanted: ((made - wanted) ** 2).mean()}
found = {}
for name, loss in losses.items():
    best, best_value = None, torch.full((8,), float("inf"))
    for start in starts:
        code = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([code], lr=0.05)
        for _ in range(search):
            optimiser.zero_grad()
            loss(generator(code), new).backward()
            optimiser.step()
        with torch.no_grad():
            made = generator(code)
            value = torch.stack([loss(made[i : i + 1], new[i : i + 1]) for i in range(8)])
            better = value < best_value
            best = made if best is None else torch.where(better[:, None, None, None], made, best)
            best_value = torch.minimum(value, best_value)
    found[name] = best
    scores = semnr.ssim(best, new, data_range=1.0, reduction="none")
    print(f"inverted by {name:14s}: SSIM {scores.mean():.3f}, worst of eight {scores.min():.3f}")

# %%
pictures = {"wanted": new[0, 0], **{f"by {name}": made[0, 0] for name, made in found.items()}}
show(row(pictures, vmin=0, vmax=1), "invert_generator", given.out)
assert float(semnr.ssim(found["SSIM + L1"], new, data_range=1.0)) > 0.7
