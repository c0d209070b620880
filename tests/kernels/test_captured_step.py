"""A training step with a loss of SSIM inside a user's own CUDA graph, on a mock GPU whose graphs do again what was
captured. No GPU has run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mock_gpu
import pytest
import torch

import backends
from semnr.losses import L1SSIMLoss, SSIMLoss

LOSSES: dict[str, Callable[[], torch.nn.Module]] = {
    "SSIM": lambda: SSIMLoss(1.0, nan="propagate"),
    "L1 and SSIM": lambda: L1SSIMLoss(1.0, nan="propagate"),
    "windows of 7": lambda: SSIMLoss(1.0, nan="propagate", window_size=7),
    "one value an image": lambda: L1SSIMLoss(1.0, nan="propagate", reduction="none"),
}


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    backends.require("ssim", "cuda-emulated")
    with mock_gpu.present():
        yield


def batches(count: int, dtype: torch.dtype = torch.float32) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    clean = [torch.rand((2, 1, 24, 32), generator=generator) for _ in range(count)]
    noisy = [(y + 0.1 * torch.randn(y.shape, generator=generator)).clamp(0, 1) for y in clean]
    return [(x.to(dtype).to("cuda"), y.to(dtype).to("cuda")) for x, y in zip(noisy, clean, strict=True)]


class Step:
    """One parameter a pixel, gradient descent."""

    def __init__(self, loss: torch.nn.Module, dtype: torch.dtype) -> None:
        self.gain = torch.ones((24, 32)).to(dtype).to("cuda").requires_grad_()
        self.loss = loss

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.gain.grad = None
        value = self.loss(x * self.gain, y).sum()
        value.backward()
        with torch.no_grad():
            self.gain.sub_(self.gain.grad, alpha=0.5)  # type: ignore[arg-type]
        return value.detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_a_captured_step_trains_as_the_same_steps_one_by_one(name: str, dtype: torch.dtype) -> None:
    data = batches(5, dtype)
    plain, captured = (Step(LOSSES[name](), dtype) for _ in range(2))
    wanted = [plain(*batch) for batch in data]

    found = [captured(*data[0])]  # once before, as torch asks: what is kept is made
    x, y = (v.clone() for v in data[1])
    graph = torch.cuda.CUDAGraph()
    before = captured.gain.detach().clone()
    with mock_gpu.counting() as counts, torch.cuda.graph(graph):
        value = captured(x, y)
    assert not counts.waits
    assert not counts.uploads
    with torch.no_grad():
        captured.gain.copy_(before)  # the mock computes while it captures; a device does not
    for batch in data[1:]:
        x.copy_(batch[0])
        y.copy_(batch[1])
        graph.replay()
        found.append(value.clone())
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.cpu(), other.cpu())
    assert torch.equal(captured.gain.detach().cpu(), plain.gain.detach().cpu())
    launches = sum(callable(step) for step in mock_gpu.Graph.made[-1].steps)
    assert launches == 2  # each of several kernels: forward, backward


@pytest.mark.parametrize("make", [SSIMLoss, L1SSIMLoss])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_what_waits_for_the_device_says_so_instead_of_breaking_the_capture(
    make: Callable[..., torch.nn.Module], reduction: str
) -> None:
    (batch,) = batches(1)
    loss = make(1.0, reduction=reduction)
    loss(*batch)
    with (
        pytest.raises(ValueError, match=r'nan is "error".*accepted while a CUDA graph is being captured'),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        loss(*batch)


def test_a_step_takes_fewer_launches_than_a_graph_of_its_own_would() -> None:
    """Images and slope copied in, loss and gradient cloned out, two replays: seven, of which four move whole images."""
    (batch,) = batches(1)
    leaf = batch[0].clone().requires_grad_()
    for loss, most in ((SSIMLoss(1.0, nan="propagate"), 4), (L1SSIMLoss(1.0, nan="propagate"), 4)):
        loss(leaf, batch[1]).backward()
        leaf.grad = None
        with mock_gpu.counting() as counts:
            loss(leaf, batch[1]).backward()
        assert sum(n for name, n in counts.launches.items() if name.startswith("ssim")) == most < 7
