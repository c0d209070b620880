"""DISTS with a 16-bit network on a GPU: channels last from the first convolution to the last sum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import mock_gpu
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import backends
import cases
from semnr_kernels import convolution
from semnr_kernels.dists import against, dists, features, load, triton_kernel, triton_last
from semnr_kernels.dists.network import l2_pool, network_for
from semnr_kernels.dists.score import Settings
from semnr_kernels.dists.weights import CHANNELS

RANDOM = {"weights": "random", "data_range": 1.0}
NARROW = {torch.bfloat16: 5e-4, torch.float16: 5e-5}  # of float32, as test_dists.py has them for the other backends
LAST = torch.channels_last


def pair(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = (torch.from_numpy(v).float()[None, None] for v in cases.noisy_pair(height, width, seed=3))
    return x, y


# --- the kernels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 64, 9, 13), torch.bfloat16),
        ((2, 5, 7, 6), torch.float16),
        ((1, 512, 2, 2), torch.float32),
        ((1, 3, 40, 300), torch.float32),
    ],
    ids=str,
)
def test_triton_statistics_of_either_layout_are_the_same(
    shape: tuple[int, ...], dtype: torch.dtype, shared: bool
) -> None:
    backends.require("dists", "triton-interpret")
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(shape, generator=generator).to(dtype) for _ in range(2))
    share = torch.rand((shape[0], 1, *shape[2:]), generator=generator).double() if shared else None
    lasts = [v.contiguous(memory_format=LAST) for v in (x, y)]
    assert triton_last.is_last(lasts[0])
    found = triton_kernel.statistics(*lasts, share)
    torch.testing.assert_close(found, triton_kernel.statistics(x, y, share), rtol=1e-12, atol=1e-13)
    # a map that lies otherwise is brought to the layout of the first
    torch.testing.assert_close(triton_kernel.statistics(lasts[0], y, share), found, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(1, 64, 9, 13), (2, 5, 8, 6), (1, 512, 2, 2), (1, 3, 1, 1)], ids=str)
def test_triton_pooling_keeps_the_layout_and_the_values(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    backends.require("dists", "triton-interpret")
    h = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = triton_kernel.l2_pool(h.contiguous(memory_format=LAST), torch.float32)
    assert found.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(found, triton_kernel.l2_pool(h, torch.float32), rtol=0, atol=0)
    torch.testing.assert_close(found, l2_pool(h, torch.float32))


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_triton_distance_is_within_the_bound_of_float32_whole_in_pieces_and_against_kept_maps(
    dtype: torch.dtype,
) -> None:
    backends.require("dists", "triton-interpret")
    x, y = pair(36, 44)
    wanted = dists(x, y, **RANDOM, backend="reference").item()
    options = {"dtype": dtype, "backend": "triton-interpret"}
    kept = features(y, **RANDOM, **options)
    assert all(m.is_contiguous(memory_format=LAST) for m in kept.maps[1:])
    found = (
        dists(x, y, **RANDOM, **options),
        dists(x, y, **RANDOM, **options, memory_budget=1),  # pieces
        against(x, kept, backend="triton-interpret"),
    )
    for one in found:
        assert one.item() == pytest.approx(wanted, abs=NARROW[dtype])


# --- what it costs, counted ---------------------------------------------------------------------------------------


class Touched(TorchDispatchMode):
    """Torch operations that touch a map of 64 channels or more, but for views: their names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        tensors = [v for v in (*args, out) if isinstance(v, torch.Tensor)]
        if any(v.dim() == 4 and v.shape[0] == 2 and v.shape[1] >= CHANNELS[1] for v in tensors):
            name = func.overloadpacket.__name__
            if name not in ("slice", "detach", "alias", "empty", "expand", "as_strided"):
                self.names[name] += 1
        return out


def test_every_map_is_written_once_and_read_once_by_what_follows_and_once_by_the_sums() -> None:
    """Convolutions on the CPU, Triton's launches written down: what a GPU would be asked for."""
    pytest.importorskip("triton")
    from semnr_kernels import triton_support

    x, y = pair(64, 48)
    net = network_for(load("random"), torch.bfloat16, x.device)
    settings = Settings(dtype=torch.bfloat16)
    triton_kernel._prepared(net)
    with triton_support.recording() as made, Touched() as touched:
        triton_kernel.dists(x, y, None, net, settings)
    # on a GPU a convolution, its bias and its ReLU are one launch; nothing else touches a map, no layout changes
    assert touched.names == {"convolution": 13, "relu_": 13}
    names = [launch.kernel.fn.__name__ for launch in made if launch.kernel.fn.__name__ != "_fold"]
    # the image itself (three channels, float32), then pooling and sums in turn
    assert names == ["_moments", "moments", *("pool", "moments") * 4]
    sides, maps = (64, 48), []
    for channels in CHANNELS[1:]:
        maps.append(channels * sides[0] * sides[1])
        sides = tuple(-(-side // 2) for side in sides)
    of_sums = [launch.args[0] for launch in made if launch.kernel.fn.__name__ == "moments"]
    of_pooling = [launch.args[0] for launch in made if launch.kernel.fn.__name__ == "pool"]
    assert [v.numel() for v in of_sums] == maps
    assert [v.numel() for v in of_pooling] == [2 * values for values in maps[:-1]]
    assert {v.dtype for v in (*of_sums, *of_pooling)} == {torch.bfloat16}
    assert all(v.is_contiguous(memory_format=LAST) for v in (*of_sums, *of_pooling))
    for read, pooled in zip(of_sums, of_pooling, strict=False):  # the map itself, not a copy
        assert read.data_ptr() == pooled.data_ptr()


def test_a_gradient_and_a_wider_network_keep_the_layout_that_they_had() -> None:
    pytest.importorskip("triton")
    from semnr_kernels import triton_support

    for dtype, grad in ((torch.bfloat16, True), (torch.float32, False)):
        x, y = pair(32, 32)
        net = network_for(load("random"), dtype, x.device)
        with triton_support.recording() as made:
            triton_kernel.dists(x.requires_grad_(grad), y, None, net, Settings(dtype=dtype))
        assert not {launch.kernel.fn.__name__ for launch in made} & {"moments", "pool"}


# --- the convolution ----------------------------------------------------------------------------------------------


@pytest.fixture
def gpu() -> Iterator[None]:
    with mock_gpu.present():
        yield


@pytest.mark.parametrize("offered", [True, False])
def test_a_convolution_with_its_relu_is_one_launch_where_cudnn_has_it(
    gpu: None, offered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not offered:
        monkeypatch.delattr(torch, "cudnn_convolution_relu")
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(s, generator=generator).to(torch.bfloat16) for s in ((1, 8, 9, 7), (16, 8, 3, 3)))
    x, weight = (v.contiguous(memory_format=LAST) for v in (x, weight))
    bias = torch.randn(16, generator=generator).to(torch.bfloat16)
    there = [v.to("cuda") for v in (x, weight, bias)]
    convolution.conv2d_relu(*there, (1, 0))
    with mock_gpu.counting() as counts:
        found = convolution.conv2d_relu(*there, (1, 0))
    assert counts.launches == ({"cudnn_convolution_relu": 1} if offered else {"convolution": 1, "relu_": 1})
    assert torch.equal(found.cpu(), F.relu(F.conv2d(x, weight, bias, padding=(1, 0))))
    assert not counts.waits
