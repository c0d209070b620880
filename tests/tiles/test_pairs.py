"""Noisy and denoised images find each other as people name files; what is in doubt is refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from semnr import open_tiles
from semnr.klarf import Defect, ImageRef, InspectedWafer, Klarf, write_klarf
from semnr.tiles.matching import Name, infer, parse
from semnr.tiles.pairs import pair
from semnr.wafers import Wafer

NUMBERS = range(1, 13)


def names(*texts: str) -> list[Name]:
    return [Name(text, f"{text}.png") for text in texts]


def images(folder: Path, *paths: str) -> Path:
    """A folder of images, each of its own grey level, by the number in its name."""
    for path in paths:
        place = folder / (path if "." in path else f"{path}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        level = int("".join(c for c in place.stem if c.isdigit()) or 0) % 251
        pixels = np.full((16, 16), level, np.uint8)
        if place.suffix == ".tif":
            tifffile.imwrite(place, pixels)
        else:
            Image.fromarray(pixels).save(place)
    return folder


def paired_levels(found) -> dict[str, tuple[int, int]]:
    """Tile -> the grey levels of both images."""
    other = found.others["noisy"]
    levels = {}
    for key in found.candidate:
        if (partner := other.find(key.tile)) is not None:
            levels[key.tile] = (int(found.candidate.read(key)[0, 0]), int(other.read(partner)[0, 0]))
    return levels


# --- names alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "rule"),
    [
        ("img_{}", "img_{}_dn", "{name} = {name}_dn"),
        ("img_{}", "clean_img_{}", "{name} = clean_{name}"),
        ("img_{}", "dn-img_{}", "{name} = dn-{name}"),
        ("img_{}_noisy", "img_{}_denoised", "{name}_noisy = {name}_denoised"),
        ("img_{}_noisy", "dn-img_{}", "{name}_noisy = dn-{name}"),
        ("time_{}_noisy_100ns", "time_{}_clean_30us", "{name}_noisy_100ns = {name}_clean_30us"),
        ("lot_noisy_{}", "lot_dn_{}", "lot_noisy_{name} = lot_dn_{name}"),
        ("A{}Noisy", "A{}", "{name}Noisy = {name}"),
        ("s{}.noisy", "s{}.denoised", "{name}.noisy = {name}.denoised"),
        ("img {} (noisy)", "img {}", "{name} (noisy) = {name}"),
        ("noisy/a{}", "denoised/a{}", "noisy/{name} = denoised/{name}"),
        ("a{}", "out/a{}", "{name} = out/{name}"),
    ],
)
def test_a_text_that_is_the_same_for_all_is_found(left: str, right: str, rule: str) -> None:
    one, other = (names(*(text.format(n) for n in NUMBERS)) for text in (left, right))
    found = infer(one, other)
    assert found is not None
    assert found[1] == {n: n for n in range(len(NUMBERS))}
    assert parse(found[0].option, (".png",)).apply(one, other) == found[1]  # what is said can be typed
    assert str(found[0]).replace("{1}", "lot").replace("{2}", "{name}") == rule


def test_folders_of_many_lots_keep_their_lot() -> None:
    left = names(*(f"lot{n % 3}/noisy/a{n}" for n in NUMBERS))
    right = names(*(f"lot{n % 3}/dn/a{n}" for n in reversed(NUMBERS)))
    found = infer(left, right)
    assert found is not None
    assert str(found[0]) == "{1}/noisy/{2} = {1}/dn/{2}"
    assert found[1] == {n: len(NUMBERS) - 1 - n for n in range(len(NUMBERS))}


def test_a_few_strays_on_both_sides_do_not_matter() -> None:
    left = names(*(f"img_{n}" for n in NUMBERS), "overview", "thumbs")
    right = names(*(f"img_{n}_dn" for n in range(3, 13)), "readme")
    found = infer(left, right)
    assert found is not None
    assert {left[a].stem: right[b].stem for a, b in found[1].items()} == {
        f"img_{n}": f"img_{n}_dn" for n in range(3, 13)
    }


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (["site_1"], ["site_2"]),  # a number tells images apart
        (["site_1"], ["site_1_2"]),
        (["lot7_site3"], ["lot8_site1"]),
        ([f"a_{n}_1" for n in NUMBERS], [f"a_{n}_2" for n in NUMBERS]),
        ([f"x{n}" for n in NUMBERS], [f"y{n * 7 + 100}" for n in NUMBERS]),
        (["north", "south"], ["left", "right"]),
    ],
)
def test_numbers_are_no_affix_and_other_names_are_no_pair(left: list[str], right: list[str]) -> None:
    assert infer(names(*left), names(*right)) is None


def test_two_denoisers_in_one_folder_are_refused_with_both_rules() -> None:
    right = [f"a{n}_{kind}" for n in NUMBERS for kind in ("dn", "gauss")]
    with pytest.raises(ValueError, match=r"a\d+.png has the partners .*--match '{name}={name}_") as error:
        infer(names(*(f"a{n}" for n in NUMBERS)), names(*right))
    assert "{name}={name}_dn" in str(error.value)
    assert "{name}={name}_gauss" in str(error.value)


def test_two_frames_of_one_denoised_image_are_refused() -> None:
    left = [f"a{n}_{kind}" for n in NUMBERS for kind in ("first", "second")]
    with pytest.raises(ValueError, match=r"a\d+_dn.png has the partners .*_first.*_second|_second.*_first"):
        infer(names(*left), names(*(f"a{n}_dn" for n in NUMBERS)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{name}_noisy", "accepted: two patterns"),
        ("{name}=a={name}", "accepted: two patterns"),
        ("noisy=dn", "without a {placeholder}"),
        ("{name}_{name}=a{name}", "one placeholder twice"),
        ("{lot}_{name}={name}", "the same on both"),
        ("{na-me}={na-me}", "without a {placeholder}"),
        ("{name={name}", "without a {placeholder}"),
        ("={name}", "accepted: two patterns"),
    ],
)
def test_a_pattern_that_says_nothing_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text)


def test_patterns_may_name_suffixes_several_parts_and_anything() -> None:
    left = [Name("L1_007_noisy_100ns", "L1_007_noisy_100ns.tif"), Name("L2_007_noisy_90ns", "L2_007_noisy_90ns.tif")]
    right = [Name("007-L2", "007-L2.png"), Name("007-L1", "007-L1.png")]
    rule = parse("{lot}_{site}_noisy_*ns.tif = {site}-{lot}.png", (".tif", ".png"))
    assert rule.apply(left, right) == {0: 1, 1: 0}
    assert parse("{lot}_{site}_noisy_*ns.tif={site}-{lot}.tif", (".tif", ".png")).apply(left, right) == {}


# --- sources ------------------------------------------------------------------------------------------------------


def test_equal_names_with_other_suffixes_are_pairs_as_they_are(tmp_path) -> None:
    noisy = open_tiles(images(tmp_path / "noisy", *(f"a{n}.png" for n in NUMBERS)))
    denoised = open_tiles(images(tmp_path / "dn", *(f"a{n}.tif" for n in NUMBERS)))
    found = pair(denoised, {"noisy": noisy})
    assert (found.candidate, found.others["noisy"]) == (denoised, noisy)
    assert found.remarks == ()


def test_affixes_give_both_the_name_of_the_noisy_image(tmp_path) -> None:
    noisy = open_tiles(images(tmp_path / "noisy", *(f"img_{n}_noisy" for n in NUMBERS)))
    denoised = open_tiles(images(tmp_path / "dn", *(f"clean/img_{n}" for n in NUMBERS)))
    found = pair(denoised, {"noisy": noisy})
    assert paired_levels(found) == {f"img_{n}_noisy": (n, n) for n in NUMBERS}
    assert {key.tile: key.path for key in found.candidate}["img_3_noisy"] == "clean/img_3.png"
    (remark,) = found.remarks
    assert "'{name}_noisy = clean/{name}'" in remark
    again = pickle.loads(pickle.dumps(found.candidate))  # another process opens it under the same names
    assert [key.tile for key in again] == [key.tile for key in found.candidate]
    assert found.candidate.settings()["paired"] == "{name}_noisy = clean/{name}"


def test_capitals_make_no_difference(tmp_path) -> None:
    noisy = open_tiles(images(tmp_path / "noisy", *(f"IMG_{n}" for n in NUMBERS)))
    denoised = open_tiles(images(tmp_path / "dn", *(f"img_{n}" for n in NUMBERS)))
    assert paired_levels(pair(denoised, {"noisy": noisy})) == {f"IMG_{n}": (n, n) for n in NUMBERS}


def test_one_flat_folder_and_one_of_lots(tmp_path) -> None:
    noisy = open_tiles(images(tmp_path / "noisy", *(f"lot{n % 5}/a{n}" for n in NUMBERS)))
    denoised = open_tiles(images(tmp_path / "dn", *(f"a{n}" for n in NUMBERS)))
    found = pair(denoised, {"noisy": noisy})
    assert paired_levels(found) == {f"lot{n % 5}/a{n}": (n, n) for n in NUMBERS}


def test_reference_noisy_and_denoised_may_each_have_a_word_of_their_own(tmp_path) -> None:
    sources = {
        role: open_tiles(images(tmp_path / role, *(f"img_{n}_{word}" for n in NUMBERS)))
        for role, word in (("noisy", "noisy"), ("reference", "clean"), ("denoised", "dn"))
    }
    found = pair(sources.pop("denoised"), sources)
    for key in found.candidate:
        other = [found.others[role].read(found.others[role].find(key.tile))[0, 0] for role in ("noisy", "reference")]
        assert [*other] == [found.candidate.read(key)[0, 0]] * 2


def test_globs_and_lists_of_paths_are_sources(tmp_path) -> None:
    images(tmp_path, *(f"a{n}_{word}" for n in NUMBERS for word in ("noisy", "dn", "mask")))
    found = pair(open_tiles(f"{tmp_path}/*_dn.png"), {"noisy": open_tiles(f"{tmp_path}/*_noisy.png")})
    assert paired_levels(found) == {f"a{n}_noisy": (n, n) for n in NUMBERS}
    listed = [tmp_path / f"a{n}_dn.png" for n in (3, 1)]
    found = pair(open_tiles(listed), {"noisy": open_tiles([str(tmp_path / f"a{n}_noisy.png") for n in (1, 3)])})
    assert paired_levels(found) == {f"a{n}_noisy": (n, n) for n in (1, 3)}
    with pytest.raises(FileNotFoundError, match="no image has such a name"):
        open_tiles(f"{tmp_path}/*.bmp")
    with pytest.raises(ValueError, match="among its paths"):
        open_tiles([tmp_path / "a1_dn.png", np.zeros((4, 4), np.uint8)])


def test_two_images_alone_are_a_pair_whatever_their_names(tmp_path) -> None:
    images(tmp_path, "monday1", "tuesday1")
    found = pair(open_tiles(tmp_path / "monday1.png"), {"noisy": open_tiles(tmp_path / "tuesday1.png")})
    assert len(paired_levels(found)) == 1


def test_klarf_sites_are_paired_by_the_names_of_their_images(tmp_path) -> None:
    images(tmp_path / "lot", *(f"site{n}" for n in NUMBERS))
    lot = tmp_path / "lot" / "lot.klarf"
    layout = Wafer((8000, 6500), (4000, 3000))
    defects = tuple(Defect(100 + n, n, 0, 5.0, 6.0, images=(ImageRef(f"site{n}.png"),)) for n in NUMBERS)
    write_klarf(lot, Klarf("1.8", wafers=(InspectedWafer("W1", layout, defects=defects),)), version="1.8")
    denoised = open_tiles(images(tmp_path / "dn", *(f"site{n}_dn" for n in NUMBERS)))
    found = pair(denoised, {"noisy": open_tiles(lot)})
    keys = list(found.candidate)
    assert {key.tile for key in keys} == {key.tile for key in open_tiles(lot)}
    assert len(paired_levels(found)) == len(NUMBERS)
    assert all(a == b for a, b in paired_levels(found).values())
    assert keys[0].meta["die_x"] is not None  # the denoised images are where the defects are


def test_what_is_left_over_ends_in_one_line(tmp_path) -> None:
    noisy = open_tiles(images(tmp_path / "noisy", *(f"a{n}" for n in range(1, 31))))
    denoised = open_tiles(images(tmp_path / "dn", *(f"a{n}_dn" for n in range(11, 31)), "notes"))
    found = pair(denoised, {"noisy": noisy})
    (left,) = found.unpaired
    assert (len(left.candidate), len(left.other)) == (1, 10)
    assert left.hint.count("\n") == 0
    assert "1 of dn have no noisy image (notes)" in left.hint
    assert "10 of noisy have no denoised image (a1, a10, ...)" in left.hint
    assert "--match '{name}={name}_dn'" in left.hint


def test_no_name_in_common_is_refused_with_examples(tmp_path) -> None:
    noisy = open_tiles(images(tmp_path / "noisy", "north", "south"))
    denoised = open_tiles(images(tmp_path / "dn", "x", "y"))
    with pytest.raises(ValueError, match=r"no noisy image of noisy \(north.png, south.png\) .* dn \(x.png, y.png\)"):
        pair(denoised, {"noisy": noisy})
    found = pair(denoised, {"noisy": noisy}, match="order")
    assert sorted(paired_levels(found)) == ["north", "south"]


def test_a_pattern_decides_and_what_it_does_not_fit_stays_alone(tmp_path) -> None:
    noisy = open_tiles(images(tmp_path / "noisy", "a1", "a2", "b9"))
    denoised = open_tiles(images(tmp_path / "dn", "a1_v1", "a1_v2", "a2_v2", "b9"))
    found = pair(denoised, {"noisy": noisy}, match="{name}.png={name}_v2.png")
    assert paired_levels(found).keys() == {"a1", "a2"}  # b9 has the same name in both, and the pattern says otherwise
    with pytest.raises(ValueError, match="fits no noisy image"):
        pair(denoised, {"noisy": noisy}, match="{name}_x={name}_y")
    with pytest.raises(ValueError, match=r"'{name}_\*' finds the same {name} in a1_v1.png and a1_v2.png"):
        pair(denoised, {"noisy": noisy}, match="{name}={name}_*")


def test_a_pattern_may_be_of_one_role(tmp_path) -> None:
    noisy = open_tiles(images(tmp_path / "noisy", "a1", "a2"))
    clean = open_tiles(images(tmp_path / "clean", "one1", "one2"))
    denoised = open_tiles(images(tmp_path / "dn", "a1", "a2"))
    found = pair(denoised, {"noisy": noisy, "reference": clean}, match="reference:one{n}=a{n}")
    assert found.rules == {"noisy": "the same names", "reference": "one{n} = a{n}"}
    with pytest.raises(ValueError, match="there is no reference"):
        pair(denoised, {"noisy": noisy}, match="reference:one{n}=a{n}")


def test_stacks_have_no_names_to_pair_by() -> None:
    pixels = np.zeros((5, 8, 8), np.uint8)
    assert pair(open_tiles(pixels), {"noisy": open_tiles(pixels)}).remarks == ()
    with pytest.raises(ValueError, match=r"5 images and array .noisy image. 4"):
        pair(open_tiles(pixels), {"noisy": open_tiles(pixels[:4])})


def test_a_stack_and_a_folder_are_paired_by_order_alone(tmp_path) -> None:
    denoised = open_tiles(images(tmp_path / "dn", "a1", "a2", "a3"))
    stack = open_tiles(np.stack([np.full((16, 16), level, np.uint8) for level in (1, 2, 3)]))
    with pytest.raises(ValueError, match="--match order"):
        pair(denoised, {"noisy": stack})
    found = pair(denoised, {"noisy": stack}, match="order")
    assert [levels for _, levels in sorted(paired_levels(found).items())] == [(1, 1), (2, 2), (3, 3)]
    with pytest.raises(ValueError, match="as many in both"):
        pair(open_tiles(images(tmp_path / "more", "b1", "b2")), {"noisy": stack}, match="order")
