"""pytest plugin: the device as a parameter of every op suite.

`pytest -p on_device tests/kernels/ssim/test_ssim.py -k here` in a folder of the repository.
It adds the backends "cuda-here" and "triton-here", which take a suite's CPU tensors to the device and bring results
back, so that nothing in the suites changes; "torch-here" (the evidence); and, of ops with neither (FSIM, DISTS),
"reference-here": what runs there where nothing faster does. SEMNR_REQUIRE=cuda-here,triton-here makes what cannot run
a failure.
SEMNR_HERE=mock does the same on the GPU that is not there (mock_gpu.py), without Triton: the plugin's own test.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from semnr_kernels import registry, ssim
from semnr_kernels.dists.network import Network, network_for
from semnr_kernels.planes import Tiles

MOCK = os.environ.get("SEMNR_HERE") == "mock"
KINDS = {"cuda-here": "cuda", "torch-here": "torch", "reference-here": "reference"} | (
    {} if MOCK else {"triton-here": "triton"}
)
# What the mock itself cannot do, though a device can: test and reason.
BEYOND_THE_MOCK = {
    "test_a_gradient_of_the_gradient_goes_through_the_definition": "torch adds second gradients of meta tensors itself",
}
_session = contextlib.ExitStack()


def moved(value: Any, to: str) -> Any:
    """Tensors, also in containers, named tuples and dataclasses; networks by their own cache."""
    if isinstance(value, torch.Tensor):
        return value.to(to)
    if isinstance(value, Network):
        return network_for(value.weights, value.dtype, torch.device(to, 0) if to == "cuda" else torch.device(to))
    if isinstance(value, Tiles):
        return Tiles(value.images.to(to))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(v, to) for v in value))
    if isinstance(value, tuple | list):
        return type(value)(moved(v, to) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{f.name: moved(getattr(value, f.name), to) for f in fields_of(value)})
    return value


def fields_of(value: Any) -> Iterator[Any]:
    return (f for f in dataclasses.fields(value) if f.init)


def run_there(run: Any, *args: Any, **options: Any) -> Any:
    found = run(*moved(args, "cuda"), **{k: moved(v, "cuda") for k, v in options.items()})
    torch.cuda.synchronize()  # an asynchronous error belongs to the case that made it
    return moved(found, "cpu")


def supported_there(supports: Any, call: registry.Call) -> str | None:
    return supports(dataclasses.replace(call, device="cuda", index=0))  # type: ignore[no-any-return]


def register() -> None:
    """Each op's kernels once more, under the names of `KINDS`."""
    registry.ops()
    for name, of in KINDS.items():
        registry.BACKENDS[name] = dataclasses.replace(registry.BACKENDS[of], name=name)
        for table in registry._implementations.values():
            if (kernel := table.get(of)) is not None and not (
                of == "reference" and ("cuda" in table or "torch" in table)
            ):
                table[name] = dataclasses.replace(
                    kernel,
                    backend=name,
                    run=functools.partial(run_there, kernel.run),
                    supports=functools.partial(supported_there, kernel.supports),
                )
    ssim._ON_DEVICES = (*ssim._ON_DEVICES, *KINDS)
    registry.TEST_ONLY = (*registry.TEST_ONLY, *KINDS)
    registry._probe.cache_clear()


def pytest_configure(config: Any) -> None:
    if MOCK:
        import emulated
        import mock_gpu

        emulated.provide()
        _session.enter_context(mock_gpu.present())
    register()


def pytest_unconfigure(config: Any) -> None:
    _session.close()


def pytest_collection_modifyitems(config: Any, items: list[pytest.Item]) -> None:
    """The device's own backends take tensors of the device: with a suite's CPU tensors their cases say nothing."""
    bare = [i for i in items if set(_parts(i)) & (set(KINDS.values()) - {"reference"})]
    config.hook.pytest_deselected(items=bare)
    items[:] = [i for i in items if i not in bare]
    for item in items if MOCK else ():
        if reason := BEYOND_THE_MOCK.get(getattr(item, "originalname", item.name)):
            item.add_marker(pytest.mark.skip(reason=f"the mock GPU: {reason}"))


def _parts(item: pytest.Item) -> list[Any]:
    callspec = getattr(item, "callspec", None)
    return [] if callspec is None else [v for v in callspec.params.values() if isinstance(v, str)]
