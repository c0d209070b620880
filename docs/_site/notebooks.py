"""The executed notebooks of examples/ as one page: text, code, and what each cell printed and drew.

python docs/_site/notebooks.py examples    # makes the notebooks anew from the scripts, executes them, keeps outputs
"""

from __future__ import annotations

import io
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image


def pages(folder: Path) -> str:
    """All notebooks of a folder, one section each, as Markdown."""
    return "\n".join(_page(path) for path in sorted(folder.glob("*.ipynb")))


def _page(path: Path) -> str:
    parts = [f'<a id="{path.stem}"></a>\n']
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            lines = (f"#{line}" if line.startswith("#") else line for line in cell.source.splitlines())
            parts.append("\n".join(lines) + "\n")
            continue
        parts.append(f"```python\n{cell.source}\n```\n")
        said = "".join(output.get("text", "") for output in cell.outputs)
        parts += [f"```text\n{said.rstrip()}\n```\n"] if said.strip() else []
        images = [output["data"] for output in cell.outputs if "image/png" in output.get("data", {})]
        parts += [f"![figure of {path.stem}](data:image/png;base64,{data['image/png'].strip()})\n" for data in images]
    return "\n".join(parts)


def executed(script: Path) -> Any:
    """The notebook of a script, run in its folder; pictures in 64 colours, so that the file stays small."""
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(script)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    place = {"metadata": {"path": str(script.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell{number}"
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                image = Image.open(io.BytesIO(b64decode(output["data"]["image/png"]))).convert("RGB").quantize(64)
                held = io.BytesIO()
                image.save(held, format="png", optimize=True)
                output["data"]["image/png"] = b64encode(held.getvalue()).decode()
    return notebook


if __name__ == "__main__":
    for script in sorted(Path(sys.argv[1]).glob("*.py")):
        if script.stem != "common" and script.stem in (sys.argv[2:] or [script.stem]):
            notebook = executed(script)
            nbformat.write(notebook, script.with_suffix(".ipynb"))
            print(script.stem, script.with_suffix(".ipynb").stat().st_size, flush=True)
