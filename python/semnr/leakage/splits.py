"""Splits that keep near-duplicates together, and every class in every part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from ..base.random_streams import stream

_SPLITS = 81  # purpose of the seed
SHARES: Mapping[str, float] = {"train": 0.7, "validation": 0.15, "test": 0.15}


def joined(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """(count,) the group of each item: items that a chain of pairs joins are one; numbered by their first item."""
    above = list(range(count))

    def root(k: int) -> int:
        while above[k] != k:
            above[k] = above[above[k]]
            k = above[k]
        return k

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        above[high] = low
    roots = [root(k) for k in range(count)]
    number = {r: n for n, r in enumerate(dict.fromkeys(roots))}
    return np.array([number[r] for r in roots], dtype=int)


def grouped_split(
    labels: Sequence[Hashable],
    groups: Sequence[Hashable],
    *,
    shares: Mapping[str, float] = SHARES,
    seed: int = 0,
) -> list[str]:
    """Divide images into parts: a group is never torn, and each class has about its share in each part.

    Parameters
    ----------
    labels : sequence
        The class of each image.
    groups : sequence
        The group of each image: near-duplicates, a lot, a wafer, a specimen.
    shares : mapping of str to float
        Name of each part and its share of the images; they add up to 1.
    seed : int
        Which of the possible divisions.

    Returns
    -------
    list of str
        The part of each image.

    Raises
    ------
    ValueError
        Shares that are none, lengths that differ, or a class with fewer groups than there are parts.

    Examples
    --------
    >>> labels, groups = ["a"] * 4 + ["b"] * 4, [0, 0, 1, 2, 3, 3, 4, 5]
    >>> parts = semnr.leakage.grouped_split(labels, groups, shares={"x": 0.5, "y": 0.5})
    >>> parts[0] == parts[1], sorted(set(parts[:4])), sorted(set(parts[4:]))
    (True, ['x', 'y'], ['x', 'y'])
    """
    if len(labels) != len(groups):
        raise ValueError(f"groups has {len(groups)} entries for {len(labels)} labels; accepted: one for each image")
    if not shares or any(not 0 < s <= 1 for s in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares is {dict(shares)}; accepted: parts with shares above 0 that add up to 1")
    members: dict[Hashable, list[int]] = defaultdict(list)
    for k, group in enumerate(groups):
        members[group].append(k)
    of_class: dict[Hashable, set[Hashable]] = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        of_class[label].add(group)
    for label, held in of_class.items():
        if len(held) < len(shares):
            images = sum(one == label for one in labels)
            raise ValueError(
                f"class {label!r} has {images} image(s) in {len(held)} group(s) that are no near-duplicates of each "
                f"other; accepted: at least {len(shares)} such groups, one for each of {', '.join(shares)}"
            )
    wanted = {
        (part, label): share * count for label, count in Counter(labels).items() for part, share in shares.items()
    }
    given: Counter[tuple[str, Hashable]] = Counter()
    waiting: dict[Hashable, int] = {label: len(held) for label, held in of_class.items()}
    result = [""] * len(labels)
    rng = stream(seed, _SPLITS)
    order = [list(members)[k] for k in rng.permutation(len(members))]
    order.sort(key=lambda group: -len(members[group]))  # the large ones first: the small ones fill what is lacking
    rarity = Counter(labels)
    order.sort(key=lambda group: min(rarity[labels[k]] for k in members[group]) >= 3 * len(shares))
    for group in order:
        brings = Counter(labels[k] for k in members[group])

        def need(part: str, brings: Counter[Hashable] = brings) -> float:
            """How much of what the part still wants this group brings; a class that a part lacks comes first."""
            lacks = 0
            for label in brings:
                empty = sum(given[p, label] == 0 for p in shares)
                lacks += given[part, label] == 0 and waiting[label] <= empty
            short = sum(n * (1 - given[part, label] / wanted[part, label]) for label, n in brings.items())
            return 1e6 * lacks + short

        part = max(shares, key=need)
        for k in members[group]:
            result[k] = part
        for label, n in brings.items():
            given[part, label] += n
            waiting[label] -= 1
    return result
