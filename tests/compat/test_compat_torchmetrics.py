"""torchmetrics' own behaviours, called once there and once on semnr.compat.torchmetrics."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import against

against.installed("torchmetrics", "1.")
import torchmetrics.functional.image as theirs  # noqa: E402
import torchmetrics.image as their_classes  # noqa: E402

import semnr.compat.torchmetrics.functional.image as ours  # noqa: E402
import semnr.compat.torchmetrics.image as our_classes  # noqa: E402
import semnr.torchmetrics as own  # noqa: E402

SSIM, MS_SSIM = "structural_similarity_index_measure", "multiscale_structural_similarity_index_measure"
PSNR = "peak_signal_noise_ratio"


def pair(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.rand(shape, generator=generator)
    return x.to(dtype), (0.75 * x + 0.1 * torch.rand(shape, generator=generator)).to(dtype)


def both(name: str, *args: Any, **options: Any) -> Any:
    atol = 1e-4 if options.get("return_full_image") else 1e-5  # of a window torchmetrics has float32's rounding
    return against.same(getattr(theirs, name), getattr(ours, name), *args, atol=atol, **options)


@pytest.mark.parametrize("shape", [(2, 3, 32, 36), (2, 1, 16, 18, 20)])
@pytest.mark.parametrize(
    "options",
    [
        {"data_range": 1.0},
        {},
        {"data_range": (0.1, 0.9)},
        {"data_range": 1.0, "sigma": 0.7},
        {"data_range": 1.0, "sigma": 0.7, "return_contrast_sensitivity": True},
        {"data_range": 1.0, "gaussian_kernel": False, "kernel_size": 5, "reduction": "none"},
        {"data_range": 1.0, "return_full_image": True, "reduction": None},
        {"data_range": 1.0, "return_contrast_sensitivity": True, "reduction": "sum", "k1": 0.1, "k2": 0.2},
    ],
)
def test_ssim_of_images_and_volumes(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    both(SSIM, *pair(*shape), **options)


@pytest.mark.parametrize("shape", [(2, 1, 40, 36), (1, 2, 20, 18, 22)])
@pytest.mark.parametrize("gaussian", [True, False])
def test_windows_and_sigmas_that_differ_by_axis(shape: tuple[int, ...], gaussian: bool) -> None:
    axes = len(shape) - 2
    options: dict[str, Any] = {"sigma": (0.6, 1.2, 0.9)[:axes], "kernel_size": (5, 9, 7)[:axes]}
    for extra in ({}, {"return_full_image": True}, {"return_contrast_sensitivity": True}):
        both(SSIM, *pair(*shape), gaussian_kernel=gaussian, data_range=1.0, **options, **extra)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_that_of_the_predictions(dtype: torch.dtype) -> None:
    x, y = pair(2, 1, 176, 180, dtype=dtype)
    for name in (SSIM, MS_SSIM, PSNR):
        both(name, x, y.float(), data_range=1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_no_nan(dtype: torch.dtype) -> None:
    x, y = pair(2, 1, 176, 180, dtype=dtype)
    for name in (SSIM, MS_SSIM):
        value = getattr(ours, name)(x, y, data_range=1.0)
        assert value.dtype == dtype
        assert value.isfinite()


@pytest.mark.parametrize("shape", [(2, 3, 180, 192), (1, 1, 40, 170, 170)])
@pytest.mark.parametrize(
    "options",
    [
        {"data_range": 1.0},
        {"normalize": "simple"},
        {"data_range": (0.0, 0.5), "normalize": None, "reduction": "none"},
        {"data_range": 1.0, "betas": (0.3, 0.7), "kernel_size": 7},
    ],
)
def test_ms_ssim(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    if len(shape) == 5:
        options = {"betas": (0.3, 0.7), "sigma": 0.7, "kernel_size": 5, **options}
    both(MS_SSIM, *pair(*shape), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"data_range": 1.0},
        {"data_range": (0.2, 0.8), "base": 2.0},
        {"data_range": 1.0, "dim": (1, 2, 3), "reduction": "none"},
        {"data_range": 1.0, "dim": 1, "reduction": "sum"},
        {"data_range": 1.0, "reduction": "average", "dim": 1},
    ],
)
def test_psnr(options: dict[str, Any]) -> None:
    both(PSNR, *pair(2, 3, 12, 12), **options)
    both(PSNR, *(v.mul(255).to(torch.uint8) for v in pair(2, 3, 12, 12)), data_range=255.0)


@pytest.mark.parametrize(
    ("name", "shapes", "options"),
    [
        (SSIM, ((1, 1, 32, 32), (1, 1, 32, 31)), {}),
        (SSIM, ((1, 32, 32), (1, 32, 32)), {}),
        (SSIM, ((1, 1, 32, 32), (1, 1, 32, 32)), {"kernel_size": (11, 11, 11)}),
        (SSIM, ((1, 1, 32, 32), (1, 1, 32, 32)), {"sigma": (1.5,)}),
        (SSIM, ((1, 1, 32, 32), (1, 1, 32, 32)), {"kernel_size": (11, 10)}),
        (SSIM, ((1, 1, 32, 32), (1, 1, 32, 32)), {"kernel_size": (11, -1)}),
        (SSIM, ((1, 1, 32, 32), (1, 1, 32, 32)), {"sigma": (1.5, 0)}),
        (SSIM, ((1, 1, 32, 32), (1, 1, 32, 32)), {"return_full_image": True, "return_contrast_sensitivity": True}),
        (SSIM, ((1, 1, 32, 32), (1, 1, 32, 32)), {"reduction": "median"}),
        (SSIM, ((1, 1, 5, 32), (1, 1, 5, 32)), {}),
        (MS_SSIM, ((1, 1, 150, 200), (1, 1, 150, 200)), {}),
        (MS_SSIM, ((1, 1, 20, 20), (1, 1, 20, 20)), {"betas": (0.2, 0.2, 0.2, 0.2, 0.2)}),
        (MS_SSIM, ((1, 1, 200, 200), (1, 1, 200, 200)), {"betas": [0.5, 0.5]}),
        (MS_SSIM, ((1, 1, 200, 200), (1, 1, 200, 200)), {"betas": (1, 2)}),
        (MS_SSIM, ((1, 1, 200, 200), (1, 1, 200, 200)), {"normalize": "max"}),
    ],
)
def test_bad_input_raises_what_torchmetrics_raises(name: str, shapes: Any, options: dict[str, Any]) -> None:
    error = both(name, *(torch.rand(shape) for shape in shapes), **options)
    assert isinstance(error, Exception)


def test_integer_images_are_refused_as_there() -> None:
    x = torch.ones(1, 1, 32, 32, dtype=torch.int64)
    assert isinstance(both(SSIM, x, x, data_range=1.0), RuntimeError)


def test_flat_images_without_a_range_are_nan_as_there() -> None:
    x = torch.zeros(2, 1, 32, 32)
    assert both(SSIM, x, x).isnan()


CLASSES = {
    "StructuralSimilarityIndexMeasure": (
        {"data_range": 1.0},
        {"data_range": 1.0, "reduction": "none", "return_full_image": True},
        {"data_range": 1.0, "reduction": "sum", "return_contrast_sensitivity": True},
    ),
    "MultiScaleStructuralSimilarityIndexMeasure": ({"data_range": 1.0}, {"data_range": 1.0, "reduction": None}),
    "PeakSignalNoiseRatio": ({"data_range": 1.0}, {"data_range": (0.2, 0.8), "dim": (1, 2, 3), "reduction": "none"}),
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_classes_over_a_stream(name: str) -> None:
    for options in CLASSES[name]:
        metrics = [getattr(module, name)(**options) for module in (their_classes, our_classes)]
        for seed in range(2):
            x, y = pair(2 + seed, 1, 176, 176)
            against.same(*metrics, x, y, atol=1e-5)
        against.same(*(metric.compute for metric in metrics), atol=1e-5)
        for attribute in ("higher_is_better", "is_differentiable", "full_state_update", "plot_lower_bound"):
            assert getattr(metrics[0], attribute) == getattr(metrics[1], attribute)
        assert set(metrics[0].metric_state) == set(metrics[1].metric_state)
        metrics[1].reset()
        assert metrics[1].update_count == 0


@pytest.mark.parametrize("name", ["StructuralSimilarityIndexMeasure", "MultiScaleStructuralSimilarityIndexMeasure"])
def test_classes_are_made_with_the_same_errors(name: str) -> None:
    against.same(getattr(their_classes, name), getattr(our_classes, name), reduction="median")
    if name.startswith("Multi"):
        for options in ({"kernel_size": 1.5}, {"kernel_size": (3, 3, 3, 3)}, {"betas": [0.5]}, {"normalize": "max"}):
            against.same(getattr(their_classes, name), getattr(our_classes, name), **options)


def test_a_collection_and_a_plot() -> None:
    import torchmetrics

    pytest.importorskip("matplotlib", reason="matplotlib is not installed: torchmetrics draws with it")
    collection = torchmetrics.MetricCollection(
        [our_classes.StructuralSimilarityIndexMeasure(data_range=1.0), our_classes.PeakSignalNoiseRatio(1.0)]
    )
    x, y = pair(2, 1, 32, 32)
    values = collection(x, y)
    wanted = theirs.structural_similarity_index_measure(x, y, data_range=1.0)
    torch.testing.assert_close(values["StructuralSimilarityIndexMeasure"], wanted, atol=1e-6, rtol=0)
    figure, _ = collection["PeakSignalNoiseRatio"].plot()
    assert figure is not None


SCRIPTED = [
    lambda: our_classes.PeakSignalNoiseRatio(data_range=1.0),
    lambda: our_classes.StructuralSimilarityIndexMeasure(data_range=1.0),
    lambda: our_classes.StructuralSimilarityIndexMeasure(return_full_image=True),
    lambda: our_classes.MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0),
    lambda: own.PSNR(1.0),
    lambda: own.SSIM(1.0),
]


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script.*:FutureWarning", "ignore:.*torch.jit.script.*:DeprecationWarning"
)
@pytest.mark.parametrize("make", SCRIPTED)
def test_a_metric_inside_a_module_does_not_keep_it_from_torchscript(make) -> None:
    torch.jit.script(make())
