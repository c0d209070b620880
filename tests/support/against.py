"""Runs a call on a peer and on semnr's compat and compares all that a user sees: values, dtypes, gradients, errors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch


def _ran(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*args, **kwargs)
        except Exception as error:
            return error


def _flat(value: Any) -> list[Any]:
    return [part for one in value for part in _flat(one)] if isinstance(value, tuple | list) else [value]


def same(
    theirs: Callable[..., Any],
    ours: Callable[..., Any],
    *args: Any,
    atol: float = 2e-6,
    rtol: float = 1e-5,
    **kwargs: Any,
) -> Any:
    """Both results agree in kind, dtype, shape and value, or both calls raise. Returns ours."""
    wanted, found = _ran(theirs, args, kwargs), _ran(ours, args, kwargs)
    if isinstance(wanted, Exception):
        assert isinstance(found, Exception), f"the peer raised {wanted!r}, semnr returned {found!r}"
        assert isinstance(found, type(wanted)) or isinstance(wanted, type(found)), (wanted, found)
        assert str(found)
        return found
    if isinstance(found, Exception):
        raise found
    assert type(wanted) is type(found)
    for one, other in zip(_flat(wanted), _flat(found), strict=True):
        assert type(one) is type(other), (type(one), type(other))
        if hasattr(one, "dtype"):
            assert (one.dtype, tuple(one.shape)) == (other.dtype, tuple(other.shape))
        a, b = (v.detach().double().numpy() if isinstance(v, torch.Tensor) else np.asarray(v) for v in (one, other))
        np.testing.assert_allclose(b, a, atol=atol, rtol=rtol)
    return found


def same_gradients(
    theirs: Callable[..., Any], ours: Callable[..., Any], x: torch.Tensor, y: torch.Tensor, *, rtol: float = 1e-3
) -> None:
    """The gradients to both images agree, within `rtol` of the largest."""
    found = []
    for function in (theirs, ours):
        a, b = (v.clone().requires_grad_() for v in (x, y))
        function(a, b).sum().backward()
        found.append((a.grad, b.grad))
    for wanted, got in zip(*found, strict=True):
        assert wanted is not None
        assert got is not None
        assert got.dtype == wanted.dtype
        assert (got - wanted).abs().max() <= rtol * wanted.abs().max()


def installed(name: str, version: str) -> Any:
    """The peer, or a skip that says why; its values are those of a version."""
    module = pytest.importorskip(name, reason=f"{name} is not installed: its own values are compared where it is")
    found = getattr(module, "__version__", version)
    if not found.startswith(version):
        pytest.skip(f"{name} is {found}; compat reproduces {version}")
    return module
