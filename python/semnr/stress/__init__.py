"""Stress tests: damage images in known ways, and see which metric and which signal notices it, from which strength.

`FAULTS` holds the known harms by name.
"""

from __future__ import annotations

from .faults import FAULTS, Fault
from .learn import Learnt, learn_accepted, learn_rules
from .run import Stress, stress_test

__all__ = ["FAULTS", "Fault", "Learnt", "Stress", "learn_accepted", "learn_rules", "stress_test"]
