"""Near-duplicates are found whatever was done to the copy, other images are not, and splits keep groups whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import semnr
from semnr import cli
from semnr.classify import CATEGORIES
from semnr.classify.textures import recordings
from semnr.leakage import compare, grouped_split, near_duplicates
from semnr.leakage.fingerprints import SYMMETRIES, seen_as, thumbnail
from semnr.leakage.splits import joined


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [recordings(name, 128, 5, k, 1)[0] for name in CATEGORIES for k in range(2)]


def changed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy: cropped, mirrored, turned, of other brightness and contrast, with noise of its own."""
    height, width = (int(n * rng.uniform(0.8, 1)) for n in image.shape)
    top, left = int(rng.integers(0, image.shape[0] - height + 1)), int(rng.integers(0, image.shape[1] - width + 1))
    copy = image[top : top + height, left : left + width].astype(float)
    copy = seen_as(copy, int(rng.integers(len(SYMMETRIES))))
    copy = rng.uniform(0.6, 1.4) * copy + rng.uniform(-30, 30) + rng.normal(0, 6, copy.shape)
    return np.clip(copy, 0, 255).astype(np.uint8)


def test_planted_copies_are_found_and_nothing_else(images: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    copies = [changed(image, rng) for image in images]
    thumbs = np.stack([thumbnail(image) for image in [*images, *copies]])
    count = len(images)
    made = compare([str(k) for k in range(2 * count)], ["train"] * count + ["test"] * count, thumbs)
    pairs = {tuple(sorted((p.first, p.second))) for p in made.pairs}
    assert pairs == {(k, count + k) for k in range(count)}
    assert len(made.crossing) == count
    assert made.exit_code == 1


@pytest.mark.parametrize("symmetry", range(8))
def test_each_of_the_eight_positions_is_known(images: list[np.ndarray], symmetry: int) -> None:
    made = near_duplicates([images[8], images[0], seen_as(images[8], symmetry)])
    assert made.clusters == {0: (0, 2)}
    assert made.pairs[0].correlation > 0.99


def test_what_was_done_is_said(images: list[np.ndarray]) -> None:
    image = images[8]
    made = near_duplicates([image, image[:, ::-1], image[8:120, 4:110], image])
    told = {(p.first, p.second): p.how for p in made.pairs}
    assert told[0, 3] == "identical"
    assert "mirrored" in told.get((0, 1), told.get((1, 0), ""))
    assert "cropped to 8" in told[0, 2]


def test_images_that_show_nothing_are_one_only_where_they_are_alike() -> None:
    flat = [np.full((64, 64), level, np.uint8) for level in (10, 10, 200)]
    noise = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    assert near_duplicates([*flat, noise]).clusters == {0: (0, 1, 2)}


def test_a_data_bar_makes_no_two_images_alike(images: list[np.ndarray]) -> None:
    bar = np.zeros((20, 128), np.uint8)
    bar[5:12, 4:60:3] = 255
    with_bar = [np.vstack([image, bar]) for image in (images[2], images[4], images[6])]
    assert near_duplicates(with_bar).pairs == ()


def test_unreadable_images_are_said_and_the_rest_compared(images: list[np.ndarray], tmp_path: Path) -> None:
    for name, image in (("a", images[0]), ("b", images[0])):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    made = near_duplicates(tmp_path)
    assert made.clusters == {0: (0, 1)}
    assert [problem.tile for problem in made.problems] == ["c"]
    assert made.exit_code == 3
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "c.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="sources has no image that can be read"):
        near_duplicates(tmp_path / "d")
    with pytest.raises(ValueError, match="crop is 'bar'; accepted: 'auto' or None"):
        near_duplicates(tmp_path, crop="bar")


def test_the_command_says_what_crosses_the_split(
    images: list[np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, chosen in (("train", images[:2]), ("test", [images[1][::-1], images[5]])):
        (tmp_path / "set" / part).mkdir(parents=True)
        for k, image in enumerate(chosen):
            Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / "set" / part / f"{k}.png")
    out, page = tmp_path / "found.json", tmp_path / "found.html"
    for sources in ([str(tmp_path / "set")], [str(tmp_path / "set" / part) for part in ("test", "train")]):
        assert cli.main(["leakage", *sources, "--out", str(out), "--report", str(page)]) == 1
        assert "1 of them on both sides of a split" in capsys.readouterr().out
    made = json.loads(out.read_text())
    assert made["crossing"] == [["test/0", "train/1"]]
    assert made["groups"]["test/1"] not in (made["groups"]["test/0"], made["groups"]["train/0"])
    assert "On two sides of the split" in page.read_text()
    (tmp_path / "mine.json").write_text("{}")
    assert cli.main(["leakage", str(tmp_path / "set"), "--out", str(tmp_path / "mine.json")]) == 2
    assert cli.main(["leakage", str(tmp_path / "set" / "train"), "-q"]) == 0


def test_a_split_tears_no_group_and_lacks_no_class() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 120, 400)
    labels = [int(group) % 5 if group % 7 else 0 for group in groups]
    parts = np.array(grouped_split(labels, groups.tolist(), seed=1))
    assert all(len(set(parts[groups == group])) == 1 for group in set(groups.tolist()))
    for part, share in (("train", 0.7), ("validation", 0.15), ("test", 0.15)):
        for label in range(5):
            held = np.mean([parts[k] == part for k in range(400) if labels[k] == label])
            assert held == pytest.approx(share, abs=0.06)
    assert list(parts) == grouped_split(labels, groups.tolist(), seed=1)
    assert list(parts) != grouped_split(labels, groups.tolist(), seed=2)


def test_a_class_with_as_many_groups_as_parts_has_one_in_each() -> None:
    parts = grouped_split(["a"] * 9 + ["b"] * 4, [*range(9), 20, 20, 21, 22], seed=0)
    assert sorted(set(parts[9:])) == ["test", "train", "validation"]
    with pytest.raises(ValueError, match=r"class 'b' has 3 image\(s\) in 2 group\(s\)"):
        grouped_split(["a"] * 9 + ["b"] * 3, [*range(9), 20, 20, 21])
    with pytest.raises(ValueError, match="shares is"):
        grouped_split(["a"], [0], shares={"x": 0.4})


def test_a_chain_of_pairs_is_one_group() -> None:
    assert joined(6, [(4, 1), (1, 2), (5, 3)]).tolist() == [0, 1, 1, 2, 1, 2]


def test_public_names() -> None:
    assert set(semnr.leakage.__all__) == {"Leakage", "Pair", "grouped_split", "near_duplicates", "write_report"}
