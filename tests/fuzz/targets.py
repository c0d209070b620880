"""What is fuzzed: each target reads one made-up file as a user would, and may raise only what its reader promises."""

from __future__ import annotations

import io
import itertools
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

PLACE = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
TILES = 12  # keys looked at: a header may claim any number
BREAK = b"\n---\n"  # between the files of a Zarr hierarchy
ZARR = ("zarr.json", "image/zarr.json", "0/zarr.json", "columns/zarr.json", ".zattrs", ".zgroup", "0/.zarray")


def _said(error: Exception) -> None:
    if not str(error).strip():
        raise RuntimeError(f"{type(error).__name__} without a reason")


def _read_all(source) -> None:
    """Read the first tiles in every role; a tile may be refused, with its reason."""
    from semnr import TileError

    for key in itertools.islice(source, TILES):
        assert key.tile.isprintable() or key.tile.encode()  # an id is text that a table can hold
        for role in source.roles:
            try:
                pixels = source.read(key, role)
            except TileError as error:
                _said(error)
                continue
            assert pixels.ndim in (2, 3)
            assert pixels.size


def _open(path: Path) -> None:
    from semnr.tiles import open_tiles

    try:
        source = open_tiles(path)
        len(source)
    except (ValueError, FileNotFoundError, TypeError) as error:
        _said(error)
        return
    _read_all(source)


def tiff(data: bytes, folder: Path) -> None:
    from semnr import TileError
    from semnr.tiles import decode, pixel_size_nm

    path = folder / "x.tif"
    path.write_bytes(data)
    try:
        decode(path)
    except TileError as error:
        _said(error)
    pixel_size_nm(path)
    _open(path)


def klarf(data: bytes, folder: Path) -> None:
    from semnr.klarf import KlarfError, parse_klarf, read_klarf, write_klarf

    path = folder / "lot.klarf"
    path.write_bytes(data)
    _open(path)
    try:
        found = read_klarf(path)
    except KlarfError:
        return
    if not found.wafers or any(wafer.layout is None for wafer in found.wafers):
        return
    for version in ("1.2", "1.8"):  # every defect that was read is written and read again
        write_klarf(path, found, version=version)
        again = parse_klarf(path.read_text(encoding="utf-8"))
        assert [d.id for w in again.wafers for d in w.defects] == [d.id for w in found.wafers for d in w.defects]


def plan(data: bytes, folder: Path) -> None:
    path = folder / ("plan.parquet" if data[:4] == b"PAR1" else "plan.csv")
    path.write_bytes(data)
    _open(path)


def zarr(data: bytes, folder: Path) -> None:
    """Metadata documents of a hierarchy; the array's one chunk is there."""
    root = folder / "x.zarr"
    for name, text in zip(ZARR, data.split(BREAK), strict=False):
        if text:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text)
    for name in ("image/c/0/0/0", "0/c/0/0"):
        if (root / name.partition("/")[0]).is_dir():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(bytes(range(256)))
    if root.is_dir():
        _open(root)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {"plan": plan, "zarr": zarr, "klarf": klarf, "tiff": tiff}


def once(name: str, data: bytes) -> None:
    """One input in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="semnr-fuzz-", dir=PLACE))
    try:
        if name == "klarf":
            (folder / "lot.tif").write_bytes(_LOT)
        TARGETS[name](data, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- where fuzzing begins: small files of every kind that the readers know ------------------------------------------


def seeds(name: str) -> list[bytes]:
    return {"tiff": _tiffs, "klarf": _klarfs, "plan": _plans, "zarr": _zarrs}[name]()


def _tiffs() -> list[bytes]:
    import numpy as np
    import tifffile

    def written(pixels, **options) -> bytes:
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, **options)
        return file.getvalue()

    grey = np.arange(16 * 20, dtype=np.uint8).reshape(16, 20)
    colours = np.tile(np.arange(256, dtype=np.uint16), (3, 1))
    deep = grey.astype(np.uint16) * 257
    made = [
        written(grey, metadata=None),
        written(grey, metadata=None, bigtiff=True),
        written(deep, photometric="miniswhite", byteorder=">", metadata=None),
        written(grey, photometric="palette", colormap=colours, metadata=None),
        written(np.stack([grey] * 3, -1), photometric="rgb", metadata=None),
        written(np.stack([grey] * 3), photometric="rgb", planarconfig="separate", metadata=None),
        written(np.stack([grey, grey]), ome=True),
        written(np.stack([deep, deep]), imagej=True),
        written(grey, tile=(16, 16), compression="zlib", metadata=None),
    ]
    made += [written(deep, compression=c, rowsperstrip=4, metadata=None) for c in ("lzw", "packbits", "zstd", "lzma")]
    made += [written(grey, compression="jpeg", metadata=None)]
    made += [
        written(grey, extratags=[(code, 2, 0, text.encode("latin-1"), True)], metadata=None) for code, text in _VENDORS
    ]
    return made


_VENDORS = (
    (34682, "[Scan]\r\nPixelWidth=1e-9\r\n"),
    (34683, "<Metadata><BinaryResult><PixelSize><X unit='m'>1e-9</X></PixelSize></BinaryResult></Metadata>"),
    (34118, "0\r\nAP_PIXEL_SIZE\r\nPixel Size = 5.825 nm\r\nAP_WIDTH\r\nWidth = 5.965 µm\r\n"),
    (51023, "<Fibics><Scan><Ux>0.01</Ux><Uy>0</Uy></Scan></Fibics>"),
)


def _lot() -> bytes:
    import numpy as np
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8), photometric="minisblack")
    return file.getvalue()


_LOT = _lot()
_HEAD = (
    'FileVersion 1 2;\nLotID "L";\nSampleSize 1 300;\nOrientationMarkLocation DOWN;\nDiePitch 1e4 1e4;\nWaferID "W";\n'
    "Slot 1;\nSampleCenterLocation 0 0;\nSampleTestPlan 1\n 0 0;\nTiffFileName lot.tif;\n"
    "DefectRecordSpec 8 DEFECTID XREL YREL XINDEX YINDEX TEST IMAGECOUNT IMAGELIST;\nDefectList\n"
)


def _klarfs() -> list[bytes]:
    lists = (
        " 1 1 2 0 0 1 1 1 1 0\n 2 3 4 0 1 1 2 2 2 0 3 0;\n",
        " 1 1 2 0 0 1 1\n 1 1 0;\n 2 3 4 0 1 1 0 0;\n",
        " 1 1 2 0 0 1 1 1 0\n 2 3 4 0 1 1 0;\n",
        "FILENAME a.jpg\n 1 1 2 0 0 1 1 1 0;\nTiffFileName lot.tif\n 2 3 4 0 1 1 0;\n",
    )
    eight = (
        'Record FileRecord "1.8" {\nRecord LotRecord "L" {\nField DiePitch 2 {10000000, 10000000}\n'
        'Record WaferRecord "W" {\nList DefectList {\nColumns 6 { int32 DEFECTID, int32 XREL, int32 YREL, '
        "int32 XINDEX, int32 YINDEX, ImageList IMAGEINFO }\nData 2 {\n"
        '1 100 200 0 0 Images 1 { "lot.tif" "TIFF" 1 "Patch" };\n2 100 200 0 0 N;\n}}}}}\nEndOfFile;\n'
    )
    texts = [f"{_HEAD}{rows}EndOfFile;\n" for rows in lists] + [eight]
    return [text.encode() for text in texts]


def _plans() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"path": ["a.tif", "b.tif"], "die_x": [1, 2], "tile": ["a", None]}), table)
    return [
        b"path,tile,reference,die_x\na.png,t1,r/a.png,1\nb.png,t2,r/b.png,2\n",
        b"path;die_x\na.png;1\n",
        b"path\ta\nx.png\t1\n",
        "path,note\na.png,é\n".encode("utf-16"),
        b'\xef\xbb\xbfpath,x_um,data_range\r\n"a""b.png",nan,255\r\n../c.png,1e3,255\r\n',
        table.getvalue().to_pybytes(),
    ]


def _zarrs() -> list[bytes]:
    import json

    def array(shape: list[int], chunk: list[int], dtype: str = "uint8") -> str:
        codecs = [{"name": "bytes"}] if dtype == "uint8" else [{"name": "bytes", "configuration": {"endian": "little"}}]
        return json.dumps(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": shape,
                "data_type": dtype,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": 0,
                "codecs": codecs,
                "attributes": {},
            }
        )

    def group(**attributes: object) -> str:
        return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes})

    scale = [{"type": "scale", "scale": [2.5, 2.5]}]
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "yx"]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [_dataset(scale)]}]}
    old = {"version": "0.4", "axes": axes, "datasets": [_dataset(scale)]}
    stack = {"format": "tile-stack", "pixel_nm": 1.5, "data_range": 255}
    v2 = {"zarr_format": 2, "shape": [16, 16], "chunks": [16, 16], "dtype": "|u1", "compressor": None, "order": "C"}
    files: list[list[str]] = [
        [group(semnr=stack), array([2, 16, 16], [1, 16, 16])],
        [group(ome=ome), "", array([16, 16], [16, 16])],
        [group(plate={"wells": [{"path": "A/1"}]})],
        [array([2, 16, 16], [1, 16, 16], "uint16")],
        [
            "",
            "",
            "",
            "",
            json.dumps({"multiscales": [old]}),
            '{"zarr_format": 2}',
            json.dumps({**v2, "fill_value": 0, "filters": None}),
        ],
    ]
    return [BREAK.join(text.encode() for text in texts) for texts in files]


def _dataset(scale: list[dict[str, object]]) -> dict[str, object]:
    return {"path": "0", "coordinateTransformations": scale}


def looped(data: bytes) -> bytes:
    """A little-endian classic TIFF whose last page points to its first."""
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    end = first + 2 + 12 * count
    return data[:end] + struct.pack("<I", first) + data[end + 4 :]
