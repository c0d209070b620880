"""What people install: `.ci/wheels` makes it, and it runs in a clean environment without a compiler.

Not in the everyday suite: `pytest -m wheel` (CI has a step of its own). The dependencies are those of this environment,
so that no gigabyte of torch is copied; semnr itself comes from a wheelhouse, by `pip install --no-index`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import cases

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(900)]

CODE = """
import numpy as np, semnr, semnr_kernels
x = np.full((32, 32), 100, np.uint8)
print(semnr.__file__)
print(float(semnr.ssim(x, x)), *[b.name if hasattr(b, "name") else b for b in semnr.backends()])
"""


def run(command: list[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("auditwheel", "build"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install '.[wheels]'")
    folder = tmp_path_factory.mktemp("wheelhouse")
    run([sys.executable, ".ci/wheels", "--no-isolation", "--out", str(folder)], cwd=cases.REPOSITORY)
    return folder


@pytest.fixture(scope="module")
def clean(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A new environment with semnr from the wheelhouse, and one without any program but its own on the PATH."""
    folder = tmp_path_factory.mktemp("clean")
    run([sys.executable, "-m", "venv", str(folder)])
    python = folder / "bin" / "python"
    shown = run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    here |= {path for path in sys.path if path.endswith("site-packages")}
    Path(shown, "dependencies.pth").write_text("\n".join(sorted(here)) + "\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SEMNR_", "CC", "CXX"))}
    environment |= {"PATH": str(folder / "bin"), "PYTHONSAFEPATH": "1"}
    options = ["--no-index", "--find-links", str(wheelhouse), "--no-deps", "--ignore-installed"]
    run([str(python), "-m", "pip", "install", "-q", *options, "semnr"], env=environment)
    return python, environment


def test_one_wheel_of_every_instruction_set_is_small_enough(wheelhouse: Path) -> None:
    (wheel,) = wheelhouse.glob("*.whl")
    assert "manylinux" in wheel.name
    assert wheel.stat().st_size <= 15e6
    with zipfile.ZipFile(wheel) as contents:
        names = contents.namelist()
        modules = {n.split("/")[1].split(".")[0] for n in names if n.startswith("semnr_kernels/_") and ".so" in n}
        every = {"_cpu_baseline", "_cpu_avx2", "_cpu_avx512", "_cuda_hosted"}  # the last: launches for NVRTC's kernels
        assert modules == every or os.uname().machine != "x86_64"
        assert not [n for n in names if n.startswith(("tests/", "csrc/", "benchmarks/"))]
        assert {"semnr/compat/piq.py", "semnr/py.typed"} <= set(names)


def test_the_sdist_holds_what_a_build_needs(wheelhouse: Path) -> None:
    (sdist,) = wheelhouse.glob("*.tar.gz")
    with tarfile.open(sdist) as contents:
        names = {name.partition("/")[2] for name in contents.getnames()}
    kernels = {p.relative_to(cases.REPOSITORY).as_posix() for p in (cases.REPOSITORY / "csrc").rglob("*.[ch]pp")}
    assert kernels <= names
    assert {"setup.py", "pyproject.toml", "LICENSE", "NOTICE"} <= names


def test_the_first_score_comes_from_the_wheel_without_a_compiler(clean: tuple[Path, dict[str, str]]) -> None:
    python, environment = clean
    assert shutil.which("c++", path=environment["PATH"]) is None
    place, said = run([str(python), "-c", CODE], env=environment).splitlines()
    assert Path(place).is_relative_to(python.parents[1])
    assert said.startswith("1.0 ")
    assert "native" in said


def test_the_core_suite_passes_on_the_wheel(clean: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    python, environment = clean
    command = [str(python), "-m", "pytest", "-q", "-m", "core", "-n", "2", "-p", "no:cacheprovider", "tests"]
    said = run(command, cwd=cases.REPOSITORY, env={**environment, "HOME": os.environ.get("HOME", str(tmp_path))})
    assert " passed" in said
    assert " failed" not in said
