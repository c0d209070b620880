"""A page of headings, paragraphs, tables, drawings and pictures: the reports that are not of scored runs.

One self-contained HTML file, as `semnr.report` writes it: no script, nothing loaded, every name escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import atomic
from ..base.outputs import holds, replaceable
from ..base.pictures import grey, reduced, webp, window
from ..base.text import in_line, printable

_TEMPLATES = Path(__file__).parent / "templates"
MARK = "semnr page"


@dataclass(frozen=True)
class Table:
    """A table with a caption; the cells are text or numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """Images side by side under one caption; `images` are data URIs, see `picture`."""

    images: Sequence[str]
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it. `drawings` are SVG files as `semnr.base.svg.drawing` makes them."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    drawings: Sequence[str] = ()
    pictures: Sequence[Picture] = field(default=())


def picture(image: np.ndarray, side: int = 192) -> str:
    """A data URI of a grey image, at most `side` px long."""
    return webp(grey(reduced(image, side), *window(image)))


def write_page(out: str | Path, title: str, sections: Sequence[Section], *, name: str = "out") -> Path:
    """Write the page; an earlier page is replaced, another file is not.

    Raises
    ------
    FileExistsError, ValueError
        `out` is a folder, or a file that semnr did not write.
    """
    import jinja2
    from markupsafe import Markup

    path = replaceable(name, out, "a page of semnr", holds(MARK.encode()))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    drawn = [[Markup(drawing) for drawing in section.drawings] for section in sections]  # of ours, escaped there
    text = environment.get_template("page.html").render(
        title=in_line(title), sections=list(zip(sections, drawn, strict=True)), mark=MARK
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
    return path
