"""Weights files: found, checked, fetched only when asked; whatever is wrong with a file is said, never scored."""

from __future__ import annotations

import pytest
import torch

import semnr.weights
from semnr_kernels import WeightsUnavailable, pretrained
from semnr_kernels.dists import dists
from semnr_kernels.dists import weights as known
from semnr_kernels.pretrained import ALEXNET, LPIPS, VGG16


@pytest.fixture(scope="module")
def state():
    """As torchvision saves VGG16: "features." names and a classifier beside them."""
    full = {f"features.{k}": v for k, v in known.random_weights().state.items()}
    return {**full, "classifier.0.weight": torch.zeros(2, 3), "classifier.0.bias": torch.zeros(2)}


@pytest.fixture(scope="module")
def good_file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "good.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty cache; returns where VGG16 would lie in torchvision's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints" / VGG16.torchvision_file


@pytest.fixture
def published(monkeypatch, good_file, state):
    """As if `good_file` were the file that torchvision publishes, and its tensors VGG16's."""
    begins = pretrained.file_sha256(good_file)[:8]
    monkeypatch.setitem(vars(VGG16), "torchvision_file", f"vgg16-{begins}.pth")
    monkeypatch.setitem(vars(VGG16), "sha256", known.random_weights().sha256)
    pretrained._load_file.cache_clear()
    yield good_file
    pretrained._load_file.cache_clear()


def score(weights):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(32, 32, generator=generator) for _ in range(2))
    return dists(x, y, data_range=1.0, weights=weights, details=True)


def test_the_table_says_what_torchvision_says():
    models = pytest.importorskip("torchvision").models
    rows = {row["name"]: row for row in semnr.weights.list_weights()}
    for weights, made, enum in (
        (VGG16, models.vgg16, models.VGG16_Weights),
        (ALEXNET, models.alexnet, models.AlexNet_Weights),
    ):
        url = enum.IMAGENET1K_V1.url
        assert rows[weights.name]["url"] == url
        assert url.endswith(f"/{weights.torchvision_file}")
        with torch.device("meta"):  # its shapes alone
            features = made(weights=None).features
        assert {k: tuple(v.shape) for k, v in features.state_dict().items()} == weights.shapes
    assert rows["alpha_beta"]["present"] is True


def test_listing_says_whether_a_file_is_there(home):
    vgg16, alexnet, lpips, *_ = semnr.weights.list_weights()
    assert [row["name"] for row in (vgg16, alexnet, lpips)] == ["vgg16", "alexnet", "lpips"]
    assert vgg16["path"] == str(home.parent.with_name("semnr") / "vgg16.safetensors")
    assert (vgg16["present"], vgg16["bytes"]) == (False, None)


def test_a_path_gives_the_same_score_as_its_state_dict(good_file, state, tmp_path):
    from safetensors.torch import save_file

    bare = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    save_file(bare, tmp_path / "bare.safetensors")
    expected = score("random")
    for weights in (str(good_file), state, tmp_path / "bare.safetensors"):
        result = score(weights)
        assert result.value == expected.value
        assert result.settings["weights_sha256"] == expected.settings["weights_sha256"]  # whatever they came in
        assert result.settings["calibrated"] is True
        assert any("taken on trust" in flag for flag in result.flags)


def test_the_old_format_that_torchvision_publishes_in_is_read(state, tmp_path):
    path = tmp_path / "old.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert score(path).value == score("random").value
    path.write_bytes(path.read_bytes()[:-1_000_000])
    with pytest.raises(WeightsUnavailable, match="cannot be read"):
        score(path)


def test_a_file_that_changes_is_read_again(state, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    first = score(path).value
    torch.save({k: v * 1.5 for k, v in state.items()} | {"more": torch.zeros(1)}, path)
    assert score(path).value != first


def test_torchvisions_cache_serves_its_published_file(home, published):
    place = home.with_name(VGG16.torchvision_file)
    place.parent.mkdir(parents=True)
    place.write_bytes(published.read_bytes())
    result = score(None)
    assert result.value == score("random").value
    assert result.settings["calibrated"] is True
    assert not any("trust" in flag for flag in result.flags)
    assert semnr.weights.verify("vgg16")["published"] is True


def test_an_altered_file_in_the_cache_is_refused(home, good_file):
    home.parent.mkdir(parents=True)
    home.write_bytes(good_file.read_bytes())  # sound, but not what its name says
    with pytest.raises(WeightsUnavailable, match="truncated or altered"):
        score(None)
    report = semnr.weights.verify("vgg16")
    assert report["ok"] is False
    assert "truncated or altered" in report["problem"]


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def damage(kind, state, path, tmp_path):
    first = "features.0.weight"
    if kind == "pickled code":
        torch.save({**state, first: Trap(tmp_path / "sprung")}, path)
    elif kind == "pickled code, old format":
        torch.save({**state, first: Trap(tmp_path / "sprung")}, path, _use_new_zipfile_serialization=False)
    elif kind == "truncated":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:1_000_000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>404 not found</html>")
    elif kind == "missing key":
        torch.save({k: v for k, v in state.items() if k != "features.28.bias"}, path)
    elif kind == "wrong shape":
        torch.save({**state, first: torch.zeros(64, 1, 3, 3)}, path)
    elif kind == "integers":
        torch.save({**state, first: torch.zeros(64, 3, 3, 3, dtype=torch.int32)}, path)
    elif kind == "not finite":
        torch.save({**state, first: torch.full((64, 3, 3, 3), float("inf"))}, path)
    elif kind == "a list":
        torch.save([torch.zeros(1)], path)
    elif kind == "no safetensors":
        path.write_bytes(b"\xff" * 100)
    elif kind == "truncated safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "a folder":
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pickled code", "refused: it holds pickled code"),
        ("pickled code, old format", "refused: it holds pickled code"),
        ("truncated", "cannot be read|refused"),
        ("empty", "cannot be read|refused"),
        ("text", "cannot be read|refused"),
        ("missing key", "lacks 1 of 26 tensors of VGG16, first 'features.28.bias'"),
        ("wrong shape", r"'features.0.weight' is \(64, 1, 3, 3\)"),
        ("integers", "torch.int32; accepted: a floating tensor"),
        ("not finite", "non-finite values"),
        ("a list", "holds a list"),
        ("no safetensors", "cannot be read"),
        ("truncated safetensors", "cannot be read"),
        ("a folder", "does not exist or is no file"),
        ("absent", "does not exist"),
    ],
)
def test_a_wrong_file_is_an_error_and_never_a_number(kind, message, state, tmp_path):
    path = tmp_path / ("bad.safetensors" if "safetensors" in kind else "bad.pth")
    damage(kind, state, path, tmp_path)
    with pytest.raises(WeightsUnavailable, match=message):
        score(path)
    report = semnr.weights.verify(path)
    assert report["ok"] is False
    assert report["problem"]
    assert not (tmp_path / "sprung").exists()


def test_a_wrong_state_dict_is_an_error_too(state):
    with pytest.raises(WeightsUnavailable, match="the state dict lacks 26 of 26"):
        score({})
    with pytest.raises(WeightsUnavailable, match=r"'features\.0\.bias' is str"):
        score({**state, "features.0.bias": "zero"})


def test_verify_reports_a_sound_file_and_the_shipped_one(good_file):
    report = semnr.weights.verify(good_file)
    assert report == {
        "name": "good.pth",
        "path": str(good_file),
        "ok": True,
        "published": False,
        "sha256": pretrained.file_sha256(good_file),
        "problem": None,
    }
    shipped = semnr.weights.verify("alpha_beta")
    assert shipped["ok"]
    assert shipped["published"]
    assert shipped["sha256"] == known.ALPHA_BETA_SHA256
    assert "known names: vgg16" in semnr.weights.verify("vgg61")["problem"]


def test_the_shipped_denoiser_is_listed_and_verified(tmp_path):
    from semnr.denoising.weights import SHIPPED

    name, shipped = next(iter(SHIPPED.items()))
    entry = {row["name"]: row for row in semnr.weights.list_weights()}[name]
    assert entry["present"]
    assert entry["bytes"] <= 6 * 2**20
    for given, published in ((name, True), (shipped.path, True)):
        report = semnr.weights.verify(given)
        assert (report["ok"], report["published"], report["sha256"]) == (True, published, shipped.sha256)
    assert semnr.weights.fetch(name)["fetched"] is False
    data = bytearray(shipped.path.read_bytes())
    data[-1] ^= 0x40
    (tmp_path / "other.safetensors").write_bytes(bytes(data))
    other = semnr.weights.verify(tmp_path / "other.safetensors")
    assert not (other["ok"] and other["published"])


def test_altered_alpha_beta_are_refused(monkeypatch, tmp_path):
    data = bytearray(known.ALPHA_BETA_FILE.read_bytes())
    data[-1] ^= 1
    altered = tmp_path / "alpha_beta.safetensors"
    altered.write_bytes(data)
    monkeypatch.setattr(known, "ALPHA_BETA_FILE", altered)
    for kept in (known.alpha_beta, known._alpha_beta_on):
        kept.cache_clear()
    with pytest.raises(WeightsUnavailable, match="reinstall semnr"):
        score("random")
    with pytest.raises(WeightsUnavailable, match="it is shipped"):
        semnr.weights.fetch("alpha_beta")
    altered.unlink()
    assert "no such file" in semnr.weights.verify("alpha_beta")["problem"]


def test_fetch_downloads_checks_and_converts_torchvisions_file(home, published):
    said = []
    report = semnr.weights.fetch("vgg16", url=published.as_uri(), say=said.append)
    assert (report["ok"], report["fetched"], report["published"]) == (True, True, True)
    assert any(line.startswith("vgg16: trying torchvision's file") for line in said)
    assert report["path"] == str(VGG16.path)
    assert "Redistribution and use" in VGG16.path.with_name("vgg16.LICENSE.txt").read_text()
    assert score(None).value == score("random").value
    assert score(None).settings["calibrated"] is True
    assert not any("trust" in flag for flag in score(None).flags)
    assert semnr.weights.fetch("vgg16", source="torchvision")["fetched"] is False  # there already: no network


def test_fetch_takes_torchvisions_own_cache_first(home, published):
    place = home.with_name(VGG16.torchvision_file)
    place.parent.mkdir(parents=True)
    place.write_bytes(published.read_bytes())
    said = []
    assert semnr.weights.fetch("vgg16", say=said.append)["fetched"] is True
    assert said == [f"vgg16: trying torchvision's file in its cache, {place}"]
    place.unlink()
    assert semnr.weights.verify("vgg16")["published"] is True


def test_fetch_refuses_another_file_and_leaves_nothing(home, good_file):
    with pytest.raises(WeightsUnavailable, match=r"has SHA-256 .*, not 397923af...: truncated or altered"):
        semnr.weights.fetch("vgg16", url=good_file.as_uri())
    with pytest.raises(WeightsUnavailable, match=r"as published for VGG16; a metric takes other weights by path"):
        semnr.weights.fetch("vgg16", path=good_file)
    assert not VGG16.path.parent.exists()


def test_fetch_takes_a_file_of_the_users(home, published, state, tmp_path):
    from safetensors.torch import save_file

    assert semnr.weights.fetch("vgg16", path=published)["fetched"] is True
    first = VGG16.path.read_bytes()
    VGG16.path.write_bytes(first[:1000])  # damaged: fetched again
    bare = tmp_path / "bare.safetensors"
    save_file({k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}, bare)
    assert "cannot be read" in semnr.weights.verify("vgg16")["problem"]
    assert semnr.weights.fetch("vgg16", path=bare)["fetched"] is True
    assert semnr.weights.verify("vgg16")["ok"] is True


def test_altered_tensors_in_the_cache_are_refused(home, state):
    from safetensors.torch import save_file

    VGG16.path.parent.mkdir(parents=True)
    save_file({k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}, VGG16.path)
    with pytest.raises(WeightsUnavailable, match="truncated or altered"):
        score(None)
    assert semnr.weights.verify("vgg16")["ok"] is False


def test_lpips_linear_layers_come_from_the_package_lpips(home):
    package = pytest.importorskip("lpips")
    folder = next(iter(package.__path__)) + "/weights/v0.1"
    report = semnr.weights.fetch("lpips", path=folder)
    assert (report["ok"], report["published"], report["path"]) == (True, True, str(LPIPS.path))
    assert "Richard Zhang" in LPIPS.path.with_name("lpips.LICENSE.txt").read_text()


def test_fetch_names_wrong_arguments(home, tmp_path):
    with pytest.raises(ValueError, match="name is 'vgg19'; accepted: 'vgg16', 'alexnet', 'lpips', 'alpha_beta'"):
        semnr.weights.fetch("vgg19")
    with pytest.raises(ValueError, match="path and url are both given"):
        semnr.weights.fetch("vgg16", path="a", url="b")
    with pytest.raises(ValueError, match="source is 'hub'; accepted: 'torchvision', 'index'"):
        semnr.weights.fetch("vgg16", source="hub")
    with pytest.raises(WeightsUnavailable, match="does not exist or is no file"):
        semnr.weights.fetch("vgg16", path=tmp_path / "absent.pth")
    with pytest.raises(WeightsUnavailable, match="nonsense cannot be fetched: nonsense is no http"):
        semnr.weights.fetch("vgg16", url="nonsense")
