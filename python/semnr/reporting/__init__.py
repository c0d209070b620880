"""The report: verdict first, then what it rests on; one self-contained HTML file, or Markdown, JSON, a picture."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.files import atomic
from ..base.outputs import holds, replaceable
from ..base.text import printable
from .gathered import gather
from .one_picture import overview
from .sections import build
from .texts import as_json, as_markdown

if TYPE_CHECKING:
    import numpy as np

__all__ = ["report"]

FORMATS = ("html", "md", "json", "png")
SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".json": "json", ".png": "png", "": "html"}
SIGNATURE = "semnr report"  # in a report of any form: an earlier one may be replaced, other files not
# one script in this order
SCRIPTS = ("data.js", "inspector.js", "map.js", "gallery.js", "start.js", "table.js", "panes.js", "page.js")
_HERE = Path(__file__).parent


def report(
    run_or_path: Any,
    out: str | Path = "report.html",
    *,
    compare: Sequence[Any] | None = None,
    verdict: Any = None,
    images: Callable[[str, str], np.ndarray | None]
    | Mapping[str, Callable[[str, str], np.ndarray | None]]
    | None = None,
    title: str | None = None,
    worst: int = 6,
    thumbnails: int = 144,
    notes: Sequence[Any] | None = None,
    format: str | None = None,
) -> Path:
    """Write the report of one or several scored runs as a single file.

    The file opens from disk without a network: styles, script, data and pictures are inside, and its
    content security policy forbids every request. All names that come from the data are escaped.

    Parameters
    ----------
    run_or_path : path, Run, Profile, or list of them
        A folder that `semnr.score` wrote, the `Run` it returned, or a profile (without pictures, unless it is that of a
        run). A list shows several candidates side by side.
    out : path
        The file to write; an existing one is replaced when the new one is complete.
    compare : list of paths, Runs or Profiles, optional
        Further candidates, shown after the first.
    verdict : Verdict, dict, path to JSON, or list of them, optional
        What `semnr.guard` returned. `verdict*.json` files in the run folders are read as well. A verdict
        belongs to the run whose label is its `after`.
    images : callable (tile, role) -> array or None, or dict of run label to callable, optional
        Pixels of the worst tiles; `role` is "reference", "noisy" or "image" (the candidate: the first run where
        one callable is given). Default: the sources that run.json names; of arrays that this process scored, those.
    title : str, optional
        Heading of the report.
    worst : int
        How many tiles are shown with pictures; 0 leaves the section out.
    thumbnails : int
        How many tiles get a thumbnail on the wafer map, those that need a look first; 0: none.
    notes : list, optional
        What a reader should know first: paragraphs, and tables as ``{"caption", "header", "rows"}``. Shown as text.
    format : "html", "md", "json" or "png", optional
        "html": the whole report. "md": a summary for a merge request. "json": everything, for machines. "png": one
        overview picture. Default: by the name of `out`, else "html".

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    TypeError, ValueError
        An argument of a wrong kind; a run or verdict that cannot be read, or a run without tiles.
    FileNotFoundError
        No run or no verdict at the path given.

    Examples
    --------
    >>> run = semnr.score(noisy, reference=clean, out="run", metrics=("psnr", "ssim"), tests=False)
    >>> semnr.report(run, out="report.md").name  # or report.html, report.json, report.png
    'report.md'
    """
    for name, value in (("worst", worst), ("thumbnails", thumbnails)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} is {value!r}; accepted: an integer of at least 0")
    if not isinstance(out, str | Path):
        raise TypeError(f"out is {type(out).__name__}; accepted: a path")
    kind = format or SUFFIXES.get(Path(out).suffix.lower())
    if kind is None:
        raise ValueError(f"out is {str(out)!r}; accepted: a name that ends in {', '.join(filter(None, SUFFIXES))}")
    if kind not in FORMATS:
        raise ValueError(f"format is {format!r}; accepted: {', '.join(map(repr, FORMATS))}")
    out = replaceable("out", out, "a report", holds(SIGNATURE.encode()))
    gathered = gather(run_or_path, compare, verdict, title, notes)
    if kind == "html":
        content = _render(build(gathered, images, worst, thumbnails)).encode("utf-8", "backslashreplace")
    elif kind == "png":
        content = overview(gathered)
    else:
        content = (as_json(gathered) if kind == "json" else as_markdown(gathered)).encode("utf-8", "backslashreplace")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as temporary:
        temporary.write_bytes(content)
    return out


def _tame(value: Any) -> Any:
    """Text without what steers a page or a terminal; of markup, which is escaped already, markup."""
    return type(value)(printable(value)) if isinstance(value, str) else value


def _render(context: dict[str, Any]) -> str:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_tame,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_HERE / "templates" / "report.css").read_text(encoding="utf-8")
    parts = [(_HERE / "templates" / name).read_text(encoding="utf-8") for name in SCRIPTS]
    script = "\n".join(['"use strict";', "(() => {", *parts, "})();"])
    # only this very script may run, even if a name slipped through unescaped
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("report.html").render(
        **context,
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )
