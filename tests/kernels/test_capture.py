"""CUDA calls must be fit for a CUDA graph: only launches on the caller's stream. Held here by what can be seen without
a GPU: which functions of the CUDA runtime the sources call, and which torch operations surround the launches."""

from __future__ import annotations

import re

import pytest
import torch
from cuda_cases import JOBS, Job, inputs
from torch.utils._python_dispatch import TorchDispatchMode

import backends
import cases

# Each stops the host until the device is done, or copies between the two.
WAITING = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "lift_fresh")


def test_only_the_launch_itself_calls_the_cuda_runtime() -> None:
    csrc = cases.REPOSITORY / "csrc"
    if not csrc.is_dir():
        pytest.skip("the source tree is absent")
    allowed = {"cudaFuncSetAttribute", "cudaGetLastError", "cudaGetErrorString"}
    called = {}
    for path in sorted(csrc.rglob("*")):
        if path.suffix in {".cu", ".cuh", ".hpp"} and path.parent.name != "emulation":
            names = set(re.findall(r"\b(cuda[A-Z]\w*)\s*\(", path.read_text())) - allowed
            if names:
                called[path.name] = names
    assert called == {}


class Seen(TorchDispatchMode):
    """Names of the torch operations inside the `with` block."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_no_operation_around_the_launches_waits_for_the_device_or_copies_from_the_host(job: Job) -> None:
    backends.require(job.op, "cuda-emulated")
    x, y = inputs((2, 1, 64, 80), torch.float32)
    job.run(x, y)  # what is made once, a table of taps say, is made before a capture
    with Seen() as seen:
        job.run(*inputs((2, 1, 64, 80), torch.float32))
    assert {name for name in seen.names if name.startswith(WAITING)} == set()
    assert seen.names
