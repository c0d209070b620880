"""Where pip looks for packages: pip itself is asked, and is used for nothing else."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass

_ON = ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Configuration:
    """What pip goes by, as far as a download needs it."""

    indexes: tuple[str, ...] = ()
    links: tuple[str, ...] = ()  # folders or pages that list files, `--find-links`
    certificate: str | None = None  # a file of authorities
    trusted: tuple[str, ...] = ()  # hosts whose certificate is not checked
    proxy: str | None = None
    problem: str | None = None  # why there is no main index


def configuration(index_url: str | None = None) -> Configuration:
    """pip's, from its files and the environment; `index_url` takes the place of the main index, as `--index-url`."""
    listed = _pip("config", "list")
    values = _environment() if listed is None else _values(listed)
    index, more, problem = index_url or values.get("index-url"), values.get("extra-index-url", "").split(), None
    if index_url is None and values.get("no-index", "").lower() in _ON:
        index, more, problem = None, [], "pip is configured to use no index (no-index)"
    elif index is None:
        index = _default_index()
        problem = None if index else "no package index is configured, and pip is not installed here to name its own"
    return Configuration(
        indexes=(*([index] if index else []), *more),
        links=tuple(values.get("find-links", "").split()),
        certificate=values.get("cert"),
        trusted=tuple(values.get("trusted-host", "").split()),
        proxy=values.get("proxy"),
        problem=problem,
    )


def _pip(*arguments: str) -> str | None:
    """What pip prints; None where there is none. `-P`: never a folder named pip that lies here."""
    command = (sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", *arguments)
    environment = {**os.environ, "COLUMNS": "1000", "PYTHONIOENCODING": "utf-8"}
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=60, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def _values(listed: str) -> dict[str, str]:
    """From lines such as "global.index-url='...'": the environment wins, then what stands for a command."""
    rows = dict(re.findall(r"^([^=\s]+)=(.*)$", listed, re.MULTILINE))
    return {
        key.removeprefix(section): str(ast.literal_eval(text))
        for section in ("global.", "install.", "download.", ":env:.")
        for key, text in rows.items()
        if key.startswith(section)
    }


def _environment() -> dict[str, str]:
    """pip's variables, where there is no pip to ask."""
    return {k[4:].lower().replace("_", "-"): value for k, value in os.environ.items() if k.startswith("PIP_")}


def _default_index() -> str | None:
    """The index that pip uses where none is configured, from its help."""
    told = re.search(r"--index-url <url>.*?\(default\s+(\S+?)\)", _pip("help", "download") or "", re.DOTALL)
    return told[1] if told else None
