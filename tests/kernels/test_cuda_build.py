"""CUDA kernels are built when asked for, whatever compilers lie on the PATH, and load without a driver."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import cases
from semnr_kernels import cuda_support, native_support, registry

# Answers the questions that setup.py asks, and compiles nothing.
BROKEN_NVCC = """#!/bin/sh
case "$*" in
  *--list-gpu-code*) echo sm_80 sm_90 ;;
  *--version*) echo "release 13.0, V13.0.88" ;;
  *--dryrun*) ;;
  *) echo "this nvcc is broken" >&2; exit 1 ;;
esac
"""
# Compiles nothing: modules take a minute.
LAZY_COMPILER = """#!/bin/sh
exit 1
"""


def build(folder: Path, nvcc: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """With no other nvcc than this script, and with a C++ compiler that builds no module."""
    if not (cases.REPOSITORY / "setup.py").is_file():
        pytest.skip("the source tree is absent")
    tools = folder / "bin"
    tools.mkdir()
    for name, text in (("nvcc", nvcc), ("lazy-c++", LAZY_COMPILER)):
        if text is not None:
            (tools / name).write_text(text)
            (tools / name).chmod(stat.S_IRWXU)
    plain = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "CUDA_PATH", "SEMNR_CUDA")}
    plain |= {"PATH": f"{tools}:/usr/bin:/bin", "CC": f"{tools}/lazy-c++", "CXX": f"{tools}/lazy-c++"}
    command = [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={folder}/lib", f"--build-temp={folder}/tmp"]
    return subprocess.run(
        command, cwd=cases.REPOSITORY, env={**plain, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def without_nvcc() -> None:
    if any(Path(folder, "nvcc").exists() for folder in ("/usr/bin", "/bin")):
        pytest.skip("an nvcc lies beside the system's tools")


@pytest.mark.usefixtures("without_nvcc")
def test_an_install_without_nvcc_says_nothing_of_cuda(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "_cuda_kernels" not in done.stderr


@pytest.mark.usefixtures("without_nvcc")
def test_semnr_cuda_1_without_nvcc_is_an_error(tmp_path: Path) -> None:
    done = build(tmp_path, SEMNR_CUDA="1")
    assert done.returncode != 0
    assert "SEMNR_CUDA=1, but no nvcc" in done.stderr


@pytest.mark.parametrize("wanted", [{}, {"SEMNR_CUDA": ""}, {"SEMNR_CUDA": "0"}], ids=str)
def test_an_nvcc_that_nobody_asked_for_is_not_even_started(tmp_path: Path, wanted: dict[str, str]) -> None:
    done = build(tmp_path, f'#!/bin/sh\n: >"{tmp_path}/started"\n', **wanted)
    assert done.returncode == 0, done.stderr
    assert "_cuda_kernels" not in done.stderr
    assert not (tmp_path / "started").exists()


def test_a_failing_nvcc_is_an_error_where_the_kernels_are_asked_for(tmp_path: Path) -> None:
    done = build(tmp_path, BROKEN_NVCC, SEMNR_CUDA="1")
    assert done.returncode != 0
    assert "this nvcc is broken" in done.stderr


def test_another_value_of_semnr_cuda_is_refused_with_the_accepted_ones(tmp_path: Path) -> None:
    done = build(tmp_path, SEMNR_CUDA="yes")
    assert done.returncode != 0
    assert "SEMNR_CUDA is 'yes'; accepted: 1 (build the CUDA kernels), 0 or unset (do not)" in done.stderr


@pytest.mark.parametrize(
    ("archs", "says"),
    [
        ("75,90", "does not know sm_75: accepted are those that it lists"),
        ("sm_90;volta", "SEMNR_CUDA_ARCHS names volta; accepted: numbers of chips such as 75,80,90"),
        ("sm_90; 8.0", "this nvcc is broken"),  # both are known, and compiling begins
    ],
)
def test_the_chips_can_be_named(tmp_path: Path, archs: str, says: str) -> None:
    done = build(tmp_path, BROKEN_NVCC, SEMNR_CUDA="1", SEMNR_CUDA_ARCHS=archs)
    assert done.returncode != 0
    assert says in done.stderr
    if "broken" in says:
        assert "arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=sm_90 -gencode=arch=compute_90," in done.stderr


# --- the module -----------------------------------------------------------------------------------------------


def test_the_built_module_loads_without_a_driver_and_says_so() -> None:
    found = cuda_support.compiled()
    if found == "not built":
        pytest.skip("not built")
    assert not isinstance(found, str), found
    if torch.cuda.is_available():
        pytest.skip("a GPU is present")
    assert str(cuda_support.probe()).startswith("built, no device (")
    assert registry.backends()["cuda"] == cuda_support.probe()
    assert set(found.ARCHITECTURES) <= {80, 90, 100}


@pytest.mark.parametrize(
    ("devices", "capability", "says"),
    [
        ((0, 35, "insufficient driver"), 0, "built, no device (no driver, or one older than the kernels' CUDA)"),
        ((0, 100, "no device"), 0, "built, no device (no device)"),
        ((0, 0, ""), 0, "built, no device (none is visible)"),
        ((0, 999, "unknown error"), 0, "built, no device (unknown error)"),
        ((1, 0, ""), 75, "built for sm_80, sm_90, sm_100, cuda:0 is sm_75: build with it among the chips"),
        ((1, 0, ""), 80, None),
        ((1, 0, ""), 86, None),
        ((2, 0, ""), 120, None),
    ],
)
def test_the_probe_says_what_the_runtime_answers(
    monkeypatch: pytest.MonkeyPatch, devices: tuple, capability: int, says: str | None
) -> None:
    module = SimpleNamespace(
        ARCHITECTURES=[80, 90, 100], devices=lambda: devices, compute_capability=lambda index: capability
    )
    monkeypatch.setattr(cuda_support, "compiled", lambda: module)
    assert cuda_support.probe() == says


def test_each_gpu_of_a_mixed_box_is_asked_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    chips = [75, 90]
    module = SimpleNamespace(
        ARCHITECTURES=[80, 90], devices=lambda: (2, 0, ""), compute_capability=lambda index: chips[index]
    )
    monkeypatch.setattr(cuda_support, "compiled", lambda: module)
    registry._probe.cache_clear()
    registry._probe_on.cache_clear()
    try:
        calls = [registry.Call("pixel", "cuda", torch.uint8, (1, 1, 8, 8), False, {}, index=index) for index in (0, 1)]
        assert str(registry._why_not(calls[0], "cuda")).startswith("built for sm_80, sm_90, cuda:0 is sm_75")
        assert registry._why_not(calls[1], "cuda") is None
        assert registry.choose(calls[0]).backend == "reference"
    finally:
        registry._probe.cache_clear()
        registry._probe_on.cache_clear()


@pytest.mark.parametrize(("chips", "chip", "runs"), [([90], 80, False), ([80, 100], 90, False), ([80, 100], 89, True)])
def test_machine_code_serves_its_own_generation_alone(
    monkeypatch: pytest.MonkeyPatch, chips: list[int], chip: int, runs: bool
) -> None:
    module = SimpleNamespace(ARCHITECTURES=chips, compute_capability=lambda index: chip)
    monkeypatch.setattr(cuda_support, "compiled", lambda: module)
    assert (cuda_support.why_not_on(0) is None) == runs


def test_a_module_built_for_another_python_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_support, "__file__", str(tmp_path / "native_support.py"))
    assert native_support.other_python("_cuda_kernels") is None
    (tmp_path / "_cuda_kernels.cpython-399-x86_64-linux-gnu.so").touch()
    told = str(native_support.other_python("_cuda_kernels"))
    assert told.startswith("_cuda_kernels.cpython-399-x86_64-linux-gnu.so was built for another Python than this 3.")
    assert told.endswith(": reinstall")
    (tmp_path / f"_cuda_kernels{sysconfig.get_config_var('EXT_SUFFIX')}").touch()
    assert native_support.other_python("_cuda_kernels") is None


def test_the_probe_without_a_module_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_support, "compiled", lambda: "not built")
    assert cuda_support.probe() == "not built"


def test_a_launch_on_a_device_goes_to_that_device_and_torchs_current_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    module = SimpleNamespace(set_device=asked.append)
    monkeypatch.setattr(cuda_support, "compiled", lambda: module)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext(asked.append(device)))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", {1: 1234}.__getitem__)
    device = torch.device("cuda", 1)
    with cuda_support.launching(False, device, [torch.empty(1)]) as (found, stream):
        assert found is module
        assert stream == 1234
    assert asked == [1, 1]


def test_every_binding_of_a_launch_lets_other_threads_go_on() -> None:
    """A launch waits where the device's queue is full: with the interpreter's lock, every thread would."""
    for path in (cases.REPOSITORY / "csrc").glob("*/*_cuda_bind.cpp"):
        bound = re.findall(r"m\.def\([^;]*;", path.read_text(), re.S)
        assert bound, path
        assert all("semnr::WhileLaunching()" in call for call in bound), path
