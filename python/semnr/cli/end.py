"""How a command ends: one line of text and one exit status, whatever stopped it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ..base.text import printable
from .text import unsaid, written_out

# exit codes, as documented; 1, a guardrail failed, is the verdict's own
PASS, USAGE, INCOMPLETE = 0, 2, 3
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Ctrl-C and SIGTERM: the first one stops the run, which keeps what it has; the second one ends the process."""

    def __init__(self) -> None:
        self.asked = False
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked child has no run to keep
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self.asked:  # threads still compute: only the system's own exit ends them without an abort
            os.write(2, b"\nsemnr: ended at once; what was written is kept\n")
            os._exit(INCOMPLETE)
        self.asked = True
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handle the signals inside the block, where that is possible: in the main thread only."""
        try:
            before = [(number, signal.signal(number, self)) for number in _SIGNALS]
        except ValueError:
            before = []
        try:
            yield self
        finally:
            for number, handler in before:
                signal.signal(number, handler)


def ended(work: Callable[[], int], *, debug: bool, quiet: bool) -> int:
    """The exit status of `work`. An exception is one line on stderr and never ends with 1."""
    debug = debug or os.environ.get("SEMNR_DEBUG", "") not in ("", "0")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show must not stop a verdict
            stream.reconfigure(errors="backslashreplace")
    with Stop().listening() as stop, _library_messages(quiet):
        try:
            return _flushed(int(work()))
        except BaseException as error:
            if debug:
                traceback.print_exc()
            return _status(error, stop.asked)


def _status(error: BaseException, stopped: bool) -> int:
    kept = getattr(error, "kept_at", None)
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return PASS
    if stopped or isinstance(error, KeyboardInterrupt):
        complain("stopped" + (f"; what was written to {kept} is kept, --resume continues" if kept else ""))
        return INCOMPLETE
    complain(_line(error) + (f" (what was written to {kept} is kept)" if kept else ""))
    return INCOMPLETE if kept else USAGE


def _line(error: BaseException) -> str:
    """The error in one line: those that were foreseen by their message, others by their kind too."""
    from semnr_kernels.errors import SemnrError

    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of memory{f': {text}' if text else ''}; accepted: smaller tiles, a smaller --memory-budget"
    if isinstance(error, OSError | ValueError | TypeError | ImportError | SemnrError) and text:
        return text
    more = "--debug (or SEMNR_DEBUG=1) shows where; please report it"
    return f"unexpected {type(error).__name__}{f': {text}' if text else ''}; {more}"


def complain(text: str) -> None:
    """A line on stderr, without what a terminal would take for a command."""
    with contextlib.suppress(OSError, ValueError):  # stderr itself may be gone
        print(f"semnr: {printable(text)}", file=sys.stderr, flush=True)


def _flushed(status: int) -> int:
    """`status`, once what was printed has left: a lost output is no pass, and hides no verdict."""
    with written_out():
        if sys.stdout is not None:
            sys.stdout.flush()
    if not unsaid:
        return status
    complain(f"stdout: {unsaid.pop()}")
    unsaid.clear()
    return status or USAGE


class _Line(logging.Handler):
    """A record of a library's log as one line."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(f"{record.name}: {' '.join(record.getMessage().split())}")


@contextlib.contextmanager
def _library_messages(quiet: bool) -> Iterator[None]:
    """Warnings and logs of libraries as one line each, or not at all; our own remarks are always said."""

    def show(message: Any, category: Any, filename: str, *_: Any) -> None:
        if not quiet or (category is UserWarning and _ours(filename)):
            complain(f"note: {' '.join(str(message).split())}")

    root = logging.getLogger()
    handler: logging.Handler | None = None
    if not root.handlers:
        handler = logging.NullHandler() if quiet else _Line(logging.WARNING)
        root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show  # type: ignore[assignment]
            yield
    finally:
        if handler is not None:
            root.removeHandler(handler)


def _ours(filename: str) -> bool:
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - warnings have texts
    return filename.startswith(here + os.sep)
