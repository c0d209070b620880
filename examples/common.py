"""What the examples share: settings, optional packages, where pictures go. Nothing of semnr is hidden here."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

EXTRAS = {"matplotlib": "plot", "lightning": "train"}  # package: the extra of semnr that brings it


def settings() -> argparse.Namespace:
    """`--small`: seconds instead of minutes. `--out FOLDER`: keep the pictures. In a notebook: SEMNR_EXAMPLES=small."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="a smaller setting, for tests")
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    small = ["--small"] if os.environ.get("SEMNR_EXAMPLES") == "small" else []
    return parser.parse_args(small if in_notebook() else None)


def need(module: str) -> Any:
    """Import an optional package, or say which extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        sys.exit(f"this example needs {package}: pip install 'semnr[{EXTRAS[package]}]'")


def show(figure: Any, name: str, out: Path | None) -> None:
    """Show a figure in a notebook; in a script write it to `out`, if that was given."""
    figure.tight_layout()
    if in_notebook():
        from IPython.display import display

        display(figure)
    elif out is not None:
        out.mkdir(parents=True, exist_ok=True)
        figure.savefig(out / f"{name}.png", dpi=80)
    need("matplotlib.pyplot").close(figure)


def row(images: dict[str, Any], **options: Any) -> Any:
    """A figure with the images beside each other, under their titles."""
    plt = need("matplotlib.pyplot")
    figure, axes = plt.subplots(1, len(images), figsize=(2.4 * len(images), 2.8), squeeze=False)
    for axis, (title, image) in zip(axes[0], images.items(), strict=True):
        axis.imshow(image, **({"cmap": "gray"} | options))
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    return figure


def in_notebook() -> bool:
    return "ipykernel" in sys.modules
