"""CUDA graphs of FSIM and DISTS on a mock GPU, whose graphs do again what was captured. No GPU has run them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import evidence_tiles
import mock_gpu
import numpy as np
import pytest
import torch

from semnr.trust.columns import Trust
from semnr_kernels import graphs
from semnr_kernels.dists import dists
from semnr_kernels.fsim import fsim

FSIM = {"data_range": 1.0, "scales": 2, "orientations": 2, "reduction": "none"}


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    with mock_gpu.present():
        yield


def images(count: int, size: tuple[int, ...] = (2, 1, 24, 26)) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    made = [(torch.rand(size, generator=generator), torch.rand(size, generator=generator)) for _ in range(count)]
    return [(x.to("cuda"), y.to("cuda")) for x, y in made]


def made() -> list[tuple[int, int]]:
    """(steps, replays) of each graph."""
    return [(len(one.steps), one.replays) for one in mock_gpu.Graph.made]


def test_nothing_is_captured_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    (pair,) = images(1)
    for _ in range(3):
        fsim(*pair, **FSIM)
    monkeypatch.setenv("SEMNR_CUDA_GRAPHS", "1")
    with graphs.use(False):
        for _ in range(3):
            fsim(*pair, **FSIM)
    assert made() == []
    for _ in range(3):
        fsim(*pair, **FSIM)
    assert len(made()) == 1


def test_a_replay_gives_the_bits_of_a_call_and_its_results_stay() -> None:
    pairs = images(4)
    exact = [fsim(*pair, **FSIM).cpu() for pair in pairs]
    with graphs.use(True):
        found = [fsim(*pair, **FSIM) for pair in pairs]
        with mock_gpu.counting() as counts:
            fsim(*pairs[0], nan="propagate", **FSIM)
    for one, other in zip(found, exact, strict=True):
        assert torch.equal(one.cpu(), other)
    ((steps, replays),) = made()
    assert steps > 50
    assert replays == 4  # the first call ran as it is; the last was counted
    assert dict(counts.launches) == {"copy_": 2, "clone": 1}
    assert not counts.waits


def test_what_differs_in_anything_but_pixels_has_a_graph_of_its_own() -> None:
    (pair,) = images(1)
    calls = [
        {},
        {"data_range": 2.0},
        {"return_map": True},
        {"k": 1.0},
    ]
    exact = [fsim(*pair, **{**FSIM, **options}) for options in calls]
    with graphs.use(True):
        for _ in range(3):
            found = [fsim(*pair, **{**FSIM, **options}) for options in calls]
    assert len(made()) == len(calls)
    assert torch.equal(found[2].map.cpu(), exact[2].map.cpu())
    for i in (0, 1, 3):
        assert torch.equal(found[i].cpu(), exact[i].cpu())


def test_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST", 2)
    with graphs.use(True):
        for width in (24, 26, 28):
            (pair,) = images(1, (1, 1, 24, width))
            for _ in range(3):
                fsim(*pair, **FSIM)
    assert len(made()) == 3
    assert len(graphs._kept) == 2


def test_threads_take_turns() -> None:
    pairs = images(6)
    exact = [fsim(*pair, **FSIM).cpu() for pair in pairs]
    found: dict[int, list[torch.Tensor]] = {}

    def work(i: int) -> None:
        with graphs.use(True):
            found[i] = [fsim(*pairs[i], **FSIM).cpu() for _ in range(5)]

    with graphs.use(True):
        fsim(*pairs[0], **FSIM)  # met
    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(pairs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made()) == 1
    for i, each in enumerate(exact):
        assert all(torch.equal(one, each) for one in found[i])


def test_a_call_with_a_gradient_or_a_mask_runs_as_it_is() -> None:
    (pair,) = images(1)
    leaf = pair[0].clone().requires_grad_()
    mask = torch.ones((24, 26), dtype=torch.bool).to("cuda")
    with graphs.use(True):
        for _ in range(3):
            fsim(leaf, pair[1], **FSIM).sum().backward()
            fsim(*pair, mask=mask, **FSIM)
    assert made() == []
    assert leaf.grad is not None


def test_what_cannot_be_captured_runs_as_it_is_for_good() -> None:
    (pair,) = images(1)
    calls: list[float] = []

    def waits(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        calls.append(float(x.sum()))
        return x + y

    with graphs.use(True):
        for _ in range(4):
            assert torch.equal(graphs.run("waits", waits, pair, key=0).cpu(), (pair[0] + pair[1]).cpu())
    assert len(calls) == 4
    assert [replays for _, replays in made()] == [0]


def test_dists_too() -> None:
    pairs = images(3, (1, 1, 32, 32))
    exact = [dists(*pair, data_range=1.0, weights="random").cpu() for pair in pairs]
    with graphs.use(True):
        found = [dists(*pair, data_range=1.0, weights="random").cpu() for pair in pairs]
    assert found == exact
    assert [replays for _, replays in made()] == [2]


def test_the_evidence_of_a_batch_is_one_graph() -> None:
    roles = ("noisy", "denoised", "reference")
    batches = [dict(zip(roles, evidence_tiles.case(kind, 64, 80), strict=True)) for kind in ("lines", "metal", "holes")]
    there = [{name: v.to("cuda") for name, v in batch.items()} for batch in batches]
    exact = [Trust().measure(on, data_range=None, host=batch) for on, batch in zip(there, batches, strict=True)]
    with graphs.use(True):
        found = [Trust().measure(on, data_range=None, host=batch) for on, batch in zip(there, batches, strict=True)]
    for one, other in zip(found, exact, strict=True):
        for name, column in other.columns.items():
            np.testing.assert_array_equal(one.columns[name], column, err_msg=name)
    assert len(made()) == 1
