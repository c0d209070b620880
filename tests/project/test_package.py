"""What is installed is what is tested, and it imports lightly."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import cases
import semnr
import semnr_kernels


def run_python(code: str, cwd: str | None = None) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd)
    return done.stdout.strip()


def test_the_source_tree_does_not_shadow_the_installed_package() -> None:
    for package in (semnr, semnr_kernels):
        elsewhere = run_python(f"import {package.__name__} as p; print(p.__file__)", cwd="/")
        assert package.__file__ == elsewhere


def test_importing_semnr_loads_no_torch_and_no_heavy_library() -> None:
    heavy = "{'torch', 'triton', 'numpy', 'zarr', 'pyarrow', 'skimage', 'pandas', 'PIL', 'jinja2', 'tifffile'}"
    assert run_python(f"import sys, semnr; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_triton_is_no_dependency_since_torch_for_a_gpu_brings_its_own() -> None:
    """PyPI's would overwrite ROCm's."""
    project = tomllib.loads((cases.REPOSITORY / "pyproject.toml").read_text())["project"]
    assert not [r for r in project["dependencies"] if r.startswith("triton")]
    assert project["optional-dependencies"]["triton"][0].startswith("triton>=3.4")
    assert "semnr[triton]" in project["optional-dependencies"]["test"]


def test_importing_semnr_loads_its_own_package_and_the_lazy_loader_alone() -> None:
    """Counted, not timed: what `import semnr` adds to a bare interpreter beside the standard library."""
    added = run_python(
        "import sys; bare = set(sys.modules); import semnr\n"
        "print(sorted(n for n in set(sys.modules) - bare if n.partition('.')[0] not in sys.stdlib_module_names))"
    )
    assert added == "['lazy_loader', 'semnr']"


def test_each_public_module_is_an_attribute_that_loads_on_use() -> None:
    for name in ("tiles", "klarf", "wafers", "metrology", "guarding", "denoising", "errors"):
        code = f"import sys, semnr; before = 'semnr.{name}' in sys.modules; m = semnr.{name}; print(before, m.__name__)"
        assert run_python(code) == f"False semnr.{name}"


def test_help_imports_no_torch() -> None:
    code = (
        "import sys, semnr.cli as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    assert run_python(code).splitlines()[-1] == "False False"


def test_every_subcommand_answers_help_without_torch() -> None:
    code = (
        "import sys, semnr.cli as c\n"
        "for name in c.COMMANDS:\n"
        "    try: c.main([name, '--help'])\n"
        "    except SystemExit as e: assert e.code == 0, name\n"
        "print('torch' in sys.modules)"
    )
    assert run_python(code).splitlines()[-1] == "False"


def test_every_public_name_resolves() -> None:
    for name in semnr.__all__:
        assert getattr(semnr, name) is not None, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(semnr, "vmaf")
