"""The catalogue of the columns of a scored run: what each holds, its unit, which direction is better, who reads it.

Every list of columns elsewhere is a query of this one. What a plan or a source says of a tile is metadata. A metadata
column that has the name of a result is written as `plan_NAME`, also where that result was not asked for; and a reader
takes a result only from a run that computed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

PREFIX = "plan_"
# What a row is: its tile, and what became of it.
ROW = ("tile", "path", "index", "status", "reason")
# The five metrics, as they are asked for.
METRICS = ("psnr", "ssim", "fsim", "dists", "cnr")
# These, and what is asked for by name only and is no axis of the profile.
ASKED = (*METRICS, "lpips")


@dataclass(frozen=True)
class Column:
    """One column of results.

    Attributes
    ----------
    name, label, unit
        In the rows; for a reader; "" where it has none.
    better
        "higher", "lower", "near 1", "near 0", or "" where neither end is good as such.
    digits
        Decimals, or where negative significant figures.
    of
        What it is computed of: one of `ASKED`, or "reference", "noisy", "frames", "tests", "metrology", "anomaly",
        "conformal", "all".
    note
        What a reader should know.
    group
        Of the report: "scores", "estimated", "evidence", "changes", "metrology", "category" or "anomaly".
    uses
        "summary" of a run, "rule" between two candidates, "compare" by default, "compare if asked".
    shown
        In the report.
    """

    name: str
    label: str
    unit: str
    better: str
    digits: int
    of: str
    note: str = ""
    group: str = "scores"
    uses: tuple[str, ...] = ()
    shown: bool = True

    @property
    def direction(self) -> str:
        """What a reader should hope for, in words."""
        return (
            f"{self.better} is better" if self.better in ("higher", "lower") else self.better and f"best {self.better}"
        )

    @property
    def heading(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label


# fmt: off
COLUMNS = (
    Column("psnr", "PSNR", "dB", "higher", 2, "psnr",
           "data range squared over mean squared error; rises with any smoothing and is blind to lost structure",
           uses=("summary", "rule", "compare")),
    Column("ssim", "SSIM", "", "higher", 4, "ssim",
           "agreement with the reference of brightness, contrast and structure in windows of 11 px: 1 is identical",
           uses=("summary", "rule", "compare")),
    Column("fsim", "FSIM", "", "higher", 4, "fsim",
           "agreement with the reference of edges and phase: 1 is identical; falls when edges are smoothed",
           uses=("summary", "rule", "compare")),
    Column("dists", "DISTS", "", "lower", 4, "dists",
           "distance from the reference in texture and structure, as a network sees them: 0 is identical",
           uses=("summary", "rule", "compare")),
    Column("lpips", "LPIPS", "", "lower", 4, "lpips",
           "distance from the reference in the features of AlexNet, weighted by what people see: 0 is identical",
           uses=("summary", "rule", "compare if asked")),
    Column("cnr_fixed_noise", "CNR, fixed noise", "", "higher", 2, "cnr",
           "contrast of the image's two populations over the noise of the noisy input, which smoothing cannot lower",
           uses=("summary", "rule", "compare")),
    Column("cnr_fixed_noise_worst", "CNR, worst window", "", "higher", 2, "cnr",
           "contrast over the noise of the noisy input, in the tile's weakest window of 64 px",
           uses=("summary", "rule", "compare")),
    Column("contrast_retention", "Contrast kept", "", "near 1", 3, "cnr",
           "contrast of the denoised image over that of the reference: 1 is all of it",
           uses=("summary", "rule", "compare if asked")),
    Column("contrast_retention_worst", "Contrast kept, worst window", "", "near 1", 3, "cnr",
           "contrast kept in the tile's weakest window of 64 px", uses=("summary", "rule", "compare if asked")),
    Column("transfer", "Evidence transfer T", "", "near 1", 3, "noisy",
           "share of the input's structure that reached the output: below 1 it was smoothed away, above 1 sharpened",
           uses=("summary", "rule", "compare")),
    Column("cnr_two_roi", "CNR, own noise", "", "", 2, "cnr",
           "contrast over the image's own noise; rises under over-smoothing, so it is not evidence on its own",
           uses=("summary", "rule")),
    Column("mse", "MSE", "grey²", "lower", -4, "psnr",
           "mean squared difference from the reference", uses=("summary", "rule", "compare if asked")),
    Column("mae", "MAE", "grey", "lower", -4, "psnr",
           "mean absolute difference from the reference", uses=("summary", "rule", "compare if asked")),
    Column("psnr_noisy", "PSNR of the noisy input", "dB", "", 2, "noisy",
           "what the denoiser started from", uses=("summary",)),
    Column("clipped_fraction", "Clipped pixels", "share", "lower", -3, "psnr",
           "pixels at either end of the scale, whose true value is lost"),
    Column("psnr_estimated", "PSNR, estimated", "dB", "higher", 2, "frames",
           "from further noisy frames, without a clean reference", group="estimated", uses=("summary",)),
    Column("mse_estimated", "MSE, estimated", "grey²", "lower", -4, "frames",
           "from further noisy frames; free of bias, so it may come out below 0", group="estimated", uses=("summary",)),
    Column("psnr_noisy_estimated", "PSNR of the input, estimated", "dB", "", 2, "frames",
           "what the denoiser started from, estimated from further noisy frames", group="estimated"),
    Column("structure_estimated", "Structure, estimated", "", "higher", 3, "frames",
           "correlation with the unknown clean image, estimated from further noisy frames",
           group="estimated", uses=("summary",)),
    Column("contrast_retention_estimated", "Contrast kept, estimated", "", "near 1", 3, "frames",
           "contrast of the denoised image over that of further noisy frames: 1 is all of it",
           group="estimated", uses=("summary",)),
    Column("cnr_fixed_noise_estimated", "CNR, fixed noise, estimated", "", "higher", 2, "frames",
           "contrast over the noise of the noisy input, taken from further frames", group="estimated"),
    Column("anomaly_score", "Anomaly score", "", "lower", 2, "anomaly",
           "what the threshold of the model of normal tiles is for: the higher, the less the tile is like them",
           group="anomaly", uses=("summary",)),
    Column("anomaly_scan", "Anomaly, strongest place", "z", "lower", 1, "anomaly",
           "the strongest place where tile and reconstruction differ, in σ of the noise", group="anomaly"),
    Column("anomaly_mse", "Reconstruction error, MSE", "σ²", "near 1", 3, "anomaly",
           "mean square of tile − reconstruction over the variance of the noise: 1 where noise alone is left",
           group="anomaly"),
    Column("anomaly_mae", "Reconstruction error, MAE", "", "near 1", 3, "anomaly",
           "mean of |tile − reconstruction| over that of the noise: 1 where noise alone is left", group="anomaly"),
    Column("anomaly_ssim", "SSIM with the reconstruction", "", "higher", 4, "anomaly",
           "of the tile as recorded: its noise counts", group="anomaly"),
    Column("anomaly_fsim", "FSIM with the reconstruction", "", "higher", 4, "anomaly",
           "of the tile as recorded: its noise counts", group="anomaly"),
    Column("anomaly_dists", "DISTS from the reconstruction", "", "lower", 4, "anomaly",
           "of the tile as recorded: its noise counts", group="anomaly"),
    Column("anomaly_lpips", "LPIPS from the reconstruction", "", "lower", 4, "anomaly",
           "of the tile as recorded: its noise counts", group="anomaly"),
    Column("removed_z", "Structure removed", "z", "lower", 1, "tests",
           "the strongest place where noisy − denoised holds structure, in σ of the noise", group="evidence"),
    Column("removed_count", "Places removed", "", "lower", 2, "tests",
           "places in the tile where structure of the input is missing from the output",
           group="evidence", uses=("summary", "compare")),
    Column("invented_z", "Structure invented", "z", "lower", 1, "tests",
           "the strongest place where the output holds structure that the input does not support, in σ of the noise",
           group="evidence"),
    Column("invented_count", "Places invented", "", "lower", 2, "tests",
           "places in the tile where the output holds structure that the input does not support",
           group="evidence", uses=("summary", "compare")),
    Column("residual_variance", "Residual variance", "", "near 1", 3, "tests",
           "variance of noisy − denoised over what the fitted noise says: 1 where noise alone was taken",
           group="evidence", uses=("summary",)),
    Column("residual_spectrum", "Residual spectrum", "", "lower", 3, "tests",
           "distance of the residual's spectrum from the noise's own: 0 where noise alone was taken", group="evidence"),
    Column("residual_structure_z", "Structure in the residual", "z", "lower", 1, "tests",
           "how far what was taken follows the edges: high where they were smoothed, below 0 where noise was left",
           group="evidence"),
    Column("denoised_mean", "Mean of the denoised image", "grey", "", -4, "tests",
           "by which tiles that hold one image are told", shown=False),
    Column("denoised_std", "σ of the denoised image", "grey", "", -4, "tests",
           "by which tiles that hold one image are told", shown=False),
    Column("noisy_mean", "Mean of the noisy image", "grey", "", -4, "tests",
           "by which tiles that hold one image are told", shown=False),
    Column("pair_note", "Note on the pair", "text", "", 0, "tests",
           "traces of JPEG, few grey levels, an empty border, noise that cannot be told", shown=False),
    Column("reference_problem", "Problem of the reference", "text", "", 0, "tests",
           "the reference is shifted, turned, or of another scene", shown=False),
    Column("gain_change", "Change of gain", "", "near 0", 4, "tests",
           "change of contrast by one factor for the whole image: −0.05 is 5 % lost",
           group="changes", uses=("compare",)),
    Column("offset_change", "Change of offset", "", "near 0", 4, "tests",
           "change of the mean grey level, as a share of the data range", group="changes", uses=("compare",)),
    Column("shift_y_px", "Shift down", "px", "near 0", 3, "tests",
           "how far the output lies below the input", group="changes", uses=("compare",)),
    Column("shift_x_px", "Shift right", "px", "near 0", 3, "tests",
           "how far the output lies to the right of the input", group="changes", uses=("compare",)),
    Column("transfer_high", "Transfer, fine band", "", "near 1", 3, "tests",
           "evidence transfer of the finest structure, 0.7 to 2 px: above 1 is sharpening",
           group="changes", uses=("rule", "compare")),
    Column("transfer_texture", "Transfer, texture", "", "near 1", 3, "tests",
           "evidence transfer between the edges: below 1 texture was washed out",
           group="changes", uses=("rule", "compare")),
    Column("transfer_peak", "Transfer, strongest band", "", "near 1", 3, "tests",
           "evidence transfer of the band that came through strongest: above 1 is sharpening", group="changes"),
    Column("feature_contrast", "Contrast of small features", "", "near 1", 3, "tests",
           "share of its contrast that a defect of 6 px would keep", group="changes", uses=("compare",)),
    Column("overshoot", "Overshoot", "", "near 0", 3, "tests",
           "by how much of its step an edge overshoots", group="changes", uses=("compare",)),
    Column("row_noise_added", "Row noise added", "", "lower", 3, "tests",
           "steps from line to line that the input does not have, over the input's own",
           group="changes", uses=("compare",)),
    Column("transfer_bound", "T at most", "", "near 1", 3, "tests",
           "the largest evidence transfer that noisy image, output and noise law allow: needs no clean image",
           group="changes", uses=("compare",)),
    Column("cd_px", "CD", "px", "", 2, "metrology", "mean width of lines, or diameter of holes", group="metrology"),
    Column("cd_nm", "CD", "nm", "", 2, "metrology", "mean width of lines, or diameter of holes", group="metrology"),
    Column("cd_change_px", "CD, change", "px", "near 0", 3, "metrology",
           "width against the noisy image's", group="metrology", uses=("compare",)),
    Column("cd_bias_px", "CD, bias", "px", "near 0", 3, "metrology",
           "width against the reference's", group="metrology", uses=("compare",)),
    Column("edge_rms_px", "Edges moved, RMS", "px", "lower", 3, "metrology",
           "distance of the edges from those of the noisy image, whose own noise is in it",
           group="metrology", uses=("compare",)),
    Column("edge_error_px", "Edge error, RMS", "px", "lower", 3, "metrology",
           "distance of the edges from those of the reference", group="metrology"),
    Column("edge_error_noisy_px", "Edge error of the input", "px", "", 3, "metrology",
           "distance of the noisy image's edges from those of the reference", group="metrology"),
    Column("ler_px", "LER 3σ, biased", "px", "", 2, "metrology",
           "roughness of an edge; noise adds to it, smoothing hides it", group="metrology"),
    Column("ler_unbiased_px", "LER 3σ, unbiased", "px", "", 2, "metrology",
           "roughness of an edge less its noise; refused where the denoiser took the noise plateau", group="metrology"),
    Column("ler_noisy_px", "LER 3σ of the input, biased", "px", "", 2, "metrology",
           "roughness of an edge of the noisy image, noise included", group="metrology"),
    Column("ler_noisy_unbiased_px", "LER 3σ of the input, unbiased", "px", "", 2, "metrology",
           "roughness of an edge of the noisy image, less its noise", group="metrology"),
    Column("ler_change_px", "LER 3σ, change", "px", "", 2, "metrology",
           "roughness of an edge against the noisy image's", group="metrology"),
    Column("lwr_px", "LWR 3σ, biased", "px", "", 2, "metrology",
           "roughness of a line's width; noise adds to it, smoothing hides it", group="metrology"),
    Column("lwr_unbiased_px", "LWR 3σ, unbiased", "px", "", 2, "metrology",
           "roughness of a line's width less its noise; refused where the denoiser took the noise plateau",
           group="metrology"),
    Column("lwr_noisy_px", "LWR 3σ of the input, biased", "px", "", 2, "metrology",
           "roughness of a line's width in the noisy image, noise included", group="metrology"),
    Column("lwr_noisy_unbiased_px", "LWR 3σ of the input, unbiased", "px", "", 2, "metrology",
           "roughness of a line's width in the noisy image, less its noise", group="metrology"),
    Column("lwr_change_px", "LWR 3σ, change", "px", "", 2, "metrology",
           "roughness of a line's width against the noisy image's", group="metrology"),
    Column("unbiased_ok", "Unbiased figure allowed", "share", "", 2, "metrology",
           "1 where the noise plateau that unbiased roughness needs is still there", group="metrology"),
    Column("holes", "Holes found", "", "", 1, "metrology", "contacts that were found", group="metrology"),
    Column("holes_lost", "Holes lost", "", "near 0", 2, "metrology",
           "contacts of the input that the output does not have", group="metrology"),
    Column("roundness_px", "Hole roundness 3σ", "px", "", 2, "metrology",
           "deviation of a contact's rim from a circle", group="metrology"),
    Column("roundness_change_px", "Roundness, change", "px", "near 0", 2, "metrology",
           "roundness of the contacts against the noisy image's", group="metrology"),
    Column("clipped_low", "Pixels at or below 0", "share", "lower", -3, "psnr", shown=False),
    Column("clipped_high", "Pixels at or above the range", "share", "lower", -3, "psnr", shown=False),
    Column("ssim_luminance", "SSIM, luminance term", "", "higher", 4, "ssim", shown=False),
    Column("ssim_contrast", "SSIM, contrast term", "", "higher", 4, "ssim", shown=False),
    Column("ssim_structure", "SSIM, structure term", "", "higher", 4, "ssim", shown=False),
    Column("ssim_contrast_structure", "SSIM, contrast and structure terms", "", "higher", 4, "ssim", shown=False),
    Column("cnr", "CNR, own noise", "", "", 2, "cnr", "another name of cnr_two_roi", shown=False),
    Column("reference_mean", "Mean of the reference", "grey", "", -4, "reference",
           "tells whether two runs had one reference", shown=False),
    Column("reference_std", "σ of the reference", "grey", "", -4, "reference", shown=False),
    Column("frames_worth", "Worth in noisy frames", "", "higher", 1, "frames",
           "the mean of so many noisy frames has the denoised frame's mean squared error; says nothing of lost defects",
           group="estimated", uses=("summary",)),
    Column("mse_drop", "MSE removed", "grey²", "higher", -4, "frames",
           "MSE of the noisy input less that of the candidate", group="estimated", shown=False),
    Column("frames", "Noisy frames", "", "", 0, "frames",
           "that the estimates are made from", group="estimated", shown=False),
    Column("frames_usable", "Frames usable", "share", "", 2, "frames", group="estimated", shown=False),
    Column("frames_problem", "Problem of the frames", "text", "", 0, "frames",
           "not registered, rescaled or not independent", group="estimated", shown=False),
    Column("evidence_boxes", "Places marked", "text", "", 0, "tests",
           "JSON: where structure was removed or invented", group="evidence", shown=False),
    Column("category", "Category", "text", "", 0, "classify",
           "what the tile shows, by `semnr classify predict`; unknown where the confidence is too low",
           group="category", shown=False),
    Column("category_likeliest", "Likeliest category", "text", "", 0, "classify",
           "what the tile most likely shows, whatever the confidence", group="category", shown=False),
    Column("category_confidence", "Confidence of the category", "", "higher", 3, "classify",
           "probability of the likeliest category, calibrated on the validation images of the classifier",
           group="category", uses=("summary",)),
    Column("p_value", "Conformal p", "", "higher", -2, "conformal",
           "at most how often a tile of a harmless field is as unlike harmless tiles as this one; in verdicts",
           group="evidence", shown=False),
    Column("p_wafer", "Conformal p of the wafer", "", "higher", -2, "conformal",
           "at most how often a harmless wafer has a field as unlike harmless ones as its strongest; in verdicts",
           group="evidence", shown=False),
    Column("area", "Area of the profile", "", "higher", 3, "all", "of the radar, all five axes", shown=False),
    Column("mean_axis", "Mean axis", "", "higher", 3, "all", "of the radar, all five axes", shown=False),
)
# fmt: on
BY_NAME: Mapping[str, Column] = {column.name: column for column in COLUMNS}
_EDGE_PSD = re.compile(r"edge_psd_(\d+)_(\d+)")


def used(use: str) -> tuple[str, ...]:
    """Names of the columns that have this use, in the order of the catalogue."""
    return tuple(column.name for column in COLUMNS if use in column.uses)


def shown(names: Iterable[str]) -> list[Column]:
    """Those of `names` that a report shows; bands of the edge spectrum last, from long to short waves."""
    there = set(names)
    bands = sorted(((int(m[1]), int(m[2])) for m in map(_EDGE_PSD.fullmatch, there) if m), reverse=True)
    return [column for column in COLUMNS if column.shown and column.name in there] + [
        Column(
            f"edge_psd_{a}_{b}", f"Edge PSD left, {a} to {b} px", "share", "near 1", 2, "metrology", group="metrology"
        )
        for a, b in bands
    ]


def _of(*kinds: str) -> set[str]:
    return {column.name for column in COLUMNS if column.of in kinds}


@lru_cache(maxsize=4096)
def is_result(name: str) -> bool:
    """Whether a column of this name holds something that scoring computes, or the standard error (`_se`) of it."""
    plain = _plain(name)
    return plain in BY_NAME or _EDGE_PSD.fullmatch(plain) is not None


@lru_cache(maxsize=4096)
def metadata_name(name: str) -> str:
    """The name that a column of a plan has in the rows. Two columns never get one name."""
    bare = name
    while bare.lower().startswith(PREFIX):
        bare = bare[len(PREFIX) :]
    return PREFIX + name if is_result(bare) or bare.lower() in ROW else name


def computed(info: Mapping[str, Any]) -> frozenset[str] | None:
    """The results that a run with this run.json can hold; None where it does not say what was asked for."""
    asked = info.get("requested") or info.get("settings") or {}
    if not isinstance(asked, Mapping) or not {"metrics", "reference", "noisy", "tests", "metrology"} <= set(asked):
        return None
    kinds = ["reference", *asked["metrics"]] if asked["reference"] else ["frames"] if asked.get("noisy_2") else []
    if asked["noisy"]:
        kinds += ["noisy"] if kinds else []
        kinds += ["tests"] if asked["tests"] else []
    if asked["metrology"]:
        kinds.append("metrology")
    if asked.get("anomaly"):
        kinds.append("anomaly")
    return frozenset(_of(*map(str, kinds)))


def holds(name: str, results: frozenset[str] | None) -> bool:
    """Whether a column is to be read: metadata always, a result only of those that were computed."""
    plain = _plain(name)
    return results is None or not is_result(name) or plain in results or _edge_psd_of(plain, results)


def _plain(name: str) -> str:
    return name.lower().removesuffix("_se")


def _edge_psd_of(plain: str, results: frozenset[str]) -> bool:
    return "edge_rms_px" in results and _EDGE_PSD.fullmatch(plain) is not None
