"""`semnr doctor`."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
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


def run(args: argparse.Namespace) -> int:
    state = examine()
    if args.json:
        print_json(state)
        return PASS
    say(f"semnr {state['semnr']}, Python {state['python']}, torch {state['torch']}")
    say(f"{state['machine']['processor']}, {state['machine']['cores']} cores, GPU: {state['machine']['gpu'] or 'none'}")
    say("\nBackends")
    say(table(("backend", "state", "remedy"), [(b["name"], b["state"], b["remedy"]) for b in state["backends"]]))
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
        "weights": list_weights(),
        "packages": packages,
    }
