"""An install without a C++ compiler works and says what it lost; with one, the modules are built."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import cases


def build(tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
    if not (cases.REPOSITORY / "setup.py").is_file():
        pytest.skip("the source tree is absent")
    command = [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={tmp_path}/lib"]
    command.append(f"--build-temp={tmp_path}/tmp")
    return subprocess.run(
        command, cwd=cases.REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_without_a_compiler_the_build_succeeds_and_says_what_is_lost(tmp_path) -> None:
    done = build(tmp_path, CC="/nonexistent/cc", CXX="/nonexistent/c++")
    assert done.returncode == 0, done.stderr
    assert "not built" in done.stderr
    assert "backend 'reference'" in done.stderr
    assert not list(tmp_path.glob("lib/**/*.so"))


def test_a_sanitizer_build_does_not_hide_a_failing_compiler(tmp_path) -> None:
    done = build(tmp_path, CC="/nonexistent/cc", CXX="/nonexistent/c++", SEMNR_SANITIZE="1")
    assert done.returncode != 0
