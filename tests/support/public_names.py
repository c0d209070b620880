"""What of semnr and of semnr_kernels is public, and what its docstrings lack.

Public is what the package's `__all__` lists, and what the `__all__` of each module in it lists. `modules` and `names`
take the package; `semnr` is the default, whose names are a promise to users. Those of `semnr_kernels` may change, but
have docstrings by the same rule (docs/api.md says it to users):

- a function, method or class that takes arguments names each of them under "Parameters", and nothing else there (the
  fields of a dataclass may stand under "Attributes");
- a function or method that gives something back says what under "Returns" or "Yields";
- a function or class has an example that doctest runs; a method has one of its own, or its class's example calls it;
- a property and a module need a sentence; a constant has no docstring, so that the one of its module names it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import semnr
import semnr_kernels

OURS = ("semnr", "semnr_kernels")


class Public(NamedTuple):
    """One public name: `semnr.tiles.TileSource.read`, say."""

    name: str
    value: Any
    owner: type | None = None  # the class of a method


def modules(package: types.ModuleType = semnr) -> dict[str, types.ModuleType]:
    """The public modules of a package by their full names, the package itself first."""
    inside = {name: getattr(package, name) for name in package.__all__}
    own = {f"{package.__name__}.{n}": m for n, m in inside.items() if isinstance(m, types.ModuleType)}
    return {package.__name__: package, **own}


def names(package: types.ModuleType = semnr) -> list[Public]:
    """Every public function, class, method and constant, each once: under the first name that leads to it."""
    known: set[int] = set()
    listed: list[Public] = []
    for module_name, module in modules(package).items():
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, types.ModuleType) or id(value) in known:
                continue
            known.add(id(value))
            one = Public(f"{module_name}.{name}", value)
            members = [m for m in _members(one) if id(m.value) not in known]
            known.update(id(m.value) for m in members)
            listed += [one, *members]
    return listed


def _members(one: Public) -> Iterator[Public]:
    if not _is_class(one.value):
        return
    seen: set[str] = set()
    for owner in one.value.__mro__:
        if owner.__module__.partition(".")[0] not in OURS or (owner is not one.value and not _is_hidden(owner)):
            continue  # another public class documents its own
        fields = getattr(owner, "__dataclass_fields__", {})
        for name, value in vars(owner).items():
            if name in fields or name in seen:
                continue
            seen.add(name)
            member = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                yield Public(f"{one.name}.{name}", member, one.value)


def _is_hidden(owner: type) -> bool:
    return owner.__name__.startswith("_")


def _is_class(value: Any) -> bool:
    return inspect.isclass(value) and not isinstance(value, types.GenericAlias)


def is_constant(one: Public) -> bool:
    """Whether the name stands for a value that can carry no docstring."""
    return not (_is_class(one.value) or inspect.isfunction(one.value) or isinstance(one.value, property))


def docstring(one: Public) -> str:
    """Its own; of a method that overrides one of ours, that of the one it overrides."""
    if one.owner is None:
        return inspect.cleandoc(one.value.__doc__ or "")
    last = one.name.rpartition(".")[2]
    return inspect.getdoc(getattr(one.owner, last)) or ""


def sections(text: str) -> dict[str, str]:
    """The sections of a numpydoc docstring by their titles."""
    parts = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def described(section: str) -> set[str]:
    """The names that stand at the left margin of a section: `x, y : array` describes x and y."""
    heads = [line.partition(" : ")[0] for line in section.splitlines() if re.match(r"[\w*\\]", line)]
    return {part.strip().replace("\\", "") for head in heads for part in head.split(",")}


def examples(text: str) -> str:
    """The lines that doctest runs."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip().startswith((">>> ", "... ")))


def lacks(one: Public) -> list[str]:
    """What the docstring of a name lacks by the rule above."""
    if is_constant(one):
        return _constant_lacks(one)
    text = docstring(one)
    if not text:
        return ["a docstring"]
    if isinstance(one.value, property):
        return []
    held = sections(text)
    missing = [f"parameter {name}" for name in _parameters(one) - _documented(one, held)]
    missing += [f"{name} in the signature" for name in described(held.get("Parameters", "")) - _parameters(one)]
    if _gives_back(one) and not {"Returns", "Yields"} & set(held):
        missing.append("Returns")
    if not _has_example(one, text):
        missing.append("an example")
    return sorted(missing)


def _constant_lacks(one: Public) -> list[str]:
    name = one.name.rpartition(".")[2]
    everywhere = [*modules().values(), *modules(semnr_kernels).values()]
    texts = [inspect.getdoc(m) or "" for m in everywhere if getattr(m, name, None) is one.value]
    named = name.startswith("__") or any(f"`{name}`" in text for text in texts)
    return [] if named else ["a sentence in the docstring of its module"]


def _parameters(one: Public) -> set[str]:
    if _is_class(one.value) and issubclass(one.value, BaseException) and "__init__" not in vars(one.value):
        return set()  # an exception with a message alone
    try:
        signature = inspect.signature(one.value)
    except ValueError:
        return set()
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return {
        marks.get(p.kind, "") + p.name
        for i, p in enumerate(signature.parameters.values())
        if not p.name.startswith("_") and not (i == 0 and p.name in ("self", "cls"))
    }


def _documented(one: Public, held: dict[str, str]) -> set[str]:
    titles = ["Parameters", "Other Parameters"]
    if dataclasses.is_dataclass(one.value):
        titles.append("Attributes")
    return set().union(*(described(held.get(title, "")) for title in titles))


def _gives_back(one: Public) -> bool:
    if _is_class(one.value):
        return False
    returned = inspect.signature(one.value).return_annotation
    return returned not in (None, "None", "NoReturn")


def _has_example(one: Public, text: str) -> bool:
    if examples(text):
        return True
    if one.owner is None:
        return False
    last = one.name.rpartition(".")[2]
    return re.search(rf"\b{last}\(", examples(inspect.getdoc(one.owner) or "")) is not None
