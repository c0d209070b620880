"""The site: no run column, rule or public name without its place; each page that is promised is there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from types import ModuleType

import public_names
import pytest

import cases
from semnr.columns import COLUMNS, ROW
from semnr.guarding import DEFAULT_RULES
from semnr.runs.verdict import ON_THE_RUN

DOCS = cases.REPOSITORY / "docs"


PATHS = sorted((cases.REPOSITORY / "benchmarks" / "results").glob("*.json"))


def _of_the_site(name: str) -> ModuleType:
    sys.path.insert(0, str(DOCS / "_site"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS / "_site"))


@pytest.fixture(scope="module")
def facts() -> ModuleType:
    return _of_the_site("facts")


@pytest.fixture(scope="module")
def measured() -> ModuleType:
    return _of_the_site("measured")


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each row that has an anchor, by the name of the anchor."""
    found = {}
    for line in text.splitlines():
        if anchor := re.match(r'\| <a id="(\w+)"></a>`\1` \|', line):
            found[anchor[1]] = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    return found


def test_every_column_of_a_run_has_its_unit_and_direction_on_the_page(facts) -> None:
    held = rows(facts.columns())
    assert "<!-- generated: columns -->" in (DOCS / "columns.md").read_text(encoding="utf-8")
    assert set(held) == {column.name for column in COLUMNS} | set(ROW)
    for column in COLUMNS:
        _, label, unit, better, *_ = held[column.name]
        assert label == column.label
        assert unit == (column.unit or "none")
        assert better == (column.direction or "neither end")
    assert all(cells[-1] for cells in held.values())


def test_every_rule_has_a_section_that_says_what_to_do(facts) -> None:
    text = (DOCS / "rules.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S))
    assert list(sections) == [*DEFAULT_RULES, *ON_THE_RUN]
    for name, section in sections.items():
        assert "**What to do.**" in section, name
        if name in DEFAULT_RULES:
            assert f"<!-- generated: rule {name} -->" in section
            assert DEFAULT_RULES[name].advice in facts.rule(name)


def test_a_rule_says_every_bound(facts) -> None:
    assert "`overshoot above 0.012` **or** `transfer above 1.06`" in facts.rule("over_sharpening")
    assert "`residual_structure_z above 15` where `residual_variance` exceeds 1" in facts.rule("residual_structure_z")
    assert "`psnr up by more than 0.1` **and** `fsim down by more than 0.003`" in facts.rule("over_smoothing")


def test_every_public_name_is_on_a_reference_page(facts) -> None:
    pages = "\n".join(facts.reference(page) for page in facts.names())
    listed = set(re.findall(r"^::: (semnr\.\w[\w.]*)", pages, flags=re.M))
    there = {one.name for one in public_names.names() if one.owner is None and not one.name.endswith("__version__")}
    assert there <= listed
    nav = (cases.REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"reference/([\w.]+)\.md", nav)) == set(facts.names())


def test_the_tables_of_performance_are_those_of_the_raw_rows(measured) -> None:
    text = measured.PAGE.read_text(encoding="utf-8")
    assert text == measured.filled(text), "docs/performance.md: python docs/_site/measured.py"
    assert sorted(measured.blocks(text)) == sorted(measured.tables())
    speed = {path.stem.partition("-")[0] for path in PATHS if "/speed/" in measured.records.read(path)["benchmark"]}
    assert speed <= set(measured.blocks(text))


def test_a_changed_raw_row_changes_the_table(measured, tmp_path, monkeypatch) -> None:
    text = measured.PAGE.read_text(encoding="utf-8")
    made = measured.records.read(measured.records.RESULTS / "report.json")
    made["rows"][0]["figures"]["seconds"] = [123.0]
    for path in PATHS:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    measured.records.write(tmp_path / "report.json", made)
    monkeypatch.setattr(measured.records, "RESULTS", tmp_path)
    changed = [
        new for new, old in zip(measured.filled(text).splitlines(), text.splitlines(), strict=True) if new != old
    ]
    assert len(changed) == 1
    assert "123 s" in changed[0]


def test_a_bar_that_is_not_reached_is_missed(measured) -> None:
    assert measured._held([measured.faster("piq", 2.0).met(1.99)]) == "**missed**"
    assert measured._held([measured.costs("time", 4e-5).met(3.9e-5)]) == "met"
    assert measured._held([]) == ""


def test_each_picture_that_a_page_asks_for_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    pictures = _of_the_site("pictures")
    asked = set(re.findall(r"^<!-- picture (\w+):", (DOCS / "concepts.md").read_text(encoding="utf-8"), flags=re.M))
    assert asked == set(pictures.FILES)


def test_the_terms_in_the_picture_are_those_of_the_metric() -> None:
    pytest.importorskip("matplotlib")
    import numpy as np

    import semnr

    pictures = _of_the_site("pictures")
    tile = semnr.synth.tile("holes", 96, seed=2)
    x, y = tile.noisy(dtype="uint8"), tile.reference("uint8")
    components = semnr.ssim(x, y, components=True).components
    for name, values in pictures._terms(x, y).items():
        assert float(np.mean(values)) == pytest.approx(float(np.ravel(components[name])[0]), abs=1e-5)


def test_an_example_without_its_package_names_the_extra() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; sys.argv = ['contrast.py', '--small']; "
    code += "sys.path.insert(0, '.'); exec(compile(open('contrast.py').read(), 'contrast.py', 'exec'))"
    folder = cases.REPOSITORY / "examples"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'semnr[plot]'" in done.stderr
