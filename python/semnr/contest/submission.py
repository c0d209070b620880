"""Somebody's folder of outputs: which images it has, and what keeps one from being scored."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semnr_kernels import TileError

from ..tiles import decode
from .methods import TOP

SUFFIXES = (".png", ".tif", ".tiff")
NAME = re.compile(r"[A-Za-z0-9][\w .,+-]{0,63}")
_FAR = 2.0  # the mean of an output may differ by this factor from its input's: beyond, it is on another scale


class Unusable(Exception):
    """Why an output is not scored."""


@dataclass(frozen=True)
class Submission:
    """The outputs of one denoiser, as image files.

    Attributes
    ----------
    name : str
        As it stands in the table.
    files : dict of str to Path
        By the name of the input.
    problems : tuple of str
        What is wrong with the folder as a whole: names that are missing, extra or there twice.
    """

    name: str
    files: dict[str, Path]
    problems: tuple[str, ...]

    def output(self, name: str, x: np.ndarray) -> np.ndarray:
        """The output for the input `x` of that name, (H, W) uint16.

        Raises
        ------
        Unusable
            It is missing, cannot be read, or is of another size, depth or scale.
        """
        if (path := self.files.get(name)) is None:
            raise Unusable("missing")
        try:
            d = decode(path)
        except (TileError, OSError) as error:
            raise Unusable(f"cannot be read: {error}") from error
        if d.ndim != 2:
            raise Unusable(f"{path.name} is in colour; accepted: grey")
        if d.shape != x.shape:
            raise Unusable(f"{path.name} has {_size(d)} px; accepted: {_size(x)}")
        if d.dtype not in (np.uint8, np.uint16):
            raise Unusable(f"{path.name} is {d.dtype.name}; accepted: 8 bit, or 16 bit of the whole range")
        d = d.astype(np.uint16) * 257 if d.dtype == np.uint8 else d.astype(np.uint16)
        mean, wanted = float(d.mean()) / TOP, float(x.mean()) / 255
        if not wanted / _FAR <= mean <= wanted * _FAR:
            raise Unusable(
                f"{path.name} has a mean of {mean:.3f} of its range, the input {wanted:.3f}; accepted: the input's "
                "scale (12 bits in 16 are to be spread over the whole range)"
            )
        return d


def _size(image: np.ndarray) -> str:
    return " x ".join(map(str, image.shape))


def submission(name: str, folder: Path, expected: Iterable[str], taken: Iterable[str]) -> Submission:
    """Look a folder through.

    Parameters
    ----------
    name : str
        None of `taken`.
    folder : Path
    expected : iterable of str
        Names of the inputs.
    taken : iterable of str
        Names of the protocol's own denoisers.

    Raises
    ------
    ValueError, NotADirectoryError
        A bad name; no folder; nothing in it has the name of an input.
    """
    if not NAME.fullmatch(name) or name in set(taken):
        raise ValueError(
            f"submission has the name {name!r}; accepted: letters, digits and .,+-, and none of {', '.join(taken)}"
        )
    if not folder.is_dir():
        raise NotADirectoryError(f"submission {name} is {folder}; accepted: a folder of images")
    wanted = list(expected)
    files: dict[str, Path] = {}
    extra, twice = [], []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.stem not in set(wanted):
            extra.append(path.name)
        elif path.stem in files:
            twice.append(path.name)
        else:
            files[path.stem] = path
    if not files:
        raise ValueError(
            f"submission {name} is {folder}, where no image has the name of an input; accepted: {wanted[0]}.png and so "
            "on, as --inputs writes them"
        )
    missing = [one for one in wanted if one not in files]
    told = (
        ("missing", missing, "their fields are left out"),
        ("extra", extra, "not read"),
        ("there twice", twice, "the first is read"),
    )
    problems = tuple(f"{len(names)} {what}, such as {names[0]}: {then}" for what, names, then in told if names)
    return Submission(name, files, problems)
