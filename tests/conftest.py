"""The suites' images are small: one torch thread computes them fastest, and a busy machine does not slow it down."""

from __future__ import annotations

import os

import emulated
import interpreted
import pytest
import torch

# processes that tests start import the installed packages, not those of the source tree that they start in
os.environ["PYTHONSAFEPATH"] = "1"
interpreted.hasten()
emulated.provide()  # before the suites ask which backends run here


MOST_WORKERS = 8  # each loads torch


def is_whole(config: pytest.Config) -> bool:
    """Whether no file or folder was named."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite goes to all cores, where pytest-xdist is installed and nobody said otherwise (`-n 0`).

    Not by `addopts`: benchmarks must have the machine, and a few files are through before workers have started.
    """
    if not is_whole(config) or not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    option = config.option
    if option.numprocesses is None and not option.collectonly and not option.usepdb and option.capture != "no":
        option.numprocesses = min(emulated.cores(), MOST_WORKERS)
        option.dist = "worksteal" if option.dist == "no" else option.dist


# What `pytest -m core` runs: each op and the main job. File: its tests that belong to it, none named: all.
CORE: dict[str, tuple[str, ...]] = {
    "test_package": (),
    "test_checks": (),
    "test_registry": (),
    "test_pixel": (),
    "test_ssim": (
        "test_a_backend_is_within_1e_7_of_the_definition",
        "test_a_constant_pair_has_the_hand_computed_value",
        "test_gradients_match_the_float64_reference",
        "test_integer_images_score_as_their_values",
        "test_ms_ssim_equals_piq_on_even_and_odd_sizes",
        "test_one_uniform_window_has_the_hand_computed_value",
    ),
    "test_fsim": (
        "test_a_batch_is_its_images_and_strides_do_not_matter",
        "test_a_hand_made_comparison_pools_by_the_larger_phase_congruency",
        "test_gradient_equals_piq_where_piq_has_one",
        "test_integers_need_no_conversion",
        "test_noise_threshold_follows_kovesi_term_by_term",
    ),
    "test_dists": (
        "test_every_backend_masks_like_the_definition",
        "test_identical_images_are_at_distance_zero_and_order_does_not_matter",
        "test_l2_pooling_by_hand",
        "test_one_map_by_hand",
    ),
    "test_cnr": (
        "test_contrast_retention_finds_the_window_that_lost_its_feature",
        "test_each_kind_is_its_hand_computed_formula",
        "test_the_guard_band_keeps_its_distance",
        "test_the_threshold_is_that_of_scikit_image",
    ),
    "test_cnr_populations": (),
    "test_profiles": ("test_a_scored_run_comes_back_as_a_profile", "test_axes_of_a_known_profile_by_hand"),
    "test_guarding": (),
    "test_cli": (),
    "test_demo": (),
}


# Minutes where nothing is kept from before: not the last thing that one worker does while the others are through.
FIRST = ("test_every_kernel_compiles_for_a_chip_of_each_maker_without_a_spill",)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    stale = {(file, name) for file, names in CORE.items() for name in names or ("",)}
    for item in items:
        file, name = item.path.stem, item.name.partition("[")[0]
        if file in CORE and name in (CORE[file] or (name,)):
            item.add_marker(pytest.mark.core)
            stale.discard((file, name if CORE[file] else ""))
    items.sort(key=lambda item: item.name not in FIRST)
    if stale and is_whole(config):
        raise pytest.UsageError(f"conftest.CORE names tests that are not there: {sorted(stale)}")


@pytest.fixture(autouse=True)
def one_thread():
    """Or as many as SEMNR_TEST_THREADS says: results do not depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("SEMNR_TEST_THREADS", "1")))
    yield
    torch.set_num_threads(before)
