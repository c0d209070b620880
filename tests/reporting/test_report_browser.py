"""The report in a real browser: it opens fast, hovers, filters, zooms in step, and its console stays silent."""

from __future__ import annotations

import importlib.resources
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from written import NASTY, example_verdicts, pictures, with_boxes, write_run

from semnr.reporting import report

SECOND_CANDIDATE = """
(e => { e.value = 1; e.dispatchEvent(new Event("change")); })(document.querySelector("#w-run"))
"""
# where tile 17 lies in the window, from the data that the map is drawn from
TILE_17 = """
(() => {
  const d = JSON.parse(document.querySelector("#wafer-data").textContent);
  const at = new DOMPoint(500 * d.x[17], -500 * d.y[17]);
  const p = at.matrixTransform(document.querySelector("#map svg").getScreenCTM());
  return [p.x, p.y];
})()
"""
CHOOSE_FSIM = """
(s => {
  s.value = [...s.options].find((o) => o.text === "FSIM").value;
  s.dispatchEvent(new Event("change"));
})(document.querySelector("#w-metric"))
"""
TRANSFORMS = """
[...document.querySelectorAll("article.worst")].map((a) =>
  [...new Set([...a.querySelectorAll(".plane")].map((p) => p.style.transform))])
"""
NAMELESS = """
[...document.querySelectorAll("button, select, input, [tabindex='0'], a")]
  .filter((e) => !(e.getAttribute("aria-label") || e.innerText?.trim() || e.labels?.length || e.textContent.trim()))
  .map((e) => e.outerHTML)
"""
UNDESCRIBED = """
[...document.querySelectorAll("svg")]
  .filter((e) => !e.closest("[aria-hidden=true]") && !e.closest("[aria-label]"))
  .map((e) => e.outerHTML.slice(0, 80))
"""
# the lowest contrast of any text with its ground, as WCAG 2.1 defines it
CONTRAST = """
(() => {
  const parts = (c) => c.match(/[\\d.]+/g).map(Number);
  const luminance = (c) => {
    const [r, g, b] = parts(c).map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (!c.startsWith("rgba") || parts(c)[3] === 1) return c;
    }
    return "rgb(255,255,255)";
  };
  const words = "main p, main td, main th, main li, main dt, main dd, nav a, .tag, small";
  return Math.min(...[...document.querySelectorAll(words)]
    .filter((e) => e.checkVisibility() && e.textContent.trim())
    .map((e) => {
      const a = luminance(getComputedStyle(e).color), b = luminance(ground(e));
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }));
})()
"""


@pytest.fixture(scope="module")
def browser():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Browser(Path(folder)) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Two candidates, the second of which failed."""
    folder = tmp_path_factory.mktemp("report")
    runs = [
        write_run(folder / label, label=label, seed=k, change=with_boxes) for k, label in enumerate(("nlm", "gaussian"))
    ]
    given = {label: pictures for label in ("nlm", "gaussian")}
    verdicts = example_verdicts(["nlm", "gaussian"])
    return report(runs, folder / "report.html", verdict=verdicts, images=given, worst=3)


@pytest.fixture
def opened(browser: Browser, page: Path):
    """The page, freshly loaded; whatever the test does, the console must stay silent and nothing be fetched."""
    browser.console.clear()
    browser.requests.clear()
    browser.size(1400, 900)
    browser.call("Emulation.setEmulatedMedia", media="", features=[])
    browser.open(page)
    yield browser
    assert browser.console == []
    assert browser.requests == [page.as_uri()]


def test_the_page_shows_the_verdict_first_and_fits_its_window(opened: Browser) -> None:
    words = opened.run("document.querySelector('main').innerText")
    assert words.index("Passed") < words.index("Tiles to look at")
    assert "gaussian should not replace released" in words
    for width in (1400, 900, 420):
        opened.size(width, 900)
        assert opened.run("document.documentElement.scrollWidth") <= width, width


def test_pointing_at_a_tile_shows_its_value_its_signals_and_its_thumbnail(opened: Browser) -> None:
    opened.run(SECOND_CANDIDATE)
    opened.run("document.querySelector('#map').scrollIntoView({block: 'center'})")
    x, y = opened.run(TILE_17)
    opened.mouse("moved", x, y)
    tip = opened.run("document.querySelector('#tip').innerText")
    assert "t000017" in tip
    assert re.search(r"Evidence transfer T 0\.\d{3}", tip)
    assert "Over-smoothing" in tip
    assert opened.run("document.querySelectorAll('#tip canvas').length") == 2, "the noisy input and the candidate"
    ink = (
        "(c => new Set(c.getContext('2d').getImageData(0, 0, 72, 60).data).size)(document.querySelector('#tip canvas'))"
    )
    assert opened.run(ink) > 20, "the thumbnail was painted"
    assert "t000017" in opened.run("document.querySelector('#inspector').innerText")
    opened.mouse("moved", 2, 2)
    assert opened.run("document.querySelector('#tip')") is None


def test_the_map_is_used_with_the_keyboard_alone(opened: Browser) -> None:
    opened.run("document.querySelector('#map').focus()")
    before = opened.run("document.querySelector('#inspector h3').innerText")
    opened.key("ArrowRight", 39)
    after = opened.run("document.querySelector('#inspector h3').innerText")
    assert after != before
    opened.key("n")
    assert "flagged" in opened.run("document.querySelector('#inspector').innerText")


def test_another_metric_changes_the_map_and_its_spoken_label(opened: Browser) -> None:
    label = "document.querySelector('#map').getAttribute('aria-label')"
    assert "Evidence transfer T" in opened.run(label)
    opened.run(CHOOSE_FSIM)
    assert "FSIM" in opened.run(label)
    assert "FSIM" in opened.run("document.querySelector('#legend').innerText")


def set_value(opened: Browser, name: str, value: str) -> str:
    """Set a field of the table and read its count."""
    opened.run(
        f"((e) => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input', {{bubbles: true}})); "
        f"e.dispatchEvent(new Event('change', {{bubbles: true}})); }})(document.querySelector('#{name}'))"
    )
    return opened.run("document.querySelector('#t-count').innerText").split(" of ")[0]


def test_the_table_is_filtered_by_status_signal_words_and_metric_and_sorted(opened: Browser) -> None:
    opened.run(SECOND_CANDIDATE)
    opened.run("document.querySelector('#tile-table').open = true")
    opened.run("new Promise((done) => setTimeout(done, 50))")
    assert opened.run("document.querySelector('#t-count').innerText").startswith("60 of 60")
    assert set_value(opened, "t-status", "flagged") == "8"
    assert set_value(opened, "t-signal", "Over-smoothing") == "1"
    assert set_value(opened, "t-signal", "") == "8"
    assert set_value(opened, "t-status", "problem") == "3"
    assert set_value(opened, "t-status", "") == "60"
    assert set_value(opened, "t-filter", "t00001") == "10"
    assert set_value(opened, "t-filter", "") == "60"
    ssim = opened.run("[...document.querySelector('#t-metric').options].find((o) => o.text === 'SSIM').value")
    set_value(opened, "t-metric", ssim)
    values = opened.run("JSON.parse(document.querySelector('#wafer-data').textContent).runs[1].values.ssim")
    low = float(np.median([v for v in values if v is not None]))
    assert set_value(opened, "t-low", str(low)) == str(sum(v is not None and v >= low for v in values))
    set_value(opened, "t-low", "")
    head = "[...document.querySelectorAll('#t-head button')].find((b) => b.innerText.startsWith('SSIM'))"
    opened.run(f"{head}.click()")
    assert opened.run(f"{head}.closest('th').getAttribute('aria-sort')") == "ascending"
    first = opened.run("document.querySelector('#t-body tr:not(.spacer) .tile-link').innerText")
    assert first == f"t{min((v, i) for i, v in enumerate(values) if v is not None)[1]:06d}"


def test_all_panes_of_a_tile_zoom_and_move_together_and_those_of_others_stay(opened: Browser) -> None:
    x, y = opened.middle("article.worst .viewport")
    opened.click(x, y, count=2)
    first, *others = opened.run(TRANSFORMS)
    assert len(first) == 1
    assert first[0].startswith("scale(2)")
    assert all(o == [""] for o in others)
    opened.mouse("moved", x, y)
    opened.mouse("pressed", x, y, button="left", buttons=1, clickCount=1)
    opened.mouse("moved", x - 40, y - 20, button="left", buttons=1)
    opened.mouse("released", x - 40, y - 20, button="left", clickCount=1)
    moved = opened.run(TRANSFORMS)[0]
    assert len(moved) == 1
    assert moved != first
    assert opened.run("document.querySelector('article.worst .zoom-level').innerText") == "200 %"
    opened.key("0")
    assert opened.run(TRANSFORMS)[0][0].startswith("scale(1)")


def test_a_marked_place_is_drawn_where_it_lies_and_zoomed_to(opened: Browser) -> None:
    box = "document.querySelector('article.worst .box.removed')"
    assert opened.run(f"{box} !== null"), "flagged tiles with marked places come first"
    place = opened.run(
        f"(() => {{ const b = {box}.getBoundingClientRect(), v = {box}.closest('.viewport').getBoundingClientRect();"
        " return [(b.x + b.width / 2 - v.x) / v.width, (b.y + b.height / 2 - v.y) / v.height]; })()"
    )
    assert place == pytest.approx([36.5 / 48, 10.5 / 40], abs=0.02)
    opened.run("document.querySelector('article.worst .marked [data-do=place]').click()")
    assert opened.run("document.querySelector('article.worst .zoom-level').innerText") == "600 %"
    opened.run("document.querySelector('article.worst [data-do=boxes]').click()")
    assert opened.run(f"getComputedStyle({box}.closest('svg')).display") == "none"


def test_two_pictures_are_compared_in_place_under_a_slider_and_zoomed(opened: Browser) -> None:
    opened.run("document.querySelector('article.worst [data-do=blink]').click()")
    chosen = "[...document.querySelectorAll('.lb-bar select')].map((e) => e.selectedOptions[0].text)"
    assert opened.run(chosen) == ["Noisy input", "A nlm"]
    clip = "getComputedStyle(document.querySelector('#lb-over')).clipPath"
    assert opened.run(clip) == "inset(0px 50% 0px 0px)"
    opened.key("ArrowRight", 39)
    assert opened.run(clip) == "inset(0px 45% 0px 0px)"
    opened.key(" ", 32)
    assert opened.run(chosen) == ["A nlm", "Noisy input"]
    opened.key("+")
    assert opened.run("document.querySelector('#lb-level').innerText") == "150 %"
    planes = "[...new Set([...document.querySelectorAll('#lb-view .plane')].map((p) => p.style.transform))].length"
    assert opened.run(planes) == 1, "both pictures show the same part"
    opened.key("Escape", 27)
    assert opened.run("document.querySelector('#lightbox').open") is False


def test_a_word_is_explained_where_it_stands(opened: Browser) -> None:
    opened.run("document.querySelector('#candidates a.term[href=\"#term-ssim\"]').click()")
    said = opened.run("document.querySelector('#explained').innerText")
    assert said.startswith("SSIM")
    assert "structure" in said
    opened.key("Escape", 27)
    assert opened.run("document.querySelector('#explained').hidden") is True


def test_the_table_is_saved_as_csv_without_a_network(opened: Browser, tmp_path: Path) -> None:
    opened.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    opened.run("document.querySelector('#tile-table').open = true")
    opened.run("new Promise((done) => setTimeout(done, 50))")
    assert set_value(opened, "t-filter", "t00001") == "10"
    opened.run("document.querySelector('#t-save').click()")
    for _ in range(50):
        opened.run("new Promise((done) => setTimeout(done, 100))")
        if found := list(tmp_path.glob("*.csv")):
            break
    lines = found[0].read_text(encoding="utf-8-sig").splitlines()
    assert lines[0].startswith("tile,place,status,signals,")
    assert [line.split(",")[0] for line in lines[1:]] == [f"t{i:06d}" for i in range(10, 20)]


def test_tiles_without_coordinates_are_a_gallery(browser: Browser, tmp_path: Path) -> None:
    def placeless(columns):
        places = ("die_x", "die_y", "site_id", "x_um", "y_um", "wafer_x_um", "wafer_y_um")
        return {name: values for name, values in columns.items() if name not in places}

    run = write_run(tmp_path / "run", change=placeless)
    page = report(run, tmp_path / "r.html", images=pictures, worst=1)
    browser.console.clear()
    browser.size(1400, 900)
    browser.open(page)
    assert browser.console == []
    cells = "document.querySelectorAll('#gallery .tile-cell').length"
    assert browser.run(cells) == 48
    browser.run("document.querySelector('#g-more').click()")
    assert browser.run(cells) == 60
    browser.run("document.querySelectorAll('#gallery .tile-cell')[3].click()")
    name = browser.run("document.querySelectorAll('#gallery .tile-cell b')[3].innerText")
    assert browser.run("document.querySelector('#inspector h3').innerText") == name
    assert browser.run("document.querySelector('#map')") is None


def test_every_control_has_a_name_and_every_picture_a_description(opened: Browser) -> None:
    assert opened.run(NAMELESS) == []
    assert (
        opened.run(
            "[...document.querySelectorAll('img')].filter((e) => !e.alt && !e.classList.contains('detail')).length"
        )
        == 0
    )
    assert opened.run(UNDESCRIBED) == []
    assert opened.run("document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [1400, 390])
def test_axe_finds_nothing_wrong_in_light_and_dark_with_all_parts_open(opened: Browser, width: int) -> None:
    pytest.importorskip("axe_core_python", reason="axe-core-python is in the extra [test]")
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    opened.size(width, 900)
    opened.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    opened.run(f"{axe}; 1")
    for scheme in ("light", "dark"):
        opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        found = opened.run(
            "axe.run(document).then((r) => [r.violations.map((v) => [v.id, v.nodes[0].html]), r.passes.length])"
        )
        assert found[0] == [], scheme
        assert found[1] > 30  # rules that it could judge


def test_words_stand_out_from_their_ground_in_light_and_dark(opened: Browser) -> None:
    """WCAG 2.1 AA: 4.5 to 1 for text, whatever the colour scheme."""
    for scheme in ("light", "dark"):
        opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        assert opened.run(CONTRAST) >= 4.5, scheme


def test_on_paper_the_controls_are_gone_and_the_closed_parts_are_there(opened: Browser) -> None:
    opened.call("Emulation.setEmulatedMedia", media="print")
    shown = "[...document.querySelectorAll('{}')].filter((e) => e.checkVisibility()).length"
    assert opened.run(shown.format("nav, .controls, .pane-tools, #tile-table")) == 0
    assert opened.run(shown.format(".each > .scroll > table.signals")) == 2


def test_names_with_markup_are_shown_and_never_run(browser: Browser, tmp_path: Path) -> None:
    def nasty(columns):
        columns["tile"] = [f"{tile}{NASTY}" for tile in columns["tile"]]
        return columns

    runs = [write_run(tmp_path / str(k), label=f"{NASTY}{k}", seed=k, change=nasty) for k in range(2)]
    verdicts = example_verdicts([f"{NASTY}0", f"{NASTY}1"])
    page = report(
        runs, tmp_path / "r.html", verdict=verdicts, worst=1, images=lambda tile, role: pictures(tile[:7], role)
    )
    browser.console.clear()
    browser.open(page)
    assert browser.console == []
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert browser.run("document.querySelectorAll('img[src=x]').length") == 0
    assert NASTY in browser.run("document.querySelector('#inspector h3').textContent")


def test_ten_thousand_tiles_open_and_scroll_as_a_window(browser: Browser, tmp_path: Path) -> None:
    page = report(write_run(tmp_path / "run", dies=2500, change=with_boxes), tmp_path / "r.html", worst=0)
    assert page.stat().st_size < 6e6
    browser.console.clear()
    browser.call("Emulation.setEmulatedMedia", media="", features=[])
    browser.open(page)  # how fast: benchmarks/speed/bench_report.py
    assert browser.console == []
    assert "10000 tiles" in browser.run("document.querySelector('#map').getAttribute('aria-label')")
    assert browser.run("document.querySelectorAll('#map path').length") < 500, "a path a colour, not a node a tile"
    browser.run("document.querySelector('#tile-table').open = true")
    browser.run("new Promise((done) => setTimeout(done, 50))")
    assert browser.run("document.querySelectorAll('#t-body tr').length") < 100, "only the rows in view are there"
    browser.run("(e => { e.scrollTop = e.scrollHeight; })(document.querySelector('#t-scroll'))")
    browser.run("new Promise((done) => setTimeout(done, 100))")
    assert "t009999" in browser.run("document.querySelector('#t-body').innerText")
    assert browser.run("document.querySelector('#t-table').getAttribute('aria-rowcount')") == "10001"
