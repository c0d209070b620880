"""One suite per op runs over every backend. A backend that cannot run here is skipped, saying why;
SEMNR_REQUIRE=reference,native,... turns such a skip into a failure."""

from __future__ import annotations

import importlib
import os

import pytest

from semnr_kernels import _registry


def required() -> set[str]:
    return {name.strip() for name in os.environ.get("SEMNR_REQUIRE", "").split(",") if name.strip()}


def params(op: str) -> list[str]:
    """The backends that implement `op` and run here, and those that CI requires.

    The others are told once, by `test_registry.test_every_backend_runs_here`, not once a case.
    """
    importlib.import_module(f"semnr_kernels.{op}")
    state = _registry.backends()
    return [b for b in _registry.implementations(op) if state[b] == "available" or b in required()]


def require(op: str, backend: str) -> str:
    """`backend`, or a skip (a failure where CI requires it) with the reason."""
    reason = _registry.backends().get(backend)
    if reason != "available":
        message = f"{op} on {backend}: {reason}"
        if backend in required():
            pytest.fail(f"SEMNR_REQUIRE names {backend}, but {message}")
        pytest.skip(message)
    return backend


def run_or_skip_unsupported(op: str, backend: str, call: object) -> None:
    """Skip a case that the backend says it does not support (it must say so, never compute something else)."""
    reason = _registry._implementations[op][backend].supports(call)  # type: ignore[arg-type]
    if reason is not None:
        pytest.skip(f"{backend} {reason}")
