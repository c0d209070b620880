"""README's code runs as written."""

from __future__ import annotations

import re

import numpy as np
import pytest

import cases
from semnr.cli import main

README = (cases.REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_library_example_runs() -> None:
    rng = np.random.default_rng(0)
    clean = np.stack([(cases.lines(192, 192, seed=i) * 255).astype(np.uint8) for i in range(2)])[:, None]

    def noisy(sigma: float) -> np.ndarray:
        return np.clip(clean + sigma * rng.standard_normal(clean.shape), 0, 255).astype(np.uint8)

    names = {
        "clean": clean,
        "noisy": noisy(20),
        "frame2": noisy(20),
        "frame3": noisy(20),
        "released": noisy(8),
        "candidate": noisy(5),
    }
    names.update(x=names["candidate"], y=clean)
    # the one thing that a test machine lacks: VGG16's weights
    code = blocks("python")[0].replace('weights="vgg16.pth"', 'weights="random"')
    code = code.replace("noise=noisy)", 'noise=noisy, dists_weights="random")')
    code = code.replace("SSIMLoss(data_range=1.0)(x, y)", "SSIMLoss(data_range=1.0)(x_float, y_float)")
    import torch

    names["x_float"], names["y_float"] = (torch.from_numpy(names[n] / 255.0) for n in ("x", "y"))
    exec(code, names)
    assert "over_smoothing" in str(names["verdict"])


def test_the_commands_are_accepted(tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The chain of README, on fewer and smaller tiles."""
    monkeypatch.chdir(tmp_path)
    lines = [line.split("#")[0].strip() for line in blocks("sh")[2].splitlines()]
    assert [line.split()[1] for line in lines] == ["synth", "denoise", "score", "guard", "report", "stress", "doctor"]
    for line in lines:
        argv = line.split()[1:]
        if argv[0] == "synth":
            argv += ["--dies", "2", "--sites", "1", "--tile", "96"]
        if argv[0] == "guard":  # the baseline that README takes for granted
            main(["denoise", "wafer.zarr", "--out", "released.zarr", "--model", "wavelet"])
            baseline = "score released.zarr --reference wafer.zarr --noisy wafer.zarr --out scores/released"
            assert main([*baseline.split(), "--dists-weights", "random"]) == 0
        if argv[0] == "stress":
            argv += ["--tiles", "2", "--side", "128"]
        code = main(argv)
        assert code in ((0, 1) if argv[0] == "guard" else (0,)), line
    assert (tmp_path / "report.html").stat().st_size > 10_000
