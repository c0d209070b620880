"""KLARF 1.8: nested records of fields and typed lists, lengths in whole nanometres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..wafers import NOTCHES, Wafer
from .model import Defect, ImageRef, InspectedWafer, Klarf, defect_of
from .text import Token, as_whole, number, tokens, value, whole

_DEEPEST = 64  # records in records: damaged text must not exhaust the stack
_NM = 1000.0  # in a micrometre
# OrientationMarkLocation in degrees, clockwise from "down".
_BY_DEGREES = {0: "down", 90: "left", 180: "up", 270: "right"}


@dataclass
class Table:
    """A list: names of its columns, and the rows' cells. A cell of images is a tuple of ImageRef."""

    columns: list[str]
    rows: list[list[Any]]


@dataclass
class Record:
    """A record: what it is, its name, and what it holds."""

    kind: str
    name: str | None = None
    fields: dict[str, list[Any]] = field(default_factory=dict)
    lists: dict[str, Table] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)

    def all(self, kind: str) -> list[Record]:
        return [record for record in self.records if record.kind == kind]

    def first(self, name: str) -> Any:
        values = self.fields.get(name) or [None]
        return values[0]


class Reader18:
    """Reads KLARF 1.8."""

    def __init__(self, text: str, version: str) -> None:
        self.version = version
        self._items: Iterator[Token] = iter(list(tokens(text)))
        self._next: Token | None = next(self._items, None)
        self._last: Token | None = None
        self.problems: list[str] = []

    def read(self) -> Klarf:
        root = Record("root")
        self._body(root, 0)
        file = next(iter(root.all("FileRecord")), root)
        lots = file.all("LotRecord")
        lot = lots[0] if lots else Record("LotRecord")
        if len(lots) > 1:
            self.problems.append(f"{len(lots)} lots; the first one's facts stand for all wafers")
        wafers = [wafer for one in lots for wafer in one.all("WaferRecord")]
        classes = lot.lists.get("ClassLookupList")
        return Klarf(
            version=self.version,
            lot_id=lot.name,
            device_id=_text(lot.first("DeviceID")),
            step_id=_text(lot.first("StepID")),
            setup_id=_text(lot.first("RecipeID")),
            station=tuple(str(v) for v in lot.fields.get("InspectionStationID", ())),
            wafers=tuple(self._wafer(wafer, lot) for wafer in wafers),
            classes={int(r[0]): str(r[1]) for r in _wide(classes) if as_whole(r[0]) is not None},
            problems=tuple(self.problems),
        )

    # --- grammar ----------------------------------------------------------------------------------------------

    def _take(self) -> Token | None:
        token, self._next = self._next, next(self._items, None)
        self._last = token or self._last
        return token

    def _body(self, into: Record, depth: int) -> None:
        """Fields, lists and records up to the closing brace, or to the end of the text."""
        while (token := self._take()) is not None:
            if token.is_mark("}") and depth:
                return
            if token.quoted or token.text not in ("Record", "Field", "List"):
                if not token.is_mark(";") and token.text != "EndOfFile":
                    self._problem(token, f"{token.text!r} where Record, Field or List was expected")
                continue
            name = self._take()
            if name is None:
                break
            if token.text == "Field":
                into.fields[name.text] = self._field(name)
            elif token.text == "List":
                into.lists[name.text] = self._list(name)
            else:
                into.records.append(self._record(name, depth))
        if depth:
            self.problems.append(f"{into.kind} is not closed: the file may be cut off")

    def _record(self, kind: Token, depth: int) -> Record:
        named = self._take() if self._next is not None and not self._next.is_mark("{") else None
        record = Record(kind.text, None if named is None else named.text)
        if self._next is None or not self._next.is_mark("{"):
            self._problem(kind, f"{kind.text} without a body")
            return record
        if depth >= _DEEPEST:
            self._problem(kind, f"more than {_DEEPEST} records in records; the rest of the file is not read")
            while self._take() is not None:
                pass
            return record
        self._take()
        self._body(record, depth + 1)
        return record

    def _braced(self) -> list[list[Token]]:
        """Tokens of { ... }, split at the commas. Nothing where no brace follows."""
        if self._next is None or not self._next.is_mark("{"):
            return []
        self._take()
        parts: list[list[Token]] = [[]]
        while (token := self._take()) is not None and not token.is_mark("}"):
            if token.is_mark(","):
                parts.append([])
            else:
                parts[-1].append(token)
        return [part for part in parts if part]

    def _field(self, name: Token) -> list[Any]:
        announced = number(self._take()) if self._next is not None and not self._next.is_mark("{") else None
        values = [value(part[0]) for part in self._braced()]
        if announced is not None and announced != len(values):
            self._problem(name, f"{name.text} announces {announced} values and has {len(values)}")
        return values

    def _list(self, name: Token) -> Table:
        table = Table([], [])
        if self._next is None or not self._next.is_mark("{"):
            self._problem(name, f"List {name.text} without a body")
            return table
        self._take()
        kinds: list[str] = []
        while (token := self._take()) is not None and not token.is_mark("}"):
            if token.text == "Columns" and not token.quoted:
                self._skip_count()
                parts = self._braced()
                if table.rows:
                    self._problem(token, f"{name.text} names its columns again after rows; they are kept as they were")
                    continue
                kinds = [part[0].text.lower() for part in parts]
                table.columns = [part[-1].text.upper() for part in parts]
            elif token.text == "Data" and not token.quoted:
                announced = self._skip_count()
                self._rows(table, kinds)
                if announced is not None and announced != len(table.rows):
                    self._problem(name, f"{name.text} announces {announced} rows, {len(table.rows)} were read")
        return table

    def _skip_count(self) -> int | float | None:
        return number(self._take()) if self._next is not None and not self._next.is_mark("{") else None

    def _rows(self, table: Table, kinds: list[str]) -> None:
        if self._next is None or not self._next.is_mark("{"):
            return
        self._take()
        row: list[Any] = []
        line = 0
        while (token := self._take()) is not None and not token.is_mark("}"):
            if token.is_mark(";") or (token.line > line and len(row) == len(table.columns) and row):
                self._end_row(table, row, token)
                row = []
                if token.is_mark(";"):
                    continue
            line = token.line
            if token.text == "Images" and not token.quoted:
                row.append(self._images(token))
                line = token.line if self._last is None else self._last.line
            elif len(row) < len(kinds) and kinds[len(row)] == "imagelist":
                row.append(())
            else:
                row.append(value(token))
        if row:  # the last one may lack its `;`
            self._end_row(table, row, token or self._last)

    def _end_row(self, table: Table, row: list[Any], at: Token | None) -> None:
        if len(row) == len(table.columns):
            table.rows.append(row)
        else:
            self._problem(at, f"a row of {len(row)} cells; Columns names {len(table.columns)}")

    def _images(self, keyword: Token) -> tuple[ImageRef, ...]:
        announced, parts = self._skip_count(), self._braced()
        if announced is not None and announced != len(parts):
            self._problem(keyword, f"Images announces {announced} images and has {len(parts)}")
        return tuple(_image(part) for part in parts)

    # --- meaning ----------------------------------------------------------------------------------------------

    def _wafer(self, record: Record, lot: Record) -> InspectedWafer:
        slot = record.first("SlotNumber")
        plans = [test.lists.get("SampleTestPlanList") for test in record.all("TestRecord")]
        rows = [row for plan in plans for row in _wide(plan)]
        return InspectedWafer(
            wafer_id=record.name,
            layout=self._layout(record, lot),
            slot=as_whole(slot),
            test_plan=self._test_plan(rows),
            defects=tuple(self._defects(record.lists.get("DefectList"))),
        )

    def _test_plan(self, rows: list[list[Any]]) -> tuple[tuple[int, int], ...]:
        places = [(as_whole(row[0]), as_whole(row[1])) for row in rows]
        known = [(x, y) for x, y in places if x is not None and y is not None]
        if len(known) < len(places):
            self.problems.append(
                f"SampleTestPlanList has {len(places) - len(known)} dies whose index is no whole number"
            )
        return tuple(dict.fromkeys(known))

    def _layout(self, record: Record, lot: Record) -> Wafer | None:
        pitch = _pair(lot.fields.get("DiePitch")) or _pair(record.fields.get("DiePitch"))
        if pitch is None or min(pitch) <= 0:
            self.problems.append("no DiePitch above 0: absolute positions are unknown")
            return None
        diameter = lot.first("SampleSize")
        notch = lot.first("OrientationMarkLocation")
        name = _BY_DEGREES.get(notch, "down") if _is_number(notch) else str(notch).lower()
        try:
            return Wafer(
                pitch_um=pitch,
                center_um=_pair(record.fields.get("SampleCenterLocation")) or (0.0, 0.0),
                diameter_um=diameter / _NM if _is_number(diameter) and diameter > 0 else 300_000.0,
                notch=name if name in NOTCHES else "down",
            )
        except ValueError as error:
            self.problems.append(f"the layout cannot be used: {error}")
            return None

    def _defects(self, table: Table | None) -> Iterator[Defect]:
        for cells in [] if table is None else table.rows:
            row = dict(zip(table.columns, cells, strict=True))  # type: ignore[union-attr]
            images = next((cell for cell in cells if isinstance(cell, tuple)), ())
            defect = defect_of({n: cell for n, cell in row.items() if not isinstance(cell, tuple)}, images, _NM)
            if isinstance(defect, Defect):
                yield defect
            else:
                self.problems.append(f"{defect}, in the row {', '.join(map(str, cells[:5]))}")

    def _problem(self, token: Token | None, what: str) -> None:
        line = "at the end" if token is None else f"line {token.line}"
        self.problems.append(f"{line}: {what}")


def _image(part: list[Token]) -> ImageRef:
    """`"path" "TIFF" 1 "Patch"`: file, format, number of the image in it (from 1), what it shows."""
    return ImageRef(
        file=part[0].text or None,
        page=whole(part[2]) if len(part) > 2 else None,
        kind=(part[3].text or None) if len(part) > 3 else (part[1].text if len(part) > 1 else None),
    )


def _wide(table: Table | None) -> list[list[Any]]:
    """Rows of two cells and more."""
    return [] if table is None else [row for row in table.rows if len(row) > 1]


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _pair(values: list[Any] | None) -> tuple[float, float] | None:
    """Nanometres of the file as micrometres."""
    if values is None or len(values) < 2 or not all(map(_is_number, values[:2])):
        return None
    return values[0] / _NM, values[1] / _NM


def _text(cell: Any) -> str | None:
    return None if cell is None else str(cell)
