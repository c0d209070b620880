"""Every example runs at its small setting, and has a notebook of the same cells with outputs that are kept."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cases

EXAMPLES = cases.REPOSITORY / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.stem != "common")


@pytest.mark.examples
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_and_its_notebook_run_small_and_say_the_same(script: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    # one thread each: several examples run at once. common.py stands beside the script, and no semnr does
    here = {**os.environ, "PYTHONSAFEPATH": "", "OMP_NUM_THREADS": "1", "SEMNR_EXAMPLES": "small"}
    command = [sys.executable, script.name, "--small", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, env=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert list(tmp_path.glob("*.png"))
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    place = {"metadata": {"path": str(EXAMPLES)}}
    nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3", resources=place).execute(env=here)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    assert said == done.stdout
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_has_the_cells_of_the_script_and_their_outputs(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    cells = [part.strip() for part in re.split(r"^# %%(?: \[markdown\])?\n", text, flags=re.M)[1:]]
    notebook = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    held = ["".join(cell["source"]) for cell in notebook["cells"]]
    marked = [re.sub(r"^# ?", "", part, flags=re.M) if part.startswith("# ") else part for part in cells]
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    assert [part if kind == "markdown" else cell for part, cell, kind in zip(marked, cells, kinds, strict=True)] == held
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(output["output_type"] == "stream" for output in outputs)
    assert script.with_suffix(".ipynb").stat().st_size < 200_000


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_asks_for_what_the_core_does_not_bring(script: Path) -> None:
    project = tomllib.loads((cases.REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = {re.split(r"[<>=]", one)[0].replace("-", "_") for one in project["dependencies"]} | {"semnr", "common"}
    text = script.read_text(encoding="utf-8")
    taken = set(re.findall(r"^\s*(?:import|from) (\w+)", text, flags=re.M)) - {"tempfile", "pathlib"}
    assert taken <= core
    first_code = text.split("# %%\n", 1)[1].split("# %%", 1)[0]
    assert 'need("matplotlib")' in first_code  # for the figures; common.need names the extra


def test_the_readme_lists_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \|", text, flags=re.M)
    assert listed == [path.stem for path in SCRIPTS]
