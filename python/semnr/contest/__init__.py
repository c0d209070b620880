"""The table of denoisers: what each costs, keeps and invents, by one frozen protocol; a referee of others' outputs."""

from __future__ import annotations

from .run import Comparison, compare_denoisers, write_inputs

__all__ = ["Comparison", "compare_denoisers", "write_inputs"]
