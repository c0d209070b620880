"""What only the CUDA kernels promise: counted memory traffic, no dependence on the number of blocks, far strides.

They run here under the emulation (csrc/emulation), which itself fails a kernel that races, leaves its memory or reads
what nothing wrote. Values against the definition are the ops' own suites, on "cuda-emulated".
"""

from __future__ import annotations

import math

import pytest
import torch

import backends
import tolerances
from semnr_kernels import cuda_support, native_support
from semnr_kernels.cnr import cuda as cnr_cuda
from semnr_kernels.cnr import reference as cnr_reference
from semnr_kernels.cnr.reference import Settings as Grid
from semnr_kernels.pixel import cuda as pixel_cuda
from semnr_kernels.pixel import reference as pixel_reference
from semnr_kernels.profile import cuda as profile_cuda
from semnr_kernels.registry import Call
from semnr_kernels.ssim import Settings, ssim

DTYPES = tuple(native_support.DTYPE_CODES)


@pytest.fixture(autouse=True)
def emulated() -> None:
    backends.require("pixel", "cuda-emulated")


def image(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    values = 40 + 200 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values * (270 if dtype == torch.uint16 else 1)).to(dtype)


def region(shape: tuple[int, ...], seed: int = 1, share: float = 0.5) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def totals() -> dict[str, int]:
    """Of all kernels of the last call: bytes of distinct sectors, shared transactions and the fewest there can be."""
    kernels = cuda_support.counters().values()
    return {
        "read": sum(32 * k["sectors_read"] for k in kernels),
        "written": sum(32 * k["sectors_written"] for k in kernels),
        "transactions": sum(k["shared_load_transactions"] + k["shared_store_transactions"] for k in kernels),
        "ideal": sum(k["shared_load_ideal"] + k["shared_store_ideal"] for k in kernels),
    }


def far_apart(rows: torch.Tensor, stride: int) -> torch.Tensor:
    """The rows of a (1, 1, H, W) image `stride` pixels from each other: memory that is never touched costs nothing."""
    height, width = rows.shape[2:]
    memory = torch.empty((height - 1) * stride + width, dtype=rows.dtype)
    view = memory.as_strided(rows.shape, (stride, stride, stride, 1))
    view.copy_(rows)
    return view


class TestPixelErrors:
    @pytest.mark.parametrize("masked", [False, True], ids=["", "masked"])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_pixel_is_read_once_and_no_bank_twice(self, dtype: torch.dtype, masked: bool) -> None:
        x, y = image((2, 1, 128, 256), dtype), image((2, 1, 128, 256), dtype, 1)
        mask = region((2, 1, 128, 256)) if masked else None
        got = pixel_cuda.errors(x, y, mask, emulated=True)
        for g, e in zip(got, pixel_reference.errors(x, y, mask), strict=True):
            torch.testing.assert_close(g, e, rtol=tolerances.MSE_FLOAT_RELATIVE, atol=0)
        parts = 2 * pixel_cuda.plan(x, y, mask).parts
        sums = cuda_support.counters()["pixel_sums"]
        assert sums["bytes_read"] == 2 * x.numel() * x.element_size() + (x.numel() if masked else 0)
        assert sums["sectors_read"] * 32 == sums["bytes_read"]
        assert sums["bytes_written"] == 24 * parts
        found = totals()
        assert found["transactions"] == found["ideal"]
        assert found["read"] + found["written"] <= 1.02 * sums["bytes_read"]

    @pytest.mark.parametrize("blocks", [1, 3, 7])
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
    def test_no_bit_depends_on_the_number_of_blocks(self, dtype: torch.dtype, blocks: int) -> None:
        x, y = image((3, 1, 99, 104), dtype), image((3, 1, 99, 104), dtype, 1)
        usual = pixel_cuda.errors(x, y, None, emulated=True)
        few = pixel_cuda.errors(x, y, None, emulated=True, blocks=blocks)
        assert all(torch.equal(a, b) for a, b in zip(usual, few, strict=True))
        assert cuda_support.counters()["pixel_sums"]["blocks"] == blocks

    @pytest.mark.parametrize(
        "shape", [(1, 1, 1, 1), (2, 3, 5, 7), (1, 1, 1, 4099), (1, 2, 61, 47), (5, 1, 300, 1)], ids=str
    )
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_odd_sizes_and_layouts_are_the_references(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        n, c, h, w = shape
        x, y, mask = image((n, c, h, 2 * w), dtype), image((n, c, w, h), dtype, 1).mT, region((n, 1, h, w))
        mask[0] = False
        for a, b, valid in ((x[..., :w], y, None), (x[..., ::2], y, mask), (x[..., w:], y.contiguous(), mask)):
            got = pixel_cuda.errors(a, b, valid, emulated=True)
            wanted = pixel_reference.errors(a, b, valid)
            for g, e in zip(got, wanted, strict=True):
                torch.testing.assert_close(g, e, rtol=tolerances.MSE_FLOAT_RELATIVE, atol=0, equal_nan=True)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
    @pytest.mark.parametrize("width", [40, 41])
    def test_neither_layout_nor_batch_changes_a_bit_of_a_float_sum(self, dtype: torch.dtype, width: int) -> None:
        x, y = image((3, 2, 50, width), dtype), image((3, 2, 50, width), dtype, 1)
        usual = torch.stack(pixel_cuda.errors(x, y, None, emulated=True))
        for a, b in ((x.mT.contiguous().mT, y), (torch.stack((x, x), dim=-1)[..., 0], y.mT.contiguous().mT)):
            assert torch.equal(torch.stack(pixel_cuda.errors(a, b, None, emulated=True)), usual)
        for i in range(3):
            alone = torch.stack(pixel_cuda.errors(x[i : i + 1].clone(), y[i : i + 1].clone(), None, emulated=True))
            assert torch.equal(alone[:, 0], usual[:, i])

    def test_rows_further_apart_than_32_bits_count_are_found(self) -> None:
        near, y = image((1, 1, 3, 50), torch.uint8), image((1, 1, 3, 50), torch.uint8, 1)
        far = far_apart(near, 2**31 + 7)
        got = pixel_cuda.errors(far, y.expand(1, 1, 3, 50), None, emulated=True)
        assert [v.item() for v in got] == [v.item() for v in pixel_reference.errors(near, y, None)]

    def test_a_mask_that_keeps_nothing_gives_no_number(self) -> None:
        x = image((2, 1, 32, 32), torch.float32)
        x[0, 0, 3, 3] = math.nan
        mask = torch.zeros((1, 1, 1, 1), dtype=torch.bool).expand(2, 1, 32, 32)
        assert all(bool(v.isnan().all()) for v in pixel_cuda.errors(x, x, mask, emulated=True))

    def test_what_it_does_not_take_it_says(self) -> None:
        huge = torch.zeros((1,), dtype=torch.uint8).expand(1, 1, 2**17, 2**17)
        assert pixel_cuda.supports(Call.of("pixel", huge)) == "takes images below 2**34 pixels"
        assert pixel_cuda.supports(Call.of("pixel", torch.zeros((1, 1, 2, 2), requires_grad=True))) == "has no gradient"
        assert pixel_cuda.supports(Call.of("pixel", huge[..., 1:])) is None

    def test_plans_have_few_parts_and_threads_that_cannot_overflow(self) -> None:
        one = torch.zeros((1,), dtype=torch.uint8)
        for shape in ((1, 1, 1, 1), (1, 1, 512, 512), (1, 3, 4096, 4096), (1, 1, 2**17, 2**17 - 1)):
            x = one.expand(shape)
            walk = pixel_cuda.plan(x, x, None)
            assert walk.parts <= 1024
            assert walk.packs_a_part * walk.pack <= 256 * 2**16


class TestMoments:
    @pytest.mark.parametrize(
        ("dtype", "bound"), [(torch.uint8, 1.05), (torch.uint16, 1.04), (torch.float32, 1.03)], ids=str
    )
    @pytest.mark.parametrize("grid", [(None, None), ((64, 64), (32, 32))], ids=["whole", "map"])
    def test_pixels_and_regions_are_read_once(self, dtype: torch.dtype, bound: float, grid: tuple) -> None:
        x, roi = image((2, 1, 256, 512), dtype), region((2, 1, 256, 512))
        cnr_cuda.of_regions(x, roi, ~roi, settings=Grid(grid[0], grid[1]), emulated=True)
        floor = x.numel() * (x.element_size() + 2)
        assert cuda_support.counters()["cnr_cells"]["sectors_read"] * 32 <= 1.002 * floor
        found = totals()
        assert found["read"] + found["written"] <= bound * floor
        assert found["transactions"] == found["ideal"]

    @pytest.mark.parametrize(
        ("shape", "window", "stride"),
        [
            ((70, 91), (16, 16), (8, 8)),
            ((96, 128), (64, 96), (32, 32)),
            ((40, 3000), (20, 2900), (7, 50)),  # a stride of several cells
            ((9, 4500), (3, 1100), (3, 1050)),  # cells wider than a block
            ((300, 40), (250, 30), (25, 5)),  # cells higher than 32 rows
            ((64, 72), (41, 33), (2, 1)),  # by runs along rows, then columns
        ],
        ids=str,
    )
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32], ids=str)
    def test_windows_of_any_size_are_the_references(
        self, dtype: torch.dtype, shape: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]
    ) -> None:
        x, regions = image((1, 1, *shape), dtype), (region((1, 1, *shape)), region((1, 1, *shape), 2, 0.02))
        got = cnr_cuda.of_regions(x, *regions, settings=Grid(window, stride), emulated=True)
        for found, roi in zip(got, regions, strict=True):
            wanted = cnr_reference.window_moments(x, roi, window, stride)
            for a, b in zip(found, wanted, strict=True):
                torch.testing.assert_close(a, b, rtol=tolerances.PEER_FLOAT64, atol=1e-11, equal_nan=True)
        few = cnr_cuda.of_regions(x, *regions, settings=Grid(window, stride), emulated=True, blocks=2)
        for a, b in zip(got, few, strict=True):
            assert all(torch.equal(v.nan_to_num(-1), w.nan_to_num(-1)) for v, w in zip(a, b, strict=True))

    def test_merging_all_cells_and_merging_runs_agree(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, roi = image((2, 1, 60, 70), torch.uint16), region((2, 1, 60, 70))
        found = []
        for overlap in (0, 10**6):
            monkeypatch.setattr(cnr_cuda, "_OVERLAP", overlap)
            found.append(cnr_cuda.of_regions(x, roi, settings=Grid((20, 24), (4, 3)), emulated=True)[0])
            assert ("cnr_slide" in cuda_support.counters()) == (overlap == 0)
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))

    def test_bands_of_rows_and_of_planes_are_the_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, roi = image((3, 2, 80, 60), torch.float32), region((3, 1, 80, 60))
        options = {"settings": Grid((9, 9), (2, 2)), "emulated": True}
        wanted = cnr_cuda.of_regions(x, roi, ~roi, **options)[0]
        for table in (60_000, 200_000):
            monkeypatch.setattr(cnr_cuda, "_TABLE", table)
            got = cnr_cuda.of_regions(x, roi, ~roi, **options)[0]
            assert cuda_support.counters()["cnr_cells"]["launches"] > 1
            for a, b in zip(got, wanted, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_three_regions_an_empty_one_and_a_constant_image(self, dtype: torch.dtype) -> None:
        x = torch.full((1, 2, 40, 70), 65535 if dtype == torch.uint16 else 201, dtype=dtype)
        regions = region((1, 1, 40, 70)), torch.zeros((1, 1, 40, 70), dtype=torch.bool), region((1, 2, 40, 70), 3)
        some, none, each = cnr_cuda.of_regions(x, *regions, emulated=True)
        for found, roi in ((some, regions[0]), (each, regions[2])):
            assert torch.equal(found.pixels, roi.sum(dim=(2, 3)).double().expand(1, 2))
            assert (found.mean == float(x.flatten()[0])).all()
            assert (found.variance == 0).all()
        assert (none.pixels == 0).all()
        assert none.mean.isnan().all()
        assert none.variance.isnan().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_no_pixel_outside_a_region_has_a_say(self, dtype: torch.dtype) -> None:
        x, roi = 40_000 + image((2, 1, 70, 64), dtype) / 1000, region((2, 1, 70, 64))
        wanted = cnr_cuda.of_regions(x, roi, settings=Grid((20, 16), (10, 8)), emulated=True)[0]
        for spoilt in (1e30, -math.inf, math.nan, 0.0):
            x[~roi] = spoilt
            got = cnr_cuda.of_regions(x, roi, settings=Grid((20, 16), (10, 8)), emulated=True)[0]
            assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))

    def test_variances_of_large_integer_regions_lose_no_digit(self) -> None:
        """Σv² is 1.8·10¹⁶ here, beyond the integers that float64 tells apart."""
        row = 65536 - torch.randint(1, 4, (1, 1, 1, 1024), generator=torch.Generator().manual_seed(0))
        x = row.to(torch.uint16).expand(1, 1, 4101, 1024)
        roi = torch.ones((1, 1, 1, 1024), dtype=torch.bool).expand(x.shape)
        found = cnr_cuda.of_regions(x, roi, emulated=True)[0]
        assert found.mean.item() == row.double().mean().item()
        assert found.variance.item() == pytest.approx((row - 65534).double().var(correction=0).item(), rel=1e-14)

    def test_rows_further_apart_than_32_bits_count_are_found(self) -> None:
        near, roi = image((1, 1, 3, 48), torch.uint8), region((1, 1, 3, 48))
        far = far_apart(near, 2**31 + 16)
        got = cnr_cuda.of_regions(far, roi, settings=Grid((2, 16), (1, 16)), emulated=True)[0]
        wanted = cnr_reference.window_moments(near, roi, (2, 16), (1, 16))
        assert all(torch.allclose(a, b, rtol=1e-12, atol=0) for a, b in zip(got, wanted, strict=True))

    def test_the_work_does_not_grow_with_the_window(self) -> None:
        x, roi = image((1, 1, 160, 160), torch.uint8), region((1, 1, 160, 160))
        read = []
        for window in (33, 65, 97):
            cnr_cuda.of_regions(x, roi, settings=Grid((window, window), (2, 2)), emulated=True)
            windows = ((160 - window) // 2 + 1) ** 2
            kernels = cuda_support.counters()
            # what threads ask for, not sectors: merging all cells of a window would grow as its area
            read.append(sum(k["bytes_read"] for k in kernels.values()) / (160 * 160 + 24 * windows))
        assert max(read) < 2 * min(read)

    def test_what_it_does_not_take_it_says(self) -> None:
        assert cnr_cuda.supports(Call.of("cnr", torch.zeros((1, 1, 2, 2), requires_grad=True))) == "has no gradient"
        for dtype, side in ((torch.uint8, 2**17), (torch.float32, 2**16)):
            huge = torch.zeros((1,), dtype=dtype).expand(1, 1, side, side)
            assert cnr_cuda.supports(Call.of("cnr", huge)) == f"takes planes below {side**2} pixels"
            assert cnr_cuda.supports(Call.of("cnr", huge[..., 1:])) is None


class TestHistogram:
    @pytest.mark.parametrize("bins", [1, 2, 33, 1024])
    def test_counts_are_the_references_for_any_number_of_blocks(self, bins: int) -> None:
        values = torch.randn(70_001, dtype=torch.float64, generator=torch.Generator().manual_seed(bins))
        values[:3] = torch.tensor([math.inf, -math.inf, 9.0])
        edges = torch.linspace(-3, 3, bins + 1, dtype=torch.float64)
        for blocks in (1, 2112):
            counts = cnr_cuda.histogram(values, edges, emulated=True, blocks=blocks)
            assert counts.tolist() == cnr_reference.histogram(values, edges).tolist()
        found = totals()
        assert found["transactions"] == found["ideal"]

    def test_edges_that_are_not_quite_even_are_held_against_the_values(self) -> None:
        generator = torch.Generator().manual_seed(0)
        edges = torch.arange(41, dtype=torch.float64) + 1.9 * torch.rand(41, dtype=torch.float64, generator=generator)
        values = 42 * torch.rand(5000, dtype=torch.float64, generator=generator)
        edges = edges.sort().values
        counts = cnr_cuda.histogram(values, edges, emulated=True)
        assert counts.tolist() == cnr_reference.histogram(values, edges).tolist()

    def test_more_bins_than_shared_memory_holds_are_left_to_others(self) -> None:
        values = torch.zeros(4, dtype=torch.float64)
        assert (
            cnr_cuda.supports_histogram(Call.of("histogram", values, settings=cnr_reference.Bins(1025)))
            == "counts up to 1024 bins"
        )
        assert cnr_cuda.supports_histogram(Call.of("histogram", values.float())) == "counts float64 values"


class TestOneRead:
    """Pixel errors, SSIM and moments from one walk; `together` itself is test_together.py's."""

    @pytest.fixture(autouse=True)
    def built(self) -> None:
        if not hasattr(cuda_support.module(True), "profile_scores"):
            pytest.skip("the emulated module was built without profile")

    @staticmethod
    def scores(
        x: torch.Tensor,
        y: torch.Tensor,
        *regions: torch.Tensor,
    ) -> profile_cuda.Scores:
        return profile_cuda.scores(x, y, *regions, Settings(data_range=255.0), emulated=True)

    @pytest.mark.parametrize(("dtype", "words"), [(torch.uint8, 29), (torch.uint16, 31), (torch.float32, 34)], ids=str)
    def test_images_and_regions_are_read_about_once(self, dtype: torch.dtype, words: int) -> None:
        x, y, roi = image((1, 1, 512, 512), dtype), image((1, 1, 512, 512), dtype, 1), region((1, 1, 512, 512))
        self.scores(x, y, roi, ~roi)
        floor = x.numel() * (2 * x.element_size() + 2)
        found = totals()
        assert found["read"] + found["written"] <= 1.17 * floor
        assert found["transactions"] <= 1.1 * found["ideal"]
        walk = cuda_support.counters()["profile_scores"]
        assert walk["shared_load_words"] + walk["shared_store_words"] <= words * x.numel()

    @pytest.mark.parametrize(
        "shape", [(1, 1, 11, 11), (2, 1, 12, 300), (1, 1, 300, 40), (2, 1, 75, 261), (1, 1, 90, 264)], ids=str
    )
    @pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float64], ids=str)
    def test_sizes_layouts_and_strips_give_what_the_ops_give(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        n, _, h, w = shape
        x, y = image((n, 1, h, 2 * w), dtype), image((n, 1, w, h), dtype, 1).mT
        regions = region((n, 1, w, h)).mT, region((1, 1, h, w), 2, 0.2).expand(n, 1, h, w)
        for a, b in ((x[..., ::2], y), (x[..., :w].contiguous(), y.contiguous())):
            found = self.scores(a, b, *regions)
            wanted = ssim(a, b, data_range=255.0, reduction="none", nan="propagate", backend="cuda-emulated")
            assert torch.equal(found.ssim, wanted)
            for g, e in zip(found[:2], pixel_reference.errors(a, b, None), strict=True):
                torch.testing.assert_close(g, e, rtol=tolerances.MSE_FLOAT_RELATIVE, atol=0)
            both = (regions[0] & regions[1]).sum(dim=(1, 2, 3)).double()
            assert torch.equal(found.shared, both)
            moments = cnr_reference.of_regions(a, *regions) + cnr_reference.of_regions(b, torch.ones_like(regions[0]))
            for got, want in zip((found.signal, found.background, found.reference), moments, strict=True):
                for g, e in zip(got, want, strict=True):
                    torch.testing.assert_close(g, e[:, 0], rtol=tolerances.PEER_FLOAT64, atol=1e-11, equal_nan=True)

    def test_what_one_read_does_not_serve_is_said(self) -> None:
        x = image((1, 1, 64, 128), torch.float32)

        def reason(v: torch.Tensor) -> str | None:
            return profile_cuda.why_not(v, v)

        assert reason(x) is None
        assert reason(x.double()) == "scores float64 one metric at a time"
        assert reason(x[..., :10]) == "takes images of 11 pixels and more a side"
        far = torch.empty_strided(x.shape, (1, 1, 2**29, 1), device="meta")
        assert reason(far) == "takes images below 2**31 pixels, rows less than 2**31 bytes apart"
