"""Convolutions with frozen weights on the CPU: oneDNN's, or Winograd's filtering where that multiplies less.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (csrc/winograd). A square of 6 x 6 values
gives 4 x 4 outputs of 3 x 3 taps or 2 x 2 of 5 x 5: 36 multiplications a pair of channels in place of 144 or 100. In
float32 an output's rounding error is about twice that of the direct sum. Bfloat16 goes the same way where the CPU has
AVX-512 BF16 and no AMX: products in bfloat16, transforms and sums in float32.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import ModuleType

import torch
import torch.nn.functional as F

from . import native_support

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)  # and infinity: where Winograd multiplies polynomials
SHARES = (1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24)  # of each point in Lagrange's interpolation
SIDE = len(POINTS) + 1  # of a square
PAYS = 1.5  # times as many direct multiplications: from there on Winograd's are faster
AVERAGES = 1024  # positions of a map from which on bfloat16 goes this way: what its rounding adds is averaged over them
_ONE = (1, 1)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A layer with its bias and, where wanted, its ReLU; channels-last maps in, channels-last maps out."""

    weight: torch.Tensor  # (outputs, inputs, taps, taps)
    bias: torch.Tensor
    stride: int
    padding: int  # that of the whole image
    usual: int  # pixels a side of a usual input: oneDNN's order of weights hardly depends on it

    def __call__(
        self, h: torch.Tensor, padding: tuple[int, int], rectified: bool, module: ModuleType | None
    ) -> torch.Tensor:
        """Of (N, inputs, h, w); padding: zeros down and across; module: compiled kernels, None for torch's alone."""
        if module is not None and self._suits_winograd(module) and self._pays(h, padding):
            return self._winograd(h, padding, rectified, module)
        stride = (self.stride, self.stride)
        if packs(self.weight.dtype):  # one call for a convolution and its ReLU, weights in the order it reads them
            relu = "relu" if rectified else "none"
            return torch.ops.mkldnn._convolution_pointwise(
                h, self._packed, self.bias, padding, stride, _ONE, 1, relu, [], ""
            )
        made = F.conv2d(h, self._packed, self.bias, stride=self.stride, padding=padding)
        return F.relu_(made) if rectified else made

    @functools.cached_property
    def _packed(self) -> torch.Tensor:
        """The weights as oneDNN reads them, made when first asked for."""
        with torch.inference_mode(False), torch.no_grad():
            weight = self.weight.contiguous(memory_format=torch.channels_last)
            if not packs(weight.dtype):
                return weight
            pads, stride = (self.padding, self.padding), (self.stride, self.stride)
            shape = (1, weight.shape[1], self.usual, self.usual)
            return torch.ops.mkldnn._reorder_convolution_weight(weight, pads, stride, _ONE, 1, shape)

    @functools.cached_property
    def _transformed(self) -> torch.Tensor:
        """The weights at Winograd's 36 points, (36, outputs / panel, inputs, panel), when first asked for."""
        outputs, inputs, taps, _ = self.weight.shape
        panel = native_support.module().WINOGRAD_PANEL
        with torch.inference_mode(False), torch.no_grad():
            powers = [[share * point**i for i in range(taps)] for point, share in zip(POINTS, SHARES, strict=True)]
            ends = [0.0] * (taps - 1) + [1.0]
            to_points = torch.tensor([*powers, ends], dtype=torch.float64, device=self.weight.device)
            at_points = torch.einsum("pa,oiab,qb->pqio", to_points, self.weight.double(), to_points)
            made = at_points.reshape(SIDE**2, inputs, outputs // panel, panel).transpose(1, 2)
            if self.weight.dtype == torch.bfloat16:  # two neighbours along the inputs are multiplied at once
                made = made.unflatten(2, (inputs // 2, 2)).transpose(3, 4)
            return made.to(self.weight.dtype).contiguous()

    @functools.cached_property
    def _added(self) -> torch.Tensor:
        """The bias as Winograd's filtering adds it, float32."""
        with torch.inference_mode(False), torch.no_grad():
            return self.bias.float().contiguous()

    def _suits_winograd(self, module: ModuleType) -> bool:
        outputs, inputs, taps, across = self.weight.shape
        panel = module.WINOGRAD_PANEL
        shaped = self.stride == 1 and taps == across and taps in (3, 5) and inputs % panel == outputs % panel == 0
        fast = module.WINOGRAD_BFLOAT16 if self.weight.dtype == torch.bfloat16 else self.weight.dtype == torch.float32
        return shaped and fast and module.ISA != "baseline"

    def _pays(self, h: torch.Tensor, padding: tuple[int, int]) -> bool:
        """Whether an output of this size takes fewer multiplications (hardly filled squares do not), near enough."""
        taps = self.weight.shape[2]
        made = SIDE + 1 - taps
        height, width = (h.shape[2 + i] + 2 * padding[i] - taps + 1 for i in (0, 1))
        if self.weight.dtype == torch.bfloat16 and height * width < AVERAGES:
            return False
        squares = -(-height // made) * -(-width // made)
        return height * width * taps**2 >= PAYS * squares * SIDE**2

    def _winograd(self, h: torch.Tensor, padding: tuple[int, int], rectified: bool, module: ModuleType) -> torch.Tensor:
        h = h if h.stride(1) == 1 else h.contiguous(memory_format=torch.channels_last)
        outputs, _, taps, _ = self.weight.shape
        height, width = (h.shape[2 + i] + 2 * padding[i] - taps + 1 for i in (0, 1))
        out = torch.empty(
            (h.shape[0], outputs, height, width), dtype=h.dtype, device="cpu", memory_format=torch.channels_last
        )
        module.winograd(
            native_support.image(h),
            tuple(h.shape),
            native_support.image(out),
            outputs,
            taps,
            padding,
            native_support.address(self._transformed),
            native_support.address(self._added),
            rectified,
            torch.get_num_threads(),
            native_support.DTYPE_CODES[h.dtype],
        )
        return out


@functools.cache
def packs(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN's convolution with a ReLU, which torch.compile calls, for `dtype` on this CPU."""
    names = {
        torch.float32: "_convolution_pointwise",
        torch.bfloat16: "_is_mkldnn_bf16_supported",
        torch.float16: "_is_mkldnn_fp16_supported",
    }
    ops = torch.ops.mkldnn
    needed = ("_convolution_pointwise", "_reorder_convolution_weight", names.get(dtype, ""))
    if dtype not in names or not torch.backends.mkldnn.is_available() or not all(hasattr(ops, n) for n in needed):
        return False
    return dtype == torch.float32 or bool(getattr(ops, needed[-1])())
