"""The autoencoder as an ONNX file: a tile in, its reconstruction and the error in units of the noise out."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from ..base.outputs import holds, replaceable
from .autoencoder import Autoencoding
from .model import AnomalyModel, load


def export_onnx(model: Any, out: str | Path) -> Path:
    """Write an autoencoder as ONNX (opset 18) for runtimes without torch.

    Inputs: `tile` (N, 1, H, W) float32 in grey levels, sides multiples of the metadata's `align`, and, where the model
    sees denoised tiles, `denoised`, the tile after the denoiser that the metadata name. Outputs:
    `reconstruction` (N, 1, H, W), and `error` (N, 1, H, W), the tile less its reconstruction over the σ of the noise.
    The threshold is not in the graph: it can be moved. The metadata holds `align`, the data range, the noise law and
    the checksum of the model. The residual's scan is not in the graph either.

    Parameters
    ----------
    model : path or AnomalyModel
        A model of kind "autoencoder".
    out : str or Path
        The .onnx file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ImportError
        The package onnx (extra `[onnx]`) is not installed.
    ValueError
        A model of another kind.

    Examples
    --------
    >>> semnr.anomaly.export_onnx("model", "model.onnx")  # doctest: +SKIP
    PosixPath('model.onnx')
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("ONNX export needs the package onnx: pip install 'semnr[onnx]'") from error
    import torch

    fitted = model if isinstance(model, AnomalyModel) else load(model)
    engine = fitted.engine
    if not isinstance(engine, Autoencoding):
        raise ValueError(f"model is of kind {fitted.kind!r}; accepted: 'autoencoder'")
    path = replaceable("out", out, "an exported model", holds(b"anomaly_sha256"))
    law, network = engine.noise, engine.network

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(
            self, tile: torch.Tensor, denoised: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            made = self.network(tile if denoised is None else denoised)
            variance = torch.clamp(law.gain * made + law.offset, min=law.floor)
            return made, (tile - made) / torch.sqrt(variance)

    align = network.layout.align
    side = 4 * align
    inputs = ["tile"] if engine.denoiser is None else ["tile", "denoised"]
    names = ["reconstruction", "error"]
    axes = {name: {0: "n", 2: "h", 3: "w"} for name in (*inputs, *names)}
    example = tuple(torch.zeros(1, 1, side, side) for _ in inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():  # the tracing exporter needs no further package
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            Graph().eval(), example, str(path), input_names=inputs, output_names=names,
            dynamic_axes=axes, opset_version=18, dynamo=False,
        )  # fmt: skip
    written = onnx.load(str(path))
    facts = {
        "align": align,
        "data_range": fitted.data_range,
        "noise": {"gain": law.gain, "offset": law.offset, "floor": law.floor},
        "denoiser": engine.denoiser,
        "anomaly_sha256": fitted.facts["sha256"],
    }
    entry = written.metadata_props.add()
    entry.key, entry.value = "semnr", json.dumps(facts, sort_keys=True)
    onnx.save(written, str(path))
    return path
