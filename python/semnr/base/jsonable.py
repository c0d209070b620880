"""Values as plain Python, for JSON (arrays as lists, numbers that JSON cannot hold as None or "inf"), and back."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """`value` made of dict, list, str, int, float, bool and None. NaN becomes None, ±inf "inf" and "-inf"."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def from_plain(kind: Any, name: str, given: Mapping[str, Any], lists: Collection[str] = ()) -> Any:
    """The dataclass `kind` from entries of a table; lists become tuples, but for those entries that `lists` names.

    Raises
    ------
    ValueError
        An entry that it does not have: the table `name`, the entry, the ones it has.
    """
    known = [field.name for field in fields(kind)]
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{name} has {unknown[0]!r}; accepted: {', '.join(known)}")
    return kind(**{k: tuple(v) if isinstance(v, list) and k not in lists else v for k, v in given.items()})
