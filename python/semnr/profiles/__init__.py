"""The profile of tiles: five metrics side by side, their intervals, pairing and comparison.

`profile` scores images, `Profile` holds the rows, `Reference` keeps what is computed of a reference once, `compare`
tells what two profiles of the same tiles gained and paid.
"""

from .comparison import compare
from .pairing import align
from .reference import Reference
from .rows import FINGERPRINT, KINDS, METRICS, Profile
from .score import profile

__all__ = ["FINGERPRINT", "KINDS", "METRICS", "Profile", "Reference", "align", "compare", "profile"]
