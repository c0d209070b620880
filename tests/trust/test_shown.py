"""Results of the evidence as a notebook shows them: short, in a table, and drawn."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

import semnr

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is in the extra [plot]")
matplotlib.use("Agg")


@pytest.fixture(scope="module")
def site() -> dict[str, np.ndarray]:
    tile = semnr.synth.tile("lines", 96, seed=1)
    noisy, second = (tile.noisy(dtype="uint8", frame=i) for i in range(2))
    denoised = semnr.denoise(noisy, model="median", size=3)
    denoised[40:56, 40:56] = denoised[40:56, 60:76]  # a place that is not what was recorded
    return {"noisy": noisy, "second": second, "denoised": denoised, "clean": tile.reference("uint8")}


@pytest.fixture(scope="module")
def results(site) -> dict[str, object]:
    noisy, denoised = site["noisy"], site["denoised"]
    return {
        "tests": semnr.residual_tests(noisy, denoised, return_maps=True),
        "evidence": semnr.evidence(noisy, denoised, site["clean"], return_maps=True),
        "frames": semnr.without_reference(noisy, denoised, site["second"]),
    }


def test_a_repr_is_one_short_line(results) -> None:
    for found in results.values():
        assert "\n" not in repr(found)
        assert len(repr(found)) < 120
    assert "lowest T" in repr(results["evidence"])
    assert "places removed" in repr(results["tests"])


def test_a_notebook_shows_a_table_and_the_maps(results) -> None:
    html = {name: found._repr_html_() for name, found in results.items()}
    assert all("<table>" in text for text in html.values())
    assert html["evidence"].count("<img") == 3  # residual, transfer of one band, evidence
    assert html["tests"].count("<img") == 1
    assert "<img" not in html["frames"]  # it has no map


def test_many_tiles_are_cut_and_counted(site) -> None:
    stack = np.stack([site["noisy"]] * 10)[:, None]
    html = semnr.evidence(stack, stack)._repr_html_()
    assert html.count("<tr>") == 1 + 8
    assert "and 2 more" in html


def test_plot_draws_maps_with_marks(results, site) -> None:
    tests = results["tests"]
    assert tests.boxes[0]
    axes = tests.plot(image=site["denoised"])
    assert [ax.get_title() for ax in axes] == ["image", "evidence"]
    assert all(len(ax.patches) == len(tests.boxes[0]) for ax in axes)
    drawn = results["evidence"].plot()
    assert [ax.get_title() for ax in drawn] == ["residual", "transfer, band 0", "evidence"]
    given = matplotlib.pyplot.subplots(1, 1)[1]
    with pytest.raises(ValueError, match="axes has 1 entries; accepted: 3"):
        results["evidence"].plot(axes=given)
    matplotlib.pyplot.close("all")


def test_plot_says_what_is_missing(site, monkeypatch) -> None:
    bare = semnr.residual_tests(site["noisy"], site["denoised"])
    with pytest.raises(ValueError, match="no maps to draw; accepted: a result with return_maps=True, or image="):
        bare.plot()
    with pytest.raises(ValueError, match="tile is 1; accepted: 0 to 0"):
        bare.plot(1)
    imported = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    for call in (
        lambda: bare.plot(image=site["denoised"]),
        lambda: semnr.ssim(site["noisy"], site["clean"], return_map=True, details=True).plot(),
        lambda: semnr.Profile(("a",), {}, 255.0).plot(),
    ):
        with pytest.raises(ImportError, match=r"plot needs matplotlib: pip install 'semnr\[plot\]'"):
            call()


def test_a_metric_draws_its_map_and_a_run_its_tile(site, tmp_path) -> None:
    found = semnr.ssim(site["denoised"], site["clean"], return_map=True, details=True)
    assert len(repr(found)) < 100
    assert found.plot().images[0].get_array().shape == found.map.shape
    with pytest.raises(ValueError, match="no map to draw"):
        semnr.ssim(site["denoised"], site["clean"], details=True).plot()
    run = semnr.score(site["denoised"], noisy=site["noisy"], out=tmp_path / "run")
    axes = run.plot()
    assert [ax.get_title() for ax in axes] == ["noisy", "denoised", "residual"]
    assert all(ax.patches for ax in axes)
    with pytest.raises(ValueError, match="tile is 'x'; accepted: one of the run's 1 tiles"):
        run.plot("x")
    with pytest.raises(ValueError, match="cannot be drawn"):
        semnr.Run.open(run.path).plot()
    matplotlib.pyplot.close("all")
