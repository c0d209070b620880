"""What a training run leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trained:
    """What a run left: folder, weights (None where no candidate passed the guardrails), and its judgements."""

    out: str
    weights: str | None
    last: str
    sha256: str
    card: str
    steps: int
    minutes: float
    best: Mapping[str, Any] | None  # the row of `judged.jsonl` of the kept model
    rows: tuple[Mapping[str, Any], ...]

    @property
    def exit_code(self) -> int:
        """1 where no candidate passed the guardrails."""
        return 0 if self.weights else 1
