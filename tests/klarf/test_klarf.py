"""KLARF 1.x and 1.8: read, write, and survive what tools and file transfers do to them."""

from __future__ import annotations

import dataclasses
import datetime
import os
import random

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import semnr
from semnr.klarf import Defect, ImageRef, InspectedWafer, Klarf, KlarfError, parse_klarf, read_klarf, write_klarf
from semnr.wafers import Wafer

FUZZ = int(os.environ.get("SEMNR_SOAK_FUZZ", "300"))

ONE = """FileVersion 1 2;
FileTimestamp 11-22-26 01:02:03;
InspectionStationID "MAKER" "MODEL" "TOOL7";
SampleType WAFER;
LotID "LOT;7";
SampleSize 1 300;
DeviceID "DEV";
SetupID "RECIPE" 11-22-26 01:00:00;
StepID "M1 etch";
SampleOrientationMarkType NOTCH;
OrientationMarkLocation LEFT;
DiePitch 8.0000000000e+003 6.5000000000e+003;
DieOrigin 0.0 0.0;
WaferID "W03";
Slot 3;
SampleCenterLocation 4.1e+003 3.0e+003;
ClassLookup 2
 0 "Unclassified"
 7 "Bridge, open";
InspectionTest 1;
SampleTestPlan 3
 0 0
 -1 0
 2 -3;
AreaPerTest 1.56e+008;
DefectRecordSpec 12 DEFECTID XREL YREL XINDEX YINDEX XSIZE YSIZE DEFECTAREA CLASSNUMBER TEST IMAGECOUNT IMAGELIST ;
TiffFileName frames.tif;
DefectList
 1 125.5 40.25 -2 3 0.5 0.25 0.125 7 1 2
 1 0 2 0
 2 10 20 0 0 1 1 1 0 1 0 0
 3 11 21 0 0 1 1 1 0 1 0;
SummarySpec 5 TESTNO NDEFECT DEFDENSITY NDIE NDEFDIE;
SummaryList
 1 3 0.1 3 2;
EndOfFile;
"""

EIGHT = """Record FileRecord "1.8"
{
  Record LotRecord "LOT7"
  {
    Field DeviceID 1 {"DEV"}
    Field DiePitch 2 {8000000, 6500000}
    Field OrientationMarkLocation 1 {90}
    Field SampleSize 2 {300000000, 0}
    Record WaferRecord "W03"
    {
      Field SampleCenterLocation 2 {4100000, 3000000}
      Field SlotNumber 1 {3}
      List DefectList
      {
        Columns 9 { int32 DEFECTID, int32 XREL, int32 YREL, int32 XINDEX, int32 YINDEX, int32 XSIZE, int32 YSIZE,
          float DEFECTAREA, ImageList IMAGEINFO }
        Data 2
        {
          1 125500 40250 -2 3 500 250 125000.0 Images 2 { "a b.jpg" "JPG" 1 "Patch", "c.tif" "TIFF" 2 "Ref" };
          2 10000 20000 0 0
            1000 1000 1e6 N;
        }
      }
      Record TestRecord "1"
      {
        List SampleTestPlanList
        {
          Columns 2 { int32 XINDEX, int32 YINDEX }
          Data 2
          {
            0 0 ;
            -1 0 ;
          }
        }
      }
    }
    List ClassLookupList
    {
      Columns 3 { int32 CLASSNUMBER, string CLASSNAME, string CLASSCODE }
      Data 1
      {
        7 "Bridge; {open}" "";
      }
    }
  }
}
EndOfFile;
"""


def test_version_1_reads_layout_defects_classes_and_images() -> None:
    klarf = parse_klarf(ONE)
    (wafer,) = klarf.wafers
    assert (klarf.version, klarf.lot_id, klarf.step_id, klarf.setup_id) == ("1.2", "LOT;7", "M1 etch", "RECIPE")
    assert klarf.station == ("MAKER", "MODEL", "TOOL7")
    assert klarf.classes == {0: "Unclassified", 7: "Bridge, open"}
    assert (wafer.wafer_id, wafer.slot, wafer.test_plan) == ("W03", 3, ((0, 0), (-1, 0), (2, -3)))
    assert wafer.layout == Wafer((8000.0, 6500.0), (4100.0, 3000.0), 300_000.0, notch="left")
    first, second, third = wafer.defects
    assert (first.id, first.die_x, first.die_y, first.x_um, first.y_um) == (1, -2, 3, 125.5, 40.25)
    assert (first.size_um, first.area_um2, first.class_number) == ((0.5, 0.25), 0.125, 7)
    assert first.images == (ImageRef("frames.tif", 1, "0"), ImageRef("frames.tif", 2, "0"))
    assert (second.id, second.images, third.id, third.images) == (2, (), 3, ())
    assert klarf.problems == ()


def test_absolute_is_index_times_pitch_plus_relative_minus_sample_center() -> None:
    (wafer,) = parse_klarf(ONE).wafers
    assert wafer.absolute_um(wafer.defects[0]) == (-2 * 8000 + 125.5 - 4100, 3 * 6500 + 40.25 - 3000)


def test_version_1_8_reads_the_same_in_micrometres() -> None:
    klarf = parse_klarf(EIGHT)
    (wafer,) = klarf.wafers
    assert (klarf.version, klarf.lot_id, wafer.wafer_id, wafer.slot) == ("1.8", "LOT7", "W03", 3)
    assert wafer.layout == Wafer((8000.0, 6500.0), (4100.0, 3000.0), 300_000.0, notch="left")
    first, second = wafer.defects
    assert (first.x_um, first.y_um, first.size_um, first.area_um2) == (125.5, 40.25, (0.5, 0.25), 0.125)
    assert first.images == (ImageRef("a b.jpg", 1, "Patch"), ImageRef("c.tif", 2, "Ref"))
    assert second.images == ()
    assert second.area_um2 == 1.0
    assert klarf.classes == {7: "Bridge; {open}"}
    assert wafer.test_plan == ((0, 0), (-1, 0))
    assert klarf.problems == ()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("\n", "\r"),
        lambda t: t.replace(" ", "\t  "),
        lambda t: "\ufeff" + t,
        lambda t: t.replace("\n", "\n\n \n"),
        lambda t: t + "\n\n\0\0",
    ],
    ids=["CRLF", "CR", "tabs", "BOM", "blank lines", "NULs at the end"],
)
@pytest.mark.parametrize("text", [ONE, EIGHT], ids=["1.2", "1.8"])
def test_line_ends_and_spacing_change_nothing(text, spoil) -> None:
    def essence(klarf):
        return [dataclasses.replace(d, columns={}) for d in klarf.wafers[0].defects], klarf.wafers[0].layout

    # strings hold single spaces: leave them out of the comparison
    plain = text.replace('"M1 etch"', '"M1"').replace('"a b.jpg"', '"ab.jpg"').replace("Bridge, open", "Bridge")
    assert essence(parse_klarf(spoil(plain))) == essence(parse_klarf(plain))


def test_rows_that_each_end_in_a_semicolon_and_file_names_between_them_are_read() -> None:
    """Some review tools write one TiffFileName before each row, without a semicolon."""
    head = ONE[: ONE.index("TiffFileName")]
    text = head + (
        "DefectList\nTiffFileName one.jpg\n 1 1 2 0 0 1 1 1 0 1 1 1 0;\n"
        "TiffFileName two.jpg\n 2 3 4 0 0 1 1 1 0 1 1 1 0;\nEndOfFile;\n"
    )
    (wafer,) = parse_klarf(text).wafers
    assert [(d.id, d.images[0].file) for d in wafer.defects] == [(1, "one.jpg"), (2, "two.jpg")]


def test_two_wafers_in_a_file_keep_their_own_defects() -> None:
    second = ONE[ONE.index("WaferID") :].replace("W03", "W04").replace("Slot 3", "Slot 4")
    klarf = parse_klarf(ONE.replace("EndOfFile;\n", "") + second)
    assert [(w.wafer_id, w.slot, len(w.defects)) for w in klarf.wafers] == [("W03", 3, 3), ("W04", 4, 3)]


@pytest.mark.parametrize(
    ("cut", "what"),
    [
        (ONE.replace("DefectRecordSpec 12", "Nothing 12"), "DefectRecordSpec"),
        (ONE.replace("EndOfFile;", ""), "EndOfFile"),
        (ONE.replace("DiePitch", "Pitch"), "DiePitch"),
        (ONE.replace("SampleTestPlan 3", "SampleTestPlan 5"), "SampleTestPlan"),
        (ONE.replace(" 2 10 20", " 2 here 20"), "line 3"),
        (EIGHT.replace("Data 2\n        {\n          1", "Data 3\n        {\n          1"), "DefectList"),
        (EIGHT[: EIGHT.index("Record TestRecord")], "cut off"),
        (EIGHT.replace("1e6 N;", "N;"), "8 cells"),
        (EIGHT.replace("Field DiePitch", "Field Pitch"), "DiePitch"),
    ],
)
def test_what_is_damaged_is_told_and_the_rest_is_read(cut, what) -> None:
    klarf = parse_klarf(cut)
    assert any(what in problem for problem in klarf.problems)
    assert klarf.lot_id in ("LOT;7", "LOT7")


@pytest.mark.parametrize(
    "text",
    ["", "hello", "FileVersion 2 0;", "FileVersion 1 7;", 'Record FileRecord "1.9" {}', "\0" * 100],
)
def test_what_is_no_klarf_is_refused_with_what_is_accepted(text) -> None:
    with pytest.raises(KlarfError, match="accepted"):
        parse_klarf(text)


def test_columns_that_are_named_again_after_rows_are_a_problem_and_the_rows_stay() -> None:
    again = "Columns 2 { int32 XINDEX, int32 YINDEX }"
    end = EIGHT.index("}", EIGHT.index(";", EIGHT.index("DEFECTID")))
    klarf = parse_klarf(EIGHT[:end] + "}\n" + again + "\n" + EIGHT[end + 1 :])
    assert klarf.wafers[0].defects == parse_klarf(EIGHT).wafers[0].defects
    assert any("names its columns again" in problem for problem in klarf.problems)


@settings(max_examples=FUZZ, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), text=st.sampled_from([ONE, EIGHT]))
def test_damaged_text_never_raises_anything_but_klarf_error(seed, text) -> None:
    rng = random.Random(seed)
    letters = list(text)
    for _ in range(rng.randrange(1, 40)):
        kind, at = rng.randrange(4), rng.randrange(len(letters))
        if kind == 0:
            del letters[at : at + rng.randrange(1, 60)]
        elif kind == 1:
            letters.insert(at, rng.choice('{};,"\n\r\0 9-eNé'))
        elif kind == 2:
            letters[at] = rng.choice('{};," 0x')
        else:
            piece = letters[at : at + 50]
            letters[at:at] = piece
        if not letters:
            letters = [" "]
    try:
        klarf = parse_klarf("".join(letters))
    except KlarfError:
        return
    assert isinstance(klarf, Klarf)


@settings(max_examples=FUZZ, deadline=None)
@given(st.text(alphabet='{};," \n0123456789.-eRcordFilLstDaTgeN', max_size=400))
def test_nonsense_after_a_good_head_never_raises(text) -> None:
    assert isinstance(parse_klarf("FileVersion 1 2;\n" + text), Klarf)
    assert isinstance(parse_klarf('Record FileRecord "1.8"\n{' + text), Klarf)


def test_records_in_records_in_records_do_not_exhaust_the_stack() -> None:
    deep = 'Record FileRecord "1.8" {' + 'Record A "x" {' * 100_000
    assert any("records in records" in problem for problem in parse_klarf(deep).problems)


@settings(max_examples=60, deadline=None)
@given(
    defects=st.lists(
        st.tuples(st.integers(-40, 40), st.integers(-40, 40), st.floats(0, 8000), st.floats(0, 6500)), max_size=20
    ),
    version=st.sampled_from(["1.2", "1.8"]),
    notch=st.sampled_from(["down", "left", "up", "right"]),
    name=st.text(max_size=20),
)
def test_what_is_written_is_read_again(tmp_path_factory, defects, version, notch, name) -> None:
    path = tmp_path_factory.mktemp("klarf") / "x.klarf"
    found = tuple(
        Defect(i + 1, die_x, die_y, round(x, 3), round(y, 3), (0.125, 0.25), 0.03125, 7)
        for i, (die_x, die_y, x, y) in enumerate(defects)
    )
    layout = Wafer((8000.0, 6500.0), (4100.0, 3000.0), 200_000.0, notch=notch)
    klarf = Klarf("1.2", "lot " + name, wafers=(InspectedWafer("w", layout, 5, (), found),), classes={7: "flagged"})
    write_klarf(path, klarf, version=version)
    again = read_klarf(path)
    (wafer,) = again.wafers
    assert again.problems == ()
    assert again.version == version
    assert (wafer.layout, wafer.wafer_id, wafer.slot, again.classes) == (layout, "w", 5, {7: "flagged"})
    assert [dataclasses.replace(d, columns={}) for d in wafer.defects] == [
        dataclasses.replace(d, x_um=pytest.approx(d.x_um, abs=5e-4), y_um=pytest.approx(d.y_um, abs=5e-4))
        for d in found
    ]


def test_text_cannot_break_out_of_its_quotes(tmp_path) -> None:
    layout = Wafer((8000.0, 6500.0))
    klarf = Klarf("1.2", 'a";\nEndOfFile;\n"', wafers=(InspectedWafer("w", layout),))
    for version in ("1.2", "1.8"):
        write_klarf(tmp_path / "x", klarf, version=version, when=datetime.datetime(2026, 11, 22))
        again = read_klarf(tmp_path / "x")
        assert again.lot_id == "a ; EndOfFile;  "
        assert len(again.wafers) == 1


def test_a_name_that_reads_like_a_head_of_a_file_does_not_choose_the_version(tmp_path) -> None:
    for text in ("FileVersion 1 21 300", 'Record FileRecord "1.8"'):
        klarf = Klarf("1.2", text, wafers=(InspectedWafer(text, Wafer((8000.0, 6500.0))),))
        for version in ("1.2", "1.8"):
            write_klarf(tmp_path / "x", klarf, version=version, when=datetime.datetime(2026, 11, 22))
            again = read_klarf(tmp_path / "x")
            assert (again.version, again.lot_id) == (version, text.replace('"', " "))


def test_writing_without_a_layout_or_in_an_unknown_version_is_refused(tmp_path) -> None:
    bare = Klarf("1.2", wafers=(InspectedWafer("w", None),))
    with pytest.raises(ValueError, match="layout"):
        write_klarf(tmp_path / "x", bare)
    with pytest.raises(ValueError, match="version"):
        write_klarf(tmp_path / "x", bare, version="1.7")
    assert not list(tmp_path.iterdir())


# --- as a source of tiles -------------------------------------------------------------------------------------


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (count, 24, 32), dtype=np.uint8)


def test_defects_with_pages_of_one_tiff_become_tiles_with_their_coordinates(tmp_path) -> None:
    pages = frames(2)
    tifffile.imwrite(tmp_path / "frames.tif", pages, photometric="minisblack")
    (tmp_path / "lot.001").write_text(ONE, encoding="utf-8")
    source = semnr.open_tiles(tmp_path / "lot.001")
    keys = list(source)
    assert [key.tile for key in keys] == ["W03/d000001", "W03/d000001-2"]
    assert keys[0].meta["wafer_x_um"] == -2 * 8000 + 125.5 - 4100
    assert (keys[0].meta["die_x"], keys[0].meta["x_um"], keys[0].meta["lot_id"]) == (-2, 125.5, "LOT;7")
    for key, page in zip(keys, pages, strict=False):  # pages 1 and 2, counted from 1
        np.testing.assert_array_equal(source.read(key), page)
    assert {(p.tile, p.status) for p in source.problems} == {("W03/d000002", "missing"), ("W03/d000003", "missing")}


def test_a_page_beyond_the_file_is_that_tile_s_problem(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "frames.tif", frames(1), photometric="minisblack")
    (tmp_path / "lot.klarf").write_text(ONE, encoding="utf-8")
    source = semnr.open_tiles(tmp_path / "lot.klarf")
    first, second = source
    assert source.read(first).shape == (24, 32)
    with pytest.raises(semnr.TileError, match="page 2"):
        source.read(second)


def test_files_of_version_1_8_are_read_beside_the_klarf_file(tmp_path) -> None:
    pages = frames(3)
    Image.fromarray(pages[0]).save(tmp_path / "a b.jpg", quality=100)
    tifffile.imwrite(tmp_path / "c.tif", pages, photometric="minisblack")
    (tmp_path / "lot.klarf").write_text(EIGHT, encoding="utf-8")
    source = semnr.open_tiles(tmp_path / "lot.klarf")
    first, second = source
    assert source.read(first).shape == (24, 32)
    np.testing.assert_array_equal(source.read(second), pages[1])


@pytest.mark.parametrize("name", ["../frames.tif", "/etc/frames.tif", "C:\\frames.tif"])
def test_images_outside_the_folder_are_refused_and_the_others_read(tmp_path, name) -> None:
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "frames.tif", frames(3), photometric="minisblack")
    text = ONE.replace("TiffFileName frames.tif", f"TiffFileName {name}")
    (tmp_path / "in" / "lot.klarf").write_text(text, encoding="utf-8")
    source = semnr.open_tiles(tmp_path / "in" / "lot.klarf")
    assert len(source) == 0
    assert [p.status for p in source.problems if "d000001" in p.tile] == ["refused", "refused"]
    if name.startswith(".."):
        assert len(semnr.open_tiles(tmp_path / "in" / "lot.klarf", root=tmp_path)) == 2


# --- the dialects of 1.0 to 1.2 -------------------------------------------------------------------------------

IMAGES = "DEFECTID XREL YREL XINDEX YINDEX XSIZE YSIZE DEFECTAREA DSIZE CLASSNUMBER TEST IMAGECOUNT IMAGELIST"
PLACES = [(1, 1000.5, 1, -1), (2, 2000.5, 2, -2), (3, 3000.5, 3, -3), (4, 4000.5, 4, -4)]


def flat(rows: str, spec: str = f"13 {IMAGES};", version: str = "1 2") -> str:
    return (
        f'FileVersion {version};\nSampleSize 1 300;\nTiffFileName lot.tif;\nDiePitch 1.0e4 1.0e4;\nWaferID "W1";\n'
        f"SampleCenterLocation 0 0;\nSampleTestPlan 1\n 0 0;\nDefectRecordSpec {spec}\nDefectList\n{rows}\n"
        "SummarySpec 5 TESTNO NDEFECT DEFDENSITY NDIE NDEFDIE;\nSummaryList\n 1 4 0.1 1 4;\nEndOfFile;\n"
    )


def row(number: int, images: str) -> str:
    defect, x, die_x, die_y = PLACES[number]
    return f" {defect} {x} 500.25 {die_x} {die_y} 1 1 1 1 0 1 {images}"


def rows(images: list[str], each: bool = False) -> str:
    return ("{};\n" if each else "{}\n").format("").join(row(i, text) for i, text in enumerate(images)) + ";"


def places(klarf: Klarf) -> list[tuple[int, float, int, int]]:
    return [(d.id, d.x_um, d.die_x, d.die_y) for wafer in klarf.wafers for d in wafer.defects]


def pages_of(klarf: Klarf) -> list[list[int | None]]:
    return [[image.page for image in d.images] for wafer in klarf.wafers for d in wafer.defects]


ONE_EACH = [[1], [2], [3], [4]]
MIXED = [[1, 2], [], [3], []]
DIALECTS = {
    "counted": (["1 1 1 0", "1 1 2 0", "1 1 3 0", "1 1 4 0"], ONE_EACH),
    "counted, pairs on the next line": (["1 1\n 1 0", "1 1\n 2 0", "1 1\n 3 0", "1 1\n 4 0"], ONE_EACH),
    "counted, the list on the next line": (["1\n 1 1 0", "1\n 1 2 0", "1\n 1 3 0", "1\n 1 4 0"], ONE_EACH),
    "counted, a line a pair, a lone 0": (["2 2\n 1 0\n 2 0", "0 0", "1 1\n 3 0", "0 0"], MIXED),
    "counted, empty lists left out": (["2 2 1 0 2 0", "0", "1 1 3 0", "0"], MIXED),
    "bare": (["1 1 0", "1 2 0", "1 3 0", "1 4 0"], ONE_EACH),
    "bare, pairs on the next line": (["1\n 1 0", "1\n 2 0", "1\n 3 0", "1\n 4 0"], ONE_EACH),
    "bare, a lone 0": (["2 1 0 2 0", "0 0", "1 3 0", "0 0"], MIXED),
    "bare, empty lists left out": (["2\n 1 0\n 2 0", "0", "1 3 0", "0"], MIXED),
}


@pytest.mark.parametrize("each", [False, True], ids=["one ; at the end", "a ; a row"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_each_defect_its_own_images(dialect, each) -> None:
    images, expected = DIALECTS[dialect]
    klarf = parse_klarf(flat(rows(images, each)))
    assert klarf.problems == ()
    assert places(klarf) == PLACES
    assert pages_of(klarf) == expected


@pytest.mark.parametrize("version", ["1.2", "1.8"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_was_read_from_any_dialect_is_written_and_read_again(tmp_path, dialect, version) -> None:
    klarf = parse_klarf(flat(rows(DIALECTS[dialect][0])))
    write_klarf(tmp_path / "again", klarf, version=version)
    again = read_klarf(tmp_path / "again")
    assert again.problems == ()
    for before, after in zip(klarf.wafers[0].defects, again.wafers[0].defects, strict=True):
        assert dataclasses.replace(after, columns={}) == dataclasses.replace(before, columns={})


def test_images_in_several_files_are_written_row_by_row(tmp_path) -> None:
    layout = Wafer((8000.0, 6500.0))
    files = ["a.tif", "two  words.jpg", "two  words.jpg", None, "c;d.tif"]
    found = tuple(Defect(i + 1, 0, 0, 1.0, 2.0, images=(ImageRef(name, i + 1, "0"),)) for i, name in enumerate(files))
    klarf = Klarf("1.2", wafers=(InspectedWafer("w", layout, defects=found),))
    for version in ("1.2", "1.8"):
        write_klarf(tmp_path / "x", klarf, version=version)
        again = read_klarf(tmp_path / "x")
        assert again.problems == ()
        assert [d.images for d in again.wafers[0].defects] == [d.images for d in found]
    two = (Defect(1, 0, 0, 1.0, 2.0, images=(ImageRef("a.tif", 1), ImageRef("b.tif", 1))),)
    with pytest.raises(ValueError, match="several files"):
        write_klarf(tmp_path / "x", Klarf("1.2", wafers=(InspectedWafer("w", layout, defects=two),)))


DAMAGE = {
    "a cell short": lambda line: line.replace(" 500.25", ""),
    "a cell more": lambda line: line.replace(" 500.25", " 500.25 7"),
    "an image short": lambda line: line.rsplit(" ", 2)[0],
    "a page that is no number": lambda line: line.rsplit(" ", 2)[0] + " x 0",
    "an id of 1e30": lambda line: line.replace(" 2 2000.5", " 1e30 2000.5"),
    "an id that is no number": lambda line: line.replace(" 2 2000.5", " NA 2000.5"),
    "half a die": lambda line: line.replace(" 2 -2 ", " 2.5 -2 "),
    "a place of 400 digits": lambda line: line.replace("2000.5", "9" * 400),
    "a place with an underscore": lambda line: line.replace("2000.5", "2_000"),
}


@pytest.mark.parametrize("each", [False, True], ids=["one ; at the end", "a ; a row"])
@pytest.mark.parametrize("dialect", ["counted", "counted, pairs on the next line", "bare"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_row_is_a_problem_and_costs_no_other_row(damage, dialect, each) -> None:
    images = list(DIALECTS[dialect][0])
    good = rows(images, each)
    line = row(1, images[1])
    damaged = DAMAGE[damage](line)
    assert damaged != line
    text = flat(good.replace(line, damaged))
    klarf = parse_klarf(text)
    assert places(klarf) == [PLACES[0], *PLACES[2:]]
    assert pages_of(klarf) == [[1], [3], [4]]
    assert klarf.problems[0].startswith(f"line {text[: text.index(damaged)].count(chr(10)) + 1}: ")


@settings(max_examples=FUZZ, deadline=None)
@given(
    images=st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=4), min_size=2, max_size=4),
    counted=st.booleans(),
    each=st.booleans(),
    wrap=st.booleans(),
    dropped=st.integers(0, 3),
    kind=st.sampled_from(["none", "cell", "line"]),
)
@example(images=[[10], [1, 1, 1], [1]], counted=True, each=False, wrap=False, dropped=0, kind="cell")
def test_rows_in_are_rows_out_or_a_problem_each(images, counted, each, wrap, dropped, kind) -> None:
    lists = [
        f"{len(pages)} {len(pages) if counted else ''}{chr(10) if wrap and pages else ''} "
        + " ".join(f"{page} 0" for page in pages)
        for pages in images
    ]
    lines = [row(i, text) for i, text in enumerate(lists)]
    at = dropped % len(lines)
    if kind == "cell":
        lines[at] = lines[at].replace(" 500.25", "")
    elif kind == "line":
        lines[at] = " 99 what is this"
    klarf = parse_klarf(flat((";\n" if each else "\n").join(lines) + ";"))
    kept = [i for i in range(len(images)) if kind == "none" or i != at]
    found = {d.id: [image.page for image in d.images] for d in klarf.wafers[0].defects}
    if kind == "none":
        assert klarf.problems == ()
        assert found == {PLACES[i][0]: images[i] for i in kept}
    assert set(found) <= {PLACES[i][0] for i in kept}  # nothing is invented
    assert all(found[PLACES[i][0]] == images[i] for i in kept if PLACES[i][0] in found)
    assert len(found) + len(klarf.problems) >= len(images)


def test_a_row_that_lacks_a_cell_is_not_taken_for_one_without_a_list() -> None:
    text = flat(rows(["1 1 1 0", "0 0", "0 0", "1 1 4 0"]).replace(" 2000.5 500.25", " 2000.5"))
    klarf = parse_klarf(text)
    assert places(klarf) == [PLACES[0], *PLACES[2:]]
    assert [problem[:8] for problem in klarf.problems] == ["line 12:"]


@pytest.mark.parametrize("word", ["FILENAME", "TiffFileName", "TIFFFILENAME", "FileName"])
@pytest.mark.parametrize("end", ["", ";"])
def test_file_names_between_the_rows_belong_to_the_row_after_them(word, end) -> None:
    spec = "6 DEFECTID XREL YREL XINDEX YINDEX TEST;"
    text = "".join(f"{word} {i}.jpg{end}\n {i} 1 2 0 0 1\n" for i in range(1, 17)) + " 17 1 2 0 0 1;"
    klarf = parse_klarf(flat(text, spec))
    assert klarf.problems == ()
    assert [d.images for d in klarf.wafers[0].defects] == [(ImageRef(f"{i}.jpg"),) for i in range(1, 17)] + [()]
    spec = "8 DEFECTID XREL YREL XINDEX YINDEX TEST IMAGECOUNT IMAGELIST;"
    text = "".join(f"{word} {i}.jpg{end}\n {i} 1 2 0 0 1 1 1 1 0\n" for i in range(1, 17)) + ";"
    klarf = parse_klarf(flat(text, spec))
    assert klarf.problems == ()
    assert [d.images for d in klarf.wafers[0].defects] == [(ImageRef(f"{i}.jpg", 1, "0"),) for i in range(1, 17)]


def test_words_between_the_rows_that_are_not_known_are_told_and_no_row_is_lost() -> None:
    lines = rows(DIALECTS["counted"][0]).split("\n")
    klarf = parse_klarf(flat("\n".join(f"Remark number {i}\n{line}" for i, line in enumerate(lines))))
    assert places(klarf) == PLACES
    assert len(klarf.problems) == 4
    assert all("Remark" in problem for problem in klarf.problems)


def test_a_statement_without_its_semicolon_ends_where_the_next_one_begins() -> None:
    text = flat(rows(DIALECTS["counted"][0]))
    klarf = parse_klarf(text.replace(f"{IMAGES};", IMAGES))
    assert places(klarf) == PLACES
    assert ["DefectRecordSpec" in problem for problem in klarf.problems] == [True]
    klarf = parse_klarf(text.replace('WaferID "W1";', 'WaferID "W1"').replace("1 1 4 0;", "1 1 4 0"))
    assert (places(klarf), klarf.wafers[0].wafer_id) == (PLACES, "W1")
    assert ["WaferID" in problem for problem in klarf.problems] == [True]


def test_rows_without_a_record_spec_are_a_problem_each() -> None:
    klarf = parse_klarf(flat(rows(DIALECTS["counted"][0])).replace("DefectRecordSpec", "Nothing"))
    assert places(klarf) == []
    assert sum("there is no DefectRecordSpec" in problem for problem in klarf.problems) == 4


def test_the_statements_of_1_2_are_read_as_version_1_8_too_and_keywords_in_any_case() -> None:
    klarf = parse_klarf(flat(rows(DIALECTS["counted"][0]), version="1 8"))
    assert (klarf.version, places(klarf), klarf.problems) == ("1.8", PLACES, ())
    klarf = parse_klarf(
        flat(rows(DIALECTS["counted"][0])).replace("DefectList", "DEFECTLIST").replace("EndOf", "ENDOF")
    )
    assert (places(klarf), klarf.problems) == (PLACES, ())
    nanometres = parse_klarf(flat(rows(DIALECTS["counted"][0]), version="1 8").replace("1.0e4", "1.0e7"))
    assert nanometres.wafers[0].layout is None
    assert any("DiePitch" in problem for problem in nanometres.problems)


def test_rows_of_1_8_that_lack_a_semicolon_are_read_by_their_cells() -> None:
    klarf = parse_klarf(EIGHT.replace('"Ref" };', '"Ref" }').replace("1e6 N;", "1e6 N"))
    assert klarf.wafers[0].defects == parse_klarf(EIGHT).wafers[0].defects
    assert klarf.problems == ()
    short = parse_klarf(EIGHT.replace("1e6 N;", "N"))
    assert [d.id for d in short.wafers[0].defects] == [1]
    assert any("8 cells" in problem for problem in short.problems)
    assert any("announces 3 images" in p for p in parse_klarf(EIGHT.replace("Images 2", "Images 3")).problems)


def lot(folder, images: list[str], pages: np.ndarray):
    tifffile.imwrite(folder / "lot.tif", pages, photometric="minisblack")
    (folder / "lot.klarf").write_text(flat(rows(images)), encoding="utf-8")
    return folder / "lot.klarf"


def read_all(source) -> list[np.ndarray]:
    return [source.read(key) for key in source]


def test_each_defect_shows_the_page_that_its_row_names(tmp_path) -> None:
    pages = frames(4)
    for dialect in ("counted", "counted, pairs on the next line", "bare"):
        source = semnr.open_tiles(lot(tmp_path, DIALECTS[dialect][0], pages))
        np.testing.assert_array_equal(read_all(source), pages)
        assert [(key.meta["die_x"], key.meta["x_um"]) for key in source] == [(p[2], p[1]) for p in PLACES]
        assert source.problems == ()


def test_pages_that_may_count_from_0_or_1_are_said_and_can_be_settled(tmp_path) -> None:
    """A lot whose first defect was filtered out names neither page 0 nor, counted from 0, a page beyond the last."""
    pages = frames(5)
    path = lot(tmp_path, DIALECTS["counted"][0], pages)
    source = semnr.open_tiles(path)
    assert [problem.status for problem in source.problems] == ["ambiguous"]
    np.testing.assert_array_equal(read_all(source), pages[:4])
    for first, expected in ((0, pages[1:]), (1, pages[:4])):
        settled = semnr.open_tiles(path, first_page=first)
        assert settled.problems == ()
        np.testing.assert_array_equal(read_all(settled), expected)
    source = semnr.open_tiles(lot(tmp_path, ["1 1 0 0", "1 1 1 0", "1 1 2 0", "1 1 4 0"], pages))
    assert source.problems == ()
    np.testing.assert_array_equal(read_all(source), pages[[0, 1, 2, 4]])
    with pytest.raises(ValueError, match="first_page"):
        semnr.open_tiles(path, first_page=2)
