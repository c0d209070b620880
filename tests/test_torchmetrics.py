"""The streaming metrics: a stream, its halves and its processes all give one number."""

from __future__ import annotations

import datetime
import math
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import cases
import semnr_kernels as kernels

torchmetrics = pytest.importorskip("torchmetrics")

from semnr.torchmetrics import CNR, DISTS, FSIM, MSSSIM, PSNR, SSIM  # noqa: E402

MAKE: dict[str, tuple[Any, int, Any]] = {
    "psnr": (lambda **k: PSNR(1.0, **k), 32, lambda x, y: kernels.pixel.psnr(x, y, data_range=1.0, reduction="none")),
    "ssim": (lambda **k: SSIM(1.0, **k), 32, lambda x, y: kernels.ssim.ssim(x, y, data_range=1.0, reduction="none")),
    "ms_ssim": (
        lambda **k: MSSSIM(1.0, **k),
        162,
        lambda x, y: kernels.ssim.ms_ssim(x, y, data_range=1.0, reduction="none"),
    ),
    "fsim": (lambda **k: FSIM(1.0, **k), 56, lambda x, y: kernels.fsim.fsim(x, y, data_range=1.0, reduction="none")),
    "dists": (
        lambda **k: DISTS(1.0, weights="random", **k),
        32,
        lambda x, y: kernels.dists.dists(x, y, data_range=1.0, weights="random", reduction="none"),
    ),
    "cnr": (lambda **k: CNR(**k), 64, lambda x, y: kernels.cnr.cnr(x, y)),
}
NAMES = tuple(MAKE)


def stream(side: int, sizes: tuple[int, ...] = (2, 1, 1)) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of unlike sizes and unlike noise."""
    batches, seed = [], 0
    for size in sizes:
        pairs = []
        for _ in range(size):
            pairs.append(cases.noisy_pair(side, side, sigma=0.03 + 0.03 * seed, seed=seed))
            seed += 1
        batches.append(tuple(torch.stack([torch.from_numpy(p[i]) for p in pairs])[:, None] for i in (0, 1)))
    return batches  # type: ignore[return-value]


def fed(metric: Any, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    for x, y in batches:
        metric.update(x, y)
    return metric


@pytest.mark.parametrize("name", NAMES)
def test_every_image_counts_once_whatever_its_batch(name: str) -> None:
    make, side, rows_of = MAKE[name]
    batches = stream(side)
    rows = torch.cat([rows_of(x, y) for x, y in batches])
    metric = fed(make(aggregate="mean_db") if name == "psnr" else make(), batches)
    value = metric.compute()
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(rows.mean().item(), rel=1e-12)
    assert metric.summary()["images"] == 4


@pytest.mark.parametrize("name", NAMES)
def test_merged_halves_are_the_whole_stream(name: str) -> None:
    make, side, _ = MAKE[name]
    batches = stream(side)
    whole, first, second = fed(make(), batches), fed(make(), batches[:1]), fed(make(), batches[1:])
    first.merge_state(second)
    assert first.compute().item() == pytest.approx(whole.compute().item(), rel=1e-15)
    assert first.summary() == pytest.approx(whole.summary(), rel=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_forward_gives_the_batch_and_keeps_the_stream(name: str) -> None:
    make, side, _ = MAKE[name]
    batches = stream(side, (2, 1))
    metric = make()
    for x, y in batches:
        assert metric(x, y).item() == pytest.approx(fed(make(), [(x, y)]).compute().item(), rel=1e-14)
    assert metric.compute().item() == pytest.approx(fed(make(), batches).compute().item(), rel=1e-14)
    metric.reset()
    assert metric.summary()["images"] == 0


def test_psnr_is_that_of_the_mean_mse_unless_the_mean_of_decibels_is_asked_for() -> None:
    y = torch.zeros((2, 1, 8, 8), dtype=torch.uint8)
    x = y.clone()
    x[0], x[1] = 1, 100
    of_mean_mse = 10 * math.log10(255**2 / ((1 + 10_000) / 2))
    mean_of_db = (20 * math.log10(255) + 20 * math.log10(2.55)) / 2
    assert fed(PSNR(255), [(x, y)]).compute().item() == pytest.approx(of_mean_mse, rel=1e-14)
    assert fed(PSNR(255, aggregate="mean_db"), [(x, y)]).compute().item() == pytest.approx(mean_of_db, rel=1e-14)
    expected = {"psnr_of_mean_mse": of_mean_mse, "mean_of_db": mean_of_db, "images": 2, "infinite": 0, "undefined": 0}
    assert fed(PSNR(255), [(x, y)]).summary() == pytest.approx(expected)


def test_identical_images_are_counted_apart_and_enter_the_mean_mse() -> None:
    y = torch.zeros((3, 1, 8, 8), dtype=torch.uint8)
    x = y.clone()
    x[0] = 10
    summary = fed(PSNR(255), [(x, y)]).summary()
    assert summary["infinite"] == 2
    assert summary["mean_of_db"] == pytest.approx(20 * math.log10(25.5))
    assert summary["psnr_of_mean_mse"] == pytest.approx(10 * math.log10(255**2 / (100 / 3)))
    assert fed(PSNR(255), [(y, y)]).compute().item() == math.inf
    assert math.isnan(fed(PSNR(255, aggregate="mean_db"), [(y, y)]).compute().item())


def test_images_without_a_cnr_are_counted_and_not_averaged() -> None:
    x, y = stream(64, (2,))[0]
    flat = torch.full_like(x[:1], 0.5)
    metric = fed(CNR(), [(x, y), (flat, flat)])
    assert metric.compute().item() == pytest.approx(kernels.cnr.cnr(x, y).mean().item())
    assert metric.summary()["undefined"] == 1
    assert math.isnan(fed(CNR(), [(flat, flat)]).compute().item())


def test_cnr_takes_regions_and_noise_with_each_batch() -> None:
    x, y = stream(64, (2,))[0]
    masks = kernels.cnr.otsu_masks(y)
    metric = CNR(kind="fixed_noise")
    metric.update(x, signal=masks.signal, background=masks.background, noise=0.2)
    expected = kernels.cnr.cnr(x, y, kind="fixed_noise", noise=0.2).mean()
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-14)


def test_an_image_without_a_valid_pixel_is_undefined_unless_nan_is_to_propagate() -> None:
    x, y = stream(32, (2,))[0]
    mask = torch.ones((2, 1, 32, 32), dtype=torch.bool)
    mask[1] = False
    for make in (PSNR, SSIM):
        metric = make(1.0)
        metric.update(x, y, mask=mask)
        assert metric.compute().item() == pytest.approx(fed(make(1.0), [(x[:1], y[:1])]).compute().item(), rel=1e-12)
        assert metric.summary()["undefined"] == 1
        loud = make(1.0, nan="propagate")
        loud.update(x, y, mask=mask)
        assert math.isnan(loud.compute().item())


def test_a_collection_keeps_unlike_metrics_apart() -> None:
    # identical images first: every similarity is 1, so that torchmetrics takes the states for shared ones
    x, y = stream(56, (2,))[0]
    collection = torchmetrics.MetricCollection(
        {"ssim": SSIM(1.0), "wide": SSIM(1.0, sigma=2.5), "fsim": FSIM(1.0), "psnr": PSNR(1.0)}
    )
    for a, b in ((y, y), (x, y)):
        collection.update(a, b)
    values = collection.compute()
    for name, alone in (("ssim", SSIM(1.0)), ("wide", SSIM(1.0, sigma=2.5)), ("fsim", FSIM(1.0)), ("psnr", PSNR(1.0))):
        assert values[name].item() == pytest.approx(fed(alone, [(y, y), (x, y)]).compute().item(), rel=1e-14)
    assert values["wide"] != values["ssim"]


def test_metrics_of_unlike_settings_do_not_merge() -> None:
    batches = stream(32)
    one, other = fed(SSIM(1.0), batches), fed(SSIM(1.0, sigma=2.5), batches)
    with pytest.raises(ValueError, match="Expected state variable"):
        one.merge_state(other)


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_pickles_and_clones_with_its_state(name: str) -> None:
    make, side, _ = MAKE[name]
    metric = fed(make(), stream(side, (1,)))
    for other in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert other.compute().item() == metric.compute().item()
        assert other.half().compute().dtype == torch.float64


def test_settings_are_checked_when_the_metric_is_made() -> None:
    for make in (PSNR, SSIM, MSSSIM, FSIM, DISTS):
        with pytest.raises(TypeError, match="data_range"):
            make()
        with pytest.raises(ValueError, match="data_range is -1"):
            make(-1.0)
        with pytest.raises(TypeError, match="bandwidth"):
            make(1.0, bandwidth=3)
    with pytest.raises(ValueError, match="aggregate is 'median'"):
        PSNR(1.0, aggregate="median")
    with pytest.raises(TypeError, match="signal"):
        CNR(signal=torch.ones(4, 4, dtype=torch.bool))
    assert SSIM(1.0, sync_on_compute=False).sync_on_compute is False
    assert DISTS.higher_is_better is False


def test_two_processes_give_the_value_of_one(tmp_path: Path) -> None:
    halves = stream(32, (3, 1))
    store = f"file://{tmp_path}/store"
    torch.save(halves[1], tmp_path / "half.pt")
    script = textwrap.dedent(
        f"""
        import datetime, torch, torch.distributed as dist
        from semnr.torchmetrics import PSNR, SSIM

        wait = datetime.timedelta(seconds=60)
        dist.init_process_group("gloo", init_method="{store}", rank=1, world_size=2, timeout=wait)
        x, y = torch.load("{tmp_path}/half.pt")
        for metric in (SSIM(1.0), PSNR(1.0)):
            metric.update(x, y)
            print(metric.compute().item(), metric.summary()["images"])
        dist.destroy_process_group()  # joins gloo's threads: an interpreter that goes before them aborts, at times
        """
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    found = []
    try:
        wait = datetime.timedelta(seconds=60)
        torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=2, timeout=wait)
        for metric in (SSIM(1.0), PSNR(1.0)):
            fed(metric, halves[:1])
            found.append((metric.compute().item(), metric.summary()["images"]))
        printed = other.communicate(timeout=120)[0].split()
    finally:
        other.kill()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert other.returncode == 0
    assert [(float(printed[0]), int(printed[1])), (float(printed[2]), int(printed[3]))] == found
    for (value, images), make in zip(found, (SSIM, PSNR), strict=True):
        assert value == pytest.approx(fed(make(1.0), halves).compute().item(), rel=1e-15)
        assert images == 4


def test_without_torchmetrics_the_import_says_what_to_install() -> None:
    script = "import sys; sys.modules['torchmetrics'] = None; import semnr; semnr.torchmetrics"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode != 0
    assert "pip install 'semnr[torchmetrics]'" in run.stderr


def test_the_names_hang_on_the_package_and_hide_nothing() -> None:
    import semnr

    assert semnr.torchmetrics.SSIM is SSIM
    assert torchmetrics.__name__ == "torchmetrics"
    assert issubclass(SSIM, torchmetrics.Metric)
