"""Everything public says what it takes, what it gives back and how it is used; the examples run.

Those of `semnr` use the images that its docstring makes: `clean`, `noisy`, `second`, `denoised`. Those of
`semnr_kernels` may use these too, and the tensors `x` and `y` that the docstring of `semnr_kernels` makes.
"""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path
from typing import Any

import public_names
import pytest

import semnr
import semnr_kernels

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PACKAGES = (semnr, semnr_kernels)
PUBLIC = {one.name: one for package in PACKAGES for one in public_names.names(package)}
MODULES = {name: module for package in PACKAGES for name, module in public_names.modules(package).items()}
TEXTS = {
    **{name: inspect.getdoc(module) or "" for name, module in MODULES.items()},
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
    """The names that the docstrings of the packages leave."""
    names: dict[str, Any] = {}
    for package in PACKAGES:
        wrong = run(package.__name__, package.__doc__ or "", names)
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
    assert [name for name in MODULES if not TEXTS[name]] == []


def test_the_ops_are_among_them() -> None:
    assert {"semnr_kernels.ssim.ssim", "semnr_kernels.pixel.psnr", "semnr_kernels.fsim.features"} <= set(PUBLIC)


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
