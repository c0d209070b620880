"""Writes KLARF 1.2 and 1.8: a list of sites that a review tool opens to move to them."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..base.files import atomic
from ..wafers import Wafer
from .model import Defect, ImageRef, InspectedWafer, Klarf

VERSIONS = ("1.2", "1.8")
_COLUMNS = (
    *("DEFECTID", "XREL", "YREL", "XINDEX", "YINDEX", "XSIZE", "YSIZE", "DEFECTAREA", "DSIZE"),
    *("CLASSNUMBER", "TEST", "CLUSTERNUMBER", "ROUGHBINNUMBER", "FINEBINNUMBER", "REVIEWSAMPLE"),
)
_FLOATS_18 = ("DEFECTAREA",)
_BARE = re.compile(r"[^\s{};,\"]+")
_CLOCKWISE = {"down": 0, "left": 90, "up": 180, "right": 270}


def write_klarf(path: str | Path, klarf: Klarf, *, version: str = "1.2", when: datetime.datetime | None = None) -> None:
    """Write a KLARF file, whole or not at all.

    Lengths are written in micrometres to a picometre (1.2) or in whole nanometres (1.8). Text that KLARF cannot hold
    (quotes, line breaks) is replaced by spaces.

    Parameters
    ----------
    path : path
        The file.
    klarf : Klarf
        What to write.
    version : {"1.2", "1.8"}
        Version of the file.
    when : datetime, optional
        Time stamp of the file. Default: now.

    Raises
    ------
    ValueError
        An unknown version, no wafer, a wafer without a layout, a place that is no finite number, or a defect with
        images in several files where version is "1.2", which has one file a row.
    OSError
        The disk is full or read-only: what was at `path` before is kept.

    Examples
    --------
    >>> layout = semnr.wafers.Wafer(pitch_um=(8000, 6500))
    >>> wafers = (semnr.klarf.InspectedWafer("W1", layout),)
    >>> semnr.klarf.write_klarf("lot.klarf", semnr.klarf.Klarf("1.8", wafers=wafers), version="1.8")
    >>> semnr.klarf.read_klarf("lot.klarf").version
    '1.8'
    """
    if version not in VERSIONS:
        raise ValueError(f"version is {version!r}; accepted: {', '.join(map(repr, VERSIONS))}")
    if not klarf.wafers or any(wafer.layout is None for wafer in klarf.wafers):
        raise ValueError("klarf has no wafer, or one without a layout; accepted: at least one, each with its die pitch")
    for defect in (defect for wafer in klarf.wafers for defect in wafer.defects):
        if not all(map(math.isfinite, (defect.x_um, defect.y_um, *_size(defect)))):
            raise ValueError(f"defect {defect.id} is at {defect.x_um}, {defect.y_um}; accepted: finite numbers")
        if version == "1.2" and len({image.file for image in defect.images}) > 1:
            raise ValueError(f"defect {defect.id} has images in several files; accepted by 1.2: one file, by 1.8: any")
    when = when or datetime.datetime.now()
    lines = _lines_12(klarf, when) if version == "1.2" else _lines_18(klarf, when)
    with atomic(Path(path)) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _quoted(text: object) -> str:
    clean = "" if text is None else "".join(" " if c in '"\r\n\t\0' else c for c in str(text))
    return f'"{clean}"'


def _size(defect: Defect) -> tuple[float, float, float, float]:
    """Width, height, area and the larger side, micrometres; 0 where unknown."""
    width, height = defect.size_um or (0.0, 0.0)
    return width, height, width * height if defect.area_um2 is None else defect.area_um2, max(width, height)


# --- 1.2 ------------------------------------------------------------------------------------------------------


def _lines_12(klarf: Klarf, when: datetime.datetime) -> Iterator[str]:
    stamp = when.strftime("%m-%d-%y %H:%M:%S")
    station = [*klarf.station, "", "", ""][:3]
    first = klarf.wafers[0].layout
    yield "FileVersion 1 2;"
    yield f"FileTimestamp {stamp};"
    yield f"InspectionStationID {' '.join(map(_quoted, station))};"
    yield "SampleType WAFER;"
    yield f"ResultTimestamp {stamp};"
    yield f"LotID {_quoted(klarf.lot_id)};"
    yield f"SampleSize 1 {_whole(first.diameter_um / 1000)};"  # type: ignore[union-attr]
    yield f"DeviceID {_quoted(klarf.device_id)};"
    yield f"SetupID {_quoted(klarf.setup_id)} {stamp};"
    yield f"StepID {_quoted(klarf.step_id)};"
    yield "SampleOrientationMarkType NOTCH;"
    yield f"OrientationMarkLocation {first.notch.upper()};"  # type: ignore[union-attr]
    yield "DiePitch {:.10e} {:.10e};".format(*first.pitch_um)  # type: ignore[union-attr]
    yield "DieOrigin 0.0 0.0;"
    for wafer in klarf.wafers:
        yield from _wafer_12(klarf, wafer)
    yield "EndOfFile;"


def _wafer_12(klarf: Klarf, wafer: InspectedWafer) -> Iterator[str]:
    layout = wafer.layout
    yield f"WaferID {_quoted(wafer.wafer_id)};"
    yield f"Slot {wafer.slot or 0};"
    yield "SampleCenterLocation {:.10e} {:.10e};".format(*layout.center_um)  # type: ignore[union-attr]
    if klarf.classes:
        yield f"ClassLookup {len(klarf.classes)}"
        yield from _ended([f" {code} {_quoted(name)}" for code, name in klarf.classes.items()])
    yield "InspectionTest 1;"
    plan = _plan(wafer)
    yield f"SampleTestPlan {len(plan)}"
    yield from _ended([f" {x} {y}" for x, y in plan])
    yield f"AreaPerTest {_area(plan, layout):.10e};"
    shown = any(defect.images for defect in wafer.defects)
    columns = (*_COLUMNS, "IMAGECOUNT", "IMAGELIST") if shown else _COLUMNS
    yield f"DefectRecordSpec {len(columns)} {' '.join(columns)};"
    yield "DefectList"
    yield from _ended(list(_rows_12(wafer.defects, shown)))
    yield "SummarySpec 5 TESTNO NDEFECT DEFDENSITY NDIE NDEFDIE;"
    yield "SummaryList"
    yield f" {_summary(wafer, plan, 1e8)};"


def _rows_12(defects: Sequence[Defect], shown: bool) -> Iterator[str]:
    """A line a defect, before it the file of its images where that is another one."""
    file: str | None = None
    for defect in defects:
        if defect.images and defect.images[0].file != file:
            file = defect.images[0].file
            yield f"TiffFileName {';' if file is None else file if _BARE.fullmatch(file) else _quoted(file)}"
        yield _row_12(defect) + (_images_12(defect.images) if shown else "")


def _images_12(images: Sequence[ImageRef]) -> str:
    """IMAGECOUNT, then IMAGELIST: its own count, and page and type of each; 0 where the type is no number."""
    pairs = (f" {1 if i.page is None else i.page} {i.kind if (i.kind or '').isdecimal() else 0}" for i in images)
    return f" {len(images)} {len(images)}{''.join(pairs)}"


def _row_12(defect: Defect) -> str:
    width, height, area, longest = _size(defect)
    lengths = (defect.x_um, defect.y_um, width, height, longest)
    x, y, width_text, height_text, longest_text = (f"{v:.6f}" for v in lengths)
    return (
        f" {defect.id} {x} {y} {defect.die_x} {defect.die_y} {width_text} {height_text} {area:.9g} {longest_text} "
        f"{defect.class_number or 0} 1 0 0 0 1"
    )


def _ended(lines: Sequence[str]) -> list[str]:
    """The lines of a list, the last of them with its `;`."""
    return [*lines[:-1], f"{lines[-1]};"] if lines else [";"]


# --- 1.8 ------------------------------------------------------------------------------------------------------


def _lines_18(klarf: Klarf, when: datetime.datetime) -> Iterator[str]:
    day, clock = when.strftime("%Y-%m-%d"), when.strftime("%H:%M:%S")
    stamp = f'2 {{"{day}", "{clock}"}}'
    station = [*klarf.station, "", "", ""][:3]
    layout = klarf.wafers[0].layout
    yield 'Record FileRecord "1.8"'
    yield "{"
    yield f"  Field FileTimestamp {stamp}"
    yield f"  Record LotRecord {_quoted(klarf.lot_id)}"
    yield "  {"
    yield f"    Field DeviceID 1 {{{_quoted(klarf.device_id)}}}"
    yield f"    Field DiePitch 2 {{{_nm(layout.pitch_um[0])}, {_nm(layout.pitch_um[1])}}}"  # type: ignore[union-attr]
    yield f"    Field InspectionStationID 3 {{{', '.join(map(_quoted, station))}}}"
    yield f"    Field OrientationMarkLocation 1 {{{_CLOCKWISE[layout.notch]}}}"  # type: ignore[union-attr]
    yield f'    Field RecipeID 3 {{{_quoted(klarf.setup_id)}, "{day}", "{clock}"}}'
    yield f"    Field ResultTimestamp {stamp}"
    yield '    Field SampleOrientationMarkType 1 {"NOTCH"}'
    yield f"    Field SampleSize 2 {{{_nm(layout.diameter_um)}, 0}}"  # type: ignore[union-attr]
    yield '    Field SampleType 1 {"WAFER"}'
    yield f"    Field StepID 1 {{{_quoted(klarf.step_id)}}}"
    for wafer in klarf.wafers:
        yield from _wafer_18(wafer)
    if klarf.classes:
        rows = [f'{code} {_quoted(name)} ""' for code, name in klarf.classes.items()]
        yield from _list_18(
            "ClassLookupList", ("int32 CLASSNUMBER", "string CLASSNAME", "string CLASSCODE"), rows, "    "
        )
    yield "  }"
    yield "}"
    yield "EndOfFile;"


def _wafer_18(wafer: InspectedWafer) -> Iterator[str]:
    layout, plan = wafer.layout, _plan(wafer)
    yield f"    Record WaferRecord {_quoted(wafer.wafer_id)}"
    yield "    {"
    yield "      Field DieOrigin 2 {0, 0}"
    yield f"      Field SampleCenterLocation 2 {{{_nm(layout.center_um[0])}, {_nm(layout.center_um[1])}}}"  # type: ignore[union-attr]
    yield f"      Field SlotNumber 1 {{{wafer.slot or 0}}}"
    typed = [f"{'float' if name in _FLOATS_18 else 'int32'} {name}" for name in _COLUMNS]
    shown = any(defect.images for defect in wafer.defects)
    rows = [_row_18(d) + (f" {_images_18(d.images)}" if shown else "") for d in wafer.defects]
    yield from _list_18("DefectList", [*typed, *["ImageList IMAGEINFO"] * shown], rows, "      ")
    yield '      Record TestRecord "1"'
    yield "      {"
    yield f"        Field AreaPerTest 1 {{{_area(plan, layout) * 1e6:.10e}}}"
    rows = [f"{x} {y}" for x, y in plan]
    yield from _list_18("SampleTestPlanList", ("int32 XINDEX", "int32 YINDEX"), rows, "        ")
    yield "      }"
    yield "      Record SummaryRecord"
    yield "      {"
    columns = ("int32 TESTNO", "int32 NDEFECT", "float DEFDENSITY", "int32 NDIE", "int32 NDEFDIE")
    yield from _list_18("TestSummaryList", columns, [_summary(wafer, plan, 1e8)], "        ")
    yield "      }"
    yield "    }"


def _row_18(defect: Defect) -> str:
    width, height, area, longest = _size(defect)
    return (
        f"{defect.id} {_nm(defect.x_um)} {_nm(defect.y_um)} {defect.die_x} {defect.die_y} {_nm(width)} {_nm(height)} "
        f"{area * 1e6:.9g} {_nm(longest)} {defect.class_number or 0} 1 0 0 0 1"
    )


def _images_18(images: Sequence[ImageRef]) -> str:
    """File, format, page and type of each image; N where there is none."""
    if not images:
        return "N"
    parts = []
    for image in images:
        form = (image.file or "").rpartition(".")[2].upper()
        page = "N" if image.page is None else image.page
        parts.append(f"{_quoted(image.file)} {_quoted({'TIF': 'TIFF'}.get(form, form))} {page} {_quoted(image.kind)}")
    return f"Images {len(images)} {{ {', '.join(parts)} }}"


def _list_18(name: str, columns: Sequence[str], rows: Sequence[str], indent: str) -> Iterator[str]:
    yield f"{indent}List {name}"
    yield f"{indent}{{"
    yield f"{indent}  Columns {len(columns)} {{ {', '.join(columns)} }}"
    yield f"{indent}  Data {len(rows)}"
    yield f"{indent}  {{"
    yield from (f"{indent}    {row};" for row in rows)
    yield f"{indent}  }}"
    yield f"{indent}}}"


# --- both -----------------------------------------------------------------------------------------------------


def _plan(wafer: InspectedWafer) -> list[tuple[int, int]]:
    """The inspected dies; those of the defects where the plan is not known."""
    return list(wafer.test_plan) or sorted({(d.die_x, d.die_y) for d in wafer.defects})


def _area(plan: Sequence[tuple[int, int]], layout: Wafer | None) -> float:
    """Area of the inspected dies, square micrometres."""
    return len(plan) * layout.pitch_um[0] * layout.pitch_um[1]  # type: ignore[union-attr]


def _summary(wafer: InspectedWafer, plan: Sequence[tuple[int, int]], per_area: float) -> str:
    """Test, defects, defects a square centimetre, dies, dies with defects."""
    area = _area(plan, wafer.layout)
    density = len(wafer.defects) * per_area / area if area else 0.0
    return f"1 {len(wafer.defects)} {density:.6e} {len(plan)} {len({(d.die_x, d.die_y) for d in wafer.defects})}"


def _nm(um: float) -> int:
    return round(um * 1000)


def _whole(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
