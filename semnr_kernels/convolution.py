"""Convolutions with fixed weights in the precision of their dtype, whatever torch's global switches are.

On a GPU cuDNN rounds the operands of float32 convolutions to ten bits (TF32) unless a switch of the whole process is
off. Here it is told with each call, forward and backward, and nobody else's convolutions change.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F


def conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
    groups: int = 1,
) -> torch.Tensor:
    """As torch's; the gradient goes to `x` alone."""
    pads = (padding, padding) if isinstance(padding, int) else padding
    if x.is_cpu:
        return F.conv2d(x, weight, bias, stride, pads, groups=groups)
    made: torch.Tensor = _Exact.apply(x, weight, bias, None, (stride, pads, groups))
    return made


def conv2d_relu(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: tuple[int, int] = (1, 1)
) -> torch.Tensor:
    """A convolution of 16-bit floats with its bias and its ReLU: one launch where cuDNN offers it. No gradient."""
    if x.is_cuda and fuses(x.get_device(), x.dtype):
        made: torch.Tensor = torch.cudnn_convolution_relu(x, weight, bias, (1, 1), padding, (1, 1), 1)
        return made
    return F.relu_(F.conv2d(x, weight, bias, 1, padding))


@functools.cache
def fuses(index: int, dtype: torch.dtype) -> bool:
    """Whether cuDNN has that convolution on a device: the least one was launched there."""
    if torch.version.hip is not None or not torch.backends.cudnn.is_available():
        return False
    try:
        x, weight = (
            torch.zeros((8, 8, 3, 3), dtype=dtype, device=f"cuda:{index}").contiguous(memory_format=torch.channels_last)
            for _ in range(2)
        )
        torch.cudnn_convolution_relu(x, weight, weight.new_zeros(8), (1, 1), (1, 1), (1, 1), 1)
    except (RuntimeError, AttributeError):
        return False
    return True


def rounded() -> bool:
    """Whether torch's own float32 convolutions on a GPU round their operands to ten bits, as they do by default."""
    switches = getattr(torch.backends.cudnn, "conv", None)  # torch 2.9 and later
    return (torch.backends.cudnn.allow_tf32 if switches is None else switches.fp32_precision) not in ("ieee", False)


def matmul_rounded() -> bool:
    """Whether torch's float32 matrix products on a GPU round their operands to ten bits: not unless somebody asks."""
    precision = getattr(torch.backends.cuda.matmul, "fp32_precision", None)  # torch 2.9 and later
    if precision is None:
        return bool(torch.backends.cuda.matmul.allow_tf32)
    return precision not in ("ieee", "none")


class _Exact(torch.autograd.Function):
    """A convolution, or with `size` its adjoint that gives an image of that size: each is the other's gradient, to any
    order.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        size: tuple[int, int] | None,
        options: tuple[int, tuple[int, int], int],
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.options, ctx.back = tuple(x.shape[-2:]), options, size is None
        stride, pads, groups = options
        more = [0, 0]
        if size is not None:  # what the stride left over at the far edge
            kernel = weight.shape[-2:]
            more = [size[i] - ((x.shape[2 + i] - 1) * stride - 2 * pads[i] + kernel[i]) for i in (0, 1)]
        cudnn = torch.backends.cudnn
        return torch._convolution(  # type: ignore[no-any-return,attr-defined]
            x, weight, bias, [stride, stride], list(pads), [1, 1], size is not None, more, groups,
            cudnn.benchmark, cudnn.deterministic, cudnn.enabled, False,
        )  # fmt: skip

    @staticmethod
    def backward(ctx: Any, by: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return _Exact.apply(by, weight, None, ctx.size if ctx.back else None, ctx.options), *(None,) * 4
