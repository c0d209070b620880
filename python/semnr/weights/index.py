"""One file from a Python package index: listed on its simple page, downloaded, compared. No code of it is run.

The page is HTML (PEP 503) or JSON (PEP 691), over HTTP or from a folder.
"""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from semnr_kernels import WeightsUnavailable

from .configuration import Configuration
from .transfer import Say, download, opened, reason, shown

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
_MOST_OF_A_PAGE = 2**26  # bytes
_REMOTE = ("http", "https")


@dataclass(frozen=True)
class Wanted:
    """One file of one project."""

    project: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class _Link:
    name: str
    url: str
    sha256: str | None


def from_index(wanted: Wanted, asked: Configuration, folder: Path, say: Say) -> Path:
    """Download `wanted` into `folder`, from the first place that has it.

    Raises
    ------
    WeightsUnavailable
        No place could be reached or has the file; a file of another size or another checksum.
    """
    problems = [asked.problem] if asked.problem else []
    places = [(place, place) for place in asked.links]
    places += [(place, f"{place.rstrip('/')}/{wanted.project}/") for place in asked.indexes]
    for place, page in places:
        try:
            return _download(_chosen(_links(page, asked), wanted, page), wanted, asked, folder, say)
        except WeightsUnavailable as error:
            problems.append(str(error))
        except (OSError, http.client.HTTPException, ValueError) as error:
            problems.append(f"{shown(place)} cannot be reached: {reason(error)}")
    raise WeightsUnavailable("; ".join(problems))


def _links(page: str, asked: Configuration) -> list[_Link]:
    """The files that a page or a folder lists."""
    folder = _local(page)
    if folder is None:
        with opened(page, asked, _ACCEPT) as answer:
            data = answer.read(_MOST_OF_A_PAGE)
            at, kind = answer.geturl(), answer.headers.get_content_type()
        text = data.decode("utf-8", errors="replace")
        links = _from_json(text, at) if kind.endswith("json") else _from_html(text, at)
        return [link for link in links if urlsplit(link.url).scheme in _REMOTE]
    file = folder / "index.html" if folder.is_dir() else folder
    if folder.is_dir() and not file.is_file():
        return [_Link(path.name, path.absolute().as_uri(), None) for path in sorted(folder.iterdir())]
    return _from_html(file.read_text(encoding="utf-8", errors="replace"), file.absolute().as_uri())


def _local(place: str) -> Path | None:
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme in _REMOTE else Path(place).expanduser()


def _from_json(text: str, at: str) -> list[_Link]:
    try:
        files = json.loads(text)["files"]
        return [_Link(f["filename"], urljoin(at, f["url"]), f.get("hashes", {}).get("sha256")) for f in files]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsUnavailable(f"{shown(at)} is no simple page of a package index (PEP 691)") from error


def _from_html(text: str, at: str) -> list[_Link]:
    page = _Anchors()
    page.feed(text)
    links = []
    for href in page.hrefs:
        url, fragment = urldefrag(urljoin(urljoin(at, page.base), href))
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        links.append(_Link(unquote(urlsplit(url).path.rpartition("/")[2]), url, sha256))
    return links


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "base":
            self.base = self.base or href
        elif href and tag == "a":
            self.hrefs.append(href)


def _chosen(links: list[_Link], wanted: Wanted, page: str) -> _Link:
    for link in links:
        if _canonical(link.name) != _canonical(wanted.name):
            continue
        if link.sha256 not in (None, wanted.sha256):
            raise WeightsUnavailable(
                f"{shown(page)} lists {link.name} with SHA-256 {link.sha256:.16}..., not {wanted.sha256[:16]}...: "
                "it is not the published file"
            )
        return link
    others = sorted({link.name for link in links if _canonical(link.name).startswith(f"{wanted.project}-")})
    raise WeightsUnavailable(
        f"{shown(page)} has no {wanted.name}" + (f", only {', '.join(others[:4])}" if others else "")
    )


def _canonical(name: str) -> str:
    """Names of files as PEP 503 compares those of projects."""
    return re.sub(r"[-_]+", "-", name).lower()


def _download(link: _Link, wanted: Wanted, asked: Configuration, folder: Path, say: Say) -> Path:
    target = folder / wanted.name
    say(f"  {shown(link.url)}, {wanted.size / 1e6:.0f} MB")
    sha256 = download(link.url, target, asked, say, most=wanted.size)
    size = target.stat().st_size
    if size < wanted.size:
        raise WeightsUnavailable(f"{shown(link.url)} gave {size} bytes of {wanted.size}: truncated")
    if size > wanted.size:
        raise WeightsUnavailable(f"{shown(link.url)} has more than {wanted.size} bytes: it is not the published file")
    if sha256 != wanted.sha256:
        raise WeightsUnavailable(
            f"{shown(link.url)} has SHA-256 {sha256[:16]}..., not {wanted.sha256[:16]}...: it is not the published file"
        )
    return target
