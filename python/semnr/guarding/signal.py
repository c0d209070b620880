"""What one rule says of one pair of candidates: its status, and the evidence behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..base.jsonable import plain

FIRED, CLEAR = "fired", "clear"
UNKNOWN, NOT_EVALUATED, NOT_COMPARABLE = "unknown", "not_evaluated", "not_comparable"
STATUSES = (FIRED, CLEAR, UNKNOWN, NOT_EVALUATED, NOT_COMPARABLE)
NO_EVIDENCE = (UNKNOWN, NOT_EVALUATED, NOT_COMPARABLE)


@dataclass(frozen=True)
class Signal:
    """One rule on one pair of candidates.

    Attributes
    ----------
    status : str
        "fired"; "clear"; "unknown" (the evidence is not there); "not_evaluated" (it is there but means nothing, as
        DISTS on random weights); "not_comparable" (the rule does not hold for such a pair).
    metrics : tuple of str
        Columns that it read.
    evidence : mapping
        The numbers behind the status; `name_se` is the standard error of `name`.
    regions : tuple of mapping
        The tiles that show it, worst first: "tile", the tile's coordinates and the numbers.
    advice : str
        What to do about it.
    """

    name: str
    status: str
    severity: str
    metrics: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    regions: tuple[Mapping[str, Any], ...] = ()
    advice: str = ""
    required: bool = True
    gate: bool = True

    def to_dict(self) -> dict[str, Any]:
        names = ("name", "status", "severity", "metrics", "evidence", "regions", "advice", "required", "gate")
        return {name: plain(getattr(self, name)) for name in names}
