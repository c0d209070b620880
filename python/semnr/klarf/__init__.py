"""KLARF, the defect list that inspection and review tools exchange: read 1.0 to 1.2 and 1.8, write 1.2 and 1.8.

`VERSIONS` holds the versions that can be written.
"""

from __future__ import annotations

import re
from pathlib import Path

from .model import Defect, ImageRef, InspectedWafer, Klarf, KlarfError
from .reader1 import read1
from .reader18 import Reader18
from .write import VERSIONS, write_klarf

__all__ = ["VERSIONS", "Defect", "ImageRef", "InspectedWafer", "Klarf", "KlarfError", "parse_klarf", "read_klarf"]
__all__ += ["write_klarf"]

_VERSION_1 = re.compile(r"FileVersion\s+1\s+([0-9]+)", re.IGNORECASE)
_VERSION_18 = re.compile(r'Record\s+FileRecord\s+"([^"]*)"')
_FLAT = ("0", "1", "2", "8")  # 1.8 too is written in the statements of 1.2, by some tools
_ACCEPTED = "accepted: 1.0 to 1.2, and 1.8"
_LARGEST = 2**30  # bytes; a million defects take about 100 MB


def read_klarf(path: str | Path) -> Klarf:
    """Read a KLARF file.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    Klarf
        Lengths in micrometres whatever the version. What is damaged or missing is told in `problems` (line and reason)
        and left out; everything else is read.

    Raises
    ------
    KlarfError
        No KLARF (no FileVersion, no FileRecord), a version that is not known, or more than 1 GiB.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> from semnr import klarf
    >>> layout = semnr.wafers.Wafer(pitch_um=(8000, 6500))
    >>> wafer = klarf.InspectedWafer("W1", layout, defects=(klarf.Defect(1, 0, 0, 100.0, 200.0),))
    >>> klarf.write_klarf("lot.klarf", klarf.Klarf("1.2", lot_id="L1", wafers=(wafer,)))
    >>> lot = klarf.read_klarf("lot.klarf")
    >>> lot.lot_id, lot.wafers[0].defects[0].x_um, lot.problems
    ('L1', 100.0, ())
    """
    path = Path(path)
    if path.stat().st_size > _LARGEST:
        raise KlarfError(f"{path} has {path.stat().st_size} bytes; accepted: a KLARF file of at most {_LARGEST}")
    return parse_klarf(path.read_bytes().decode("utf-8", errors="replace"), str(path))


def parse_klarf(text: str, name: str = "text") -> Klarf:
    r"""Read the text of a KLARF file.

    Parameters
    ----------
    text : str
        The text.
    name : str
        What an error calls it.

    Returns
    -------
    Klarf
        As `read_klarf`.

    Raises
    ------
    KlarfError
        As `read_klarf`.

    Examples
    --------
    >>> semnr.klarf.parse_klarf("FileVersion 1 2; LotID \"L1\"; EndOfFile;").lot_id
    'L1'
    """
    head = text[: 2**16]
    flat, version = _VERSION_1.search(head), _VERSION_18.search(head)
    if flat and not (version and version.start() < flat.start()):  # the later one is in somebody's text
        if flat[1] in _FLAT:
            return read1(text, f"1.{flat[1]}")
        raise KlarfError(f"{name} is KLARF 1.{flat[1]}; {_ACCEPTED}")
    if version:
        if version[1] == "1.8":
            return Reader18(text, "1.8").read()
        raise KlarfError(f"{name} is KLARF {version[1]}; {_ACCEPTED}")
    raise KlarfError(f'{name} is no KLARF file; accepted: one with "FileVersion 1 2;" or Record FileRecord "1.8"')
