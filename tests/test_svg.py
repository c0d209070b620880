"""SVG text: what is written is well-formed, whatever the words hold."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

from semnr.base import svg
from semnr.training.card import curves


def test_an_element_escapes_its_attributes_and_the_words_inside_it() -> None:
    text = svg.element("text", svg.words("a < b & c"), x=1.25, class_="key", data_name='"><script>')
    read = ET.fromstring(text)
    assert read.text == "a < b & c"
    assert read.attrib == {"x": "1.2", "class": "key", "data-name": '"><script>'}


def test_a_drawing_is_a_file_that_says_what_it_shows() -> None:
    text = svg.drawing([svg.polyline([(0.0, 1.0), (2.0, 3.0)], stroke="red")], 20, 10.5, 'a "b" <c>', "path{fill:red}")
    read = ET.fromstring(text)
    assert (read.attrib["viewBox"], read.attrib["aria-label"]) == ("0 0 20 10.5", 'a "b" <c>')
    assert [part.tag.partition("}")[2] for part in read] == ["style", "polyline"]


def test_the_curves_of_a_training_have_a_panel_a_figure_and_a_mark_a_step(tmp_path: Path) -> None:
    scores = {1: 0.1, 2: 0.2, 3: 0.3}
    rows = [{"step": n, "score": s, "psnr": math.nan, "loss": 1 / n, "chosen": n == 3} for n, s in scores.items()]
    curves(rows, tmp_path / "curves.svg")
    read = ET.fromstring((tmp_path / "curves.svg").read_text(encoding="utf-8"))
    parts = [(part.tag.partition("}")[2], part.attrib) for part in read]
    assert [name for name, _ in parts].count("polyline") == 2
    marks = [attributes for name, attributes in parts if name == "circle"]
    assert [mark["fill"] == "#c0392b" for mark in marks] == [False, False, True] * 2
    assert all(0 <= float(mark["cx"]) <= 640 for mark in marks)
