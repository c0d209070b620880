"""What ops return, known without the data: the parts that several of them share.

An op's own function puts them together (see `library.op`): the name of each output, in order, with a function that
gives its shape and dtype. Names are asked for while torch.compile traces, shapes only of tensors without data.
Arguments are those of the op's contract, by name; its images are `x`, (H, W), (C, H, W) or (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

Shape = tuple[tuple[Any, ...], torch.dtype]  # sizes may be torch's symbols
Outputs = dict[str, Callable[[], Shape]]
PARTS = ("value", "map", "coverage")  # of a Result; any other name is one of its components


def pick(result: Any, label: str) -> Any:
    """An output by its name, from what the contract returned."""
    if isinstance(result, torch.Tensor):
        return result
    return getattr(result, label) if label in PARTS else result.components[label]


def images(arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """(N,) of a batch, else ()."""
    x = arguments["x"]
    return tuple(x.shape[:1]) if x.ndim == 4 else ()


def scores(arguments: Mapping[str, Any], *names: str) -> Outputs:
    """Float64 numbers, one an image or, after a reduction, one."""

    def shape() -> Shape:
        return images(arguments) if arguments["reduction"] == "none" else (), torch.float64

    return {name: shape for name in names}


def scores_alone(arguments: Mapping[str, Any]) -> Outputs:
    """Of an op that returns nothing else."""
    return scores(arguments, "value")


def with_parts(arguments: Mapping[str, Any], more: Outputs) -> Outputs:
    """The score, `more`, and beside these the share of valid pixels of each image, where there is a mask or may be."""
    parts = scores(arguments, "value") | more
    omits = arguments["nan"] == "omit" and arguments["x"].is_floating_point()
    if more and (arguments["mask"] is not None or omits):
        parts["coverage"] = lambda: (images(arguments) or (1,), torch.float64)
    return parts


def single_plane(arguments: Mapping[str, Any], height: Any, width: Any) -> Shape:
    """A map of one channel, float64 for float64 images, else float32."""
    x = arguments["x"]
    lead = (*images(arguments), 1)[: x.ndim - 2]
    return (*lead, height, width), torch.float64 if x.dtype == torch.float64 else torch.float32
