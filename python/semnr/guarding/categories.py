"""Rules that depend on what the images show: a porous sponge tolerates other limits than a line grating.

A file of rules may hold tables [categories.CATEGORY.RULE], whose entries take the place of those of [rules.RULE] (of
the built-in rules, where the file has none) for that category. The category is a name, or the folder of a run of
`semnr classify predict`, in which nearly all tiles must be of one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..runs.info import read_info

MOST = 0.9  # of the decided tiles that must be of one category
TABLE = "categories"


def category_of(category: str | os.PathLike[str]) -> str:
    """The name of a category: as it is given, or that of most tiles of a run of `semnr classify predict`.

    Raises
    ------
    ValueError
        The folder is no such run, or its tiles are of several categories.
    """
    folder = Path(category)
    if not folder.is_dir():
        return str(category)
    counts = read_info(folder).get("categories")
    if not isinstance(counts, Mapping):
        raise ValueError(f"category is {folder}, which is no run of semnr classify predict; accepted: one, or a name")
    decided = {str(name): int(count) for name, count in counts.items() if name != "unknown"}
    total = sum(decided.values())
    name = max(decided, key=lambda one: decided[one], default="")
    if not total or decided[name] < MOST * total:
        told = ", ".join(f"{one} {count}" for one, count in decided.items()) or "none"
        raise ValueError(
            f"category is {folder}, whose tiles are of several categories ({told}); accepted: a run in which "
            f"{MOST:.0%} of the decided tiles are of one, or a name"
        )
    return name


def of_category(
    tables: Mapping[str, Any], categories: Any, category: str | os.PathLike[str] | None, source: str
) -> dict[str, Any]:
    """The tables of the rules with what differs for a category; a category without a table changes nothing.

    Raises
    ------
    ValueError
        A table of a rule that is not there, or what `category_of` refuses.
    """
    if not isinstance(categories, Mapping) or not all(isinstance(t, Mapping) for t in categories.values()):
        raise ValueError(f"{source}: {TABLE} is {categories!r}; accepted: tables [{TABLE}.CATEGORY.RULE]")
    for name, changed in categories.items():
        for rule, entries in changed.items():
            if rule not in tables:
                raise ValueError(f"{source}: {TABLE}.{name} has rule {rule!r}; accepted: {', '.join(tables)}")
            if not isinstance(entries, Mapping):
                raise ValueError(f"{source}: {TABLE}.{name}.{rule} is {entries!r}; accepted: a table")
    chosen = {} if category is None else categories.get(category_of(category), {})
    return {rule: {**entries, **chosen[rule]} if rule in chosen else entries for rule, entries in tables.items()}
