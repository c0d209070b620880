"""Weights of the learned denoisers: safetensors files, the shipped ones by name with their checksum.

A file holds the tensors of `SemDenoiser` and, as metadata, its layout, the noise family that it was trained on and
where it comes from. It runs no code when it is read.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .network import SemDenoiser

FORMAT = "semnr-denoiser-3"  # 2: stabilised pixels, texture by a part of its own; 3: by bands of what was removed
FOLDER = Path(__file__).with_name("models")


@dataclass(frozen=True)
class Shipped:
    """Weights in the package: file beside a model card of the same name, the file's SHA-256, and how many mirrored
    copies of an image are averaged unless the caller says otherwise."""

    file: str
    sha256: str
    summary: str
    ensemble: int = 1

    @property
    def path(self) -> Path:
        return FOLDER / self.file


def _registry() -> dict[str, Shipped]:
    path = FOLDER / "registry.json"
    return {name: Shipped(**row) for name, row in json.loads(path.read_text()).items()} if path.is_file() else {}


SHIPPED: dict[str, Shipped] = _registry()  # name -> weights; written by `ship`
NAMES = ("semnr-small", "semnr-base", "semnr-base-1", "semnr-base-2")  # also those whose weights are not there yet


@dataclass(frozen=True)
class Loaded:
    """A network ready to run, and what its file says of it."""

    network: SemDenoiser
    name: str
    sha256: str
    family: Mapping[str, tuple[float, float]]  # see `_family`
    about: Mapping[str, Any]


def is_learned(name: object) -> bool:
    """Whether `name` means weights: a shipped model, or the path of a .safetensors file."""
    return isinstance(name, str | Path) and (str(name) in NAMES or str(name).endswith(".safetensors"))


def ensemble_of(name: str | Path) -> int:
    """How many mirrored copies of an image a model averages unless the caller says otherwise."""
    known = SHIPPED.get(str(name))
    return known.ensemble if known else 1


def load(name: str | Path) -> Loaded:
    """Weights by the name of a shipped model or by path; a file is read once while it stays the same.

    Raises
    ------
    WeightsUnavailable
        No such file, not such a file, damaged, or (shipped) not of the published checksum.
    """
    from semnr_kernels.errors import WeightsUnavailable

    known = SHIPPED.get(str(name))
    if known is None and str(name) in NAMES:
        raise WeightsUnavailable(
            f"model {str(name)!r} has no weights in this installation; accepted: the path of a .safetensors file of "
            "`semnr train denoiser`, or a classical model (nlm, wavelet, tv, ...)"
        )
    path = known.path if known else Path(name)
    if not path.is_file():
        raise WeightsUnavailable(f"weights file {path} does not exist or is no file; accepted: a .safetensors file")
    stat = path.stat()
    loaded = _load(path.absolute(), stat.st_mtime_ns, stat.st_size, ensemble_of(name))
    if known and loaded.sha256 != known.sha256:
        raise WeightsUnavailable(
            f"{path} has SHA-256 {loaded.sha256[:16]}..., not {known.sha256[:16]}...: it is damaged or altered; "
            "reinstall semnr"
        )
    return loaded


@functools.lru_cache(maxsize=4)
def _load(path: Path, mtime_ns: int, size: int, ensemble: int) -> Loaded:
    import torch
    from safetensors import SafetensorError, safe_open

    from semnr_kernels.errors import WeightsUnavailable

    from .network import Layout, SemDenoiser

    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        about = json.loads(meta.get("semnr", "{}"))
        if about.get("format") != FORMAT:
            raise WeightsUnavailable(f"{path} has format {about.get('format')!r}; accepted: {FORMAT!r}")
        network = SemDenoiser(Layout.of(about["layout"]), ensemble)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise WeightsUnavailable(f"{path} cannot be read as weights of a denoiser: {error}") from error
    bad = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise WeightsUnavailable(f"{path}: {bad[0]!r} has non-finite values")
    try:
        with torch.inference_mode(False):
            network.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        raise WeightsUnavailable(f"{path} does not fit its own layout: {error}") from error
    network.eval().requires_grad_(False)
    network.to(memory_format=torch.channels_last)
    family = {key: (float(low), float(high)) for key, (low, high) in about.get("family", {}).items()}
    return Loaded(network, path.stem, hashlib.sha256(path.read_bytes()).hexdigest(), family, about)


def save(
    network: SemDenoiser, path: Path, *, family: Mapping[str, tuple[float, float]], about: Mapping[str, Any]
) -> str:
    """Write weights; returns the file's SHA-256. The same tensors and facts give the same bytes."""
    from safetensors.torch import save_file

    state = {key: value.detach().cpu().float().contiguous() for key, value in network.state_dict().items()}
    facts = {
        **about,
        "format": FORMAT,
        "layout": asdict(network.layout),
        "family": {k: list(v) for k, v in family.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    # one entry: safetensors writes several in any order
    save_file(state, str(part), metadata={"semnr": json.dumps(facts, sort_keys=True)})
    part.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ship(run: str | Path, name: str, summary: str = "", ensemble: int = 1) -> Path:
    """Put the chosen weights of a training run and their card into the package under a name; for maintainers.

    Raises
    ------
    WeightsUnavailable
        The run chose no model.
    """
    import shutil

    from semnr_kernels.errors import WeightsUnavailable

    best = Path(run) / "best.safetensors"
    if not best.is_file():
        raise WeightsUnavailable(f"{run} has no best.safetensors: no candidate passed the guardrails")
    loaded = load(best)
    FOLDER.mkdir(exist_ok=True)
    target = FOLDER / f"{name}.safetensors"
    shutil.copyfile(best, target)
    shutil.copyfile(Path(run) / "card.md", FOLDER / f"{name}.md")
    SHIPPED[name] = Shipped(target.name, loaded.sha256, summary, ensemble)
    rows = {key: asdict(value) for key, value in sorted(SHIPPED.items())}
    (FOLDER / "registry.json").write_text(json.dumps(rows, indent=2) + "\n")
    return target
