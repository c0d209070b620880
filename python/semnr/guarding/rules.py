"""Rules as data: the entries of a rule, read from TOML and checked."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..columns import used
from .categories import TABLE, of_category

SEVERITIES = ("high", "medium", "low")
CHANGES = ("up", "down", "stable")
PSNR = ("improves", "falls", "any")
METRICS = used("rule")
VERSION = 1
BUILT_IN = Path(__file__).with_name("rules.toml")


@dataclass(frozen=True)
class Condition:
    """One condition of a `Comparison`: how a column changed from before to after.

    Parameters
    ----------
    metric : str
        The column.
    change : {"up", "down", "stable"}
        In which direction it has to change.
    by : float
        By how much at least; of "stable" by how much at most. In the units of the column.
    relative : bool
        `by` is a share of the value before.

    Examples
    --------
    >>> print(semnr.guarding.Condition("psnr", "up", 0.1))
    psnr up by more than 0.1
    """

    metric: str
    change: str
    by: float
    relative: bool = False

    def __str__(self) -> str:
        size = f"{self.by:.3g}" if not self.relative else f"{100 * self.by:.3g} %"
        return f"{self.metric} stable within {size}" if self.change == "stable" else (
            f"{self.metric} {self.change} by more than {size}"
        )  # fmt: skip


@dataclass(frozen=True)
class Bound:
    """A column of the candidate and how far it may go. A tile beyond it shows the fault.

    Parameters
    ----------
    column : str
        Any column of a scored run.
    below, above : float
        The fault begins below the one, or above the other.
    certain : float
        Above this value one tile is enough, whatever share the rule allows.
    where, exceeds : str, float
        The bound holds only on tiles on which the column `where` exceeds this value.

    Examples
    --------
    >>> print(semnr.guarding.Bound("cd_change_px", below=-0.3, above=0.3))
    cd_change_px outside -0.3 to 0.3
    """

    column: str
    below: float = -math.inf
    above: float = math.inf
    certain: float = math.inf  # above this one tile is enough, whatever the rule's share
    where: str = ""  # another column, which must exceed `exceeds` on the tile
    exceeds: float = -math.inf

    def __str__(self) -> str:
        if math.isinf(self.above) and math.isinf(self.below):
            return f"{self.column} above {self.certain:.3g}"
        if math.isinf(self.above):
            return f"{self.column} below {self.below:.3g}"
        if math.isinf(self.below):
            return f"{self.column} above {self.above:.3g}"
        return f"{self.column} outside {self.below:.3g} to {self.above:.3g}"


@dataclass(frozen=True)
class Rule:
    """What every rule says; rules.toml explains each entry.

    Parameters
    ----------
    name : str
        Its name in the verdict.
    kind : {"comparison", "transfer", "range"}
        How it decides.
    severity : {"high", "medium", "low"}
        How much a fired rule matters.
    required : bool
        Missing evidence keeps the gate shut.
    gate : bool
        A fired rule fails the gate; False: it is only shown.
    share : float
        The rule fires where more than this share of the judged tiles fire.
    z : float
        How many standard errors a mean must stand clear of 0 (comparison) or of the bound (transfer, range).
    min_coverage : float
        Least share of the tiles that must have the evidence.
    advice : str
        What to do when it fires.
    question : str
        Its question in the decision flowchart.
    """

    name: str
    kind: str
    severity: str = "high"
    required: bool = True
    gate: bool = True
    share: float = 0.05
    z: float = 2.0
    min_coverage: float = 1.0
    advice: str = ""
    question: str = ""


@dataclass(frozen=True)
class Comparison(Rule):
    """A rule on the changes between two candidates: it fires where all of its conditions hold.

    Parameters
    ----------
    name, kind, severity, required, gate, share, z, min_coverage, advice, question
        What every rule says, see rules.toml.
    conditions : tuple of Condition
        At least one.

    Examples
    --------
    >>> rule = semnr.guarding.DEFAULT_RULES["over_smoothing"]
    >>> rule.metrics
    ('psnr', 'fsim')
    >>> [str(condition) for condition in rule.conditions]
    ['psnr up by more than 0.1', 'fsim down by more than 0.003']
    """

    conditions: tuple[Condition, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns that the rule reads."""
        return tuple(c.metric for c in self.conditions)

    @property
    def limits(self) -> tuple[dict[str, Any], ...]:
        """Where the rule fires, for `Signal.limits`."""
        return tuple(
            {"column": c.metric, "change": c.change, "by": c.by, "relative": c.relative} for c in self.conditions
        )


@dataclass(frozen=True)
class Transfer(Rule):
    """A rule on the evidence transfer T of one candidate: it fires where T is too low.

    Parameters
    ----------
    name, kind, severity, required, gate, share, z, min_coverage, advice, question
        What every rule says, see rules.toml.
    below : float
        The fault begins where T plus `z` standard errors lies below this.
    psnr : {"improves", "falls", "any"}
        Which tiles are judged: those whose PSNR rose over that of the noisy input, those where it fell, or all.

    Examples
    --------
    >>> rule = semnr.guarding.DEFAULT_RULES["evidence_transfer"]
    >>> rule.below, rule.psnr, rule.metrics
    (0.88, 'improves', ('psnr', 'transfer'))
    """

    below: float = 0.88
    psnr: str = "improves"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns that the rule reads."""
        return ("transfer",) if self.psnr == "any" else ("psnr", "transfer")

    @property
    def limits(self) -> tuple[dict[str, Any], ...]:
        """Where it fires, for `Signal.limits`."""
        return ({"column": "transfer", "below": self.below},)


@dataclass(frozen=True)
class Range(Rule):
    """A rule on columns of one candidate: it fires where one of them leaves its bounds.

    Parameters
    ----------
    name, kind, severity, required, gate, share, z, min_coverage, advice, question
        What every rule says, see rules.toml.
    bounds : tuple of Bound
        At least one.

    Examples
    --------
    >>> rule = semnr.guarding.DEFAULT_RULES["geometric_shift"]
    >>> rule.metrics
    ('shift_y_px', 'shift_x_px')
    """

    bounds: tuple[Bound, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns that the rule reads."""
        return tuple(dict.fromkeys(b.column for b in self.bounds))

    @property
    def limits(self) -> tuple[dict[str, Any], ...]:
        """Where it fires, for `Signal.limits`: the finite ends of each bound."""
        ends = ((b.column, b.below, min(b.above, b.certain)) for b in self.bounds)
        return tuple(
            {"column": name, **{k: v for k, v in (("below", low), ("above", high)) if math.isfinite(v)}}
            for name, low, high in ends
        )


AnyRule = Comparison | Transfer | Range
Rules = Mapping[str, AnyRule]
_KINDS: dict[str, type[AnyRule]] = {"comparison": Comparison, "transfer": Transfer, "range": Range}


def load_rules(path: str | os.PathLike[str], category: str | os.PathLike[str] | None = None) -> Rules:
    """Read rules from a TOML file.

    Parameters
    ----------
    path : path
        The file. `python/semnr/guarding/rules.toml` explains each entry.
    category : str or path, optional
        What the images show, by name or by the folder of a run of `semnr classify predict`: entries of the tables
        [categories.CATEGORY.RULE] then take the place of those of [rules.RULE].

    Returns
    -------
    Rules
        Rules by name, in the order of the file.

    Raises
    ------
    ValueError
        No TOML, an unknown entry, or a value of the wrong type or out of range: names the file, the rule and the entry.

    Examples
    --------
    >>> from pathlib import Path
    >>> text = semnr.guarding.dump_rules(semnr.DEFAULT_RULES, provenance={"tuned_on": "our own wafers"})
    >>> _ = Path("rules.toml").write_text(text, encoding="utf-8")
    >>> rules = semnr.guarding.load_rules("rules.toml")
    >>> rules == semnr.DEFAULT_RULES
    True
    """
    file = Path(path)
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"rules {file} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"rules {file} are not TOML: {error}") from error
    return parse_rules(data, str(file), category)


def parse_rules(
    data: Mapping[str, Any], source: str = "rules", category: str | os.PathLike[str] | None = None
) -> Rules:
    """Rules from what a TOML file holds; `source` is named in errors."""
    _known(source, data, ("version", "provenance", "rules", TABLE))
    if data.get("version", VERSION) != VERSION:
        raise ValueError(f"{source}: version is {data['version']!r}; accepted: {VERSION}")
    tables = data.get("rules")
    if tables is None and TABLE in data:  # only what differs by category
        tables = tomllib.loads(BUILT_IN.read_text(encoding="utf-8"))["rules"]
    if not isinstance(tables, Mapping) or not tables:
        raise ValueError(f"{source}: no [rules.NAME] table; accepted: at least one")
    tables = of_category(tables, data.get(TABLE, {}), category, source)
    return MappingProxyType({str(name): _rule(f"{source}: rule {name!r}", str(name), t) for name, t in tables.items()})


def as_rules(rules: Any, category: str | os.PathLike[str] | None = None) -> Rules:
    """Rules as given to `guard`: loaded ones, a path, or plain data; of a category, where the file tells some apart."""
    if isinstance(rules, str | os.PathLike):
        return load_rules(rules, category)
    if isinstance(rules, Mapping):
        if rules and all(isinstance(r, AnyRule) for r in rules.values()):
            return rules
        return parse_rules(rules, category=category)
    raise TypeError(f"rules is {type(rules).__name__}; accepted: what load_rules returns, a path, or a mapping")


def dump_rules(rules: Rules, provenance: Mapping[str, Any] | None = None) -> str:
    """Write rules as TOML text.

    Parameters
    ----------
    rules : Rules
        What `load_rules` returns.
    provenance : mapping, optional
        Where they come from; it stands at the top of the text.

    Returns
    -------
    str
        `load_rules` reads the same rules back.

    Examples
    --------
    >>> rules = {"shift": semnr.DEFAULT_RULES["geometric_shift"]}
    >>> print(semnr.guarding.dump_rules(rules).splitlines()[2])
    [rules."shift"]
    """
    lines = [f"version = {VERSION}"]
    if provenance:
        lines += ["", "[provenance]", *(f"{_key(k)} = {_toml(v)}" for k, v in provenance.items())]
    for name, rule in rules.items():
        lines += ["", f"[rules.{_toml(name)}]"]
        for entry in fields(rule):
            value = getattr(rule, entry.name)
            if entry.name in ("conditions", "bounds"):
                rows = [[(f.name, getattr(c, f.name)) for f in fields(c)] for c in value]
                texts = [
                    ", ".join(f"{k} = {_toml(v)}" for k, v in r if v not in (math.inf, -math.inf, "")) for r in rows
                ]
                lines += [f"{entry.name} = [", *(f"    {{ {text} }}," for text in texts), "]"]
            elif entry.name != "name" and value != "":
                lines.append(f"{entry.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _rule(where: str, name: str, table: Any) -> AnyRule:
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} is {table!r}; accepted: a table")
    if "kind" not in table:
        raise ValueError(f"{where}: kind is missing; accepted: {_listed(tuple(_KINDS))}")
    _choice(where, "kind", table["kind"], tuple(_KINDS))
    cls = _KINDS[table["kind"]]
    _known(where, table, tuple(f.name for f in fields(cls) if f.name != "name"))
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "severity":
            _choice(where, key, value, SEVERITIES)
        elif key == "psnr":
            _choice(where, key, value, PSNR)
        elif key in ("required", "gate"):
            _bool(where, key, value)
        elif key in ("share", "min_coverage"):
            value = _number(where, key, value, high=1.0)
        elif key in ("z", "below"):
            value = _number(where, key, value)
        elif key in ("advice", "question") and not isinstance(value, str):
            raise ValueError(f"{where}: {key} is {value!r}; accepted: text")
        elif key == "bounds":
            if not isinstance(value, list | tuple):
                raise ValueError(f"{where}: bounds is {value!r}; accepted: a list of tables")
            value = tuple(_bound(f"{where}, bound {i + 1}", b) for i, b in enumerate(value))
        elif key == "conditions":
            if not isinstance(value, list | tuple):
                raise ValueError(f"{where}: conditions is {value!r}; accepted: a list of tables")
            value = tuple(_condition(f"{where}, condition {i + 1}", c) for i, c in enumerate(value))
        values[key] = value
    if cls is Comparison and not values.get("conditions"):
        raise ValueError(f"{where}: no conditions; accepted: at least one")
    if cls is Range and not values.get("bounds"):
        raise ValueError(f"{where}: no bounds; accepted: at least one")
    return cls(name=name, **values)


def _condition(where: str, table: Any) -> Condition:
    if isinstance(table, Condition):
        return table
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} is {table!r}; accepted: a table with metric, change and by")
    _known(where, table, ("metric", "change", "by", "relative"))
    for key in ("metric", "change", "by"):
        if key not in table:
            raise ValueError(f"{where}: {key} is missing")
    _choice(where, "metric", table["metric"], METRICS)
    _choice(where, "change", table["change"], CHANGES)
    _bool(where, "relative", table.get("relative", False))
    return Condition(table["metric"], table["change"], _number(where, "by", table["by"]), table.get("relative", False))


def _bound(where: str, table: Any) -> Bound:
    if isinstance(table, Bound):
        return table
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} is {table!r}; accepted: a table with column and below or above")
    _known(where, table, ("column", "below", "above", "certain", "where", "exceeds"))
    if ("where" in table) != ("exceeds" in table):
        raise ValueError(f"{where}: where and exceeds belong together; accepted: both, or none of them")
    column = table.get("column")
    if not isinstance(column, str) or not column.isidentifier():
        raise ValueError(f"{where}: column is {column!r}; accepted: the name of a column of scored runs")
    ends = {
        key: _number(where, key, table[key], low=-math.inf) for key in ("below", "above", "certain") if key in table
    }
    if not ends:
        raise ValueError(f"{where}: none of below, above and certain; accepted: at least one of them")
    if ends.get("below", -math.inf) >= ends.get("above", math.inf):
        raise ValueError(f"{where}: below is {ends['below']:g} and above {ends['above']:g}; accepted: below < above")
    if "where" in table:
        ends["exceeds"] = _number(where, "exceeds", table["exceeds"], low=-math.inf)
        if not isinstance(table["where"], str) or not table["where"].isidentifier():
            raise ValueError(f"{where}: where is {table['where']!r}; accepted: the name of a column of scored runs")
    return Bound(column, where=str(table.get("where", "")), **ends)


def _known(where: str, table: Mapping[str, Any], accepted: tuple[str, ...]) -> None:
    for key in table:
        if key not in accepted:
            raise ValueError(f"{where}: unknown entry {key!r}; accepted: {_listed(accepted)}")


def _choice(where: str, key: str, value: Any, accepted: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{where}: {key} is {value!r}; accepted: {_listed(accepted)}")


def _bool(where: str, key: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{where}: {key} is {value!r}; accepted: true or false")


def _number(where: str, key: str, value: Any, high: float = math.inf, low: float = 0.0) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high:
        least = "a finite number" if math.isinf(low) else f"a finite number of at least {low:g}"
        span = least if math.isinf(high) else f"a number between {low:g} and {high:g}"
        raise ValueError(f"{where}: {key} is {value!r}; accepted: {span}")
    return float(value)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))


def _key(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(k))} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
    return repr(value)


DEFAULT_RULES: Rules = load_rules(BUILT_IN)
