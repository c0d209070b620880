"""Scenes that the denoiser is trained on, and what is rare in their noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from semnr.base.random_streams import stream
from semnr.training import clusters
from semnr.training.config import load_recipe
from semnr.training.data import Batch, Synthetic
from semnr.training.noise import Family, Tools


@pytest.mark.parametrize("seed", range(3))
def test_spheres_of_all_sizes_lie_side_by_side_on_a_darker_support(seed: int) -> None:
    from semnr.training.spheres import spheres

    image = spheres(np.random.default_rng(seed), 160)
    again = spheres(np.random.default_rng(seed), 160)
    np.testing.assert_array_equal(image, again)
    assert image.shape == (160, 160)
    assert np.isfinite(image).all()
    low, high = np.quantile(image, (0.02, 0.98))
    assert high > low + 0.1


def _blank(**changes: Any) -> Batch:
    entries = {"scenes.count": 2, "scenes.shares": {"blank": 1.0}, "scenes.side": 128, "data.patch": 128}
    recipe = load_recipe("toy", entries | {"data.batch": 8} | changes)
    return Synthetic(recipe)(stream(3, 72, 0, 5))


def _tools(correlation: float) -> Tools:
    ends = (correlation, correlation)
    family = Family(correlation=ends, row=(0.0, 0.0), rounded=0.0, gain=(1.0, 1.0), offset=(0.0, 0.0))
    return Tools.draw(8, family, torch.Generator().manual_seed(4))


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_the_template_of_a_cluster_is_the_mean_of_noise_with_that_mean_over_the_disc(correlation: float) -> None:
    from scipy.ndimage import convolve

    tools = _tools(correlation)
    scene = torch.full((8, 1, 512, 512), 0.5)
    noise = (tools.noisy(scene, torch.Generator().manual_seed(5)) - scene)[:, 0].numpy()
    reach = clusters._REACH
    for k, one in enumerate(noise):
        disc, template, spread = clusters._conditional(tools, k, 2.0)
        mean = convolve(one, disc, mode="wrap")
        assert mean.std() / one.std() == pytest.approx(spread, rel=0.03)
        for dy, dx in ((0, 0), (0, 2), (0, 4), (2, 0), (1, -3), (4, 4)):
            expected = (np.roll(one, (-dy, -dx), (0, 1)) * mean).mean() / mean.var()
            assert template[reach + dy, reach + dx] == pytest.approx(expected, abs=0.05), (dy, dx)


def test_clusters_are_rare_deviations_of_the_same_noise() -> None:
    tools = _tools(0.5)
    target = torch.full((8, 1, 128, 128), 0.5)
    noisy = tools.noisy(target, torch.Generator().manual_seed(6))
    for k in range(8):
        with_some = clusters.add_clusters(noisy[k], target[k], tools, k, np.random.default_rng(k))
        again = clusters.add_clusters(noisy[k], target[k], tools, k, np.random.default_rng(k))
        torch.testing.assert_close(with_some, again, rtol=0, atol=0)
        sigma = float((noisy[k] - target[k]).std())
        changed = (with_some - noisy[k]).abs() > 0.02 * sigma
        assert 0.001 < float(changed.float().mean()) < 0.15
        assert float((with_some - target[k]).std()) < 1.1 * sigma
        largest = max(
            np.abs(_means((with_some - target[k])[0].numpy(), disc)).max() / (sigma * spread)
            for disc, _, spread in (clusters._conditional(tools, k, r) for r in (1.5, 2.0, 3.0, 4.0))
        )
        assert 3.4 < largest < 7.5, "one that noise alone has once in 10^4 to 10^10 places"


def _means(noise: np.ndarray, disc: np.ndarray) -> np.ndarray:
    from scipy.ndimage import convolve

    return np.asarray(convolve(noise, disc))


def test_patches_without_structure_have_few_particles_and_clusters_where_the_recipe_says_so() -> None:
    plain, calm = _blank(), _blank(**{"scenes.specks_on_blank": 0.0, "scenes.clusters": 1.0})
    assert float(plain["specks"].abs().max()) > 0
    assert float(calm["specks"].abs().max()) == 0
    assert float(calm["target"].std(dim=(1, 2, 3)).max()) < 0.1, "charging alone"
    seldom = _blank(**{"scenes.specks_on_blank": 0.0})
    torch.testing.assert_close(seldom["target"], calm["target"], rtol=0, atol=0)
    differs = (seldom["noisy"] != calm["noisy"]).flatten(1).any(dim=1)
    assert bool(differs.all())


def test_scenes_with_structure_get_no_clusters() -> None:
    changes = {"scenes.shares": {"lines": 1.0}}
    without, asked = _blank(**changes), _blank(**changes, **{"scenes.clusters": 1.0})
    torch.testing.assert_close(without["target"], asked["target"], rtol=0, atol=0)
    torch.testing.assert_close(without["noisy"], asked["noisy"], rtol=0, atol=0)
