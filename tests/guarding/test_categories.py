"""Rules that depend on what the images show: by name, or by a run of `semnr classify predict`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import semnr
from semnr import cli
from semnr.guarding import DEFAULT_RULES, load_rules

RULES = """
[categories.Porous_Sponge.geometric_shift]
share = 0.5
severity = "low"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def classified(folder: Path, **counts: int) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"categories": counts}))
    return folder


def test_a_category_changes_its_entries_and_nothing_else(file: Path) -> None:
    assert load_rules(file) == DEFAULT_RULES
    assert load_rules(file, "Powder") == DEFAULT_RULES
    rules = load_rules(file, "Porous_Sponge")
    assert (rules["geometric_shift"].share, rules["geometric_shift"].severity) == (0.5, "low")
    assert {n: r for n, r in rules.items() if n != "geometric_shift"} == {
        n: r for n, r in DEFAULT_RULES.items() if n != "geometric_shift"
    }


def test_the_category_is_that_of_nearly_all_decided_tiles_of_a_run(file: Path, tmp_path: Path) -> None:
    run = classified(tmp_path / "run", Porous_Sponge=19, Powder=1, unknown=30)
    assert load_rules(file, run)["geometric_shift"].share == 0.5
    mixed = classified(tmp_path / "mixed", Porous_Sponge=8, Powder=2)
    with pytest.raises(ValueError, match=r"tiles are of several categories \(Porous_Sponge 8, Powder 2\)"):
        load_rules(file, mixed)
    with pytest.raises(ValueError, match=r"several categories \(none\)"):
        load_rules(file, classified(tmp_path / "none", unknown=4))
    (tmp_path / "scored").mkdir()
    (tmp_path / "scored" / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="which is no run of semnr classify predict"):
        load_rules(file, tmp_path / "scored")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[categories.Powder.no_rule]\nshare = 1.0", "categories.Powder has rule 'no_rule'; accepted: over_smoothing"),
        ("[categories.Powder]\ngeometric_shift = 1", "categories.Powder.geometric_shift is 1; accepted: a table"),
        ("[categories]\nPowder = 1", "categories is {'Powder': 1}; accepted: tables"),
        ("[categories.Powder.geometric_shift]\nshares = 1.0", "shares"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(ValueError) as error:
        load_rules(tmp_path / "rules.toml", "Powder")
    assert says in str(error.value)


def test_check_and_guard_take_a_category_with_rules(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = semnr.synth.tile("lines", 128, seed=1)
    noisy, denoised = image.noisy(dtype="uint8"), semnr.denoise(image.noisy(dtype="uint8"), model="gaussian")
    with pytest.raises(ValueError, match="category is 'Powder' without rules; accepted: both"):
        semnr.check(noisy, denoised, category="Powder")
    usual = semnr.check(noisy, denoised, rules=file, category="Powder")
    sponge = semnr.check(noisy, denoised, rules=file, category="Porous_Sponge")
    severities = [next(s.severity for s in v.signals if s.name == "geometric_shift") for v in (usual, sponge)]
    assert severities == [DEFAULT_RULES["geometric_shift"].severity, "low"]
    run = semnr.score(denoised, noisy=noisy, reference=noisy, out=tmp_path / "run", metrics=("psnr",), tests=False)
    assert cli.main(["guard", str(run.path), "--category", "Powder"]) == 2
    assert "--category is 'Powder' without --rules; accepted: both" in capsys.readouterr().err
