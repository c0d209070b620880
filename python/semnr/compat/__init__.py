"""Other libraries' names, signatures, defaults, return types and exceptions over semnr's kernels: change one import.

`semnr.compat.piq`, `semnr.compat.skimage`, `semnr.compat.torchmetrics` and `semnr.compat.pytorch_msssim` hold the full
reference metrics of these libraries that semnr has too. None of them imports its peer; the classes of
`semnr.compat.torchmetrics` alone need torchmetrics' base class `Metric`. docs/compat.md has the names and, in one
table, what differs.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
