"""How results of the evidence show themselves: a short repr, a table in a notebook, maps and marks in matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..base.notebook import figure, picture, table
from ..base.plots import EVIDENCE, RESIDUAL, SHARE, Panel, as_panel, draw

_SHOWN = 3  # tiles with pictures in a notebook
_ENDS = {"residual": None, "evidence": (-8.0, 8.0), "transfer": (0.0, 1.5)}  # grey levels of black and white
_KINDS = {"residual": RESIDUAL, "evidence": EVIDENCE, "transfer": SHARE}


class Shown:
    """A result with a row a tile."""

    maps: Mapping[str, np.ndarray] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def _in_short(self) -> str:
        """What matters most, in a few words."""
        raise NotImplementedError

    def _table(self) -> dict[str, Any]:
        """Columns of a table, a row a tile, by their titles."""
        raise NotImplementedError

    def _marks(self, tile: int) -> Sequence[Mapping[str, Any]]:
        """The places that were marked in a tile."""
        return ()

    def __repr__(self) -> str:
        tiles = f"{len(self)} tile{'' if len(self) == 1 else 's'}"
        return f"<{type(self).__name__} of {tiles}: {self._in_short()}>"

    def _repr_html_(self) -> str:
        """For a notebook: a row a tile, and the maps of the first tiles where there are any."""
        shown = [
            figure(f"tile {tile}: {', '.join(panel.title for panel in panels)}", [_small(panel) for panel in panels])
            for tile in range(min(len(self), _SHOWN))
            if (panels := self._panels(tile))
        ]
        return table(repr(self), self._table(), len(self)) + "".join(shown)

    def _panels(self, tile: int) -> list[Panel]:
        """The maps of a tile as pictures."""
        marks, pictures = self._marks(tile), []
        for name, stack in (self.maps or {}).items():
            if name == "transfer":  # a map a band
                pictures += [
                    as_panel(f"{name}, band {band}", stack[tile, band], SHARE) for band in range(stack.shape[1])
                ]
            else:
                pictures.append(as_panel(name, stack[tile], _KINDS.get(name, RESIDUAL), marks))
        return pictures


class Drawn(Shown):
    """One that has maps where they were asked for."""

    def plot(self, tile: int = 0, *, image: Any = None, axes: Any = None) -> np.ndarray:
        """Draw the maps of a tile side by side, with the marked places on them.

        Parameters
        ----------
        tile : int
            Which tile, from 0.
        image : Tensor or ndarray, (H, W) or (C, H, W), optional
            An image of the tile, such as the denoised one; it is drawn first, with the marks.
        axes : matplotlib axes, one a picture, optional
            Where to draw. Default: a new figure.

        Returns
        -------
        ndarray of matplotlib axes, one a picture

        Raises
        ------
        ValueError
            There is nothing to draw: no maps (`return_maps=True` keeps them) and no `image`; or there is no such tile.
        ImportError
            matplotlib is not installed; it is in the extra `semnr[plot]`.

        Examples
        --------
        >>> found = semnr.residual_tests(noisy, denoised, return_maps=True)
        >>> found.plot(image=denoised)  # doctest: +SKIP
        """
        if not -len(self) <= tile < len(self):
            raise ValueError(f"tile is {tile}; accepted: 0 to {len(self) - 1}")
        first = [] if image is None else [as_panel("image", image, marks=self._marks(tile))]
        pictures = [*first, *self._panels(tile)]
        if not pictures:
            raise ValueError("there are no maps to draw; accepted: a result with return_maps=True, or image=")
        return draw(f"{type(self).__name__}.plot", pictures, axes)


def _small(panel: Panel) -> str:
    levels = _ENDS.get(panel.title.partition(",")[0])
    return picture(panel.title, panel.pixels, levels)
