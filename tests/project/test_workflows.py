"""The project's own files: workflows that parse and run what exists, one list of linters, one version."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import cases
import semnr

ROOT = cases.REPOSITORY
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# what a fresh runner with Python has, beside what a workflow installs
TOOLS = {"pip", "python", "bash", "sudo", "pytest", "make"}
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def parsed(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return read


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in parsed(path)["jobs"].items():
            yield path.stem, name, job


def commands() -> list[list[str]]:
    """Every command that a workflow runs, as words."""
    runs = [step["run"] for _, _, job in jobs() for step in job["steps"] if "run" in step]
    return [shlex.split(part) for run in runs for line in run.splitlines() for part in line.split("&&")]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_what_the_service_asks_for(path: Path) -> None:
    workflow = parsed(path)
    assert workflow["name"]
    assert True in workflow, "the key `on`, which YAML 1.1 reads as true"
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "actions/checkout@v1"))


def test_lint_tests_of_each_python_and_wheels_are_run() -> None:
    known = {(workflow, name): job for workflow, name, job in jobs()}
    assert {("ci", "lint"), ("ci", "test"), ("ci", "everything"), ("wheels", "wheels")} <= set(known)
    assert known["ci", "test"]["strategy"]["matrix"]["python-version"] == PYTHONS


def test_the_pythons_are_those_that_the_package_names() -> None:
    said = [c.rpartition(" ")[2] for c in PROJECT["project"]["classifiers"] if c.startswith("Programming Language")]
    assert [version for version in said if "." in version] == PYTHONS
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    built = PROJECT["tool"]["cibuildwheel"]["build"].split()
    assert built == [f"cp{version.replace('.', '')}-*" for version in PYTHONS]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_of_a_workflow_exists(words: list[str]) -> None:
    assert words[0] in TOOLS
    if words[0] == "make":
        assert set(words[1:]) <= targets()
    if words[0] == "bash":
        assert (ROOT / words[1]).is_file()
    if words[0] == "pip":
        extras = {name for word in words for group in re.findall(r"\[(.*)\]", word) for name in group.split(",")}
        assert extras <= set(PROJECT["project"]["optional-dependencies"])


def test_the_linters_are_listed_once() -> None:
    """In the Makefile; pre-commit, .ci/run and the workflow call it."""
    hooks = [hook for repo in parsed(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert [shlex.split(hook["entry"]) for hook in hooks] == [["make", "-s", "lint"]]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make -s lint" in script
    assert not re.search(r"^\s*(ruff|mypy|lint-imports|clang-format)\b", script, re.M)
    assert ["make", "lint"] in commands()


def test_the_version_stands_in_one_place_and_the_citation_follows() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "semnr.__version__"}
    citation = parsed(ROOT / "CITATION.cff")
    assert str(citation["version"]) == semnr.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_project_says_where_it_lives() -> None:
    urls = PROJECT["project"]["urls"]
    assert {"Source", "Issues", "Changelog", "Documentation"} <= set(urls)
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    for url in (urls["Changelog"], urls["Documentation"]):
        assert (ROOT / re.split(r"/(?:blob|tree)/main/", url)[1]).exists()


def test_security_says_how_to_report_and_what_is_promised() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "Report a vulnerability" in text
    for option in re.findall(r"`(--[a-z-]+)", text):
        assert option in (ROOT / "python" / "semnr" / "cli" / "score.py").read_text(encoding="utf-8")
