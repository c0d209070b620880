"""Similarity of Scharr gradients, FSIM's second term: the contract (checks, choice of backend). See README.md."""

from __future__ import annotations

import math

import torch

from .. import _checks, _library, _registry
from ..fsim.reference import T2
from . import native, reference
from .reference import GradientSimilarity

_registry.register("gradient", "reference", reference.similarity)
_registry.register_native("gradient", native.similarity, native.supports, native.UNSUPPORTED)

__all__ = ["GradientSimilarity", "gradient_similarity"]


@_library.node
def gradient_similarity(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    t2: float = T2,
    weight: torch.Tensor | None = None,
    want_map: bool = True,
    backend: str | None = "auto",
) -> GradientSimilarity:
    """Local similarity of the Scharr gradient magnitudes of two images, (2ab + T2) / (a² + b² + T2).

    Zhang, Zhang, Mou, Zhang, "FSIM", IEEE TIP 20(8), 2011, eq. 5. Differentiable in x, y and weight; at flat areas,
    where a magnitude has no derivative, its gradient is 0.

    Parameters
    ----------
    x, y : Tensor
        Candidate and reference, (N, C, H, W), floating, on the scale of `t2` (0-255 for FSIM); zero beyond the border.
    t2 : float
        Above 0.
    weight : Tensor, optional
        (N, C, H, W), of any floating dtype; its dtype becomes that of x.
    want_map : bool
        False, with a weight: the total alone, and no map is written.

    Returns
    -------
    GradientSimilarity
        `map`, of the shape of x: float64 from the reference, the dtype of x from "native"; `total`, (N, C) float64:
        the sum of weight · map, where there is a weight.

    Raises
    ------
    TypeError, ValueError
        The argument, what it was and what is accepted.
    """
    for name, value in {"x": x, "y": y, "weight": weight}.items():
        if value is None and name == "weight":
            continue
        image = _checks.as_image(name, value)  # type: ignore[arg-type]
        if image.dtype not in _checks.FLOAT_DTYPES:
            raise TypeError(f"{name} has dtype {_checks.dtype_name(image.dtype)}; accepted: a floating one")
        if image.ndim != value.ndim or value.shape != x.shape or value.device != x.device:  # type: ignore[union-attr]
            raise ValueError(
                f"{name} has shape {tuple(value.shape)} on {value.device}; "  # type: ignore[union-attr]
                f"accepted: (N, C, H, W), as x, {tuple(x.shape)} on {x.device}"
            )
    if x.dtype != y.dtype:
        raise TypeError(
            f"x has dtype {_checks.dtype_name(x.dtype)} and y {_checks.dtype_name(y.dtype)}; accepted: the same dtype"
        )
    if not math.isfinite(t2) or t2 <= 0:
        raise ValueError(f"t2 is {t2}; accepted: a finite number above 0")
    if weight is None and not want_map:
        raise ValueError("want_map is False without weight; accepted: a weight, a map, or both")
    others = (y,) if weight is None else (y, weight)
    call = _registry.Call.of("gradient", x, *others)
    return _registry.choose(call, backend).run(x, y, weight, constant=float(t2), want_map=want_map)  # type: ignore[no-any-return]
