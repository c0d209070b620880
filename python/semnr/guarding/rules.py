"""Rules as data: the entries of a rule, read from TOML and checked."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..columns import used
from .calibration import ALL, SIDES, Stratum, Term, digest, needed
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


@dataclass(frozen=True)
class Conformal(Rule):
    """A rule with a bound on its false alarms: a tile's score against those of harmless fields.

    `semnr.guarding.calibrate` and `semnr.learn_rules(level=...)` make one; docs/trust.md says what is guaranteed. It
    fires where the strongest field of a wafer is one that a harmless wafer has with probability `wafer_level` or less.

    Parameters
    ----------
    name, kind, severity, required, gate, share, z, min_coverage, advice, question
        What every rule says, see rules.toml. `share` and `z` are not used.
    level : float
        A random tile of a harmless field is flagged with at most this probability.
    wafer_level : float
        A harmless wafer fires the rule with at most this probability.
    discovery : float
        False-discovery rate of the fields that are listed.
    unit : str
        What is exchangeable: "tile" (each tile is a field of its own), "die", "wafer", "lot", or a column that names
        the field of a tile.
    strata : tuple of str
        Columns by which fields are told apart: "pattern", or with edges of bins "psnr_noisy:18,22".
    combined : tuple of str
        The rules whose scores make the combined score, which is their largest.
    terms : tuple of Term
        How columns become scores.
    calibration : mapping of str to Stratum
        Scores of harmless fields by stratum.
    sha256 : str
        Of what was learnt: levels may be changed by hand, scores may not.

    Raises
    ------
    ValueError
        A level that the calibration fields of a stratum are too few for, with the number needed; scores that are not
        those that were learnt.

    Examples
    --------
    >>> harmless = semnr.Profile(tuple(map(str, range(40))), {"removed_z": np.linspace(3, 5, 40)}, data_range=1.0)
    >>> rule = semnr.guarding.calibrate([harmless], level=0.05, wafer_level=0.05, unit="tile")
    >>> rule.metrics, rule.calibration["all"].fields
    (('removed_z',), 34)
    >>> rule.moved(level=0.1).level
    0.1
    """

    level: float = 0.01
    wafer_level: float = 0.05
    discovery: float = 0.1
    unit: str = "tile"
    strata: tuple[str, ...] = ()
    combined: tuple[str, ...] = ()
    terms: tuple[Term, ...] = ()
    calibration: Mapping[str, Stratum] = field(default_factory=dict)
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.sha256 != self.learnt:
            raise ValueError(
                f"rule {self.name!r}: the scores of the calibration are not those that were learnt (sha256); accepted: "
                "levels may be changed by hand, scores may not: learn again"
            )
        for name, level in (("level", self.level), ("wafer_level", self.wafer_level), ("discovery", self.discovery)):
            if not 0 < level < 1:
                raise ValueError(f"rule {self.name!r}: {name} is {level!r}; accepted: a share between 0 and 1")
        for stratum, kept in self.calibration.items():
            for name, level in (("level", self.level), ("wafer_level", self.wafer_level)):
                known = min(len(kept.field), len(kept.tile.get(ALL, ())))
                if known < needed(level):
                    raise ValueError(
                        f"rule {self.name!r}: {name} is {level:g}, for which {known} calibration fields of {stratum} "
                        f"are too few; accepted: at least {needed(level)} (⌈1/{level:g}⌉ − 1), or a level of at least "
                        f"{1 / (known + 1):.3g}"
                    )

    @property
    def learnt(self) -> str:
        """The sha256 of what the rule holds."""
        return digest(self.terms, self.calibration, self.unit, list(self.strata), list(self.combined))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns that the combined score reads."""
        return tuple(dict.fromkeys(t.column for t in self.terms if t.rule in self.combined))

    @property
    def limits(self) -> tuple[dict[str, Any], ...]:
        """Where the rule flags a tile, for `Signal.limits`."""
        return ({"column": "p_value", "below": self.level}, {"column": "p_wafer", "below": self.wafer_level})

    def moved(
        self, level: float | None = None, wafer_level: float | None = None, discovery: float | None = None
    ) -> Conformal:
        """The rule at other levels, without learning again.

        Parameters
        ----------
        level, wafer_level, discovery : float, optional
            The new ones. Default: as they are.

        Returns
        -------
        Conformal
        """
        return replace(
            self,
            level=self.level if level is None else level,
            wafer_level=self.wafer_level if wafer_level is None else wafer_level,
            discovery=self.discovery if discovery is None else discovery,
        )


AnyRule = Comparison | Transfer | Range | Conformal
Rules = Mapping[str, AnyRule]
_KINDS: dict[str, type[AnyRule]] = {
    "comparison": Comparison,
    "transfer": Transfer,
    "range": Range,
    "conformal": Conformal,
}


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
            if entry.name == "calibration":
                continue
            if entry.name in ("conditions", "bounds", "terms"):
                rows = [[(f.name, getattr(c, f.name)) for f in fields(c)] for c in value]
                texts = [
                    ", ".join(f"{k} = {_toml(v)}" for k, v in r if v not in (math.inf, -math.inf, "")) for r in rows
                ]
                lines += [f"{entry.name} = [", *(f"    {{ {text} }}," for text in texts), "]"]
            elif entry.name != "name" and value != "":
                lines.append(f"{entry.name} = {_toml(value)}")
        for stratum, kept in rule.calibration.items() if isinstance(rule, Conformal) else ():
            at = f"rules.{_toml(name)}.calibration.{_toml(stratum)}"
            lines += ["", f"[{at}]", f"fields = {kept.fields}", f"tiles = {kept.tiles}", f"field = {_toml(kept.field)}"]
            lines += ["", f"[{at}.tile]", *(f"{_key(k)} = {_toml(v)}" for k, v in kept.tile.items())]
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
        elif key in ("z", "below", "level", "wafer_level", "discovery"):
            value = _number(where, key, value)
        elif key in ("unit", "sha256"):
            _text(where, key, value)
        elif key in ("strata", "combined"):
            value = tuple(_text(where, key, one) for one in _list(where, key, value))
        elif key == "terms":
            value = tuple(_term(f"{where}, term {i + 1}", t) for i, t in enumerate(_list(where, key, value)))
        elif key == "calibration":
            value = {str(k): _stratum(f"{where}, calibration {k!r}", v) for k, v in _table(where, key, value).items()}
        elif key in ("advice", "question"):
            _text(where, key, value)
        elif key == "bounds":
            value = tuple(_bound(f"{where}, bound {i + 1}", b) for i, b in enumerate(_list(where, key, value)))
        elif key == "conditions":
            rows = enumerate(_list(where, key, value))
            value = tuple(_condition(f"{where}, condition {i + 1}", c) for i, c in rows)
        values[key] = value
    if cls is Comparison and not values.get("conditions"):
        raise ValueError(f"{where}: no conditions; accepted: at least one")
    if cls is Range and not values.get("bounds"):
        raise ValueError(f"{where}: no bounds; accepted: at least one")
    if cls is Conformal and not (values.get("terms") and values.get("calibration")):
        raise ValueError(f"{where}: no terms or no calibration; accepted: what semnr guard --learn wrote")
    return cls(name=name, **values)


def _term(where: str, table: Any) -> Term:
    if isinstance(table, Term):
        return table
    _known(where, _table(where, "term", table), tuple(f.name for f in fields(Term)))
    texts: dict[str, Any] = {k: _text(where, k, table.get(k, "")) for k in ("rule", "column", "side", "where")}
    _choice(where, "side", texts["side"], SIDES)
    numbers: dict[str, Any] = {k: _number(where, k, v, low=-math.inf) for k, v in table.items() if k not in texts}
    if not numbers.get("scale", 1.0) > 0:
        raise ValueError(f"{where}: scale is {table['scale']!r}; accepted: a number above 0")
    return Term(**texts, **numbers)


def _stratum(where: str, table: Any) -> Stratum:
    if isinstance(table, Stratum):
        return table
    _known(where, _table(where, "calibration", table), tuple(f.name for f in fields(Stratum)))
    rows = {"field": table.get("field", []), **_table(where, "tile", table.get("tile", {}))}
    for key, row in rows.items():
        if not all(isinstance(v, int | float) and v == v for v in _list(where, key, row)) or list(row) != sorted(
            row, reverse=True
        ):
            raise ValueError(f"{where}: {key} is no list of numbers, largest first; accepted: what --learn wrote")
    kept = {key: tuple(map(float, row)) for key, row in rows.items()}
    counted, tiles = (int(_number(where, key, table.get(key, 0))) for key in ("fields", "tiles"))
    return Stratum(counted, tiles, kept, kept.pop("field"))


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


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: {key} is {value!r}; accepted: text")
    return value


def _list(where: str, key: str, value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: {key} is {value!r}; accepted: a list of tables or values")
    return value


def _table(where: str, key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {key} is {value!r}; accepted: a table")
    return value


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
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
    return repr(value)


DEFAULT_RULES: Rules = load_rules(BUILT_IN)
