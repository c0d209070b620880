"""The one form of every record under benchmarks/results/, and its reading and writing.

A record says where its figures come from, and holds them as rows:

    {"benchmark": "benchmarks/speed/bench_ssim.py", "command": "python benchmarks/speed/bench_ssim.py",
     "when": "2026-11-22T00:24Z", "commit": "e230a56", "machine": {...} or null, "versions": {...}, "rows": [...]}

A row says what its figures are of, from the general to the particular, and has a name for each of them:

    {"of": ["synthetic", "trained", "semnr-small"], "figures": {"psnr": 39.06, "transfer_low_interval": [0.0, 0.02]}}

`item` counts the rows of one table where they have no names. Scripts work on the tree that the rows are of
(`{"synthetic": {"trained": {"semnr-small": {...}}}}`); `rows_of` and `tree_of` lead from one to the other and lose
nothing. Only the standard library is needed: scripts are run as files, from any folder.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
FIELDS = ("benchmark", "command", "when", "commit", "machine", "versions", "rows")
_WHEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\dZ")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def rows_of(tree: Mapping[str, Any], of: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a tree: a row of each mapping that holds figures, and of each item of a table."""
    figures = {name: value for name, value in tree.items() if not _is_branch(value)}
    if figures or not tree:
        yield {"of": list(of), "figures": figures}
    for name, value in tree.items():
        if _is_branch(value) and isinstance(value, Mapping):
            yield from rows_of(value, (*of, name))
        elif _is_branch(value):
            yield from ({"of": [*of, name], "item": at, "figures": dict(one)} for at, one in enumerate(value))


def _is_branch(value: Any) -> bool:
    """Whether a value is a mapping or a table (a list of mappings), not a figure."""
    table = isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)
    return isinstance(value, Mapping) or table


def tree_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The tree that these rows are of."""
    tree: dict[str, Any] = {}
    for row in rows:
        at = tree
        *above, last = row["of"] or [""]
        for name in above:
            at = at.setdefault(name, {})
        if "item" in row:
            at.setdefault(last, []).append(row["figures"])
        else:
            (at.setdefault(last, {}) if row["of"] else tree).update(row["figures"])
    return tree


def record(
    script: str | Path,
    tree: Mapping[str, Any],
    *,
    machine: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """A record of what `script` has just measured; no machine where nothing was timed."""
    name = Path(script).resolve().relative_to(REPOSITORY).as_posix()
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return {
        "benchmark": name,
        "command": " ".join(["python", name, *arguments]),
        "when": now(),
        "commit": asked.stdout.strip() or None,
        "machine": None if machine is None else dict(machine),
        "versions": dict(versions or {}),
        "rows": list(rows_of(tree)),
    }


def now() -> str:
    """The date of a record that is made now."""
    return time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())


def write(path: Path, made: Mapping[str, Any]) -> None:
    """Write a record, a row a line."""
    if wrong := problems(made):
        raise ValueError(f"{path.name} would not be a record: {wrong[0]}")
    head = json.dumps({name: made[name] for name in FIELDS if name != "rows"}, indent=1, ensure_ascii=False)
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in made["rows"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n', encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """A record, as `write` took it."""
    made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if wrong := problems(made):
        raise ValueError(f"{path} is no record: {wrong[0]}")
    return made


def read_tree(path: Path) -> dict[str, Any]:
    """The figures of a record as a tree."""
    return tree_of(read(path)["rows"])


def problems(made: Mapping[str, Any]) -> list[str]:
    """What keeps a mapping from being a record, field by field."""
    wrong = [f"{name} is missing" for name in FIELDS if name not in made]
    wrong += [f"{name} is no field; accepted: {', '.join(FIELDS)}" for name in made if name not in FIELDS]
    if wrong:
        return wrong
    if not (REPOSITORY / str(made["benchmark"])).is_file() or not str(made["benchmark"]).startswith("benchmarks/"):
        wrong.append(f"benchmark is {made['benchmark']!r}; accepted: a script under benchmarks/")
    if not isinstance(made["command"], str) or str(made["benchmark"]) not in made["command"]:
        wrong.append(f"command is {made['command']!r}; accepted: a command line that runs the benchmark")
    if not isinstance(made["when"], str) or not _WHEN.fullmatch(made["when"]):
        wrong.append(f"when is {made['when']!r}; accepted: YYYY-MM-DDTHH:MMZ")
    if made["commit"] is not None and not _COMMIT.fullmatch(str(made["commit"])):
        wrong.append(f"commit is {made['commit']!r}; accepted: a commit's name, or null")
    for name in ("machine", "versions"):
        wrong += [] if made[name] is None and name == "machine" else _named(name, made[name])
    if not isinstance(made["rows"], list) or not made["rows"]:
        return [*wrong, "rows is empty; accepted: at least one row"]
    return wrong + [text for at, row in enumerate(made["rows"]) for text in _of_row(f"rows[{at}]", row)]


def _of_row(at: str, row: Any) -> list[str]:
    if not isinstance(row, Mapping) or not {"of", "figures"} <= set(row) <= {"of", "item", "figures"}:
        return [f"{at} is {str(row)[:60]!r}; accepted: of, figures and, in a table, item"]
    wrong = []
    if not isinstance(row["of"], list) or not all(isinstance(name, str) for name in row["of"]):
        wrong.append(f"{at}.of is {row['of']!r}; accepted: names, from the general to the particular")
    if "item" in row and (not isinstance(row["item"], int) or row["item"] < 0):
        wrong.append(f"{at}.item is {row['item']!r}; accepted: the number of the row in its table")
    return wrong + _named(f"{at}.figures", row["figures"])


def _named(at: str, figures: Any) -> list[str]:
    """What is wrong with a mapping of names to numbers, texts, lists of these, or mappings of the same kind."""
    if not isinstance(figures, Mapping):
        return [f"{at} is {type(figures).__name__}; accepted: a mapping of names to figures"]
    wrong = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            wrong += _named(f"{at}.{name}", value)
        elif not all(one is None or isinstance(one, str | int | float) for one in _listed(value)):
            wrong.append(f"{at}.{name} is {type(value).__name__}; accepted: a number, a text, null, or a list of these")
    return wrong


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
