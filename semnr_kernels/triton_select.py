# mypy: disable-error-code="assignment"
"""Values of a rank among many, exactly: the bits of float32 that are not negative sort as the values do.

Three passes of a program over its numbers, by 11, 11 and 9 bits; counts are whole numbers, so that their order does
not matter.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import triton_support

_BINS = tl.constexpr(2048)


@triton.jit
def _settled(counts, rank):
    """The bin that holds the value of `rank` from 0, and how many lie in the bins before it."""
    lane = tl.arange(0, _BINS)
    bin = tl.sum((tl.cumsum(counts, 0) <= rank).to(tl.int32), 0)
    return bin, tl.sum(tl.where(lane < bin, counts, 0), 0)


@triton.jit
def _counted(plane, size, prefixes, SHIFT: tl.constexpr, WIDTH: tl.constexpr, KINDS: tl.constexpr, BLOCK: tl.constexpr):
    """How many values have each of 2**WIDTH next bits, of those that begin as each prefix; of all without prefixes."""
    counts = ()
    for _ in tl.static_range(KINDS):
        counts = counts + (tl.zeros([_BINS], tl.int32),)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        bits = tl.abs(tl.load(plane + at, mask=at < size, other=0)).to(tl.int32, bitcast=True)
        key = (bits >> SHIFT) & ((1 << WIDTH) - 1)
        more = ()
        for k in tl.static_range(KINDS):
            same = at < size
            if len(prefixes) > 0:
                same = same & ((bits >> (SHIFT + WIDTH)) == prefixes[k])
            more = more + (counts[k] + tl.histogram(key, _BINS, mask=same),)
        counts = more
    return counts


@triton.jit
def _narrowed(counts, ranks, prefixes, befores, WIDTH: tl.constexpr, RANKS: tl.constexpr):
    """The prefixes with the bits that are settled now, and how many values lie below."""
    found, passed = (), ()
    for k in tl.static_range(RANKS):
        bin, less = _settled(counts[k], tl.load(ranks + k) - befores[k])
        found = found + ((prefixes[k] << WIDTH) + bin,)
        passed = passed + (befores[k] + less,)
    return found, passed


@triton.jit(do_not_specialize=["pitch", "jobs"])
def select(values, ranks, out, below, pitch, jobs, RANKS: tl.constexpr, BLOCK: tl.constexpr):
    """out[row, job, k]: the value of rank ranks[job, 2 + k], from 0, of a segment of the row; below: how many are less.

    ranks: (jobs, 2 + RANKS) int32, where a segment starts and its length first.
    """
    job, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    table = ranks + job * (RANKS + 2)
    first, size = tl.load(table), tl.load(table + 1)
    plane, wanted = values + row * pitch + first, table + 2
    counts = _counted(plane, size, (), 20, 11, 1, BLOCK)[0]  # the same for all ranks
    prefixes, befores = (), ()
    for k in tl.static_range(RANKS):
        bin, less = _settled(counts, tl.load(wanted + k))
        prefixes = prefixes + (bin,)
        befores = befores + (less,)
    second = _counted(plane, size, prefixes, 9, 11, RANKS, BLOCK)
    prefixes, befores = _narrowed(second, wanted, prefixes, befores, 11, RANKS)
    third = _counted(plane, size, prefixes, 0, 9, RANKS, BLOCK)
    prefixes, befores = _narrowed(third, wanted, prefixes, befores, 9, RANKS)
    to = (row * jobs + job) * RANKS
    for k in tl.static_range(RANKS):
        tl.store(out + to + k, prefixes[k].to(tl.float32, bitcast=True))
        tl.store(below + to + k, befores[k])


def of_rank(values: torch.Tensor, ranks: torch.Tensor, covered: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, jobs, RANKS) float32 and int32: of |values|, (rows, pitch) float32 of which segments are looked at.

    ranks: as `select` takes them; covered: how many numbers of a row the segments hold together.
    """
    rows, pitch = values.shape
    jobs, count = ranks.shape[0], ranks.shape[1] - 2
    out = torch.empty((rows, jobs, count), dtype=torch.float32, device=values.device)
    below = torch.empty((rows, jobs, count), dtype=torch.int32, device=values.device)
    triton_support.launch(
        select, (jobs, rows), values, ranks, out, below, pitch, jobs, threads=512, RANKS=count,
        BLOCK=triton_support.block(1024, min(2**16, max(512, triton_support.power_of_2(covered // jobs)))),
        moved=rows * (3 * 4 * covered + 8 * jobs * count),
    )  # fmt: skip
    return out, below
