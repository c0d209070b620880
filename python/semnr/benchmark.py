"""How long each metric takes on this machine, beside the libraries that are installed.

All calls of one metric are taken in turn in one process, so that what else the machine does hits all of them alike.
Where a peer computes something else under the same name, the row says so.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from semnr_kernels import cnr, dists, fsim, lpips, pixel, ssim

from . import __version__
from .base.random_streams import choice, number, whole
from .noise import fit_noise
from .profiles import profile
from .runs.run import machine
from .synth import tile
from .trust.residual import residual_tests
from .trust.transfer import evidence

__all__ = ["DTYPES", "NETWORKS", "OPS", "PEERS", "Bench", "Timing", "bench"]

DTYPES = ("uint8", "uint16", "float32")
SIDES = (512,)
PEERS = {
    "frame_analytics": "frame-analytics",
    "fast_ssim": "fast-ssim",
    "piq": "piq",
    "pytorch_msssim": "pytorch-msssim",
    "torchmetrics": "torchmetrics",
    "skimage": "scikit-image",
    "DISTS_pytorch": "DISTS-pytorch",
    "lpips": "lpips",
}
NETWORKS = ("dists", "lpips")  # timed where they are asked for: seconds a call
_SETTLE = 0.005  # s: threads of another library go on spinning on their cores for some milliseconds after its call
_LEAST, _MOST = 3, 200  # timed calls of each
_SLOW = 1.0  # s: where a turn takes longer, one is enough
Call = Callable[[], object]


@dataclass(frozen=True)
class Images:
    """One pair of images in the forms that the libraries take."""

    x: torch.Tensor  # (1, 1, H, W), of the dtype that was asked for
    y: torch.Tensor
    scale: float

    @property
    def floats(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The same in float32: peers that refuse integers get these, converted before the clock runs."""
        return self.x.float(), self.y.float()

    @property
    def units(self) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 in [0, 1]."""
        return self.x.float() / self.scale, self.y.float() / self.scale

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W) arrays of the dtype."""
        return self.x[0, 0].numpy(), self.y[0, 0].numpy()


@dataclass(frozen=True)
class Timing:
    """One library on one metric.

    Attributes
    ----------
    op : str
        The metric.
    side : int
        Of the image, in pixels.
    dtype : str
        Of the image.
    library : str
        "semnr" or the name of a peer's package.
    version : str
        Its version.
    milliseconds : float
        Median of the timed calls; NaN where the call failed.
    calls : int
        How many were timed.
    note : str
        Where it computes something else, or why it did not run.
    """

    op: str
    side: int
    dtype: str
    library: str
    version: str
    milliseconds: float
    calls: int
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """What `bench` measured.

    Attributes
    ----------
    timings : tuple of Timing
        In the order of the metrics and sizes.
    machine : mapping
        Processor, cores, threads, versions.
    absent : tuple of str
        Packages of peers that are not installed.
    seconds : float
        How long all of it took.
    """

    timings: tuple[Timing, ...]
    machine: Mapping[str, Any]
    absent: tuple[str, ...]
    seconds: float


def bench(
    ops: Sequence[str] | None = None,
    *,
    sides: Sequence[int] = SIDES,
    dtypes: Sequence[str] = ("uint8",),
    seconds: float = 20.0,
    peers: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Bench:
    """Time each metric on this machine, in turn with the peers that are installed.

    Parameters
    ----------
    ops : sequence of str, optional
        Some of `OPS`. Default: all but `NETWORKS`, which take seconds a call.
    sides : sequence of int
        Sides of the square images, in pixels, at least 64.
    dtypes : sequence of str
        Some of "uint8", "uint16", "float32".
    seconds : float
        About how long all of it takes; each call is timed three times at least (a slow one once), whatever that takes.
    peers : bool
        False: semnr alone.
    say : callable
        Takes a line of progress.

    Returns
    -------
    Bench

    Raises
    ------
    TypeError, ValueError
        An unknown metric or dtype, a side that is too small.
    """
    wanted = (
        tuple(op for op in OPS if op not in NETWORKS)
        if ops is None
        else tuple(choice("ops", op, tuple(OPS)) for op in ops)
    )
    kinds = [choice("dtypes", dtype, DTYPES) for dtype in dtypes]
    sizes = [whole("sides", side, 64) for side in sides]
    number("seconds", seconds, 0.0, above=True)
    started = time.perf_counter()
    modules = {name: _imported(name) for name in PEERS} if peers else {}
    there = {name: module for name, module in modules.items() if module is not None}
    timings: list[Timing] = []
    cases = [(op, side, dtype) for op in wanted for side in sizes for dtype in kinds]
    for done, (op, side, dtype) in enumerate(cases):
        say(f"{op} {side} x {side} {dtype}")
        left = max(0.0, seconds - (time.perf_counter() - started)) / (len(cases) - done)
        with torch.no_grad():
            timings += _timed(op, side, dtype, there, left)
    return Bench(
        tuple(timings),
        machine(),
        tuple(PEERS[name] for name, module in modules.items() if module is None),
        round(time.perf_counter() - started, 3),
    )


def _timed(op: str, side: int, dtype: str, peers: Mapping[str, Any], seconds: float) -> list[Timing]:
    calls, notes = OPS[op](_images(side, dtype), peers)
    failed: dict[str, str] = {}
    for library, call in list(calls.items()):  # once without a clock: caches are filled, and what fails is said
        try:
            call()
        except Exception as error:
            failed[library] = f"failed: {' '.join(str(error).split())[:80] or type(error).__name__}"
            del calls[library]
    times = alternate(calls, seconds)
    rows = []
    for library in (*calls, *failed):
        ours = library == "semnr"
        took = times.get(library, [])
        rows.append(
            Timing(
                op,
                side,
                dtype,
                "semnr" if ours else PEERS[library],
                __version__ if ours else _version(PEERS[library]),
                1e3 * statistics.median(took) if took else float("nan"),
                len(took),
                failed.get(library) or notes.get(library, ""),
            )
        )
    return rows


def alternate(calls: Mapping[str, Call], seconds: float) -> dict[str, list[float]]:
    """Seconds of each call, taken in turn in one process, for about `seconds` in all."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    begun, turns, least = time.perf_counter(), 0, _LEAST
    while calls and (turns < least or (time.perf_counter() < begun + seconds and turns < _MOST)):
        for name, call in calls.items():
            settled = time.perf_counter() + _SETTLE
            while True:
                start = time.perf_counter()
                call()
                took = time.perf_counter() - start
                if time.perf_counter() >= settled:
                    break
            times[name].append(took)
        turns += 1
        if turns == 1 and time.perf_counter() - begun > _SLOW:
            least = 1
    return times


def _images(side: int, dtype: str) -> Images:
    site = tile("lines", side, seed=side)
    x, y = (np.asarray(image, np.float64) / 255 for image in (site.noisy(dtype="uint8"), site.reference("uint8")))
    top = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    scaled = [image if dtype == "float32" else (image * top).round() for image in (x, y)]
    noisy, clean = (torch.from_numpy(image.astype(dtype))[None, None] for image in scaled)
    return Images(noisy, clean, top)


def _imported(name: str) -> Any | None:
    try:
        return importlib.import_module(name)
    except Exception:  # a broken installation of a peer must not end ours
        return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# --- the calls of each metric -----------------------------------------------------------------------------------

Calls = tuple[dict[str, Call], dict[str, str]]  # calls by library, notes by library
_FLOAT = "converted to float32 before"


def _psnr(a: Images, peers: Mapping[str, Any]) -> Calls:
    (fx, fy), (ax, ay) = a.floats, a.arrays
    calls: dict[str, Call] = {"semnr": lambda: pixel.psnr(a.x, a.y, data_range=a.scale)}
    if frame := peers.get("frame_analytics"):
        calls["frame_analytics"] = lambda: frame.psnr(a.x, a.y, data_range=a.scale)
    if piq := peers.get("piq"):
        calls["piq"] = lambda: piq.psnr(fx, fy, data_range=a.scale)
    if skimage := _part(peers, "skimage", "skimage.metrics"):
        calls["skimage"] = lambda: skimage.peak_signal_noise_ratio(ay, ax, data_range=a.scale)
    if metrics := _part(peers, "torchmetrics", "torchmetrics.functional.image"):
        calls["torchmetrics"] = lambda: metrics.peak_signal_noise_ratio(fx, fy, data_range=a.scale)
    return calls, dict.fromkeys(("piq", "torchmetrics"), _FLOAT) if a.x.dtype != torch.float32 else {}


def _ssim(a: Images, peers: Mapping[str, Any]) -> Calls:
    (fx, fy), (ax, ay) = a.floats, a.arrays
    notes = {"fast_ssim": "uniform windows of 7 px, another SSIM"}
    calls: dict[str, Call] = {"semnr": lambda: ssim.ssim(a.x, a.y, data_range=a.scale)}
    if frame := peers.get("frame_analytics"):
        calls["frame_analytics"] = lambda: frame.ssim(a.x, a.y, data_range=a.scale)
    if piq := peers.get("piq"):
        calls["piq"] = lambda: piq.ssim(fx, fy, data_range=a.scale, downsample=False)
    if msssim := peers.get("pytorch_msssim"):
        calls["pytorch_msssim"] = lambda: msssim.ssim(fx, fy, data_range=a.scale)
    if metrics := _part(peers, "torchmetrics", "torchmetrics.functional.image"):
        calls["torchmetrics"] = lambda: metrics.structural_similarity_index_measure(fx, fy, data_range=a.scale)
    if skimage := _part(peers, "skimage", "skimage.metrics"):
        gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        calls["skimage"] = lambda: skimage.structural_similarity(ay, ax, data_range=a.scale, **gaussian)
    if (fast := peers.get("fast_ssim")) and a.x.dtype == torch.uint8:
        calls["fast_ssim"] = lambda: fast.ssim(ax, ay, data_range=a.scale)
    if a.x.dtype != torch.float32:
        notes |= dict.fromkeys(("piq", "pytorch_msssim", "torchmetrics"), _FLOAT)
    return calls, notes


def _ms_ssim(a: Images, peers: Mapping[str, Any]) -> Calls:
    fx, fy = a.floats
    calls: dict[str, Call] = {"semnr": lambda: ssim.ms_ssim(a.x, a.y, data_range=a.scale)}
    if frame := peers.get("frame_analytics"):
        calls["frame_analytics"] = lambda: frame.ms_ssim(a.x, a.y, data_range=a.scale)
    if piq := peers.get("piq"):
        calls["piq"] = lambda: piq.multi_scale_ssim(fx, fy, data_range=a.scale)
    if msssim := peers.get("pytorch_msssim"):
        calls["pytorch_msssim"] = lambda: msssim.ms_ssim(fx, fy, data_range=a.scale)
    return calls, dict.fromkeys(("piq", "pytorch_msssim"), _FLOAT) if a.x.dtype != torch.float32 else {}


def _fsim(a: Images, peers: Mapping[str, Any]) -> Calls:
    fx, fy = a.floats
    calls: dict[str, Call] = {"semnr": lambda: fsim.fsim(a.x, a.y, data_range=a.scale)}
    if frame := peers.get("frame_analytics"):
        calls["frame_analytics"] = lambda: frame.fsim(a.x, a.y, data_range=a.scale)
    if piq := peers.get("piq"):
        calls["piq"] = lambda: piq.fsim(fx, fy, data_range=a.scale, chromatic=False)
    return calls, {"piq": _FLOAT} if a.x.dtype != torch.float32 else {}


def _dists(a: Images, peers: Mapping[str, Any]) -> Calls:
    """On random weights: the work is the same, and nothing is downloaded. The peers would download theirs."""
    return {"semnr": lambda: dists.dists(a.x, a.y, data_range=a.scale, weights="random")}, {"semnr": "random weights"}


def _lpips(a: Images, peers: Mapping[str, Any]) -> Calls:
    x, y = (2 * image.expand(-1, 3, -1, -1) - 1 for image in a.units)
    notes = {"semnr": "random weights", "lpips": "random weights; three channels in [-1, 1] before"}
    calls: dict[str, Call] = {"semnr": lambda: lpips.lpips(a.x, a.y, data_range=a.scale, net="vgg", weights="random")}
    if peer := peers.get("lpips"):
        try:
            network = peer.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False).eval()
        except Exception:  # its network comes from torchvision, which may be absent
            return calls, notes
        calls["lpips"] = lambda: network(x, y)
    return calls, notes


def _cnr(a: Images, peers: Mapping[str, Any]) -> Calls:
    masks = cnr.otsu_masks(a.y)
    signal, background = masks.signal, masks.background
    return {"semnr": lambda: cnr.cnr(a.x, a.y, data_range=a.scale, signal=signal, background=background)}, {}


def _profile(a: Images, peers: Mapping[str, Any]) -> Calls:
    metrics = ("psnr", "ssim", "fsim", "cnr")
    return {"semnr": lambda: profile(a.x, a.y, data_range=a.scale, metrics=metrics)}, {"semnr": "without DISTS"}


def _noise(a: Images, peers: Mapping[str, Any]) -> Calls:
    image = a.arrays[0]
    calls: dict[str, Call] = {"semnr": lambda: fit_noise([image], data_range=a.scale)}
    if restoration := _part(peers, "skimage", "skimage.restoration"):
        calls["skimage"] = lambda: restoration.estimate_sigma(image)
    return calls, {"semnr": "law and correlation", "skimage": "one sigma, of white noise"}


def _evidence(a: Images, peers: Mapping[str, Any]) -> Calls:
    return {"semnr": lambda: evidence(a.x, a.y, a.y, hints=False)}, {}


def _residual(a: Images, peers: Mapping[str, Any]) -> Calls:
    return {"semnr": lambda: residual_tests(a.x, a.y, data_range=a.scale)}, {}


def _part(peers: Mapping[str, Any], name: str, module: str) -> Any | None:
    """A submodule of an installed peer."""
    return _imported(module) if name in peers else None


OPS: Mapping[str, Callable[[Images, Mapping[str, Any]], Calls]] = {
    "psnr": _psnr,
    "ssim": _ssim,
    "ms_ssim": _ms_ssim,
    "fsim": _fsim,
    "cnr": _cnr,
    "profile": _profile,
    "noise": _noise,
    "evidence": _evidence,
    "residual": _residual,
    "dists": _dists,
    "lpips": _lpips,
}
