"""Weights of an untrained network, for the tests of what a network is used for."""

from __future__ import annotations

from pathlib import Path

import pytest
from untrained import WIDE, network

from semnr.denoising import weights as weight_files


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    weight_files.save(network(), path, family=WIDE, about={"name": "untrained"})
    return path
