"""DISTS with the published VGG16: published values, the authors' package, narrower arithmetic."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch

import calibrated
import cases
from semnr_kernels.dists import dists
from semnr_kernels.dists import weights as known

AUTHORS = 1e-6  # the project's bound: the same weights in float32
BFLOAT16 = 2e-3  # the project's bound
SIZES = [(32, 32), (33, 47), (48, 61), (64, 64), (96, 40), (101, 77), (128, 128), (150, 90), (257, 64), (130, 260)]


@pytest.fixture(scope="module", autouse=True)
def weights():
    calibrated.need_weights("vgg16")


def test_the_five_published_pairs_come_out_at_their_published_digits():
    values = [float(dists(*map(torch.from_numpy, pair))) for pair in calibrated.published_pairs()]
    assert [f"{value:.4g}" for value in values] == [f"{float(digits):.4g}" for digits in calibrated.DISTS]


@pytest.fixture(scope="module")
def authors():
    """dists-pytorch 0.1 with the same weights."""
    torchvision = pytest.importorskip("torchvision")
    published = pytest.importorskip("DISTS_pytorch.DISTS_pt", reason="dists-pytorch is not installed")
    with torch.device("meta"):
        vgg = torchvision.models.vgg16(weights=None)
    vgg.features.load_state_dict(dict(known.load(None).state), assign=True)
    with mock.patch.object(published.models, "vgg16", return_value=vgg):
        model = published.DISTS(load_weights=False)
    for name, value in zip(("alpha", "beta"), known.read_alpha_beta(), strict=True):
        getattr(model, name).data = value.reshape(1, -1, 1, 1)
    return model


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_twenty_pairs_of_any_size_equal_the_authors_package(size, authors):
    for seed in (0, 1):
        x, y = cases.noisy_pair(*size, seed=seed)
        colours = np.array([1.0, 0.8, 0.5] if seed else [1.0, 1.0, 1.0])[:, None, None]
        x, y = (torch.from_numpy(v * colours).float()[None] for v in (x, y))
        ours = float(dists(x, y, data_range=1.0))
        assert ours == pytest.approx(authors(x, y).item(), abs=AUTHORS)
        assert ours > 1e-3


def test_the_authors_resize_equals_theirs_before_it_is_rounded_to_8_bits(authors):
    from PIL import Image
    from torchvision.transforms import functional

    x, y = (v.astype(np.float32) for v in cases.noisy_pair(300, 410, seed=3))
    resized = [functional.resize(Image.fromarray(v), 256) for v in (x, y)]
    theirs = authors(*(torch.from_numpy(np.array(v)).expand(1, 3, -1, -1) for v in resized)).item()
    ours = float(dists(torch.from_numpy(x), torch.from_numpy(y), data_range=1.0, resize="authors"))
    assert ours == pytest.approx(theirs, abs=AUTHORS)


def test_bfloat16_stays_within_its_bound_of_float32_on_the_published_pairs():
    for pair in calibrated.published_pairs():
        x, y = (torch.from_numpy(v[:, :96, :128].copy()) for v in pair)
        assert float(dists(x, y, dtype=torch.bfloat16)) == pytest.approx(float(dists(x, y)), abs=BFLOAT16)
