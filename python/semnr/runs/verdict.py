"""What a guard says: signals, one a rule, and the verdict that they add up to; verdict.json of a run."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..base.jsonable import plain
from ..base.text import in_line
from .brief import as_html

NAME = "verdict.json"
FIRED, CLEAR = "fired", "clear"
UNKNOWN, NOT_EVALUATED, NOT_COMPARABLE = "unknown", "not_evaluated", "not_comparable"
STATUSES = (FIRED, CLEAR, UNKNOWN, NOT_EVALUATED, NOT_COMPARABLE)
NO_EVIDENCE = (UNKNOWN, NOT_EVALUATED, NOT_COMPARABLE)
# Signals that no rule asks for: tiles that were not scored, and tiles that are compared with themselves.
ON_THE_RUN = ("tiles_scored", "identical_tiles")
# How a verdict ends. "not refuted": nothing fired, a required rule had no evidence. "incomplete": tiles are lacking.
FAILED, PASSED, NOT_REFUTED, INCOMPLETE = "failed", "passed", "not refuted", "incomplete"


@dataclass(frozen=True)
class Signal:
    """What one rule found.

    Attributes
    ----------
    name : str
        Name of the rule.
    status : str
        "fired"; "clear"; "unknown" (the evidence is missing); "not_evaluated" (there is evidence, but it means nothing,
        as DISTS on random weights does); "not_comparable" (the rule does not hold for such a pair of profiles).
    severity : {"high", "medium", "low"}
        How much it matters.
    metrics : tuple of str
        The columns that the rule read.
    evidence : mapping
        The numbers behind the status; `NAME_se` is the standard error of `NAME`.
    regions : tuple of mapping
        The tiles that show it, worst first: "tile", the coordinates of the tile, and the numbers.
    advice : str
        What to do about it.
    required : bool
        Whether missing evidence keeps the gate shut.
    gate : bool
        Whether a fired rule fails the gate; else it is only shown.
    needs : str
        Without evidence: what to bring, so that the rule can be judged.
    question : str
        The rule as a question.
    limits : tuple of mapping
        Where the rule fires: "column" with "below" or "above", or with "change" ("up", "down", "stable"), "by" and
        "relative".

    Examples
    --------
    >>> verdict = semnr.guard(None, semnr.profile(denoised, clean, metrics=("psnr", "ssim")))
    >>> signal = verdict["evidence_transfer"]
    >>> signal.status, signal.required
    ('unknown', True)
    >>> sorted(signal.to_dict())[:3]
    ['advice', 'evidence', 'gate']
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
    needs: str = ""
    question: str = ""
    limits: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The signal in plain Python, for JSON.

        Returns
        -------
        dict
        """
        return {entry.name: plain(getattr(self, entry.name)) for entry in fields(self)}


@dataclass(frozen=True)
class Verdict:
    """What the gate decided: the signals of all rules, and whether it opens.

    Attributes
    ----------
    signals : tuple of Signal
        One a rule, in the order of the rules; `verdict["NAME"]` finds one by name.
    path : tuple of str
        What each rule read, as a line of text.
    waived : tuple of str
        Rules that may lack evidence, by name.
    before, after : str or None
        Labels of the baseline and of the candidate.
    tiles : int
        How many tiles were judged.
    flowchart : tuple of mapping
        The walk through the decision flowchart: "question", "answer", "numbers", "next" and "signal" of each step.
    axes : mapping
        What each kind of evidence rests on: "measured", "estimated" (from noisy frames, or by uncalibrated weights) or
        "unknown".
    strict : bool
        Whether a required rule without evidence holds the gate (exit code 3), as in `semnr guard`; `semnr check`
        ends such a verdict, "not refuted", with 0.
    notes : tuple of str
        What a reader should know of the images: traces of JPEG, unused bits, noise that cannot be told.
    baseline : tuple of Signal
        The rules on one candidate, put to the baseline as well.
    changes : mapping
        How each column that the rules read changed from the baseline: "better", "worse", "same" (within the rule's
        tolerance) or "too few tiles" to say.
    worth : mapping
        What one denoised frame is worth in noisy ones, where a reference or further frames tell: "frames" with the
        interval "low" to "high", and "said", the same in words. See `semnr.DoseEquivalence`.
    profile, run : Profile, Run or None
        The rows that were judged and the folder that holds them, where they are at hand.
    thumbnails : str
        Pictures of the first tiles to look at, as HTML, where no folder holds them; a notebook shows them.

    Examples
    --------
    >>> inputs = {"noisy": noisy, "denoised": denoised, "reference": clean}
    >>> verdict = semnr.guard(None, semnr.profile(denoised, clean, metrics=("psnr", "ssim")), inputs=inputs)
    >>> verdict.passed, verdict.exit_code
    (False, 1)
    >>> [signal.name for signal in verdict.fired]
    ['evidence_transfer', 'lost_detail', 'transfer_bound']
    >>> again = semnr.Verdict.from_dict(verdict.to_dict())  # as verdict.json keeps it
    >>> str(again) == str(verdict)
    True
    """

    signals: tuple[Signal, ...]
    path: tuple[str, ...]
    waived: tuple[str, ...] = ()
    before: str | None = None
    after: str = ""
    tiles: int = 0
    flowchart: tuple[Mapping[str, Any], ...] = ()  # steps: "question", "answer", "numbers", "next", "signal"
    axes: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    strict: bool = True
    baseline: tuple[Signal, ...] = ()
    changes: Mapping[str, str] = field(default_factory=dict)
    worth: Mapping[str, Any] = field(default_factory=dict)
    profile: Any = field(default=None, repr=False, compare=False)  # the rows that were judged, where they are at hand
    run: Any = field(default=None, repr=False, compare=False)  # the folder that holds them, where there is one
    thumbnails: str = field(default="", repr=False, compare=False)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_dict` gave, as verdict.json keeps it.

        Parameters
        ----------
        found : mapping
            What `to_dict` gave.

        Returns
        -------
        Verdict
        """
        names = ("name", "status", "severity", "evidence", "advice", "required", "gate")

        def signals(rows: Sequence[Mapping[str, Any]]) -> tuple[Signal, ...]:
            return tuple(
                Signal(
                    **{k: s[k] for k in names},
                    metrics=tuple(s["metrics"]),
                    regions=tuple(s["regions"]),
                    needs=s.get("needs", ""),
                    question=s.get("question", ""),
                    limits=tuple(s.get("limits", ())),
                )
                for s in rows
            )

        return cls(
            signals=signals(found["signals"]),
            baseline=signals(found.get("baseline", ())),
            changes=dict(found.get("changes", {})),
            worth=dict(found.get("worth", {})),
            path=tuple(found["path"]),
            waived=tuple(found["waived"]),
            before=found["before"],
            after=found["after"],
            tiles=found["tiles"],
            flowchart=tuple(found["flowchart"]),
            axes=dict(found.get("axes", {})),
            notes=tuple(found.get("notes", ())),
            strict=found.get("strict", True),
        )

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
        """The required signals without evidence that nobody waived."""
        return tuple(s for s in self.signals if s.required and s.status in NO_EVIDENCE and s.name not in self.waived)

    @property
    def baseline_fired(self) -> tuple[Signal, ...]:
        """The signals that would fail the gate, of the baseline by itself."""
        return tuple(s for s in self.baseline if s.status == FIRED and s.gate)

    @property
    def standing(self) -> str:
        """The candidate beside its baseline in one or two sentences; empty without a baseline."""
        if not self.before:
            return ""
        by: dict[str, list[str]] = {}
        for column, word in self.changes.items():
            by.setdefault(word, []).append(column.replace("_", " "))
        parts = [
            f"{said} {', '.join(by[word])}"
            for word, said in (
                ("better", "better on"), ("worse", "worse on"), ("same", "the same within tolerance on"),
                ("too few tiles", "too few tiles to say on"),
            )
            if word in by
        ]  # fmt: skip
        if parts and not parts[0].startswith("too few"):
            parts[0] = f"{self.after or 'the candidate'} is {parts[0]}"
        changes = f"{'; '.join(parts)}." if parts else ""
        if not self.baseline_fired:
            return changes
        failed = ", ".join(s.name.replace("_", " ") for s in self.baseline_fired)
        neither = "Neither is fit: " if self.fired else ""
        return f"{neither}{self.before} fails {failed}{' by itself' if not self.fired else ' too'}. {changes}".strip()

    @property
    def outcome(self) -> str:
        """ "failed": a rule fired. "incomplete": tiles could not be judged. "not refuted": nothing fired, and `lacking`
        had no evidence. "passed": every required rule had evidence (or was waived by name) and none fired."""
        if self.fired:
            return FAILED
        if any(s.name in ON_THE_RUN for s in self.lacking):
            return INCOMPLETE
        return NOT_REFUTED if self.lacking else PASSED

    @property
    def exit_code(self) -> int:
        """0 passed, 1 a signal fired, 3 tiles are lacking; a verdict that is not refuted: 3 if `strict`, else 0."""
        return {FAILED: 1, PASSED: 0, INCOMPLETE: 3, NOT_REFUTED: 3 if self.strict else 0}[self.outcome]

    @property
    def passed(self) -> bool:
        """Whether every required rule had evidence and none fired."""
        return self.outcome == PASSED

    @property
    def bring(self) -> tuple[str, ...]:
        """What would let the rules without evidence be judged, each once."""
        return tuple(dict.fromkeys(s.needs for s in self.lacking if s.needs))

    def to_dict(self) -> dict[str, Any]:
        """The verdict in plain Python, for JSON.

        Returns
        -------
        dict
        """
        return {
            "passed": self.passed,
            "outcome": self.outcome,
            "strict": self.strict,
            "exit_code": self.exit_code,
            "axes": dict(self.axes),
            "notes": list(self.notes),
            "before": self.before,
            "after": self.after,
            "tiles": self.tiles,
            "waived": list(self.waived),
            "signals": [s.to_dict() for s in self.signals],
            "baseline": [s.to_dict() for s in self.baseline],
            "changes": dict(self.changes),
            "worth": plain(self.worth),
            "path": list(self.path),
            "flowchart": plain(self.flowchart),
        }

    def __repr__(self) -> str:
        fired = ", ".join(signal.name for signal in self.fired)
        against = f" against {self.before}" if self.before else ""
        said = f"{self.outcome}: {self.after or 'candidate'}{against}, {self.tiles} tiles"
        return f"<Verdict {said}{f'; fired: {fired}' if fired else ''}>"

    def _repr_html_(self) -> str:
        """For a notebook: the verdict in short, with thumbnails where its run and the pixels are at hand."""
        return as_html(self, self.thumbnails if self.run is None else self.run.thumbnails_html(self))

    def __str__(self) -> str:
        against = f" against {self.before}" if self.before else ""
        lines = [f"guard: {self.outcome} ({self.after or 'candidate'}{against}, {self.tiles} tiles)"]
        lines += textwrap.wrap(self.standing, 100, initial_indent="  ", subsequent_indent="    ")
        lines += textwrap.wrap(self.worth.get("said", ""), 100, initial_indent="  ", subsequent_indent="    ")
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
            for step in in_words(self.flowchart):
                lines += textwrap.wrap(step, 100, initial_indent="  ", subsequent_indent="      ")
        return "\n".join(lines)


def in_words(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The path taken, for a terminal."""
    out = []
    for step in steps:
        numbers = ", ".join(f"{k} {_short(v)}" for k, v in step["numbers"].items())
        raised = f"  ==> {step['signal'].replace('_', ' ')}" if step["signal"] else ""
        out.append(f"{step['question']}  {step['answer'].upper()}{f' ({numbers})' if numbers else ''}{raised}")
    return [*out, f"-> {steps[-1]['next']}"] if steps else out


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
