"""The frozen protocol: `protocol.toml` as data, with its checksum."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("protocol.toml")


@dataclass(frozen=True)
class Protocol:
    """Which images are denoised and scored, and how.

    Attributes
    ----------
    data : mapping
        The tables of the file.
    sha256 : str
        Of the file's bytes. Each row of results has it.
    """

    data: Mapping[str, Any]
    sha256: str

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    @cached_property
    def group_of(self) -> Mapping[str, str]:
        """Pair to the name of its group (its first pair), of the groups of more than one."""
        return {pair: group[0] for group in self["real"]["groups"] for pair in group}

    def group(self, pair: str) -> str:
        """The group of a pair."""
        return self.group_of.get(pair, pair)

    @cached_property
    def development(self) -> frozenset[str]:
        """Groups that have been used for choices."""
        return frozenset(map(self.group, self["real"]["development"]))

    def split(self, pair: str) -> str:
        """Whether a pair is of the "development" groups or of the "table"."""
        return "development" if self.group(pair) in self.development else "table"


def load(path: Path = FILE) -> Protocol:
    """The protocol of a file; the package's own by default."""
    text = path.read_bytes()
    return Protocol(tomllib.loads(text.decode("utf-8")), hashlib.sha256(text).hexdigest())
