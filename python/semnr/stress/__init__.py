"""Stress tests: harm images in known ways and see which metric and which signal notices, and from which strength on."""

from __future__ import annotations

from ._faults import FAULTS, Fault
from ._run import Stress, stress_test

__all__ = ["FAULTS", "Fault", "Stress", "stress_test"]
