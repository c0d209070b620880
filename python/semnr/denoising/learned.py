"""Networks as models of the tiled runner: one plane of a window in, its denoised pixels out."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..noise.family import figures, remarks
from ..noise.model import NoiseModel
from .model import Built, Model, Setting, There
from .weights import ensemble_of, load

if TYPE_CHECKING:
    import torch

    from .network import SemDenoiser

ENSEMBLES = (1, 2, 4)
PRECISIONS = ("float32", "bfloat16", "float16")


def model(name: str | Path) -> Model:
    """The model of shipped weights or of a .safetensors file; weights are read when it is built."""
    return Model(
        str(name),
        lambda setting: _build(str(name), setting),
        {
            "texture": 0.0,
            "precision": "float32",
            "device": "cpu",
            "batch": None,
            "compiled": False,
            "ensemble": ensemble_of(name),
        },
        "a network conditioned on the noise law (weights: shipped name or .safetensors)",
        by_law=True,
        checks={
            "texture": _share,
            "precision": _precision,
            "device": _device,
            "batch": _batch,
            "compiled": _flag,
            "ensemble": _ensemble,
        },
        checksum=lambda: _checksum(str(name)),
    )


def _checksum(name: str) -> str:

    return load(name).sha256


def _share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; accepted: a number from 0 (least error) to 1 (texture stays)")
    return float(value)


def _device(name: str, value: Any) -> str:
    from semnr_kernels.device import resolve

    return str(resolve(value))


def _precision(name: str, value: Any) -> str:
    if value not in PRECISIONS:
        raise ValueError(f"{name} is {value!r}; accepted: {', '.join(map(repr, PRECISIONS))}")
    return str(value)


def _batch(name: str, value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"{name} is {value!r}; accepted: an integer of at least 1, or None (1; 8 on a GPU)")


def _flag(name: str, value: Any) -> bool:
    if value in (0, 1, True, False):  # 0 and 1 from the command line
        return bool(value)
    raise ValueError(f"{name} is {value!r}; accepted: True or False")


def _ensemble(name: str, value: Any) -> int:
    if isinstance(value, bool) or value not in ENSEMBLES:
        raise ValueError(f"{name} is {value!r}; accepted: {', '.join(map(str, ENSEMBLES))} (mirrored copies)")
    return int(value)


def law(noise: NoiseModel, centre: float, texture: float = 0.0) -> tuple[float, ...]:
    """Gain, offset, floor, centre, correlations at lags 1 and 2, texture: what `SemDenoiser` sees beside the image."""
    first, second = (float(np.clip(lag, 0.0, 0.95)) for lag in (*noise.correlation, 0.0, 0.0)[:2])
    gain, offset = noise.gain, noise.offset
    if gain < 0:  # no detector's noise falls with the signal: highlights that are cut off make it look so
        gain, offset = 0.0, float(noise.sigma()) ** 2
    # a cut-off level measured with no noise at all would make the smallest difference a thousand sigma
    floor = max(noise.floor, 0.05 * float(noise.sigma()) ** 2)
    return gain, offset, floor, centre, first, second, texture


def _build(name: str, setting: Setting) -> Built:
    import torch

    from .batches import Batches

    loaded, noise, windows = load(name), setting.noise, setting.samples()
    if noise is None:
        raise ValueError(f"noise is None; model {name!r} needs the noise law")
    texture = setting.params["texture"]
    if texture and not loaded.about.get("recipe", {}).get("loss", {}).get("grain"):
        raise ValueError(f"texture is {texture:g}, but {name} was trained without loss.grain; accepted: 0")
    layout = loaded.network.layout
    centre = float(np.median(np.concatenate([w.ravel() for w in windows]))) if windows else 0.0
    values = law(noise, centre, texture)
    if not any(values[:3]):  # a noise-free run: nothing to remove
        return Built(lambda x: x, 0)
    device = torch.device(setting.params["device"])
    network = _averaging(loaded.network, setting.params["ensemble"])
    forward = _forward(network, device, texture > 0, setting.params["compiled"])
    half = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[setting.params["precision"]]
    # Sigma units keep float32 exact whatever the grey levels are (a pedestal of 40,000 on a noise of 20)
    scale = float(noise.sigma()) or 1.0
    gain, offset, floor, centre, *told = values
    numbers = torch.tensor([(gain / scale, (offset + gain * centre) / scale**2, floor / scale**2, 0.0, *told)])
    numbers = numbers.to(device)

    def run(batch: torch.Tensor) -> torch.Tensor:
        with _autocast(device, half):
            return forward(batch, numbers.expand(len(batch), -1))  # type: ignore[no-any-return]

    # the runner's workers are the threads: on the processor each call keeps to its own
    limit = setting.params["batch"] or (1 if device.type == "cpu" else 8)
    if device.type == "cpu" and limit == 1:
        apart = _OneThread()

        def denoised(window: torch.Tensor) -> torch.Tensor:
            with apart(), torch.inference_mode():
                return run(window[None, None])[0, 0].float()
    else:
        denoised = Batches(run, device, limit, 1 if setting.params["compiled"] or device.type == "cpu" else 2)

    def apply(x: np.ndarray) -> np.ndarray:
        unit = ((x - centre) / scale).astype(np.float32)
        rows, columns = (-n % layout.align for n in unit.shape)
        padded = np.pad(unit, ((0, rows), (0, columns)), "edge")  # beyond the halo: nothing that is kept sees it
        done = denoised(torch.from_numpy(padded)).numpy()[: x.shape[0], : x.shape[1]]
        return x + (done - unit) * np.float64(scale)  # only the residual is float32

    middle, step = torch.tensor([centre, scale], dtype=torch.float64).to(device)

    def apply_there(x: torch.Tensor) -> torch.Tensor:
        unit = ((x - middle) / step).float()
        rows, columns = (-n % layout.align for n in unit.shape)
        padded = torch.nn.functional.pad(unit[None, None], (0, columns, 0, rows), mode="replicate")[0, 0]
        done = denoised(padded)[: x.shape[0], : x.shape[1]]
        return x + (done - unit).double() * step

    there = None if device.type == "cpu" else There(device, apply_there)
    told_too = remarks(figures(noise, windows), loaded.family) + _of_precision(device, half)
    return Built(apply, layout.halo, layout.align, told_too, there)


def _of_precision(device: torch.device, half: torch.dtype | None) -> tuple[str, ...]:
    """What "float32" is where torch rounds: the denoiser keeps to torch's switch, unlike the metrics."""
    from semnr_kernels.convolution import rounded

    if device.type != "cuda" or half is not None or not rounded():
        return ()
    return (
        "precision float32 is TF32 here: convolutions round their operands to ten bits unless "
        "torch.backends.cudnn.allow_tf32 is False",
    )


@functools.lru_cache(maxsize=4)  # one object for each, which `_forward` knows again
def _averaging(network: SemDenoiser, ensemble: int) -> SemDenoiser:
    return network.averaging(ensemble)


@functools.lru_cache(maxsize=4)  # noise="image" builds for each image anew
def _forward(network: Any, device: torch.device, textured: bool, compiled: bool) -> Any:
    import copy

    import torch

    if device.type != "cpu":
        network = copy.deepcopy(network).to(device)
    forward = network if textured else network.plain
    if not compiled:
        return forward
    # no CUDA graphs: torch records them in its main thread alone, and windows come from the runner's workers
    return torch.compile(forward, dynamic=True)


class _OneThread:
    """Torch on one thread within the calling thread: waiting for each other after every layer costs more than it gains,
    and ruins the rate on a machine with other work."""

    def __init__(self) -> None:
        import torch

        self._usual = torch.get_num_threads()  # of the thread that the run is started from

    @contextmanager
    def __call__(self) -> Iterator[None]:
        import torch

        torch.set_num_threads(1)
        try:
            yield
        finally:  # what threads that start later take
            torch.set_num_threads(self._usual)


def _autocast(device: torch.device, half: torch.dtype | None) -> Any:
    import torch

    return torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None)
