"""Wafer geometry: dies and offsets to absolute places and back, notch, shots, edge exclusion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semnr.wafers import NOTCHES, Wafer

LAYOUT = Wafer(pitch_um=(8000.0, 6500.0), center_um=(4100.0, 3000.0), edge_exclusion_um=3000.0, reticle=(2, 3))


def test_absolute_is_index_times_pitch_plus_relative_minus_sample_center() -> None:
    x, y = LAYOUT.absolute(-2, 3, 125.5, 40.25)
    assert float(x) == -2 * 8000 + 125.5 - 4100
    assert float(y) == 3 * 6500 + 40.25 - 3000


@given(
    die=st.tuples(st.integers(-60, 60), st.integers(-60, 60)),
    share=st.tuples(st.floats(0, 0.999999), st.floats(0, 0.999999)),
    pitch=st.tuples(st.floats(50, 40000), st.floats(50, 40000)),
    center=st.tuples(st.floats(-40000, 40000), st.floats(-40000, 40000)),
)
def test_locate_undoes_absolute(die, share, pitch, center) -> None:
    wafer = Wafer(pitch, center)
    inside = (share[0] * pitch[0], share[1] * pitch[1])
    x, y = wafer.absolute(*die, *inside)
    die_x, die_y, in_x, in_y = wafer.locate(x, y)
    again = wafer.absolute(die_x, die_y, in_x, in_y)
    assert 0 <= in_x < pitch[0]
    assert 0 <= in_y < pitch[1]
    assert again == pytest.approx((float(x), float(y)), abs=1e-6)
    near_border = min(inside[0], pitch[0] - inside[0], inside[1], pitch[1] - inside[1]) < 1e-6
    assert near_border or (int(die_x), int(die_y)) == die


def test_a_place_on_the_border_belongs_to_the_die_on_its_right_and_above() -> None:
    die_x, die_y, in_x, in_y = Wafer((1000.0, 1000.0)).locate(3000.0, -2000.0)
    assert (int(die_x), int(die_y), float(in_x), float(in_y)) == (3, -2, 0.0, 0.0)


@pytest.mark.parametrize("notch", NOTCHES)
def test_turning_moves_every_place_with_the_wafer(notch) -> None:
    rng = np.random.default_rng(7)
    die_x, die_y = rng.integers(-9, 9, 50), rng.integers(-9, 9, 50)
    in_x, in_y = rng.uniform(10, 7990, 50), rng.uniform(10, 6490, 50)
    x, y = LAYOUT.absolute(die_x, die_y, in_x, in_y)
    turned = LAYOUT.turned(notch)
    new_x, new_y = LAYOUT.turn_absolute(x, y, notch)
    np.testing.assert_allclose(turned.radius_um(new_x, new_y), LAYOUT.radius_um(x, y))
    found = turned.locate(new_x, new_y)
    np.testing.assert_array_equal(found[0], LAYOUT.turn_dies(die_x, die_y, notch)[0])
    np.testing.assert_array_equal(found[1], LAYOUT.turn_dies(die_x, die_y, notch)[1])
    # dies of one shot stay together
    before = np.unique(np.stack(LAYOUT.shot(die_x, die_y)[:2]), axis=1).shape[1]
    after = np.unique(np.stack(turned.shot(found[0], found[1])[:2]), axis=1).shape[1]
    assert before == after


def test_the_notch_itself_turns_from_down_to_where_it_is_asked_for() -> None:
    wafer = Wafer((1000.0, 1000.0))
    at = {notch: tuple(map(float, wafer.turn_absolute(0.0, -150_000.0, notch))) for notch in NOTCHES}
    assert at == {"down": (0, -150_000), "right": (150_000, 0), "up": (0, 150_000), "left": (-150_000, 0)}


def test_four_turns_or_a_turn_and_its_way_back_change_nothing() -> None:
    wafer = LAYOUT
    for notch in ("right", "up", "left", "down"):
        wafer = wafer.turned(notch)
    assert wafer == LAYOUT
    assert LAYOUT.turned("left").turned("down") == LAYOUT


def test_edge_exclusion_and_whole_dies() -> None:
    wafer = Wafer((50_000.0, 50_000.0), (25_000.0, 25_000.0), 300_000.0, 2_000.0)
    assert bool(wafer.inside(147_999.0, 0.0))
    assert not wafer.inside(148_001.0, 0.0)
    whole, part = wafer.dies(), wafer.dies(whole=False)
    # die (2, 1): corner at (125, 75) mm, 145.8 mm from the centre; (2, 2): 176.8 mm
    assert [2, 1] in whole.tolist()
    assert [2, 2] not in whole.tolist()
    assert [2, 2] in part.tolist()
    assert [3, 3] not in part.tolist()
    corners = [wafer.absolute(i + a, j + b) for i, j in whole for a in (0, 1) for b in (0, 1)]
    assert max(np.hypot(*c) for c in corners) <= 148_000


def test_shots_count_from_their_origin_also_for_negative_dies() -> None:
    wafer = Wafer((1.0, 1.0), reticle=(2, 3), reticle_origin=(1, -1))
    assert [tuple(map(int, wafer.shot(*die))) for die in ((1, -1), (2, 1), (0, -2), (3, 2))] == [
        (0, 0, 0, 0),
        (0, 0, 1, 2),
        (-1, -1, 1, 2),
        (1, 1, 0, 0),
    ]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("pitch_um", (0, 5)),
        ("pitch_um", (5, float("nan"))),
        ("diameter_um", -1),
        ("edge_exclusion_um", 150_000),
        ("notch", "north"),
        ("reticle", (0, 1)),
        ("center_um", (float("inf"), 0)),
    ],
)
def test_a_bad_layout_is_refused_by_name(argument, value) -> None:
    with pytest.raises(ValueError, match=argument):
        Wafer(**{"pitch_um": (10.0, 10.0), argument: value})


def test_to_dict_makes_it_again() -> None:
    assert Wafer(**LAYOUT.to_dict()).to_dict() == LAYOUT.to_dict()
