"""SSIM on tensor cores is a design (semnr_kernels/ssim/README.md): its error by an emulation of the rounding."""

from __future__ import annotations

import numpy as np
import pytest
import tensor_core_error as design

import tolerances


@pytest.mark.parametrize(
    "name", ["random", "lines with noise", "flat, white", "flat, black", "ramp", "two-level lines"]
)
def test_the_design_keeps_the_bounds_of_a_float32_backend_where_each_tile_has_its_shift(name: str) -> None:
    x, y = design.images(74)[name]
    mean, apart = design.errors(x, y)
    assert mean <= (tolerances.SSIM_MEAN_ANY if name == "two-level lines" else tolerances.SSIM_MEAN)
    assert apart <= tolerances.SSIM_MAP


def test_one_shift_for_all_pixels_would_not_do() -> None:
    mean, apart = design.errors(*design.images(74)["flat, white"], shift=128.0)
    assert mean > tolerances.SSIM_MEAN
    assert apart > tolerances.SSIM_MAP


def test_the_emulated_rounding_is_that_of_the_formats() -> None:
    values = np.array([1 + 2**-11, 1 + 3 * 2**-11, -(1 + 2**-10), 65025.0])
    assert design.tf32(values).tolist() == [1, 1 + 2**-9, -(1 + 2**-10), 65024.0]
    assert design.cut(np.array([1 + 2**-24, -(1 + 2**-23 + 2**-24)])).tolist() == [1, -(1 + 2**-23)]
    with pytest.raises(ArithmeticError, match="no number of fp16"):
        design.rows_in_halves(np.full((1, 11), 0.3), design.taps())
    assert design.rows_in_halves(np.full((1, 11), 65025.0), design.taps()) == pytest.approx(65025, rel=3e-7)
