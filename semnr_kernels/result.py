"""What a metric returns when more than its value is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        value = self.value if getattr(self.value, "ndim", 0) < 2 else _shape(self.value)
        said = [f"value={value}", f"data_range={self.data_range:g}"]
        said += [] if self.map is None else [f"map of {_shape(self.map)}"]
        said += [f"components {', '.join(self.components)}"] if self.components else []
        return f"<Result {', '.join([*said, *map(str, self.flags)])}>"

    def plot(self, image: int = 0, ax: Any = None) -> Any:
        """Draw the map of one image.

        Parameters
        ----------
        image : int
            Which image of the batch, from 0.
        ax : matplotlib axes, optional
            Where to draw. Default: new axes.

        Returns
        -------
        matplotlib axes

        Raises
        ------
        ValueError
            There is no map (`return_map=True` keeps it), or no such image.
        ImportError
            matplotlib is not installed; it is in the extra `semnr[plot]`.

        Examples
        --------
        >>> result = semnr.ssim(denoised, clean, return_map=True, details=True)
        >>> result.plot()  # doctest: +SKIP
        """
        if self.map is None:
            raise ValueError("there is no map to draw; accepted: a result with return_map=True, details=True")
        planes = self.map.detach().cpu().numpy() if hasattr(self.map, "detach") else self.map
        planes = planes.reshape((1,) * (4 - planes.ndim) + planes.shape).mean(axis=1)
        if not -len(planes) <= image < len(planes):
            raise ValueError(f"image is {image}; accepted: 0 to {len(planes) - 1}")
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError("Result.plot needs matplotlib: pip install 'semnr[plot]'") from error
        ax = plt.figure(figsize=(5, 4.4)).add_subplot() if ax is None else ax
        ax.figure.colorbar(ax.imshow(planes[image], interpolation="nearest", cmap="viridis"), ax=ax)
        ax.set_axis_off()
        return ax

    def __iter__(self) -> Iterator[Any]:
        yield self.value
        if self.map is not None:
            yield self.map
        if self.components is not None:
            yield self.components


def _shape(array: Any) -> str:
    return " x ".join(map(str, array.shape))
