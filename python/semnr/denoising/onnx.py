"""A learned denoiser as an ONNX file: image and noise law in, denoised image out, any size."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from ..base.outputs import holds, replaceable
from .weights import load

LAW = ("gain", "offset", "floor", "centre", "correlation_1", "correlation_2", "texture")


def export_onnx(model: str | Path, out: str | Path) -> Path:
    """Write a learned model as ONNX (opset 18) for runtimes without torch.

    Inputs: `noisy` (N, 1, H, W) float32 in grey levels, sides multiples of the metadata's `align`; `law` (N, 7)
    float32: gain, offset, floor of the noise's variance (var = max(gain · level + offset, floor)), a centre (the
    median grey level), the noise's correlations at one and two pixels along the line, texture (0 to 1: see
    `semnr.denoise`). Output: `denoised` (N, 1, H, W).
    The metadata holds `align`, `halo`, the noise family and the weights' checksum.

    Parameters
    ----------
    model
        Name of a shipped model, or path of a .safetensors file.
    out
        The .onnx file.

    Raises
    ------
    ImportError
        The package onnx (extra `[onnx]`) is not installed.
    WeightsUnavailable
        See `semnr weights`.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> semnr.denoising.export_onnx("semnr-small", "semnr-small.onnx")  # doctest: +SKIP
    PosixPath('semnr-small.onnx')
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("ONNX export needs the package onnx: pip install 'semnr[onnx]'") from error
    import torch

    loaded = load(model)
    path = replaceable("out", out, "an exported denoiser", holds(b"weights_sha256"))
    network, align = loaded.network, loaded.network.layout.align
    side = 8 * align
    example: tuple[Any, ...] = (torch.zeros(1, 1, side, side), torch.tensor([[0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]))
    path.parent.mkdir(parents=True, exist_ok=True)
    # the tracing exporter needs no further package, and the network has no branch for it to lose
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            example,
            str(path),
            input_names=["noisy", "law"],
            output_names=["denoised"],
            dynamic_axes={"noisy": {0: "n", 2: "h", 3: "w"}, "law": {0: "n"}, "denoised": {0: "n", 2: "h", 3: "w"}},
            opset_version=18,
            dynamo=False,
        )
    written = onnx.load(str(path))
    facts = {
        "semnr": json.dumps(
            {
                "align": align,
                "halo": network.halo,
                "law": list(LAW),
                "family": {k: list(v) for k, v in loaded.family.items()},
                "weights_sha256": loaded.sha256,
            },
            sort_keys=True,
        )
    }
    for key, value in facts.items():
        entry = written.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(written, str(path))
    return path
