"""What a training run returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trained:
    """What a training run left.

    Attributes
    ----------
    out : str
        The folder of the run.
    weights : str or None
        The chosen weights; None where no candidate passed the guardrails.
    last : str
        The weights of the last step.
    sha256 : str
        Checksum of the chosen weights.
    card : str
        The model card.
    steps : int
        How many steps were made.
    minutes : float
        How long they took.
    best : mapping or None
        The row of `judged.jsonl` of the chosen model.
    rows : tuple of mapping
        All rows of `judged.jsonl`.

    Examples
    --------
    >>> done = semnr.training.Trained("out", None, "last.safetensors", "", "card.md", 10, 0.1, None, ())
    >>> done.exit_code
    1
    """

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
        """0: the weights may be used. 1: no candidate passed the guardrails."""
        return 0 if self.weights else 1
