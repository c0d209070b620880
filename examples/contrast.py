# %% [markdown]
# # A change of 20 % in L2 that is 98.5 % similar in SSIM
#
# The contrast of an image is raised by 20 % about its mean. The relative L2 difference (of the image without its
# mean) is then exactly 20 %, a large number. SSIM says that the images are 98.5 % similar: the structure is the same.
#
# Which of the two is right depends on the question. For somebody who looks for defects nothing was lost. For somebody
# who classifies materials by grey level the image is wrong. So look at the three terms of SSIM, and at `gain_change`
# of a run.

# %%
import numpy as np

import semnr
from common import need, row, settings, show

need("matplotlib")
given = settings()
clean = semnr.synth.tile("vias", 256, seed=1).reference("float64")
clean = 0.11 + 0.71 * (clean - clean.min()) / (clean.max() - clean.min())
changed = clean.mean() + 1.2 * (clean - clean.mean())

# %%
l2 = np.linalg.norm(changed - clean) / np.linalg.norm(clean - clean.mean())
result = semnr.ssim(changed, clean, data_range=1.0, components=True, return_map=True)
terms = {name: float(np.mean(values)) for name, values in result.components.items()}
print(f"relative L2 difference {100 * l2:.1f} %, PSNR {float(semnr.psnr(changed, clean, data_range=1.0)):.1f} dB")
print(f"SSIM {float(np.mean(result.value)):.4f}")
for name, value in terms.items():
    print(f"  {name:20s} {value:.4f}")

# %% [markdown]
# The contrast term is 2 · 1.2 / (1 + 1.2²) = 0.984 where the window has structure, and nearly 1 where it is flat,
# because of the constant C2. The luminance term falls too: a bright area became brighter and a dark one darker.
# The structure term is 1: no structure was lost.

# %%
show(row({"clean": clean, "contrast + 20 %": changed}, vmin=0, vmax=1), "contrast", given.out)
show(row({"SSIM map": np.squeeze(result.map)}, cmap="viridis", vmin=0.9, vmax=1), "contrast_map", given.out)
assert abs(l2 - 0.2) < 1e-9
assert abs(float(np.mean(result.value)) - 0.985) < 0.0025
