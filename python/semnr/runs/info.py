"""What a run records about itself: run.json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NAME = "run.json"


def read_info(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in run.json; ValueError where there is none."""
    path = Path(folder) / NAME
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"run is {folder}: no run.json; accepted: a folder that semnr.score wrote") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"run is {folder}: run.json is not JSON ({error})") from None
    if not isinstance(info, dict):
        raise ValueError(f"run is {folder}: run.json holds a JSON {type(info).__name__}; accepted: an object")
    return info
