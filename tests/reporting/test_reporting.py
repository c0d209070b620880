"""The report: one self-contained file, honest about what is missing, safe with any name."""

from __future__ import annotations

import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from written import AXES, NASTY, example_verdicts, pictures, write_run

from semnr.reporting import report
from semnr.reporting.draw import diverging_table, radar
from semnr.reporting.metrics import number
from semnr.reporting.panes import _residual
from semnr.reporting.runs import load_run, merged, psnr_of_mean_mse
from semnr.reporting.wafer import lay_out, script_json

PANES = ("Reference", "Noisy input", "Denoised", "Residual", "Evidence map")


# ---- reading a report back ---------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser's parser makes of the file: elements, attributes, and text by element."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside: str | None = None
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self._inside = tag
            self.scripts += [""] if tag == "script" else []

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside is None:
            self.words.append(data)

    @property
    def wafer(self) -> dict:
        def refuse(token):
            raise AssertionError(f"bare {token} in the JSON")

        return json.loads(self.scripts[0], parse_constant=refuse)


def decoded(uri: str) -> np.ndarray:
    """Pixels of a picture inside the page."""
    import base64
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.fixture
def make(tmp_path):
    """Write a run, report it, and read the page."""

    def build(*, verdict=None, images=None, worst=2, title=None, **options) -> Page:
        folder = write_run(tmp_path / "run", **options)
        return Page(report(folder, tmp_path / "report.html", verdict=verdict, images=images, worst=worst, title=title))

    return build


def test_the_file_needs_nothing_from_outside(make):
    page = make(images=pictures, verdict=example_verdicts(["candidate"]))
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, name, attributes[name])
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert not re.search(r"url\(|@import", page.source)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1]


def test_the_policy_allows_the_very_script_that_is_in_the_file(make):
    import base64
    import hashlib

    page = make()
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)


def test_names_from_the_data_are_text_and_never_markup(make):
    def nasty(columns):
        columns["tile"] = [NASTY + str(i) for i in range(len(columns["tile"]))]
        columns["lot_id"] = [NASTY] * len(columns["tile"])
        columns["reason"] = [None if s == "ok" else NASTY for s in columns["status"]]
        return columns

    verdict = example_verdicts(["a", NASTY])[1]
    verdict["signals"][0] |= {
        "name": NASTY,
        "advice": NASTY,
        "evidence": {NASTY: NASTY},
        "regions": [{"tile": NASTY + "3"}],
    }
    verdict["path"] = [NASTY]
    meta = {"source": NASTY, "machine": {NASTY: NASTY}, "weights": {NASTY: {"sha256": NASTY}}}
    page = make(label=NASTY, change=nasty, verdict=verdict, meta=meta)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2, "data, code"
    assert not any(a.get("src") == "x" for _, a in page.elements)
    assert NASTY in html.unescape(page.text), "it is shown all the same"
    assert page.wafer["tiles"][3] == NASTY + "3"
    assert page.wafer["runs"][0]["label"] == NASTY
    assert "<" not in page.scripts[0]


def test_json_in_a_script_cannot_end_the_script():
    text = script_json({"a": "</script><!--<script>&\u2028", "b": "x"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["a"] == "</script><!--<script>&\u2028"


def test_json_refuses_bare_nan():
    with pytest.raises(ValueError, match="JSON compliant"):
        script_json([math.nan])


def test_the_summary_shows_the_numbers_of_the_parquet(tmp_path, make):
    page = make()
    table = pq.read_table(tmp_path / "run" / "tiles" / "part-00000.parquet").to_pydict()
    mse = [v for v in table["mse"] if v is not None]
    psnr = [v for v in table["psnr"] if v is not None]
    assert f"57 of 60 {10 * math.log10(255**2 / (sum(mse) / len(mse))):.2f} {sum(psnr) / len(psnr):.2f} " in page.text
    for column, digits in (
        ("ssim", 4),
        ("fsim", 4),
        ("dists", 4),
        ("cnr_fixed_noise", 2),
        ("contrast_retention", 3),
        ("transfer", 3),
    ):
        values = [v for v in table[column] if v is not None]
        assert f"{sum(values) / len(values):.{digits}f}" in page.text, column


def test_psnr_of_mean_mse_is_not_the_mean_of_db(tmp_path):
    def change(columns):
        columns["mse"] = [1.0, 9.0, *[None] * 58]
        columns["psnr"] = [10 * math.log10(255**2), 10 * math.log10(255**2 / 9), *[None] * 58]
        return columns

    run = load_run(write_run(tmp_path / "r", change=change))
    assert psnr_of_mean_mse(run) == pytest.approx(10 * math.log10(255**2 / 5))
    run.meta["settings"]["data_range"] = None  # the range of the dtype, not on record
    assert psnr_of_mean_mse(run) == pytest.approx(10 * math.log10(255**2 / 5))


def test_the_wafer_map_holds_every_value_of_the_parquet(tmp_path, make):
    wafer = make().wafer
    table = pq.read_table(tmp_path / "run" / "tiles" / "part-00000.parquet").to_pydict()
    assert wafer["tiles"] == table["tile"]
    for column, cells in wafer["runs"][0]["values"].items():
        for shown, stored in zip(cells, table[column], strict=True):
            assert (shown is None) == (stored is None), column
            assert shown is None or shown == pytest.approx(stored, rel=5e-6), column


def test_nan_is_no_value_and_infinite_psnr_is_counted_apart(make):
    def change(columns):
        columns["psnr"][2], columns["mse"][2] = math.inf, 0.0
        columns["ssim"][3] = math.nan
        return columns

    page = make(change=change)
    values = page.wafer["runs"][0]["values"]
    assert values["psnr"][2] == "inf"
    assert values["ssim"][3] is None
    assert "Identical to the reference (PSNR ∞), so left out of the mean of tile PSNRs: 1." in page.text


def test_dists_is_labelled_uncalibrated_and_with_its_sample(make):
    page = make()
    assert page.text.count("uncalibrated") >= 3, "summary, profile, distribution"
    assert "on a sample of 12 tiles" in page.text


def test_calibrated_dists_on_all_tiles_carries_no_label(make):
    def everywhere(columns):
        columns["dists"] = [0.1 + 0.001 * i for i in range(60)]
        return columns

    page = make(change=everywhere, meta={"settings": {"data_range": 255, "dists": {"calibrated": True}}})
    assert "uncalibrated" not in page.text
    assert "on a sample" not in page.text


def test_a_metric_that_was_not_evaluated_is_said_to_be_missing(make):
    def without(columns):
        return {k: v for k, v in columns.items() if k not in ("dists", "fsim", "transfer", "transfer_se")}

    page = make(change=without)
    assert "Not evaluated: FSIM, DISTS, Evidence transfer T." in page.text
    assert "FSIM, DISTS missing, so there is no area and no mean." in page.text
    assert "dists" not in page.wafer["runs"][0]["values"]


def test_a_run_whose_every_tile_failed_still_makes_a_report(make):
    def fail(columns):
        kept = {k: columns[k] for k in ("tile", "index", "die_x", "die_y")}
        return {**kept, "status": ["unreadable"] * 60, "reason": ["truncated"] * 60}

    page = make(change=fail)
    assert "0 of 60 scored" in page.text
    assert "60 unreadable" in page.text
    assert "No metric has a value on any tile." in page.text


def test_missing_pixels_are_said_with_the_reason(make):
    page = make(images=lambda tile, role: None)
    assert "The pixels of these tiles are not at hand" in page.text
    assert not any(tag == "img" and a.get("src") for tag, a in page.elements)


@pytest.mark.parametrize("name", ["wafer.zarr", "tiles"])
def test_pixels_are_read_from_the_sources_that_the_run_names(tmp_path, make, name):
    from semnr.tiles import create_tiles
    from semnr.tiles.source import TileKey

    lowest = make(worst=1).wafer["runs"][0]["values"]["ssim"]
    tile = f"t{int(np.nanargmin(np.array(lowest, dtype=float))):06d}"
    for path, roles in ((tmp_path / name, ("reference", "noisy")), (tmp_path / f"clean-{name}", ("image",))):
        with create_tiles(path, roles=roles) as writer:
            for i in range(60):
                for role in roles:
                    writer.write(TileKey(f"t{i:06d}", i), pictures(f"t{i:06d}", role), role)
    # beside the run folder's parent, as an absolute and as a relative path
    page = make(worst=1, meta={"source": str(tmp_path / f"clean-{name}"), "reference": f"../{name}"})
    shown = {a["alt"]: a["src"] for tag, a in page.elements if tag == "img" and a.get("alt")}
    given = make(worst=1, images=pictures)
    assert shown == {a["alt"]: a["src"] for tag, a in given.elements if tag == "img" and a.get("alt")}
    assert set(shown) == {f"{what} of {tile}" for what in PANES}


def test_a_source_that_is_gone_is_named_and_does_not_stop_the_report(make):
    page = make(worst=1, meta={"source": "gone.zarr", "reference": None})
    assert "source not at hand" in page.text
    assert "gone.zarr" in page.text


def test_one_missing_role_leaves_the_others(make):
    page = make(images=lambda tile, role: None if role == "reference" else pictures(tile, role), worst=1)
    titles = [a["alt"] for tag, a in page.elements if tag == "img" and a.get("alt")]
    assert [t.rsplit(" of ", 1)[0] for t in titles] == ["Noisy input", "Denoised", "Residual", "Evidence map"]


def test_without_a_noisy_input_the_difference_to_the_reference_is_shown(make):
    page = make(images=lambda tile, role: None if role == "noisy" else pictures(tile, role), worst=1)
    titles = [a["alt"] for tag, a in page.elements if tag == "img" and a.get("alt")]
    assert [t.rsplit(" of ", 1)[0] for t in titles] == ["Reference", "Denoised", "SSIM map"]
    assert "needs the pixels of the noisy input" in page.text


def test_worst_tiles_show_reference_noisy_denoised_residual_and_evidence_map(make):
    page = make(images=pictures, worst=3)
    images = [a for tag, a in page.elements if tag == "img" and a.get("alt")]
    assert len(images) == 15
    assert [a["alt"].rsplit(" of ", 1)[0] for a in images[:5]] == list(PANES)
    lowest = np.argsort(np.nan_to_num(np.array(page.wafer["runs"][0]["values"]["ssim"], dtype=float), nan=9))[:3]
    assert [a["alt"].rsplit(" ", 1)[1] for a in images[::5]] == [f"t{i:06d}" for i in lowest]


def test_the_ssim_map_lies_in_the_frame_of_the_tile():
    import base64
    import io

    from PIL import Image

    from semnr.reporting.draw import lookup_table
    from semnr.reporting.panes import _ssim_map

    class Run:
        data_range = 255.0

    image = pictures("t000001", "reference")
    picture = _ssim_map("map", image, image, Run())
    decoded = Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1]))).convert("RGBA")
    assert decoded.size == (48, 40)
    rgba = np.asarray(decoded)
    assert (rgba[5:-5, 5:-5, :3] == lookup_table()[255]).all(), "identical images: 1 everywhere"
    assert (rgba[:5, :, 3] == 0).all(), "no window fits there: no colour"


def test_a_tile_smaller_than_the_ssim_window_says_so(make):
    page = make(images=lambda tile, role: pictures(tile, role)[:8, :8], worst=1)
    assert "window" in page.text
    assert "sides of at least 32" in page.text, "nor can the residual be scanned"
    assert len([1 for tag, a in page.elements if tag == "img" and a.get("alt")]) == 4


def test_large_tiles_are_reduced_but_for_one_part_and_the_report_says_so(make):
    page = make(images=lambda tile, role: np.tile(pictures(tile, role), (16, 16)), worst=1)
    images = [a for tag, a in page.elements if tag == "img" and a.get("class") == "overview"]
    assert {(a["width"], a["height"]) for a in images} == {("256", "213")}
    details = [a for tag, a in page.elements if tag == "img" and a.get("class") == "detail"]
    assert len(details) == len(images) == 5
    assert {decoded(a["src"]).shape[:2] for a in details} == {(160, 160)}
    assert "Inside the frame of 160 px every pixel is there; outside it the tile is reduced." in page.text


@pytest.mark.parametrize(("index", "word"), [(0, "Passed"), (1, "Failed"), (2, "Incomplete")])
def test_the_verdict_stands_first_in_words_and_shape(make, index, word):
    page = make(verdict=example_verdicts(["candidate"] * 3)[index])
    main = page.source[page.source.index("<main") :]
    assert re.search(r'class="word">.*?' + word, main).start() < main.index("Candidate")
    assert f'href="#i-{word.lower()}"' in main
    for step in example_verdicts(["candidate"] * 3)[index]["path"]:
        assert step in page.text


def test_without_a_verdict_nothing_looks_passed(make):
    page = make()
    assert "Not judged" in page.text
    assert "Passed" not in page.text


def test_evidence_comes_with_its_standard_error_and_advice(make):
    page = make(verdict=example_verdicts(["a", "candidate"])[1])
    assert "Evidence transfer T 0.6600 ± 0.0080" in page.text
    assert "do not release this model" in page.text


def test_flagged_tiles_reach_the_map_and_come_first_among_the_worst(make):
    page = make(verdict=example_verdicts(["a", "candidate"])[1], worst=3)
    flags = page.wafer["runs"][0]["flags"]
    assert sorted(map(int, flags)) == [3, 17, 21, 22, 34, 41, 47, 50]
    assert flags["17"] == ["Evidence transfer", "Over-smoothing"]
    assert page.text.count("flagged: Evidence transfer") == 3


def test_a_flag_on_a_tile_the_run_does_not_have_is_harmless(make):
    verdict = example_verdicts(["a", "candidate"])[1]
    verdict["signals"][0]["regions"] = [{"tile": "nowhere"}]
    page = make(verdict=verdict)
    assert "nowhere" in page.text


def test_verdict_files_in_the_run_folder_are_read_once(tmp_path):
    folder = write_run(tmp_path / "run")
    verdict = example_verdicts(["x", "candidate"])[1]
    (folder / "verdict.json").write_text(json.dumps(verdict))
    page = Page(report(folder, tmp_path / "a.html", verdict=verdict, worst=0))
    assert page.source.count('class="verdict failed"') == 1


def test_a_verdict_object_and_a_path_say_the_same_as_the_dict(tmp_path):
    folder = write_run(tmp_path / "run")
    verdict = example_verdicts(["x", "candidate"])[1]

    class Verdict:
        def to_dict(self):
            return verdict

    (tmp_path / "v.json").write_text(json.dumps(verdict))
    files = [
        report(folder, tmp_path / f"{i}.html", verdict=given, worst=0).read_text()
        for i, given in enumerate((verdict, Verdict(), tmp_path / "v.json", [verdict]))
    ]
    assert len(set(files)) == 1


def test_several_candidates_are_compared_in_every_section(tmp_path):
    runs = [write_run(tmp_path / str(k), label=label, seed=k) for k, label in enumerate(("nlm", "tv", "nlm"))]
    out = report(runs[0], tmp_path / "r.html", compare=runs[1:], verdict=example_verdicts(["nlm", "tv"]), worst=1)
    page = Page(out)
    assert [run["label"] for run in page.wafer["runs"]] == ["nlm", "tv", "nlm (2)"]
    assert len(page.wafer["tiles"]) == 60, "shared tiles are not repeated"
    assert "no such rule" in page.text, "the matrix of signals"
    assert "B tv" in page.text


def test_a_run_object_with_a_path_is_accepted(tmp_path):
    class Run:
        path = write_run(tmp_path / "run")

    assert report(Run(), tmp_path / "sub" / "r.html", worst=0) == tmp_path / "sub" / "r.html"


def test_an_interrupted_run_is_called_unfinished(make):
    assert "the run was still going or was cut off" in make(meta={"state": "running"}).text


# ---- errors ------------------------------------------------------------------------------------------


def test_an_empty_run_is_a_clear_error_and_leaves_no_file(tmp_path):
    folder = write_run(tmp_path / "run", change=lambda c: {k: v[:0] for k, v in c.items()})
    with pytest.raises(ValueError, match="empty run"):
        report(folder, tmp_path / "r.html")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run_or_path: .* has no run\.json"):
        report(tmp_path, tmp_path / "r.html")


def test_a_damaged_run_json_is_named(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json is not JSON"):
        report(folder, tmp_path / "r.html")


def test_a_damaged_parquet_file_is_named(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "tiles" / "part-00001.parquet").write_bytes(b"PAR1 truncated")
    with pytest.raises(ValueError, match=r"Parquet files of .* cannot be read"):
        report(folder, tmp_path / "r.html")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"worst": -1}, ValueError, "worst is -1"),
        ({"worst": True}, ValueError, "worst is True"),
        ({"verdict": {"a": 1}}, ValueError, "no passed and signals"),
        ({"verdict": 3}, TypeError, "verdict is int"),
        ({"verdict": "nowhere.json"}, FileNotFoundError, "no file nowhere.json"),
        ({"images": 3}, TypeError, "images is int"),
        ({"compare": "other"}, TypeError, "compare is str"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, error, message):
    folder = write_run(tmp_path / "run")
    with pytest.raises(error, match=message):
        report(folder, tmp_path / "r.html", **arguments)
    assert not (tmp_path / "r.html").exists()


def test_a_run_of_a_wrong_type_is_named(tmp_path):
    with pytest.raises(TypeError, match="run_or_path is int"):
        report(3, tmp_path / "r.html")


# ---- drawings ----------------------------------------------------------------------------------------


def test_the_radar_is_that_of_the_profile(tmp_path, make):
    from semnr.runs import Run

    page = make()
    profile = Run.open(tmp_path / "run").profile()
    shown = [*profile.axes().values(), profile.area, profile.mean_axis]
    assert len(shown) == 7
    cells = re.search(r"Area Mean candidate (.*?) From 0 to 1", page.text)[1].split()
    assert cells[::2] == [f"{v:.2f}" for v in shown]
    for value, interval in zip(shown, cells[1::2], strict=True):
        low, high = map(float, interval.split("–"))
        assert low <= round(value, 2) <= high
    assert "The CNR axis is CNR, fixed noise." in page.text


def test_a_missing_axis_breaks_the_radar_line_instead_of_drawing_zero():
    whole = str(radar([("x", dict.fromkeys(AXES, 0.8), {})]))
    broken = str(radar([("x", {**dict.fromkeys(AXES, 0.8), "dists": math.nan}, {})]))
    assert 'class="area"' in whole
    assert 'class="area"' not in broken
    assert broken.count('class="edge"') == 3
    assert ">missing</text>" in broken


def test_tiles_lie_where_their_wafer_coordinates_say(tmp_path):
    run = load_run(write_run(tmp_path / "r"))
    layout = lay_out([run])
    assert "300 mm" in layout.caption
    x, y = run.values("wafer_x_um") / 150_000, run.values("wafer_y_um") / 150_000
    np.testing.assert_allclose(layout.x, x, atol=0.01)
    np.testing.assert_allclose(layout.y, y, atol=0.01)


def test_dies_without_positions_form_a_centred_grid_and_no_two_marks_overlap(tmp_path):
    def without(columns):
        return {k: v for k, v in columns.items() if k not in ("wafer_x_um", "wafer_y_um", "x_um", "y_um")}

    layout = lay_out([load_run(write_run(tmp_path / "r", change=without))])
    assert "not to scale" in layout.caption
    assert np.hypot(layout.x, layout.y).max() < 1
    dx = np.abs(layout.x[:, None] - layout.x) + 9 * np.eye(60)
    dy = np.abs(layout.y[:, None] - layout.y) + 9 * np.eye(60)
    assert ((dx > layout.size[0]) | (dy > layout.size[1])).all()


def test_tiles_without_coordinates_are_drawn_in_order_and_without_a_wafer(tmp_path):
    keep = ("tile", "ssim", "status")
    layout = lay_out([load_run(write_run(tmp_path / "r", change=lambda c: {k: c[k] for k in keep}))])
    assert not layout.outline
    assert "no coordinates" in layout.caption
    assert layout.x[0] < layout.x[1]
    assert layout.y[0] > layout.y[-1]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(1.23456, 2, "1.23"), (-0.5, 2, "−0.50"), (275.0, -4, "275.0"), (12345.6, -4, "12346"), (0.0, -4, "0"),
     (math.nan, 2, "–"), (math.inf, 2, "∞"), (None, 2, "–")],
)  # fmt: skip
def test_numbers_are_written_for_reading(value, digits, text):
    assert number(value, digits) == text


# ---- flowchart, gains, places, trend, metrology, notes -------------------------------------------------


def walked(fired: bool) -> list[dict]:
    """A flowchart as the guard writes it: three questions, the last one open."""
    steps = [
        {"question": "PSNR up?", "answer": "yes", "signal": None,
         "numbers": {"psnr_change": 1.7, "psnr_change_se": 0.04}},
        {"question": "Structure lost?", "answer": "yes" if fired else "no",
         "signal": "evidence_transfer" if fired else None,
         "numbers": {"transfer": 0.66, "tiles_fired": 8 if fired else 0, "tiles_judged": 60}},
        {"question": "Texture washed out?", "answer": "not evaluated", "numbers": {}, "signal": None},
    ]  # fmt: skip
    ends = [s["question"] for s in steps[1:]] + ["reject: evidence transfer" if fired else "accept: nothing was found"]
    return [{**step, "next": end} for step, end in zip(steps, ends, strict=True)]


def test_the_flowchart_draws_every_question_and_marks_the_path_taken(make):
    verdict = {**example_verdicts(["a", "candidate"])[1], "flowchart": walked(True)}
    page = make(verdict=verdict)
    chart = re.search(r'<svg class="flowchart".*?</svg>', page.source, re.DOTALL)[0]
    for words in ("PSNR up?", "Structure lost?", "8 of 60 tiles", "Texture washed out?", "Reject: evidence transfer"):
        assert words in html.unescape(chart), words
    assert chart.count("fc-signal fc-fired") == 1
    assert chart.count("fc-signal fc-open") == 1, "a question without evidence is an open branch, not a no"
    assert "fc-end fc-failed" in chart
    assert "Structure lost? yes: Evidence transfer" in html.unescape(re.search(r'aria-label="(.*?)"', chart)[1])
    quiet = make(verdict={**verdict, "passed": True, "exit_code": 0, "flowchart": walked(False)}).source
    assert "fc-signal fc-fired" not in quiet
    assert "fc-end fc-passed" in quiet


def test_without_a_flowchart_the_lines_of_the_path_are_drawn(make):
    verdict = example_verdicts(["a", "candidate"])[1]
    verdict["path"] = ["over_smoothing: PSNR up? yes, +1.7; FSIM down? yes, -0.06 -> fired"]
    chart = re.search(r'<svg class="flowchart".*?</svg>', make(verdict=verdict).source, re.DOTALL)[0]
    assert "Over-smoothing?" in chart
    assert "fc-signal fc-fired" in chart


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (0, "candidate may replace released: none of 3 guardrails fired; 1 without evidence."),
        (1, "candidate should not replace released: 2 of 4 guardrails fired."),
        (2, "No decision on candidate: 2 of 2 guardrails have no evidence."),
    ],
)
def test_the_decision_is_a_sentence_with_what_to_do(make, index, words):
    page = make(verdict=example_verdicts(["candidate"] * 3)[index])
    assert words in page.text
    assert page.text.index(words) < page.text.index("Means over the scored tiles"), (
        "the verdict comes before the numbers"
    )


def test_what_a_candidate_gained_and_paid_is_said_against_its_baseline(tmp_path):
    worse = (30.0, 0.85, 0.80, 0.1, 3.5, 0.7)  # PSNR up, FSIM and transfer down
    runs = [write_run(tmp_path / "a", label="released"), write_run(tmp_path / "b", label="new", means=worse, seed=1)]
    page = Page(report(runs, tmp_path / "r.html", worst=0))
    said = re.search(r"against released\. (Gained .*?) The figures", page.text)[1]
    gained, paid = said.split("Paid")
    assert "PSNR" in gained
    assert "FSIM" in paid
    assert "Evidence transfer T" in paid
    assert "PSNR" not in paid


def test_candidates_of_other_tiles_are_not_compared_and_it_is_said(tmp_path):
    def renamed(columns):
        columns["tile"] = [f"x{tile}" for tile in columns["tile"]]
        return columns

    runs = [write_run(tmp_path / "a", label="released"), write_run(tmp_path / "b", label="new", change=renamed)]
    assert "new is not compared with released" in Page(report(runs, tmp_path / "r.html", worst=0)).text


def test_it_is_said_what_is_measured_estimated_and_unknown(make):
    def framed(columns):
        kept = ("tile", "index", "status", "reason", "die_x", "die_y", "transfer", "transfer_se")
        n = len(columns["tile"])
        more = {"psnr_estimated": [28.0] * n, "psnr_estimated_se": [0.1] * n, "frames": [3.0] * n}
        return {**{k: columns[k] for k in kept}, **more}

    text = make(change=framed, meta={"reference": None}).text
    assert "PSNR ◐ estimated from 3 noisy frames: there is no clean reference" in text
    assert "SSIM ○ unknown no clean reference:" in text
    assert "Evidence transfer ● measured against a second noisy frame" in text
    assert "PSNR, estimated higher is better" in text, "the estimate stands in the table of scores"
    assert "DISTS ◐ estimated uncalibrated" in make().text


def test_rings_reticle_fields_dies_and_alarms_are_summed_up(tmp_path, make):
    wafer = {"pitch_um": [24_000.0, 24_000.0], "center_um": [12_000.0, 12_000.0], "reticle": [2, 1], "notch": "left"}
    alarm = {
        "alarm": "low_ssim",
        "metric": "ssim",
        "place": {"die_x": 0},
        "tiles": ["t000003"],
        "value": 0.7,
        "below": 0.8,
    }
    folder = write_run(tmp_path / "run", meta={"wafer": wafer})
    (folder / "alarms.jsonl").write_text(json.dumps(alarm) + "\n")
    page = Page(report(folder, tmp_path / "r.html", worst=0))
    for words in ("By ring", "ring 1 (centre)", "By place in the reticle", "By die", "Low ssim SSIM", "below 0.8"):
        assert words in page.text, words
    assert "Notch at the left" in page.text
    assert page.wafer["notch"] == 3
    assert len(page.wafer["dies"]) > 15, "dies without tiles are outlined too"
    table = pq.read_table(folder / "tiles" / "part-00000.parquet").to_pydict()
    first = [t for t, x, y in zip(table["transfer"], table["die_x"], table["die_y"], strict=True) if (x, y) == (0, 0)]
    means = [v for v in first if v is not None]
    assert f"die 0, 0 4 {sum(means) / len(means):.3f}" in page.text or "lowest Evidence transfer T" in page.text


def lots_of(columns, count):
    n = len(columns["tile"])
    columns["lot_id"] = [f"L{100 + i * count // n}" for i in range(n)]
    return columns


def test_the_trend_shows_the_mean_of_each_lot_in_order(tmp_path, make):
    page = make(change=lambda c: lots_of(c, 3))
    table = pq.read_table(tmp_path / "run" / "tiles" / "part-00000.parquet").to_pydict()
    means = []
    for lot in ("L100", "L101", "L102"):
        values = [v for v, name in zip(table["ssim"], table["lot_id"], strict=True) if name == lot and v is not None]
        means.append(f"{lot} {sum(values) / len(values):.4f}")
    assert f"SSIM over lots. candidate: {', '.join(means)}" in page.source
    assert "Trend over lots" not in make().text, "one lot has no trend"


def test_runs_of_one_lot_each_are_points_of_one_line_in_the_order_of_their_time(tmp_path):
    runs = []
    for k, day in enumerate((3, 1, 2)):

        def one_lot(columns, k=k):
            columns["lot_id"] = [f"L{k}"] * len(columns["tile"])
            return columns

        meta = {"created": f"2026-01-0{day}T00:00:00+00:00"}
        runs.append(write_run(tmp_path / str(k), label=f"lot {k}", seed=k, change=one_lot, meta=meta))
    page = Page(report(runs, tmp_path / "r.html", worst=0))
    assert "each run is one lot" in page.text
    spoken = re.search(r"SSIM over lots\. all runs: L(\d) .*?, L(\d) .*?, L(\d) ", page.source)
    assert spoken.groups() == ("1", "2", "0")


def test_metrology_is_shown_with_what_was_refused(make):
    def measured(columns):
        n = len(columns["tile"])
        more = {"cd_px": [25.0 + i % 3 for i in range(n)], "ler_px": [3.0] * n, "ler_unbiased_px": [None] * n,
                "unbiased_ok": [0.0] * n, "edge_psd_64_32": [0.9] * n, "edge_psd_32_16": [0.4] * n}  # fmt: skip
        return {**columns, **more}

    page = make(change=measured)
    assert "CD (px) 26.00 ± 0.11" in page.text
    assert "unbiased roughness refused on 60 of 60 tiles" in page.text
    assert "Edge PSD left, 64 to 32 px 0.90, Edge PSD left, 32 to 16 px 0.40" in page.source
    assert "Metrology" not in make().text.split("What these figures rest on")[0]


def test_notes_of_the_caller_are_shown_as_text(tmp_path):
    notes = [f"Recipe {NASTY}", {"caption": "Doses", "header": ["Dose", "Tiles"], "rows": [["low", 12]]}]
    page = Page(report(write_run(tmp_path / "run"), tmp_path / "r.html", worst=0, notes=notes))
    assert f"Recipe {NASTY}" in page.text
    assert "Doses Dose Tiles low 12" in page.text
    with pytest.raises(TypeError, match="notes is str"):
        report(tmp_path / "run", tmp_path / "r.html", notes="text")
    with pytest.raises(ValueError, match="rows are not as long"):
        report(tmp_path / "run", tmp_path / "r.html", notes=[{"header": ["a"], "rows": [[1, 2]]}])


def test_boxes_that_touch_are_one_place_and_others_stay_apart():
    box = {"kind": "removed", "height": 6.0, "width": 6.0}
    found = merged([
        {**box, "row": 20.0, "col": 20.0, "z": 6.0},
        {**box, "row": 30.0, "col": 20.0, "z": -9.0},
        {**box, "row": 90.0, "col": 20.0, "z": 7.0},
        {**box, "kind": "invented", "row": 21.0, "col": 20.0, "z": 5.0},
    ])  # fmt: skip
    assert [(b["kind"], b["row"], b["height"], b["z"]) for b in found] == [
        ("removed", 25.0, 16.0, -9.0), ("removed", 90.0, 6.0, 7.0), ("invented", 21.0, 6.0, 5.0),
    ]  # fmt: skip


def test_the_evidence_map_that_the_run_kept_is_shown_rather_than_made_again(tmp_path):
    import zarr

    folder = write_run(tmp_path / "run")
    kept = zarr.open_group(str(folder / "maps.zarr"), mode="w").create_array("evidence", shape=(60, 40, 48), dtype="f4")
    kept[:] = 8.0
    page = Page(report(folder, tmp_path / "r.html", worst=1, images=pictures))
    uri = next(a["src"] for tag, a in page.elements if tag == "img" and (a.get("alt") or "").startswith("Evidence map"))
    import base64
    import io

    from PIL import Image

    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))
    assert (shown == diverging_table(65)[64]).all(), "8 σ removed everywhere"


def test_the_residual_is_noisy_minus_denoised():
    noisy = np.full((40, 48), 100.0)
    noisy[:, :24] += np.where(np.arange(40)[:, None] % 2, 1.0, -1.0)
    noisy[10, 30] = 140.0
    picture = _residual("Residual", noisy, np.full((40, 48), 100.0))
    import base64
    import io

    from PIL import Image

    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",")[1]))).convert("L"), dtype=int)
    assert grey[10, 30] == 255, "what was taken is bright"
    assert abs(grey[20, 40] - 128) <= 1, "nothing taken is mid-grey"


# ---- Markdown, JSON, PNG -------------------------------------------------------------------------------


def test_markdown_reads_as_a_summary_and_escapes_names(tmp_path):
    label = "we|ird_`name`<b>"
    runs = [write_run(tmp_path / "a", label="released"), write_run(tmp_path / "b", label=label, seed=1)]
    verdict = {**example_verdicts(["x", label])[1]}
    out = report(runs, tmp_path / "r.md", verdict=verdict)
    text = out.read_text(encoding="utf-8")
    assert text.index("should not replace released") < text.index("## Scores")
    assert r"we\|ird\_\`name\`\<b\>" in text
    assert "- **Evidence transfer** fired" in text
    assert "`t000003`" in text
    assert "uncalibrated" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", tables[0])) for line in tables[:4])


def test_json_holds_every_row_and_what_the_report_derives(tmp_path):
    folder = write_run(tmp_path / "run")
    verdict = example_verdicts(["x", "candidate"])[1]
    read = json.loads(report(folder, tmp_path / "r.json", verdict=verdict).read_text(encoding="utf-8"))
    table = pq.read_table(folder / "tiles" / "part-00000.parquet").to_pydict()
    run = read["runs"][0]
    assert run["tiles"]["tile"] == table["tile"]
    assert run["tiles"]["ssim"] == table["ssim"]
    assert read["decisions"][0]["state"] == "failed"
    assert read["verdicts"][0]["signals"] == verdict["signals"]
    low, high = run["profile"]["intervals"]["ssim"]
    assert low < run["profile"]["axes"]["ssim"] < high
    assert run["flagged"]["t000017"] == ["Evidence transfer", "Over-smoothing"]
    assert {"places", "trend", "gains", "basis", "metrology"} <= set(read)


def test_png_is_one_picture_with_the_verdict_and_the_wafer(tmp_path):
    from PIL import Image

    runs = [write_run(tmp_path / "a", label="released"), write_run(tmp_path / "b", label=NASTY, seed=1)]
    plain = Image.open(report(runs, tmp_path / "a.png"))
    judged = Image.open(report(runs, tmp_path / "b.png", verdict=example_verdicts(["x", NASTY])[1]))
    assert plain.width == judged.width == 1400
    assert judged.height > plain.height
    fail = np.array([0xA5, 0x28, 0x1B])
    assert (np.abs(np.asarray(judged.convert("RGB"), dtype=int) - fail).sum(axis=2) == 0).sum() > 300
    assert not (np.abs(np.asarray(plain.convert("RGB"), dtype=int) - fail).sum(axis=2) == 0).any()


def test_the_form_follows_the_name_unless_it_is_said(tmp_path):
    folder = write_run(tmp_path / "run")
    assert report(folder, tmp_path / "a.txt", format="md").read_text().startswith("# Lot L4711")
    assert report(folder, tmp_path / "a.html", worst=0).read_text().startswith("<!doctype html>")
    with pytest.raises(ValueError, match="format is 'pdf'; accepted: 'html', 'md', 'json', 'png'"):
        report(folder, tmp_path / "a.pdf", format="pdf")


def test_the_command_writes_each_form(tmp_path, capsys):
    from semnr.cli import main

    folder = write_run(tmp_path / "run")
    (tmp_path / "v.json").write_text(json.dumps(example_verdicts(["candidate"])[0]))
    for kind in ("html", "md", "json", "png"):
        out = tmp_path / f"out-{kind}"
        arguments = ["report", str(folder), "--out", str(out), "--format", kind, "--worst", "0"]
        assert main([*arguments, "--verdict", str(tmp_path / "v.json")]) == 0
        assert out.stat().st_size > 500
    assert "written to" in capsys.readouterr().out
