"""Fetches a file over HTTP or from a local path, as pip is configured, and computes its checksum."""

from __future__ import annotations

import base64
import hashlib
import netrc
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from .configuration import Configuration

Say = Callable[[str], None]

TIMEOUT = 15.0  # seconds without a byte
_BLOCK = 2**20
_EVERY = 2.0  # seconds between two lines of progress


def opened(url: str, asked: Configuration, accept: str = "*/*") -> Any:
    """The open answer to a request; http, https and file alone."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError(f"{shown(url)} is no http, https or file address")
    host = parts.hostname or ""
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    request = urllib.request.Request(bare, headers={"Accept": accept, "User-Agent": "semnr"})
    if (login := _login(parts)) is not None:  # not sent on to another host that the answer may name
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    context = ssl.create_default_context(cafile=asked.certificate)
    if {host, f"{host}:{parts.port}"} & set(asked.trusted):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if asked.proxy:
        handlers.append(urllib.request.ProxyHandler({"http": asked.proxy, "https": asked.proxy}))
    return urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT)


def download(url: str, target: Path, asked: Configuration, say: Say, most: int | None = None) -> str:
    """Write what `url` gives to `target` and return its SHA-256; one byte beyond `most`, no more, is written."""
    digest, size, begun = hashlib.sha256(), 0, time.monotonic()
    with opened(url, asked) as answer, target.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0) or most
        while block := _block(answer, None if most is None else most + 1 - size):
            file.write(block)
            digest.update(block)
            size += len(block)
            if time.monotonic() - begun > _EVERY:
                begun = time.monotonic()
                say(f"  {size / 1e6:.0f}{'' if total is None else f' of {total / 1e6:.0f}'} MB")
    return digest.hexdigest()


def _block(answer: IO[bytes], left: int | None) -> bytes:
    return answer.read(_BLOCK if left is None else min(_BLOCK, left))


def _login(parts: Any) -> str | None:
    """ "user:password" of the address, or of the user's .netrc, as pip takes them."""
    if parts.username is not None:
        return f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    try:
        login = netrc.netrc().authenticators(parts.hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return None if login is None else f"{login[0]}:{login[2]}"


def shown(url: str) -> str:
    """An address without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url


def reason(error: BaseException) -> str:
    """Why a transfer failed, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = getattr(error, "reason", None) or error
    return str(getattr(cause, "strerror", None) or cause or type(error).__name__)
