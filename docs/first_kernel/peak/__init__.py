"""The contract: checks, choice of the backend before the launch, reduction. See docs/first-kernel.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from semnr_kernels import checks, library, outputs, registry

from . import native, reference

registry.register("peak", "reference", reference.peak)
registry.register_native("peak", native.peak, native.supports, native.UNSUPPORTED)


def _prepare(a: Mapping[str, Any]) -> tuple[checks.Pair, registry.Call]:
    checked = checks.pair_of(a, data_range=1.0)  # a difference in grey levels has no scale
    return checked, registry.Call.of("peak", checked.x, checked.y)


@library.op(outputs=outputs.scores_alone, call=lambda a: _prepare(a)[1])
def peak(
    x: torch.Tensor, y: torch.Tensor, *, reduction: str = "mean", nan: str = "error", backend: str | None = "auto"
) -> torch.Tensor:
    """The largest absolute difference of each image, in grey levels."""
    checked, call = _prepare(locals())
    rows = registry.choose(call, backend).run(checked.x, checked.y)
    checks.refuse_nonfinite(checked, rows)
    return checks.reduce(rows, reduction, checked)
