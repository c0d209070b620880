"""The scan of a tile against its reconstruction: its scale, its places, and the faults that training plants."""

from __future__ import annotations

import json

import numpy as np
import pytest

from semnr.anomaly.learning import Patches, Shown, shown
from semnr.anomaly.normals import Tiles
from semnr.anomaly.places import OF_NOISE, SHAPES, Places, usual_of
from semnr.anomaly.recipe import load_recipe
from semnr.noise import NoiseModel

LAW = NoiseModel(gain=0.0, offset=100.0)
SIDE = 64


def recorded(seed: int, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """(tiles with white noise of σ 10, their clean image)."""
    clean = np.full((count, SIDE, SIDE), 120.0, np.float32)
    return clean + 10 * np.random.default_rng(seed).standard_normal(clean.shape).astype(np.float32), clean


def test_noise_alone_has_the_scale_of_noise() -> None:
    tiles, clean = recorded(1, 12)
    usual = usual_of(tiles, clean, LAW, -1)
    assert len(usual) == len(SHAPES)
    small = [level for level, shape in zip(usual, SHAPES, strict=True) if shape.size <= 9]
    np.testing.assert_allclose(small, OF_NOISE, rtol=0.12)  # few independent places of a large size: not asked of them


def test_a_size_that_reconstructions_always_miss_is_turned_down_and_no_other() -> None:
    tiles, clean = recorded(2)
    tiles[:, 24:40, 24:40] += 8
    plain = Places(tiles, clean, LAW, [OF_NOISE] * len(SHAPES)).strongest()
    large = [OF_NOISE * (10 if shape.size >= 9 else 1) for shape in SHAPES]
    turned = Places(tiles, clean, LAW, large).strongest()
    assert (plain > 7).all()
    assert (turned < 0.8 * plain).all()


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_large_and_a_small_defect_are_found_at_their_places(axis: int, sign: int) -> None:
    tiles, clean = recorded(3, 1)
    tiles[0, 8:26, 30:50] += sign * 15  # as large as a bridge
    tiles[0, 45:51, 12:18] += sign * 30
    if axis == -2:
        tiles, clean = tiles.transpose(0, 2, 1), clean.transpose(0, 2, 1)
    found = Places(tiles, clean, LAW, [OF_NOISE] * len(SHAPES), axis)
    boxes = json.loads(found.boxes_json([5.0])[0] or "[]")
    places = [(box["row"], box["col"]) if axis == -1 else (box["col"], box["row"]) for box in boxes]
    for row, col in ((17, 40), (48, 15)):
        assert any(abs(y - row) <= 4 and abs(x - col) <= 4 for y, x in places)
    assert boxes[0]["z"] == pytest.approx(float(found.strongest()[0]), abs=0.01)
    at = (17, 40) if axis == -1 else (40, 17)
    assert np.sign(found.map[0][at]) == sign
    assert found.boxes_json([1e3]) == (None,)


def test_copies_hold_faults_that_passed_through_the_denoiser() -> None:
    tiles, _ = recorded(4, 2)
    recipe = load_recipe("toy", {"data.copies": 2, "data.target": "gaussian", "data.faults": 0.0})
    held = shown(Tiles(list(tiles), [], 255.0, "float32"), recipe, LAW)
    assert all(one.copies.shape == (2, SIDE, SIDE) for one in held)
    change = np.abs(np.concatenate([one.copies for one in held]).astype(np.float32))
    assert change.max() > 5  # a fault is there, weaker than it was planted (up to 8 σ = 80)
    assert (change < 0.5).mean() > 0.3  # and most of the tile is as it was
    again = shown(Tiles(list(tiles), [], 255.0, "float32"), recipe, LAW)
    assert all(np.array_equal(one.copies, two.copies) for one, two in zip(held, again, strict=True))


def test_a_patch_shows_the_fault_of_its_copy_and_never_in_the_target() -> None:
    recipe = load_recipe("toy", {"data.copies": 1, "data.faults": 0.0})
    tile = Shown(np.full((SIDE, SIDE), 100, np.float32), np.full((1, SIDE, SIDE), 40, np.float16))
    batch = Patches(recipe, [tile], LAW, 255.0, -1, 0).batch(np.random.default_rng(0))
    assert set(np.unique(batch["target"].numpy())) == {100.0}
    each = batch["seen"].numpy().reshape(len(batch["seen"]), -1)
    assert set(np.unique(each)) <= {100.0, 140.0}
    assert (each.min(axis=1) == each.max(axis=1)).all()
    assert ((batch["weight"].numpy() > 1) == (batch["seen"].numpy() > 100)).all()


def test_copies_are_an_integer() -> None:
    with pytest.raises(ValueError, match=r"data.copies is -1"):
        load_recipe("toy", {"data.copies": -1})
