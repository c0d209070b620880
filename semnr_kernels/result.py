"""What a metric returns when more than its value is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """A metric's value with everything that is needed to read it.

    It unpacks into the value, then the map and the components where they were asked for.

    Parameters
    ----------
    value : Tensor or ndarray
        The score.
    data_range : float
        Width of the intensity scale that was used.
    map : Tensor or ndarray, optional
        The map, with return_map=True.
    components : mapping, optional
        Terms of the score by name.
    coverage : Tensor or ndarray, optional
        Mean share of valid pixels under the pooled windows, one an image, where a mask was given.
    clipped_fraction : float
        Share of the values outside [0, data_range], where `overshoot` looks at them.
    flags : tuple of str
        What a reader should know, such as "uncalibrated" or "approximate".
    settings : mapping
        Every option that the score depends on.

    Examples
    --------
    >>> result = semnr.ssim(denoised, clean, return_map=True, details=True)
    >>> result.data_range, result.map.shape, result.settings["window_size"]
    (255.0, (118, 118), 11)
    >>> value, ssim_map = result
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
