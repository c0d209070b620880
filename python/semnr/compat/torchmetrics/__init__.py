"""torchmetrics' names for SSIM, MS-SSIM, PSNR, DISTS: `.functional`, `.functional.image` and `.image` as there.

Functions are in `semnr.compat.torchmetrics.functional.image` and need no torchmetrics; the classes of
`semnr.compat.torchmetrics.image` are torchmetrics' `Metric`s and do.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
