"""Which backend runs, and what is said when none can."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import types

import pytest
import torch

import backends
from semnr_kernels import dists, native_support, pixel, registry, ssim
from semnr_kernels.cnr.reference import Bins, Settings
from semnr_kernels.errors import BackendUnavailable

X = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def call(**options: object) -> registry.Call:
    return registry.Call.of("pixel", X, X, **options)


def test_every_backend_that_ci_requires_is_available() -> None:
    state = registry.backends()
    out = {name: state.get(name, "unknown backend") for name in backends.required() - {"weights", "pairs"}}
    assert {name: reason for name, reason in out.items() if reason != "available"} == {}


@pytest.mark.parametrize(
    ("op", "backend"), [(op, b) for op in registry.ops() for b in registry.implementations(op)], ids=str
)
def test_every_backend_runs_here(op: str, backend: str) -> None:
    """A skip here is a backend whose suite did not run, and why."""
    backends.require(op, backend)


@pytest.mark.parametrize(
    ("version", "reason"), [("3.2.0", "3.4 or later"), ("3.3.1+rocm", "3.4 or later"), ("3.4.0", None)]
)
def test_triton_that_compiles_nothing_is_out_with_the_version_needed(
    monkeypatch: pytest.MonkeyPatch, version: str, reason: str | None
) -> None:
    """torch 2.6 and 2.7 bring 3.2 and 3.3."""
    monkeypatch.setitem(sys.modules, "triton", types.SimpleNamespace(__version__=version))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    told = registry._probe_triton()
    assert told is None if reason is None else reason in str(told)


def test_auto_chooses_native_for_mse_on_cpu() -> None:
    backends.require("pixel", "native")
    assert registry.choose(call()).backend == "native"
    assert registry.explain(call()).chosen == "native"


def test_the_compiled_module_is_the_installed_packages_own() -> None:
    backends.require("pixel", "native")
    module = native_support.module()
    assert module.__name__.startswith("semnr_kernels.")
    assert module.ABI == native_support.ABI


def test_a_named_backend_is_taken_even_where_auto_prefers_another() -> None:
    assert registry.choose(call(), "reference").backend == "reference"


def test_a_named_backend_that_cannot_run_raises_and_lists_every_candidate_with_a_remedy() -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is present: cuda may run")
    with pytest.raises(BackendUnavailable) as error:
        pixel.mse(X, X, backend="cuda")
    text = str(error.value)
    assert "cuda" in text
    assert "native" in text
    assert "reference" in text
    assert "out:" in text


def test_an_unknown_backend_is_named_with_the_accepted_ones() -> None:
    with pytest.raises(BackendUnavailable, match=r"'fastest' is unknown; accepted: 'auto', 'reference'"):
        pixel.mse(X, X, backend="fastest")


def test_the_argument_overrides_use_backend_which_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMNR_BACKEND", "reference")
    assert registry.explain(call()).requested_by == "SEMNR_BACKEND"
    assert registry.choose(call()).backend == "reference"
    with registry.use_backend("native"):
        assert registry.explain(call()).requested_by == "use_backend"
        assert registry.explain(call(), "reference").requested_by == "argument"
    monkeypatch.delenv("SEMNR_BACKEND")
    assert registry.explain(call()).requested_by == "default"


def test_use_backend_ends_with_its_block_even_after_an_error() -> None:
    with pytest.raises(RuntimeError), registry.use_backend("reference"):
        raise RuntimeError
    assert registry.explain(call()).requested == "auto"


def test_a_launch_that_fails_raises_instead_of_falling_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("launch failed")

    implementation = registry.Implementation("pixel", "native", broken, lambda call: None)
    monkeypatch.setitem(registry._implementations["pixel"], "native", implementation)
    monkeypatch.setattr(registry, "_probe", lambda name: None)
    with pytest.raises(RuntimeError, match="launch failed"):
        pixel.mse(X, X)


def test_what_a_backend_does_not_support_is_decided_before_launch() -> None:
    backends.require("pixel", "native")
    implementation = registry.Implementation("pixel", "native", lambda *a: 1 / 0, lambda call: "does not like it")
    table = {**registry._implementations["pixel"], "native": implementation}
    original = registry._implementations["pixel"]
    registry._implementations["pixel"] = table
    try:
        explanation = registry.explain(call())
        assert explanation.chosen == "reference"
        assert "does not like it" in str(explanation)
    finally:
        registry._implementations["pixel"] = original


def test_the_decision_table_marks_the_chosen_row() -> None:
    text = str(registry.explain(call(), "reference"))
    assert "-> reference" in text
    assert "pixel: 2x1x32x32 uint8 on cpu" in text


# --- a backend that refuses what it should do -----------------------------------------------------------------


def _refuses_everything(monkeypatch: pytest.MonkeyPatch, op: str, backend: str) -> None:
    table = registry._implementations[op]
    planted = dataclasses.replace(table[backend], supports=lambda call: "does not want to")
    monkeypatch.setitem(table, backend, planted)


@pytest.mark.parametrize("op", registry.ops())
def test_a_refusal_that_no_table_lists_fails_where_the_backend_is_required(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "native" not in registry.implementations(op):
        return
    _refuses_everything(monkeypatch, op, "native")
    usual = registry.Call(
        op, "cpu", torch.float64 if op in ("histogram", "otsu_split") else torch.float32, (1, 1, 64, 64), False
    )
    monkeypatch.setenv("SEMNR_REQUIRE", "reference,native")
    with pytest.raises(pytest.fail.Exception, match=r"its table does not list: does not want to"):
        backends.run_or_skip_unsupported(op, "native", usual)
    monkeypatch.setenv("SEMNR_REQUIRE", "reference")
    with pytest.raises(pytest.skip.Exception, match="does not want to"):
        backends.run_or_skip_unsupported(op, "native", usual)


def test_a_refusal_is_noticed_through_the_metric_too(monkeypatch: pytest.MonkeyPatch) -> None:
    backends.require("ssim", "native")
    x = torch.rand((1, 1, 32, 32))
    monkeypatch.setenv("SEMNR_REQUIRE", "native")
    mask = torch.ones((32, 32), dtype=torch.bool)
    with pytest.raises(pytest.skip.Exception, match="has no gradient of masked images"):  # its table lists that
        backends.on("native", ssim.ssim, x.clone().requires_grad_(), x, data_range=1.0, mask=mask)
    _refuses_everything(monkeypatch, "ssim", "native")
    with pytest.raises(pytest.fail.Exception, match="its table does not list"):
        backends.on("native", ssim.ssim, x, x, data_range=1.0)


@pytest.mark.parametrize("name", ["triton", "cuda", "native"])
def test_every_refusal_of_supports_is_in_the_table_beside_it(name: str) -> None:
    """Over dtypes, sizes, gradients and settings, on whatever the op has; the table alone answers, and the same."""
    if name == "triton":
        pytest.importorskip("triton")
    settings = {
        "ssim": (
            ssim.Settings(window_size=49),
            ssim.Settings(want_components=True),
            ssim.Settings(precision="float64"),
        ),
        "histogram": (Bins(4096),),
        "cnr_map": (Settings((64, 64), (1, 1)),),
        "dists": (dists.Settings(dtype=torch.float64),),
    }
    for op in registry.ops():
        found = registry._implementations[op].get(name)
        if found is None:
            continue
        for dtype in (torch.uint8, torch.float64, torch.int32):
            for shape in ((1, 1, 64, 64), (2, 3, 2**16, 2**16)):
                for grad in (False, True):
                    for some, masked in itertools.product((None, *settings.get(op, ())), (False, True)):
                        call = registry.Call(op, "cpu", dtype, shape, grad, some, masked)
                        assert found.supports(call) == registry.refusal(found.unsupported(), call)
