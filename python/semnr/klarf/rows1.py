"""The rows of a KLARF 1.x DefectList: where each one ends, and its images in one of the grammars that tools write.

`IMAGELIST` begins with its own count, "2 1 0 2 0", or holds the pairs alone, IMAGECOUNT of them, "1 0 2 0". A row must
end where a line or a `;` ends, so its number of tokens tells them apart; a whole file is read by one of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from .text import Token, number, whole

MOST_IMAGES = 10_000  # of one defect: more is a damaged count, not a picture book
# its own count, always; its own count, and nothing where there is no image; no count, and then nothing or a lone 0
GRAMMARS = ("counted", "counted or absent", "bare")
FILE_NAMES = ("tifffilename", "filename")  # statements that may stand between rows, without a `;`
_NAMES = """
FileVersion FileTimestamp TiffSpec TiffFileName InspectionStationID SampleType ResultTimestamp ResultsID LotID LotStatus
SampleSize DeviceID SetupID StepID RecipeID SampleOrientationMarkType OrientationMarkLocation OrientationInstructions
CoordinatesMirrored CoordinatesCentered DiePitch DieOrigin WaferID WaferStatus Slot SampleCenterLocation SampleDieMap
ClassLookup InspectionTest SampleTestPlan SampleTestReferencePlan InspectedAreaOrigin InspectedArea AreaPerTest
TestParametersSpec TestParametersList DefectRecordSpec DefectList SummarySpec SummaryList DefectClusterSpec
DefectClusterSetup DefectClusterList ClusterClassificationList EndOfFile
"""
KEYWORDS = {name.lower(): name for name in _NAMES.split()}


class Cursor:
    """Tokens, with as many of them ahead as one row needs."""

    def __init__(self, items: Iterable[Token]) -> None:
        self._items = iter(items)
        self._ahead: deque[Token] = deque()
        self._line = 0  # of the token taken last
        self.closed = False  # whether that was a `;`

    def at(self, index: int) -> Token | None:
        while len(self._ahead) <= index:
            token = next(self._items, None)
            if token is None:
                return None
            self._ahead.append(token)
        return self._ahead[index]

    @property
    def next(self) -> Token | None:
        return self.at(0)

    def take(self) -> Token:
        token = self.at(0)
        if token is None:
            raise EOFError
        self._line, self.closed = token.line, token.is_mark(";")
        return self._ahead.popleft()

    def drop(self, count: int) -> None:
        for _ in range(count):
            self.take()

    def starts_line(self, index: int = 0) -> bool:
        token = self.at(index)
        before = self._line if index == 0 else self.at(index - 1).line  # type: ignore[union-attr]
        return token is not None and token.line > before

    def keyword(self, index: int = 0) -> str | None:
        """The statement that begins here, in KLARF's spelling; None where none that is known does."""
        token = self.at(index)
        return KEYWORDS.get(token.text.lower()) if token is not None and token.is_word else None

    def ends(self, index: int) -> bool:
        """Whether a row may end before this token."""
        token = self.at(index)
        return token is None or token.is_mark(";") or self.starts_line(index)

    def run(self, start: int, count: int) -> list[Token]:
        """At most `count` tokens from `start`, up to a `;` or to the statement that a line begins with."""
        tokens: list[Token] = []
        while len(tokens) < count and (token := self.at(start + len(tokens))) is not None:
            at = start + len(tokens)
            if token.is_mark(";") or (at and self.starts_line(at) and self.keyword(at)):
                break
            tokens.append(token)
        return tokens

    def line_length(self, start: int = 0) -> int:
        """Tokens up to the end of the line or to a `;`, at least one."""
        end = start + 1
        while not self.ends(end):
            end += 1
        return end - start

    def drop_line(self) -> None:
        """What is left of the line, or of the row where a `;` ends it before."""
        self.drop(self.line_length())
        if self.next is not None and self.next.is_mark(";"):
            self.take()


@dataclass(frozen=True)
class Row:
    """Cells of one row; page and type of each of its images, None where there is no IMAGELIST."""

    cells: list[Token]
    images: list[Token] | None
    length: int


@dataclass(frozen=True)
class Shape:
    """How rows are laid out: columns, and the grammar of IMAGELIST."""

    columns: list[str]
    grammar: str

    @property
    def plain(self) -> int:
        """Columns before IMAGELIST."""
        return self.columns.index("IMAGELIST") if "IMAGELIST" in self.columns else len(self.columns)

    def row(self, cursor: Cursor, start: int = 0) -> Row | str:
        """The row that begins at `start`, or why none does."""
        found = self._row(cursor, start)
        if isinstance(found, Row) and not self._agrees(found):
            # a number that is not its count was read as one: it must not cost the rows that follow
            lines = [k for k in range(start + 1, start + found.length) if cursor.starts_line(k)]
            inside = [self._row(cursor, k) for k in lines]
            if any(isinstance(other, Row) and other.images and self._agrees(other) for other in inside):
                return f"a defect whose IMAGELIST would take the next defect: {cursor.line_length(start)} cells"
        return found

    def _agrees(self, row: Row) -> bool:
        """Whether the row announces as many images as it has, if it says so."""
        announced = self._announced(row.cells)
        return row.images is None or announced is None or 2 * announced == len(row.images)

    def _row(self, cursor: Cursor, start: int) -> Row | str:
        cells = cursor.run(start, self.plain)
        if len(cells) < self.plain:
            return f"a defect of {len(cells)} columns; DefectRecordSpec has {len(self.columns)}"
        images = self._images(cursor, start + self.plain, cells)
        if isinstance(images, str):
            return images
        skipped, pairs = images
        after = cursor.run(start + self.plain + skipped + len(pairs), max(len(self.columns) - self.plain - 1, 0))
        length = self.plain + skipped + len(pairs) + len(after)
        if len(cells) + 1 + len(after) < len(self.columns) or not cursor.ends(start + length):
            return (
                f"a defect that does not end with its line: {cursor.line_length(start)} cells, "
                f"DefectRecordSpec has {len(self.columns)}{' and IMAGELIST' * ('IMAGELIST' in self.columns)}"
            )
        return Row([*cells, *after], pairs if "IMAGELIST" in self.columns else None, length)

    def _images(self, cursor: Cursor, at: int, cells: list[Token]) -> tuple[int, list[Token]] | str:
        """(tokens before the pairs, the pairs), or why they are not there."""
        if "IMAGELIST" not in self.columns:
            return 0, []
        announced = self._announced(cells)
        if self.grammar != "counted" and announced == 0 and cursor.ends(at):
            return 0, []
        head = 1 if self.grammar != "bare" or (announced == 0 and self._lone_zero(cursor, at)) else 0
        count = whole(cursor.at(at)) if head else announced
        if self.grammar == "counted or absent" and count == 0:
            return "a defect with an IMAGELIST of 0, which other rows leave out"
        if count is None or not 0 <= count <= MOST_IMAGES:
            return f"a defect whose number of images is {'not known' if count is None else count}"
        pairs = cursor.run(at + head, 2 * count)
        if len(pairs) < 2 * count or any(number(token) is None for token in pairs):
            return f"a defect with {count} images whose IMAGELIST has not {count} pairs of numbers"
        return head, pairs

    def _lone_zero(self, cursor: Cursor, at: int) -> bool:
        token = cursor.at(at)
        return token is not None and token.text == "0"

    def _announced(self, cells: list[Token]) -> int | None:
        at = self.columns.index("IMAGECOUNT") if "IMAGECOUNT" in self.columns else len(cells)
        return whole(cells[at]) if at < len(cells) else None
