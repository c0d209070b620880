"""The learned denoiser: tiles equal the whole, scales cancel, nothing comes from nothing."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from untrained import SMALL, WIDE, network

import semnr
from semnr.denoising import (
    NoiseModel,
    denoise,
    denoise_frames,
    drift,
    estimate_noise,
    estimate_noise_frames,
    export_onnx,
    fuse,
)
from semnr.denoising import weights as weight_files
from semnr.denoising.network import Layout, SemDenoiser
from semnr.noise.family import figures, remarks
from semnr.synth import Detector, tile
from semnr.tiles import TileKey, create_tiles
from semnr_kernels.errors import WeightsUnavailable


def noisy(shape: tuple[int, int] = (131, 157), seed: int = 2, pattern: str = "metal") -> np.ndarray:
    return tile(pattern, shape, seed=1).noisy(seed=seed, dtype="uint8")


# --- the network


@pytest.mark.parametrize("layout", [SMALL, Layout((32, 96), (2,), 4), Layout((4, 8, 8), (1, 2), 1)], ids=str)
def test_a_pixel_depends_on_no_more_than_the_stated_reach(layout: Layout) -> None:
    model, reach = network(layout).double(), layout.reach
    assert layout.halo >= reach
    assert layout.halo % layout.align == 0
    side = layout.align * (-(-(2 * reach + 24) // layout.align))
    x = torch.randn(1, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    law = torch.tensor([[0.3, 4.0, 0.1, 0.0, 0.4, 0.2, 0.5]], dtype=torch.float64)
    farthest = 0
    with torch.no_grad():
        before = model(x, law)
        for step in range(layout.align):  # every place within a unit of the coarsest level
            at = torch.tensor([side // 2 + step, side // 2 - step])
            changed = x.clone()
            changed[0, 0, at[0], at[1]] += 3
            touched = torch.nonzero((model(changed, law) != before)[0, 0])
            farthest = max(farthest, int((touched - at).abs().max()))
    assert farthest <= reach
    assert farthest >= reach - layout.align  # and the statement is not a loose one


def test_the_small_model_keeps_its_budget_of_weights_and_multiplications() -> None:
    model = SemDenoiser()
    assert model.parameter_count() == 785_956
    assert model.macs() == pytest.approx(62_232)
    assert model.macs(textured=True) == pytest.approx(67_448)
    counted = 0.0
    side = 64

    def count(module: Any, _: Any, out: torch.Tensor) -> None:
        nonlocal counted
        transposed = isinstance(module, torch.nn.ConvTranspose2d)
        counted += out[0, 0].numel() * module.weight.numel() / (4 if transposed else 1) / side**2

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 1, side, side), torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]))
    assert counted == pytest.approx(model.macs(textured=True))


def test_the_bands_of_the_removed_noise_add_up_to_all_but_its_finest() -> None:
    part = SemDenoiser().grain
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    bands = part.bands(x)
    expected = ndimage.gaussian_filter(x[0, 0].numpy(), 0.7, radius=8, mode="constant")
    np.testing.assert_allclose(bands.sum(dim=1)[0], expected, atol=1e-5)
    inner = part.bands(torch.ones(1, 1, 64, 64))[0, :, 16:-16, 16:-16]
    torch.testing.assert_close(inner[-1], torch.ones(32, 32))  # a level is in the coarsest band alone
    torch.testing.assert_close(inner[:-1], torch.zeros(3, 32, 32), rtol=0, atol=1e-6)


def test_texture_is_given_back_by_a_part_that_the_rest_does_not_learn_from() -> None:
    model = network()
    x = torch.rand(3, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    law = torch.tensor([[0.01, 1e-3, 1e-4, 0.5, 0.4, 0.1, 0.0]]).repeat(3, 1)
    asking = law.clone()
    asking[:, -1] = 1
    torch.testing.assert_close(model(x, law), model.plain(x, law), rtol=0, atol=0)
    plain, textured = model.both(x, law, 2)
    torch.testing.assert_close(plain, model.plain(x, law), rtol=0, atol=0)
    torch.testing.assert_close(textured, model(x, asking)[:2], rtol=0, atol=1e-6)
    assert (textured - plain[:2]).abs().max() > 0.01
    textured.square().sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.network.parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.grain.parameters())


def test_noise_that_grows_with_the_signal_is_one_noise_to_the_network() -> None:
    """What it sees has variance 1 in the dark and in the bright, up to the edge between them."""
    scene = np.full((64, 512), 0.06)
    scene[:, 256:] = 0.8
    tool = Detector(dose=300, read_noise=0.01, row_noise=0.0, correlation=0.0)
    x = torch.from_numpy(tool.apply(scene, np.random.default_rng(0)).astype(np.float32))[None, None]
    gain, offset = tool.law().gain, tool.law().offset
    law = torch.tensor([[gain, offset, 1e-5, 0.4, 0.0, 0.0, 0.0]], dtype=torch.float32)
    seen = torch.nn.functional.pixel_shuffle(SemDenoiser(SMALL).cells(x, law)[0][:, :4], 2)[0, 0]
    for columns in (slice(0, 248), slice(248, 256), slice(256, 264), slice(264, 512)):
        assert float(seen[:, columns].std()) == pytest.approx(1, abs=0.1)
    assert float(seen[:, :256].mean()) < float(seen[:, 256:].mean()) - 10


@pytest.mark.parametrize(
    "given", [{"widths": []}, {"widths": [8, 0]}, {"widths": [8, 8], "blocks": []}, {"middle": True}, {"width": [8]}]
)
def test_a_layout_that_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"layout|blocks has"):
        Layout.of(given)


# --- as a model of the runner


@pytest.mark.parametrize("side", [16, 50, 101])
def test_tiles_give_the_result_of_the_whole_image(weights: Path, side: int) -> None:
    x = noisy().astype(np.float64)
    whole = denoise(x, model=str(weights), tile=4096, workers=1)
    assert np.abs(whole - x).max() > 5
    assert np.abs(denoise(x, model=str(weights), tile=side) - whole).max() <= 1e-5 * 255


@pytest.mark.parametrize("options", [{"ensemble": 4}, {"ensemble": 2, "batch": 3}], ids=str)
def test_tiles_of_an_ensemble_give_the_result_of_the_whole_image(weights: Path, options: dict[str, Any]) -> None:
    x = noisy().astype(np.float64)
    whole = denoise(x, model=str(weights), tile=4096, workers=1, ensemble=options["ensemble"])
    assert np.abs(whole - denoise(x, model=str(weights))).max() > 1
    assert np.abs(denoise(x, model=str(weights), tile=50, **options) - whole).max() <= 1e-5 * 255


@pytest.mark.parametrize(("ensemble", "axes"), [(2, (1,)), (4, (0,)), (4, (1,)), (4, (0, 1))])
def test_an_ensemble_does_not_depend_on_how_the_image_lies(weights: Path, ensemble: int, axes: tuple[int, ...]) -> None:
    x, noise = noisy((128, 160)).astype(np.float64), NoiseModel(gain=0.4, offset=60.0)
    options: dict[str, Any] = {"model": str(weights), "noise": noise, "data_range": 255.0}
    as_it_lies, mirrored = (denoise(v, ensemble=ensemble, **options) for v in (x, np.flip(x, axes)))
    np.testing.assert_allclose(np.flip(mirrored, axes), as_it_lies, rtol=0, atol=1e-3)
    one, other = (denoise(v, **options) for v in (x, np.flip(x, axes)))
    assert np.abs(np.flip(other, axes) - one).max() > 1


def test_a_shipped_model_has_an_ensemble_of_its_own(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "FOLDER", weights.parent)
    shipped = weight_files.Shipped(weights.name, weight_files.load(weights).sha256, "", 4)
    monkeypatch.setitem(weight_files.SHIPPED, "semnr-base", shipped)
    four = denoise(noisy(), model=str(weights), ensemble=4)
    np.testing.assert_array_equal(denoise(noisy(), model="semnr-base"), four)
    np.testing.assert_array_equal(
        denoise(noisy(), model="semnr-base", ensemble=1), denoise(noisy(), model=str(weights))
    )


def test_a_halo_below_the_reach_is_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match=f"halo is 8; accepted for model .* at least {SMALL.halo}"):
        denoise(noisy(), model=str(weights), halo=8)


@pytest.mark.parametrize(("gain", "offset"), [(7.0, 1000.0), (1 / 255, 0.0), (0.01, -40_000.0)])
def test_gain_and_offset_of_the_recording_cancel(weights: Path, gain: float, offset: float) -> None:
    # no integers: a pedestal rounds the pixels, and what ties in the estimate of the noise would then fall another way
    x = noisy() + np.random.default_rng(0).uniform(-0.5, 0.5, (131, 157))
    expected = gain * denoise(x, model=str(weights)) + offset
    np.testing.assert_allclose(denoise(gain * x + offset, model=str(weights)), expected, rtol=0, atol=2e-3 * gain)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("level", [0, 7])
def test_an_image_without_noise_comes_back_as_it_is(weights: Path, dtype: str, level: int) -> None:
    x = np.full((64, 80), level, dtype)
    out = denoise(x, model=str(weights))
    assert out.dtype == x.dtype
    np.testing.assert_array_equal(out, x)


def test_twelve_bits_in_sixteen_are_denoised_as_eight_bits_are(weights: Path) -> None:
    clean = tile("metal", (96, 128), seed=1)
    fine = clean.noisy(seed=2, dtype="uint16", data_range=4095)
    coarse = clean.noisy(seed=2, dtype="float64")
    a = denoise(fine, model=str(weights), data_range=4095) / 4095
    b = np.clip(denoise(coarse, model=str(weights), data_range=1.0), 0, 1)  # integers end at their range
    assert np.abs(a - b).max() < 2e-3


@pytest.mark.parametrize(("precision", "bound"), [("bfloat16", 0.02), ("float16", 0.003)])
def test_half_precision_stays_within_its_stated_error(weights: Path, precision: str, bound: float) -> None:
    x = noisy().astype(np.float64)
    full, half = (denoise(x, model=str(weights), precision=p) for p in ("float32", precision))
    error = np.abs(half - full)
    assert error.max() > 0
    assert error.std() < bound * estimate_noise(noisy()).sigma()


def test_the_shipped_network_denoises_in_half_precision_within_the_stated_error() -> None:
    x = noisy((192, 256)).astype(np.float64)
    options: dict[str, Any] = {"model": "semnr-small", "data_range": 255.0}
    full = denoise(x, **options)
    for precision, bound in (("bfloat16", 0.03), ("float16", 0.004)):  # sigma of the noise, rms: as the docs state
        half = denoise(x, precision=precision, **options)
        assert np.sqrt(np.mean((half - full) ** 2)) < bound * estimate_noise(noisy((192, 256))).sigma()


def test_edges_under_a_wide_beam_do_not_come_out_sharper() -> None:
    from semnr.trust.changes import columns

    peaks = []
    for seed in range(4):
        scene = tile("lines" if seed % 2 else "holes", 384, seed=90 + seed)
        x, y = scene.noisy(dtype="uint8"), np.rint(255 * scene.clean).astype("uint8")
        d = denoise(x, model="semnr-small", data_range=255.0)
        peaks.append(float(columns(x[None, None], d[None, None], y[None, None], data_range=255.0)["transfer_peak"][0]))
    assert np.nanmedian(peaks) < 1.08, peaks  # what over_sharpening holds single tiles to is 1.12


def test_asking_for_texture_keeps_more_of_it() -> None:
    tool = Detector(dose=150, read_noise=0.01, row_noise=0.0)
    scene = tile("lines", 256, seed=3).clean
    rng = np.random.default_rng(0)
    grain = 0.02 * ndimage.gaussian_filter(rng.standard_normal(scene.shape), 1.2) / 0.23
    x = np.clip(np.rint(255 * tool.apply(scene + grain, rng)), 0, 255)
    kept = []
    for texture in (0.0, 1.0):
        d = denoise(x, model="semnr-small", data_range=255.0, texture=texture) / 255
        kept.append(float(((d - scene) * grain).sum() / (grain * grain).sum()))
    assert kept[0] < kept[1] - 0.05
    assert kept[1] > 0.5


@pytest.mark.parametrize("options", [{"batch": 4}, {"batch": 3, "tile": 40}, {"batch": 2, "precision": "bfloat16"}])
def test_batches_give_what_single_windows_give(weights: Path, options: dict[str, Any]) -> None:
    stack = np.stack([noisy((100, 90), seed=k) for k in range(5)]).astype(np.float64)
    alone = denoise(stack, model=str(weights), workers=1, **{**options, "batch": 1})
    together = denoise(stack, model=str(weights), workers=4, **options)
    assert np.abs(alone - stack).max() > 1
    np.testing.assert_allclose(together, alone, rtol=0, atol=0.2 if "precision" in options else 2e-4)


def test_a_batch_that_fails_fails_in_every_thread_that_waits_for_it() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from semnr.denoising.batches import Batches

    sizes: list[int] = []

    def forward(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if bool((batch < 0).any()):
            raise RuntimeError("out of memory")
        return 2 * batch

    batches = Batches(forward, torch.device("cpu"), 4, 2)
    with ThreadPoolExecutor(8) as pool:
        windows = [torch.full((8, 8 + 4 * (k % 2)), float(k)) for k in range(40)]
        for window, found in zip(windows, pool.map(batches, windows), strict=True):
            torch.testing.assert_close(found, 2 * window)
        assert sum(sizes) == 40
        assert max(sizes) <= 4
        for failing in [pool.submit(batches, -window - 1) for window in windows[:6]]:
            with pytest.raises(RuntimeError, match="out of memory"):
                failing.result()
        torch.testing.assert_close(batches(windows[1]), 2 * windows[1])  # and goes on


def test_a_compiled_network_gives_what_the_network_gives(weights: Path) -> None:
    import shutil

    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    x = noisy((96, 100)).astype(np.float64)
    plain, compiled = (denoise(x, model=str(weights), compiled=c, workers=1) for c in (False, True))
    assert np.abs(plain - x).max() > 1
    np.testing.assert_allclose(compiled, plain, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "precision is 'int8'; accepted: 'float32', 'bfloat16', 'float16'"),
        ({"vst": True}, "takes the noise law itself"),
        ({"strength": 1.0}, "strength is no parameter"),
        ({"texture": 0.5}, "texture is 0.5, but .* was trained without loss.grain"),
        ({"texture": 1.5}, "texture is 1.5; accepted: a number from 0"),
        ({"batch": 0}, "batch is 0; accepted: an integer of at least 1"),
        ({"ensemble": 3}, "ensemble is 3; accepted: 1, 2, 4"),
        ({"ensemble": True}, "ensemble is True; accepted: 1, 2, 4"),
    ],
)
def test_what_a_network_has_no_use_for_is_refused(weights: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        denoise(noisy(), model=str(weights), **options)


@pytest.mark.parametrize(("bright", "level"), [(True, 1.3), (False, -0.3)])
def test_levels_that_are_cut_off_do_not_explode(bright: bool, level: float) -> None:
    """Saturated metal, a black ground: no noise is measured there, and the fitted law may fall with the signal."""
    scene = np.full((256, 256), 0.45)
    scene[96:160, 40:220] = level
    rng = np.random.default_rng(0)
    x = np.clip(scene + 0.08 * rng.standard_normal(scene.shape), 0, 1).astype(np.float32)
    truth = np.clip(scene, 0, 1)
    laws = [estimate_noise(x, data_range=1.0), NoiseModel(gain=-0.0174, offset=0.0174)]
    for noise in laws:
        d = denoise(x, model="semnr-small", noise=noise, data_range=1.0)
        assert np.sqrt(np.mean((d - truth) ** 2)) < 0.5 * np.sqrt(np.mean((x - truth) ** 2))
        assert np.abs(d - truth)[100:156, 50:210].max() < 0.1  # nothing is invented where there is no noise


def test_an_input_outside_the_training_family_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "narrow.safetensors"
    weight_files.save(network(), path, family={"correlation": (0.0, 0.2)}, about={})
    with pytest.warns(UserWarning, match="outside the training noise family: correlation .* trained on 0 to 0.2"):
        denoise(noisy(), model=str(path))
    with create_tiles(tmp_path / "in.zarr", count=2, roles=("noisy",)) as writer:
        for k in range(2):
            writer.write(TileKey(f"t{k:06d}", k), noisy((64, 64), seed=k), "noisy")
    done = denoise(tmp_path / "in.zarr", tmp_path / "out.zarr", model=str(path))
    assert any("outside the training noise family" in remark for remark in done.remarks)
    assert done.to_dict()["remarks"]
    apart = denoise(tmp_path / "in.zarr", tmp_path / "apart.zarr", model=str(path), noise="image")
    assert apart.remarks[0].startswith("2 tile(s), the first one t000000: outside the training noise family")


def test_an_input_of_the_training_family_is_not_reported(weights: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoise(noisy(), model=str(weights))


def test_figures_of_the_family_do_not_depend_on_gain_and_offset() -> None:
    x = noisy((200, 200)).astype(np.float64)
    a = figures(estimate_noise(x), [x])
    b = figures(estimate_noise(3 * x + 500), [3 * x + 500])
    assert a.keys() == b.keys() >= {"correlation", "contrast", "growth"}
    for name in ("correlation", "contrast", "growth"):
        assert a[name] == pytest.approx(b[name], rel=1e-6)
    assert remarks({"contrast": 3.0}, {"contrast": (1.0, 4.0)}) == ()


# --- weights


def test_weights_come_back_as_they_were_saved(weights: Path) -> None:
    loaded = weight_files.load(weights)
    assert loaded.network.layout == SMALL
    assert loaded.family == WIDE
    for name, value in network().state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], value, rtol=0, atol=0)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.safetensors" for k in range(2)]
    digests = {weight_files.save(network(), path, family=WIDE, about={"a": 1, "b": 2}) for path in paths}
    assert len(digests) == 1
    assert paths[0].read_bytes() == paths[1].read_bytes()


def damaged(path: Path, how: str, source: Path) -> None:
    content = bytearray(source.read_bytes())
    if how == "cut":
        path.write_bytes(content[:-100])
    elif how == "text":
        path.write_text("no weights")
    elif how == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(2)}, str(path))
    elif how == "nan":
        model = network()
        with torch.no_grad():
            model.network.head.weight[0, 0, 0, 0] = torch.nan
        weight_files.save(model, path, family={}, about={})


@pytest.mark.parametrize("how", ["cut", "text", "foreign", "nan", "missing"])
def test_weights_that_are_none_are_refused_by_name(tmp_path: Path, weights: Path, how: str) -> None:
    path = tmp_path / "bad.safetensors"
    damaged(path, how, weights)
    with pytest.raises(WeightsUnavailable, match=r"bad\.safetensors"):
        denoise(noisy(), model=str(path))


def test_shipped_weights_have_the_published_checksum(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shipped in weight_files.SHIPPED.values():
        assert (
            weight_files.load(next(k for k, v in weight_files.SHIPPED.items() if v is shipped)).sha256 == shipped.sha256
        )
    monkeypatch.setattr(weight_files, "FOLDER", weights.parent)
    monkeypatch.setitem(weight_files.SHIPPED, "semnr-small", weight_files.Shipped(weights.name, "0" * 64, ""))
    with pytest.raises(WeightsUnavailable, match="damaged or altered"):
        denoise(noisy(), model="semnr-small")
    found = weight_files.load(weights).sha256
    monkeypatch.setitem(weight_files.SHIPPED, "semnr-small", weight_files.Shipped(weights.name, found, ""))
    np.testing.assert_array_equal(denoise(noisy(), model="semnr-small"), denoise(noisy(), model=str(weights)))


def test_weights_are_shipped_with_their_card_and_checksum(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_files, "FOLDER", tmp_path / "models")
    monkeypatch.setattr(weight_files, "SHIPPED", {})
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(WeightsUnavailable, match="no candidate passed"):
        weight_files.ship(run, "semnr-small")
    (run / "best.safetensors").write_bytes(weights.read_bytes())
    (run / "card.md").write_text("card")
    weight_files.ship(run, "semnr-small", "a summary")
    registry = weight_files._registry()
    assert registry["semnr-small"].sha256 == weight_files.load(weights).sha256
    assert (tmp_path / "models" / "semnr-small.md").read_text() == "card"
    np.testing.assert_array_equal(denoise(noisy(), model="semnr-small"), denoise(noisy(), model=str(weights)))


def test_a_model_without_weights_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(weight_files.SHIPPED, "semnr-small", raising=False)
    with pytest.raises(WeightsUnavailable, match="semnr train denoiser"):
        semnr.denoise(noisy(), model="semnr-small")


@pytest.mark.parametrize("ensemble", [1, 4])
def test_onnx_gives_what_the_network_gives(
    tmp_path: Path, weights: Path, ensemble: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_files, "ensemble_of", lambda name: ensemble)
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = export_onnx(weights, tmp_path / "m.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["semnr"])
    assert facts["halo"] == SMALL.halo
    assert facts["law"] == ["gain", "offset", "floor", "centre", "correlation_1", "correlation_2", "texture"]
    model = weight_files.load(weights).network
    assert model.ensemble == ensemble
    law = np.array([[0.02, 1e-4, 1e-4, 0.3, 0.4, 0.2, 0.5]] * 2, np.float32)
    for shape in ((2, 1, 64, 64), (2, 1, 36, 100)):  # not the size it was exported with
        x = np.random.default_rng(0).random(shape, np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(x), torch.from_numpy(law)).numpy()
        assert np.abs(expected - x).max() > 0.05
        np.testing.assert_allclose(session.run(None, {"noisy": x, "law": law})[0], expected, rtol=0, atol=2e-6)


# --- frames of one site


@pytest.mark.parametrize("moved", [(0.0, 0.0), (1.3, -0.7), (-4.45, 2.2)])
def test_drift_between_noisy_frames_is_found_to_a_tenth_of_a_pixel(moved: tuple[float, float]) -> None:
    clean = tile("holes", 296, seed=3).clean  # structure in both directions
    rng = np.random.default_rng(5)
    other = np.clip(ndimage.shift(clean, moved, order=3, mode="nearest"), 0, 1)
    a, b = (Detector().apply(x, rng)[20:276, 20:276] for x in (clean, other))
    np.testing.assert_allclose(drift(a, b), moved, rtol=0, atol=0.1)


def test_frames_that_drift_are_fused_without_blur() -> None:
    clean = tile("holes", 296, seed=3).clean
    rng = np.random.default_rng(6)
    shifts = [(0.0, 0.0), (0.8, 1.4), (-1.6, 0.5), (2.2, -1.1)]
    frames = [
        Detector().apply(np.clip(ndimage.shift(clean, s, order=3, mode="nearest"), 0, 1), rng)[20:276, 20:276]
        for s in shifts
    ]
    truth, inner = clean[20:276, 20:276], np.s_[12:-12, 12:-12]

    def error(x: np.ndarray) -> float:
        return float(((x - truth)[inner] ** 2).mean())

    fused, moved = fuse(frames)
    np.testing.assert_allclose(moved, shifts, rtol=0, atol=0.15)
    assert error(fused) < 0.35 * error(frames[0])  # four frames: a quarter of the noise
    assert error(fuse(frames, register=False)[0]) > 1.3 * error(fused)


def test_noise_of_frames_is_that_of_the_tool_even_on_texture() -> None:
    rng = np.random.default_rng(7)
    texture = np.clip(0.5 + 0.15 * rng.standard_normal((256, 256)), 0, 1)  # as fine as the noise itself
    tool = Detector(dose=60, read_noise=0.02, row_noise=0.0, correlation=0.4)
    frames = [tool.apply(texture, rng) for _ in range(3)]
    found = estimate_noise_frames(frames, data_range=1.0)
    assert found.variance(0.5) == pytest.approx(tool.law().variance(0.5), rel=0.06)
    assert found.correlation[0] == pytest.approx(0.4, abs=0.03)
    assert estimate_noise(frames[0], data_range=1.0).variance(0.5) > 2 * found.variance(0.5)  # a frame alone cannot


def test_frames_are_denoised_as_their_mean(weights: Path) -> None:
    frames = np.stack([noisy((96, 96), seed=k) for k in range(3)])
    out = denoise_frames(frames, model="gaussian", register=False)
    assert out.dtype == np.uint8
    expected = denoise(frames.mean(axis=0), model="gaussian")
    np.testing.assert_array_equal(out, np.clip(np.rint(expected), 0, 255))
    assert denoise_frames(frames, model=str(weights)).shape == (96, 96)


@pytest.mark.parametrize(
    "frames", [[np.zeros((64, 64))], [np.zeros((64, 64)), np.zeros((64, 65))], np.zeros((2, 8, 8))]
)
def test_what_are_no_frames_of_a_site_is_refused(frames: Any) -> None:
    with pytest.raises(ValueError, match="frames has"):
        fuse(frames)


def test_noise_given_by_hand_is_taken(weights: Path) -> None:
    x = noisy((64, 64)).astype(np.float64)
    a, b = (denoise(x, model=str(weights), noise=NoiseModel(gain, 50.0)) for gain in (0.5, 4.0))
    assert np.abs(a - b).max() > 0.1
