"""The classifier: trained, judged and used on a synthetic set; what it says of bad input; its figures by hand."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import semnr
from semnr import cli
from semnr.classify import CATEGORIES, PUBLISHED, load_classifier, write_textures
from semnr.classify import measures as m
from semnr.classify.augment import augmented
from semnr.classify.config import Augment, load_recipe
from semnr.classify.images import prepared, read_labelled, view, without_bar
from semnr.classify.model import save_classifier
from semnr.classify.textures import recordings
from semnr.training.noise import Family
from semnr_kernels.errors import WeightsUnavailable

pytest.importorskip("lightning")
SIDE = 48
QUICK = {
    "data.sides": [24, 32], "data.epochs": [1, 2], "data.batch": 16, "training.warm_up": 2, "training.average": 0.5,
}  # fmt: skip
CHOSEN = ("Fibres", "Patterned_surface", "Tips")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes with near-duplicates and data bars, one image that is none."""
    path = tmp_path_factory.mktemp("set") / "sem"
    for name in CHOSEN:
        (path / name).mkdir(parents=True)
        for index in range(6):
            image = recordings(name, SIDE, 3, index, 1)[0]
            copy = np.clip(0.9 * image[:, ::-1] + 10, 0, 255).astype(np.uint8)
            for k, one in enumerate([image, copy][: 1 + index % 2]):
                Image.fromarray(one).save(path / name / f"{index}_{k}.png")
    (path / "Tips" / "broken.png").write_bytes(b"no image")
    return path


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    torch.set_num_threads(1)
    semnr.classify.train(folder, out, recipe="compact", changes=QUICK)
    return out


# --- training


def test_a_run_leaves_a_model_a_card_a_report_and_the_split(run: Path, folder: Path) -> None:
    assert {"best.safetensors", "card.md", "report.html", "split.csv", "curves.svg", "evaluation.json"} <= {
        path.name for path in run.iterdir()
    }
    card = (run / "card.md").read_text()
    for said in ("compact", "grouped by near-duplicates", "24 px for 1 passes; 32 px for 2 passes", "1 unreadable"):
        assert said in card
    page = (run / "report.html").read_text()
    for said in ("Measured here", "Worst mistakes", "Reliability", "Confusion"):
        assert said in page
    assert "Published by others" not in page  # three classes are not the ten
    assert "script" not in page
    made = json.loads((run / "evaluation.json").read_text())
    assert len(made["published_by_others"]) == len(PUBLISHED)
    assert "accuracy" in made["measured"]
    assert load_classifier(run).side == 32


def test_near_duplicates_lie_on_one_side_and_every_class_on_every_side(run: Path) -> None:
    with (run / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    specimen_parts: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        specimen_parts.setdefault((row["class"], Path(row["image"]).name[0]), set()).add(row["part"])
    assert all(len(parts) == 1 for parts in specimen_parts.values())
    for part in ("train", "validation", "test"):
        assert {row["class"] for row in rows if row["part"] == part} == set(CHOSEN)
    assert "broken.png" not in {Path(row["image"]).name for row in rows}


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(run: Path, folder: Path, tmp_path: Path) -> None:
    from semnr.classify import module

    class Cut(Exception):
        pass

    judge = module.Chooser.judge

    def stop(self: Any, trainer: Any, module: Any, step: int) -> None:
        if self.rows:
            raise Cut
        judge(self, trainer, module, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Chooser, "judge", stop)
        with pytest.raises(Cut):
            semnr.classify.train(folder, tmp_path / "cut", recipe="compact", changes=QUICK)
    with pytest.raises(FileExistsError, match="holds a training run"):
        semnr.classify.train(folder, tmp_path / "cut", recipe="compact", changes=QUICK)
    done = semnr.classify.train(folder, tmp_path / "cut", recipe="compact", changes=QUICK, resume=True)
    whole = load_classifier(run / "last.safetensors").network.state_dict()
    resumed = load_classifier(Path(done.out) / "last.safetensors").network.state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=1e-5)


def test_images_that_training_has_seen_are_not_counted(run: Path, folder: Path) -> None:
    with (run / "split.csv").open(newline="") as file:
        parts = [row["part"] for row in csv.DictReader(file)]
    unseen = semnr.classify.evaluate(run, folder)
    assert unseen.figures["images"] == parts.count("test")
    assert unseen.left_out == len(parts) - parts.count("test")
    assert unseen.exit_code == 3  # one image cannot be read
    assert semnr.classify.evaluate(run, folder, seen=True).figures["images"] == len(parts)


# --- prediction


def test_tiles_of_a_wafer_become_rows_with_a_category(run: Path, tmp_path: Path) -> None:
    wafer = semnr.synth.SyntheticWafer(dies=2, sites_per_die=1, tile=64, seed=1)
    done = semnr.classify.predict(run, wafer, tmp_path / "out", threshold=0.0)
    rows = done.run.table().to_pylist()
    assert len(rows) == len(wafer) == done.tiles
    assert {row["category"] for row in rows} <= set(CHOSEN)
    assert all(1 / 3 <= row["category_confidence"] <= 1 for row in rows)
    assert all(row["category"] == row["category_likeliest"] for row in rows)
    assert "die_x" in rows[0]
    page = semnr.report(done.run, out=tmp_path / "report.html").read_text()
    assert "Confidence of the category" in page
    assert "What the tiles of synthetic wafer show" in page
    every = semnr.classify.predict(run, wafer, tmp_path / "none", threshold=1.0)
    assert every.counts == {"unknown": len(wafer)}
    with pytest.raises(FileExistsError, match="accepted: a new or empty folder"):
        semnr.classify.predict(run, wafer, tmp_path / "out")


def test_a_tile_that_shows_nothing_or_cannot_be_read_is_said(run: Path, tmp_path: Path) -> None:
    lot = tmp_path / "lot"
    lot.mkdir()
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(lot / "a.png")
    (lot / "b.png").write_bytes(b"no image")
    done = semnr.classify.predict(run, lot, tmp_path / "out", threshold=0.0)
    a, b = done.run.table().to_pylist()
    assert (a["status"], a["category"]) == ("ok", "unknown")
    assert b["status"] == "unreadable"
    assert b["reason"]
    assert (done.tiles, done.lost, done.exit_code) == (2, 1, 3)


def test_grey_level_contrast_and_depth_do_not_change_what_an_image_shows(run: Path) -> None:
    image = recordings("Fibres", 64, 8, 1, 1)[0]
    classifier = load_classifier(run)
    said = classifier.predict(image)
    deep = classifier.predict(image.astype(np.uint16) * 40 + 1000)
    assert deep.probabilities == pytest.approx(said.probabilities, abs=1e-6)
    with pytest.raises(ValueError, match="threshold is 2"):
        semnr.classify.predict(run, image, "nowhere", threshold=2)


REAL = Path(os.environ.get("SEMNR_DATA", "/work/shared/data"))
LABELLED = {
    "general/13.tif": "Nanowires", "general/15pct_gelatin_fibers.tif": "Fibres",
    "general/test1.jpg": "Patterned_surface", "general/test_pore2.bmp": "Porous_Sponge",
    "general/zircon_bse_01.jpg": "Particles",
}  # fmt: skip


def test_predict_runs_on_labelled_real_images(run: Path, tmp_path: Path) -> None:
    """No accuracy is claimed: the classifier of this suite is a toy."""
    images = [REAL / name for name in LABELLED if (REAL / name).is_file()]
    if not images:
        pytest.skip(f"no labelled real images in {REAL} (SEMNR_DATA moves it)")
    done = semnr.classify.predict(run, [str(path) for path in images], tmp_path / "out")
    rows = done.run.table().to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * len(images)
    assert {row["category"] for row in rows} <= {*CHOSEN, "unknown"}
    assert all(0 <= row["category_confidence"] <= 1 for row in rows)


# --- the command line


def test_the_commands_train_judge_and_predict(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [f"{name}={value}" for name, value in {**QUICK, "data.epochs": [1, 1]}.items()]
    out = str(tmp_path / "run")
    assert (
        cli.main(["classify", "train", str(folder), "--out", out, "--recipe", "compact", "-q", "--set", *changes]) == 0
    )
    said = capsys.readouterr().out
    assert "near-duplicates together" in said
    assert "1 image(s) could not be read" in said
    assert cli.main(["classify", "evaluate", out, str(folder), "--out", str(tmp_path / "e.html"), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["measured"]["images"] > 0
    assert (tmp_path / "e.html").read_text().startswith("<!doctype html>")
    lot = str(folder / "Fibres")
    assert cli.main(["classify", "predict", out, lot, "--out", str(tmp_path / "p"), "--threshold", "0"]) == 0
    assert "unknown below a confidence of 0.000" in capsys.readouterr().out
    assert cli.main(["classify", "synth", "--out", str(tmp_path / "ten"), "--specimens", "1", "--side", "32"]) == 0
    assert sorted(path.name for path in (tmp_path / "ten").iterdir()) == sorted(CATEGORIES)
    assert cli.main(["classify", "predict", str(tmp_path / "no"), lot, "--out", str(tmp_path / "q")]) == 2
    assert "does not exist" in capsys.readouterr().err


# --- bad input


def _images(folder: Path, counts: dict[str, int], make: Any = None) -> Path:
    for k, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = recordings("Fibres", 32, k, i, 1)[0] if make is None else make(k, i)
            Image.fromarray(image).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("counts", "make", "says"),
    [
        ({"a": 4}, None, "has one class only ('a')"),
        ({"a": 4, "b": 1}, None, "class 'b' has 1 image(s); accepted: at least 3"),
        ({"a": 3, "b": 3}, lambda k, i: np.full((32, 32), 7, np.uint8), "6 images are all identical"),
        ({"a": 3, "b": 0}, None, "class 'b' has no image that can be read (it holds none)"),
        (
            {"a": 3, "b": 3},
            lambda k, i: recordings("Fibres", 32, k, 0, 1)[0],
            "in 1 group(s) that are no near-duplicates",
        ),
    ],
)
def test_a_set_that_nothing_can_be_learned_from_is_refused(
    tmp_path: Path, counts: dict[str, int], make: Any, says: str
) -> None:
    folder = _images(tmp_path / "set", counts, make)
    with pytest.raises(ValueError) as error:
        semnr.classify.train(folder, tmp_path / "run", recipe="compact", changes=QUICK)
    assert says in str(error.value)
    assert "accepted: " in str(error.value)


def test_a_folder_of_unreadable_images_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = _images(tmp_path / "set", {"a": 3, "b": 0})
    (folder / "b" / "x.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"class 'b' has no image that can be read \(.*x.png"):
        semnr.classify.train(folder, tmp_path / "run", recipe="compact", changes=QUICK)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data.epochs": [1]}, r"data.epochs is \[1\] for data.sides \[24, 32\]"),
        ({"data.sides": [8, 32]}, "data.sides is .*of at least 16"),
        ({"data.balance": 2}, "data.balance is 2; accepted: 0 to 1"),
        ({"augment.spin": 1}, "augment has 'spin'"),
        ({"model.backbone": "resnet51"}, "model.backbone is 'resnet51'; accepted: 'compact'"),
        ({"training.precision": "8"}, "training.precision is '8'"),
        ({"noise.sigma": [0.2, 0.1]}, "noise.sigma is"),
        ({"training.head_first": -1}, "training.head_first is -1"),
    ],
)
def test_a_wrong_entry_of_the_recipe_is_named(folder: Path, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        semnr.classify.train(folder, tmp_path / "run", recipe="compact", changes={**QUICK, **changes})


def test_a_missing_timm_names_how_to_have_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="timm/convnext_tiny' needs timm: pip install timm"):
        semnr.classify.train(
            folder, tmp_path / "run", recipe="compact", changes={**QUICK, "model.backbone": "timm/convnext_tiny"}
        )


def test_a_file_that_is_no_classifier_is_refused(tmp_path: Path, run: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(WeightsUnavailable, match="may hold pickled code and is not read"):
        load_classifier(tmp_path / "a.pth")
    shutil.copy(tmp_path / "a.pth", tmp_path / "b.safetensors")
    with pytest.raises(WeightsUnavailable, match="cannot be read"):
        load_classifier(tmp_path / "b.safetensors")
    denoiser = next(iter(semnr.denoising.weights.SHIPPED.values())).path
    with pytest.raises(WeightsUnavailable, match="has format 'semnr-denoiser-3'; accepted: 'semnr-classifier-1'"):
        load_classifier(denoiser)
    good = load_classifier(run)
    save_classifier(
        good.network, tmp_path / "c.safetensors", backbone="compact", classes=["a", "b"], side=32, temperature=1.0,
        threshold=0.5, about={},
    )  # fmt: skip
    with pytest.raises(WeightsUnavailable, match="does not fit its own description"):
        load_classifier(tmp_path / "c.safetensors")


def test_a_folder_with_another_class_than_the_models_is_refused(run: Path, tmp_path: Path) -> None:
    folder = _images(tmp_path / "set", {"Fibres": 1, "Powder": 1})
    with pytest.raises(ValueError, match="has a class 'Powder', which the model does not have"):
        semnr.classify.evaluate(run, folder)


# --- images and augmentation


def test_a_data_bar_is_cut_and_its_image_stays() -> None:
    from semnr.classify.textures import _with_bar

    image = recordings("Powder", 128, 0, 1, 1)[0]
    cut, there = without_bar(_with_bar(image, 1), None, "auto")
    assert there
    np.testing.assert_array_equal(cut, image)
    whole, there = without_bar(_with_bar(image, 1), None, None)
    assert not there
    assert whole.shape[0] > 128


def test_the_whole_of_a_long_image_is_looked_at() -> None:
    image = prepared(np.arange(40 * 100).reshape(40, 100).astype(np.float32), 32)
    assert image.shape == (32, 80)
    assert image.dtype == np.uint8
    seen = view(image, 32)
    assert seen.shape == (3, 1, 32, 32)
    assert float(seen[0, 0, 0, 0]) == pytest.approx(image[0, 0] / 255, abs=0.01)
    assert float(seen[2, 0, -1, -1]) == pytest.approx(image[-1, -1] / 255, abs=0.01)
    assert view(image[:, :34], 32).shape == (1, 1, 32, 32)


def test_augmentation_that_changes_nothing_gives_the_image_back() -> None:
    still = Augment(False, False, 0, 1, 0, 0, 0, 0, 0)
    image = recordings("Particles", 32, 0, 1, 1)[0]
    same = augmented([image], 32, still, Family(), np.random.default_rng(0))
    np.testing.assert_allclose(same[0, 0].numpy() * 255, image, atol=1e-3)


def test_augmentation_is_that_of_its_seed_and_stays_on_the_scale() -> None:
    images = [recordings("Tips", 40, 0, i, 1)[0] for i in range(4)]
    first, again, other = (augmented(images, 32, Augment(), Family(), np.random.default_rng(s)) for s in (1, 1, 2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert first.shape == (4, 1, 32, 32)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


def test_a_flip_or_a_quarter_turn_is_one_of_the_eight() -> None:
    image = recordings("MEMS_devices_and_electrodes", 32, 0, 1, 1)[0]
    eight = [np.rot90(side, k) for side in (image, image[:, ::-1]) for k in range(4)]
    only = Augment(True, True, 0, 1, 0, 0, 0, 0, 0)
    seen = {
        int(np.argmin([np.abs(made - one).max() for one in eight]))
        for s in range(40)
        for made in [augmented([image], 32, only, Family(), np.random.default_rng(s))[0, 0].numpy() * 255]
        if min(np.abs(made - one).max() for one in eight) < 0.1
    }
    assert seen == set(range(8))


def test_rare_classes_count_more_and_the_mean_stays_one() -> None:
    from semnr.classify.module import class_weights

    labels = np.array([0] * 90 + [1] * 10)
    even = class_weights(labels, 2, 0.0)
    np.testing.assert_allclose(even, 1)
    full = class_weights(labels, 2, 1.0)
    assert full[1] / full[0] == pytest.approx(9)
    assert full[labels].mean() == pytest.approx(1)


def test_images_of_one_specimen_stay_together_by_their_names() -> None:
    from semnr.classify.fit import _groups
    from semnr.classify.images import LabelledImages

    names = ("a/1_0.png", "a/1_1.png", "a/2_0.png", "b/1_0.png", "b/plain.png")
    nothing = np.zeros((5, 96, 96), np.float32)
    images = LabelledImages(Path(), names, ("a", "b"), np.array([0, 0, 0, 1, 1]), [], nothing, ())
    assert _groups(images, False, "_", True).groups == (0, 0, 1, 2, 3)
    assert _groups(images, False, "", True).groups == (0, 1, 2, 3, 4)


def test_the_last_layer_is_solved_first_and_statistics_stay(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semnr import backbones
    from semnr.classify import module

    torch.manual_seed(1)
    file = tmp_path / "w.pth"
    torch.save(backbones.build("compact", 7).state_dict(), file)
    given = []
    solve = module.regression

    def told(x: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        given.append((x, labels))
        return solve(x, labels, weights)

    monkeypatch.setattr(module, "regression", told)
    changes = {
        **QUICK, "data.epochs": [1, 1], "model.weights": str(file), "model.kept_statistics": True,
        "training.head_first": 2, "training.learning_rate": 1e-6,
    }  # fmt: skip
    done = semnr.classify.train(folder, tmp_path / "run", recipe="compact", changes=changes)
    ((x, labels),) = given
    assert x.shape == (len(labels), 256)
    network = load_classifier(done.out).network.backbone
    stored = torch.load(file, weights_only=True)
    for name, value in network.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(value, stored[name], rtol=0, atol=0)
    said = torch.nn.functional.linear(x, network.head[1].weight, network.head[1].bias).argmax(dim=1)
    assert float((said == labels).float().mean()) > 0.9  # it is what was solved: training hardly moved it


def test_the_regression_of_the_last_layer_is_exact_on_what_it_can_tell() -> None:
    from semnr.classify.module import regression

    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 3, 300))
    x = torch.from_numpy(rng.normal(size=(300, 5)) * (1, 10, 0.1, 1, 1) + 4).float()
    x[:, 1] += 40.0 * labels
    weight, bias = regression(x, labels, torch.ones(3))
    assert (weight.shape, bias.shape) == ((3, 5), (3,))
    assert float(((x @ weight.T + bias).argmax(dim=1) == labels).float().mean()) > 0.98


def test_stages_follow_each_other() -> None:
    from semnr.classify.module import Plan

    recipe = load_recipe("compact", {"data.sides": [16, 24], "data.epochs": [2, 1], "data.batch": 10})
    plan = Plan.of(recipe, 25)
    assert (plan.each, plan.steps) == (3, 9)
    assert [plan.side(step) for step in (0, 5, 6, 8)] == [16, 16, 24, 24]
    assert plan.stages() == [{"side": 16, "steps": 6, "epochs": 2}, {"side": 24, "steps": 3, "epochs": 1}]


def test_the_standard_recipe_is_resnet50_at_64_128_224() -> None:
    recipe = load_recipe("standard")
    assert (recipe.model.backbone, recipe.data.sides) == ("resnet50", (64, 128, 224))
    assert load_recipe("lite").model.backbone == "efficientnet-lite0"
    small = load_recipe("small")
    assert (small.model.backbone, small.model.kept_statistics, small.training.head_first) == (
        "efficientnet-lite0", True, 2,
    )  # fmt: skip


# --- figures


def test_figures_by_hand() -> None:
    labels, said = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    counts = m.confusion(labels, said, 3)
    assert counts.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    rows = m.per_class(counts)
    assert rows[0]["precision"] == pytest.approx(2 / 3)
    assert rows[0]["recall"] == pytest.approx(2 / 3)
    assert rows[1]["f1"] == pytest.approx(0.8)
    assert np.isnan(rows[2]["precision"])
    assert m.macro_f1(counts) == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert m.expected_calibration_error(np.array([0.95, 0.95, 0.55, 0.55]), np.array([1, 1, 1, 0])) == pytest.approx(
        0.05
    )


def test_a_temperature_makes_overconfident_logits_right() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(4000, 4))
    labels = np.array([rng.choice(4, p=np.exp(row) / np.exp(row).sum()) for row in true])
    assert m.fit_temperature(3 * true, labels) == pytest.approx(3, rel=0.1)
    raw = m.summary(3 * true, labels, "abcd", temperature=1.0, threshold=0.5)
    right = m.summary(3 * true, labels, "abcd", temperature=3.0, threshold=0.5)
    assert raw["ece"] > 0.2
    assert right["ece"] < 0.03
    assert right["ece_without_temperature"] == raw["ece"]
    assert right["decided"] < 1
    assert right["accuracy_decided"] > right["accuracy"]
    assert sum(row["unknown"] for row in right["classes"].values()) == round((1 - right["decided"]) * 4000)


def test_the_threshold_is_the_lowest_that_reaches_the_accuracy() -> None:
    confidence, correct = np.linspace(0.3, 0.99, 100), (np.arange(100) >= 50).astype(float)
    threshold, reached = m.choose_threshold(confidence, correct, 0.98)
    assert reached
    assert correct[confidence >= threshold].mean() >= 0.98
    assert threshold == pytest.approx(confidence[50], abs=0.011)
    assert m.choose_threshold(confidence, np.zeros(100), 0.98)[1] is False


def test_the_interval_of_macro_f1_is_wider_where_images_come_in_groups() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 10)
    labels = np.repeat(rng.integers(0, 2, 40), 10)
    said = np.where(np.repeat(rng.random(40) < 0.8, 10), labels, 1 - labels)
    apart, together = m.macro_f1_interval(labels, said, 2), m.macro_f1_interval(labels, said, 2, groups)
    assert together[1] - together[0] > 1.8 * (apart[1] - apart[0])


def test_the_ten_classes_are_the_published_folders(tmp_path: Path) -> None:
    assert len(CATEGORIES) == 10
    assert write_textures(tmp_path / "a", specimens=1, side=32) == 10
    write_textures(tmp_path / "b", specimens=1, side=32)
    images = [read_labelled(tmp_path / name, side=32) for name in "ab"]
    assert images[0].classes == CATEGORIES
    for one, other in zip(images[0].pixels, images[1].pixels, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(FileExistsError, match="not empty"):
        write_textures(tmp_path / "a")
