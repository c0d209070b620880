"""The example of docs/first-kernel.md is compiled, registered from its own folder, and right."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

import cases
import semnr
import semnr_kernels as kernels
from semnr_kernels import library, native_support, registry

EXAMPLE = cases.REPOSITORY / "docs" / "first_kernel"
CSRC = cases.REPOSITORY / "csrc"


@pytest.fixture(scope="module")
def peak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    import pybind11

    folder = tmp_path_factory.mktemp("first_kernel")
    module = folder / f"first_kernel{sysconfig.get_config_var('EXT_SUFFIX')}"
    sources = [EXAMPLE / "csrc" / name for name in ("peak_cpu.cpp", "peak_bind.cpp")]
    include = [CSRC, EXAMPLE / "csrc", pybind11.get_include(), sysconfig.get_path("include")]
    command = [compiler, "-O1", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"]
    command += [f"-I{path}" for path in include]
    subprocess.run([*command, *map(str, sources), str(CSRC / "pool.cpp"), "-o", str(module)], check=True)
    sys.path.insert(0, str(folder))
    kernels.__path__.append(str(EXAMPLE))
    try:
        yield importlib.import_module("semnr_kernels.peak")
    finally:
        sys.path.remove(str(folder))
        kernels.__path__.remove(str(EXAMPLE))
        for name in [n for n in sys.modules if n.startswith("semnr_kernels.peak")]:
            del sys.modules[name]
        for table in (library.ops, library.callers, registry._implementations):
            table.pop("peak", None)


def test_the_kernel_equals_the_definition_in_every_dtype_and_layout(peak: ModuleType) -> None:
    if native_support.probe() is not None:
        pytest.skip(f"no native module: {native_support.probe()}")
    for dtype in native_support.DTYPE_CODES:
        for shape in ((1, 1, 1, 1), (2, 3, 17, 31)):
            x, y = (torch.from_numpy(v) for v in cases.noisy_pair(*shape[-2:]))
            x, y = (v.mul(200).to(torch.int32).to(dtype).expand(shape) for v in (x, y))
            for a, b in ((x, y), (x.mT, y.mT), (x[..., ::2], y[..., ::2])):
                rows = peak.peak(a, b, reduction="none", backend="native")
                assert torch.equal(rows, peak.peak(a, b, reduction="none", backend="reference")), (dtype, shape)


def test_results_do_not_depend_on_the_number_of_threads(peak: ModuleType) -> None:
    x, y = (torch.from_numpy(v)[None, None].expand(3, 1, 50, 60) for v in cases.noisy_pair(50, 60))
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            found.append(peak.peak(x, y, reduction="none"))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found)


def test_the_example_has_all_that_an_op_has(peak: ModuleType) -> None:
    x, y = torch.zeros((4, 4)), torch.tensor([[0.5, -2.0], [1.0, 0.0]]).repeat(2, 2)
    assert peak.peak(x, y).item() == 2.0
    assert semnr.explain("peak", x, y).chosen == "native" if native_support.probe() is None else True
    assert semnr.explain("peak", x.requires_grad_(), y).chosen == "reference"
    (gradient,) = torch.autograd.grad(peak.peak(x, y), x)
    assert gradient.abs().sum() == 1
    y[0, 0] = torch.nan
    with pytest.raises(ValueError, match="y has 1 non-finite pixels"):
        peak.peak(x.detach(), y)
    assert torch.isnan(peak.peak(x.detach(), y, nan="propagate"))
