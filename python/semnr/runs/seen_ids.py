"""A set of tile ids that takes eight bytes an id: a million tiles take 8 MB."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

_RECENT = 2**14
_BUCKETS = 256  # by the leading byte: merged one at a time, so that no copy of the whole is ever made


class TileIds:
    """Ids by their 64-bit hash: of a million ids, two share one with a chance of 3 in 10⁸."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._sorted = [np.empty(0, np.uint64)] * _BUCKETS
        self._settled = 0
        self._recent: set[int] = set()
        for name in ids:
            self.add(name)

    def add(self, name: str) -> None:
        self._recent.add(_hash(name))
        if len(self._recent) >= max(_RECENT, self._settled // 64):
            self._settle()

    def __contains__(self, name: str) -> bool:
        key = _hash(name)
        if key in self._recent:
            return True
        bucket = self._sorted[key >> 56]
        at = int(np.searchsorted(bucket, np.uint64(key)))
        return at < bucket.size and int(bucket[at]) == key

    def __len__(self) -> int:
        self._settle()
        return self._settled

    def _settle(self) -> None:
        fresh = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
        self._recent.clear()
        bounds = np.searchsorted(fresh, np.arange(_BUCKETS, dtype=np.uint64) << np.uint64(56))
        for at, part in enumerate(np.split(fresh, bounds[1:])):
            if part.size:
                self._settled -= self._sorted[at].size
                self._sorted[at] = np.union1d(self._sorted[at], part)
                self._settled += self._sorted[at].size


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
