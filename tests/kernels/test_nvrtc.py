"""CUDA kernels that NVRTC makes at run time: compiled here for every chip, launched into a driver of the test's own."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from cuda_cases import JOBS, inputs

import backends
from semnr_kernels import cuda_support, nvrtc, registry, ssim

CHIPS = (75, 80, 90, 100, 120)


@pytest.fixture
def module() -> ModuleType:
    found = cuda_support.hosted()
    if isinstance(found, str):
        pytest.skip(f"semnr_kernels._cuda_hosted: {found}")
    return found


@pytest.fixture
def compiler() -> None:
    try:
        nvrtc.library()
    except nvrtc.Unavailable as error:
        pytest.skip(str(error))


class Driver:
    """Hands out numbers as functions, and writes down what is launched."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, list[int]]] = []
        self.launches: list[tuple[str, tuple[int, ...], tuple[int, ...], int]] = []
        self.shared: dict[int, int] = {}
        unsigned, pointer = ctypes.c_uint, ctypes.c_void_p
        launch = ctypes.CFUNCTYPE(ctypes.c_int, pointer, *[unsigned] * 7, pointer, pointer, pointer)
        attribute = ctypes.CFUNCTYPE(ctypes.c_int, pointer, ctypes.c_int, ctypes.c_int)
        self._held = (launch(self._launch), attribute(self._attribute))
        self.launch, self.attribute = (ctypes.cast(f, pointer).value or 0 for f in self._held)

    def function_of(self, text: str, source: str, device: int, sizes: list[int]) -> int:
        self.asked.append((nvrtc.name_in(text), Path(source).name, sizes))
        return len(self.asked)

    def _launch(self, function: int, *rest: Any) -> int:
        name = self.asked[function - 1][0]
        self.launches.append((name, rest[:3], rest[3:6], rest[6]))
        return 0 if rest[6] <= max(48 * 1024, self.shared.get(function, 0)) else 701  # out of resources

    def _attribute(self, function: int, which: int, value: int) -> int:
        assert which == 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self.shared[function] = value
        return 0


@contextlib.contextmanager
def launched(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Inside the `with` block "cuda-emulated" goes to the module of the launches, and these to the driver."""
    driver = Driver()
    module.use_driver(driver.launch, driver.attribute, driver.function_of)

    @contextlib.contextmanager
    def launching(*_: Any, **__: Any) -> Iterator[tuple[ModuleType, int]]:
        module.set_device(1)
        yield module, 0

    with monkeypatch.context() as patch:
        patch.setattr(cuda_support, "launching", launching)
        patch.setattr(ssim, "_prepared", {})  # it holds passes of one module
        yield driver


def entries(ptx: str) -> dict[str, list[int]]:
    """Bytes of the parameters of every kernel in a PTX text."""
    found = {}
    for name, parameters in re.findall(r"\.entry (\w+)\((.*?)\)", ptx, re.S):
        scalars = {"u64": 8, "s64": 8, "b64": 8, "f64": 8, "u32": 4, "s32": 4, "b32": 4, "f32": 4, "u8": 1, "s8": 1}
        sizes = []
        for kind, count in re.findall(r"\.param (?:\.align \d+ )?\.(\w+)[^\[,\n]*(?:\[(\d+)\])?", parameters):
            sizes.append(int(count) if count else scalars[kind])
        found[name] = sizes
    return found


def held_against(module: ModuleType, name: str, source: str, sizes: list[int]) -> None:
    """The kernel that NVRTC makes of this name takes the parameters that its launch passes."""
    made = nvrtc.compiled(module.SOURCES[source], name, 80, ptx=True)
    assert entries(made.code.decode())[made.symbol] == sizes, name


def jobs(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Driver:
    with launched(module, monkeypatch) as driver:
        for job in JOBS:
            for dtype in job.dtypes:
                job.run(*inputs((2, 1, 64, 80), dtype))
    return driver


# --- compiling ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("chip", CHIPS)
def test_a_kernel_is_compiled_for_each_chip(module: ModuleType, chip: int) -> None:
    made = nvrtc.compiled(module.SOURCES["pixel_cuda.cu"], "semnr::pixel_fold<double, double>", chip)
    assert made.code[:4] == b"\x7fELF"
    assert made.symbol.encode() in made.code
    assert made.symbol == "_ZN5semnr10pixel_foldIddEEvPKmlllPdS3_"


@pytest.mark.usefixtures("compiler")
def test_launches_name_their_kernels_and_pass_what_these_take(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = jobs(module, monkeypatch)
    assert len(driver.asked) >= 15
    assert all(grid[0] and block[0] for _, grid, block, _ in driver.launches)
    quick = [one for one in driver.asked if one[1] in ("pixel_cuda.cu", "histogram_cuda.cu")]
    assert len(quick) >= 5
    for name, source, sizes in [*quick, next(one for one in driver.asked if "ssim_forward" in one[0])]:
        held_against(module, name, source, sizes)


@pytest.mark.soak
@pytest.mark.usefixtures("compiler")
def test_every_kernel_of_the_jobs_is_compiled_for_each_chip_and_takes_what_is_passed(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, source, sizes in jobs(module, monkeypatch).asked:
        held_against(module, name, source, sizes)
        for chip in CHIPS:
            assert nvrtc.compiled(module.SOURCES[source], name, chip).code[:4] == b"\x7fELF"


@pytest.mark.usefixtures("compiler")
def test_a_chip_that_nvrtc_does_not_know_yet_gets_ptx_of_the_one_before(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvrtc, "chips", lambda: [75, 90])
    made = nvrtc.compiled(nvrtc.PROBE, "semnr_probe", 100)
    assert b".target sm_90" in made.code
    with pytest.raises(nvrtc.Unavailable, match="compiles for no chip up to sm_70"):
        nvrtc.compiled(nvrtc.PROBE, "semnr_probe", 70)
    with pytest.raises(nvrtc.Unavailable, match=r"NVRTC refused semnr_probe for sm_90: .*error: "):
        nvrtc.compiled("extern void nothing(;", "semnr_probe", 90)


def test_a_kernels_name_is_read_off_what_either_compiler_says() -> None:
    gcc = "static const char* semnr::hosted::Named<Kernel>::text() [with auto Kernel = semnr::f<float, 11, true>]"
    clang = "static const char *semnr::hosted::Named<&semnr::f<...>>::text() [Kernel = &semnr::f<float, 11, true>]"
    assert nvrtc.name_in(gcc) == nvrtc.name_in(clang) == "semnr::f<float, 11, true>"
    assert nvrtc.name_in("const char* text() [with auto Kernel = fold]") == "semnr::fold"


# --- launching ------------------------------------------------------------------------------------------------


def test_launches_are_those_of_the_emulation(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels, grids, blocks and shared memory: the launching code is the same, and so is what it asks for."""
    for job in (JOBS[0], JOBS[1], JOBS[2]):
        backends.require(job.op, "cuda-emulated")
        x, y = inputs((2, 1, 64, 80), torch.float32)
        with cuda_support.recording() as calls:
            job.run(x, y)
        emulated = [one for call in calls for one in call.launches]
        with launched(module, monkeypatch) as driver:
            job.run(x, y)
        plain = [re.sub(r"<.*", "", name).removeprefix("semnr::") for name, *_ in driver.launches]
        assert plain[-len(emulated) :] == [re.sub(r"[(<].*|^\(", "", one["kernel"].lstrip("(")) for one in emulated]
        for (_, grid, block, shared), one in zip(driver.launches[-len(emulated) :], emulated, strict=True):
            assert (list(grid), list(block), shared) == (list(one["grid"]), list(one["block"]), one["shared_bytes"])


def test_a_function_is_asked_for_once_a_device_and_a_launch_that_fails_raises(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with launched(module, monkeypatch) as driver:
        for _ in range(3):
            JOBS[0].run(*inputs((1, 1, 64, 80), torch.float32))
        names = [name for name, *_ in driver.asked]
        assert len(names) == len(set(names))
        assert len(driver.launches) == 3 * len(names)
        monkeypatch.setattr(driver, "asked", [])  # its answers are no functions any more
    broken = Driver()
    failing = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *[ctypes.c_uint] * 7, *[ctypes.c_void_p] * 3)(
        lambda *_: 719
    )
    module.use_driver(ctypes.cast(failing, ctypes.c_void_p).value, broken.attribute, broken.function_of)
    monkeypatch.setattr(cuda_support, "launching", lambda *_, **__: contextlib.nullcontext((module, 0)))
    with pytest.raises(RuntimeError, match=r"pixel_sums.*the launch failed with CUDA error 719"):
        JOBS[0].run(*inputs((1, 1, 64, 80), torch.float32))


# --- what is kept, and what is missing ------------------------------------------------------------------------


@pytest.mark.usefixtures("compiler")
def test_what_was_compiled_is_kept_whole_or_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    calls: list[int] = []
    compiled = nvrtc.compiled
    monkeypatch.setattr(nvrtc, "compiled", lambda *a: calls.append(1) or compiled(*a))
    first = nvrtc.kept(nvrtc.PROBE, "semnr_probe", 90)
    assert first == nvrtc.kept(nvrtc.PROBE, "semnr_probe", 90)
    assert len(calls) == 1
    (path,) = nvrtc.folder().glob("*.kernel")
    assert tmp_path in path.parents
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert nvrtc.kept(nvrtc.PROBE, "semnr_probe", 90) == first
    assert len(calls) == 2
    assert nvrtc.kept(nvrtc.PROBE, "semnr_probe", 80).code != first.code
    monkeypatch.setattr(nvrtc, "folder", lambda: path / "no folder")  # below a file: nothing can be kept
    assert nvrtc.kept(nvrtc.PROBE, "semnr_probe", 90) == first


@pytest.fixture
def a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """One device of sm_90, as far as torch can be asked; nvcc made no module."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(cuda_support, "compiled", lambda: "not built")
    nvrtc.why_not_on.cache_clear()
    yield monkeypatch
    nvrtc.why_not_on.cache_clear()
    nvrtc.served.clear()


@pytest.mark.usefixtures("compiler", "module")
def test_the_backend_is_there_where_the_least_kernel_loads(a_device: pytest.MonkeyPatch) -> None:
    loaded = []
    a_device.setattr(nvrtc, "driver", lambda: SimpleNamespace(function=lambda made: loaded.append(made) or 1))
    assert cuda_support.probe() is None
    assert cuda_support.why_not_on(0) is None
    assert [made.symbol for made in loaded] == ["semnr_probe"]
    assert cuda_support.describe().startswith("CUDA C++, compiled by NVRTC ")


@pytest.mark.usefixtures("module")
def test_without_nvrtc_or_with_a_driver_that_refuses_the_reason_is_told(a_device: pytest.MonkeyPatch) -> None:
    from semnr.cli import doctor

    def old(made: nvrtc.Compiled) -> int:
        raise nvrtc.Unavailable("cuModuleLoadData: device kernel image is invalid")

    def none() -> ctypes.CDLL:
        raise nvrtc.Unavailable("no NVRTC; torch's CUDA wheels bring it")

    a_device.setattr(nvrtc, "kept", lambda *_: nvrtc.Compiled("semnr_probe", b""))
    a_device.setattr(nvrtc, "driver", lambda: SimpleNamespace(function=old))
    assert cuda_support.probe() == "not built; NVRTC: cuModuleLoadData: device kernel image is invalid"
    assert doctor.nvrtc_state()["text"].startswith("none, Triton serves (NVRTC: cuModuleLoadData")
    nvrtc.why_not_on.cache_clear()
    a_device.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert cuda_support.why_not_on(0) == "not built; cuda:0 is sm_70, NVRTC compiles for sm_75 and later"
    a_device.setattr(nvrtc, "library", none)
    assert doctor.nvrtc_state()["text"] == "none, Triton serves (no NVRTC; torch's CUDA wheels bring it)"
    a_device.setattr(cuda_support, "hosted", lambda: "not built")
    assert cuda_support.probe() == "not built; _cuda_hosted: not built"
    assert registry.BACKENDS["cuda"].remedy
