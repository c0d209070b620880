"""Everything public says what it takes, what it gives back and how it is used; the examples run.

They use the images that the docstring of `semnr` makes: `clean`, `noisy`, `second`, `denoised`.
"""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from typing import Any

import public_names
import pytest

import semnr

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PUBLIC = {one.name: one for one in public_names.names()}
TEXTS = {
    **{name: inspect.getdoc(module) or "" for name, module in public_names.modules().items()},
    **{name: public_names.docstring(one) for name, one in PUBLIC.items() if not public_names.is_constant(one)},
}


def run(name: str, text: str, names: dict[str, Any]) -> str:
    """Run the examples of a docstring; what went wrong, or ""."""
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append, clear_globs=False)
    names.update(test.globs)
    return "".join(said)


@pytest.fixture(scope="module")
def images() -> dict[str, Any]:
    """The names that the docstring of `semnr` leaves."""
    names: dict[str, Any] = {}
    wrong = run("semnr", semnr.__doc__, names)
    assert not wrong, wrong
    return names


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if ">>> " in text])
def test_the_example_runs(name: str, images: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = run(name, TEXTS[name], dict(images))
    assert not wrong, wrong


def test_no_public_name_lacks_parameters_returns_or_an_example() -> None:
    lacking = {name: lacks for name, one in PUBLIC.items() if (lacks := public_names.lacks(one))}
    assert lacking == {}


def test_every_public_module_says_what_it_is_for() -> None:
    assert [name for name in public_names.modules() if not TEXTS[name]] == []


def test_the_count_sees_what_is_missing() -> None:
    """The test above would notice."""

    def bare(x: int, *, y: int = 0, **more: int) -> int:
        """Adds up.

        Parameters
        ----------
        x, gone : int
            The first, and one that is no argument any more.

        Returns
        -------
        int
        """
        return x + y + sum(more.values())

    assert public_names.lacks(public_names.Public("semnr.bare", bare)) == [
        "an example",
        "gone in the signature",
        "parameter **more",
        "parameter y",
    ]
    assert public_names.lacks(public_names.Public("semnr.bare", lambda x: x)) == ["a docstring"]
