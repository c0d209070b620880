"""The section of the model of normal tiles: what was flagged, by which threshold, and what that threshold promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..columns import BY_NAME
from .metrics import number
from .runs import RunData

_KINDS = {
    "autoencoder": "autoencoder: each tile against its reconstruction",
    "padim": "PaDiM: a Gaussian of the features at each place",
    "patchcore": "PatchCore: distance to the nearest normal feature",
}


def anomalies(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """One entry a run that a model of normal tiles scored."""
    entries = []
    for run in runs:
        about = run.meta.get("anomaly")
        if not isinstance(about, Mapping) or not run.has("anomaly_score"):
            continue
        scores = run.values("anomaly_score")
        known = scores[np.isfinite(scores)]
        limit = about.get("threshold")
        digits = BY_NAME["anomaly_score"].digits
        rows = [("Model", _KINDS.get(str(about.get("kind")), str(about.get("kind"))))]
        tiles = about.get("tiles") or {}
        if tiles.get("used"):
            held = f", {tiles['held_out']} held out" if tiles.get("held_out") else ""
            rows.append(("Fitted on", f"{tiles['used']} normal tiles{held}"))
        if about.get("generalisation"):
            rows.append(("Generalisation", str(about["generalisation"])))
        flagged = None
        if isinstance(limit, Mapping) and isinstance(limit.get("value"), int | float):
            flagged = int((known > limit["value"]).sum())
            rows.append(("Threshold", f"{number(float(limit['value']), 4)}: {limit.get('statement', '')}"))
            rows.append(("Flagged", f"{flagged} of {known.size} tiles"))
        else:
            rows.append(("Threshold", "none: nothing is flagged"))
        middle, high = (number(float(np.quantile(known, q)), digits) for q in (0.5, 0.99))
        rows.append(("Scores", f"median {middle}, 99 % {high}, largest {number(float(known.max()), digits)}"))
        entries.append({"label": run.label, "rows": rows, "flagged": flagged})
    return entries
