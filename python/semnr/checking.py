"""The shortest way: what a denoiser was given and what it made in, a verdict out, with or without a clean image."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from semnr_kernels import TileError

from .base.outputs import local
from .guarding import DEFAULT_RULES, alone, guard
from .guarding.rules import as_rules
from .profiles import Profile
from .reporting import report as write_report
from .runs import Run
from .runs.info import read_info
from .runs.run import clear_run
from .runs.verdict import Verdict
from .scoring import score
from .tiles import TileSource, open_tiles
from .tiles.pixels import is_tensor
from .tiles.source import length_of

__all__ = ["REPORT", "check"]

REPORT = "report.html"  # beside the rows of the run
_BY = "check"
_SAMPLED = 8  # tiles of each source that are looked at for the range of their pixels
_DEPTHS = (8, 10, 12, 14)  # bits that detectors give, in uint16


def check(
    noisy: Any,
    denoised: Any = None,
    *,
    reference: Any = None,
    second_frame: Any = None,
    third_frame: Any = None,
    match: str | Sequence[str] | None = None,
    crop: str | Sequence[int] | None = None,
    mask: Any = None,
    out: Any = None,
    data_range: float | None = None,
    scan_axis: int = -1,
    label: str | None = None,
    rules: Any = None,
    category: Any = None,
    waive: Iterable[str] | str = (),
    strict: bool = False,
    register: bool = False,
    report: bool = True,
    root: Any = None,
    workers: int = 2,
    quiet: bool = True,
) -> Verdict:
    """Judge a denoiser by its input and its output; a clean reference or further frames make the verdict complete.

    What can be scored is scored, every rule that has evidence is judged, and the verdict says of the others what to
    bring. One noisy frame can refute a denoiser; it cannot prove it harmless.

    Parameters
    ----------
    noisy, denoised
        The denoiser's input and output on one intensity scale: images, arrays (NumPy or torch, (H, W), (T, H, W) or
        (T, C, H, W)), folders, TIFF, Zarr, plans, KLARF or whatever else `semnr.open_tiles` takes, paired by tile.
        `denoised` None: `noisy` is a source that holds both (a plan with `path` and `noisy`, role folders), or scores
        at hand: a `semnr.Run`, its folder, or a `semnr.Profile`.
    reference
        Clean images. None: the role `reference` of `noisy` or `denoised`, where there is one.
    second_frame, third_frame
        Further noisy frames of each site; None: the roles `noisy_2` and `noisy_3`. Read where there is no reference.
    match : str or list of str, optional
        Which names belong together: "{name}_noisy={name}_dn", or "order". None: the same names, or prefixes and
        suffixes that are the same for all.
    crop : "auto" or four int, optional
        What counts of each image, the same of both: "auto" leaves out the microscope's data bar, (left, top, right,
        bottom) all but this box. None: whole images.
    mask : path or array, optional
        An image that is 0 where pixels do not count.
    out : path, optional
        Folder for the run (a row a tile, run.json, verdict.json) and report.html; what an earlier check left there is
        replaced. None: nothing is kept.
    data_range : float, optional
        Width of the intensity scale; required for floating images.
    scan_axis : int
        -1 (default) where scan lines are rows, -2 where they are columns.
    label : str, optional
        Name of the candidate in the report.
    rules
        What `semnr.guard` takes; default: the built-in ones, of which those between two candidates are not required.
    category : str or path, optional
        What the images show, by name or by the folder of a run of `semnr classify predict`: the tables
        [categories.CATEGORY.RULE] of the file of rules then count.
    waive : names of rules
        Required rules that may lack evidence; recorded in the verdict.
    strict : bool
        A verdict that is not refuted has the exit code 3, not 0.
    register : bool
        Lay each reference onto its noisy image first (affine map, gain, offset; 12 px at the border are left out).
    report : bool
        Write report.html; with `out` only.
    root : path, optional
        Folder that the paths of a plan may lie in.
    workers : int
        Threads that read tiles.
    quiet : bool
        False: progress on stderr.

    Returns
    -------
    Verdict
        `.outcome` is "failed" (a rule fired), "passed" (every required rule had evidence, and none fired), "not
        refuted" (nothing fired, but rules had no evidence: `.lacking`, `.bring`) or "incomplete" (tiles could not be
        judged). `.exit_code`, `.axes` (measured, estimated, unknown), `.signals`, `.profile`.

    Raises
    ------
    TypeError, ValueError
        What was given and what is accepted: nothing in common, an empty folder, a bad rule.

    Examples
    --------
    >>> import numpy as np, semnr
    >>> rng = np.random.default_rng(0)
    >>> scene = 90.0 + 60.0 * (np.arange(128) // 16 % 2) * np.ones((128, 1))
    >>> noisy = rng.normal(scene, 12.0).clip(0, 255).astype(np.uint8)
    >>> verdict = semnr.check(noisy, scene.astype(np.uint8))
    >>> verdict.outcome, verdict.axes["ssim"]
    ('not refuted', 'unknown')
    >>> verdict.bring
    ('a second noisy frame of each site, or a clean reference',)
    """
    if category is not None and rules is None:
        raise ValueError(f"category is {str(category)!r} without rules; accepted: both, see semnr.guarding.load_rules")
    judged = alone(DEFAULT_RULES) if rules is None else as_rules(rules, category)
    if denoised is None and _is_scored(noisy):
        return guard(None, noisy, rules=judged, allow_unknown=waive, strict=strict)
    first = _opened("noisy", noisy, root)
    source = first if denoised is None else _opened("denoised", denoised, root)
    further = {"noisy_2": second_frame, "noisy_3": third_frame}
    if data_range is None:
        data_range, taken = _unused_bits((source, first))
    else:
        taken = ()
    options: dict[str, Any] = {
        "noisy": None if source is first else first,
        "reference": _role("reference", reference, (first, source)),
        **{role: _role(role, given, (first, source)) for role, given in further.items()},
        "match": match,
        "crop": crop,
        "mask": mask,
        "data_range": data_range,
        "scan_axis": scan_axis,
        "label": label or _label(noisy if denoised is None else denoised),
        "rules": judged,
        "allow_unknown": waive,
        "strict": strict,
        "register": register,
        "root": root,
        "workers": workers,
        "quiet": quiet,
        "by": _BY,
        "remarks": taken,
    }
    if out is None:
        with tempfile.TemporaryDirectory(prefix="semnr-") as gone:
            return _kept(score(source, out=Path(gone) / "run", **options))
    folder = local("out", out)
    _make_room(folder)
    run = score(source, out=folder, resume=False, **options)
    verdict = replace(_verdict(run), run=run)
    if report:
        write_report(run, folder / REPORT)
    return verdict


def _is_scored(given: Any) -> bool:
    """Whether scores were given in place of images."""
    if isinstance(given, str | Path):
        return (Path(given) / "run.json").is_file() and "requested" in read_info(given)
    return isinstance(given, Profile | Run)


def _unused_bits(sources: Iterable[TileSource]) -> tuple[float | None, tuple[str, ...]]:
    """The range of 10-, 12- or 14-bit data in uint16, by a few tiles, and the sentence that says it was taken."""
    brightest, read = 0.0, 0
    for source in dict.fromkeys(sources):
        total = length_of(source)
        if source.data_range is not None or source.ranges is not None or total is None:
            return None, ()
        chosen = {int(i) for i in np.linspace(0, total - 1, min(total, _SAMPLED))} if total else set()
        for key in islice((key for key in source if key.index in chosen), _SAMPLED):
            try:
                pixels = source.read(key)
            except TileError:
                continue
            if pixels.dtype != np.uint16:
                return None, ()
            brightest, read = max(brightest, float(pixels.max())), read + 1
    if not read:
        return None, ()
    bits = max(1, int(brightest).bit_length())
    depth = next((depth for depth in _DEPTHS if bits <= depth), 16)
    if depth == 16:
        return None, ()
    top = float(2**depth - 1)
    return top, (
        f"the images are uint16 and no pixel of {read} that were looked at is above {brightest:g}: the scale was taken "
        f"to end at {top:g} ({depth} bit); --data-range (data_range=) says another",
    )


def _label(given: Any) -> str | None:
    """The name of a path, also where a plan inside it names the tiles."""
    return Path(given).stem if isinstance(given, str | Path) else None


def _verdict(run: Run) -> Verdict:
    assert run.verdict is not None  # rules were given
    return replace(run.verdict, notes=(*run.verdict.notes, *run.remarks))


def _kept(run: Run) -> Verdict:
    """The verdict of a run whose folder goes, with what a notebook shows of it."""
    verdict = _verdict(run)
    rows = None if verdict.profile is None else replace(verdict.profile, run=None)
    return replace(verdict, profile=rows, run=None, thumbnails=run.thumbnails_html(verdict))


def _opened(name: str, given: Any, root: Any) -> TileSource:
    """The source; of a tensor on a device its pixels are fetched once."""
    if given is None:
        raise TypeError(f"{name} is None; accepted: images, a path, a folder, or another source of tiles")
    if isinstance(given, Profile | Run):
        raise TypeError(
            f"{name} is a {type(given).__name__}; accepted: images, a path, a folder, or another source of tiles (or a "
            "run, its folder or a profile as the only argument)"
        )
    value = given.detach().cpu() if is_tensor(given) else given
    try:
        return open_tiles(value, root=root)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise type(error)(f"{name}: {error}") from error


def _role(role: str, given: Any, sources: Iterable[TileSource]) -> Any:
    """What was given for a role, else the source that has it."""
    if given is not None:
        return given.detach().cpu() if is_tensor(given) else given
    return next((source for source in sources if role in source.roles), None)


def _make_room(folder: Path) -> None:
    """Delete the run that an earlier check left; anybody else's is refused by `score`."""
    if (folder / "run.json").is_file() and read_info(folder).get("by") == _BY:
        clear_run(folder)
