"""DISTS of images that do not fit the budget, a band and a panel at a time, and maps of DISTS."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import backends
import cases
import tolerances
from semnr_kernels.dists import against, dists, features, score, similarity, stream
from semnr_kernels.dists import weights as known
from semnr_kernels.dists.engine import Torch
from semnr_kernels.dists.network import network_for

WHOLE = 1e-5  # the project's bound; measured 2e-7 in float32
RANDOM = {"weights": "random", "data_range": 1.0}
every_backend = pytest.mark.parametrize("backend", backends.params("dists"))
fast = "native" if "native" in backends.params("dists") else "reference"


def pair(height, width, dtype=torch.float32, seed=0):
    return tuple(torch.from_numpy(v).to(dtype) for v in cases.noisy_pair(height, width, seed=seed))


def network(dtype):
    return network_for(known.random_weights(), dtype, torch.device("cpu"))


def scored(x, y, plan, monkeypatch, dtype=torch.float64, valid=None, window=None):
    """By the plain engine, following a plan."""
    monkeypatch.setattr(score, "plan", lambda *a, **k: plan)
    x, y = (v[None, None].to(dtype) for v in (x, y))
    return score.dists(Torch(), x, y, valid, network(dtype), score.Settings(memory_budget=2**40, window=window))


# --- bands and panels ----------------------------------------------------------------------------------------------


def test_bands_are_the_whole_image_to_rounding(monkeypatch):
    x, y = pair(101, 40)
    whole = scored(x, y, stream.Plan(1, 101, 40, 2**30), monkeypatch)
    for rows, piece in ((32, 2**30), (48, 2**16), (96, 2**14)):
        parts = scored(x, y, stream.Plan(1, rows, 40, piece), monkeypatch)
        for name in ("rows", "structure", "texture"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-13)


def test_pieces_of_a_band_are_the_whole_image_too(monkeypatch):
    x, y = pair(48, 150)
    whole = scored(x, y, stream.Plan(1, 48, 150, 2**30), monkeypatch)
    parts = scored(x, y, stream.Plan(1, 48, 150, 2**16), monkeypatch)  # columns too
    torch.testing.assert_close(parts.rows, whole.rows, rtol=0, atol=1e-13)


def test_a_large_pair_in_small_tiles_has_the_value_of_the_whole():
    """512 x 640 fits both ways: bands of 32 rows, panels of 128 columns."""
    backends.require("dists", fast)
    x, y = pair(512, 640)
    whole = dists(x, y, **RANDOM, details=True, backend=fast)
    tiled = dists(x, y, **RANDOM, details=True, backend=fast, memory_budget=1)
    assert stream.plan(512, 640, 2, network(torch.float32), 1) == stream.Plan(1, 32, 128, 2**20)
    assert tiled.value.item() == pytest.approx(whole.value.item(), abs=WHOLE)
    for name in ("structure", "texture"):
        torch.testing.assert_close(tiled.components[name], whole.components[name], rtol=0, atol=WHOLE)


def test_the_margin_of_a_panel_covers_the_receptive_field(monkeypatch):
    """A point moves outputs 105 pixels away; with a margin of 112 no panel sees anything else than the whole does."""
    y = torch.full((32, 400), 0.5)
    x = y.clone()
    x[:, 129 + 105] = 1.0
    plans = (stream.Plan(1, 32, 400, 2**30), stream.Plan(1, 32, 128, 2**30))
    whole, panels = (scored(x, y, plan, monkeypatch).rows.item() for plan in plans)
    assert panels == pytest.approx(whole, abs=1e-12)
    monkeypatch.setattr(stream, "MARGIN", 64)
    assert abs(scored(x, y, plans[1], monkeypatch).rows.item() - whole) > 1e-9


def test_masks_go_band_by_band_too(monkeypatch):
    x, y = pair(100, 60)
    valid = torch.rand((1, 1, 100, 60), generator=torch.Generator().manual_seed(1)) > 0.2
    whole, parts = (
        scored(x, y, stream.Plan(1, rows, columns, 2**20), monkeypatch, valid=valid).rows
        for rows, columns in ((100, 60), (32, 60))
    )
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-13)


@every_backend
def test_every_backend_scores_beyond_its_budget(backend):
    backends.require("dists", backend)
    x, y = pair(100, 32)
    exact = dists(x.double(), y.double(), **RANDOM, backend="reference").item()
    for options in ({}, {"mask": torch.ones(100, 32, dtype=torch.bool)}):
        found = dists(x, y, **RANDOM, **options, backend=backend, memory_budget=1)
        assert found.item() == pytest.approx(exact, abs=1e-6)
    kept = features(y, **RANDOM, backend=backend, memory_budget=1)
    assert against(x, kept, backend=backend, memory_budget=1).item() == pytest.approx(exact, abs=1e-6)


def test_a_gradient_is_that_of_the_whole_whatever_the_budget():
    x, y = pair(40, 40)
    found = []
    for budget in (1, None):
        leaf = x.clone().requires_grad_(True)
        found += torch.autograd.grad(dists(leaf, y, **RANDOM, memory_budget=budget), leaf)
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("budget", [2**28, 2**30, 3 * 2**30])
@pytest.mark.parametrize("side", [256, 2048, 8192, 100_000])
def test_a_plan_stays_in_its_budget(side, budget):
    plan = stream.plan(side, side, 2, network(torch.float32), budget)
    assert plan.together >= 1
    assert plan.rows == side or plan.rows % 16 == 0
    assert plan.columns == side or plan.columns % 16 == 0
    width = min(side, plan.columns + 2 * stream.MARGIN)
    # rows of input that wait for a stage, at most twice what it takes, of both images
    rows = side if plan.rows == side else 2 * plan.rows
    held = [
        2 * 4 * c * (rows if plan.rows != side else rows >> n) * (width >> n)
        for n, c in enumerate((3, 64, 128, 256, 512))
    ]
    most = plan.together * (max(a + b for a, b in pairwise(held)) if plan.rows == side else sum(held))
    assert most + 3 * plan.piece <= budget


def test_a_batch_goes_together_as_far_as_the_budget_reaches():
    plan = stream.plan(64, 64, 2, network(torch.float32), 2**28)
    assert plan.together > 100
    assert stream.plan(64, 64, 2, network(torch.float32), 2**20).together >= 1


# --- maps ----------------------------------------------------------------------------------------------------------


def literal_map(x, y, window):
    """The map at the middles of its cells, from whole maps in float64, window by window."""
    net = network(torch.float64)
    alpha, beta = (v.numpy() for v in known.alpha_beta())
    maps = [list(net.maps(v.double()[None, None].expand(1, 3, -1, -1))) for v in (x, y)]
    rows, columns = (-(-side // 16) for side in x.shape)
    out = np.zeros((rows, columns))
    first, reach = 0, window // 32
    for number, (a, b) in enumerate(zip(*maps, strict=True)):
        a, b, cell = a[0].numpy(), b[0].numpy(), 16 >> max(0, number - 1)
        some = slice(first, first := first + len(a))
        for r in range(rows):
            for c in range(columns):
                at = (
                    slice(max(0, r - reach) * cell, (r + reach + 1) * cell),
                    slice(max(0, c - reach) * cell, (c + reach + 1) * cell),
                )
                p, q = (v[(slice(None), *at)].reshape(len(v), -1) for v in (a, b))
                mp, mq = p.mean(1), q.mean(1)
                cov = (p * q).mean(1) - mp * mq
                lum = (2 * mp * mq + 1e-6) / (mp**2 + mq**2 + 1e-6)
                tex = (2 * cov + 1e-6) / (p.var(1) + q.var(1) + 1e-6)
                out[r, c] += (alpha[some] * (1 - lum) + beta[some] * (1 - tex)).sum()
    return torch.from_numpy(out)


@every_backend
@pytest.mark.parametrize("window", [16, 48])
def test_a_map_compares_the_windows_about_each_place(backend, window):
    backends.require("dists", backend)
    x, y = pair(50, 70)
    score, found = dists(x, y, **RANDOM, return_map=True, map_window=window, backend=backend)
    assert found.shape == (50, 70)
    exact = literal_map(x, y, window)
    torch.testing.assert_close(found, score_map(exact)[:50, :70].float(), rtol=0, atol=3e-6)
    assert score.item() == pytest.approx(dists(x, y, **RANDOM, backend=backend).item(), abs=1e-7)


def score_map(cells):
    return F.interpolate(cells[None, None], scale_factor=16, mode="bilinear")[0, 0]


@every_backend
def test_a_window_that_covers_the_image_gives_the_score_everywhere(backend):
    backends.require("dists", backend)
    x, y = pair(40, 50)
    score, found = dists(x, y, **RANDOM, return_map=True, map_window=112, backend=backend)
    torch.testing.assert_close(found.double(), score.expand(40, 50), rtol=0, atol=2e-7)


def washed(side=192):
    """Fine texture over lines, and a candidate that lost the texture in a square about (144, 48)."""
    rng = np.random.default_rng(0)
    clean = cases.lines(side, side) * 0.7 + 0.25 * rng.random((side, side))
    blurred = F.avg_pool2d(torch.from_numpy(clean)[None, None], 5, 1, 2, count_include_pad=False)[0, 0].numpy()
    candidate = clean.copy()
    candidate[120:168, 24:72] = blurred[120:168, 24:72]
    return torch.from_numpy(candidate).float(), torch.from_numpy(clean).float()


def test_a_locally_washed_texture_lights_up_there():
    x, y = washed()
    result = dists(x, y, **RANDOM, return_map=True, map_window=48, details=True, backend=fast)
    found = result.map
    row, column = divmod(found.argmax().item(), found.shape[1])
    assert 120 <= row < 168
    assert 24 <= column < 72
    inside, far = found[128:160, 32:64].mean(), found[:48, 120:].mean()
    assert inside > 20 * far
    assert result.settings["map_window"] == 48


def test_identical_images_have_a_dark_map_and_maps_come_as_images_do():
    _, y = pair(40, 56)
    for shape in ((40, 56), (1, 40, 56), (2, 1, 40, 56)):
        both = y.expand(shape)
        found = dists(both, both, **RANDOM, return_map=True, backend=fast).map
        assert found.shape == shape
        assert found.abs().max() < 1e-12
    colour = y.expand(3, 40, 56)
    assert dists(colour, colour, **RANDOM, return_map=True).map.shape == (1, 40, 56)
    double = dists(y.double(), y.double(), **RANDOM, return_map=True).map
    assert (double.dtype, found.dtype) == (torch.float64, torch.float32)


def test_a_map_of_a_band_at_a_time_is_that_of_the_whole(monkeypatch):
    x, y = pair(150, 40)
    whole, parts = (
        scored(x, y, stream.Plan(1, rows, 40, piece), monkeypatch, window=3).map
        for rows, piece in ((150, 2**30), (32, 2**16))
    )
    torch.testing.assert_close(parts, whole, rtol=0, atol=tolerances.DISTS_MAP_ORDER)


def test_a_map_of_kept_maps_is_the_same():
    x, y = pair(48, 40)
    exact = dists(x, y, **RANDOM, return_map=True, map_window=48, backend=fast).map
    kept = features(y, **RANDOM, backend=fast)
    found = against(x, kept, return_map=True, map_window=48, backend=fast).map
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-7)
    compared = similarity(features(x, **RANDOM, backend=fast), kept, map_window=48, backend=fast).map
    torch.testing.assert_close(compared[0, 0].float(), exact, rtol=0, atol=1e-7)


def test_a_masked_window_is_not_a_number_and_a_resized_map_has_the_size_of_the_image():
    x, y = pair(64, 48)
    mask = torch.ones(64, 48, dtype=torch.bool)
    mask[:32] = False
    found = dists(x, y, **RANDOM, mask=mask, return_map=True, map_window=16, backend=fast).map
    assert torch.isnan(found[:8]).all()
    assert torch.isfinite(found[48:]).all()
    x, y = pair(280, 300)
    assert dists(x, y, **RANDOM, resize="authors", return_map=True).map.shape == (280, 300)


def test_a_map_is_differentiable():
    x, y = pair(32, 32)
    leaf = x.clone().requires_grad_(True)
    result = dists(leaf, y, **RANDOM, return_map=True, map_window=16)
    (g,) = torch.autograd.grad(result.map.mean(), leaf)
    assert torch.isfinite(g).all()
    assert g.abs().max() > 0
