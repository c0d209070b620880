"""The training of the denoiser: recordings, losses, recipes, and runs of a small network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from untrained import network

from semnr.denoising import denoise
from semnr.denoising import weights as weight_files
from semnr.denoising.network import Layout, SemDenoiser
from semnr.losses import DISTSLoss, LPIPSLoss
from semnr.synth import Detector, tile
from semnr.tiles import TileKey, create_tiles
from semnr.training.noise import KERNELS, Family, Tools, correlated, second_lag

# --- the generator of recordings


def test_recordings_follow_the_law_that_they_state() -> None:
    generator = torch.Generator().manual_seed(0)
    family = Family(gain=(0.8, 1.0), offset=(0.1, 0.15), sigma=(0.02, 0.06), row=(0.0, 0.2))
    tools = Tools.draw(8, family, generator)
    scene = torch.full((8, 1, 256, 256), 0.4)
    noise = tools.noisy(scene, generator) - tools.recorded(scene)
    law = tools.law()
    level = tools.recorded(scene)[:, 0, 0, 0]
    expected = law[:, 0] * level + law[:, 1]
    measured = noise.var(dim=(1, 2, 3))
    np.testing.assert_allclose(measured, expected, rtol=0.06)
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean(dim=(1, 2, 3)) / measured
    np.testing.assert_allclose(neighbours, law[:, 4], rtol=0, atol=0.04)
    next_but_one = (noise[..., 2:] * noise[..., :-2]).mean(dim=(1, 2, 3)) / measured
    np.testing.assert_allclose(next_but_one, law[:, 5], rtol=0, atol=0.04)
    below = (noise[..., 1:, :] * noise[..., :-1, :]).mean(dim=(1, 2, 3)) / measured
    np.testing.assert_allclose(below, 0, rtol=0, atol=0.04)


@pytest.mark.parametrize("kernel", KERNELS)
def test_correlated_noise_has_variance_one_in_every_column(kernel: str) -> None:
    generator = torch.Generator().manual_seed(1)
    rho = torch.tensor([0.3, 0.5, 0.7]).reshape(-1, 1, 1, 1)
    pole = torch.tensor([0.0, 0.2, 0.5]).reshape(-1, 1, 1, 1)
    noise = correlated(torch.randn(3, 1, 4000, 64, generator=generator), rho, kernel, pole)
    np.testing.assert_allclose(noise.var(dim=2).numpy(), 1, rtol=0, atol=0.15)
    lag = (noise[..., 20:-20] * noise[..., 21:-19]).mean(dim=(1, 2, 3))
    np.testing.assert_allclose(lag, rho.flatten(), rtol=0, atol=0.13 if kernel == "gaussian" else 0.01)
    lag = (noise[..., 20:-20] * noise[..., 22:-18]).mean(dim=(1, 2, 3))
    np.testing.assert_allclose(
        lag, second_lag(rho, kernel, pole).flatten(), rtol=0, atol=0.13 if kernel == "gaussian" else 0.01
    )


def test_the_tool_of_the_wafers_is_a_tool_of_the_generator() -> None:
    wafer = Detector(dose=80, read_noise=0.02, row_noise=0.004, correlation=0.47, gain=0.9, offset=0.05)
    one = {name: torch.full((1, 1, 1, 1), float(value)) for name, value in (
        ("electrons", 80), ("read", 0.02), ("correlation", 0.47), ("row", 0.004), ("gain", 0.9), ("offset", 0.05),
    )}  # fmt: skip
    tools = Tools(
        **one, rounded=torch.zeros(1, 1, 1, 1, dtype=torch.bool), kernel="first_order", pole=torch.zeros(1, 1, 1, 1)
    )
    law = wafer.law()
    np.testing.assert_allclose(tools.law()[0, :2], (law.gain, law.offset), rtol=1e-5)


@pytest.mark.parametrize(
    "given", [{"sigma": [0.2, 0.1]}, {"kernel": "pink"}, {"correlation": [0.0, 0.99]}, {"rounded": 2.0}, {"sigmas": 1}]
)
def test_a_family_that_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="noise"):
        Family.of(given)


# --- losses and blind spots


def test_each_term_of_the_loss_is_least_at_the_target() -> None:
    from semnr.training.config import TERMS, load_recipe
    from semnr.training.data import Batches
    from semnr.training.loss import TrainingLoss

    large = {"scenes.count": 4, "data.batch": 4, "scenes.side": 128, "data.patch": 128}
    batch = next(iter(Batches(load_recipe("toy", large))))
    assert batch["specks"].abs().sum() > 0
    stands_in = {"dists": DISTSLoss(1.0, weights="random"), "lpips": LPIPSLoss(1.0, net="alex", weights="random")}
    for term in TERMS["synthetic"]:
        loss = TrainingLoss({term: 1.0}, 8)
        loss.networks = stands_in  # the trained weights may not be there
        worse = torch.nn.functional.avg_pool2d(batch["target"], 5, 1, 2)
        if term == "sharpening":
            worse = 2 * batch["target"] - worse
        asked = term == "grain"  # the others count either way
        at, away = (float(loss(x, batch, asked)[0]) for x in (batch["target"], worse))
        assert at < 0.02, term
        assert away > at + 3e-4, term
        x = worse.clone().requires_grad_()
        loss(x, batch, asked)[0].backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all(), term
        assert x.grad.abs().sum() > 0, term


def test_a_wiped_out_defect_costs_and_a_kept_one_does_not() -> None:
    from semnr.training.loss import _defects

    shape = torch.zeros(1, 2, 32, 32)
    shape[0, 0, 10:14, 10:14] = 0.3
    sigma = torch.full((1, 1, 1, 1), 0.06)
    gone, half, kept = (float(_defects(-share * shape.sum(1, keepdim=True), shape, sigma)) for share in (1.0, 0.5, 0.0))
    assert kept == 0
    assert half == pytest.approx(gone / 4)
    z2 = 16 * 25  # 16 px of 5 sigma
    assert gone == pytest.approx(z2 / (z2 + 25), rel=1e-4)


def test_a_hidden_pixel_and_its_neighbours_on_the_line_are_not_seen() -> None:
    from semnr.training.data import hide

    x = torch.arange(64 * 64, dtype=torch.float32).reshape(1, 1, 64, 64)
    hidden, where = hide(x, 0.002, 3, np.random.default_rng(0))
    assert 0 < int(where.sum()) <= 8
    for _, _, row, col in torch.nonzero(where).tolist():
        strip = hidden[0, 0, row, max(0, col - 3) : col + 4]
        assert not torch.isin(strip, x[0, 0, row]).any()  # no value of its own line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss.ssim": 0.1, "data.mode": "noise2noise", "data.source": "x"}, "loss has 'charbonnier'|loss has 'ssim'"),
        ({"data.mode": "guess"}, "data.mode is 'guess'; accepted: 'synthetic'"),
        ({"data.patch": 66}, "data.patch is 66; accepted with this model: a multiple of 4"),
        ({"training.precision": "8"}, "training.precision is '8'"),
        ({"training.optimiser": "sgd"}, "training.optimiser is 'sgd'; accepted: 'adamw', 'muon'"),
        ({"scenes.shares": {"clouds": 1.0}}, "scenes.shares has 'clouds'"),
        ({"traning.steps": 5}, "recipe has table 'traning'"),
        ({"training.step": 5}, "training has 'step'"),
        ({"loss.texture": -1}, "loss.texture is -1"),
        ({"training.part": "texture"}, "training.part is 'texture'; accepted: 'all', or 'texture' with loss.grain"),
        ({"scenes.roughness": -1}, "scenes.roughness is -1; accepted: 0 to 20 nm"),
        ({"scenes.clusters": 1.5}, "scenes.clusters is 1.5; accepted: 0 to 1"),
        ({"scenes.specks_on_blank": True}, "scenes.specks_on_blank is True; accepted: 0 to 1"),
        ({"loss.fsim_half": 1.0}, "data.patch is 64; accepted with loss.fsim_half: at least 112"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    from semnr.training.config import load_recipe

    with pytest.raises(ValueError, match=message):
        load_recipe("toy", changes)


def test_a_recipe_takes_what_it_does_not_say_from_its_base(tmp_path: Path) -> None:
    from semnr.training.config import load_recipe

    path = tmp_path / "mine.toml"
    path.write_text('base = "toy"\n[loss]\nssim = 0.5\n')
    mine, toy = load_recipe(path), load_recipe("toy")
    assert mine.name == "mine"
    assert mine.loss == {**toy.loss, "ssim": 0.5}
    assert (mine.model, mine.scenes, mine.training) == (toy.model, toy.scenes, toy.training)
    path.write_text('base = "none"\n')
    with pytest.raises(FileNotFoundError, match="recipe 'none' does not exist"):
        load_recipe(path)


def test_every_batch_of_a_seed_comes_again() -> None:
    from semnr.training.config import load_recipe
    from semnr.training.data import Batches

    recipe = load_recipe("toy", {"scenes.count": 3, "data.batch": 2})
    stream = iter(Batches(recipe))
    three = [next(stream) for _ in range(3)]
    third = next(iter(Batches(recipe, start=2)))
    for name, value in third.items():
        torch.testing.assert_close(value, three[2][name], rtol=0, atol=0)
    assert not torch.equal(three[0]["noisy"], three[1]["noisy"])


# --- training


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "semnr", "train", "denoiser", *arguments], capture_output=True, text=True, **options
    )


@pytest.mark.timeout(900)  # half a minute on a quiet machine
def test_a_toy_is_trained_judged_and_can_be_used(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    out = tmp_path / "toy"
    short = ("--set", "training.steps=150", "--set", "validation.every=75")
    done = command("--out", str(out), "--recipe", "toy", "--json", *short)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    best = result["best"]
    assert best["psnr"] > 25  # noisy: 20.7
    assert 0.9 <= best["transfer"] <= 1.1
    assert result["sha256"] == weight_files.load(result["weights"]).sha256
    card = (out / "card.md").read_text()
    for said in ("Held-out tiles", "Gaussian low-pass", "SHA-256", "Limits", result["sha256"]):
        assert said in card
    assert (out / "curves.svg").read_text().startswith("<svg")
    clean = tile("lines", 160, seed=77)
    x = clean.noisy(seed=78, dtype="uint8")
    denoised = denoise(x, model=result["weights"], tile=64)
    before, after = (float(((v - 255.0 * clean.clean) ** 2).mean()) for v in (x.astype(float), denoised.astype(float)))
    assert after < 0.35 * before
    again = command("--out", str(out), "--recipe", "toy")
    assert again.returncode == 2
    assert "holds a training run" in again.stderr


QUICK = {
    "scenes.count": 4, "data.batch": 2, "validation.tiles": 4, "training.steps": 12, "validation.every": 6,
    "training.warm_up": 2,
}  # fmt: skip


@pytest.mark.timeout(120)
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from semnr.training import train_denoiser

    whole = train_denoiser(out=tmp_path / "whole", recipe="toy", changes=QUICK)
    from semnr.training import module

    class Cut(Exception):
        pass

    judge = module.Chooser.judge

    def stop(self: Any, trainer: Any, module: Any, step: int) -> None:
        if step > 6:
            raise Cut
        judge(self, trainer, module, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Chooser, "judge", stop)
        with pytest.raises(Cut):
            train_denoiser(out=tmp_path / "cut", recipe="toy", changes=QUICK)
    resumed = train_denoiser(out=tmp_path / "cut", recipe="toy", changes=QUICK, resume=True)
    assert resumed.steps == whole.steps == 12
    assert [row["step"] for row in resumed.rows] == [6, 12]
    a, b = (weight_files.load(run.last).network.state_dict() for run in (whole, resumed))
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=0, atol=1e-6)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("roles", "mode"),
    [
        (("noisy", "reference"), "supervised"),
        (("noisy", "noisy_2"), "noise2noise"),
        (("image",), "blind_spot"),
    ],
)
def test_tiles_of_the_user_are_learned_from(tmp_path: Path, roles: tuple[str, ...], mode: str) -> None:
    pytest.importorskip("lightning")
    from semnr.training import train_denoiser

    with create_tiles(tmp_path / "mine.zarr", count=6, roles=roles) as writer:
        for k in range(6):
            made = tile("lines", 96, seed=k)
            frames = {
                "noisy": made.noisy(dtype="uint8"), "image": made.noisy(dtype="uint8"),
                "noisy_2": made.noisy(frame=1, dtype="uint8"), "reference": made.reference("uint8"),
            }  # fmt: skip
            for role in roles:
                writer.write(TileKey(f"t{k:06d}", k), frames[role], role)
    done = train_denoiser(tmp_path / "mine.zarr", tmp_path / "run", recipe="toy", changes=QUICK)
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["data"]["mode"] == mode
    assert done.steps == 12
    assert weight_files.load(done.last).family
    assert "mine.zarr" in Path(done.card).read_text()
    out = denoise(tile("lines", 96, seed=9).noisy(dtype="uint8"), model=done.last)
    assert out.dtype == np.uint8


def test_training_goes_on_from_weights_of_its_layout(tmp_path: Path, weights: Path) -> None:
    pytest.importorskip("lightning")
    from semnr.training import train_denoiser

    quick = {**QUICK, "training.start": str(weights), "training.steps": 1, "training.learning_rate": 1e-12}
    done = train_denoiser(out=tmp_path / "tuned", recipe="toy", changes=quick)
    before, after = (weight_files.load(path).network.state_dict() for path in (weights, done.last))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)
    about = weight_files.load(done.last).about
    assert about["recipe"]["training"]["start"] == weights.name  # where a user's files lie is not told
    with pytest.raises(ValueError, match=r"training.start is .*semnr-small.*, of layout"):
        train_denoiser(out=tmp_path / "other", recipe="toy", changes={**quick, "training.start": "semnr-small"})


def test_the_part_for_texture_is_trained_alone(tmp_path: Path, weights: Path) -> None:
    pytest.importorskip("lightning")
    from semnr.training import train_denoiser

    alone = {**QUICK, "training.start": str(weights), "training.part": "texture", "loss.grain": 5.0}
    done = train_denoiser(out=tmp_path / "texture", recipe="toy", changes=alone)
    before, after = (weight_files.load(path).network.state_dict() for path in (weights, done.last))
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved == {"grain"}


def test_a_wider_network_begins_as_the_function_of_the_narrower_one(tmp_path: Path, weights: Path) -> None:
    pytest.importorskip("lightning")
    from semnr.training import train_denoiser, widen

    narrow, wide = network(), SemDenoiser(Layout((12, 24), (1,), 1))
    widen.begin(wide, narrow)
    x = torch.rand(2, 1, 48, 32, generator=torch.Generator().manual_seed(0))
    law = torch.tensor([[0.02, 0.001, 0.0, 0.5, 0.4, 0.1, 0.0]]).repeat(2, 1)
    torch.testing.assert_close(wide.plain(x, law), narrow.plain(x, law), rtol=0, atol=1e-5)
    wide.plain(x, law).square().sum().backward()
    for name, weight in wide.network.named_parameters():  # what is 0 now is let in by the first step
        assert weight.grad is not None
        assert bool((weight.grad != 0).any()), name
    changes = {**QUICK, "model.widths": [12, 24], "training.start": str(weights)}
    done = train_denoiser(out=tmp_path / "wide", recipe="toy", changes=changes)
    assert weight_files.load(done.last).network.layout.widths == (12, 24)


def test_muon_moves_every_direction_of_a_convolution_alike() -> None:
    from semnr.training.muon import Muon, orthogonal

    generator = torch.Generator().manual_seed(0)
    for shape in ((16, 90), (90, 16)):
        matrix = torch.randn(shape, generator=generator) * torch.logspace(0, -3, shape[1])
        left, values, right = torch.linalg.svd(orthogonal(matrix), full_matrices=False)
        assert 0.3 < float(values[: len(values) // 2].min()) <= float(values.max()) < 1.3, shape
        expected = torch.linalg.svd(matrix, full_matrices=False)
        overlap = (left @ right * (expected[0] @ expected[2])).sum() / len(values)
        assert float(overlap) > 0.8, shape
    layer, few = torch.nn.Conv2d(16, 32, 3), torch.nn.Conv2d(1, 4, 3)
    optimiser = Muon([*layer.parameters(), *few.parameters()], lr=0.01)
    before = [p.detach().clone() for p in (layer.weight, layer.bias, few.weight)]  # type: ignore[arg-type]
    x = torch.rand(2, 16, 8, 8, generator=generator)
    (layer(x).square().mean() + few(x[:, :1]).square().mean()).backward()
    optimiser.step()
    step = (layer.weight.detach() - before[0]).flatten(1)
    assert float(torch.linalg.matrix_norm(step, 2)) == pytest.approx(0.01 * 0.2 * 144**0.5, rel=0.35)
    assert not torch.equal(layer.bias, before[1])
    torch.testing.assert_close((few.weight - before[2]).abs(), torch.full_like(few.weight, 0.01), rtol=0.01, atol=1e-4)


def test_a_run_by_muon_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from semnr.training import train_denoiser

    changes = {**QUICK, "training.optimiser": "muon", "training.steps": 6}
    half = train_denoiser(out=tmp_path / "run", recipe="toy", changes=changes)
    again = train_denoiser(out=tmp_path / "run", recipe="toy", changes={**changes, "training.steps": 12}, resume=True)
    assert (half.steps, again.steps) == (6, 12)


def test_the_mean_of_weights_is_that_of_each_tensor(tmp_path: Path, weights: Path) -> None:
    from semnr.training import average

    other = tmp_path / "other.safetensors"
    weight_files.save(network(seed=1), other, family={"contrast": (3.0, 2e6)}, about={"name": "other"})
    digest = average([weights, other], tmp_path / "mean.safetensors")
    mean = weight_files.load(tmp_path / "mean.safetensors")
    assert mean.sha256 == digest
    assert mean.about["mean_of"] == [weight_files.load(path).sha256 for path in (weights, other)]
    assert mean.family == {"contrast": (0.0, 2e6)}
    a, b, c = (one.state_dict() for one in (network(), network(seed=1), mean.network))
    for name, value in c.items():
        torch.testing.assert_close(value, (a[name] + b[name]) / 2, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"out is .*, which exists"):
        average([weights, other], tmp_path / "mean.safetensors")
    with pytest.raises(ValueError, match="weights has 1 entries; accepted: at least 2"):
        average([weights], tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match="weights has 'semnr-small', of layout"):
        average([weights, "semnr-small"], tmp_path / "one.safetensors")
