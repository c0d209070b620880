"""What the native backend does between the convolutions, in one pass: ReLU, sums, L2 pooling, a copy to keep.

Judge: the same in torch, of whole tensors in float64.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import backends
from semnr_kernels.dists import sums
from semnr_kernels.dists.network import l2_pool
from semnr_kernels.dists.stream import Rectangle

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# Sums of values near 1, relative: 16-bit values are added up in float32, 32 at a time.
SUMS = {torch.float16: 1e-5, torch.bfloat16: 1e-5, torch.float32: 1e-12, torch.float64: 1e-12}
# A pooled value: the rounding of its dtype.
ROUNDING = {torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float32: 1e-6, torch.float64: 1e-12}
NATIVE = [name for name in backends.params("dists") if name.startswith("native")]


@pytest.fixture(params=NATIVE)
def engine(request):
    backends.require("dists", request.param)
    from semnr_kernels.dists.native import Native

    return Native(request.param.partition("-")[2] or None)


def maps(n, c, h, w, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = (torch.randn((n, c, h, w), generator=generator, dtype=torch.float64) for _ in range(2))
    return tuple(m.to(dtype).contiguous(memory_format=torch.channels_last) for m in made)


def empty(n, c, h, w, dtype):
    """Poisoned: what is not written shows."""
    return torch.full((n, c, h, w), float("nan"), dtype=dtype).contiguous(memory_format=torch.channels_last)


def into(n, c, cells=None, cell=0):
    near, totals = (torch.zeros((n, k, c), dtype=torch.float64) for k in (2, sums.COUNT))
    held = None if cells is None else torch.zeros((n, *cells, sums.COUNT, c), dtype=torch.float64)
    return sums.Into(near, totals, True, held, cell)


def expected(x, y, share, near):
    return sums.products(x, y, share, near)


def assert_sums(found, x, y, share, bound):
    exact = expected(x, y, share, found.near)
    torch.testing.assert_close(found.totals, exact.sum(dim=(3, 4)), rtol=bound, atol=bound * exact[0, 0, 0].numel())
    if found.cells is not None:
        by_cell = sums.cell_sums(exact, found.cell)
        torch.testing.assert_close(found.cells, by_cell, rtol=bound, atol=bound * found.cell**2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"),
    [(0, 0, 8, 6), (0, 0, 7, 9), (1, 1, 40, 70), (1, 0, 33, 2), (0, 1, 1, 67), (1, 1, 1, 1)],
)
def test_one_pass_rectifies_sums_pools_and_keeps(engine, dtype, row, column, rows, columns):
    n, c = 2, 32
    x, y = maps(n, c, rows + row, columns + column, dtype)
    at = Rectangle(row, column, rows, columns, 0, columns)
    pooled = [empty(n, c, -(-rows // 2), -(-columns // 2), dtype) for _ in range(2)]
    kept, found = empty(n, c, rows, columns, dtype), into(n, c)
    engine.finish(x, y, at, None, found, tuple(pooled), kept)
    relu_x, relu_y = (F.relu(v) for v in (x, y))
    count_x, count_y = (v[:, :, row:, column:] for v in (relu_x, relu_y))
    assert torch.equal(kept, count_x)
    assert_sums(found, count_x, count_y, None, SUMS[dtype])
    work = torch.float64 if dtype == torch.float64 else torch.float32
    for v, out in zip((relu_x, relu_y), pooled, strict=True):
        shifted = F.pad(v, (column, 0, row, 0))  # the windows lie about the positions that count
        exact = l2_pool(shifted, work)[:, :, row:, column:]
        torch.testing.assert_close(out, exact, rtol=ROUNDING[dtype], atol=0)


def test_pooling_in_float64_is_the_definition(engine):
    (x, _) = maps(1, 16, 19, 21, torch.float64)
    out = empty(1, 16, 10, 11, torch.float64)
    engine.finish(x, None, Rectangle(0, 0, 19, 21, 0, 21), None, None, (out, None), None)
    torch.testing.assert_close(out, l2_pool(F.relu(x), torch.float64), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("start", "stop"), [(0, 12), (4, 36), (2, 34), (34, 36), (8, 8)])
def test_columns_of_a_margin_are_pooled_and_not_counted(engine, dtype, start, stop):
    x, y = maps(1, 16, 10, 36, dtype)
    pooled, found = (empty(1, 16, 5, 18, dtype), empty(1, 16, 5, 18, dtype)), into(1, 16)
    counts = found if stop > start else None
    engine.finish(x, y, Rectangle(0, 0, 10, 36, start, stop), None, counts, pooled, None)
    torch.testing.assert_close(pooled[1], l2_pool(F.relu(y), torch.float32), rtol=ROUNDING[dtype], atol=0)
    if stop > start:
        assert_sums(found, *(F.relu(v[..., start:stop]) for v in (x, y)), None, SUMS[dtype])


@pytest.mark.parametrize("cell", [2, 4, 8, 16])
@pytest.mark.parametrize("shared", [False, True], ids=["whole", "masked"])
def test_sums_of_cells_add_up_to_those_of_the_map(engine, cell, shared):
    n, h, w = 2, 37, 22
    x, y = maps(n, 16, h, w, torch.float32)
    share = torch.rand((n, 1, h, w), dtype=torch.float64) if shared else None
    found = into(n, 16, (-(-h // cell), -(-w // cell)), cell)
    pooled = (empty(n, 16, 19, 11, torch.float32), empty(n, 16, 19, 11, torch.float32))
    engine.finish(x, y, Rectangle(0, 0, h, w, 0, w), share, found, pooled, None)
    assert_sums(found, F.relu(x), F.relu(y), share, 1e-12)
    torch.testing.assert_close(found.cells.sum(dim=(1, 2)), found.totals, rtol=1e-12, atol=1e-12)


def test_sums_grow_piece_by_piece_about_the_first_ones_middle(engine):
    x, y = maps(1, 16, 30, 20, torch.float32)
    found = into(1, 16)
    for top, bottom in ((0, 12), (12, 30)):
        at = Rectangle(0, 0, bottom - top, 20, 0, 20)
        engine.finish(x[:, :, top:bottom], y[:, :, top:bottom], at, None, found, (None, None), None)
        found = sums.Into(found.near, found.totals, False, None, 0)
    assert torch.equal(found.near[0, 0], F.relu(x[0, :, 6, 10]).double())
    assert_sums(found, F.relu(x), F.relu(y), None, 1e-12)


@pytest.mark.parametrize("held", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_kept_maps_may_have_another_dtype(engine, held):
    x, y = maps(2, 16, 9, 8, torch.float32)
    other, kept, found = F.relu(y).to(held), empty(2, 16, 9, 8, held), into(2, 16)
    engine.finish(x, other, Rectangle(0, 0, 9, 8, 0, 8), None, found, (empty(2, 16, 5, 4, x.dtype), None), kept)
    assert_sums(found, F.relu(x), other, None, 1e-12)
    assert torch.equal(kept, F.relu(x).to(held))  # rounded to the nearest, halves to even


def test_contiguous_maps_are_put_in_order_first(engine):
    x, y = maps(1, 32, 8, 6, torch.float32)
    found = into(1, 32)
    engine.finish(x.contiguous(), y.contiguous(), Rectangle(0, 0, 8, 6, 0, 6), None, found, (None, None), None)
    assert_sums(found, F.relu(x), F.relu(y), None, 1e-12)
    found = into(1, 32)
    engine.planes(x.contiguous(), y.contiguous(), None, found)  # as they are
    assert_sums(found, x, y, None, 1e-12)


def test_one_kept_map_serves_many_images(engine):
    x, y = maps(3, 16, 6, 8, torch.float32)
    found, one = into(3, 16), F.relu(y[:1])
    engine.finish(x, one.expand(3, -1, -1, -1), Rectangle(0, 0, 6, 8, 0, 8), None, found, (None, None), None)
    assert_sums(found, F.relu(x), one.expand(3, -1, -1, -1), None, 1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_at_the_ends_of_a_dtype_survive(engine, dtype):
    ends = torch.finfo(dtype)
    values = [0.0, -0.0, ends.tiny, ends.smallest_normal / 4, ends.max, -ends.max, float("inf"), float("nan"), 1.0]
    values += [1 + ends.eps, 65504.0 if dtype == torch.float16 else 1e9, -1.0, 0.1, 3e-6, 7.0, 2.5]
    x = torch.tensor(values, dtype=dtype).reshape(1, 16, 1, 1).expand(1, 16, 2, 2)
    x = x.contiguous(memory_format=torch.channels_last)
    kept = empty(1, 16, 2, 2, dtype)
    engine.finish(x, None, Rectangle(0, 0, 2, 2, 0, 2), None, None, (None, None), kept)
    torch.testing.assert_close(kept, F.relu(x), rtol=0, atol=0, equal_nan=True)


def test_rounding_to_16_bits_is_that_of_torch(engine):
    bits = torch.randint(0, 2**31 - 1, (64 * 64 * 16,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    x = bits.view(torch.float32)
    halves = torch.arange(0, 2**16, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    between = (halves[:-1] + halves[1:]) / 2  # halves go to even
    x[: between.numel()] = between.abs()
    x = x.reshape(1, 16, 64, 64).contiguous(memory_format=torch.channels_last)
    for held in (torch.bfloat16, torch.float16):
        kept = empty(1, 16, 64, 64, held)
        engine.finish(x, None, Rectangle(0, 0, 64, 64, 0, 64), None, None, (None, None), kept)
        torch.testing.assert_close(kept, F.relu(x).to(held), rtol=0, atol=0, equal_nan=True)


def test_a_nan_reaches_its_own_channel_and_image_alone(engine):
    x, y = maps(2, 16, 8, 8, torch.float32)
    x[1, 3, 5, 2] = float("nan")
    found, pooled = into(2, 16), (empty(2, 16, 4, 4, x.dtype), empty(2, 16, 4, 4, x.dtype))
    engine.finish(x, y, Rectangle(0, 0, 8, 8, 0, 8), None, found, pooled, None)
    assert torch.isnan(found.totals).any(dim=1).nonzero().tolist() == [[1, 3]]
    assert torch.isnan(pooled[0]).nonzero().tolist() == [[1, 3, 2, 1], [1, 3, 3, 1]]
    assert torch.isfinite(pooled[1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_small_variance_on_a_large_mean_keeps_its_digits(engine, dtype):
    x, y = (6e4 + 0.05 * v.abs() for v in maps(1, 16, 40, 40, dtype))
    found = into(1, 16)
    engine.finish(x, y, Rectangle(0, 0, 40, 40, 0, 40), None, found, (None, None), None)
    weight, a, _, aa, *_ = found.totals[0]
    exact = x.double().var(dim=(2, 3), correction=0)[0]
    torch.testing.assert_close(aa / weight - (a / weight) ** 2, exact, rtol=1e-9, atol=0)


def test_the_number_of_threads_changes_no_bit(engine):
    x, y = maps(3, 128, 40, 34, torch.float32)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        total, pooled = into(3, 128), (empty(3, 128, 20, 17, x.dtype), empty(3, 128, 20, 17, x.dtype))
        engine.finish(x, y, Rectangle(0, 0, 40, 34, 0, 34), None, total, pooled, None)
        found.append((total.totals, *pooled))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


LAYOUTS = {
    "contiguous": lambda v: v,
    "channels-last": lambda v: v.contiguous(memory_format=torch.channels_last),
    "transposed": lambda v: v.transpose(2, 3).contiguous().transpose(2, 3),
    "every second": lambda v: v.repeat_interleave(2, 3)[..., ::2],
    "one channel": lambda v: v[:, :1].expand(-1, 3, -1, -1),
}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, *DTYPES], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_of_any_dtype_and_layout_are_summed_as_they_are(engine, dtype, layout):
    shape, generator = (2, 3, 35, 530), torch.Generator().manual_seed(0)
    x, y = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    if dtype in (torch.uint8, torch.uint16):
        x, y = ((v * torch.iinfo(dtype).max).to(torch.int32) for v in (x, y))
    x, y = (LAYOUTS[layout](v.to(dtype)) for v in (x, y))
    scale = 1 / 255 if dtype in (torch.uint8, torch.uint16) else 1.0
    share = torch.rand((2, 1, 35, 530), dtype=torch.float64, generator=generator)
    for weight in (None, share):
        found = into(2, 3, (3, 34), 16)
        engine.planes(x, y, weight, found, scale)
        assert_sums(found, x.double() * scale, y.double() * scale, weight, 1e-12)


def test_what_no_loop_does_is_refused(engine):
    x, y = maps(1, 24, 8, 8, torch.float32)
    all_of_it = Rectangle(0, 0, 8, 8, 0, 8)
    if engine.module.ISA == "avx512":  # 16 channels a vector
        with pytest.raises(ValueError, match="channels"):
            engine.finish(x, y, all_of_it, None, into(1, 24), (None, None), None)
    x, y = maps(1, 16, 8, 8, torch.float32)
    with pytest.raises(ValueError, match="float64 maps only"):
        engine.finish(x, y.double(), all_of_it, None, into(1, 16), (None, None), None)
    with pytest.raises(ValueError, match="channels-last"):
        engine.finish(x, y, all_of_it, None, into(1, 16), (None, None), y.contiguous())
    odd = Rectangle(0, 0, 8, 8, 0, 5)
    with pytest.raises(ValueError, match="odd cells or columns"):
        engine.finish(x, y, odd, None, into(1, 16), (empty(1, 16, 4, 4, x.dtype), None), None)
    with pytest.raises(ValueError, match="cells of 1, 2, 4, 8 or 16"):
        engine.finish(x, y, all_of_it, None, into(1, 16, (3, 3), 3), (None, None), None)
