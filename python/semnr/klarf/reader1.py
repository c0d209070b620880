"""KLARF 1.0 to 1.2: statements that end in `;`, lengths in micrometres."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..wafers import NOTCHES, Wafer
from .model import Defect, ImageRef, InspectedWafer, Klarf, defect_of
from .rows1 import FILE_NAMES, GRAMMARS, KEYWORDS, Cursor, Row, Shape
from .text import Token, number, tokens, value, whole


@dataclass
class _Wafer:
    """What is collected for one wafer until its defects are known."""

    wafer_id: str | None = None
    slot: int | None = None
    center: tuple[float, float] = (0.0, 0.0)
    plan: list[tuple[int, int]] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)


def read1(text: str, version: str) -> Klarf:
    """KLARF 1.x, in that grammar of IMAGELIST by which most rows are defects."""
    best: tuple[int, Klarf] | None = None
    for grammar in GRAMMARS:
        reader = Reader1(text, version, grammar)
        klarf = reader.read()
        count = sum(len(wafer.defects) for wafer in klarf.wafers)
        best = (count, klarf) if best is None or count > best[0] else best
        if not reader.lost or not reader.has_images:
            break
    return best[1]  # type: ignore[index]


class Reader1:
    """Reads KLARF 1.x. A file may hold several wafers, and several tests of each."""

    def __init__(self, text: str, version: str, grammar: str) -> None:
        self.version, self.cursor, self.grammar = version, Cursor(tokens(text)), grammar
        self.lost = 0  # rows that are no defects
        self.has_images = False
        self.problems: list[str] = []
        self.facts: dict[str, list[Token]] = {}
        self.classes: dict[int, str] = {}
        self.wafers: list[_Wafer] = []
        self.columns: list[str] = []
        self.tiff: str | None = None
        self.own: str | None = None  # the name that stands directly before a row

    def read(self) -> Klarf:
        while (token := self.cursor.next) is not None:
            if token.is_mark(";"):
                self.cursor.take()
            elif not token.is_word:
                self._problem(token, f"{token.text!r} where a keyword was expected")
                self.cursor.drop_line()
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
        name = KEYWORDS.get(keyword.text.lower(), keyword.text)
        if name == "EndOfFile":
            return True
        if name == "DefectList":
            self._defects()
        elif name.lower() in FILE_NAMES:
            self._file_name(keyword)
        else:
            self._fact(name, self._given(keyword))
        return False

    def _given(self, keyword: Token) -> list[Token]:
        """What a statement says: up to its `;`, or where that is missing to the line that begins another one."""
        tokens: list[Token] = []
        while (token := self.cursor.next) is not None:
            if token.is_mark(";"):
                self.cursor.take()
                break
            if self.cursor.starts_line() and self.cursor.keyword() is not None:
                self._problem(keyword, f"{keyword.text} does not end in ';', {token.text} begins on line {token.line}")
                break
            tokens.append(self.cursor.take())
        return tokens

    def _fact(self, name: str, given: list[Token]) -> None:
        wafer = self._wafer
        if name == "WaferID":
            if wafer.wafer_id is not None:
                self.wafers.append(_Wafer(center=wafer.center))
            self._wafer.wafer_id = given[0].text if given else None
        elif name == "Slot":
            wafer.slot = whole(given[0]) if given else None
        elif name == "SampleCenterLocation":
            wafer.center = self._pair(name, given) or wafer.center
        elif name == "SampleTestPlan":
            self._test_plan(given)
        elif name == "ClassLookup":
            self._classes(given)
        elif name == "DefectRecordSpec":
            self._columns(given)
        else:
            self.facts[name] = given

    @property
    def _wafer(self) -> _Wafer:
        if not self.wafers:
            self.wafers.append(_Wafer())
        return self.wafers[-1]

    def _test_plan(self, given: list[Token]) -> None:
        numbers = [whole(token) for token in given[1:]]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
        known = [(x, y) for x, y in pairs if x is not None and y is not None]
        self._wafer.plan.extend(known)
        if len(known) < len(pairs):
            self.problems.append(f"SampleTestPlan has {len(pairs) - len(known)} dies whose index is no whole number")
        count = number(given[0]) if given else None
        if count != len(pairs) or len(numbers) % 2:
            self.problems.append(f"SampleTestPlan announces {count} dies and lists {len(pairs)}")

    def _classes(self, given: list[Token]) -> None:
        for code, name in zip(given[1::2], given[2::2], strict=False):
            number = whole(code)
            if number is not None:
                self.classes[number] = name.text

    def _columns(self, given: list[Token]) -> None:
        count = whole(given[0]) if given else None
        self.columns = [token.text.upper() for token in given[count is not None :]]
        if count != len(self.columns):
            self.problems.append(f"DefectRecordSpec announces {count} columns and names {len(self.columns)}")
        if twice := sorted({name for name in self.columns if self.columns.count(name) > 1}):
            self.problems.append(f"DefectRecordSpec names {', '.join(twice)} twice; the last one is taken")

    def _file_name(self, keyword: Token) -> None:
        """`TiffFileName x.tif;`, or without the `;` between the rows of a DefectList."""
        parts = []
        while (token := self.cursor.next) is not None and token.line == keyword.line and not token.is_mark(";"):
            parts.append(self.cursor.take().text)
        self.tiff = self.own = " ".join(parts) or None
        if not parts and (token is None or not token.is_mark(";") or token.line != keyword.line):
            self._problem(keyword, f"{keyword.text} without a name")

    # --- the rows of a DefectList -----------------------------------------------------------------------------

    def _defects(self) -> None:
        """Rows until another statement. Tools end the list with one `;`, some end each row with one."""
        shape = Shape(self.columns, self.grammar)
        self.has_images = self.has_images or "IMAGELIST" in self.columns
        why = "DefectRecordSpec names no columns before IMAGELIST" if self.columns else "there is no DefectRecordSpec"
        lengths: set[int] = set()  # of the first lines of rows: where rows take several, those after it differ
        damaged, wrapped, self.own = False, False, None
        while (token := self.cursor.next) is not None:
            closed = self.cursor.closed
            if token.is_mark(";"):
                self.cursor.take()
            elif token.is_word and token.text.lower() in FILE_NAMES:
                self._file_name(self.cursor.take())
            elif self.cursor.keyword() is not None or (closed and token.is_word and not self._in_list(shape)):
                return
            else:
                length = self.cursor.line_length()
                row: Row | str = why if shape.plain == 0 else shape.row(self.cursor)
                if isinstance(row, str) and token.is_word:
                    row = f"{token.text!r} is not known among the rows of a DefectList"
                beside = length not in lengths if wrapped else length < shape.plain and not lengths
                if damaged and beside and not closed:
                    row = f"{length} cells after a damaged row"
                damaged = isinstance(row, str)
                if isinstance(row, str):
                    self._lose(token, row)
                    self.cursor.drop_line()
                else:
                    lengths.add(length)
                    wrapped = wrapped or row.length > length
                    self.cursor.drop(row.length)
                    self._defect(token, row)
                self.own = None

    def _in_list(self, shape: Shape) -> bool:
        """Whether a word after a `;` stands among rows: it begins one, or one follows on the next line."""
        if shape.plain == 0 or isinstance(shape.row(self.cursor), Row):
            return shape.plain > 0
        after = self.cursor.line_length()
        token = self.cursor.at(after)
        if token is None or token.is_mark(";") or number(token) is None:
            return False
        return isinstance(shape.row(self.cursor, after), Row)

    def _defect(self, first: Token, row: Row) -> None:
        names = [name for name in self.columns if name != "IMAGELIST"]
        cells = dict(zip(names, map(value, row.cells), strict=True))
        count = cells.get("IMAGECOUNT")
        if row.images is not None and count is not None and count != len(row.images) // 2:
            self._lose(first, f"a defect whose IMAGECOUNT is {count} and whose IMAGELIST has {len(row.images) // 2}")
            return
        defect = defect_of(cells, self._images(first, row.images or []), 1.0)
        if isinstance(defect, str):
            self._lose(first, defect)
        else:
            self._wafer.defects.append(defect)

    def _images(self, first: Token, pairs: list[Token]) -> tuple[ImageRef, ...]:
        if "IMAGELIST" not in self.columns:  # a name before the row is then all there is
            return (ImageRef(self.own),) if self.own is not None else ()
        images = []
        for page, kind in zip(pairs[::2], pairs[1::2], strict=True):
            if (index := whole(page)) is None:
                self._problem(first, f"an image is page {page.text}; accepted: a whole number")
            else:
                images.append(ImageRef(self.tiff, index, kind.text))
        return tuple(images)

    def _lose(self, token: Token, why: str) -> None:
        self.lost += 1
        self._problem(token, why)

    # --- the layout -------------------------------------------------------------------------------------------

    def _layout(self, wafer: _Wafer) -> Wafer | None:
        pitch = self._pair("DiePitch", self.facts.get("DiePitch", []))
        if pitch is None or min(pitch) <= 0:
            self.problems.append("no DiePitch above 0: absolute positions are unknown")
            return None
        size = [number(token) for token in self.facts.get("SampleSize", [])]
        diameter = size[-1] if size and size[-1] else 300
        notch = (self._text("OrientationMarkLocation") or "down").lower()
        diameter_um = float(diameter) * 1000 if diameter > 0 else 300_000.0
        if max(pitch) > 2 * diameter_um:
            self.problems.append(f"DiePitch is {pitch[0]:g} {pitch[1]:g} on a wafer of {diameter_um:g} micrometres")
            return None
        try:
            return Wafer(pitch, wafer.center, diameter_um, notch=notch if notch in NOTCHES else _turned(notch))
        except ValueError as error:
            self.problems.append(f"the layout cannot be used: {error}")
            return None

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


def _turned(degrees: str) -> str:
    """Where the mark is, of degrees as newer tools write them: clockwise from "down"."""
    return {"0": "down", "90": "left", "180": "up", "270": "right"}.get(degrees, "down")
