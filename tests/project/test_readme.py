"""README's code runs as written."""

from __future__ import annotations

import re

import numpy as np
import pytest
from commands import commands, run, words
from commands import main as main_of

import cases
from semnr import cli

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


def test_readme_is_a_screen_and_a_half() -> None:
    assert len(README.split()) <= 900
    assert (cases.REPOSITORY / re.search(r"!\[[^\]]*\]\(([^)]+)\)", README)[1]).stat().st_size < 200_000


DOCUMENTS = [cases.REPOSITORY / "README.md", *sorted((cases.REPOSITORY / "docs").rglob("*.md"))]


@pytest.mark.parametrize("language", ["sh", "console"])
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(cases.REPOSITORY).as_posix())
def test_every_command_is_one_that_semnr_takes(path, language, monkeypatch) -> None:
    """Subcommands and options exist. What ```sh does is run by .ci/run, as typed: tests/support/commands.py"""
    monkeypatch.setattr(cli, "ended", lambda work, **options: 0)  # parse, and run nothing
    refused = []
    for command in commands(path, language):
        for arguments in words(command):
            try:
                cli.main(arguments)
            except SystemExit as stopped:
                refused += [f"{path.name}:{command.line}: {command.text}"] * bool(stopped.code)
    assert refused == []


def block(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```", ""])


def test_commands_are_read_as_a_shell_reads_them(tmp_path) -> None:
    lines = ["semnr score a \\", "  --out b  # the first", "", "# nothing", "$ pip install . && semnr demo"]
    text = block("sh", *lines) + block("text", "semnr") + block("console", "semnr guard a b > c  # exit 1: it fires")
    (tmp_path / "doc.md").write_text(text)
    first, second = commands(tmp_path / "doc.md")
    assert words(first) == [["score", "a", "--out", "b"]]
    assert words(second) == [["demo"]]
    (third,) = commands(tmp_path / "doc.md", "console")
    assert (words(third), third.status) == ([["guard", "a", "b"]], 1)


def test_a_command_that_fails_or_lacks_its_file_is_found(tmp_path) -> None:
    good = block("sh", "echo 1 > made", "cat made", "pip install nothing && cat made", "false  # exit 1")
    (tmp_path / "doc.md").write_text(good)
    assert main_of([str(tmp_path / "doc.md")]) == 0
    bad = ["cat made", "false", "true # exit 1"]
    (tmp_path / "wrong.md").write_text(block("sh", *bad))
    (tmp_path / "empty").mkdir()
    assert [line.split("`")[1] for line in run(tmp_path / "wrong.md", tmp_path / "empty")] == bad
