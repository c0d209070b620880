"""What a run over a source of tiles did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..noise import NoiseModel
from ..runs import Run
from ..tiles import Problem


@dataclass(frozen=True)
class Denoised:
    """What a run over a source did. `exit_code` is 1 where a rule fired on its scores, 3 where tiles were left out."""

    out: str
    source: str
    origin: str  # where it lies, seen from `out`, or what its first tile holds: names of sources repeat
    model: str
    weights: str | None  # SHA-256 of a learned model's
    params: dict[str, Any]
    role: str  # of the source, that was denoised
    data_range: float | None
    vst: bool | None  # None: decided for each image
    sigma: float | None
    noise: NoiseModel | None
    halo: int | None
    tile: int
    exact_tiling: bool
    counts: dict[str, int]
    problems: tuple[Problem, ...] = field(default=())
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()  # such as an input outside the noise family that a network was trained on
    kept: int = 0  # tiles of an earlier run that this one went on with
    run: Run | None = None  # the scores, with score=True

    @property
    def exit_code(self) -> int:
        if self.run is not None and self.run.exit_code:
            return self.run.exit_code
        return 3 if self.problems or not self.counts.get("ok") else 0

    def to_dict(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["noise"] = None if self.noise is None else self.noise.to_dict()
        plain["run"] = None if self.run is None else str(self.run.path)
        plain["problems"] = [{"tile": p.tile, "status": p.status, "reason": p.reason} for p in self.problems]
        return plain
