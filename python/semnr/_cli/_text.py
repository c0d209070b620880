"""Plain text for terminals: aligned tables, JSON for machines."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .._plain import plain, printable

unsaid: list[str] = []  # why output was lost, other than by a reader that went away


def say(text: object = "", *, flush: bool = False) -> None:
    """Print for people: names cannot steer the terminal, and an output that fails cannot undo what was decided."""
    with written_out():
        print(printable(str(text)), flush=flush)


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """What stdout does not take, and all that follows, goes nowhere; `unsaid` has the reason."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # as `head` leaves it
            unsaid.append(error.strerror or str(error))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns padded to their widest cell; numbers to the right."""
    cells = [[str(c) for c in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [len(cells) > 1 and all(_numeric(row[i]) for row in cells[1:]) for i in range(len(header))]
    lines = []
    for n, row in enumerate(cells):
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        lines.append("  ".join(padded).rstrip())
        if n == 0:
            lines.append("  ".join("-" * w for w in widths))
    return "\n".join(lines)


def _numeric(cell: str) -> bool:
    return cell in ("-", "inf") or cell.lstrip("-+")[:1].isdigit()


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; "-" where it was not evaluated or is undefined."""
    if value is None or value != value:
        return "-"
    return "inf" if value == float("inf") else f"{value:.{digits}f}"


def print_json(value: Any) -> None:
    say(json.dumps(plain(value), indent=1, allow_nan=False))


def add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def add_settings(parser: Any, kind: str, **options: Any) -> None:
    """`--set` of pairs, which may be given again."""
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar=kind, **options)


def settings(pairs: Sequence[str], kind: str) -> list[tuple[str, str]]:
    """["sigma=1.5"] as [("sigma", "1.5")]; `kind` names the form that is accepted."""
    found = []
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise ValueError(f"--set is {pair!r}; accepted: {kind}")
        found.append((name, text))
    return found
