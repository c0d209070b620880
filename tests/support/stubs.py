"""What type checkers see of the metrics: `python tests/support/stubs.py` writes python/semnr/metrics.pyi.

The names, defaults and annotations are those of the kernels' own signatures, read at run time, so that an option is
written once. What stands here is how the result follows from the arguments: a tensor of tensors, NumPy of arrays, and a
`Result` where a map, the components or the details are asked for. tests/project/test_typing.py compares.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import semnr_kernels
from semnr import metrics

ROOT = Path(__file__).resolve().parents[2]
STUB = ROOT / "python/semnr/metrics.pyi"  # the tree's: beside an installed package ruff finds no line length
SCORES = ("mse", "mae", "psnr", "ssim", "ms_ssim", "fsim", "dists", "lpips", "cnr")
REGIONS = ("otsu_masks", "worst_windows")
EXTRAS = ("return_map", "components", "details")  # each makes the result a `Result`
ONE_NUMBER = ("mean", "sum"), ("mean", "sum", "mean_mse")  # reductions that leave one number of any batch; PSNR's
EITHER = "np.float64 | NDArray[np.float64]"  # reduction="none": an array of a batch, a number of one image

Parameter = inspect.Parameter


def header(aliases: dict[str, str]) -> str:
    """The docstring, the imports, and what is the same for every metric."""
    lines = [
        '"""Written by tests/support/stubs.py from the signatures of the kernels: change those, then run it."""',
        "from typing import Any, Literal, TypeVar, overload",
        "import numpy as np",
        "import torch",
        "from numpy.typing import NDArray",
        "from semnr_kernels import Explanation, Result as Result, backends as backends, use_backend as use_backend",
        "from semnr_kernels.cnr import Sigma as Sigma",
        *(f"from {module} import {name}" for name, module in sorted(aliases.items())),
        f"__all__ = {metrics.__all__!r}",
        "Array = torch.Tensor | NDArray[Any]",
        "_Kind = TypeVar('_Kind', torch.Tensor, NDArray[Any])",
        "def to_tensor(name: str, value: Any) -> Any: ...",
        "def to_numpy(value: Any) -> Any: ...",
        "def explain(",
        "    op: str, x: Array, y: Array | None = None, *, backend: str | None = 'auto', **options: Any",
        ") -> Explanation: ...",
    ]
    return "\n".join(lines) + "\n"


def names_in(annotation: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(annotation)) if isinstance(node, ast.Name)}


def kernel_module(name: str) -> str:
    """Where the kernel of this name is written, and so the names of its annotations."""
    ours = (getattr(getattr(semnr_kernels, op), name, None) for op in semnr_kernels.op_names())
    return str(next(inspect.unwrap(kernel).__module__ for kernel in ours if inspect.isfunction(kernel)))


def declared(name: str, signature: inspect.Signature, changed: dict[str, str], returned: str, overloaded: bool) -> str:
    """One `def` of a stub: `changed` replaces parameters by what is written there."""
    parts: list[str] = []
    starred = False
    for parameter in signature.parameters.values():
        if parameter.kind is Parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        annotation = str(parameter.annotation).replace("torch.Tensor", "Array")
        default = "" if parameter.default is Parameter.empty else f" = {parameter.default!r}"
        parts.append(changed.get(parameter.name, f"{parameter.name}: {annotation}{default}"))
    return f"{'@overload' if overloaded else ''}\ndef {name}({', '.join(parts)}) -> {returned}: ...\n"


def images(kind: str, signature: inspect.Signature) -> dict[str, str]:
    """Both images of one kind; the second may be left out where the kernel says so."""
    optional = signature.parameters["y"].default is None
    return {"x": f"x: {kind}", "y": f"y: {kind} | None = None" if optional else f"y: {kind}"}


def overloads(name: str, signature: inspect.Signature) -> Iterator[str]:
    """The variants of one metric, the most particular first."""
    extras = [extra for extra in EXTRAS if extra in signature.parameters]
    plain = {extra: f"{extra}: Literal[False] = False" for extra in extras}
    arrays = images("NDArray[Any]", signature) | plain
    yield declared(name, signature, images("torch.Tensor", signature) | plain, "torch.Tensor", True)
    if "reduction" not in signature.parameters:  # a map
        yield declared(name, signature, arrays, "NDArray[np.float64]", True)
    else:
        default = signature.parameters["reduction"].default
        names = ONE_NUMBER[name == "psnr"]
        one = f"reduction: Literal{list(names)!r}" + (" = 'mean'" if default == "mean" else "")
        yield declared(name, signature, arrays | {"reduction": one}, "np.float64", True)
        yield declared(name, signature, arrays, EITHER, True)
    for extra in extras:
        asked = {extra: f"{extra}: Literal[True]"}
        yield declared(name, signature, images("_Kind", signature) | asked, "Result", True)
    if extras:  # whether it is asked for is known at run time alone
        yield declared(name, signature, images("_Kind", signature), "Any", True)


def regions(name: str, signature: inspect.Signature) -> str:
    return declared(name, signature, {}, str(signature.return_annotation), False)


def stub() -> str:
    """The text of metrics.pyi, as ruff formats it."""
    aliases: dict[str, str] = {}
    body = ""
    for name in (*SCORES, "cnr_map", *REGIONS):
        function: Callable[..., Any] = getattr(metrics, name)
        signature = inspect.signature(function)
        shown = [str(p.annotation) for p in signature.parameters.values()]
        shown += [str(signature.return_annotation)] if name in REGIONS else []
        for used in set().union(*map(names_in, shown)) - {"torch", "Any", "Sigma", *dir(builtins)}:
            aliases[used] = kernel_module(name)
        body += regions(name, signature) if name in REGIONS else "".join(overloads(name, signature))
    return formatted(header(aliases) + body)


def formatted(text: str) -> str:
    for command in (["check", "--quiet", "--select", "I", "--fix"], ["format", "--quiet"]):
        line = ["ruff", *command, "--stdin-filename", str(STUB), "-"]
        text = subprocess.run(line, input=text, text=True, capture_output=True, check=True).stdout
    return text


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
    print(f"{STUB}: {STUB.read_text(encoding='utf-8').count('@overload')} overloads")
