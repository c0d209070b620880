"""The documents say what the code does: files and functions that they name, public names, commands, links."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import public_names
import pytest

import cases
import tolerances
from semnr.cli import COMMANDS

DOCS = cases.REPOSITORY / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted((cases.REPOSITORY / "python" / "semnr").glob("*/README.md"))]
STEP = re.compile(r"^\| \d+ \| `([^`]+)` \| `([^`]+)` \|", flags=re.M)


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def defines(file: Path, name: str) -> bool:
    """Whether a Python or C++ file defines a function of that name, a method included."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
        return any(node.name == name for node in functions)
    return re.search(rf"^\w[\w:<> ]* {name}\(", text, flags=re.M) is not None


@pytest.mark.parametrize(("file", "name"), STEP.findall(read("architecture.md")))
def test_a_step_of_the_walks_names_a_file_and_a_function_in_it(file: str, name: str) -> None:
    assert defines(cases.REPOSITORY / file, name)


def test_there_are_two_walks() -> None:
    text = read("architecture.md")
    starts = [m.start() for m in re.finditer(r"^\| 1 \| ", text, flags=re.M)]
    assert len(starts) == 2
    assert len(STEP.findall(text)) >= 25


def test_every_public_name_is_promised_and_every_promise_is_kept() -> None:
    promised = set(re.findall(r"^\| `(semnr\.[\w.]+)` \|", read("api.md"), flags=re.M))
    modules = set(public_names.modules()) - {"semnr"}
    there = {one.name for one in public_names.names() if one.owner is None and not one.name.endswith("__version__")}
    assert promised == there | modules


def test_every_command_is_listed() -> None:
    assert set(re.findall(r"^\| `semnr ([\w-]+)`", read("api.md"), flags=re.M)) == set(COMMANDS)


def test_the_bounds_on_the_page_are_those_of_the_tests() -> None:
    rows = re.findall(r"^\|[^|]+\| ([0-9e.-]+) \| `(\w+)` \|$", read("numerics.md"), flags=re.M)
    assert len(rows) >= 10
    assert {name: float(bound) for bound, name in rows} == {name: getattr(tolerances, name) for _, name in rows}


def test_each_package_has_a_readme_of_its_own() -> None:
    packages = {path.parent for path in (cases.REPOSITORY / "python" / "semnr").glob("*/__init__.py")}
    assert sorted(p.name for p in packages if not (p / "README.md").is_file()) == []


@pytest.mark.parametrize("page", [p for p in PAGES if p.name == "README.md"], ids=lambda page: page.parent.name)
def test_the_files_that_a_readme_names_are_there(page: Path) -> None:
    named = re.findall(r"`([\w./]+\.(?:py|toml|html|md|css))`", page.read_text(encoding="utf-8"))
    places = (page.parent, cases.REPOSITORY, cases.REPOSITORY / "tests" / page.parent.name)
    assert [name for name in named if not any((place / name).is_file() for place in places)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(cases.REPOSITORY).as_posix())
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_glossary_explains_its_terms_once() -> None:
    terms = re.findall(r"^\| \*\*([^*]+)\*\*", read("glossary.md"), flags=re.M)
    assert len(terms) == len(set(terms)) >= 25
