"""The fit of the noise law on every backend against its definition in float64."""

from __future__ import annotations

import evidence_tiles
import numpy as np
import pytest
import torch

import backends
from semnr.synth.detector import Detector
from semnr_kernels.noise import Ends, Fitted, fit

CASES = [(kind, 256, 256) for kind in (*evidence_tiles.KINDS, *evidence_tiles.DEGENERATE)]
CASES += [("holes", *size) for size in evidence_tiles.SIZES]


def ends_of(x: torch.Tensor) -> Ends:
    top = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(x.dtype, 1.0)
    return Ends(0.0, top, 0.0)


def assert_like(one: Fitted, other: Fitted) -> None:
    scale = max(abs(v) for v in other.variances)
    levels = np.array(other.levels)
    for k, bound in ((0, 1e-6), (2, 1e-5), (3, 0), (4, 0)):
        np.testing.assert_allclose(one[k], other[k], rtol=bound, atol=1e-9 * scale, err_msg=Fitted._fields[k])
    np.testing.assert_allclose(one.levels, other.levels, rtol=1e-6)  # float32 less the mean
    np.testing.assert_allclose(one.variances, other.variances, rtol=1e-6, atol=1e-12 * scale)
    assert one.counts == other.counts
    law, want = (v.gain * levels + v.offset for v in (one, other))
    np.testing.assert_allclose(law, want, rtol=1e-6, atol=1e-7 * scale)
    np.testing.assert_allclose(one.spacing, other.spacing, rtol=1e-3, atol=1e-5)  # a pixel at the edge of the fifth
    np.testing.assert_allclose(
        one.products, other.products, rtol=2e-6, atol=1e-6 * max(1.0, np.abs(other.products).max())
    )


@pytest.mark.parametrize("backend", backends.params("noise"))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_backend_gives_the_definition(case: tuple[str, int, int], backend: str) -> None:
    x = evidence_tiles.case(*case).x
    assert_like(*(fit([[x[0, 0]]], [ends_of(x)], backend)[0] for backend in (backend, "reference")))


@pytest.mark.parametrize("backend", backends.params("noise"))
def test_several_windows_are_one_law_whatever_their_layout(backend: str) -> None:
    x = evidence_tiles.case("lines").x[0, 0]
    windows = [x[:100, :90], x[60:200, 30:].flip(1), x[::2, ::2]]
    assert_like(*(fit([windows], [ends_of(x)], backend)[0] for backend in (backend, "reference")))
    assert_like(*(fit([[w.T for w in windows]], [ends_of(x)], backend)[0] for backend in (backend, "reference")))


@pytest.mark.parametrize("backend", backends.params("noise"))
def test_the_law_of_the_detector_comes_out(backend: str) -> None:
    x = evidence_tiles.case("holes", 300, 509).x[0, 0]
    found = fit([[x]], [ends_of(x)], backend)[0]
    law = Detector().law(255.0)
    assert found.gain == pytest.approx(law.gain, rel=0.15)
    assert found.gain * 120 + found.offset == pytest.approx(law.gain * 120 + law.offset, rel=0.1)


@pytest.mark.parametrize("backend", backends.params("noise"))
def test_a_level_that_is_added_leaves_the_noise(backend: str) -> None:
    x = evidence_tiles.case("lines").x[0, 0].double()
    low, high = (fit([[v]], [Ends(0.0, 1e9, 0.0)], backend)[0] for v in (x, x + 30000))
    np.testing.assert_allclose(np.array(high.levels) - 30000, low.levels, atol=1e-4)
    np.testing.assert_allclose(high.variances, low.variances, rtol=1e-6)


def test_laws_do_not_depend_on_their_batch_nor_on_threads() -> None:
    backends.require("noise", "native")
    tiles = evidence_tiles.batch().x[:, 0]
    alone = [fit([[t]], [ends_of(t)], "native")[0] for t in tiles]
    usual = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert fit([[t] for t in tiles], [ends_of(tiles)] * 3, "native") == alone
    finally:
        torch.set_num_threads(usual)
