"""Metrics that say whether a denoised SEM image can still be trusted.

`x` is always the candidate (the denoised image) and `y` the reference. Images are NumPy arrays or torch tensors of
shape (H, W), (C, H, W) or (N, C, H, W). Everything here is imported on first use, so that `import semnr` and
`semnr --help` load no torch. docs/api.md in the repository lists what is public.

Examples
--------
All examples of the documentation use these images, each (128, 128) uint8:

>>> import numpy as np
>>> import semnr
>>> site = semnr.synth.tile("lines", 128, seed=1)  # a synthetic site of lines, its truth known
>>> clean = site.reference("uint8")
>>> noisy = site.noisy(dtype="uint8")
>>> second = site.noisy(dtype="uint8", frame=1)  # another frame of the same site
>>> denoised = semnr.denoise(noisy, model="gaussian")

>>> print(f"{semnr.psnr(noisy, clean):.1f} dB before, {semnr.psnr(denoised, clean):.1f} dB after")
23.3 dB before, 30.7 dB after
>>> print(semnr.evidence(noisy, denoised, clean))
evidence transfer against reference, 1 tile(s)
  band 1-4 px: T mean 0.781, lowest 0.781; 1 known, 0 unknown

PSNR rose by 7 dB, and the transfer T says that a fifth of the fine structure is gone.
"""

import lazy_loader

__version__ = "0.1.0"

# The names and their modules stand in __init__.pyi, for type checkers too.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
