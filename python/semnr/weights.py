"""The weights of networks, DISTS's and the denoisers': what there is, fetched only when asked for, verified.

`vgg16` is downloaded once on an explicit `fetch`, into the cache that torchvision uses too; the others are shipped.
Every function gives plain data, as `semnr weights list | fetch | verify` prints it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from .denoising.weights import FORMAT, SHIPPED, load

__all__ = ["fetch", "list_weights", "verify"]

NAMES = ("vgg16", "alpha_beta", *SHIPPED)


def list_weights() -> list[dict[str, Any]]:
    """Every known set of network weights.

    Returns
    -------
    list of dict
        "name", "purpose", "license", "url", "sha256", "path", "present" and "bytes" of each.

    Examples
    --------
    >>> [weights["name"] for weights in semnr.weights.list_weights()]
    ['vgg16', 'alpha_beta', 'semnr-small'...]
    """
    from semnr_kernels.dists import weights as known

    vgg16, alpha_beta = known.default_path(), known.ALPHA_BETA_FILE
    denoisers = [
        {
            "name": name,
            "purpose": f"semnr.denoise(model={name!r}): {weights.summary}; shipped",
            "license": "Apache-2.0, as semnr; trained on synthetic images",
            "url": None,
            "sha256": weights.sha256,
            "path": str(weights.path),
            "present": weights.path.is_file(),
            "bytes": weights.path.stat().st_size if weights.path.is_file() else None,
        }
        for name, weights in SHIPPED.items()
    ]
    return [
        {
            "name": "vgg16",
            "purpose": "DISTS: features of torchvision's VGG16 (VGG16_Weights.IMAGENET1K_V1)",
            "license": "BSD-3-Clause (torchvision); trained on ImageNet",
            "url": known.VGG16_URL,
            "sha256": known.VGG16_SHA256_PREFIX,  # the first digits, as torchvision publishes them
            "path": str(vgg16),
            "present": vgg16.is_file(),
            "bytes": vgg16.stat().st_size if vgg16.is_file() else None,
        },
        {
            "name": "alpha_beta",
            "purpose": "DISTS: weights of structure and texture, fitted by Ding et al.; shipped",
            "license": "MIT, Copyright (c) 2020 Keyan Ding",
            "url": "https://github.com/dingkeyan93/DISTS",
            "sha256": known.ALPHA_BETA_SHA256,
            "path": str(alpha_beta),
            "present": alpha_beta.is_file(),
            "bytes": alpha_beta.stat().st_size if alpha_beta.is_file() else None,
        },
        *denoisers,
    ]


def fetch(
    name: str, path: str | os.PathLike[str] | None = None, url: str | None = None, *, progress: bool = True
) -> dict[str, Any]:
    """Put weights where `weights=None` finds them: into the cache of torchvision (TORCH_HOME moves it).

    Parameters
    ----------
    name : str
        "vgg16". The other sets come with the package and are only verified.
    path : path, optional
        Copy this file instead of downloading, for machines without a network.
    url : str, optional
        Download from this mirror instead of download.pytorch.org.
    progress : bool
        Draw torch's progress bar on stderr.

    Returns
    -------
    dict
        As `verify`, and "fetched": False where a good file was there already.

    Raises
    ------
    ValueError
        An unknown name, or both `path` and `url`.
    WeightsUnavailable
        No network, no such file, or another file than the published one: the SHA-256 decides. What lay in the cache
        before stays as it was.

    Examples
    --------
    >>> done = semnr.weights.fetch("alpha_beta")  # comes with the package
    >>> done["ok"], done["fetched"]
    (True, False)
    """
    from semnr_kernels import WeightsUnavailable
    from semnr_kernels.dists import weights as known

    if name not in NAMES:
        raise ValueError(f"name is {name!r}; accepted: {', '.join(map(repr, NAMES))}")
    if path is not None and url is not None:
        raise ValueError("path and url are both given; accepted: one of them")
    target = known.default_path()
    there = verify(name)
    if there["ok"] or name != "vgg16":
        if not there["ok"]:
            raise WeightsUnavailable(f"{there['path']}: {there['problem']}; it is shipped: reinstall semnr")
        return {**there, "fetched": False}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsUnavailable(f"{target.parent} cannot be made: {error.strerror}; TORCH_HOME moves it") from error
    if path is not None:
        _copy(Path(path), target)
    else:
        _download(url or known.VGG16_URL, target, progress)
    there = verify(name)
    if not there["ok"]:
        raise WeightsUnavailable(f"{target}: {there['problem']}")
    return {**there, "fetched": True}


def verify(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Check weights: readable, without pickled code, the right names and shapes, finite values, and the checksum.

    Parameters
    ----------
    name : str or path
        A known name (see `list_weights`), or any file.

    Returns
    -------
    dict
        "name", "path", "ok", "published" (whether it is the very file that its authors publish), "sha256" and "problem"
        (None, or what is wrong). A sound file that is not the published one is ok: whoever names it by path chose it.

    Examples
    --------
    >>> report = semnr.weights.verify("semnr-small")
    >>> report["ok"], report["published"], report["problem"]
    (True, True, None)
    >>> semnr.weights.verify("nothing.pth")["problem"]
    'no such file; known names: vgg16, alpha_beta, semnr-small...'
    """
    from semnr_kernels import WeightsUnavailable
    from semnr_kernels.dists import weights as known

    known_name = str(name) in NAMES
    places = {"vgg16": known.default_path(), "alpha_beta": known.ALPHA_BETA_FILE}
    places |= {denoiser: weights.path for denoiser, weights in SHIPPED.items()}
    path = places.get(str(name), Path(name))
    report = {"name": str(name) if known_name else path.name, "path": str(path), "ok": False, "published": False}
    report |= {"sha256": None, "problem": None}
    if not path.is_file():
        return {**report, "problem": f"no such file{'' if known_name else '; known names: ' + ', '.join(NAMES)}"}
    try:
        report["sha256"] = known.file_sha256(path)
        if name == "alpha_beta":
            known.read_alpha_beta()
            published = True
        elif str(name) in SHIPPED or _is_denoiser(path):
            loaded = load(str(name) if str(name) in SHIPPED else path)
            published = any(loaded.sha256 == weights.sha256 for weights in SHIPPED.values())
        else:
            published = known.read_file(path).published
    except (WeightsUnavailable, OSError) as error:
        return {**report, "problem": str(error)}
    return {**report, "ok": True, "published": published}


def _is_denoiser(path: Path) -> bool:
    """Whether a file says of itself that it holds a denoiser; read without loading torch."""
    import json

    if path.suffix != ".safetensors":
        return False
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            meta = json.loads(file.read(min(size, 1 << 20))).get("__metadata__", {})
        except (ValueError, AttributeError):
            return False
    return f'"format": "{FORMAT}"' in str(meta.get("semnr", ""))


def _copy(source: Path, target: Path) -> None:
    """Copy the published file into the cache; a file appears there whole or not at all."""
    from semnr_kernels import WeightsUnavailable
    from semnr_kernels.dists import weights as known

    try:
        sha256 = known.file_sha256(source)
        if not sha256.startswith(known.VGG16_SHA256_PREFIX):
            raise WeightsUnavailable(
                f"{source} has SHA-256 {sha256[:16]}..., not {known.VGG16_SHA256_PREFIX}...: it is not the published "
                f"{known.VGG16_FILE}. Other weights are passed by path: weights={str(source)!r}"
            )
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=target.name, delete=False) as part:
            temporary = Path(part.name)
        try:
            shutil.copyfile(source, temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsUnavailable(f"{source} cannot be copied to {target}: {error}") from error


def _download(url: str, target: Path, progress: bool) -> None:
    import torch

    from semnr_kernels import WeightsUnavailable
    from semnr_kernels.dists import weights as known

    try:
        torch.hub.download_url_to_file(url, str(target), hash_prefix=known.VGG16_SHA256_PREFIX, progress=progress)
    except (OSError, RuntimeError, ValueError) as error:  # no network; another checksum; not a URL
        raise WeightsUnavailable(
            f"{url} cannot be fetched: {error}. Without a network, get {known.VGG16_FILE} elsewhere and put it at "
            f'{target}, or run `semnr weights fetch vgg16 --path FILE`; or pass weights=FILE or weights="random" '
            "(uncalibrated)"
        ) from error
