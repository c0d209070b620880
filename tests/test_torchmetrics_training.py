"""The streaming metrics where people train: collections, Lightning, checkpoints, two processes, mixed sizes."""

from __future__ import annotations

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

from semnr.torchmetrics import FSIM, PSNR, SSIM  # noqa: E402


def pair(side: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    made = cases.noisy_pair(side, side, sigma=0.03 + 0.02 * seed, seed=seed)
    return tuple(torch.from_numpy(v)[None, None].float() for v in made)  # type: ignore[return-value]


def score(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(kernels.ssim.ssim(x, y, data_range=1.0))


def test_sizes_may_differ_from_update_to_update_and_no_image_is_kept() -> None:
    metric = SSIM(1.0, keep_rows=True)
    wanted = []
    for seed, side in enumerate((24, 40, 33)):
        x, y = pair(side, seed)
        metric.update(x, y)
        wanted.append(score(x, y))
    assert metric.rows().tolist() == pytest.approx(wanted, abs=1e-12)
    assert metric.compute().item() == pytest.approx(sum(wanted) / 3, abs=1e-12)
    numbers = sum(
        v.numel() for state in metric.metric_state.values() for v in ([state] if torch.is_tensor(state) else state)
    )
    assert numbers < 16  # a few sums, and two numbers an image


def test_running_sums_alone_unless_rows_are_asked_for() -> None:
    metric = PSNR(1.0)
    metric.update(*pair(24, 0))
    assert not any(isinstance(state, list) for state in metric.metric_state.values())
    with pytest.raises(RuntimeError, match=r"PSNR\(keep_rows=True\)"):
        metric.rows()
    with pytest.raises(ValueError, match="index is given, but no rows are kept"):
        metric.update(*pair(24, 0), index=3)
    with pytest.raises(TypeError, match="keep_rows"):
        PSNR(1.0, keep_rows="yes")


def test_rows_come_in_the_order_of_the_data_set() -> None:
    metric = SSIM(1.0, keep_rows=True)
    pairs = [pair(24, seed) for seed in range(4)]
    for places in ([2, 0], [3, 1], [1]):  # a sampler that fills up gives a place twice
        x, y = (torch.cat([pairs[p][i] for p in places]) for i in (0, 1))
        metric.update(x, y, index=torch.tensor(places))
    assert metric.rows().tolist() == pytest.approx([score(*p) for p in pairs], abs=1e-12)
    with pytest.raises(ValueError, match="index has 2 places for 1 images"):
        metric.update(*pairs[0], index=[0, 1])
    metric.update(*pairs[0])
    with pytest.raises(ValueError, match="accepted: an index with each, or with none"):
        metric.rows()


def test_a_collection_of_them_resumes_from_a_checkpoint(tmp_path: Path) -> None:
    def made() -> Any:
        collection = torchmetrics.MetricCollection(
            {"ssim": SSIM(1.0, keep_rows=True), "psnr": PSNR(1.0), "small": SSIM(1.0, window_size=5)}
        )
        collection.persistent(True)
        return collection

    whole, first = made(), made()
    pairs = [pair(24, seed) for seed in range(3)]
    for x, y in pairs:
        whole.update(x, y)
    for x, y in pairs[:2]:
        first.update(x, y)
    torch.save(first.state_dict(), tmp_path / "checkpoint.pt")
    again = made()
    again.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    again.update(*pairs[2])
    found, wanted = again.compute(), whole.compute()
    assert set(found) == {"ssim", "psnr", "small"}
    for name in found:
        assert found[name].item() == pytest.approx(wanted[name].item(), rel=1e-14)
    assert found["small"] != found["ssim"]
    torch.testing.assert_close(again["ssim"].rows(), whole["ssim"].rows(), rtol=0, atol=0)


def test_lightning_logs_the_mean_of_the_epoch_and_resumes(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed (semnr[train])")

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Conv2d(1, 1, 3, padding=1)
            self.metrics = torchmetrics.MetricCollection({"ssim": SSIM(1.0), "psnr": PSNR(1.0)}, prefix="val_")

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            x, y = batch
            return (self.net(x) - y).square().mean()

        def validation_step(self, batch: Any, _: int) -> None:
            self.metrics.update(*batch)
            self.log_dict(self.metrics, on_epoch=True)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    pairs = [pair(24, seed) for seed in range(3)]
    data = torch.utils.data.TensorDataset(*(torch.cat([p[i] for p in pairs]) for i in (0, 1)))
    loader = torch.utils.data.DataLoader(data, batch_size=2)  # a batch of two and one of one: each image counts once

    def trainer(epochs: int) -> Any:
        return lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
        )

    first = trainer(1)
    first.fit(Module(), loader, loader)
    wanted = sum(score(*p) for p in pairs) / 3
    assert first.callback_metrics["val_ssim"].item() == pytest.approx(wanted, abs=1e-6)
    first.save_checkpoint(tmp_path / "one.ckpt")
    second = trainer(2)
    second.fit(Module(), loader, loader, ckpt_path=tmp_path / "one.ckpt")
    assert second.current_epoch == 2
    assert second.callback_metrics["val_ssim"].item() == pytest.approx(wanted, abs=1e-6)


def test_two_processes_gather_their_rows_in_order(tmp_path: Path) -> None:
    """Three images over two processes, interleaved as DistributedSampler does; another metric has them on one alone."""
    script = textwrap.dedent(
        f"""
        import datetime, sys, torch, torch.distributed as dist
        from semnr.torchmetrics import SSIM

        rank = int(sys.argv[1])
        wait = datetime.timedelta(seconds=60)
        dist.init_process_group("gloo", init_method="file://{tmp_path}/store", rank=rank, world_size=2, timeout=wait)
        pairs = torch.load("{tmp_path}/pairs.pt")
        metric, lonely = SSIM(1.0, keep_rows=True), SSIM(1.0, keep_rows=True)
        for place in range(rank, 3, 2):
            metric.update(*pairs[place], index=place)
        if rank == 1:
            lonely.update(*pairs[0], index=0)
        print(*metric.rows().tolist(), metric.compute().item(), *lonely.rows().tolist())
        print(len(metric.kept))  # local again
        dist.destroy_process_group()
        """
    )
    pairs = [pair(24, seed) for seed in range(3)]
    torch.save(pairs, tmp_path / "pairs.pt")
    command = [sys.executable, "-W", "ignore", "-c", script]
    both = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    try:
        printed = [process.communicate(timeout=200)[0].splitlines() for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0]
    wanted = [score(*p) for p in pairs]
    for lines in printed:
        *rows, mean, lonely = (float(number) for number in lines[0].split())
        assert rows == pytest.approx(wanted, abs=1e-12)
        assert mean == pytest.approx(sum(wanted) / 3, abs=1e-12)
        assert lonely == pytest.approx(wanted[0], abs=1e-12)
    assert [lines[1] for lines in printed] == ["2", "1"]


def test_merged_metrics_keep_all_rows() -> None:
    metrics = [FSIM(1.0, keep_rows=True) for _ in range(2)]
    for seed, metric in enumerate(metrics):
        metric.update(*pair(48, seed), index=1 - seed)
    separate = [float(metric.rows()) for metric in metrics]
    metrics[0].merge_state(metrics[1])
    assert metrics[0].rows().tolist() == separate[::-1]
