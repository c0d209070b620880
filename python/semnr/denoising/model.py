"""The interface of a denoiser.

A model is built once per run, from parameters and the noise of the run, into a filter with everything fixed:
nothing is estimated from the window that a filter happens to get, which is what makes tiled results equal whole
ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..noise import NoiseModel

Filter = Callable[[np.ndarray], np.ndarray]  # (h, w) float64 -> (h, w) float64


@dataclass(frozen=True)
class Setting:
    """What a model is built for."""

    params: Mapping[str, Any]
    sigma: float  # the noise's standard deviation in the units the filter sees; 0: nothing to remove
    noise: NoiseModel | None
    samples: Callable[[], list[np.ndarray]]  # windows of the run, in the units the filter sees


@dataclass(frozen=True)
class There:
    """A filter on a device: (h, w) float64 tensors that lie there, in and out."""

    device: Any
    apply: Callable[[Any], Any]


@dataclass(frozen=True)
class Built:
    """A filter with every parameter fixed."""

    apply: Filter
    halo: int  # pixels around a pixel that its result depends on
    align: int = 1  # a window must start at a multiple of this
    remarks: tuple[str, ...] = ()  # what the reader of the result should know of this input
    there: There | None = None  # the same on the device that it runs on


@dataclass(frozen=True)
class Model:
    """One denoiser of the registry.

    Parameters
    ----------
    name : str
        Its name.
    build : callable
        Makes the filter of a run from a `Setting`, with every parameter fixed.
    defaults : mapping
        Parameters with their default values.
    summary : str
        One line that says what it is.
    by_sigma : bool
        It takes the standard deviation of the noise and expects the noise to be uniform, so that variance stabilisation
        applies.
    by_law : bool
        It takes the noise law itself, and so no stabilisation.
    exact_tiling : bool
        Tiles with their halo give the result of the whole image, within 1e-6.
    checks : mapping of str to callable
        The check of each parameter.
    checksum : callable
        Gives the SHA-256 of its weights, where it has any.

    Examples
    --------
    >>> model = semnr.denoising.MODELS["gaussian"]
    >>> model.parameters({"sigma": 2.0})
    {'sigma': 2.0}
    """

    name: str
    build: Callable[[Setting], Built]
    defaults: Mapping[str, Any]
    summary: str
    by_sigma: bool = False
    by_law: bool = False
    exact_tiling: bool = True
    checks: Mapping[str, Callable[[str, Any], Any]] = field(default_factory=dict)
    checksum: Callable[[], str | None] = lambda: None  # of the weights, where there are any

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults with what was given, checked.

        Parameters
        ----------
        given : mapping
            Parameters that differ from the defaults.

        Returns
        -------
        dict

        Raises
        ------
        TypeError, ValueError
            An unknown parameter, or a value that is not accepted.
        """
        unknown = sorted(set(given) - set(self.defaults))
        if unknown:
            raise TypeError(
                f"{unknown[0]} is no parameter of model {self.name!r}; accepted: "
                + ", ".join(f"{name}={value!r}" for name, value in self.defaults.items())
            )
        params = {**self.defaults, **given}
        return {name: self.checks[name](name, value) for name, value in params.items()}
