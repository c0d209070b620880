"""The report without a browser: Markdown for a merge request, JSON for machines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..base.jsonable import plain as plain_values
from ..base.text import in_line
from .draw import letter
from .gathered import Gathered
from .measures import measures
from .metrics import AXES
from .places import alarms, places, trend
from .profiles import basis, gains, profiles
from .provenance import problems
from .sections import scored, summary
from .verdicts import flagged_tiles

TILES_NAMED = 8  # in a list of flagged tiles; the others are in the other forms


def as_markdown(gathered: Gathered) -> str:
    """Verdict, signals, scores, what was gained and paid: what fits a merge request."""
    runs = gathered.runs
    parts = [f"# {_text(gathered.title)}", " · ".join(f"{name}: {_text(value)}" for name, value in scored(runs))]
    if not gathered.judged:
        parts.append("**Not judged**: no verdict was given; the numbers below carry no pass or fail.")
    for verdict in gathered.judged:
        parts.append(f"## {verdict['word']}: {_text(verdict['after'])}\n\n{_text(verdict['sentence'])}")
        parts.append("\n".join([*map(_reason, verdict["reasons"]), *map(_open, verdict["open"])]))
        parts.append(_text(f"{verdict['worth'][:1].upper()}{verdict['worth'][1:]}.") if verdict["worth"] else "")
    for note in gathered.notes:
        if isinstance(note, str):
            parts.append(_text(note))
        else:
            parts.append(f"{_text(note.get('caption') or '')}\n\n{_table(note['header'], note['rows'])}".lstrip())
    parts.append("## Scores\n\n" + _scores(gathered))
    for table in gains(runs, gathered.profiles, gathered.verdicts):
        if table["reason"]:
            parts.append(
                f"{_text(table['label'])} is not compared with {_text(table['before'])}: {_text(table['reason'])}"
            )
            continue
        rows = [
            [r[k] for k in ("heading", "before", "after", "change", "interval", "p", "word")] for r in table["rows"]
        ]
        head = ("Metric", table["before"], table["label"], "Change", "95 % interval", "p (Holm)", "In short")
        parts.append(f"## What {_text(table['label'])} gained and paid\n\n" + _table(head, rows))
    if sounded := alarms(runs):
        lines = [(a["run"], a["name"], a["metric"], a["place"], a["value"], a["limits"]) for a in sounded]
        parts.append("## Alarms\n\n" + _table(("Candidate", "Alarm", "Metric", "Place", "Value", "Limits"), lines))
    lost = problems(runs)["counts"]
    if lost:
        parts.append("Not scored: " + ", ".join(f"{count} {_text(status)}" for status, count in lost) + ".")
    return "\n\n".join(part for part in parts if part) + "\n\n<!-- semnr report -->\n"


def _open(group: Mapping[str, Any]) -> str:
    """Guardrails without evidence, and what to bring."""
    names = ", ".join(f"**{_text(signal['name'])}**" for signal in group["signals"])
    why = f"bring {_text(group['bring'])}" if group["bring"] else _text(group["why"])
    return f"- {names} {_text(group['word'])}" + (f": {why}" if why else "")


def _reason(reason: Mapping[str, Any]) -> str:
    where = f" {reason['where']}" if reason["where"] else ""
    where += "".join(f", {_text(text)}" for _, text, _ in reason["numbers"])
    advice = f": {_text(reason['advice'])}" if reason["advice"] else ""
    tiles = [f"`{_code(tile)}`" for tile in reason["tiles"][:TILES_NAMED]]
    more = len(reason["tiles"]) - len(tiles)
    named = f" Tiles: {', '.join(tiles)}{f' and {more} more' if more else ''}." if tiles else ""
    return f"- **{_text(reason['name'])}** {_text(reason['word'])}{where}{advice}{named}"


def _scores(gathered: Gathered) -> str:
    shown = summary(gathered.runs)
    head = ["Candidate", "Tiles", "PSNR of mean MSE (dB)"]
    head += [c["metric"].heading + "".join(f", {label}" for label in c["labels"]) for c in shown["columns"]]
    head += ["Radar area", "Mean axis"]
    areas = profiles(gathered.runs, gathered.profiles)
    rows = []
    for k, (row, profile) in enumerate(zip(shown["rows"], areas, strict=True)):
        who = f"{letter(k)} {row['label']}" if gathered.several else row["label"]
        spans = [f"{profile[name]}" + (f" ({profile[f'{name}_span']})" if profile[f"{name}_span"] else "")
                 for name in ("area", "mean")]  # fmt: skip
        rows.append([who, f"{row['n']} of {row['total']}", row["psnr"], *(c["mean"] for c in row["cells"]), *spans])
    return _table(head, rows)


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(c if c == "---" else _text(c) for c in line) + " |" for line in lines)


def _text(value: Any) -> str:
    """Text in which nothing is markup: a name from the data stays a name."""
    flat = in_line(" ".join(str(value).split()))
    return re.sub(r"([\\`*_{}\[\]<>#|~!])", r"\\\1", flat).replace("&", "&amp;")


def _code(value: Any) -> str:
    return in_line(" ".join(str(value).replace("`", "'").replace("|", "¦").split()))


def as_json(gathered: Gathered) -> str:
    """Everything: what the runs say of themselves, every row, the verdicts, and what the report derives from them."""
    runs = gathered.runs
    flags = flagged_tiles(gathered.verdicts)
    described = []
    for run, profile in zip(runs, profiles(runs, gathered.profiles), strict=True):
        columns: dict[str, Any] = {"tile": run.tiles, **run.texts, **run.numbers}
        described.append({
            "label": run.label,
            "path": None if run.path is None else str(run.path),
            "run": run.meta,
            "profile": {
                "axes": {key: profile["axes"].get(key) for key, _ in AXES},
                "intervals": profile["bands"],
                "area": profile["area_value"],
                "mean": profile["mean_value"],
            },
            "tiles": columns,
            "flagged": flags.get(run.label, {}),
            "alarms": run.alarms,
        })  # fmt: skip
    tables = [
        {k: table[k] for k in ("label", "before", "reason", "gained", "paid", "rows")}
        for table in gains(runs, gathered.profiles, gathered.verdicts)
    ]
    lots = trend(runs)
    measured = measures(runs)
    content = {
        "written_by": "semnr report",
        "title": gathered.title,
        "notes": gathered.notes,
        "verdicts": gathered.verdicts,
        "decisions": [{k: v[k] for k in ("after", "before", "state", "sentence")} for v in gathered.judged],
        "runs": described,
        "gains": tables,
        "basis": [
            {"name": row["name"], "runs": dict(zip((r.label for r in runs), row["cells"], strict=True))}
            for row in basis(runs)
        ],
        "places": places(runs),
        "trend": lots and {
            "lots": lots["lots"], "series": lots["series"],
            "panels": [{"metric": p["metric"].name, "values": p["values"]} for p in lots["panels"]],
        },
        "metrology": measured and [{"metric": r["metric"].name, "runs": r["cells"]} for r in measured["rows"]],
    }  # fmt: skip
    return json.dumps(plain_values(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
