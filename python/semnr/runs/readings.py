"""The numbers behind a signal as readable text: label, value with its standard error, unit, and the limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..columns import BY_NAME

MINUS = "−"
_AXES = {"residual": "residual tests", "transfer": "evidence transfer"}  # the others are their names in capitals


@dataclass(frozen=True)
class Reading:
    """One number of a signal's evidence."""

    name: str  # of its column
    label: str
    value: str  # with standard error and unit
    beyond: bool = True  # whether it, or the tile that strays most, is outside its limit; True where none is known
    furthest: str = ""  # of any tile
    limit: str = ""  # in words: "below 0.88"

    @property
    def text(self) -> str:
        """The value with what belongs to it."""
        more = [f"furthest {self.furthest}"] if self.furthest else []
        more += [f"limit: {self.limit}"] if self.limit else []
        return f"{self.value} ({'; '.join(more)})" if more else self.value


def readings(evidence: Mapping[str, Any], limits: Sequence[Mapping[str, Any]] = ()) -> list[Reading]:
    """The numbers of `Signal.evidence`, without the counts of tiles; `limits` as in `Signal.limits`."""
    listed = []
    for key, value in evidence.items():
        name, kind = _column(key)
        if name is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        limit = next((one for one in limits if one.get("column") == name), None)
        error = evidence.get(f"{key}_se")
        furthest = evidence.get(f"{key}_furthest")
        lowest = evidence.get(f"lowest_{key}")
        stray = furthest if furthest is not None else lowest
        percent = kind == "relative"
        unit = "%" if percent else BY_NAME[name].unit
        unit = "σ" if unit == "z" else "" if unit == "share" else unit
        label = BY_NAME[name].label + (" change" if kind else "")
        listed.append(
            Reading(
                name,
                label,
                with_error(value, error, unit, percent=percent, signed=bool(kind)),
                limit is None or _beyond(limit, float(value)) or (stray is not None and _beyond(limit, float(stray))),
                "" if stray is None else with_error(stray, None, unit),
                "" if limit is None or kind else limit_words(limit),
            )
        )
    return listed


def column_of(key: str) -> str | None:
    """The column that a key of the evidence is about; None for counts and words."""
    bare = key.removeprefix("lowest_").removesuffix("_se").removesuffix("_furthest")
    return _column(bare)[0]


def _column(key: str) -> tuple[str | None, str]:
    """(the column that a key of the evidence reads or None, "" for a value, "change" or "relative")."""
    if key in BY_NAME:
        return key, ""
    for suffix, kind in (("_relative_change", "relative"), ("_change", "change")):
        if key.endswith(suffix) and key.removesuffix(suffix) in BY_NAME:
            return key.removesuffix(suffix), kind
    return None, ""


def _beyond(limit: Mapping[str, Any], value: float) -> bool:
    low, high = limit.get("below"), limit.get("above")
    return (low is not None and value < low) or (high is not None and value > high) or (low is None and high is None)


def limit_words(limit: Mapping[str, Any]) -> str:
    """ "below 0.88", "above 0.012", "outside −0.03 to 0.03": where a rule fires; "" for a change between two runs."""
    low, high = limit.get("below"), limit.get("above")
    if low is not None and high is not None:
        return f"outside {_plain(low)} to {_plain(high)}"
    if low is not None:
        return f"below {_plain(low)}"
    return f"above {_plain(high)}" if high is not None else ""


def with_error(value: float, error: Any = None, unit: str = "", *, percent: bool = False, signed: bool = False) -> str:
    """`value ± error unit`: two significant digits of the error, and the value to the same decimals."""
    scale = 100.0 if percent else 1.0
    value = scale * float(value)
    sign = "+" if signed and value > 0 else ""
    tail = f" {unit}" if unit else ""
    if isinstance(error, int | float) and 0 < scale * error < math.inf and math.isfinite(value):
        digits = max(0, 1 - math.floor(math.log10(scale * error)))
        return f"{sign}{value:.{digits}f} ± {scale * error:.{digits}f}{tail}".replace("-", MINUS)
    return f"{sign}{_plain(value)}{tail}"


def _plain(value: float) -> str:
    if not math.isfinite(value):
        return "unknown" if math.isnan(value) else "∞" if value > 0 else f"{MINUS}∞"
    return (f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", MINUS)


def words(name: str) -> str:
    """An identifier as a phrase: over_smoothing -> over-smoothing."""
    text = str(name).replace("_", " ").strip()
    return {"over smoothing": "over-smoothing", "over sharpening": "over-sharpening"}.get(text, text)


def axes_by_state(axes: Mapping[str, str]) -> list[tuple[str, str]]:
    """("measured", "PSNR, SSIM"), ...: what `Verdict.axes` says, by what is known of it."""
    groups = []
    for state in ("measured", "estimated", "unknown"):
        names = [_AXES.get(name, name.upper()) for name, known in axes.items() if known == state]
        if names:
            groups.append((state, ", ".join(names)))
    return groups


def tiles_of(evidence: Mapping[str, Any]) -> str:
    """ "on 8 of 22 tiles": how many tiles show it; "" where that is not known."""
    judged = evidence.get("tiles_judged", evidence.get("tiles_compared"))
    fired = evidence.get("tiles_fired")
    if not judged or fired is None:
        return ""
    return f"on {fired} of {judged} tiles" if fired else f"on the mean of {judged} tiles"
