"""The fit of the noise law to windows of images: the contract (choice of backend). The formulas are in README.md."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import registry
from ..noise_law import Ends, Fitted, Spacing, ends_of, step_of
from . import native, on_device, reference

registry.register("noise", "reference", reference.fit)
registry.register("noise", "torch", on_device.fit)
registry.register_triton("noise", "fit")
registry.register_native("noise", native.fit, native.supports, native.UNSUPPORTED)

__all__ = ["Ends", "Fitted", "Spacing", "ends_of", "fit", "step_of"]


def fit(sets: Sequence[Sequence[torch.Tensor]], ends: Sequence[Ends], backend: str | None = "auto") -> list[Fitted]:
    """One law, variance = gain · level + offset, for each set of windows.

    Parameters
    ----------
    sets : sequence of sequences of (H, W) tensors
        Windows of at least 5 x 5 finite pixels on the CPU, scan lines as rows, of one dtype.
    ends : sequence of Ends
        Where the scale of each set ends.

    Returns
    -------
    list of Fitted
    """
    call = registry.Call.of("noise", sets[0][0])
    return registry.choose(call, backend).run(sets, ends)  # type: ignore[no-any-return]
