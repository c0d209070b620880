"""Splits KLARF text into tokens: words, quoted strings, marks that end statements. CRLF and odd spacing are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LARGEST = 2**53
_TOKEN = re.compile(r'"([^"]*)"|([{};,])|([^\s{};,"]+)|(")')


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a quoted string, or one of the marks ; { } ,"""

    text: str
    line: int
    quoted: bool = False

    def is_mark(self, mark: str) -> bool:
        return not self.quoted and self.text == mark

    @property
    def is_word(self) -> bool:
        """A name, as keywords are: no mark, no string, no number."""
        return not self.quoted and (self.text[:1].isalpha() or self.text[:1] == "_")


def tokens(text: str) -> Iterator[Token]:
    """Tokens of KLARF text. A string that its line does not close is taken to the line's end."""
    # form feeds, NULs and lone carriage returns come from tools and from file transfers
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", " ").removeprefix("\ufeff")
    for number, line in enumerate(text.split("\n"), start=1):
        start = 0
        while match := _TOKEN.search(line, start):
            string, mark, word, loose = match.groups()
            start = match.end()
            if loose is not None:
                yield Token(line[start:].strip(), number, quoted=True)
                break
            if string is not None:
                yield Token(string, number, quoted=True)
            else:
                yield Token(mark or word, number)


def number(token: Token | None) -> int | float | None:
    """The token as a number; None where it is none (N, NA, -), or not a finite one."""
    if token is None or not _NUMBER.fullmatch(token.text):
        return None
    if _INTEGER.fullmatch(token.text):
        return int(token.text)
    value = float(token.text)
    return value if value - value == 0 else None


def as_whole(value: Any) -> int | None:
    """A whole number that a table can hold (1, 1.0, 1e3), as an integer; None for any other."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= _LARGEST or value != int(value):
        return None
    return int(value)


def whole(token: Token | None) -> int | None:
    """The token as a whole number; None where it is none."""
    return as_whole(number(token))


def value(token: Token) -> Any:
    """A string as it is, a number as a number, any other word as text."""
    if token.quoted:
        return token.text
    as_number = number(token)
    return token.text if as_number is None else as_number
