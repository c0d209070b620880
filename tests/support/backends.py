"""One suite per op runs over every backend. A backend that cannot run here is skipped, saying why;
SEMNR_REQUIRE=reference,native,... turns such a skip into a failure."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import pytest

from semnr_kernels import registry


def required() -> set[str]:
    return {name.strip() for name in os.environ.get("SEMNR_REQUIRE", "").split(",") if name.strip()}


def params(op: str) -> list[str]:
    """The backends that implement `op` and run here, and those that CI requires.

    The others are told once, by `test_registry.test_every_backend_runs_here`, not once a case.
    """
    importlib.import_module(f"semnr_kernels.{op}")
    state = registry.backends()
    return [b for b in registry.implementations(op) if state[b] == "available" or b in required()]


def require(op: str, backend: str) -> str:
    """`backend`, or a skip (a failure where CI requires it) with the reason."""
    reason = registry.backends().get(backend)
    if reason != "available":
        message = f"{op} on {backend}: {reason}"
        if backend in required():
            pytest.fail(f"SEMNR_REQUIRE names {backend}, but {message}")
        pytest.skip(message)
    return backend


def run_or_skip_unsupported(op: str, backend: str, call: registry.Call) -> None:
    """Skip a case that the backend says it does not support (it must say so, never compute something else)."""
    if (reason := registry._implementations[op][backend].supports(call)) is not None:
        skip_refused(call, backend, reason)


def skip_refused(call: registry.Call, backend: str, reason: str) -> None:
    """Skip a call that `backend` refused. A failure where CI requires the backend and its table of unsupported calls,
    declared beside its `supports`, does not list this one: a backend that refuses what it should do fails its suite."""
    named = {backend, "native"} if backend.startswith("native-") else {backend}
    if named & required() and not listed(call, backend):
        pytest.fail(f"SEMNR_REQUIRE names {backend}; it refuses {call}, which its table does not list: {reason}")
    pytest.skip(f"{backend} {reason}"[:300])


def listed(call: registry.Call, backend: str) -> bool:
    """Whether the backend's table of unsupported calls holds this one."""
    table = registry._implementations[call.op][backend].unsupported()
    return registry.refusal(table, call) is not None


def on(backend: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run on one backend; a case that it refuses beforehand is skipped with its reason. The reference refuses none."""
    try:
        return function(*args, backend=backend, **kwargs)
    except registry.BackendUnavailable as error:
        if backend == "reference" or error.call is None:
            raise
        skip_refused(error.call, backend, str(error))
