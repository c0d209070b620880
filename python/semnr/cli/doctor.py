"""`semnr doctor`."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

from .. import __version__
from ..base.text import table
from . import PASS
from .text import print_json, say

OPTIONAL = {
    "pandas": "to_pandas(): pip install 'semnr[pandas]'",
    "matplotlib": "plot(): pip install 'semnr[plot]'",
    "fsspec": "remote tiles: pip install 'semnr[remote]'",
    "bm3d": "the bm3d model, non-commercial licence: pip install 'semnr[bm3d]'",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument(
        "--warm-up", action="store_true", help="compile the kernels of this machine's GPU now, not at the first call"
    )


def run(args: argparse.Namespace) -> int:
    warmed = warm_up() if args.warm_up else None
    state = examine()
    if warmed is not None:
        state["warm_up"] = warmed
    if args.json:
        print_json(state)
        return PASS
    say(f"semnr {state['semnr']}, Python {state['python']}, torch {state['torch']}")
    say(f"{state['machine']['processor']}, {state['machine']['cores']} cores, GPU: {state['machine']['gpu'] or 'none'}")
    say("\nBackends")
    say(table(("backend", "state", "remedy"), [(b["name"], b["state"], b["remedy"]) for b in state["backends"]]))
    if warmed is not None:
        say("\nCompiled for this GPU")
        rows = [(one["op"], one["backend"], f"{one['seconds']:.1f} s") for one in warmed]
        say(table(("op", "backend", "time"), rows) if rows else "nothing: torch sees no CUDA device")
        say(f"Triton keeps what it compiles in {triton_cache()}")
    say(f"\nCUDA kernels without nvcc: {state['nvrtc']['text']}")
    say("\nWhat `auto` takes for a 1x1x512x512 tile on the CPU")
    names = {"pixel": "mse, mae, psnr"}
    rows = [(names.get(op, op), d["uint8"], d["float32"]) for op, d in state["auto"].items()]
    say(table(("op", "uint8", "float32"), rows))
    say("\nWeights")
    absent = "absent: `semnr weights fetch NAME`"
    say(table(("name", "state"), [(w["name"], w["path"] if w["present"] else absent) for w in state["weights"]]))
    say("\nOptional packages")
    rows = [(p["name"], p["version"] or "not installed", p["for"]) for p in state["packages"]]
    say(table(("package", "version", "for"), rows))
    return PASS


def triton_cache() -> str:
    """The folder in which Triton keeps compiled kernels."""
    return os.environ.get("TRITON_CACHE_DIR") or str(
        Path(os.environ.get("TRITON_HOME") or Path.home()) / ".triton/cache"
    )


def nvrtc_state() -> dict[str, Any]:
    """Whether NVRTC can make the CUDA kernels of this machine's GPU, where nvcc did not; else Triton serves."""
    from semnr_kernels import cuda_support, nvrtc

    state, launches = nvrtc.state(), cuda_support.hosted()
    if isinstance(launches, str):
        text = f"none, Triton serves (semnr_kernels._cuda_hosted: {launches})"
    elif state["version"] is None:
        text = f"none, Triton serves ({state['reason']})"
    elif (reason := nvrtc.why_not_on(0)) == nvrtc.NO_DEVICE:
        text = f"NVRTC {state['version']} is there and would compile them; {reason}"
    elif reason is not None:
        text = f"none, Triton serves ({reason})"
    else:
        text = f"NVRTC {state['version']} compiles them at their first call and keeps them in {state['folder']}"
    return {**state, "text": text}


def warm_up() -> list[dict[str, Any]]:
    """Run every metric without a network once on the GPU for each dtype, on sides that 16 divides and others."""
    import torch

    from semnr_kernels import registry

    from .. import metrics

    if not torch.cuda.is_available():
        return []
    found = []
    for name in ("mse", "ssim", "fsim", "cnr"):
        start = time.perf_counter()
        backends: set[str] = set()
        for dtype in (torch.uint8, torch.uint16, torch.float32):
            for side in (256, 250):
                lines = ((torch.arange(side) // 8 % 2) * 100 + torch.arange(side)[:, None] % 7).to(dtype)
                images = (lines.to("cuda"), lines.flip(0).contiguous().to("cuda"))
                options = {} if name == "cnr" else {"data_range": 255.0}
                with registry.recording() as used:
                    getattr(metrics, name)(*images, **options)
                backends.update(used.values())
        torch.cuda.synchronize()
        found.append({"op": name, "backend": ", ".join(sorted(backends)), "seconds": time.perf_counter() - start})
    return found


def examine() -> dict[str, Any]:
    """Everything that the command prints, as data."""
    import torch

    from semnr_kernels import registry

    from ..runs.run import machine
    from ..weights import list_weights

    states = registry.backends()
    backends = []
    for name, state in states.items():
        known = registry.BACKENDS[name]
        detail = known.describe() if state == "available" else ""
        backends.append(
            {
                "name": name,
                "state": f"available ({detail})" if detail else state,
                "remedy": "" if state == "available" else known.remedy,
            }
        )
    auto = {}
    for op in registry.ops():
        choice = {}
        for dtype in (torch.uint8, torch.float32):
            call = registry.Call(op, "cpu", dtype, (1, 1, 512, 512), False)
            choice[str(dtype).removeprefix("torch.")] = registry.explain(call).chosen
        auto[op] = choice
    packages = []
    for name, use in OPTIONAL.items():
        try:
            version: str | None = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        packages.append({"name": name, "version": version, "for": use})
    return {
        "semnr": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": machine(),
        "backends": backends,
        "auto": auto,
        "nvrtc": nvrtc_state(),
        "weights": list_weights(),
        "packages": packages,
    }
