"""The emulation that CUDA kernels are tested on must itself find what it is there to find.

Each kernel of tests/kernels/emulation runs clean, and fails in the way that it is told to.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path

import emulated
import pytest
import torch

import cases
from semnr_kernels import cuda_support

FOLDER = Path(__file__).parent


class Fault(enum.IntEnum):  # tests/kernels/emulation/faults_cuda.hpp
    NONE = 0
    HALO_PAST_THE_END = 1
    HALO_PAST_THE_TILE = 2
    MISSING_BARRIER = 3
    SHARED_NOT_WRITTEN = 4
    EXIT_BEFORE_BARRIER = 5
    BARRIER_ELSEWHERE = 6
    LANE_LEAVES_SHUFFLE = 7
    LANE_NOT_IN_MASK = 8
    READS_LANE_OUTSIDE_MASK = 9
    BLOCKS_WRITE_ONE_CELL = 10
    BLOCK_READS_ANOTHERS = 11
    OUTPUT_NOT_WRITTEN = 12
    SCRATCH_NOT_WRITTEN = 13
    WRITES_INPUT = 14
    MISALIGNED = 15
    NO_WARP_BARRIER = 16
    ATOMIC_AND_PLAIN = 17
    WRITE_AFTER_READ = 18
    COPY_PAST_THE_END = 19


@pytest.fixture(scope="module")
def host():
    if not (cases.REPOSITORY / "csrc").is_dir():
        pytest.skip("the source tree is absent")
    try:
        sources = [FOLDER / "faults_cuda.cu", FOLDER / "faults_cuda_bind.cpp"]
        return cuda_support.load_emulated(emulated.build([], sources, include=[FOLDER]))
    except emulated.CannotBuild as error:
        if emulated.wanted() or "no C++ compiler" not in str(error):
            raise
        pytest.skip(str(error))


def ramp(*shape: int) -> torch.Tensor:
    return torch.arange(1.0, 1.0 + torch.Size(shape).numel()).reshape(shape)


CPU = torch.device("cpu")


# --- small jobs: each returns what the kernel computed ---------------------------------------------------------


def blur(host, fault: Fault = Fault.NONE, n: int = 150) -> torch.Tensor:
    x, out = ramp(n), torch.empty(n)
    with cuda_support.launching(host, CPU, [x], [out]) as (module, stream):
        module.blur(x.data_ptr(), out.data_ptr(), n, fault, stream)
    return out


def block_sums(host, fault: Fault = Fault.NONE, n: int = 400) -> torch.Tensor:
    x, partial, out = ramp(n), torch.empty(8), torch.empty(1)
    tight = (
        {"writes": [out, partial[:4]]} if fault == Fault.OUTPUT_NOT_WRITTEN else {"writes": [out], "scratch": [partial]}
    )
    with cuda_support.launching(host, CPU, [x], **tight) as (module, stream):
        module.block_sums(x.data_ptr(), partial.data_ptr(), out.data_ptr(), n, fault, stream)
    return out


def warp_transpose(host, fault: Fault = Fault.NONE) -> torch.Tensor:
    x, out = ramp(32, 32), torch.empty(32, 32)
    with cuda_support.launching(host, CPU, [x], [out]) as (module, stream):
        module.warp_transpose(x.data_ptr(), out.data_ptr(), fault, stream)
    return out


def copy(host, fault: Fault = Fault.NONE, n: int = 256) -> torch.Tensor:
    x, out = ramp(n), torch.empty(n)
    with cuda_support.launching(host, CPU, [x], [out]) as (module, stream):
        module.copy(x.data_ptr(), out.data_ptr(), n, fault, stream)
    return out


def count(host, fault: Fault = Fault.NONE) -> torch.Tensor:
    out = torch.zeros(1, dtype=torch.int32)
    with cuda_support.launching(host, CPU, [out], [out]) as (module, stream):
        module.count(out.data_ptr(), fault, stream)
    return out


def test_kernels_without_a_fault_run_clean_and_right(host) -> None:
    x = ramp(150)
    padded = torch.cat([x[:1], x, x[-1:]])
    assert torch.equal(blur(host), padded[:-2] + x + padded[2:])
    assert block_sums(host).item() == 400 * 401 / 2
    assert torch.equal(warp_transpose(host), ramp(32, 32).T)
    assert torch.equal(copy(host), ramp(256))
    assert count(host).item() == 3 * 40


@pytest.mark.parametrize(
    ("job", "fault", "kind", "says"),
    [
        (
            blur,
            Fault.HALO_PAST_THE_END,
            "out of bounds",
            r"block \(2,0,0\), thread \(63,0,0\).* 0 bytes past the end of reads",
        ),
        (
            blur,
            Fault.HALO_PAST_THE_TILE,
            "out of bounds",
            r"thread \(63,0,0\): read of 4 bytes at byte 264 of 264 bytes of sha",
        ),
        (blur, Fault.MISSING_BARRIER, "race", r"reads what thread \d+ wrote, with nothing to order the two"),
        (blur, Fault.WRITE_AFTER_READ, "race", r"writes what .* read, with nothing to order the two"),
        (blur, Fault.SHARED_NOT_WRITTEN, "uninitialised read", r"thread \(0,0,0\): byte 0 of shared memory"),
        (blur, Fault.EXIT_BEFORE_BARRIER, "divergent barrier", r"thread 63 has left the kernel"),
        (blur, Fault.BARRIER_ELSEWHERE, "divergent barrier", r"thread 5 waits at faults_cuda.cu:\d+"),
        (block_sums, Fault.LANE_LEAVES_SHUFFLE, "shuffle with a missing lane", r"lane 8: lane 8 waits at a barrier"),
        (block_sums, Fault.LANE_NOT_IN_MASK, "shuffle with a missing lane", r"is not in the mask that it names"),
        (
            block_sums,
            Fault.READS_LANE_OUTSIDE_MASK,
            "shuffle with a missing lane",
            r"reads lane 16, which does not take",
        ),
        (block_sums, Fault.BLOCKS_WRITE_ONE_CELL, "race", r"block \(1,0,0\).* writes what another block wrote"),
        (block_sums, Fault.BLOCK_READS_ANOTHERS, "race", r"block \(2,0,0\).* reads what another block wrote"),
        (block_sums, Fault.OUTPUT_NOT_WRITTEN, "uninitialised read", r"fold: .*element \(1,\)"),
        (block_sums, Fault.SCRATCH_NOT_WRITTEN, "uninitialised read", r"scratch\[0\], \(8,\) float32, element \(4,\)"),
        (warp_transpose, Fault.NO_WARP_BARRIER, "race", r"reads what thread \d+ wrote"),
        (copy, Fault.WRITES_INPUT, "write to an input", r"reads\[0\], \(256,\) float32, element \(0,\)"),
        (copy, Fault.MISALIGNED, "misaligned access", r"16 bytes at 0x"),
        (copy, Fault.COPY_PAST_THE_END, "out of bounds", r"128 bytes"),
        (count, Fault.ATOMIC_AND_PLAIN, "race", r"an atomic operation|writes what"),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Fault) else "",
)
def test_a_seeded_fault_is_found_and_placed(
    host, job: Callable[..., torch.Tensor], fault: Fault, kind: str, says: str
) -> None:
    with pytest.raises(cuda_support.EmulationError, match=says) as error:
        job(host, fault)
    assert kind in {f["kind"] for f in error.value.faults}
    assert "faults_cuda.cu:" in str(error.value)


def test_an_output_that_no_thread_writes_is_told_with_its_element(host) -> None:
    x, out = ramp(100), torch.empty(101)
    with (
        pytest.raises(
            cuda_support.EmulationError, match=r"output never written: 4 bytes of writes\[0\].*element \(100,\)"
        ),
        cuda_support.launching(host, CPU, [x], [out]) as (module, stream),
    ):
        module.blur(x.data_ptr(), out.data_ptr(), 100, Fault.NONE, stream)


def test_what_lies_between_the_rows_of_a_view_is_out_of_bounds(host) -> None:
    whole = ramp(4, 40)
    out = torch.empty(128)
    with cuda_support.launching(host, CPU, [whole], [out]) as (module, stream):
        module.copy(whole.data_ptr(), out.data_ptr(), 128, Fault.NONE, stream)
    with (
        pytest.raises(
            cuda_support.EmulationError, match=r"out of bounds.*reads\[0\], \(4, 32\) float32, between its elements"
        ),
        cuda_support.launching(host, CPU, [whole[:, :32]], [out]) as (module, stream),
    ):
        module.copy(whole.data_ptr(), out.data_ptr(), 128, Fault.NONE, stream)


def test_a_block_that_writes_what_another_reads_is_a_race_whichever_runs_first(host) -> None:
    x = ramp(150)  # in place: each block writes what its neighbours read as their border
    with (
        pytest.raises(
            cuda_support.EmulationError, match=r"writes what another block read.*reads\[0\].*element \(64,\)"
        ),
        cuda_support.launching(host, CPU, [x], [x]) as (module, stream),
    ):
        module.blur(x.data_ptr(), x.data_ptr(), 150, Fault.NONE, stream)
    alone = ramp(64)  # one block has its barrier
    with cuda_support.launching(host, CPU, [alone], [alone]) as (module, stream):
        module.blur(alone.data_ptr(), alone.data_ptr(), 64, Fault.NONE, stream)


def test_tensors_that_share_memory_keep_each_its_own_elements(host) -> None:
    """Both halves of every row are read here, so what lies between either's rows is the other's."""
    whole, out = ramp(4, 64), torch.empty(256)
    with cuda_support.launching(host, CPU, [whole[:, :32], whole[:, 32:], whole[:1].expand(5, 64)], [out]) as (
        module,
        stream,
    ):
        module.copy(whole.data_ptr(), out.data_ptr(), 256, Fault.NONE, stream)
    assert torch.equal(out, whole.flatten())
    with (
        pytest.raises(cuda_support.EmulationError, match=r"write to an input"),
        cuda_support.launching(host, CPU, [whole[:, :32]], [whole[:, 32:]]) as (module, stream),
    ):
        module.copy(whole.data_ptr(), whole.data_ptr(), 128, Fault.NONE, stream)


def test_one_launch_may_read_what_an_earlier_one_wrote_and_may_not_read_what_none_wrote(host) -> None:
    x, between, out = ramp(64), torch.empty(64), torch.empty(64)
    with cuda_support.launching(host, CPU, [x], [between, out]) as (module, stream):
        module.blur(x.data_ptr(), between.data_ptr(), 64, Fault.NONE, stream)
        module.blur(between.data_ptr(), out.data_ptr(), 64, Fault.NONE, stream)
    with (
        pytest.raises(cuda_support.EmulationError, match=r"uninitialised read.*memory that nothing wrote"),
        cuda_support.launching(host, CPU, [x], [between, out]) as (module, stream),
    ):
        module.blur(between.data_ptr(), out.data_ptr(), 64, Fault.NONE, stream)


def test_threads_that_write_neighbouring_bytes_of_a_word_do_not_race(host) -> None:
    x, out = torch.arange(64, dtype=torch.uint8), torch.empty(64, dtype=torch.uint8)
    with cuda_support.launching(host, CPU, [x], [out]) as (module, stream):
        module.bytes(x.data_ptr(), out.data_ptr(), stream)
    assert torch.equal(out, x.flip(0))
    counted = cuda_support.counters(host)["bytes"]
    # lanes that touch the bytes of one word share its transaction; a byte is one access
    assert counted["shared_load_words"] == counted["shared_store_words"] == 64
    assert counted["shared_load_transactions"] == counted["shared_load_ideal"] == 2
    assert (counted["sectors_read"], counted["sectors_written"]) == (2, 2)


# --- counters against numbers worked out by hand ---------------------------------------------------------------


def aligned(n: int, offset: int = 0) -> torch.Tensor:
    """`n` floats that begin `offset` elements after the start of a 32-byte sector."""
    raw = torch.empty(n + offset + 8)
    return raw[(-raw.data_ptr() // 4) % 8 + offset :][:n]


def test_sectors_are_counted_once_a_block(host) -> None:
    n = 150
    x, out = aligned(n), aligned(n)
    x.copy_(ramp(n))
    with cuda_support.launching(host, CPU, [x], [out]) as (module, stream):
        module.blur(x.data_ptr(), out.data_ptr(), n, Fault.NONE, stream)
    counted = cuda_support.counters(host)["blur"]
    # blocks read [0, 65), [63, 129), [127, 150): sectors of 8 floats 0-8, 7-16, 15-18
    assert counted["sectors_read"] == 9 + 10 + 4
    # and write [0, 64), [64, 128), [128, 150)
    assert counted["sectors_written"] == 8 + 8 + 3
    # one element a thread and two of the halo a block
    assert counted["bytes_read"] == 4 * 3 * (64 + 2)
    assert counted["bytes_written"] == 4 * n
    assert counted["shared_store_words"] == 3 * (64 + 2)
    assert counted["shared_load_words"] == 3 * 3 * 64
    assert (counted["blocks"], counted["threads"], counted["barriers"]) == (3, 192, 3)
    assert counted["shared_bytes"] == 66 * 4
    assert counted["worst_ways"] == 1


def test_a_sector_that_two_tensors_straddle_begins_where_memory_does(host) -> None:
    x, out = aligned(64, offset=3), aligned(64)
    x.copy_(ramp(64))
    with cuda_support.launching(host, CPU, [x], [out]) as (module, stream):
        module.blur(x.data_ptr(), out.data_ptr(), 64, Fault.NONE, stream)
    assert cuda_support.counters(host)["blur"]["sectors_read"] == 9


@pytest.mark.parametrize(("stride", "ways"), [(1, 1), (2, 2), (3, 1), (4, 4), (32, 32), (33, 1)])
def test_lanes_a_stride_apart_meet_in_as_many_banks_as_it_shares_with_32(host, stride: int, ways: int) -> None:
    out = torch.empty(32)
    with cuda_support.launching(host, CPU, [], [out]) as (module, stream):
        module.strided(out.data_ptr(), stride, stream)
    counted = cuda_support.counters(host)["strided"]
    for kind in ("load", "store"):
        assert counted[f"shared_{kind}_instructions"] == 1
        assert counted[f"shared_{kind}_words"] == 32
        assert counted[f"shared_{kind}_transactions"] == ways
        assert counted[f"shared_{kind}_ideal"] == 1
    assert counted["worst_ways"] == ways


@pytest.mark.parametrize(("stride", "ways"), [(1, 1), (2, 2), (3, 1), (8, 8)])
def test_a_16_byte_access_is_served_a_quarter_of_a_warp_at_a_time(host, stride: int, ways: int) -> None:
    out = torch.empty(32)
    with cuda_support.launching(host, CPU, [], [out]) as (module, stream):
        module.strided16(out.data_ptr(), stride, stream)
    counted = cuda_support.counters(host)["strided16"]
    for kind in ("load", "store"):
        assert counted[f"shared_{kind}_instructions"] == 1
        assert counted[f"shared_{kind}_words"] == 4 * 32
        assert counted[f"shared_{kind}_transactions"] == 4 * ways
        assert counted[f"shared_{kind}_ideal"] == 4


def test_lanes_that_part_are_counted_with_those_that_make_the_same_passage(host) -> None:
    out = torch.empty(32)
    with cuda_support.launching(host, CPU, [], [out]) as (module, stream):
        module.diverged(out.data_ptr(), stream)
    counted = cuda_support.counters(host)["diverged"]
    assert counted["shared_store_instructions"] == 2
    assert counted["shared_store_words"] == 32 + 16
    assert counted["shared_store_transactions"] == 2


# --- CUDA's names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_floats_convert_as_torch_does_for_every_value(host, dtype: torch.dtype) -> None:
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    wide, back = torch.empty(2**16), torch.empty(2**16, dtype=torch.uint16)
    with cuda_support.launching(host, CPU, [bits], [wide, back]) as (module, stream):
        module.halves(bits.data_ptr(), wide.data_ptr(), back.data_ptr(), 2**16, dtype == torch.bfloat16, stream)
    expected = bits.view(dtype).float()
    assert torch.equal(torch.nan_to_num(wide, 7.0), torch.nan_to_num(expected, 7.0))
    assert torch.equal(wide.isnan(), expected.isnan())
    moved = expected * (1.001953125 if dtype == torch.bfloat16 else 1.000244140625)
    rounded = moved.to(dtype)
    finite = ~rounded.isnan()
    assert torch.equal(back.view(dtype).float()[finite], rounded.float()[finite])
    assert back.view(dtype)[~finite].isnan().all()


def test_integer_intrinsics_do_what_the_programming_guide_says(host) -> None:
    a, b = 0x04F01003, 0x00FF0209
    words, out = torch.tensor([a, b], dtype=torch.int64).to(torch.uint32), torch.empty(8, dtype=torch.uint32)
    with cuda_support.launching(host, CPU, [words], [out]) as (module, stream):
        module.integers(words.data_ptr(), out.data_ptr(), stream)
    x, y = a.to_bytes(4, "little"), b.to_bytes(4, "little")
    both = x + y
    apart = [abs(p - q) for p, q in zip(x, y, strict=True)]
    assert out.tolist() == [
        int.from_bytes(bytes(both[i] for i in (1, 3, 5, 7)), "little"),
        int.from_bytes(bytes(apart), "little"),
        sum(apart),
        5 + sum(p * q for p, q in zip(x, y, strict=True)),
        (a * b) >> 32,
        a.bit_count(),
        32 - b.bit_length(),
        (a & -a).bit_length(),
    ]
