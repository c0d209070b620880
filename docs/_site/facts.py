"""The parts of the documentation that the code already says, as Markdown: columns, rules, public names.

`hooks.py` puts them into the pages at build time; tests/project/test_site.py counts what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from semnr.columns import COLUMNS, ROW, Column
from semnr.guarding import DEFAULT_RULES, Comparison, Conformal, Range, Transfer

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "https://github.com/semnr/semnr/blob/main/"
GROUPS = {
    "scores": "Scores against a reference",
    "estimated": "Estimates from further noisy frames",
    "evidence": "Tests of the residual",
    "changes": "Changes of the image",
    "metrology": "Metrology",
    "anomaly": "Anomaly by reconstruction",
    "category": "What a tile shows",
}
NEEDS = {
    "reference": "a reference",
    "noisy": "the noisy input, and a reference or further frames",
    "frames": "further noisy frames, no reference",
    "tests": "the noisy input",
    "metrology": "`metrology=` asked for",
    "anomaly": "`semnr anomaly score`",
    "classify": "`semnr classify predict`",
    "conformal": "rules with a level that was learnt (`semnr guard --learn --level`)",
    "all": "a reference, the noisy input, and all five metrics",
}
# What is no column of the catalogue: what a row is.
OF_A_ROW = {
    "tile": "name of the tile, the same in every source of the run",
    "path": "where its pixels came from",
    "index": "its place in the source, from 0",
    "status": "`ok`, or why there is no score: `missing`, `unreadable`, `mismatched` and so on",
    "reason": "the reason in words, empty where the status is `ok`",
}
_NAME = re.compile(r"^\| `(semnr\.[\w.]+)` \|", flags=re.M)


def columns() -> str:
    """Tables of all columns that a scored run can have, by group."""
    assert set(OF_A_ROW) == set(ROW)
    parts = ["### What a row is\n", _table(("column", "what it holds"), ((_anchor(n), t) for n, t in OF_A_ROW.items()))]
    for group, title in GROUPS.items():
        rows = (
            (_anchor(c.name), c.label, c.unit or "none", c.direction or "neither end", _needs(c), _note(c))
            for c in COLUMNS
            if c.group == group
        )
        heads = ("column", "in reports", "unit", "better", "needs", "what it says")
        parts += [f"### {title}\n", _table(heads, rows)]
    return "\n".join(parts)


def rule(name: str) -> str:
    """What the default rule `name` asks, reads and advises."""
    one = rules()[name]
    if isinstance(one, Comparison):
        fires = " **and** ".join(f"`{c}`" for c in one.conditions)
        reads = [c.metric for c in one.conditions]
    elif isinstance(one, Transfer):
        psnr = {"improves": "rose over the noisy input", "falls": "did not rise", "any": "is whatever it is"}[one.psnr]
        fires = f"`transfer + {one.z:g} · SE below {one.below:g}`, counted where PSNR {psnr}"
        reads = ["transfer", "psnr", "psnr_noisy"]
    else:
        assert isinstance(one, Range)
        where = (f" where `{b.where}` exceeds {b.exceeds:g}" if b.where else "" for b in one.bounds)
        fires = " **or** ".join(f"`{b}`{w}" for b, w in zip(one.bounds, where, strict=True))
        reads = [b.column for b in one.bounds] + [b.where for b in one.bounds if b.where]
    links = ", ".join(f"[`{c}`](columns.md#{c})" for c in dict.fromkeys(reads))
    gate = "a fired rule fails the gate" if one.gate else "it is only shown"
    held = "missing evidence holds the gate" if one.required else "missing evidence does not hold the gate"
    return (
        f"> **{one.question}**\n\n"
        + _table(
            ("what", "by default"),
            (
                ("a tile fires where", fires),
                ("the rule fires where", f"more than {100 * one.share:g} % of the tiles fire"),
                ("columns", links),
                ("severity", f"{one.severity}; {gate}; {held}"),
                ("evidence needed on", f"{100 * one.min_coverage:g} % of the tiles" if one.min_coverage else "no tile"),
            ),
        )
        + f"\n**Advice in the verdict.** {one.advice}\n"
    )


def rules() -> dict[str, Comparison | Transfer | Range | Conformal]:
    """The default rules by name."""
    return dict(DEFAULT_RULES)


def names() -> dict[str, dict[str, list[str]]]:
    """Public names as docs/api.md lists them: page -> heading -> names. A test holds that list against `__all__`."""
    pages: dict[str, dict[str, list[str]]] = {}
    page, heading = "semnr", ""
    for line in (ROOT / "docs/api.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").strip("`")
            page = heading if heading.startswith("semnr.") else "semnr"
        elif (found := _NAME.match(line)) and heading != "Public modules":
            pages.setdefault(page, {}).setdefault(heading, []).append(found[1])
    return pages


def reference(page: str) -> str:
    """The page of one public module: each of its names, by mkdocstrings."""
    parts = [f"# `{page}`\n", f"::: {page}\n    options:\n      members: false\n      show_root_heading: false\n"]
    for heading, listed in names()[page].items():
        parts += [f"## {heading}\n"] if heading != page else []
        parts += [f"::: {name}\n    options:\n      heading_level: 3\n" for name in listed]
    return "\n".join(parts)


def _anchor(name: str) -> str:
    return f'<a id="{name}"></a>`{name}`'


def _needs(column: Column) -> str:
    return NEEDS.get(column.of, f"a reference and the metric `{column.of}`")


def _note(column: Column) -> str:
    return column.note or column.label


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(heads)]
    lines += [["---"] * len(lines[0])]
    lines += [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
