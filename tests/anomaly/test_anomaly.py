"""Models of normal tiles: fitted, saved, refused where they must be, and scored over a wafer from the command line."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import semnr
from semnr import anomaly
from semnr.anomaly.backbones import load_backbone
from semnr.anomaly.coreset import Nearest
from semnr.anomaly.features import Extractor
from semnr.anomaly.gaussian import Gaussians
from semnr.anomaly.network import Autoencoder, Layout, reconstruct
from semnr.anomaly.recipe import load_recipe
from semnr.anomaly.seen import seen
from semnr.backbones import build
from semnr.cli import main
from semnr.noise import NoiseModel
from semnr.synth import Detector, SyntheticWafer, quantise, tile
from semnr_kernels import WeightsUnavailable
from semnr_kernels.pretrained import ALEXNET, random_weights

SIDE = 64


def wafer(seed: int, tiles: int = 12, **options: Any) -> SyntheticWafer:
    return SyntheticWafer(dies=tiles, tile=SIDE, seed=seed, **options)


def film(seed: int, particle: float = 0.0) -> np.ndarray:
    """A recording of a blanket film, which a network learns within seconds; with a particle of 8 px in its middle."""
    rng = np.random.default_rng(seed)
    clean = np.full((SIDE, SIDE), rng.uniform(0.3, 0.6))
    rows, columns = np.indices(clean.shape)
    clean[np.hypot(rows - 32, columns - 32) <= 4] += particle
    return quantise(Detector().apply(clean, rng), "uint8")


def films(first: int, count: int) -> np.ndarray:
    return np.stack([film(first + i) for i in range(count)])


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> anomaly.AnomalyModel:
    """An autoencoder that learnt for seconds."""
    out = tmp_path_factory.mktemp("anomaly") / "model"
    return anomaly.fit(films(0, 16), out, recipe="toy")


@pytest.fixture
def model(fitted: anomaly.AnomalyModel, tmp_path: Path) -> Path:
    """A copy of its folder that a test may change."""
    return Path(shutil.copytree(fitted.path, tmp_path / "model"))


# --- the autoencoder


def test_a_fit_leaves_weights_facts_card_and_curves(fitted: anomaly.AnomalyModel) -> None:
    names = {path.name for path in fitted.path.iterdir()}
    assert {"model.json", "model.safetensors", "card.md", "curves.svg", "judged.jsonl", "recipe.json"} <= names
    facts = fitted.facts
    assert (fitted.kind, fitted.data_range, fitted.score_name) == ("autoencoder", 255.0, "scan")
    assert facts["tiles"]["used"] + facts["tiles"]["held_out"] == 16
    assert facts["generalisation"]["statement"]
    assert fitted.noise.gain > 0
    rows = [json.loads(line) for line in (fitted.path / "judged.jsonl").read_text().splitlines()]
    assert rows[-1]["held_out_error"] < 100
    assert min(row["held_out_error"] for row in rows) == pytest.approx(
        next(row["held_out_error"] for row in reversed(rows) if row["chosen"])
    )


def test_the_same_seed_gives_the_same_weights_and_a_resumed_run_too(tmp_path: Path) -> None:
    options = {"recipe": "toy", "changes": {"training.steps": 8, "validation.every": 4, "data.target": "gaussian"}}
    tiles = films(400, 6)
    whole = anomaly.fit(tiles, tmp_path / "a", **options)
    again = anomaly.fit(tiles, tmp_path / "b", **options)
    assert whole.facts["sha256"] == again.facts["sha256"]
    half = {**options, "changes": {**options["changes"], "training.steps": 4}}
    anomaly.fit(tiles, tmp_path / "c", **half)
    with pytest.raises(FileExistsError, match="holds a training run"):
        anomaly.fit(tiles, tmp_path / "c", **options)
    resumed = anomaly.fit(tiles, tmp_path / "c", resume=True, **options)
    assert resumed.facts["steps"] == 8


def test_noise_alone_does_not_raise_the_score_and_a_particle_does(fitted: anomaly.AnomalyModel) -> None:
    normal = fitted.scores(films(50, 6)).columns
    spoiled = fitted.scores(np.stack([film(50 + i, 0.4) for i in range(6)])).columns
    assert (spoiled["anomaly_score"] > normal["anomaly_score"].max() + 1).all()
    assert normal["anomaly_score"] == pytest.approx(normal["anomaly_scan"])
    # in units of the noise: the brightest film has far more of it than the darkest, and the errors are alike
    assert normal["anomaly_mae"] == pytest.approx(np.ones(6), abs=0.25)


def test_the_map_is_highest_at_the_particle(fitted: anomaly.AnomalyModel) -> None:
    found = fitted.scores(film(60, 0.4), with_map=True)
    assert found.map is not None
    assert found.map.shape == (1, SIDE, SIDE)
    row, col = np.unravel_index(int(np.abs(found.map[0]).argmax()), (SIDE, SIDE))
    assert abs(row - 32) < 6
    assert abs(col - 32) < 6
    boxes = json.loads(found.texts["evidence_boxes"][0] or "[]")
    assert any(abs(box["row"] - 32) < 6 and abs(box["col"] - 32) < 6 for box in boxes)


def test_a_tile_of_any_size_is_reconstructed_as_its_own_part_of_a_larger_one() -> None:
    torch.manual_seed(0)
    network = Autoencoder(Layout((8, 16), 1, 8)).eval()
    x = torch.rand(2, 45, 61)
    made = reconstruct(network, x)
    assert made.shape == x.shape
    whole = torch.rand(1, 64, 64)
    assert torch.equal(reconstruct(network, whole)[0], network(whole[:, None])[0, 0])


def test_errors_of_another_range_are_refused(fitted: anomaly.AnomalyModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data_range is 65535, the model at .* was fitted on 255"):
        fitted.scores(np.zeros((SIDE, SIDE), np.uint16))
    with pytest.raises(ValueError, match="data_range is missing"):
        fitted.scores(np.zeros((SIDE, SIDE), np.float32))
    with pytest.raises(ValueError, match="fitted on 255"):
        anomaly.score(fitted, wafer(4, 2, dtype="uint16"), tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("name", ["dists", "lpips"])
def test_errors_through_networks_are_there_when_asked_for(fitted: anomaly.AnomalyModel, name: str) -> None:
    engine = type(fitted.engine)(fitted.engine.network, fitted.noise, 255.0, "scan", (name,))  # type: ignore[attr-defined, call-arg]
    try:
        found = engine.measure(film(1, 0.4)[None].astype(np.float32)).columns
    except WeightsUnavailable as error:
        pytest.skip(str(error))
    assert found[f"anomaly_{name}"][0] > 0


# --- files


def test_what_is_no_model_is_refused_by_name(model: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable, match=r"x\.pth is refused: a \.pth file can hold pickled code"):
        anomaly.load(tmp_path / "x.pth")
    with pytest.raises(WeightsUnavailable, match=r"holds no model\.json"):
        anomaly.load(tmp_path)
    facts = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**facts, "format": "semnr-anomaly-0"}))
    with pytest.raises(
        WeightsUnavailable, match=r"model\.json has format 'semnr-anomaly-0'; accepted.*semnr-anomaly-1"
    ):
        anomaly.load(model)
    (model / "model.json").write_text(json.dumps(facts))
    tensors = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(tensors[:-4] + b"\0\0\0\1")
    with pytest.raises(WeightsUnavailable, match="does not have the checksum"):
        anomaly.load(model)
    (model / "model.safetensors").write_bytes(pickle.dumps({"network": 1}))
    with pytest.raises(WeightsUnavailable, match="holds pickled code"):
        anomaly.load(model)


def test_a_threshold_is_moved_without_touching_the_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (model / "model.safetensors").read_bytes()
    assert main(["anomaly", "threshold", str(model), "--set", "6.5"]) == 0
    assert "threshold 6.5" in capsys.readouterr().out
    loaded = anomaly.load(model)
    assert loaded.threshold is not None
    assert (loaded.threshold.value, loaded.threshold.score) == (6.5, "scan")
    assert (model / "model.safetensors").read_bytes() == before


# --- bad tiles


def test_identical_tiles_and_too_few_are_refused(tmp_path: Path) -> None:
    one = tile("lines", SIDE, seed=1).noisy(dtype="uint8")
    with pytest.raises(ValueError, match="source has 5 tiles that are all identical"):
        anomaly.fit(np.stack([one] * 5), tmp_path / "a", recipe="toy")
    with pytest.raises(ValueError, match="source has 1 tiles that can be used"):
        anomaly.fit(one[None], tmp_path / "b", recipe="toy")
    with pytest.raises(ValueError, match="no noise at all"):
        anomaly.fit(np.stack([np.full((SIDE, SIDE), v, np.uint8) for v in (9, 10, 11)]), tmp_path / "c", recipe="toy")
    assert not any((tmp_path / name).exists() for name in "abc")


def test_an_unreadable_image_is_left_out_and_counted(fitted: anomaly.AnomalyModel, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(film(80 + i)).save(folder / f"{i}.png")
    (folder / "3.png").write_bytes(b"no image")
    run = anomaly.score(fitted, folder, tmp_path / "run", threshold=5.0)
    assert run.counts == {"tiles": 4, "ok": 3, "unreadable": 1}
    assert run.exit_code == 3


def test_tiles_that_the_model_was_fitted_on_cannot_calibrate_it(fitted: anomaly.AnomalyModel, model: Path) -> None:
    with pytest.raises(ValueError, match="tiles that the model was fitted on"):
        anomaly.calibrate(model, films(0, 20))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data.patch": 30}, "data.patch is 30"),
        ({"model.code": 0}, "model.code is 0"),
        ({"data.held_out": 1}, "data.held_out is 1"),
        ({"loss.mse": 1}, "recipe has table 'loss'"),
        ({"data.faults": 2}, "data.faults is 2"),
        ({"training.part": "texture"}, "training has 'part'"),
    ],
)
def test_a_recipe_is_checked_entry_by_entry(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_recipe("toy", changes)


def test_lots_stay_on_one_side_of_the_split() -> None:
    from semnr.anomaly.normals import Tiles, split
    from semnr.tiles import TileKey

    keys = [TileKey(str(i), i, meta={"lot_id": "AABBC"[i // 2]}) for i in range(10)]
    tiles = Tiles([np.zeros((32, 32))] * 10, keys, 255.0, "uint8")
    inside, outside, how = split(tiles, 0.2, "auto")
    lots = [{keys[i].meta["lot_id"] for i in part} for part in (inside, outside)]
    assert not lots[0] & lots[1]
    assert len(outside) >= 2
    assert how.startswith("by lot_id")
    with pytest.raises(ValueError, match=r"data\.split is 'die'"):
        split(tiles, 0.2, "die")


# --- a wafer, from the command line


def test_a_wafer_is_scored_flagged_reported_and_written_as_klarf(model: Path, tmp_path: Path) -> None:
    rows = ["path,die_x,die_y,x_um,y_um"]
    for i in range(10):
        Image.fromarray(film(200 + i, 0.5 * (i % 3 == 1))).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{i % 5},{i // 5},1000,2000")
    plan = tmp_path / "plan.csv"
    plan.write_text("\n".join(rows))
    normal = tmp_path / "normal.npy"
    np.save(normal, films(300, 19))
    calibrated = main(["anomaly", "calibrate", str(model), str(normal), "--false-alarms", "0.05"])
    assert calibrated == 0
    assert (model / "calibration.svg").read_text().startswith("<svg")
    kept = json.loads((model / "calibration.json").read_text())
    assert kept["threshold"]["figures"]["rank"] == 19
    run = tmp_path / "run"
    command = ["anomaly", "score", str(model), str(plan), "--out", str(run), "-q"]
    layout = tmp_path / "wafer.toml"
    layout.write_text("pitch_um = [26000, 33000]\n")
    more = ["--maps", "--wafer", str(layout), "--klarf", "1.2", "--report", str(tmp_path / "report.html")]
    assert main([*command, *more]) == 1  # tiles are flagged
    done = semnr.Run.open(run)
    rows = done.table(["tile", "anomaly_score", "anomaly_mse", "die_x"]).to_pydict()
    assert len(rows["tile"]) == 10
    assert all(isinstance(v, float) for v in rows["anomaly_score"])
    limit = kept["threshold"]["value"]
    above = {t for t, s in zip(rows["tile"], rows["anomaly_score"], strict=True) if s > limit}
    assert set(done.flagged()) == above
    assert {1, 4, 7} <= {at for at, value in enumerate(rows["anomaly_score"]) if value > limit}
    assert done.verdict is not None
    assert done.verdict["anomaly"].status == "fired"
    assert done.exit_code == 1
    text = (tmp_path / "report.html").read_text()
    assert "Anomalies" in text
    assert "nothing of missed defects" in text
    klarf = semnr.klarf.read_klarf(run / "flagged.klarf")
    assert sum(len(one.defects) for one in klarf.wafers) == len(above)
    import zarr

    assert zarr.open_group(str(run / "maps.zarr"), mode="r")["evidence"].shape == (10, SIDE, SIDE)
    # another threshold: nothing is scored again, and other tiles are flagged
    before = sorted(path.stat().st_mtime_ns for path in (run / "tiles").iterdir())
    assert main([*command, "--resume", "--threshold", "1000", "--wafer", str(layout)]) == 0
    assert semnr.Run.open(run).flagged() == {}
    assert sorted(path.stat().st_mtime_ns for path in (run / "tiles").iterdir()) == before


def test_without_a_threshold_nothing_is_flagged_and_the_run_is_incomplete(
    fitted: anomaly.AnomalyModel, tmp_path: Path
) -> None:
    run = anomaly.score(fitted, films(8, 2), tmp_path / "run")
    assert run.exit_code == 3
    assert run.verdict is not None
    assert run.verdict["anomaly"].status == "unknown"
    assert any("calibrate" in remark for remark in run.remarks)


def test_labels_of_a_plan_calibrate_recall_first(model: Path, tmp_path: Path) -> None:
    rows = ["path,bad"]
    for i in range(8):
        Image.fromarray(film(100 + i, 0.4 * (i % 2))).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{i % 2}")
    plan = tmp_path / "plan.csv"
    plan.write_text("\n".join(rows))
    found = anomaly.calibrate(model, plan, label="bad")
    assert (found.normal.size, found.anomalous.size) == (4, 4)
    assert found.threshold.method == "recall"
    assert found.threshold.figures["recall"] >= 0.95
    assert found.auroc > 0.9
    with pytest.raises(ValueError, match="label is 'path'"):
        anomaly.calibrate(model, plan, label="path")


def test_onnx_gives_what_torch_gives_and_holds_no_threshold(fitted: anomaly.AnomalyModel, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = anomaly.export_onnx(fitted, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["reconstruction", "error"]
    x = np.stack([film(1, 0.4), film(2)]).astype(np.float32)
    engine: Any = fitted.engine
    clean = seen(x, engine.denoiser, engine.noise, engine.top, engine.scan_axis)
    made, error = session.run(None, {"tile": x[:, None], "denoised": clean[:, None]})
    expected = engine.reconstruct(x)
    assert np.abs(made[:, 0] - expected).max() <= 1e-5 * fitted.data_range
    wrong = (x - expected) / fitted.noise.sigma(expected)
    assert np.abs(error[:, 0] - wrong).max() <= 1e-5 * np.abs(wrong).max()


# --- feature models


@pytest.fixture(scope="session")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of EfficientNet-Lite0's tensors with random values: the same names and shapes as the published one."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in build("efficientnet-lite0", 1000).state_dict().items():
        shape = tuple(tensor.shape)
        if name.endswith("num_batches_tracked"):
            state[name] = tensor
        elif name.endswith("running_var"):
            state[name] = torch.ones(shape)
        elif len(shape) == 1:
            state[name] = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
        else:
            state[name] = torch.randn(shape, generator=generator) * (2 / np.prod(shape[1:])) ** 0.5
    path = tmp_path_factory.mktemp("backbone") / "lite.pth"
    torch.save(state, path)
    return path


def test_the_backbone_gives_maps_of_the_stated_strides_and_channels(lite: Path) -> None:
    backbone = load_backbone("efficientnet-lite0", lite)
    maps = backbone.maps(torch.rand(1, 1, 64, 96))
    for made, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert made.shape == (1, channels, 64 // stride, 96 // stride)
    assert len(maps) == 4


def test_a_backbone_file_that_is_none_is_refused(tmp_path: Path) -> None:
    torch.save({"_conv_stem.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(WeightsUnavailable, match="is no EfficientNet-Lite0"):
        load_backbone("efficientnet-lite0", tmp_path / "w.pth")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(WeightsUnavailable, match="refused"):
        load_backbone("efficientnet-lite0", tmp_path / "code.pth")
    with pytest.raises(WeightsUnavailable, match="does not exist"):
        load_backbone("efficientnet-lite0", tmp_path / "none.pth")
    (tmp_path / "efficientnet-lite0-57934424.pth").write_bytes(b"1")
    with pytest.raises(WeightsUnavailable, match="SHA-256"):
        load_backbone("efficientnet-lite0", tmp_path / "efficientnet-lite0-57934424.pth")
    with pytest.raises(ValueError, match="backbone is 'resnet'"):
        load_backbone("resnet")


def test_a_streamed_gaussian_is_that_of_numpy(lite: Path) -> None:
    extractor = Extractor.make(load_backbone("efficientnet-lite0", lite), 255.0, 6, 0, None, NoiseModel(1.0, 4.0))
    tiles = [tile("lines", 32, seed=i).noisy(dtype="uint8").astype(np.float32) for i in range(12)]
    made = Gaussians.fit(extractor, (32, 32), iter(tiles))
    vectors = extractor(torch.from_numpy(np.stack(tiles))).numpy().astype(np.float64)
    np.testing.assert_allclose(made.mean.numpy(), vectors.mean(axis=0), atol=1e-4)
    place = 17
    spread = np.cov(vectors[:, place].T) + 0.01 * np.eye(6)
    away = vectors[0, place] - vectors[:, place].mean(axis=0)
    expected = float(np.sqrt(away @ np.linalg.solve(spread, away)))
    got = float(torch.linalg.vector_norm(made.whitening[place] @ (torch.tensor(away).float())))
    assert got == pytest.approx(expected, rel=1e-3)


def test_memory_is_said_before_the_fit_and_is_that_of_what_is_made(lite: Path, tmp_path: Path) -> None:
    said: list[str] = []
    model = anomaly.fit(
        wafer(3, 4), tmp_path / "padim", kind="padim", weights=lite, denoiser=None, dims=8, say=said.append
    )  # fmt: skip
    assert said[0].startswith("memory: ")
    places = (SIDE // 4) ** 2
    assert model.facts["memory"]["sums"] == places * 8 * 9 * 8
    held = sum(value.numel() * value.element_size() for n, value in model.engine.tensors().items() if n != "chosen")
    assert model.facts["memory"]["result"] == held


@pytest.mark.parametrize("kind", ["padim", "patchcore"])
def test_a_feature_model_finds_a_particle_and_survives_its_file(kind: str, lite: Path, tmp_path: Path) -> None:
    scene = tile("lines", SIDE, seed=1)
    site = [scene.noisy(seed=i, dtype="uint8") for i in range(18)]
    denoiser = "gaussian" if kind == "padim" else None
    options: dict[str, Any] = {"kind": kind, "weights": lite, "denoiser": denoiser, "dims": 12, "coreset": 60}
    model = anomaly.fit(np.stack(site[:16]), tmp_path / "m", **options)
    assert json.loads((tmp_path / "m" / "model.json").read_text())["denoiser"] == denoiser
    again = anomaly.load(tmp_path / "m")
    spoiled = site[16].copy()
    spoiled[24:40, 24:40] = 255 * (np.indices((16, 16)).sum(axis=0) // 4 % 2)  # no weights are trained here
    scores = model.scores(np.stack([*site[16:], spoiled]), with_map=True)
    values = scores.columns["anomaly_score"]
    assert values[-1] > values[:-1].max()
    assert scores.map is not None
    row, col = np.unravel_index(int(scores.map[-1].argmax()), (SIDE, SIDE))
    assert abs(row - 32) <= 12
    assert abs(col - 32) <= 12
    np.testing.assert_allclose(again.scores(spoiled).columns["anomaly_score"], values[-1:], rtol=1e-3)
    if kind == "padim":
        with pytest.raises(ValueError, match="accepted by this model: 64 x 64"):
            model.scores(np.zeros((48, 64), np.uint8))
    with pytest.raises(FileExistsError, match="holds a model"):
        anomaly.fit(np.stack(site[:4]), tmp_path / "m", kind=kind, weights=lite)
    with pytest.raises(ValueError, match="denoiser: model is 'blur'"):
        anomaly.fit(np.stack(site[:4]), tmp_path / "n", kind=kind, weights=lite, denoiser="blur")
    with pytest.raises(ValueError, match="accepted: 'autoencoder'"):
        anomaly.export_onnx(model, tmp_path / "x.onnx")


def test_the_coreset_has_its_size_and_covers_what_it_is_drawn_from(tmp_path: Path) -> None:
    weights = tmp_path / "alexnet.pth"
    torch.save({f"features.{k}": v for k, v in random_weights(ALEXNET).state.items()}, weights)
    extractor = Extractor.make(load_backbone("alexnet", weights), 255.0, 5, 0, None, NoiseModel(1.0, 4.0))
    tiles = [tile("holes", 32, seed=i).noisy(dtype="uint8").astype(np.float32) for i in range(6)]
    made = Nearest.fit(extractor, 12, 0, iter(tiles))
    again = Nearest.fit(extractor, 12, 0, iter(tiles))
    assert made.bank.shape == (12, 5)
    assert torch.equal(made.bank, again.bank)
    every = extractor(torch.from_numpy(np.stack(tiles))).flatten(0, 1)
    assert float((made.bank[:, None] - every[None]).square().sum(dim=2).amin(dim=1).max()) < 1e-3 * float(
        every.abs().max()
    )
    radius = float(torch.cdist(every, made.bank).amin(dim=1).max())
    drawn = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:12]]
    assert radius <= float(torch.cdist(every, drawn).amin(dim=1).max())
    with pytest.raises(ValueError, match="coreset is 0"):
        Nearest.fit(extractor, 0, 0, iter(tiles))
