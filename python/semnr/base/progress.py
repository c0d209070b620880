"""Progress of long jobs: on a terminal one line that is rewritten, elsewhere a plain line from time to time."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from .timing import Stages


class Progress:
    """Counts tiles and megapixels; silent for the first two seconds, and altogether when `quiet`."""

    def __init__(
        self,
        label: str,
        total: int | None,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        stages: Stages | None = None,
    ) -> None:
        self.label, self.total, self.quiet = label, total, quiet
        self.stream = stream or sys.stderr
        self.start = self.last = time.monotonic()
        self.tiles, self.pixels, self.shown = 0, 0, False
        self.live = self.stream.isatty() and stages is None
        self.stages, self.every = stages, 2.0 if stages is not None else 10.0

    def advance(self, tiles: int = 1, pixels: int = 0) -> None:
        self.tiles += tiles
        self.pixels += pixels
        now = time.monotonic()
        if not self.quiet and now - self.start > 2 and now - self.last > (0.2 if self.live else self.every):
            self.last = now
            self._show(self._line(now) + self._by_stage())

    def _line(self, now: float) -> str:
        seconds = max(now - self.start, 1e-9)
        of = f"/{self.total}" if self.total is not None else ""
        line = f"{self.label}: {self.tiles}{of} tiles, {self.tiles / seconds:.1f} tiles/s"
        if self.pixels:
            line += f", {self.pixels / 1e6 / seconds:.1f} MP/s"
        if self.total and self.tiles:
            line += f", {seconds / self.tiles * (self.total - self.tiles):.0f} s left"
        return line

    def _by_stage(self) -> str:
        """What limits the run: of each stage passes a second of its own time, and how long a pass takes."""
        if self.stages is None:
            return ""
        table = self.stages.table()
        lines = "".join(
            f"\n  {name:<8} {row['seconds']:8.1f} s of work, {row['per_second']:9.1f} passes/s, "
            f"p50 {row['p50_ms']:.2f} ms, p99 {row['p99_ms']:.2f} ms"
            for name, row in table.items()
        )
        limit = self.stages.limit()
        if limit is None:
            return lines
        name, share = limit
        if not self.stages.alone:
            return f"{lines}\n  most work: {name}, {share:.0%}"
        return f"{lines}\n  limited by {name}: its threads were busy {share:.0%} of the time"

    def _show(self, line: str) -> None:
        self.shown = True
        self.stream.write(f"\r{line:<78}" if self.live else line + "\n")
        self.stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.stages is not None and not self.quiet:
            self._show(self._line(time.monotonic()) + self._by_stage())
        if self.live and self.shown:
            self.stream.write("\r" + " " * 78 + "\r")
            self.stream.flush()
