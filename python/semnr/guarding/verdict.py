"""The verdict that the signals of a guard add up to."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..base.jsonable import plain
from ..base.text import in_line
from .flowchart import lines as steps
from .signal import FIRED, NO_EVIDENCE, Signal


@dataclass(frozen=True)
class Verdict:
    """Signals, the path through the decision flowchart as lines of text, and whether the gate opens."""

    signals: tuple[Signal, ...]
    path: tuple[str, ...]
    waived: tuple[str, ...] = ()
    before: str | None = None
    after: str = ""
    tiles: int = 0
    flowchart: tuple[Mapping[str, Any], ...] = ()  # steps: "question", "answer", "numbers", "next", "signal"

    def __getitem__(self, name: str) -> Signal:
        for signal in self.signals:
            if signal.name == name:
                return signal
        raise KeyError(f"no signal {name!r}; there are {', '.join(s.name for s in self.signals)}")

    @property
    def fired(self) -> tuple[Signal, ...]:
        """The signals that fail the gate."""
        return tuple(s for s in self.signals if s.status == FIRED and s.gate)

    @property
    def lacking(self) -> tuple[Signal, ...]:
        """Required signals without evidence that nobody waived."""
        return tuple(s for s in self.signals if s.required and s.status in NO_EVIDENCE and s.name not in self.waived)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 a signal fired, 3 a required signal has no evidence."""
        return 1 if self.fired else 3 if self.lacking else 0

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    def to_dict(self) -> dict[str, Any]:
        """Plain Python, for JSON."""
        return {
            "passed": self.passed,
            "exit_code": self.exit_code,
            "before": self.before,
            "after": self.after,
            "tiles": self.tiles,
            "waived": list(self.waived),
            "signals": [s.to_dict() for s in self.signals],
            "path": list(self.path),
            "flowchart": plain(self.flowchart),
        }

    def __str__(self) -> str:
        word = {0: "passed", 1: "failed", 3: "incomplete"}[self.exit_code]
        against = f" against {self.before}" if self.before else ""
        lines = [f"guard: {word} ({self.after or 'candidate'}{against}, {self.tiles} tiles)"]
        taken = dict(line.split(": ", 1) for line in self.path if ": " in line)
        for s in self.signals:
            waived = " (waived)" if s.name in self.waived and s.status in NO_EVIDENCE else ""
            lines.append(f"  {s.status.upper() if s.status == FIRED else s.status}{waived}: {s.name}")
            notes = [taken.get(s.name, "").rsplit(" -> ", 1)[0]]
            if s.status == FIRED:
                worst = ", ".join(in_line(r["tile"]) for r in s.regions[:5])
                more = f" and {len(s.regions) - 5} more" if len(s.regions) > 5 else ""
                notes += [s.advice, f"Worst tiles: {worst}{more}." if worst else ""]
            for note in filter(None, notes):
                lines += textwrap.wrap(note, 100, initial_indent="      ", subsequent_indent="      ")
        if self.flowchart:
            lines.append("path through the flowchart:")
            for step in steps(self.flowchart):
                lines += textwrap.wrap(step, 100, initial_indent="  ", subsequent_indent="      ")
        return "\n".join(lines)
