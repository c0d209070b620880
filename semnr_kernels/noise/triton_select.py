"""Order statistics inside one Triton program: exact, by counting the bits of float32 values; no atomics, no sort.

A key is the 32 bits of a value, so arranged that keys sort as the values do; keys of what takes no part are the
largest.
"""

from __future__ import annotations

import triton
import triton.language as tl

_DIGITS = tl.constexpr(2048)  # of a pass: 11 bits, the last one 10
_LAST = tl.constexpr(0xFFFFFFFF)
OUT = tl.constexpr(0x7F800000)  # the key of infinity among those of values that are not negative


@triton.jit
def signed_key(v):
    """uint32 keys of float32 values of either sign."""
    bits = v.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(tl.uint32, bitcast=True)


@triton.jit
def signed_value(key):
    """The value of a `signed_key`."""
    bits = key.to(tl.int32, bitcast=True)
    return (bits ^ ((~bits >> 31) | -2147483648)).to(tl.float32, bitcast=True)


@triton.jit
def plain_key(v):
    """uint32 keys of float32 values that are not negative."""
    return v.to(tl.uint32, bitcast=True)


@triton.jit
def plain_value(key):
    """The value of a `plain_key`."""
    return key.to(tl.float32, bitcast=True)


@triton.jit
def digit_of(counts, below, k):
    """The digit that holds rank k of values counted by digit, `below` of them lower, and how many lie lower now."""
    lane = tl.arange(0, _DIGITS)
    digit = tl.sum((tl.cumsum(counts) + below <= k).to(tl.int32))
    return digit, below + tl.sum(tl.where(lane < digit, counts, 0))


@triton.jit
def _key_at(rest, at, end):
    return tl.load(rest + at, mask=at < end, other=-1).to(tl.uint32, bitcast=True)


@triton.jit
def _narrow(
    head, rest, begin, end, k, prefix, below, SHIFT: tl.constexpr, WIDTH: tl.constexpr, FIRST: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One digit more of the key at rank k, whose `prefix` is known; how many keys lie below; the keys' counts by it."""
    counts = _count(head, prefix, SHIFT, WIDTH, FIRST)
    for start in range(begin + BLOCK, end, BLOCK):
        counts += _count(_key_at(rest, start + tl.arange(0, BLOCK), end), prefix, SHIFT, WIDTH, FIRST)
    digit, below = digit_of(counts, below, k)
    digit = tl.minimum(digit, (1 << WIDTH) - 1)
    return (prefix << WIDTH) | digit.to(tl.uint32), below, counts, digit


@triton.jit
def _count(key, prefix, SHIFT: tl.constexpr, WIDTH: tl.constexpr, FIRST: tl.constexpr):
    digit = ((key >> SHIFT) & ((1 << WIDTH) - 1)).to(tl.int32)
    if FIRST:
        return tl.histogram(digit, _DIGITS)
    return tl.histogram(digit, _DIGITS, mask=(key >> (SHIFT + WIDTH)) == prefix)


@triton.jit
def _least_beyond(key, prefix):
    return tl.min(tl.where((key >> 10) > prefix, key, _LAST))


@triton.jit
def pair(head, rest, begin, end, k, after, BLOCK: tl.constexpr):
    """The keys at rank k and k + 1 of `head`, (BLOCK,), and of rest[begin + BLOCK : end]; `after`: the least key beyond
    all of these. Keys past the end are the largest."""
    prefix, below = tl.zeros([], tl.uint32), tl.zeros([], tl.int32)
    prefix, below, _, _ = _narrow(head, rest, begin, end, k, prefix, below, 21, 11, True, BLOCK)
    prefix, below, _, _ = _narrow(head, rest, begin, end, k, prefix, below, 10, 11, False, BLOCK)
    following = tl.minimum(after, _least_beyond(head, prefix))
    for start in range(begin + BLOCK, end, BLOCK):
        key = _key_at(rest, start + tl.arange(0, BLOCK), end)
        following = tl.minimum(following, _least_beyond(key, prefix))
    key, below, counts, digit = _narrow(head, rest, begin, end, k, prefix, below, 0, 10, False, BLOCK)
    lane = tl.arange(0, _DIGITS)
    above = tl.min(tl.where((lane > digit) & (counts > 0), lane, _DIGITS))
    following = tl.where(above < _DIGITS, (prefix << 10) | above.to(tl.uint32), following)
    here = tl.sum(tl.where(lane == digit, counts, 0))
    return key, tl.where(below + here > k + 1, key, following)
