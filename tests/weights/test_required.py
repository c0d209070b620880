"""Tests that need the published weights or pairs: skipped with the command to run, failed where CI requires them."""

from __future__ import annotations

import pytest

import calibrated


@pytest.mark.parametrize("required", ["", "reference", "weights,pairs"])
def test_what_is_missing_fails_only_where_it_is_required(required, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SEMNR_REQUIRE", required)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # an empty cache
    monkeypatch.setattr(calibrated, "WHEEL", tmp_path / "none.whl")
    ends = pytest.fail.Exception if "weights" in required else pytest.skip.Exception
    with pytest.raises(ends, match="semnr weights fetch vgg16 alexnet"):
        calibrated.need_weights("vgg16", "alexnet")
    with pytest.raises(ends, match="pip download"):
        calibrated.published_pairs()
