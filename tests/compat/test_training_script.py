"""A small training script of a user's, run as it is and with its one import of a peer replaced."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest
import torch

import against

SCRIPT = textwrap.dedent(
    """
    import torch
    {imports}

    torch.manual_seed(0)
    clean = (torch.arange(64) % 16 < 8).float().mul(0.4).add(0.3).expand(4, 1, 64, 64).contiguous()
    noisy = (clean + 0.1 * torch.randn(clean.shape)).clamp(0, 1)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 3, padding=1), torch.nn.Sigmoid()
    )
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    values = []
    for step in range(12):
        optimiser.zero_grad()
        loss = {loss}
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    """
)
# peer and its module, version, the import with PACKAGE for the peer, the loss
SCRIPTS = {
    "piq": ("piq", "0.8.0", "from PACKAGE import SSIMLoss", "SSIMLoss()(net(noisy), clean)"),
    "pytorch_msssim": (
        "pytorch_msssim",
        "1.0",
        "from PACKAGE import SSIM",
        "1 - SSIM(data_range=1.0, channel=1)(net(noisy), clean)",
    ),
    "torchmetrics": (
        "torchmetrics",
        "1.",
        "from PACKAGE.functional.image import structural_similarity_index_measure as ssim",
        "1 - ssim(net(noisy), clean, data_range=1.0)",
    ),
    "skimage": (
        "skimage",
        "0.2",
        "from PACKAGE.metrics import structural_similarity",
        "(net(noisy) - clean).square().mean(); last = net(noisy).detach()[0, 0].double().numpy(); "
        "values.append(structural_similarity(last, clean[0, 0].double().numpy(), data_range=1.0))",
    ),
}


def trained(script: str) -> list[float]:
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        exec(script, names)
    return names["values"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_changed_import_trains_the_same(name: str) -> None:
    module, version, imports, loss = SCRIPTS[name]
    against.installed(module, version)
    ours = imports.replace("PACKAGE.metrics" if name == "skimage" else "PACKAGE", f"semnr.compat.{name}")
    wanted = trained(SCRIPT.format(imports=imports.replace("PACKAGE", module), loss=loss))
    found = trained(SCRIPT.format(imports=ours, loss=loss))
    assert found[0] == pytest.approx(wanted[0], abs=5e-5)  # torchmetrics sums in float32
    assert found == pytest.approx(wanted, abs=2e-3)
    if name != "skimage":
        assert found[-1] < 0.8 * found[0]


def test_compat_imports_no_peer() -> None:
    script = textwrap.dedent(
        """
        import sys
        import semnr.compat.piq, semnr.compat.pytorch_msssim, semnr.compat.skimage
        import semnr.compat.torchmetrics.functional.image
        from semnr.compat.torchmetrics.functional import peak_signal_noise_ratio
        print({"piq", "pytorch_msssim", "skimage", "torchmetrics", "lpips", "DISTS_pytorch"} & set(sys.modules))
        sys.modules["torchmetrics"] = None
        try:
            import semnr.compat.torchmetrics.image
        except ImportError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    peers, message = done.stdout.splitlines()
    assert peers == "set()"
    assert "pip install 'semnr[torchmetrics]'" in message
