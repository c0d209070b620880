"""The drop-in names and the losses on a CPU, beside the peers and beside the bare kernels.

`python benchmarks/speed/bench_compat.py` for the table; `pytest benchmarks/speed/bench_compat.py`. Every case is
checked before it is timed. Of a row the first call is "semnr"; a ratio is the other call's time over it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peers import images, measure, peer

from semnr import losses
from semnr.compat import piq as compat
from semnr_kernels.ssim import Settings, native, rows, ssim


def drop_in(side: int, downsample: bool) -> dict:
    x, y, _ = images(side)
    calls: dict[str, Any] = {"semnr": lambda: compat.ssim(x, y, downsample=downsample)}
    if piq := peer("piq"):
        assert abs(piq.ssim(x, y, downsample=downsample) - calls["semnr"]()) < 1e-5
        calls["piq"] = lambda: piq.ssim(x, y, downsample=downsample)
    settings = Settings(data_range=1.0)
    if not downsample:
        calls["without the range check"] = lambda: rows(x, y, settings)
    return {"work": f"compat.piq.ssim(downsample={downsample}) {side}", "pixels": side * side, **calls}


def batch(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [images(side + seed)[:2] for seed in range(count)]
    return tuple(torch.cat([p[i][..., :side, :side] for p in pairs]) for i in (0, 1))  # type: ignore[return-value]


def step(loss: Callable[..., torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> Callable[[], torch.Tensor]:
    leaf = x.clone().requires_grad_()

    def run() -> torch.Tensor:
        leaf.grad = None
        loss(leaf, y).backward()
        assert leaf.grad is not None
        return leaf.grad

    return run


def loss_step() -> dict:
    x, y = batch(8, 512)
    settings, by = Settings(data_range=1.0), torch.full((2, 8, 1), -1 / 8 / 502**2, dtype=torch.float64)
    by[1] = 0

    def bare() -> Any:
        native._forward(x, y, None, settings)
        return native._backward(x, y, settings, by, None, (True, False))[0]

    calls = {"semnr": step(losses.SSIMLoss(1.0), x, y), "the bare kernels": bare}
    torch.testing.assert_close(calls["semnr"](), bare(), rtol=1e-4, atol=1e-10)
    return {"work": "SSIMLoss step 8 x 1 x 512", "pixels": x.numel(), **calls}


def l1_ssim() -> dict:
    x, y = batch(8, 512)

    def composed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return 0.2 * (1 - ssim(a, b, data_range=1.0)) + 0.8 * (a - b).abs().mean()

    calls = {
        "semnr": step(losses.L1SSIMLoss(1.0), x, y),
        "SSIM alone": step(losses.SSIMLoss(1.0), x, y),
        "SSIM + torch's L1": step(composed, x, y),
    }
    torch.testing.assert_close(calls["semnr"](), calls["SSIM + torch's L1"](), rtol=1e-3, atol=1e-9)
    return {"work": "L1SSIMLoss step 8 x 1 x 512", "pixels": x.numel(), **calls}


class UNet(torch.nn.Module):
    """Four levels, 32 channels at the first, twice as many at each further."""

    def __init__(self, channels: int = 32, levels: int = 4) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(levels)]

        def pair(before: int, after: int) -> torch.nn.Sequential:
            convolutions = (
                torch.nn.Conv2d(before, after, 3, padding=1),
                torch.nn.ReLU(),
                torch.nn.Conv2d(after, after, 3, padding=1),
                torch.nn.ReLU(),
            )
            return torch.nn.Sequential(*convolutions)

        self.down = torch.nn.ModuleList(pair(a, b) for a, b in zip([1, *widths], widths, strict=False))
        self.up = torch.nn.ModuleList(pair(a + b, a) for a, b in pairwise(widths))
        self.last = torch.nn.Conv2d(channels, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, at = [], x
        for level, block in enumerate(self.down):
            at = block(F.max_pool2d(at, 2) if level else at)
            kept.append(at)
        for block, beside in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            at = block(torch.cat((beside, F.interpolate(at, scale_factor=2)), dim=1))
        return x + self.last(at)


def unet_step() -> dict:
    torch.manual_seed(0)
    x, y = batch(8, 256)
    net, extra = UNet(), losses.SSIMLoss(1.0)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-4)

    def train(with_ssim: bool) -> float:
        optimiser.zero_grad()
        out = net(x)
        loss = (out - y).abs().mean()
        loss = loss + 0.2 * extra(out, y) if with_ssim else loss
        loss.backward()
        optimiser.step()
        return loss.item()

    return {
        "work": "U-Net step 8 x 1 x 256, 4 levels, 32 channels, L1 + SSIM",
        "pixels": x.numel(),
        "semnr": lambda: train(True),
        "L1 alone": lambda: train(False),
        "its SSIM loss, forward and backward": step(extra, x, y),
    }


CASES = {
    "piq-2048": (drop_in, 2048, False),
    "piq-512": (drop_in, 512, False),
    "piq-downsampled-2048": (drop_in, 2048, True),
    "loss-step": (loss_step,),
    "l1-ssim": (l1_ssim,),
    "unet": (unet_step,),
}


@pytest.mark.parametrize("case", CASES)
def test_compat(case: str, benchmark) -> None:  # type: ignore[no-untyped-def]
    measure(CASES[case], benchmark)


if __name__ == "__main__":
    from table import write

    write("compat", CASES)
