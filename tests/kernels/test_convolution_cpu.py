"""Convolutions with frozen weights on the CPU against torch's in float64: taps, sizes, layouts, channels, threads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from semnr_kernels import native_support
from semnr_kernels.convolution_cpu import Convolution

BOUND = 3e-5  # of values of about 3, the largest of a map; measured 2e-5 with Winograd's filtering, 1e-5 without
BFLOAT16, BFLOAT16_MEAN = 0.2, 0.012  # of the same values; measured 0.12 and 0.008
WIDE = [isa for isa in native_support.INSTRUCTION_SETS if native_support.probe(isa) is None and isa != "baseline"]
SIZES = [(6, 6), (15, 15), (31, 18), (8, 40), (1, 1), (3, 2), (7, 64)]


def layer(taps=3, inputs=32, outputs=48, dtype=torch.float32, stride=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((outputs, inputs, taps, taps), generator=generator) * (2 / (inputs * taps**2)) ** 0.5
    bias = 0.1 * torch.randn(outputs, generator=generator)
    return Convolution(weight.to(dtype), bias.to(dtype), stride, taps // 2, 32)


def image(height, width, count=2, inputs=32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    made = torch.rand((count, inputs, height, width), generator=generator)
    return made.to(memory_format=torch.channels_last)


def exact(made, h, padding, rectified):
    out = F.conv2d(h.double(), made.weight.double(), made.bias.double(), stride=made.stride, padding=padding)
    return F.relu(out) if rectified else out


@pytest.mark.parametrize("isa", [None, *native_support.INSTRUCTION_SETS], ids=str)
@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("rectified", [True, False])
def test_equals_the_float64_convolution(isa, taps, size, rectified):
    if isa is not None and (reason := native_support.probe(isa)):
        pytest.skip(reason)
    module = None if isa is None else native_support.module(isa)
    made, h = layer(taps), image(*size)
    for padding in ((taps // 2, taps // 2), (0, taps // 2), (taps // 2, 0)):
        if any(size[i] + 2 * padding[i] < taps for i in (0, 1)):
            continue
        out = made(h, padding, rectified, module)
        torch.testing.assert_close(out.double(), exact(made, h, padding, rectified), rtol=0, atol=BOUND)
        assert out.stride(1) == 1


@pytest.mark.skipif(
    not native_support.module().WINOGRAD_BFLOAT16, reason="no AVX-512 BF16 on this CPU, or AMX, which is faster"
)
@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bfloat16_by_winograd_is_within_its_own_rounding(taps, size):
    made, h = layer(taps, dtype=torch.bfloat16), image(*size).bfloat16()
    padding = (taps // 2, taps // 2)
    out = made._winograd(h, padding, False, native_support.module())
    assert out.dtype == torch.bfloat16
    assert out.stride(1) == 1
    off = (out.double() - exact(made, h, padding, False)).abs()
    assert off.max() <= BFLOAT16
    assert off.mean() <= BFLOAT16_MEAN


@pytest.mark.skipif(not WIDE, reason="no compiled kernels for this CPU")
def test_bfloat16_goes_the_short_way_where_the_module_says_so(monkeypatch):
    module, short = native_support.module(), []
    original = Convolution._winograd
    monkeypatch.setattr(Convolution, "_winograd", lambda self, *rest: short.append(1) or original(self, *rest))
    layer(dtype=torch.bfloat16)(image(31, 32).bfloat16(), (1, 1), True, module)
    assert not short, "few positions: rounding is not averaged"
    layer(dtype=torch.bfloat16)(image(32, 32).bfloat16(), (1, 1), True, module)
    assert len(short) == module.WINOGRAD_BFLOAT16


@pytest.mark.skipif(not WIDE, reason="no compiled kernels for this CPU")
def test_wide_maps_go_the_short_way_and_hardly_filled_squares_do_not(monkeypatch):
    module, short = native_support.module(), []
    original = Convolution._winograd
    monkeypatch.setattr(
        Convolution, "_winograd", lambda self, h, *rest: short.append(h.shape[2:]) or original(self, h, *rest)
    )
    layer()(image(16, 16), (1, 1), True, module)
    layer(5)(image(16, 16), (2, 2), True, module)
    assert len(short) == 2
    layer()(image(1, 1), (1, 1), True, module)
    layer(5)(image(1, 9), (2, 2), True, module)
    layer(11, stride=4)(image(32, 32), (5, 5), True, module)
    layer(inputs=3)(image(16, 16, inputs=3), (1, 1), True, module)
    layer(dtype=torch.float64)(image(16, 16).double(), (1, 1), True, module)
    layer()(image(16, 16), (1, 1), True, None)
    assert len(short) == 2


@pytest.mark.skipif(not WIDE, reason="no compiled kernels for this CPU")
def test_neither_threads_nor_neighbours_nor_layout_change_a_bit():
    module, made = native_support.module(), layer(inputs=64, outputs=256)
    threads = torch.get_num_threads()
    h = image(23, 37, count=5, inputs=64)
    whole = made(h, (1, 1), True, module)
    try:
        for some in (1, 3, 7):
            torch.set_num_threads(some)
            assert torch.equal(made(h, (1, 1), True, module), whole)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(made(h[3:4], (1, 1), True, module), whole[3:4])
    assert torch.equal(made(h.contiguous(), (1, 1), True, module), whole)
    assert torch.equal(made(image(23, 40, 5, 64)[..., :37].copy_(h), (1, 1), True, module), whole)
    # squares that begin where those of the whole do
    assert torch.equal(made(h[:, :, 3:21], (0, 1), True, module), whole[:, :, 4:20])


@pytest.mark.skipif(not WIDE, reason="no compiled kernels for this CPU")
def test_a_value_that_is_none_reaches_the_outputs():
    h = image(12, 12)
    h[0, 3, 5, 5] = float("nan")
    out = layer()(h, (1, 1), True, native_support.module())
    assert out[0, :, 4:7, 4:7].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.skipif(not WIDE, reason="no compiled kernels for this CPU")
def test_the_kernel_refuses_what_it_cannot_read():
    module, h = native_support.module(), image(8, 8, 1)
    out = torch.empty((1, 48, 8, 8)).to(memory_format=torch.channels_last)
    address = native_support.address(h)

    def call(h=h, out=out, shape=(1, 32, 8, 8), outputs=48, taps=3, dtype=4):
        given = native_support.image(h), shape, native_support.image(out), outputs, taps, (1, 1), address, address
        module.winograd(*given, True, 1, dtype)

    with pytest.raises(ValueError, match="do not fill vectors"):
        call(shape=(1, 31, 8, 8))
    with pytest.raises(ValueError, match="do not fill vectors"):
        call(outputs=40)
    with pytest.raises(ValueError, match="channels-last maps only"):
        call(h=h.contiguous())
    with pytest.raises(ValueError, match="3 or 5 taps only"):
        call(taps=4)
    with pytest.raises(ValueError, match="float32, or bfloat16"):
        call(dtype=native_support.DTYPE_CODES[torch.float64])
