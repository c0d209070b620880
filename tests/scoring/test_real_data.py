"""The real SEM images, scored as a tile stream with a plan file. Skipped, saying so, where they are absent."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

import cases
import semnr
from semnr.scoring import score

BORDER = 12  # the clean image is known no nearer to its border after registration


def registered_pairs():
    """(name, noisy, clean laid onto it with gain and offset fitted), uint8, without the border."""
    inside = np.s_[BORDER:-BORDER, BORDER:-BORDER]
    for name, noisy, _, laid in cases.real_pairs():
        x, y = noisy[inside].astype(np.float64), laid[inside]
        gain, offset = np.polyfit(y.ravel(), x.ravel(), 1)
        yield name, noisy[inside], np.clip(gain * y + offset, 0, 255).round().astype(np.uint8)


@pytest.fixture
def plan(tmp_path):
    folder = tmp_path / "plan"
    for name in ("noisy", "reference"):
        (folder / name).mkdir(parents=True)
    rows = ["tile,path,reference,noisy"]
    for name, noisy, clean in registered_pairs():
        tifffile.imwrite(folder / f"noisy/{name}.tif", noisy)
        tifffile.imwrite(folder / f"reference/{name}.tif", clean)
        rows.append(f"{name},noisy/{name}.tif,reference/{name}.tif,noisy/{name}.tif")
    (folder / "plan.csv").write_text("\n".join(rows) + "\n")
    return folder / "plan.csv"


def test_the_real_noisy_pairs_score_as_measured_before(plan, tmp_path) -> None:
    """Mean PSNR 22.37, SSIM 0.480, FSIM 0.889 with piq, gain and offset fitted the other way round."""
    run = score(plan, out=tmp_path / "noisy", metrics=("psnr", "ssim", "fsim", "cnr"))
    assert run.counts == {"tiles": 5, "ok": 5}
    assert run.summary["psnr"]["mean"] == pytest.approx(22.37, abs=0.3)
    assert run.summary["ssim"]["mean"] == pytest.approx(0.480, abs=0.02)
    assert run.summary["fsim"]["mean"] == pytest.approx(0.889, abs=0.02)
    assert run.summary["transfer"]["mean"] == pytest.approx(1.0, abs=1e-9)


def test_over_smoothing_of_the_real_pairs_fires_and_mild_denoising_does_not(plan, tmp_path) -> None:
    runs = {}
    for name, model, options in (
        ("mild", "gaussian", {"sigma": 0.6}),
        ("kept", "nlm", {"strength": 0.4}),
        ("blurred", "gaussian", {"sigma": 2.0}),
    ):
        semnr.denoise(plan, tmp_path / name, model=model, **options)
        runs[name] = score(
            tmp_path / name,
            reference=plan,
            noisy=plan,
            out=tmp_path / f"scores-{name}",
            metrics=("psnr", "ssim", "fsim", "cnr"),
            label=name,
        ).profile()
    waive = ("texture_drift",)
    blurred = semnr.guard(runs["mild"], runs["blurred"], allow_unknown=waive)
    kept = semnr.guard(runs["mild"], runs["kept"], allow_unknown=waive)
    status = {s.name: s.status for s in blurred.signals}
    assert status["evidence_transfer"] == "fired"
    assert not blurred.passed
    assert {s.name: s.status for s in kept.signals}["over_smoothing"] == "clear"
    assert runs["blurred"].psnr.mean() > runs["mild"].psnr.mean()  # the trap: cleaner by PSNR


def test_every_readable_vendor_image_is_a_tile_and_the_broken_one_is_counted(tmp_path) -> None:
    folder = cases.real_data() / "vendor"
    source = semnr.open_tiles(folder)
    tiles = [key.tile for key in source]
    run = score(folder, reference=folder, out=tmp_path / "out", metrics=("psnr",))
    rows = {r["tile"]: r for r in run.table().to_pylist()}
    assert set(rows) == set(tiles)
    assert run.exit_code == 3
    broken = [r for r in rows.values() if r["status"] == "unreadable"]
    assert [r["tile"] for r in broken] == ["quad1image_001_broken"]
    assert "truncated" in broken[0]["reason"]
    # 8- and 16-bit images in one folder are two intensity scales: the run keeps to the first
    assert {r["status"] for r in rows.values()} == {"ok", "unreadable", "wrong_dtype"}


def test_a_real_strip_cut_into_tiles_scores_as_the_whole_where_the_metric_is_a_mean(tmp_path) -> None:
    strip = np.asarray(Image.open(cases.real_data() / "ic/sem0000_x0_y0_strip1536x512.png"))
    other = np.clip(strip.astype(int) + np.random.default_rng(0).integers(-9, 10, strip.shape), 0, 255).astype(np.uint8)
    run = score(other, reference=strip, out=tmp_path / "out", metrics=("psnr",))
    assert run.counts["tiles"] == 3
    assert run.summary["psnr_of_mean_mse"] == pytest.approx(semnr.psnr(other, strip), abs=1e-9)
