"""The command: exit codes, messages for people, JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import cases
from semnr.cli import main


@pytest.fixture
def stack(tmp_path):
    """Candidate and reference as .npy stacks."""
    clean = np.stack([(cases.lines(48, 48, seed=i) * 255).astype(np.uint8) for i in range(4)])
    rng = np.random.default_rng(0)
    noisy = np.clip(clean + 15 * rng.standard_normal(clean.shape), 0, 255).astype(np.uint8)
    for name, value in (("clean", clean), ("noisy", noisy)):
        np.save(tmp_path / f"{name}.npy", value)
    return tmp_path


def score(stack, *more: str) -> int:
    return main(
        f"score {stack}/noisy.npy --reference {stack}/clean.npy --out {stack}/out --metrics psnr,ssim".split()
        + list(more)
    )


def test_score_prints_a_table_and_exits_0(stack, capsys) -> None:
    assert score(stack) == 0
    out = capsys.readouterr().out
    assert "4 of 4 tiles scored" in out
    assert "psnr" in out
    assert "PSNR of the mean MSE" in out


def test_json_is_json_and_nothing_else(stack, capsys) -> None:
    assert score(stack, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["counts"] == {"tiles": 4, "ok": 4}
    assert captured.err == ""


def test_missing_tiles_exit_3(stack, capsys) -> None:
    for name, count in (("noisy", 4), ("clean", 3)):
        (stack / name).mkdir()
        for i, pixels in enumerate(np.load(stack / f"{name}.npy")[:count]):
            np.save(stack / name / f"{i}.npy", pixels)
    argv = ["score", f"{stack}/noisy", "--reference", f"{stack}/clean", "--out", f"{stack}/o", "--metrics", "psnr"]
    assert main(argv) == 3
    assert "no_reference: 3" in capsys.readouterr().out


def test_a_stack_that_is_shorter_than_its_reference_is_refused(stack, capsys) -> None:
    np.save(stack / "clean.npy", np.load(stack / "clean.npy")[:3])
    assert score(stack) == 2
    assert "stacks of one length" in capsys.readouterr().err


def test_usage_and_input_errors_exit_2_with_one_line(stack, capsys) -> None:
    assert main(["score", f"{stack}/absent.zarr", "--reference", f"{stack}/clean.npy", "--out", f"{stack}/o"]) == 2
    assert score(stack, "--data-range", "-1") == 2
    error = capsys.readouterr().err
    assert "absent.zarr" in error
    assert "data_range is -1" in error
    assert "Traceback" not in error
    with pytest.raises(SystemExit) as stop:
        main(["score"])
    assert stop.value.code == 2


def test_a_second_run_into_the_same_folder_needs_resume(stack, capsys) -> None:
    assert score(stack) == 0
    assert score(stack) == 2
    assert "resume" in capsys.readouterr().err
    assert score(stack, "--resume") == 0


def test_doctor_prints_the_backends_and_what_auto_takes(capsys) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "reference" in out
    assert "Backends" in out
    assert "Weights" in out
    assert main(["doctor", "--json"]) == 0
    assert {"backends", "auto", "weights"} <= set(json.loads(capsys.readouterr().out))


def test_weights_list_names_vgg16(capsys) -> None:
    assert main(["weights", "list"]) == 0
    assert "vgg16" in capsys.readouterr().out


def test_synth_denoise_score_guard_and_report_chain(tmp_path, capsys) -> None:
    wafer, scores = f"{tmp_path}/wafer.zarr", tmp_path / "scores"
    assert main(["synth", "--out", wafer, "--dies", "3", "--tile", "96", "-q"]) == 0
    for name, model, *parameters in (("mild", "gaussian", "sigma=0.8"), ("blur", "gaussian", "sigma=3")):
        clean = f"{tmp_path}/{name}.zarr"
        assert main(["denoise", wafer, "--out", clean, "--model", model, "--set", *parameters, "-q"]) == 0
        code = main(
            f"score {clean} --reference {wafer} --noisy {wafer} --out {scores / name} -q --label {name}".split()
            + ["--metrics", "psnr,ssim,fsim,cnr"]
        )
        assert code == 0
    waive = ["--allow-unknown", "texture_drift"]
    assert main(["guard", f"{scores}/mild", f"{scores}/blur", "--out", f"{tmp_path}/v.json", *waive]) == 1
    capsys.readouterr()
    assert main(["guard", f"{scores}/mild", f"{scores}/blur"]) in (1, 3)
    page = f"{tmp_path}/report.html"
    assert main(["report", f"{scores}/mild", f"{scores}/blur", "--verdict", f"{tmp_path}/v.json", "--out", page]) == 0
    assert "blur" in (tmp_path / "report.html").read_text()


def test_a_verdict_takes_at_most_fifteen_lines_and_colour_only_on_a_terminal(capsys, monkeypatch) -> None:
    from semnr.cli.verdicts import show
    from semnr.runs.brief import brief
    from semnr.runs.verdict import Signal, Verdict

    def signal(name: str, status: str, **more) -> Signal:
        return Signal(name, status, "high", regions=({"tile": f"{name}-{status}"},), advice="Look. " * 40, **more)

    signals = [
        signal(
            f"rule_{i}", "fired", evidence={"transfer": 0.5, "transfer_se": 0.01, "tiles_fired": 3, "tiles_judged": 9}
        )
        for i in range(9)
    ]
    signals += [signal(f"open_{i}", "unknown", needs=f"thing {i}") for i in range(9)]
    axes = {"psnr": "measured", "ssim": "unknown"}
    verdict = Verdict(tuple(signals), (), waived=("open_0",), before="old" * 30, after="new" * 30, tiles=9, axes=axes)
    for width in (60, 100, 160):
        lines = brief(verdict, Path("report.html"), width)
        assert len(lines) <= 15
        assert max(len(text) for _, text in lines) <= width
        assert lines[0][1].startswith("FAILED: ")
    text = "\n".join(text for _, text in lines)
    assert "Evidence transfer T 0.500 ± 0.010" in text
    show(verdict)
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    show(verdict)
    assert "\x1b[31mFAILED" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    show(verdict, verbose=True)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "rule_8" in out
