"""Tiles behind URLs (fsspec: memory://, a local S3 server) and in a folder that fills while it is read."""

from __future__ import annotations

import io
import os
import threading
import time
import uuid

import fsspec
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

import semnr
from semnr.tiles import open_tiles, watch_folder


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (count, 24, 40), dtype=np.uint8)


def fill(url: str, pixels: np.ndarray, **options) -> None:
    """A folder with noisy/, reference/ and a plan in sub/."""
    fs, base = fsspec.core.url_to_fs(url, **options)
    rows = ["path,reference,die_x"]
    for i, image in enumerate(pixels):
        for role in ("noisy", "reference"):
            fs.makedirs(f"{base}/{role}", exist_ok=True)
            with fs.open(f"{base}/{role}/t{i}.png", "wb") as file:
                Image.fromarray(image if role == "reference" else image // 2).save(file, format="PNG")
        rows.append(f"noisy/t{i}.png,reference/t{i}.png,{i}")
    with fs.open(f"{base}/plan.csv", "w") as file:
        file.write("\n".join(rows) + "\n")


@pytest.fixture
def memory():
    url = f"memory://{uuid.uuid4().hex}"
    yield url, {}
    if (fs := fsspec.filesystem("memory")).exists(path := url.removeprefix("memory:/")):
        fs.rm(path, recursive=True)


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server):
    options = {"key": "k", "secret": "s", "endpoint_url": server, "use_listings_cache": False}
    bucket = f"b{uuid.uuid4().hex}"
    fsspec.filesystem("s3", **options).mkdir(bucket)
    return f"s3://{bucket}/lot", options


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_plans_folders_and_mosaics_by_url_are_read(kind, request) -> None:
    url, options = request.getfixturevalue(kind)
    pixels = images()
    fill(url, pixels, **options)
    plan = open_tiles(url, storage_options=options)
    assert [key.meta["die_x"] for key in plan] == [0, 1, 2]
    for key, image in zip(plan, pixels, strict=True):
        np.testing.assert_array_equal(plan.read(key), image // 2)
        np.testing.assert_array_equal(plan.read(key, "reference"), image)
    folder = open_tiles(f"{url}/reference", storage_options=options)
    assert [key.tile for key in folder] == ["t0", "t1", "t2"]
    np.testing.assert_array_equal(folder.read(folder.find("t1")), pixels[1])
    fs, base = fsspec.core.url_to_fs(url, **options)
    with fs.open(f"{base}/mosaic.tif", "wb") as file:
        tifffile.imwrite(whole := io.BytesIO(), pixels[0])  # object stores cannot seek in what they write
        file.write(whole.getvalue())
    mosaic = open_tiles(f"{url}/mosaic.tif", tile=20, storage_options=options)
    assert len(mosaic) == 4
    np.testing.assert_array_equal(mosaic.read(mosaic.find("r0000_c0001")), pixels[0][:20, 20:])


def test_a_stack_in_s3_is_scored_against_a_plan_in_s3(s3, tmp_path) -> None:
    url, options = s3
    pixels = images()
    fill(url, pixels, **options)
    store = zarr.storage.FsspecStore.from_url(f"{url}/clean.zarr", storage_options={**options, "asynchronous": True})
    zarr.create_array(store, data=pixels, chunks=(1, 24, 40))
    candidate = open_tiles(f"{url}/plan.csv", storage_options=options)
    reference = open_tiles(f"{url}/clean.zarr", storage_options=options)
    names = [(f"noisy/t{i}", reference.read(key)) for i, key in enumerate(reference)]
    run = semnr.score(candidate, reference=names, out=tmp_path / "run", metrics=("psnr",))
    assert run.counts == {"tiles": 3, "ok": 3}


def test_a_file_that_is_not_there_any_more_is_that_tile_s_problem(memory) -> None:
    url, _ = memory
    fill(url, images())
    source = open_tiles(url)
    fsspec.filesystem("memory").rm(f"{url.removeprefix('memory:/')}/noisy/t1.png")
    first, second, _ = source
    assert source.read(first).shape == (24, 40)
    with pytest.raises(semnr.TileError) as error:
        source.read(second)
    assert error.value.status == "missing"


@pytest.mark.parametrize("path", ["../x.png", "/x.png", "s3://other/x.png", "C:\\x.png"])
def test_a_remote_plan_cannot_name_files_outside_its_folder(memory, path) -> None:
    url, _ = memory
    with fsspec.open(f"{url}/plan.csv", "w") as file:
        file.write(f"path\n{path}\n")
    with pytest.raises(ValueError, match="outside its folder"):
        open_tiles(f"{url}/plan.csv")


def test_what_is_not_there_or_needs_an_unknown_protocol_is_told(memory) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_tiles(memory[0] + "/none.csv")
    with pytest.raises(ValueError, match="accepted: a URL that fsspec opens"):
        open_tiles("nonsense://bucket/plan.csv")


def test_fetched_files_leave_nothing_behind(memory, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fill(memory[0], images())
    source = open_tiles(memory[0])
    for key in source:
        source.read(key)
    del source
    assert list(tmp_path.iterdir()) == []


# --- a folder that fills --------------------------------------------------------------------------------------


def slowly(folder, pixels: np.ndarray, pause: float) -> threading.Thread:
    """Writes each image in two halves, the reference later than the image."""

    def write() -> None:
        for i, image in enumerate(pixels):
            for role in ("denoised", "reference"):
                Image.fromarray(image).save(folder / "whole.png")
                data = (folder / "whole.png").read_bytes()
                (folder / "whole.png").unlink()
                path = folder / role / f"t{i}.png"
                path.write_bytes(data[: len(data) // 2])
                time.sleep(pause)
                with path.open("ab") as file:
                    file.write(data[len(data) // 2 :])
                time.sleep(pause)
        (folder / "END").touch()

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def watched(folder):
    for role in ("denoised", "reference"):
        (folder / role).mkdir(parents=True)
    return folder


def test_a_folder_that_fills_is_scored_as_it_fills_and_never_half_a_file(tmp_path) -> None:
    folder, pixels = watched(tmp_path / "in"), images(4)
    source = watch_folder(folder, roles=("denoised", "reference"), settle=0.25, idle=30, until="END")
    source._look = 0.02
    writer = slowly(folder, pixels, 0.05)
    run = semnr.score(source, out=tmp_path / "run", metrics=("psnr",))
    writer.join()
    assert run.counts == {"tiles": 4, "ok": 4}
    assert run.info["summary"]["infinite_psnr"] == 4
    again = semnr.score(
        watch_folder(folder, roles=("denoised", "reference"), idle=0), out=tmp_path / "run", metrics=("psnr",)
    )
    assert again.counts == {"tiles": 4, "ok": 4}


def test_the_stream_ends_when_nothing_changes_and_reports_what_never_became_whole(tmp_path) -> None:
    folder = watched(tmp_path / "in")
    Image.fromarray(images()[0]).save(folder / "denoised" / "alone.png")
    source = watch_folder(folder, roles=("denoised", "reference"), settle=0.05, idle=0.3)
    source._look = 0.02
    run = semnr.score(source, out=tmp_path / "run", metrics=("psnr",))
    (row,) = run.table().to_pylist()
    assert (row["tile"], row["status"]) == ("alone", "missing")
    assert run.exit_code == 3


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path, monkeypatch) -> None:
    folder = watched(tmp_path / "in")
    for role in ("denoised", "reference"):
        path = folder / role / "t0.png"
        Image.fromarray(images()[0]).save(path)
        os.utime(path, (4e9, 4e9))  # written in the future
    monkeypatch.setattr(time, "time", lambda: 0.0)
    source = watch_folder(folder, roles=("denoised", "reference"), settle=0.05, idle=0.3)
    source._look = 0.02
    assert [key.tile for key in source] == ["t0"]


def test_bad_arguments_of_a_watch_are_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="folder is"):
        watch_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="roles has 'clean'"):
        watch_folder(tmp_path, roles=("clean",))
    with pytest.raises(ValueError, match="idle is -1"):
        watch_folder(tmp_path, idle=-1)
