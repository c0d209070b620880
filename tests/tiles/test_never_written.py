"""Tiles that nobody wrote: a store that gives the fill value for them gives no image."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from semnr.scoring import score
from semnr.tiles import open_tiles
from semnr_kernels import TileError

LAYOUTS = {
    "a chunk a tile": {"shape": (4, 64, 64), "chunks": (1, 64, 64)},
    "small chunks": {"shape": (4, 64, 64), "chunks": (1, 16, 24)},
    "chunks over tiles": {"shape": (4, 64, 64), "chunks": (2, 64, 64)},
    "bare": {"shape": (4, 64, 64), "chunks": (1, 64, 64), "compressors": None},
    "shards of tiles": {"shape": (4, 64, 64), "chunks": (1, 32, 32), "shards": (1, 64, 64)},
    "shards over tiles": {"shape": (4, 64, 64), "chunks": (1, 64, 64), "shards": (4, 64, 64)},
    "filled with 7": {"shape": (4, 64, 64), "chunks": (1, 64, 64), "fill_value": 7},
    "v2": {"shape": (4, 64, 64), "chunks": (1, 64, 64), "zarr_format": 2},
    "v2, small chunks": {"shape": (4, 64, 64), "chunks": (1, 16, 24), "zarr_format": 2},
}


@pytest.mark.parametrize("role", ["denoised", "reference", "noisy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_zarr_tile_none_of_whose_chunks_exist_is_missing_in_every_role_and_layout(tmp_path, layout, role) -> None:
    options = LAYOUTS[layout]
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w", zarr_format=options.get("zarr_format", 3))
    own = {k: v for k, v in options.items() if k != "zarr_format"}
    for name in ("denoised", "reference", "noisy"):
        group.create_array(name, dtype="u1", **own)
    written = 2 if layout == "chunks over tiles" else 1  # of a chunk that two tiles share, both are there
    group[role][:written] = np.arange(64 * 64 * written, dtype=np.uint8).reshape(written, 64, 64)
    source = open_tiles(tmp_path / "g.zarr")
    keys = list(source)
    np.testing.assert_array_equal(source.read(keys[0], role), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    for key in keys[written:]:
        with pytest.raises(TileError, match=r"g\.zarr: its .* was never written") as error:
            source.read(key, "image" if role == "denoised" else role)
        assert error.value.status == "missing"


@pytest.mark.parametrize("kind", ["stack", "mosaic", "ome"])
def test_tiles_of_a_single_array_that_nobody_wrote_are_missing(tmp_path, kind) -> None:
    place = str(tmp_path / "a.zarr")
    if kind == "stack":
        array = zarr.create_array(place, shape=(2, 32, 32), chunks=(1, 32, 32), dtype="u2")
        array[0] = 5
    elif kind == "mosaic":
        array = zarr.create_array(place, shape=(32, 64), chunks=(16, 16), dtype="f4", fill_value=np.nan)
        array[:, :32] = 5.0
    else:
        group = zarr.open_group(place, mode="w")
        array = group.create_array("0", shape=(2, 1, 32, 32), chunks=(1, 1, 32, 32), dtype="u1")
        array[0] = 5
        axes = [{"name": name} for name in "tcyx"]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    source = open_tiles(tmp_path / "a.zarr", tile=32)
    first, second = source
    assert (source.read(first) == 5).all()
    with pytest.raises(TileError, match="none of its chunks was ever written") as error:
        source.read(second)
    assert error.value.status == "missing"


def test_a_black_tile_that_was_written_is_a_black_tile(tmp_path) -> None:
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
    for name, shards in (("noisy", None), ("reference", (2, 32, 32))):
        array = group.create_array(
            name, shape=(2, 32, 32), chunks=(1, 16, 16), shards=shards, dtype="u1", config={"write_empty_chunks": True}
        )
        array[:] = 0
    source = open_tiles(tmp_path / "g.zarr")
    for key in source:
        assert not source.read(key, "noisy").any()
        assert not source.read(key, "reference").any()


def test_a_lot_of_which_nothing_was_written_scores_nothing(tmp_path) -> None:
    group = zarr.open_group(str(tmp_path / "never.zarr"), mode="w")
    for name in ("denoised", "noisy", "reference"):
        group.create_array(name, shape=(3, 32, 32), chunks=(1, 32, 32), dtype="u1")
    run = score(tmp_path / "never.zarr", out=tmp_path / "run", metrics=("psnr", "ssim"))
    assert run.counts == {"tiles": 3, "ok": 0, "missing": 3}
    assert run.exit_code == 3
    assert run.summary == {}
