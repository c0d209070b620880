"""What a metric returns when more than its value is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """A metric's value with everything needed to read it.

    Iterating yields the value, then the map and the components where they were asked for,
    so `value, ssim_map = semnr.ssim(x, y, return_map=True)` works.
    """

    value: Any
    data_range: float
    map: Any = None
    components: Mapping[str, Any] | None = None
    coverage: Any = None  # per image: mean share of valid pixels under the pooled windows
    clipped_fraction: float = 0.0
    flags: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Any]:
        yield self.value
        if self.map is not None:
            yield self.map
        if self.components is not None:
            yield self.components
