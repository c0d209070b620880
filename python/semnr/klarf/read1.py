"""KLARF 1.0 to 1.2: statements that end in `;`, lengths in micrometres."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..wafers import NOTCHES, Wafer
from .model import Defect, ImageRef, InspectedWafer, Klarf, defect_of
from .text import Token, number, tokens, value

_LISTS = ("DefectList", "SummaryList", "DefectClusterList")
_MOST_IMAGES = 10_000  # of one defect: more is a damaged count, not a picture book


@dataclass
class _Wafer:
    """What is collected for one wafer until its defects are known."""

    wafer_id: str | None = None
    slot: int | None = None
    center: tuple[float, float] = (0.0, 0.0)
    plan: list[tuple[int, int]] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)


class _Cursor:
    """Tokens with one of lookahead."""

    def __init__(self, items: Iterable[Token]) -> None:
        self._items = iter(items)
        self.next: Token | None = next(self._items, None)

    def take(self) -> Token:
        token = self.next
        if token is None:
            raise EOFError
        self.next = next(self._items, None)
        return token

    def statement(self) -> list[Token]:
        """Tokens up to the `;`, which is taken too."""
        found: list[Token] = []
        while self.next is not None:
            token = self.take()
            if token.is_mark(";"):
                break
            found.append(token)
        return found


class Reader1:
    """Reads KLARF 1.x. A file may hold several wafers, and several tests of each."""

    def __init__(self, text: str, version: str) -> None:
        self.version, self.cursor = version, _Cursor(tokens(text))
        self.problems: list[str] = []
        self.facts: dict[str, list[Token]] = {}
        self.classes: dict[int, str] = {}
        self.wafers: list[_Wafer] = []
        self.columns: list[str] = []
        self.tiff: str | None = None

    def read(self) -> Klarf:
        while (token := self.cursor.next) is not None:
            if token.is_mark(";"):
                self.cursor.take()
            elif not token.is_word:
                self._problem(token, f"{token.text!r} where a keyword was expected")
                self.cursor.statement()
            elif self._statement(self.cursor.take()):
                break
        else:
            self.problems.append("no EndOfFile: the file may be cut off")
        layouts = [self._layout(wafer) for wafer in self.wafers]
        return Klarf(
            version=self.version,
            lot_id=self._text("LotID"),
            device_id=self._text("DeviceID"),
            step_id=self._text("StepID"),
            setup_id=self._text("SetupID"),
            station=tuple(t.text for t in self.facts.get("InspectionStationID", ())),
            wafers=tuple(
                InspectedWafer(w.wafer_id, layout, w.slot, tuple(w.plan), tuple(w.defects))
                for w, layout in zip(self.wafers, layouts, strict=True)
            ),
            classes=self.classes,
            problems=tuple(self.problems),
        )

    def _statement(self, keyword: Token) -> bool:
        """Read one statement; True after EndOfFile."""
        name = keyword.text
        if name == "EndOfFile":
            return True
        if name == "DefectList":
            self._defects()
        elif name in _LISTS:
            self.cursor.statement()
        elif name.lower() == "tifffilename":
            self._tiff_name(keyword)
        else:
            self._fact(name, self.cursor.statement())
        return False

    def _fact(self, name: str, given: list[Token]) -> None:
        wafer = self._wafer
        if name == "WaferID":
            if wafer.wafer_id is not None:
                self.wafers.append(_Wafer(center=wafer.center))
            self._wafer.wafer_id = given[0].text if given else None
        elif name == "Slot":
            found = number(given[0]) if given else None
            wafer.slot = None if found is None else int(found)
        elif name == "SampleCenterLocation":
            wafer.center = self._pair(name, given) or wafer.center
        elif name == "SampleTestPlan":
            self._test_plan(given)
        elif name == "ClassLookup":
            self._classes(given)
        elif name == "DefectRecordSpec":
            self.columns = [token.text.upper() for token in given[1:]]
        else:
            self.facts[name] = given

    @property
    def _wafer(self) -> _Wafer:
        if not self.wafers:
            self.wafers.append(_Wafer())
        return self.wafers[-1]

    def _test_plan(self, given: list[Token]) -> None:
        numbers = [number(token) for token in given[1:]]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
        self._wafer.plan.extend((int(x), int(y)) for x, y in pairs if x is not None and y is not None)
        count = number(given[0]) if given else None
        if count != len(pairs):
            self.problems.append(f"SampleTestPlan announces {count} dies and lists {len(pairs)}")

    def _classes(self, given: list[Token]) -> None:
        for code, name in zip(given[1::2], given[2::2], strict=False):
            found = number(code)
            if found is not None:
                self.classes[int(found)] = name.text

    def _tiff_name(self, keyword: Token) -> None:
        """`TiffFileName x.tif;`, or without the `;` between the rows of a DefectList."""
        token = self.cursor.next
        if token is None or token.line != keyword.line:
            self._problem(keyword, "TiffFileName without a name")
            return
        parts = []
        while (token := self.cursor.next) is not None and token.line == keyword.line and not token.is_mark(";"):
            parts.append(self.cursor.take().text)
        self.tiff = " ".join(parts)

    # --- the rows of a DefectList -----------------------------------------------------------------------------

    def _defects(self) -> None:
        """Rows until a keyword. Tools end the list with one `;`, some end each row with one."""
        if not self.columns:
            self.problems.append("DefectList without a DefectRecordSpec before it: its rows are not read")
            self.cursor.statement()
            return
        images_at = self.columns.index("IMAGELIST") if "IMAGELIST" in self.columns else None
        plain = len(self.columns) if images_at is None else images_at
        if plain == 0:
            self.problems.append("DefectRecordSpec begins with IMAGELIST: the rows of its DefectList are not read")
            self.cursor.statement()
            return
        while (token := self.cursor.next) is not None:
            if token.is_mark(";"):
                self.cursor.take()
            elif token.is_word and number(token) is None:
                if token.text.lower() != "tifffilename":
                    return
                self._tiff_name(self.cursor.take())
            else:
                self._row(plain, images_at is not None)

    def _row(self, plain: int, has_images: bool) -> None:
        first = self.cursor.next
        cells: list[Token] = []
        while len(cells) < plain and self.cursor.next is not None and not self.cursor.next.is_mark(";"):
            cells.append(self.cursor.take())
        row = dict(zip(self.columns, (value(cell) for cell in cells), strict=False))
        images: tuple[ImageRef, ...] = ()
        if len(cells) == plain and has_images:
            images = self._images(row)
            if not images:
                self._skip_empty_list(cells[-1])
        if len(cells) < plain:
            self._problem(first, f"a defect of {len(cells)} columns; DefectRecordSpec has {len(self.columns)}")
            return
        defect = defect_of(row, images, 1.0)
        if defect is None:
            self._problem(first, "a defect without DEFECTID, XREL, YREL, XINDEX or YINDEX as numbers")
        else:
            self._wafer.defects.append(defect)

    def _images(self, row: dict[str, Any]) -> tuple[ImageRef, ...]:
        count = row.get("IMAGECOUNT")
        if not isinstance(count, int) or not 0 <= count <= _MOST_IMAGES:
            return ()
        found = []
        for _ in range(count):  # a pair each: number of the image in the file, type
            pair: list[int | float | None] = []
            while len(pair) < 2 and self.cursor.next is not None and number(self.cursor.next) is not None:
                pair.append(number(self.cursor.take()))
            if len(pair) < 2:
                break
            found.append(ImageRef(self.tiff, int(pair[0] or 0), str(pair[1])))
        return tuple(found)

    def _skip_empty_list(self, last: Token) -> None:
        """Some tools write an empty IMAGELIST as a lone 0, others leave it out: the next row starts a line."""
        token = self.cursor.next
        if token is not None and token.line == last.line and token.text == "0":
            self.cursor.take()

    # --- the layout -------------------------------------------------------------------------------------------

    def _layout(self, wafer: _Wafer) -> Wafer | None:
        pitch = self._pair("DiePitch", self.facts.get("DiePitch", []))
        if pitch is None or min(pitch) <= 0:
            self.problems.append("no DiePitch above 0: absolute positions are unknown")
            return None
        size = [number(token) for token in self.facts.get("SampleSize", [])]
        diameter = size[-1] if size and size[-1] else 300
        notch = (self._text("OrientationMarkLocation") or "down").lower()
        return Wafer(
            pitch_um=pitch,
            center_um=wafer.center,
            diameter_um=float(diameter) * 1000 if diameter > 0 else 300_000.0,
            notch=notch if notch in NOTCHES else _BY_DEGREES.get(notch, "down"),
        )

    def _pair(self, name: str, given: list[Token]) -> tuple[float, float] | None:
        numbers = [number(token) for token in given[:2]]
        if len(numbers) < 2 or numbers[0] is None or numbers[1] is None:
            if given:
                self.problems.append(f"{name} is {' '.join(t.text for t in given)!r}; expected two numbers")
            return None
        return float(numbers[0]), float(numbers[1])

    def _text(self, name: str) -> str | None:
        given = self.facts.get(name)
        return given[0].text if given else None

    def _problem(self, token: Token | None, what: str) -> None:
        line = "at the end" if token is None else f"line {token.line}"
        self.problems.append(f"{line}: {what}")


# Degrees, as newer tools write the mark's place: clockwise from "down".
_BY_DEGREES = {"0": "down", "90": "left", "180": "up", "270": "right"}
