"""The profile of tiles: five metrics side by side, their intervals and pairing.

`profile` scores images, `Profile` holds the rows, `Reference` keeps what is computed of a reference once. A profile
that is read from a run needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .pairing import align
from .rows import FINGERPRINT, KINDS, METRICS, Profile

if TYPE_CHECKING:
    from .reference import Reference
    from .score import profile

__all__ = ["FINGERPRINT", "KINDS", "METRICS", "Profile", "Reference", "align", "profile"]


def __getattr__(name: str) -> Any:
    """`profile` and `Reference` compute, and load torch when they are first asked for."""
    if name == "profile":
        from .score import profile as value
    elif name == "Reference":
        from .reference import Reference as value  # type: ignore[assignment]
    else:
        raise AttributeError(f"module 'semnr.profiles' has no attribute {name!r}")
    globals()[name] = value
    return value
