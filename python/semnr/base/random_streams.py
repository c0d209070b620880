"""Checks of arguments and the random streams: small things that every module of the package shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# One stream of random numbers a purpose, so that adding a defect moves no edge and another dose moves no line.
LAYOUT, ROUGHNESS, TEXTURE, DEFECTS, NOISE, CHANCE = range(6)

Seed = int | Sequence[int]


def number(name: str, value: float, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> float:
    """`value` as a finite float in [low, high], or in (low, high] with `above`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} is {type(value).__name__}; accepted: a number")
    if not math.isfinite(value) or value < low or value > high or (above and value == low):
        kind = f"above {low:g}" if above else f"of at least {low:g}"
        upper = f" and at most {high:g}" if math.isfinite(high) else ""
        raise ValueError(f"{name} is {value}; accepted: a finite number {kind}{upper}")
    return float(value)


def whole(name: str, value: int, low: int = 0) -> int:
    """`value` as an int of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is {type(value).__name__}; accepted: an integer")
    if value < low:
        raise ValueError(f"{name} is {value}; accepted: an integer of at least {low}")
    return int(value)


def choice(name: str, value: object, accepted: Sequence[str]) -> str:
    if value not in accepted:
        raise ValueError(f"{name} is {value!r}; accepted: {', '.join(map(repr, accepted))}")
    return str(value)


def size(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels, at least 16 each."""
    pair = (value, value) if isinstance(value, int | np.integer) else value
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise TypeError(f"{name} is {value!r}; accepted: (height, width) in pixels")
    return whole(f"{name}[0]", pair[0], 16), whole(f"{name}[1]", pair[1], 16)


def seed_words(seed: Seed) -> tuple[int, ...]:
    words = (seed,) if isinstance(seed, int | np.integer) else seed
    if not isinstance(words, Sequence) or not words:
        raise TypeError(f"seed is {seed!r}; accepted: a non-negative integer or a sequence of them")
    return tuple(whole("seed", word) for word in words)


def stream(seed: Seed, *purpose: int) -> np.random.Generator:
    """The generator of one purpose: the same (seed, purpose) gives the same numbers, in any order of calls."""
    first, *rest = seed_words(seed)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(first, spawn_key=(*rest, *purpose))))
