"""Memory that SSIM takes above its inputs at 4096² float32, forward and backward: the peak resident set of a process
of its own, counted from before the call (Linux)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from semnr_kernels.ssim import ssim

SIDE = 4096


def status(key: str) -> float:
    """A line of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def run(backward: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    small, x, y = (torch.rand((1, 1, side, side), generator=generator) for side in (64, SIDE, SIDE))
    ssim(small.clone().requires_grad_(), small, data_range=1.0).backward()  # what loads once is not counted
    x.requires_grad_(backward)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    value = ssim(x, y, data_range=1.0)
    if backward:
        value.backward()
    above = status("VmHWM") - before
    gradient = SIDE * SIDE * 4 / 2**20 if backward else 0.0
    print(f"{'backward' if backward else 'forward'}: {above:.2f} MiB above the inputs, {gradient:.0f} of them gradient")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(sys.argv[1] == "backward")
    else:
        for mode in ("forward", "backward"):
            subprocess.run([sys.executable, __file__, mode], check=True)
