"""What every form of the report starts from: the runs, the verdicts on them, the tiles they flag, where those lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import wafer
from .profiles import load
from .runs import RunData, load_runs, load_verdicts
from .verdicts import flagged_tiles, view


@dataclass
class Gathered:
    """Everything that was read, before it is shown."""

    runs: list[RunData]
    verdicts: list[dict[str, Any]]  # as `Verdict.to_dict()`, with `run`, the label that each judges
    judged: list[dict[str, Any]]  # the same in words
    flags: dict[str, dict[str, list[str]]]  # run label -> tile -> signals that fired there
    layout: wafer.Layout
    profiles: list[Any]  # `semnr.Profile` of each run, or why there is none
    title: str
    notes: list[Any]

    @property
    def several(self) -> bool:
        return len(self.runs) > 1


def gather(run_or_path: Any, compare: Any, verdict: Any, title: str | None, notes: Any) -> Gathered:
    """Read the runs and their verdicts."""
    runs = load_runs(run_or_path, compare)
    verdicts = load_verdicts(verdict, runs)
    return Gathered(
        runs=runs,
        verdicts=verdicts,
        judged=[view(v, runs) for v in verdicts],
        flags=flagged_tiles(verdicts),
        layout=wafer.lay_out(runs),
        profiles=load(runs),
        title=title or _title(runs),
        notes=[*_categories(runs), *checked_notes(notes)],
    )


def _categories(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """Of runs of `semnr classify predict`: how many tiles show what."""
    notes = []
    for run in runs:
        counts = run.meta.get("categories")
        if isinstance(counts, dict) and counts:
            total = sum(counts.values())
            ordered = sorted(counts.items(), key=lambda pair: -pair[1])
            rows = [[name, str(count), f"{count / total:.1%}"] for name, count in ordered]
            caption = f"What the tiles of {run.label} show"
            notes.append({"caption": caption, "header": ["Category", "Tiles", "Share"], "rows": rows})
    return notes


def checked_notes(notes: Any) -> list[Any]:
    """Paragraphs, and tables as {"caption", "header", "rows"}."""
    if notes is None:
        return []
    accepted = 'accepted: paragraphs, and tables as {"caption": str, "header": [str], "rows": [[...]]}'
    if isinstance(notes, str) or not isinstance(notes, Sequence):
        raise TypeError(f"notes is {type(notes).__name__}; accepted: a list of them; {accepted}")
    for note in notes:
        if isinstance(note, dict) and {"header", "rows"} <= set(note):
            if any(len(row) != len(note["header"]) for row in note["rows"]):
                raise ValueError(f"notes has a table whose rows are not as long as its header; {accepted}")
        elif not isinstance(note, str):
            raise TypeError(f"notes holds a {type(note).__name__}; {accepted}")
    return list(notes)


def _title(runs: Sequence[RunData]) -> str:
    lots = {lot for run in runs for lot in run.texts.get("lot_id", []) if lot}
    wafers = {wafer for run in runs for wafer in run.texts.get("wafer_id", []) if wafer}
    if len(lots) == 1 and len(wafers) <= 1:
        return "Lot " + lots.pop() + (f", wafer {wafers.pop()}" if wafers else "")
    return runs[0].label if len(runs) == 1 else f"Comparison of {len(runs)} candidates"
