"""Every public call on a GPU that is not there (mock_gpu.py): the CPU's numbers, and what the host waits for."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evidence_tiles
import mock_gpu
import numpy as np
import pytest
import torch

import backends
import semnr
import tolerances
from semnr import losses
from semnr.denoising.tiled import cut
from semnr.scoring.device import Upload
from semnr.tiles import TileKey, create_tiles
from semnr_kernels import convolution, dists, registry
from semnr_kernels.cnr.reference import Bins
from semnr_kernels.device import lanes_of, resolve
from semnr_kernels.dists.network import network_for
from semnr_kernels.fsim import reference
from semnr_kernels.ssim import ssim

Images = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
SIZE = (2, 1, 48, 56)


@pytest.fixture
def gpu() -> Iterator[None]:
    backends.require("ssim", "cuda-emulated")
    with mock_gpu.present():
        yield


def images(dtype: torch.dtype, size: tuple[int, ...] = SIZE) -> Images:
    """Candidate, reference and noisy input: lines under noise."""
    generator = torch.Generator().manual_seed(0)
    clean = 0.3 + 0.4 * (torch.arange(size[-1]) % 16 < 8).double()
    made = [(clean + s * torch.randn(size, generator=generator, dtype=torch.float64)) for s in (0.03, 0.02, 0.1)]
    if dtype.is_floating_point:
        return tuple(v.clamp(0, 1).to(dtype) for v in made)  # type: ignore[return-value]
    top = torch.iinfo(dtype).max
    return tuple(  # type: ignore[return-value]
        torch.from_numpy((v.clamp(0, 1).numpy() * top).round().astype(str(dtype)[6:])) for v in made
    )


def rows(profile: semnr.Profile) -> torch.Tensor:
    """Every column but DISTS, which has a bound of its own."""
    return torch.from_numpy(np.stack([column for name, column in profile.columns.items() if name != "dists"]))


def dists_row(profile: semnr.Profile) -> torch.Tensor:
    return torch.from_numpy(profile.columns["dists"])


CALLS: dict[str, Callable[..., Any]] = {
    "mse": lambda x, y, z, r: semnr.mse(x, y, **r),
    "mae": lambda x, y, z, r: semnr.mae(x, y, **r),
    "psnr": lambda x, y, z, r: semnr.psnr(x, y, **r),
    "ssim": lambda x, y, z, r: semnr.ssim(x, y, **r),
    "ssim with a map": lambda x, y, z, r: semnr.ssim(x, y, return_map=True, **r).map,
    "ssim, masked": lambda x, y, z, r: semnr.ssim(x, y, mask=y > y.double().mean(), components=True, **r).value,
    "ms_ssim": lambda x, y, z, r: semnr.ms_ssim(x, y, window_size=3, weights=(0.5, 0.5), **r),
    "fsim": lambda x, y, z, r: semnr.fsim(x, y, downsample=1, **r),
    "dists": lambda x, y, z, r: semnr.dists(x, y, weights="random", **r),
    "cnr": lambda x, y, z, r: semnr.cnr(x, y),
    "cnr gcnr": lambda x, y, z, r: semnr.cnr(x, y, kind="gcnr"),
    "cnr rose": lambda x, y, z, r: semnr.cnr(x, y, kind="rose"),
    "cnr of a noisy image": lambda x, y, z, r: semnr.cnr(x, y, kind="fixed_noise", noise=z),
    "cnr_map": lambda x, y, z, r: semnr.cnr_map(x, y, window=16, stride=8),
    "otsu_masks": lambda x, y, z, r: semnr.otsu_masks(y).signal,
    "profile": lambda x, y, z, r: rows(semnr.profile(x, y, dists_weights="random", **r)),
    "DISTS of a profile": lambda x, y, z, r: dists_row(
        semnr.profile(x, y, metrics=("dists",), dists_weights="random", **r)
    ),
    "profile of three": lambda x, y, z, r: rows(semnr.profile(x, y, metrics=("psnr", "ssim", "cnr"), **r)),
    "profile with noise": lambda x, y, z, r: rows(
        semnr.profile(x, y, metrics=("psnr", "ssim", "cnr"), noise=z, details=True, **r)
    ),
    "profile that propagates": lambda x, y, z, r: rows(
        semnr.profile(x, y, metrics=("psnr", "ssim", "fsim", "cnr"), nan="propagate", **r)
    ),
    "reference": lambda x, y, z, r: rows(
        semnr.Reference(y, metrics=("fsim", "dists", "cnr"), dists_weights="random", **r).prepare().profile(x)
    ),
    "DISTS of a reference": lambda x, y, z, r: dists_row(
        semnr.Reference(y, metrics=("dists",), dists_weights="random", **r).prepare().profile(x)
    ),
    "residual_tests": lambda x, y, z, r: semnr.residual_tests(z, x, **r).variance,
    "evidence": lambda x, y, z, r: semnr.evidence(z, x, reference=y, **r).transfer,
    "check": lambda x, y, z, r: rows(semnr.check(z, x, **r).profile),
    "check with a reference": lambda x, y, z, r: rows(semnr.check(z, x, reference=y, **r).profile),
}
# Native on the CPU against the definition on the device: the bounds of the suites of DISTS and of the residual scan.
BETWEEN_BACKENDS = {"DISTS of a profile": 5e-7, "DISTS of a reference": 5e-7, "residual_tests": 1e-6}
DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}
NETWORKS = (
    "dists",
    "profile",
    "reference",
    "DISTS of a profile",
    "DISTS of a reference",
)  # one dtype of these is enough: they convert first
CASES = [(name, dtype) for name in CALLS for dtype in DTYPES if name not in NETWORKS or dtype == "uint8"]


def plain(value: Any) -> torch.Tensor:
    return torch.as_tensor(value.cpu() if isinstance(value, torch.Tensor) else value).detach().double()


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_a_public_call_on_a_device_gives_the_numbers_of_the_cpu(gpu: None, name: str, dtype: str) -> None:
    given = images(DTYPES[dtype])
    scale = {"data_range": 1.0} if dtype == "float32" else {}
    wanted = plain(CALLS[name](*given, scale))
    got = plain(CALLS[name](*(v.to("cuda") for v in given), scale))
    bound = BETWEEN_BACKENDS.get(name, tolerances.SSIM_MAP if "map" in name else tolerances.SSIM_MEAN)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=bound, equal_nan=True)


LOSSES: dict[str, Callable[[], torch.nn.Module]] = {
    "ssim": lambda: losses.SSIMLoss(data_range=1.0),
    "ms_ssim": lambda: losses.MSSSIMLoss(data_range=1.0, window_size=3, weights=(0.5, 0.5)),
    "fsim": lambda: losses.FSIMLoss(data_range=1.0),
    "dists": lambda: losses.DISTSLoss(data_range=1.0, weights="random"),
    "charbonnier": lambda: losses.CharbonnierLoss(data_range=1.0),
    "profile": lambda: losses.ProfileLoss({"ssim": 0.5, "charbonnier": 1.0}, data_range=1.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradient_on_a_device_are_those_of_the_cpu(gpu: None, name: str) -> None:
    found = []
    for place in ("cpu", "cuda"):
        x, y, _ = (v.to(place) for v in images(torch.float32))
        x.requires_grad_()
        loss = LOSSES[name]()(x, y)
        loss.backward()
        found.append((plain(loss), plain(x.grad)))
    (value, gradient), (value_there, gradient_there) = found
    torch.testing.assert_close(value_there, value, rtol=0, atol=1e-7)
    bound = tolerances.GRADIENT_RELATIVE * gradient.abs().max().item()
    torch.testing.assert_close(gradient_there, gradient, rtol=0, atol=bound)


def test_what_a_device_refuses_the_mock_refuses(gpu: None) -> None:
    x = torch.ones(3, device="cuda")
    assert (x.device, x.is_cuda, x.is_cpu) == (torch.device("cuda", 0), True, False)
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        x.numpy()
    with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
        x + torch.ones(3)
    with pytest.raises(ValueError, match="x is on cuda:0 and y on cpu"):
        semnr.mse(torch.ones((16, 16), device="cuda"), torch.ones((16, 16)))


def test_a_profile_that_propagates_waits_for_the_device_once_at_its_end(gpu: None) -> None:
    x, y, _ = (v.to("cuda") for v in images(torch.float32))
    y[1] = y[1, 0, 0, 0]  # flat: no second population
    x[0] = y[0]  # identical

    def profile() -> semnr.Profile:
        return semnr.profile(x, y, metrics=("psnr", "ssim", "cnr", "fsim"), nan="propagate", data_range=1.0)

    profile()
    with mock_gpu.counting() as counts:
        got = profile()
    assert sum(counts.waits.values()) == 1, counts.waits
    assert sum(counts.uploads.values()) == 0, counts.uploads
    assert got.flags[0] == "1 identical images: infinite PSNR"
    assert "cnr: undefined: one population (image 1)" in got.flags


def test_masks_of_a_device_are_built_without_a_wait_for_each_image(gpu: None) -> None:
    _, y, _ = images(torch.uint8, (4, 1, 48, 56))
    there = y.to("cuda")
    semnr.otsu_masks(there)
    with mock_gpu.counting() as counts:
        got = semnr.otsu_masks(there)
    assert sum(counts.waits.values()) == 1, counts.waits  # the flags
    assert torch.equal(plain(got.threshold), plain(semnr.otsu_masks(y).threshold))


def test_the_mock_counts_waits_copies_and_launches(gpu: None) -> None:
    with mock_gpu.counting() as counts:
        x = torch.ones((1, 1, 16, 16)).to("cuda")
        value = ssim(x, x, data_range=1.0, nan="propagate")
        assert (sum(counts.uploads.values()), sum(counts.waits.values())) == (1, 0)
        assert counts.launches["ssim_forward"] == 1
        assert float(value) == 1
    assert sum(counts.waits.values()) == 1


# --- runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    with create_tiles(tmp_path / "w.zarr", count=6, roles=("reference", "noisy", "denoised"), compress=False) as tiles:
        for i in range(6):
            parts = images(torch.uint8, (1, 1, 40, 48))
            for role, image in zip(("denoised", "reference", "noisy"), parts, strict=True):
                tiles.write(TileKey(f"t{i}", i), image[0, 0].numpy(), role)
    return tmp_path / "w.zarr"


def test_score_on_a_device_writes_the_rows_of_the_cpu_and_leaves_torch_its_threads(
    gpu: None, stack: Path, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = []
        for device in ("cpu", "cuda"):
            run = semnr.score(stack, out=tmp_path / device, metrics=("psnr", "ssim", "cnr"), tests=False, device=device)
            found.append(sorted(run.table().to_pylist(), key=lambda row: row["index"]))
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert [row["status"] for row in found[1]] == ["ok"] * 6
    for wanted, got in zip(*found, strict=True):
        numbers = {k for k, v in wanted.items() if isinstance(v, float)}
        assert {k: got[k] for k in numbers} == pytest.approx({k: wanted[k] for k in numbers}, abs=1e-6, nan_ok=True)
        assert {k: got[k] for k in wanted.keys() - numbers} == {k: wanted[k] for k in wanted.keys() - numbers}


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """Tiles that the evidence says something of."""
    kinds, roles = ("lines", "defects", "holes", "metal"), ("noisy", "denoised", "reference")
    with create_tiles(tmp_path / "w.zarr", count=4, roles=roles, compress=False) as tiles:
        for i, kind in enumerate(kinds):
            for role, image in zip(roles, evidence_tiles.case(kind, 64, 96), strict=True):
                tiles.write(TileKey(f"t{i}", i), image[0, 0].numpy(), role)
    return tmp_path / "w.zarr"


def test_evidence_on_a_device_is_the_cpus_with_one_upload_a_batch_and_nothing_that_waits_within(
    gpu: None, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads: list[tuple[str, ...]] = []
    usual = Upload.__call__

    def sent(self: Upload, parts: dict[str, np.ndarray]) -> Any:
        uploads.append(tuple(parts))
        return usual(self, parts)

    monkeypatch.setattr(Upload, "__call__", sent)
    found, counted = [], []
    for k, device in enumerate(("cpu", "cuda", "cuda")):  # the first on the device makes its tables
        with mock_gpu.counting() as counts:
            run = semnr.score(judged, out=tmp_path / f"{device}{k}", metrics=("psnr", "ssim"), device=device)
        found.append(sorted(run.table().to_pylist(), key=lambda row: row["index"]))
        counted.append(counts)
    assert [row["status"] for row in found[2]] == ["ok"] * 4
    assert uploads == [("x", "y", "noisy")] * 2  # one batch in each run
    evidence = {place: n for place, n in counted[2].waits.items() if "trust" in place or "batched" in place}
    assert sum(evidence.values()) == 1, counted[2].waits  # the row
    assert not {place for place in counted[2].waits if "on_device" in place or "residual" in place}
    assert not counted[2].uploads, counted[2].uploads
    assert {run.info["backends"][op] for op in ("noise", "residual", "changes", "transfer")} == {"torch"}
    for wanted, got in zip(found[0], found[2], strict=True):
        for name, value in wanted.items():
            if isinstance(value, float):
                near = 0.02 if name.endswith(("_z", "_se")) else 2e-5
                assert got[name] == pytest.approx(value, rel=1e-4, abs=near), (wanted["tile"], name)
            else:
                assert got[name] == value or name == "evidence_boxes", (wanted["tile"], name)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Noisy tiles and their references, of 8 bit."""
    with create_tiles(tmp_path / "raw.zarr", count=4, roles=("noisy", "reference"), compress=False) as tiles:
        for i, kind in enumerate(("lines", "defects", "holes", "metal")):
            noisy, _, clean = evidence_tiles.case(kind, 64, 96)
            tiles.write(TileKey(f"t{i}", i), noisy[0, 0].numpy(), "noisy")
            tiles.write(TileKey(f"t{i}", i), clean[0, 0].numpy(), "reference")
    return tmp_path / "raw.zarr"


@pytest.mark.parametrize("more", [{}, {"tile": 48}, {"texture": 1.0}], ids=["whole", "windows", "texture"])
def test_what_is_denoised_and_scored_on_a_device_travels_there_once_and_back_to_be_written(
    gpu: None, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    uploads: list[dict[str, tuple[int, ...]]] = []
    usual = Upload.__call__

    def sent(self: Upload, parts: dict[str, np.ndarray]) -> Any:
        uploads.append({name: images.shape for name, images in parts.items()})
        return usual(self, parts)

    monkeypatch.setattr(Upload, "__call__", sent)
    options = {"model": "semnr-small", "device": "cuda", "workers": 1, **more}
    scored = {"metrics": ("psnr", "ssim"), "device": "cuda"}
    for k in range(2):  # the first makes what is made once
        uploads.clear()
        with mock_gpu.counting() as counts:
            done = semnr.denoise(
                raw, tmp_path / f"clean{k}.zarr", score=scored | {"out": tmp_path / f"s{k}"}, **options
            )
        assert done.counts["ok"] == 4
    assert uploads == [{"y": (4, 1, 64, 96)}]  # one batch; noisy and denoised tiles are there
    of_denoiser = {place: n for place, n in counts.sent.items() if "denoising" in place}
    assert sum(of_denoiser.values()) == 4, counts.sent  # each noisy tile, whatever its windows are
    assert sum(counts.sent.values()) == 5, counts.sent
    fetched = {place: n for place, n in counts.waits.items() if "denoising" in place}
    assert sum(fetched.values()) == 4, counts.waits  # each denoised tile, to be written

    apart = semnr.denoise(raw, tmp_path / "apart.zarr", **options)
    assert apart.counts["ok"] == 4
    run = semnr.score(tmp_path / "apart.zarr", noisy=raw, reference=raw, out=tmp_path / "a", **scored)
    here, there = (semnr.open_tiles(tmp_path / f"{name}.zarr") for name in ("clean1", "apart"))
    for key in there:
        np.testing.assert_array_equal(here.read(here.find(key.tile)), there.read(key))
    rows = [sorted(of.table().to_pylist(), key=lambda row: row["index"]) for of in (done.run, run)]
    for got, wanted in zip(*rows, strict=True):
        assert got["status"] == "ok"
        numbers = {name for name, value in wanted.items() if isinstance(value, float)}
        assert {name: got[name] for name in numbers} == {name: wanted[name] for name in numbers}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(70, 90), (3, 70, 90)], ids=str)
def test_a_tile_denoised_on_a_device_is_bit_for_bit_that_of_windows_that_travel(
    gpu: None, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    from semnr.denoising import resident
    from semnr.denoising.plan import request

    pixels = images(dtype, (1, *((1,) * (3 - len(shape))), *shape))[2].reshape(shape).numpy()
    plane = pixels if pixels.ndim == 2 else pixels[0]
    top = None if dtype.is_floating_point else 0.9 * torch.iinfo(dtype).max
    plan = request("semnr-small", {"device": "cuda"}, "auto", "run", top, None).plan(lambda: [plane])
    assert resident.serves(plan.runner, pixels, torch.device("cuda", 0))
    for side in (512, 40):
        wanted = np.empty_like(pixels)
        for tile in cut(shape[-2:], side):
            wanted[..., tile.top : tile.bottom, tile.left : tile.right] = plan.runner.tile(
                lambda rows, columns: pixels[..., rows, columns], shape[-2:], tile, "tile"
            )
        got = resident.denoised(pixels, plan.runner, side)
        np.testing.assert_array_equal(np.asarray(got), wanted)
        assert got.there is not None
        np.testing.assert_array_equal(got.there["image"].cpu().numpy(), wanted)
        np.testing.assert_array_equal(got.there["noisy"].cpu().numpy(), pixels)


def test_what_cannot_stay_on_a_device_is_denoised_as_before(gpu: None) -> None:
    from semnr.denoising import resident
    from semnr.denoising.plan import request

    there = torch.device("cuda", 0)
    pixels = images(torch.float32, (1, 1, 70, 90))[2][0, 0].numpy()
    learned = request("semnr-small", {"device": "cuda"}, "auto", "run", None, None).plan(lambda: [pixels]).runner
    classical = request("gaussian", {}, "auto", "run", None, None).plan(lambda: [pixels]).runner
    assert resident.serves(learned, pixels, there)
    assert not resident.serves(classical, pixels, there)
    assert not resident.serves(learned, pixels, torch.device("cuda", 1))
    assert not resident.serves(learned, pixels[:16], there)  # its border would be mirrored twice
    assert not resident.serves(learned, np.where(pixels > 0.5, np.nan, pixels), there)
    assert not resident.serves(learned, pixels.astype(np.float16), there)


def test_denoise_on_a_device_gives_the_pixels_of_the_cpu_and_says_that_float32_is_tf32(gpu: None) -> None:
    from semnr.denoising import learned

    noisy = images(torch.float32, (1, 1, 48, 64))[2][0, 0].numpy()
    options = {"model": "semnr-small", "data_range": 1.0, "noise": "image"}
    cpu, there = (semnr.denoise(noisy, device=device, **options) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(pixels(there), pixels(cpu), atol=1e-5)
    device = torch.device("cuda", 0)
    assert "TF32" in " ".join(learned._of_precision(device, None))
    assert learned._of_precision(device, torch.bfloat16) == learned._of_precision(torch.device("cpu"), None) == ()
    switch = torch.backends.cudnn.conv
    before, switch.fp32_precision = switch.fp32_precision, "ieee"
    try:
        assert learned._of_precision(device, None) == ()
    finally:
        switch.fp32_precision = before


def pixels(denoised: Any) -> np.ndarray:
    return np.asarray(getattr(denoised, "image", denoised))


def test_a_bare_cuda_is_the_callers_current_device_in_every_thread(gpu: None) -> None:
    torch.cuda.set_device(1)
    assert resolve("cuda") == resolve("auto") == torch.device("cuda", 1)
    assert resolve(torch.device("cuda")) == torch.device("cuda", 1)
    with ThreadPoolExecutor(1) as pool:  # whose own current device is the first
        assert pool.submit(resolve, resolve("cuda")).result() == torch.device("cuda", 1)
    assert resolve("cpu").type == "cpu"


@pytest.mark.parametrize("device", ["cuda:7", "cuda:2"])
def test_a_device_that_is_not_there_is_refused_by_score_and_denoise(
    gpu: None, stack: Path, tmp_path: Path, device: str
) -> None:
    says = f"device is '{device}'; accepted here: 'auto', 'cpu', 'cuda' or 'cuda:0' to 'cuda:1'"
    with pytest.raises(ValueError, match=re.escape(says)):
        semnr.score(stack, out=tmp_path / "o", device=device)
    with pytest.raises(ValueError, match=re.escape(says)):
        semnr.denoise(np.zeros((32, 32), np.uint8), model="semnr-small", device=device)


# --- what a device has not ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("memory", "chosen"), [(64, "reference"), (99, "cuda")])
def test_a_window_whose_rows_do_not_fit_a_blocks_memory_is_left_to_others_before_launch(
    gpu: None, monkeypatch: pytest.MonkeyPatch, memory: int, chosen: str
) -> None:
    """A masked window of 47 takes 82 KiB; sm_75 has 64. The usual window fits everywhere."""
    monkeypatch.setattr(registry, "shared_memory", lambda device: memory * 1024)
    x, y = (torch.rand((1, 1, 60, 60), device="cuda") for _ in range(2))
    mask = torch.ones((60, 60), dtype=torch.bool, device="cuda")
    large = semnr.explain("ssim", x, y, window_size=47, sigma=7.0, mask=mask)
    assert large.chosen == chosen
    assert ("of shared memory a block; the device has 64" in str(large)) == (memory == 64)
    assert semnr.explain("ssim", x, y).chosen == "cuda"


def test_a_histogram_that_needs_more_shared_memory_than_the_device_has_is_left_out_before_launch(gpu: None) -> None:
    """1,024 bins take 128 KiB; sm_86, 89 and 120 have 99."""
    values = torch.arange(100, dtype=torch.float64, device="cuda")
    usual, large = (registry.Call.of("histogram", values, settings=Bins(bins)) for bins in (256, 1024))
    assert registry.choose(usual).backend == "cuda"
    assert registry.choose(large).backend == "reference"
    told = str(registry._why_not(large, "cuda"))
    assert told == "asks for 128 KiB of shared memory a block; the device has 99"
    _, y, _ = images(torch.uint8)
    threshold = semnr.otsu_masks(y.to("cuda"), bins=1024).threshold
    torch.testing.assert_close(plain(threshold), plain(semnr.otsu_masks(y, bins=1024).threshold), rtol=1e-12, atol=0)


@pytest.mark.parametrize("lanes", [32, 64])
def test_a_warp_has_the_lanes_that_the_device_says(gpu: None, monkeypatch: pytest.MonkeyPatch, lanes: int) -> None:
    """AMD's RDNA has 32, its CDNA 64."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(warp_size=lanes))
    assert lanes_of(torch.device("cuda", 0)) == lanes


# --- convolutions ---------------------------------------------------------------------------------------------


class Seen(mock_gpu.TorchDispatchMode):
    """Convolutions, and whether each was told to keep its precision."""

    def __init__(self) -> None:
        super().__init__()
        self.exact: list[bool] = []

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if "convolution" in name:
            self.exact.append(name == "_convolution" and args[12] is False)
        return func(*args, **(kwargs or {}))


def test_every_convolution_of_dists_and_of_its_gradient_is_told_to_keep_float32(gpu: None) -> None:
    """A switch of the process would change everybody's convolutions, and not reach the backward pass."""
    x, y, _ = (v.to("cuda") for v in images(torch.float32))
    switch = torch.backends.cudnn.conv.fp32_precision
    with Seen() as seen:
        losses.DISTSLoss(data_range=1.0, weights="random")(x.requires_grad_(), y).backward()
    assert x.grad is not None
    assert len(seen.exact) >= 2 * 13
    assert all(seen.exact)
    assert torch.backends.cudnn.conv.fp32_precision == switch


def test_nothing_turns_the_switches_of_cudnn(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a switch of the whole process was turned")

    for name in ("_set_cudnn_allow_tf32", "_set_fp32_precision_setter", "_set_cublas_allow_tf32"):
        monkeypatch.setattr(torch._C, name, refuse)
    x, y, _ = (v.to("cuda") for v in images(torch.float32))
    semnr.dists(x, y, data_range=1.0, weights="random")
    semnr.fsim(x, y, data_range=1.0)


@pytest.mark.parametrize(
    ("stride", "padding", "groups", "size"),
    [(1, 1, 1, (9, 10)), (2, 1, 4, (9, 10)), (2, 0, 4, (10, 9)), (1, (1, 0), 1, (7, 8))],
    ids=str,
)
def test_the_convolution_that_keeps_its_precision_is_torchs_with_both_gradients(
    stride: int, padding: Any, groups: int, size: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((4, 4 // groups, 3, 3), dtype=torch.float64, generator=generator)
    bias = torch.randn(4, dtype=torch.float64, generator=generator)
    pads = padding if isinstance(padding, tuple) else (padding, padding)
    found = []
    for call in (
        lambda v: torch.nn.functional.conv2d(v, weight, bias, stride, pads, groups=groups),
        lambda v: convolution._Exact.apply(v, weight, bias, None, (stride, pads, groups)),
    ):
        x = torch.ones((2, 4, *size), dtype=torch.float64).cumsum(3).requires_grad_()
        value = call(x)
        (first,) = torch.autograd.grad((value**2).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), x)
        found.append((value, first, second))
    for got, wanted in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)


# --- what DISTS asks of a device ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_dists_of_1024_pixels_takes_few_launches_and_no_copy_after_the_first_call(backend: str) -> None:
    launched: list[Any] = []
    if backend == "triton":
        from semnr_kernels import triton_support

        if triton_support.interpreted():
            pytest.skip("TRITON_INTERPRET=1: launches are not recorded, they run")
    with mock_gpu.present(numbers=False):
        x, y = (torch.empty((1, 1, 1024, 1024), device="cuda") for _ in range(2))
        run = registry._implementations["dists"][backend].run
        net = network_for(dists.load("random"), torch.float32, x.device)
        settings = dists.Settings(memory_budget=dists._budget(None, x.device))

        def score() -> None:
            run(x, y, None, net, settings)

        if backend == "triton":
            with triton_support.recording() as launched:
                score()
                launched.clear()
                with mock_gpu.counting() as counts:
                    score()
        else:
            score()
            with mock_gpu.counting() as counts:
                score()
    assert sum(counts.launches.values()) + len(launched) <= 320
    assert sum(counts.uploads.values()) == sum(counts.waits.values()) == 0


def test_a_constant_that_a_graph_was_captured_with_outlives_the_cache(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semnr_kernels import constants

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(constants, "_captured", {})
    made = constants.constant(mock_gpu.CUDA, torch.float64, 1.0, 2.0)
    constants._made.cache_clear()
    assert [made is v for v in constants._captured.values()] == [True]


def test_the_filters_of_fsim_that_a_graph_was_captured_with_outlive_the_cache(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semnr_kernels import constants

    kept: dict[int, torch.Tensor] = {}
    monkeypatch.setattr(constants, "_captured", kept)
    monkeypatch.setattr(reference, "_banks", OrderedDict())
    monkeypatch.setattr(reference, "_CACHE_BYTES", 0)  # what is built is evicted at once
    y = torch.rand((1, 1, 64, 64), device="cuda")
    x = (y + 0.1).clamp(0, 1)
    options = {"data_range": 1.0, "nan": "propagate", "backend": "reference"}
    semnr.fsim(x, y, **options)
    assert not kept
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    semnr.fsim(x, y, **options)
    assert sum(v.shape == (4, 64, 64) for v in kept.values()) >= 2  # radial and angular parts
    assert not reference._banks


# --- the short path of plain images ---------------------------------------------------------------------------


def test_a_plain_score_takes_four_launches_and_one_wait(gpu: None) -> None:
    x, y, _ = (v.to("cuda") for v in images(torch.float32))
    semnr.ssim(x, y, data_range=1.0)
    with mock_gpu.counting() as counts:
        semnr.ssim(x, y, data_range=1.0)
    assert counts.launches == dict.fromkeys(("ssim_forward", "ssim_fold", "ssim_extents", "ssim_told"), 1)
    assert (sum(counts.waits.values()), sum(counts.uploads.values())) == (1, 0)
    with mock_gpu.counting() as counts:
        semnr.ssim(x, y, data_range=1.0, nan="propagate")
    assert counts.launches == dict.fromkeys(("ssim_forward", "ssim_fold", "ssim_told"), 1)
    assert not counts.waits


def test_a_step_of_the_ssim_loss_takes_one_launch_more_for_its_gradient(gpu: None) -> None:
    x, y, _ = (v.to("cuda") for v in images(torch.float32))
    x.requires_grad_()
    loss = losses.SSIMLoss(data_range=1.0)
    loss(x, y).backward()
    x.grad = None
    with mock_gpu.counting() as counts:
        loss(x, y).backward()
    kernels = {name: count for name, count in counts.launches.items() if name.startswith("ssim")}
    assert kernels == dict.fromkeys(("ssim_forward", "ssim_fold", "ssim_extents", "ssim_told", "ssim_backward"), 1)
    assert sum(counts.launches.values()) <= len(kernels) + 2  # torch's own: the slope of 1, the gradient's place
    assert sum(counts.waits.values()) == 1


def test_a_step_of_l1_and_ssim_reads_the_images_once_forward_and_once_backward(gpu: None) -> None:
    x, y, _ = (v.to("cuda") for v in images(torch.float32))
    x.requires_grad_()
    loss = losses.L1SSIMLoss(data_range=1.0)
    loss(x, y).backward()
    x.grad = None
    with mock_gpu.counting() as counts:
        loss(x, y).backward()
    kernels = {name: count for name, count in counts.launches.items() if name.startswith("ssim")}
    names = ("ssim_apart_forward", "ssim_fold", "ssim_told", "ssim_apart_backward")
    assert kernels == dict.fromkeys(names, 1)  # the extremes of the pixels come with the same read
    assert sum(counts.launches.values()) <= len(kernels) + 2  # torch's own: the slope of 1, the gradient's place
    assert sum(counts.waits.values()) == 1
    spoiled = x.detach().clone()
    spoiled[0, 0, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="x has 1 non-finite pixels"):
        loss(spoiled, y)
    wide = y.clone()
    wide[0, 0, :, :20] = 40000.0  # black beside a pedestal: float64 moments
    with mock_gpu.counting() as counts:
        loss(wide, y)
    assert counts.launches["ssim_general"] == 1


def test_a_plain_call_says_what_the_general_path_says_of_bad_pixels(gpu: None) -> None:
    x, y, _ = (v.to("cuda") for v in images(torch.float32))
    wide = y.clone()
    wide[0, 0, :, :20] = 40000.0  # black beside a pedestal: float64 moments
    with mock_gpu.counting() as counts:
        got = semnr.ssim(wide, y, data_range=1.0)
    assert counts.launches["ssim_general"] == 1
    exact = semnr.ssim(wide, y, data_range=1.0, precision="float64")
    torch.testing.assert_close(plain(got), plain(exact), rtol=0, atol=0)
    x[1, 0, 3, 3] = torch.nan
    for call in (semnr.ssim, lambda a, b, data_range: losses.SSIMLoss(data_range)(a, b)):
        with pytest.raises(ValueError, match="x has 1 non-finite pixels"):
            call(x, y, data_range=1.0)
    assert torch.isnan(plain(semnr.ssim(x, y, data_range=1.0, nan="propagate")))


def test_warming_up_runs_every_metric_without_a_network_on_the_gpu(gpu: None) -> None:
    from semnr.cli import doctor

    assert {one["op"] for one in doctor.warm_up()} == {"mse", "ssim", "fsim", "cnr"}
