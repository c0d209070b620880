"""What mypy and pyright see of semnr, from a file as a user writes it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import stubs

import cases
import semnr

CACHE = cases.REPOSITORY / "build" / "typing"  # mypy's: torch and NumPy are read once
USER = """
from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray

import semnr

tensor = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
array = np.zeros((2, 1, 64, 64), np.uint8)
asked: bool = bool(array.any())

assert_type(semnr.ssim(tensor, tensor), torch.Tensor)
assert_type(semnr.ssim(tensor, tensor, reduction="none", window_size=7), torch.Tensor)
assert_type(semnr.ssim(array, array), np.float64)
assert_type(semnr.ssim(array, array, reduction="none"), np.float64 | NDArray[np.float64])
assert_type(semnr.ssim(tensor, tensor, components=True), semnr.Result)
assert_type(semnr.ssim(array, array, return_map=True, reduction="none"), semnr.Result)
assert_type(semnr.ssim(array, array, details=True), semnr.Result)
assert_type(semnr.psnr(array, array, reduction="mean_mse"), np.float64)
assert_type(semnr.fsim(tensor, tensor, return_map=True), semnr.Result)
assert_type(semnr.cnr(array), np.float64 | NDArray[np.float64])
assert_type(semnr.cnr(array, array, reduction="mean"), np.float64)
assert_type(semnr.cnr_map(array, window=16), NDArray[np.float64])
assert_type(semnr.cnr_map(tensor, details=True), semnr.Result)
assert_type(semnr.profile(array, array), semnr.Profile)
assert_type(semnr.guard(None, semnr.profile(array, array)), semnr.Verdict)
assert_type(semnr.tiles.open_tiles("wafer.zarr"), semnr.tiles.TileSource)
assert_type(semnr.score("wafer.zarr", out="scores"), semnr.Run)
assert_type(semnr.losses.SSIMLoss(1.0)(tensor, tensor), torch.Tensor)
known: Any = semnr.dists(array, array, details=asked)
with semnr.use_backend("reference"):
    print(semnr.mse(array, array).item(), semnr.explain("ssim", tensor, tensor).chosen)
reveal_type(semnr.ssim(tensor, tensor))
reveal_type(semnr.ssim(array, array))
"""
WRONG = {  # a line that a checker must refuse -> what it is about
    "semnr.ssimm": "ssimm",
    "semnr.ssim(tensor, tensor, windowsize=7)": "ssim",
    "semnr.ssim(tensor, array)": "ssim",
    "semnr.tiles.open_tile": "open_tile",
}


def public_names() -> list[str]:
    """Every public name by its full path: of semnr, and of its public modules."""
    names = [f"semnr.{name}" for name in semnr.__all__]
    modules = [name for name in semnr.__all__ if isinstance(getattr(semnr, name), types.ModuleType)]
    return names + [f"semnr.{m}.{name}" for m in modules for name in getattr(getattr(semnr, m), "__all__", ())]


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with user.py, which is right, wrong.py, one error a line, and names.py, which reveals every name."""
    folder: Path = tmp_path_factory.mktemp("user")
    (folder / "user.py").write_text(USER, encoding="utf-8")
    head = "import numpy as np\nimport torch\nimport semnr\ntensor = torch.zeros(1)\narray = np.zeros(1)\n"
    (folder / "wrong.py").write_text(head + "\n".join(WRONG) + "\n", encoding="utf-8")
    revealed = "\n".join(f"reveal_type({name})" for name in public_names())
    (folder / "names.py").write_text(f"import semnr\n{revealed}\n", encoding="utf-8")
    (folder / "mypy.ini").write_text("[mypy]\nstrict = True\n", encoding="utf-8")
    settings = {"typeCheckingMode": "strict", "reportUnusedExpression": "none", "pythonVersion": "3.11"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def mypy(user: Path) -> list[tuple[str, int, str]]:
    CACHE.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", str(CACHE)]
    ran = subprocess.run([*command, "--no-error-summary", "."], cwd=user, capture_output=True, text=True, check=False)
    assert not ran.stderr, ran.stderr
    lines = re.findall(r"^(\w+\.py):(\d+): (.*)$", ran.stdout, re.M)
    return [(file, int(line), text) for file, line, text in lines]


@pytest.fixture(scope="module")
def pyright(user: Path) -> list[tuple[str, int, str]]:
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    ran = subprocess.run(command, cwd=user, capture_output=True, text=True, check=False)
    said = json.loads(ran.stdout)["generalDiagnostics"]
    return [(Path(d["file"]).name, d["range"]["start"]["line"] + 1, f"{d['severity']}: {d['message']}") for d in said]


@pytest.fixture(params=["mypy", "pyright"])
def said(request: pytest.FixtureRequest) -> list[tuple[str, int, str]]:
    """What a checker said: (file, line, text)."""
    answers: list[tuple[str, int, str]] = request.getfixturevalue(request.param)
    return answers


def is_error(text: str) -> bool:
    return text.startswith("error")


pytestmark = pytest.mark.timeout(900)  # both checkers read torch's and NumPy's sources at their first run


def test_a_users_file_passes_the_strict_checks(said: list[tuple[str, int, str]]) -> None:
    assert [answer for answer in said if answer[0] == "user.py" and is_error(answer[2])] == []


def test_a_score_is_a_tensor_of_tensors_and_a_number_of_arrays(said: list[tuple[str, int, str]]) -> None:
    revealed = [text for file, _, text in said if file == "user.py" and re.search("Revealed type|Type of", text)]
    assert len(revealed) == 2
    assert re.search(r"\bTensor\b", revealed[0])
    assert re.search(r"\bfloat64\b|floating\[", revealed[1])


def test_what_does_not_exist_is_an_error(said: list[tuple[str, int, str]]) -> None:
    errors = {line - 5: text for file, line, text in said if file == "wrong.py" and is_error(text)}
    assert set(errors) >= set(range(1, len(WRONG) + 1)), errors
    for at, about in enumerate(WRONG.values(), start=1):
        assert about in errors[at]


def test_every_public_name_has_a_type(said: list[tuple[str, int, str]]) -> None:
    lines = {line: text for file, line, text in said if file == "names.py"}
    names = public_names()
    assert set(lines) == set(range(2, len(names) + 2)), "a name is unknown, or told twice"
    unknown = [name for at, name in enumerate(names, start=2) if re.search(r'is "(Any|Unknown)"$', lines[at])]
    errors = [text for text in lines.values() if is_error(text)]
    assert (unknown, errors) == ([], [])


def test_the_stub_of_the_metrics_is_that_of_the_kernels() -> None:
    stored = stubs.STUB.read_text(encoding="utf-8")
    assert stored == stubs.stub(), "python tests/support/stubs.py writes it again"


def test_the_lazy_names_are_those_that_checkers_see() -> None:
    text = Path(semnr.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    seen = re.findall(r"^from \S+ import (\w+) as (\w+)$", text, re.M)
    assert all(name == alias for name, alias in seen)
    assert sorted([name for name, _ in seen] + ["__version__"]) == sorted(semnr.__all__)
