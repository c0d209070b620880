"""The house: imports at the top, no cycles, no module named like a function. `lint-imports` holds the layers."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import types
from collections.abc import Iterator
from pathlib import Path

import semnr

ROOT = Path(semnr.__file__).parent
# Imports of our own modules that stand inside a function, file by file, and why.
INSIDE = {
    **dict.fromkeys(
        (
            "cli/bench",
            "cli/compare_denoisers",
            "cli/demo",
            "cli/denoise",
            "cli/doctor",
            "cli/report",
            "cli/stress",
            "cli/synth",
            "cli/text",
            "cli/train",
        ),
        "a help text loads no torch",
    ),
    **dict.fromkeys(
        ("cli/anomaly", "cli/bench", "cli/check", "cli/guard", "cli/score", "cli/weights"), "a help text loads no torch"
    ),
    **dict.fromkeys(("cli/classify", "cli/leakage"), "a help text loads no torch"),
    "classify/__init__": "needs the extra [classify]",
    **dict.fromkeys(("denoising/learned", "denoising/weights"), "the network loads torch: classical models do without"),
    "anomaly/fitting": "needs the extra [train]",
    "guarding/inputs": "the evidence on pixels loads torch: a run is judged without",
    "pipeline": "scores load torch: classical denoising does without",
    "profiles/__init__": "scoring loads torch: a profile is read without",
    "profiles/reference": "a pair: a profile makes a Reference, a Reference makes profiles",
    "reporting/panes": "the residual's scan loads torch: a report without panes does without",
    "runs/run": "a run is read without the modules of profiles",
    "training/__init__": "needs the extra [train]",
}
MOST_INSIDE = 46


def files() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).with_suffix("").as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST, inside: bool = False, typing: bool = False) -> Iterator[tuple[ast.ImportFrom, bool, bool]]:
    """Every `from ... import` of our own: the node, whether inside a function, whether for a type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").partition(".")[0] == "semnr"):
            yield node, inside, typing
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        checked = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        yield from imports(node, inside or function, typing or checked)


def test_imports_of_our_own_stand_at_the_top_but_for_those_with_a_reason() -> None:
    found = [name for name, tree in files() for _, inside, _ in imports(tree) if inside]
    assert set(found) == set(INSIDE)
    assert len(found) <= MOST_INSIDE


def test_imports_inside_the_package_are_relative() -> None:
    assert [name for name, tree in files() for node, _, _ in imports(tree) if not node.level] == []


def modules() -> list[str]:
    names = [m.name for m in pkgutil.walk_packages(semnr.__path__, "semnr.") if not m.name.endswith("__main__")]
    return ["semnr", *names]


def arrows() -> dict[str, set[str]]:
    """Module -> the modules that it imports, also inside a function."""
    known = set(modules())
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, tree in files():
        package = name.endswith("__init__") or name == "__init__"
        parts = ["semnr", *name.removesuffix("__init__").strip("/").split("/")] if name != "__init__" else ["semnr"]
        here = ".".join(parts)
        for node, _, typing in imports(tree):
            if typing or here not in known:
                continue
            above = parts[: len(parts) - node.level + package]
            target = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                one = f"{target}.{alias.name}"
                found[here].add(one if one in known else target)
        found.get(here, set()).discard("semnr")  # its version
        found.get(here, set()).discard(here)
    return found


def test_no_cycle_of_imports_is_larger_than_a_pair() -> None:
    graph = arrows()

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            for name in graph[left.pop()] - seen:
                seen.add(name)
                left.append(name)
        return seen

    reach = {name: reached(name) for name in graph}
    cycles = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph if a in reach[a]}
    assert [sorted(cycle) for cycle in cycles if len(cycle) > 2] == []
    packages = [{name.split(".")[1] for name in cycle} for cycle in cycles]
    assert all(len(names) == 1 for names in packages)


def test_no_module_has_the_name_of_a_function_beside_it() -> None:
    for name in modules():
        importlib.import_module(name)
    for name in modules()[1:]:
        package, _, last = name.rpartition(".")
        held = getattr(importlib.import_module(package), last, None)
        assert isinstance(held, types.ModuleType), name


def test_no_package_has_the_name_of_a_public_function() -> None:
    named = [n for n in semnr.__all__ if not isinstance(getattr(semnr, n), types.ModuleType)]
    assert [n for n in named if f"semnr.{n}" in modules()] == []
