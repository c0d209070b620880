"""Two or more candidates on the same tiles: what did one gain on the other, and what did it pay?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base.jsonable import plain
from ..base.notebook import table as as_table
from ..base.text import table
from ..columns import BY_NAME, used
from ..profiles import Profile
from ..profiles import statistics as statistics
from ..profiles.pairing import align
from ..profiles.reading import BETTER as WORD_BETTER
from ..profiles.reading import LEVEL, enough, read, readings, tolerance_of
from ..profiles.reading import WORSE as WORD_WORSE
from .scored import as_profile

# What is better: "higher", "lower", or nearer to a number.
BETTER: Mapping[str, str | float] = {
    name: float(way.removeprefix("near ")) if (way := BY_NAME[name].better).startswith("near") else way
    for name in (*used("compare"), *used("compare if asked"))
}
_DEFAULT = used("compare")


@dataclass(frozen=True)
class Difference:
    """One column of one candidate against the baseline, over the tiles that both have.

    Attributes
    ----------
    column : str
        Name of the column.
    before, after : float
        Mean of the column over the tiles, of the baseline and of the candidate.
    change, low, high : float
        Mean of after − before, and its bootstrap interval.
    gain, gain_low, gain_high : float
        The same, counted so that more is better.
    p, p_holm : float
        P-value of a sign-flip test, and the same corrected for the columns of the table (Holm).
    tiles : int
        How many tiles entered.
    tolerance : float
        A change of no more than this counts as none: that of the rule on the column.
    enough : bool
        Whether so many tiles could show any change.
    """

    column: str
    before: float
    after: float
    change: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    p: float
    p_holm: float
    tiles: int
    tolerance: float = 0.0
    enough: bool = True

    @property
    def verdict(self) -> str:
        """ "better" or "worse" (by more than the tolerance, corrected p at most 0.05), "same" (the interval lies within
        the tolerance, or a change that is sure does), else "too few tiles" to say."""
        significant = self.p_holm <= LEVEL
        return read(self.gain, self.gain_low, self.gain_high, self.tolerance, significant=significant, sure=self.enough)


@dataclass(frozen=True, repr=False)
class Compared:
    """What `semnr.compare` gives: what each candidate gained on the baseline, and what it paid for it.

    Attributes
    ----------
    baseline : str
        Label of the baseline.
    candidates : mapping of str to tuple of Difference
        By the label of the candidate; one difference a column.
    settings : mapping
        Confidence, seed and resamples of the bootstrap, and the number of clusters.
    """

    baseline: str
    candidates: Mapping[str, tuple[Difference, ...]]
    settings: Mapping[str, Any]

    def gained(self, candidate: str) -> list[str]:
        """The columns in which a candidate is better.

        Parameters
        ----------
        candidate : str
            Its label.

        Returns
        -------
        list of str
        """
        return [d.column for d in self.candidates[candidate] if d.verdict == WORD_BETTER]

    def paid(self, candidate: str) -> list[str]:
        """The columns in which a candidate is worse.

        Parameters
        ----------
        candidate : str
            Its label.

        Returns
        -------
        list of str
        """
        return [d.column for d in self.candidates[candidate] if d.verdict == WORD_WORSE]

    def to_dict(self) -> dict[str, Any]:
        """Everything in plain Python, for JSON.

        Returns
        -------
        dict
        """
        rows = {
            name: [{**plain(vars(d)), "verdict": d.verdict} for d in differences]
            for name, differences in self.candidates.items()
        }
        return {"baseline": self.baseline, "candidates": rows, "settings": plain(dict(self.settings))}

    def __repr__(self) -> str:
        said = "; ".join(
            f"{name} gained {', '.join(self.gained(name)) or 'nothing'}, paid {', '.join(self.paid(name)) or 'nothing'}"
            for name in self.candidates
        )
        return f"<Compared with {self.baseline}: {said}>"

    def _repr_html_(self) -> str:
        """For a notebook: the table of each candidate."""
        tables = []
        for name, rows in self.candidates.items():
            columns: dict[str, list[object]] = {
                "column": [d.column for d in rows],
                "before": [d.before for d in rows],
                "after": [d.after for d in rows],
                "change": [f"{d.change:+.3g} [{d.low:+.3g}, {d.high:+.3g}]" for d in rows],
                "verdict": [d.verdict for d in rows],
            }
            tables.append(as_table(f"{name} against {self.baseline}", columns, len(rows), most=len(rows)))
        return "".join(tables)

    def __str__(self) -> str:
        blocks = []
        for name, differences in self.candidates.items():
            rows = [
                (d.column, f"{d.before:.4g}", f"{d.after:.4g}", f"{d.change:+.3g} [{d.low:+.3g}, {d.high:+.3g}]",
                 f"{d.p:.2g}", d.tiles, d.verdict)
                for d in differences
            ]  # fmt: skip
            head = f"{name} against {self.baseline}: gained {', '.join(self.gained(name)) or 'nothing'}; "
            head += f"paid {', '.join(self.paid(name)) or 'nothing'}"
            confidence = f"{self.settings['confidence']:.0%}"
            titles = ("column", "before", "after", f"change [{confidence}]", "p", "tiles", "verdict")
            blocks.append(f"{head}\n{table(titles, rows)}")
        return "\n\n".join(blocks)


def compare(
    baseline: Any,
    *candidates: Any,
    columns: Sequence[str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    resamples: int = statistics.RESAMPLES,
) -> Compared:
    """Say what each candidate gained on the baseline and what it paid for it. Rows are paired by tile id.

    Parameters
    ----------
    baseline : Profile, Run or path
        Scores of the released or baseline denoiser: a `semnr.Profile`, a `semnr.Run`, or the folder of a run.
    *candidates : Profile, Run or path
        At least one, of the same tiles, reference and settings.
    columns : sequence of str, optional
        Columns to compare. Default: every column of which it is known what is better
        (`semnr.runs.comparison.BETTER`) and that both have.
    confidence : float
        Coverage of the intervals, between 0 and 1. They come from a percentile bootstrap; whole dies are resampled
        where `die_x` and `die_y` are known, because tiles of a die are alike.
    seed, resamples : int
        Of the bootstrap. The sign-flip test takes all flips up to 13 clusters, else 10,000.

    Returns
    -------
    Compared
        Candidates by label, each with one `Difference` a column; `print` shows the table.

    Raises
    ------
    TypeError, ValueError
        Something that is no profile, no candidate, or profiles that do not compare: the message says what differs.

    Examples
    --------
    >>> clean_tiles = np.stack([clean[:64, :64], clean[64:, 64:]])[:, None]
    >>> noisy_tiles = np.stack([noisy[:64, :64], noisy[64:, 64:]])[:, None]
    >>> released = semnr.profile(noisy_tiles, clean_tiles, metrics="ssim", label="released")
    >>> candidate = semnr.profile(clean_tiles, clean_tiles, metrics="ssim", label="candidate")
    >>> compared = semnr.compare(released, candidate)
    >>> compared.gained("candidate"), compared.paid("candidate")  # two tiles are too few to say anything
    ([], [])
    >>> compared.candidates["candidate"][0].verdict
    'too few tiles'
    >>> compared.to_dict()["baseline"]
    'released'
    """
    if not candidates:
        raise ValueError("no candidate to compare with the baseline; accepted: at least one")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; accepted: a number between 0 and 1")
    if columns is not None and (unknown := [c for c in columns if c not in BETTER]):
        raise ValueError(f"columns has {unknown[0]!r}; accepted: {', '.join(map(repr, BETTER))}")
    baseline = as_profile("baseline", baseline)
    profiles = [as_profile(f"candidate {i}", value) for i, value in enumerate(candidates, start=1)]
    differences: dict[str, tuple[Difference, ...]] = {}
    group = np.arange(len(baseline))
    for i, candidate in enumerate(profiles):
        base = align(baseline, candidate)
        group = candidate.clusters()
        label = candidate.label or f"candidate {i + 1}"
        label = label if label not in differences else f"{label} ({i + 1})"
        differences[label] = _differences(base, candidate, group, columns, confidence, seed, resamples)
    settings = {"confidence": confidence, "seed": seed, "resamples": resamples, "clusters": int(group.max()) + 1}
    return Compared(baseline.label or "baseline", differences, settings)


def _differences(
    base: Profile, other: Profile, group: np.ndarray, columns: Sequence[str] | None, confidence: float, seed: int,
    resamples: int,
) -> tuple[Difference, ...]:  # fmt: skip
    names, before, after = [], [], []
    for name in columns or _DEFAULT:
        a, b = base.column(name), other.column(name)
        both = np.isfinite(a) & np.isfinite(b)
        if both.any():
            names.append(name)
            before.append(np.where(both, a, np.nan))
            after.append(np.where(both, b, np.nan))
    if not names:
        return ()
    a, b = np.stack(before, 1), np.stack(after, 1)
    gains = np.stack([_gain(BETTER[n], a[:, k], b[:, k]) for k, n in enumerate(names)], 1)
    both = np.concatenate([b - a, gains], axis=1)
    replicates = statistics.bootstrap(both, group, lambda m: m, seed=seed, resamples=resamples)
    low, high = statistics.ends(replicates, confidence)
    p = np.array([statistics.sign_flip(gains[:, k], group, seed=seed) for k in range(len(names))])
    corrected, n = statistics.holm(p), len(names)
    return tuple(
        Difference(
            name, float(np.nanmean(a[:, k])), float(np.nanmean(b[:, k])), float(np.nanmean(both[:, k])),
            float(low[k]), float(high[k]), float(np.nanmean(gains[:, k])), float(low[n + k]), float(high[n + k]),
            float(p[k]), float(corrected[k]), int(np.isfinite(gains[:, k]).sum()),
            tolerance_of(name, float(np.nanmean(a[:, k]))),
            enough(len(np.unique(group[np.isfinite(gains[:, k])])), n),
        )
        for k, name in enumerate(names)
    )  # fmt: skip


def _gain(better: str | float, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if better == "higher":
        return b - a
    if better == "lower":
        return a - b
    return np.asarray(np.abs(a - float(better)) - np.abs(b - float(better)))


def read_changes(before: Profile, after: Profile, columns: Sequence[str]) -> dict[str, str]:
    """How the changes of some columns read ("better", "worse", "same", "too few tiles"); rows are aligned.

    Columns that one of both lacks, or of which nothing is known to be better, are left out.
    """
    gains, means = {}, {}
    for name in columns:
        if name not in BETTER:
            continue
        a, b = before.column(name), after.column(name)
        both = np.isfinite(a) & np.isfinite(b)
        if both.any():
            gains[name] = np.where(both, _gain(BETTER[name], a, b), np.nan)
            means[name] = float(a[both].mean())
    return readings(gains, after.clusters(), means)
