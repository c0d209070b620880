"""The pixel size that a microscope wrote into its TIFF."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

FEI, FEI_XML, ZEISS, FIBICS = 34682, 34683, 34118, 51023
_NM = {"m": 1e9, "cm": 1e7, "mm": 1e6, "um": 1e3, "µm": 1e3, "μm": 1e3, "nm": 1.0, "Å": 0.1, "pm": 1e-3, "fm": 1e-6}


def in_nm(value: Any, unit: str) -> float | None:
    """`value` of `unit` in nm; None where it is no positive number or the unit no length."""
    try:
        size = float(value) * _NM[unit.strip()]
    except (TypeError, ValueError, KeyError):
        return None
    return size if math.isfinite(size) and size > 0 else None


def pixel_size_nm(path: str | Path) -> float | None:
    """The width of a pixel as the microscope recorded it.

    Parameters
    ----------
    path : path
        A TIFF of FEI, Thermo, Zeiss or another known vendor.

    Returns
    -------
    float or None
        In nm; None where the file does not say.

    Examples
    --------
    >>> from PIL import Image
    >>> Image.fromarray(noisy).save("a.tif")
    >>> semnr.tiles.pixel_size_nm("a.tif") is None
    True
    """
    import tifffile

    path = Path(path)
    if path.suffix.lower() not in (".tif", ".tiff", ".btf"):
        path.stat()
        return None
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            return pixel_size_of(file)
    except FileNotFoundError:
        raise
    except Exception:
        return None  # a damaged file says nothing here; reading its pixels says why


def pixel_size_of(file: Any) -> float | None:
    """The same, of an open tifffile.TiffFile."""
    tags = file.pages[0].tags
    zeiss = partial(_zeiss, width=file.pages[0].imagewidth)
    readers = ((FEI, _fei), (FEI_XML, _fei_xml), (ZEISS, zeiss), (FIBICS, _fibics))
    sizes = (read(tags[code].value) for code, read in readers if code in tags)
    size = next((size for size in sizes if size is not None), None)
    if size is None and file.is_ome:
        size = _ome(file.ome_metadata)
    return size


def _fei(value: Any) -> float | None:
    """FEI's ini text, which tifffile parses to sections; the scan of the beam that made the image."""
    if not isinstance(value, dict):
        return None
    for section in ("Scan", "EScan", "IScan"):
        size = in_nm(value.get(section, {}).get("PixelWidth"), "m")
        if size is not None:
            return size
    return None


def parsed_xml(value: Any) -> Any:
    """Root of XML text; None where it is none."""
    import xml.etree.ElementTree as ElementTree

    text = value if isinstance(value, bytes) else str(value).encode()
    if b"<!ENTITY" in text or value is None:
        return None  # entities have no place in image metadata
    try:
        return ElementTree.fromstring(text.rstrip(b"\0 \r\n"))
    except ElementTree.ParseError:
        return None


def _fei_xml(value: Any) -> float | None:
    root = parsed_xml(value)
    node = root.find(".//PixelSize/X") if root is not None else None
    return in_nm(node.text, node.get("unit", "m")) if node is not None else None


def _zeiss(value: Any, width: int) -> float | None:
    """SmartSEM: of the image, or of the screen of 1024 pixels that it was taken on, or the width of the field.

    A displayed size has four digits; the unnamed table behind it has them all.
    """
    if not isinstance(value, dict):
        return None
    if (size := _zeiss_length(value, "ap_image_pixel_size")) is not None:
        return _all_digits(value, size)
    screen, field = _zeiss_length(value, "ap_pixel_size"), _zeiss_length(value, "ap_width")
    if screen is None or (field is not None and abs(screen * 1024 - field) > 0.01 * field):
        return None if field is None else field / width
    return _all_digits(value, screen) * 1024 / width


def _zeiss_length(value: dict[str, Any], name: str) -> float | None:
    """In nm; None where there is none."""
    entry = value.get(name)
    return in_nm(entry[1], str(entry[2])) if isinstance(entry, tuple) and len(entry) > 2 else None


def _all_digits(value: dict[str, Any], shown: float) -> float:
    table = value.get("", ())
    exact = in_nm(table[3], "m") if isinstance(table, tuple) and len(table) > 3 else None
    return exact if exact is not None and abs(exact - shown) <= 0.001 * shown else shown


def _fibics(value: Any) -> float | None:
    """Atlas: (Ux, Uy) is the step of one pixel along x, in micrometres."""
    root = parsed_xml(value)
    scan = root.find("Scan") if root is not None else None
    if scan is None:
        return None
    try:
        return in_nm(math.hypot(float(scan.findtext("Ux", "")), float(scan.findtext("Uy", ""))), "um")
    except ValueError:
        return None


def _ome(value: Any) -> float | None:
    root = parsed_xml(value)
    node = next((n for n in root.iter() if n.tag.rpartition("}")[2] == "Pixels"), None) if root is not None else None
    return in_nm(node.get("PhysicalSizeX"), node.get("PhysicalSizeXUnit", "µm")) if node is not None else None
