"""What MkDocs does beside rendering: pages that the code and the repository already hold, pictures, links out of docs/.

A comment `<!-- generated: columns -->`, `<!-- generated: rule NAME -->` or `<!-- picture NAME: caption -->` in a page
says where such a part goes, so that the files under docs/ can also be read where they lie.
"""

from __future__ import annotations

import html
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import mermaidx
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import facts
import measured
import notebooks
import pictures

ROOT = facts.ROOT
DOCS = ROOT / "docs"
_GENERATED = re.compile(r"^<!-- generated: (\w+)(?: (\w+))? -->$", flags=re.M)
_PICTURE = re.compile(r"^<!-- picture (\w+): (.*?) -->$", flags=re.M | re.S)
_MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", flags=re.M | re.S)
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[\w.-]+)?\))")
_FENCE = re.compile(r"^\s*(```|~~~)")
_ITEM = re.compile(r"^(?:[-*]|\d+\.) ")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is no file under docs/: reference, READMEs of packages, changelog, citation, notebooks, pictures."""
    for page in facts.names():
        files.append(File.generated(config, f"reference/{page}.md", content=facts.reference(page)))
    for path in _readmes():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, f"source/{path.parent}.md", content=_moved(text, path)))
    for name in ("CHANGELOG", "CONTRIBUTING"):
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
        text = _moved(text, Path(f"{name}.md"), depth=0)
        files.append(File.generated(config, f"{name.lower()}.md", content=text))
    files.append(File.generated(config, "citation.md", content=_citation()))
    files.append(File.generated(config, "examples.md", content=_examples()))
    for name, content in pictures.all_of_them().items():
        files.append(File.generated(config, f"pictures/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in generated parts, lead links out of docs/ somewhere, and give lists the blank line that Markdown wants."""
    here = Path(page.file.src_uri)
    text = measured.filled(markdown)
    text = _GENERATED.sub(lambda m: facts.columns() if m[1] == "columns" else facts.rule(m[2]), text)
    up = "../" * (len(here.parts) - 1)
    text = _PICTURE.sub(lambda m: f"![{m[2]}]({up}pictures/{pictures.FILES[m[1]]})\n\n*{m[2]}*\n", text)
    text = _MERMAID.sub(lambda m: f'<div class="diagram">{mermaidx.render(m[1]).svg()}</div>\n', text)
    if here.name == "api.md":
        text = re.sub(r"^\| `(semnr\.[\w.]+)` \|", _to_reference, text, flags=re.M)
    if (DOCS / here).is_file():
        text = _LINK.sub(lambda m: m[1] + _target(m[2], Path("docs") / here) + m[3], text)
    return _spaced(text)


def _to_reference(match: re.Match[str]) -> str:
    name = match[1]
    if name in facts.names():
        return f"| [`{name}`](reference/{name}.md) |"
    listed = {one for headings in facts.names().values() for names in headings.values() for one in names}
    return f"| [`{name}`][{name}] |" if name in listed else match[0]  # a module without a page of its own


def _readmes() -> list[Path]:
    found = [*ROOT.glob("semnr_kernels/*/README.md"), *ROOT.glob("python/semnr/*/README.md")]
    return sorted(path.relative_to(ROOT) for path in found)


def _target(link: str, page: Path) -> str:
    """Where a link of a file of the repository leads on the site: a page of it, or the file in the repository."""
    path = Path(os.path.normpath(page.parent / link))
    if path.parts[0] == "docs" and not path.name.startswith("_") and path.suffix in (".md", ".webp"):
        return link
    up = "../" * (len(page.parts) - 2)
    if path in _readmes():
        return f"{up}source/{path.parent}.md"
    if path.name in ("CHANGELOG.md", "CONTRIBUTING.md") and len(path.parts) == 1:
        return f"{up}{path.stem.lower()}.md"
    if path.parts[0] == "examples" and path.name == "README.md":
        return f"{up}examples.md"
    if not (ROOT / path).exists():
        return link  # --strict refuses it
    return facts.SOURCE + path.as_posix()


def _moved(text: str, path: Path, depth: int | None = None) -> str:
    """The text of a file outside docs/ with its links as they have to be on its page, `source/FOLDER.md`."""
    depth = len(path.parent.parts) if depth is None else depth

    def led(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(path.parent / match[2]))
        up = "../" * depth
        if target.parts[0] == "docs" and target.suffix in (".md", ".webp"):
            return match[1] + up + Path(*target.parts[1:]).as_posix() + match[3]
        found = _target(match[2], path)
        if found.startswith(facts.SOURCE):
            return match[1] + found + match[3]
        return match[1] + up + found.replace("../", "") + match[3]

    return _LINK.sub(led, text)


def _spaced(text: str) -> str:
    """A list that follows a line of text gets a blank line before it, outside fences."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        inside ^= bool(_FENCE.match(line))
        before = lines[-1] if lines else ""
        begins = _ITEM.match(line) and before.strip() and not _ITEM.match(before) and not before.startswith(" ")
        if not inside and begins and not _in_item(lines):
            lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"


def _in_item(lines: list[str]) -> bool:
    """Whether the paragraph that the lines end in began as an item of a list."""
    for line in reversed(lines):
        if not line.strip():
            return False
        if _ITEM.match(line):
            return True
    return False


def _citation() -> str:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    said: dict[str, Any] = yaml.safe_load(text)
    authors = " and ".join(one["name"] for one in said["authors"])
    entry = "\n".join(
        (
            "@software{semnr,",
            f"  title   = {{{said['title']}}},",
            f"  author  = {{{{{authors}}}}},",
            f"  version = {{{said['version']}}},",
            f"  license = {{{said['license']}}},",
            "}",
        )
    )
    return (
        f"# Citation\n\n{said['message']}\n\n```bibtex\n{entry}\n```\n\nThe same as `CITATION.cff`:\n\n"
        f"```yaml\n{text.strip()}\n```\n\n"
        "The idea of metrics as guardrails is that of the article *SEMNR: Why I stopped trusting clean images and "
        "treated metrics as guardrails* (M. K., December 2025). Please cite the paper of a metric too when you report "
        "it: each is named on the page of its op.\n"
    )


def _examples() -> str:
    """The README of examples/, and under each script what its notebook printed and drew."""

    text = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    text = _LINK.sub(lambda m: m[1] + _target(m[2], Path("docs/x.md").parent / "../examples/README.md") + m[3], text)
    return text + "\n" + notebooks.pages(ROOT / "examples")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The version that the pages are of."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.site_description = html.escape(project["description"])
    return config
