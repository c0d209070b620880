"""The rivals compute what their papers define, on images where that is known."""

from __future__ import annotations

import numpy as np
import pytest
import rivals
from bench_rivals import Scored, compared, one_score, roc, same_noise, shares, values_of, winner
from scipy import ndimage

RNG = np.random.default_rng(0)
SCENE = ndimage.gaussian_filter(RNG.standard_normal((64, 64)), 1.0)


@pytest.mark.parametrize(("window", "level"), rivals.SFRC)
def test_sfrc_is_whole_for_one_image_and_falls_where_frequencies_are_noise(window: int, level: str) -> None:
    assert (rivals.cut_offs(SCENE, SCENE, window, level) == 1.0).all()
    # what is common lies below a quarter of Nyquist: the rest is independent
    low = ndimage.gaussian_filter(RNG.standard_normal((64, 64)), 3.0)
    low /= low.std()
    a, b = (low + 0.3 * RNG.standard_normal(low.shape) for _ in range(2))
    found = rivals.cut_offs(a, b, window, level)
    assert 0.1 < np.median(found) < 0.5
    assert len(found) == (64 // (window // 2) - 1) ** 2
    noise = rivals.cut_offs(*RNG.standard_normal((2, 64, 64)), window, level)
    assert np.median(noise) < np.median(found)


def test_sfrc_is_blind_to_gain_and_to_a_filter_of_one_phase() -> None:
    blurred = ndimage.gaussian_filter(SCENE, 1.0, mode="wrap")
    # Fourier ring correlation divides by both powers: within a window a blur is a gain by frequency
    assert np.median(rivals.cut_offs(3 * SCENE + 5, SCENE, 32, "0.5")) == 1.0
    assert np.median(rivals.cut_offs(blurred, SCENE, 32, "0.5")) > 0.5


def test_the_half_bit_level_falls_with_the_pixels_of_a_ring() -> None:
    limits = rivals._limit("half-bit", np.array([8, 32, 128, 10**9]))
    assert (np.diff(limits) < 0).all()
    assert limits[-1] == pytest.approx(0.2071 / 1.2071, abs=1e-3)


def pairs(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    clean = [10 * ndimage.gaussian_filter(rng.standard_normal((64, 64)), 2.0) for _ in range(count)]
    return [(y + 0.1 * rng.standard_normal(y.shape), y) for y in clean]


@pytest.mark.parametrize("outside", [0.1, 0.01])
def test_chem_covers_the_stated_share_of_true_coefficients_on_new_tiles(outside: float) -> None:
    chem = rivals.learn("haar", outside, pairs(6, 1), pairs(6, 2))
    missed = []
    for d, y in pairs(6, 3):
        for c, true, band in zip(rivals.transform(d, "haar"), rivals.transform(y, "haar"), chem.bands, strict=True):
            low, high = band.of(c)
            missed.append(((true < low) | (true > high)).mean())
    assert 0.5 * outside < np.mean(missed) < 1.6 * outside


def test_chem_scores_what_no_clean_image_has() -> None:
    chem = rivals.learn("db2", 0.01, pairs(6, 1), pairs(6, 2))
    d = pairs(1, 4)[0][0]
    harmed = d.copy()
    harmed[30:33, 30:33] += 6.0
    plain, marked = chem.scores(d), chem.scores(harmed)
    assert marked["largest excess"] > 3 * plain["largest excess"]
    assert marked["excess"] > plain["excess"]


def cases_of(groups: int) -> list[Scored]:
    found = []
    for g in range(groups):
        for harm in (
            None,
            "over-smoothing",
            "texture wash",
            "over-sharpening",
            "erased structure",
            "invented structure",
        ):
            high = float(harm is not None)
            scores = {f"ours: {n}": high + g / 100 for n in ("lost detail", "lost transfer", "lost texture")}
            scores |= {f"ours: {n}": high + g / 100 for n in ("sharpened", "erased", "invented")}
            scores |= {"sFRC: a": 1 - high, "sFRC: b": high * (g % 2), "CHEM: a": 0.0, "sFRC, second frame: a": np.nan}
            found.append(Scored(f"g{g}", harm, "fresh noise" if harm is None else "harm", scores))
    return found


def test_the_best_setting_is_chosen_on_the_development_cases_and_a_tie_is_a_tie() -> None:
    rows, development = cases_of(8), cases_of(4)
    one_score(rows, development)
    found = compared(rows, development)["texture wash"]
    assert found["ours"]["auc"] == 1.0
    assert found["ours, one score"]["auc"] == 1.0
    assert found["sFRC"]["score"] == "b"
    assert found["sFRC"]["auc"] == 0.75
    assert found["CHEM"]["auc"] == 0.5
    assert found["CHEM"]["ours_less_this_interval"] == [0.5, 0.5]
    assert found["sFRC, second frame"]["auc"] == 0.5  # unknown counts as no harm
    assert found["ours"]["cases"] == 16


def test_who_wins_is_said_by_the_difference_and_by_the_intervals() -> None:
    def table(ours: list[float], rival: list[float], less: list[float]) -> dict[str, dict[str, list[float]]]:
        return {"ours": {"interval": ours}, "CHEM": {"interval": rival, "ours_less_this_interval": less}}

    assert winner(table([0.9, 1.0], [0.5, 0.6], [0.3, 0.5]), "CHEM") == "ours"
    assert winner(table([0.9, 1.0], [0.8, 0.95], [0.01, 0.1]), "CHEM") == "ours; intervals touch"
    assert winner(table([0.5, 0.6], [0.8, 0.95], [-0.4, -0.2]), "CHEM") == "CHEM"
    assert winner(table([0.5, 0.9], [0.8, 0.95], [-0.2, 0.01]), "CHEM") == "not told apart"


def test_shares_of_windows_and_the_second_set_of_harmless_cases() -> None:
    listed = [
        Scored("a", None, "fresh noise", {"sFRC: x": [0.5] * 19 + [0.1]}),
        Scored("a", None, "mild tv", {"sFRC: x": []}),
    ]
    harmed = Scored("a", "texture wash", "wash", {"sFRC: x": [0.1, 0.1, 0.9, 0.9]})
    rows = [harmed]
    shares(rows, listed)
    assert rows[0].scores["sFRC: x"] == 0.5
    assert [r.kind for r in same_noise([*listed, harmed])] == ["fresh noise", "wash"]
    assert values_of([Scored("a", None, "k", {"s": np.nan})], "s").tolist() == [-np.inf]
    assert (
        roc(np.array([0.0, 1, 2, 3, 4, 5]), np.array([False, False, False, True, True, True]))["found_at"] == [1.0] * 5
    )
