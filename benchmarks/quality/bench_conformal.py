"""Whether the levels of a conformal rule are held: on synthetic fields in 1,000 draws, and on real pairs.

`python benchmarks/quality/bench_conformal.py` scores a bank of synthetic fields and of the real pairs once with the
real pipeline (a frame is drawn, denoised, measured; minutes, kept in build/ by its settings), then draws calibration
and test wafers from the bank and counts false alarms. Writes results/conformal.json.

Synthetic: fields of two tiles of 64², lines, holes and metal at 40 and 80 electrons a pixel. In each draw other
fields are calibration fields and test fields, without replacement: test fields are unseen. Strata: pattern and dose.
A wafer has one dose and a field of each pattern.
Real: the pairs of SEMNR_DATA, two tiles of 128² a pair, by the groups of its README, which are never split.
Groups of the five pairs that were used for choices set the scales and nothing else.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from scipy import ndimage
from scipy.signal import lfilter
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records
from bench_single_frame import BORDER, FIELDS

from semnr import Profile, denoise, dose_equivalence
from semnr.base.files import atomic
from semnr.denoising import estimate_noise
from semnr.guarding import DEFAULT_RULES, Conformal, Stratum, calibrate, conformal, discovered, needed, p_values
from semnr.guarding.calibration import ALL
from semnr.stress.measure import measure
from semnr.synth import Detector, tile

HERE = Path(__file__).resolve().parents[1]
RESULTS = HERE / "results" / "conformal.json"
PATTERNS, DOSES = ("lines", "holes", "metal"), (40.0, 80.0)
SIDE, CUTS = 64, 2  # px of a tile; tiles of a synthetic field
REAL_SIDE, AROUND = 128, 16  # px of a real tile, two a pair; px around them that are denoised with them
FIELDS_A_PART, PAIRS_A_PART = 40, 4  # of the bank: a part is a file
ASIDE = 12  # fields of a stratum that set the scales, once: scores are then the same in all draws
FIRST = 4_100_000  # seeds of the fields: no threshold has seen them
SYNTHETIC, REAL = {"model": "wavelet", "strength": 0.6}, {"model": "semnr-small"}
USED = ("time_016", "time_025", "time_034", "line_010", "line_016")  # used for choices before
HARMS = ("blurred by 1 px", "disc of 3 σ invented", "disc of 3 σ erased")


# --- the bank ---


def synthetic(first: int, last: int) -> Iterator[dict[str, Any]]:
    """One field after the other: its tiles' images on the 0-1 scale."""
    for i in range(first, last):
        pattern, dose = PATTERNS[i % len(PATTERNS)], DOSES[i // len(PATTERNS) % len(DOSES)]
        made = tile(pattern, (SIDE, SIDE * CUTS), seed=FIRST + i, look={"texture": 0.03})
        scene = np.clip(made.clean, 0, 1)
        noisy = Detector(dose=dose).apply(scene, np.random.default_rng((FIRST + i, 1)))
        denoised = denoised_by(noisy, SYNTHETIC)
        about = {"field": f"field-{i}", "pattern": pattern, "dose": dose}
        yield {**about, "kind": "harmless", **cut(scene, noisy, denoised)}
        if i % 48 < 6:
            for kind, images in harmed(scene, noisy, denoised, np.random.default_rng((FIRST + i, 2))):
                yield {**about, "kind": kind, **cut(*images)}


def harmed(
    scene: np.ndarray, noisy: np.ndarray, denoised: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Three harms of known size, a disc of 6 px in each tile."""
    yield HARMS[0], (scene, noisy, ndimage.gaussian_filter(denoised, 1.0))
    sigma = float((noisy - scene).std())
    rows, columns = np.mgrid[: scene.shape[0], : scene.shape[1]]
    disc = np.zeros_like(scene)
    for k in range(CUTS):
        row, column = rng.integers(20, SIDE - 20, 2) + (0, k * SIDE)
        disc += 3 * sigma * ndimage.gaussian_filter((np.hypot(rows - row, columns - column) <= 3).astype(float), 0.8)
    yield HARMS[1], (scene, noisy, denoised + disc)
    yield HARMS[2], (scene + disc, noisy + disc, denoised)


def denoised_by(noisy: np.ndarray, how: dict[str, Any]) -> np.ndarray:
    return np.asarray(denoise(noisy.astype(np.float32), data_range=1.0, **how), dtype=np.float64)


def cut(scene: np.ndarray, noisy: np.ndarray, denoised: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name: np.stack(np.split(image, CUTS, axis=1))
        for name, image in (("scene", scene), ("noisy", noisy), ("denoised", denoised))
    }


def pairs_of(folder: Path, first: int = 0, last: int | None = None) -> Iterator[dict[str, Any]]:
    """Noisy and registered clean image of each pair, gain and offset fitted, without the border."""
    from PIL import Image

    with (folder / "REGISTRATION.csv").open() as file:
        affine = {row["pair"]: [float(row[f"p{i}"]) for i in range(6)] for row in csv.DictReader(file)}
    groups = {name: field[0] for field in FIELDS for name in field}
    for number, name in list(enumerate(sorted(affine)))[first:last]:
        noisy, clean = (
            np.asarray(Image.open(next(folder.glob(f"{name}_{role}_*"))).convert("L")) for role in ("noisy", "clean")
        )
        p, centre = affine[name], np.array(clean.shape) / 2
        matrix = np.array([[1 + p[2], p[3]], [p[4], 1 + p[5]]])
        offset = centre + p[:2] - matrix @ centre
        moved = ndimage.affine_transform(clean.astype(float), matrix, offset, order=3, mode="nearest")
        inner = (slice(BORDER, -BORDER),) * 2
        x, y = noisy[inner] / 255, moved[inner] / 255
        slope, level = np.polyfit(y.ravel(), x.ravel(), 1)
        kind = name[:4]
        yield {"field": groups.get(name, name), "kind": kind, "pair": name, "number": number, "grey": noisy[inner],
               "noisy": x, "scene": slope * y + level, "dose": 50.0 if kind == "line" else 300.0}  # fmt: skip


def real(folder: Path, first: int, last: int) -> Iterator[dict[str, Any]]:
    """Each pair as it was recorded, blurred, and its clean image recorded anew by the noise law fitted to the frame."""
    for pair in pairs_of(folder, first, last):
        scene, x, grey = (middle(pair[name]) for name in ("scene", "noisy", "grey"))
        about = {"field": pair["field"], "pattern": pair["kind"], "dose": float("nan"), "pair": pair["pair"]}
        for kind, frame in (("recorded", x), ("recorded anew", anew(scene, grey, pair["number"]))):
            yield {**about, "kind": kind, **halves(scene, frame, denoised_by(frame, REAL))}
        yield {**about, "kind": "recorded, Gaussian of 1.5 px", **halves(scene, x, ndimage.gaussian_filter(x, 1.5))}


def middle(image: np.ndarray) -> np.ndarray:
    """What lies around the two tiles, and they."""
    high, wide = REAL_SIDE + 2 * AROUND, 2 * REAL_SIDE + 2 * AROUND
    top, left = (image.shape[0] - high) // 2, (image.shape[1] - wide) // 2
    return image[top : top + high, left : left + wide]


def anew(scene: np.ndarray, noisy: np.ndarray, seed: int) -> np.ndarray:
    """A new recording of a scene by the law of the noise of one frame, clipped as 8 bit are."""
    law = estimate_noise(noisy, data_range=255.0)
    rho = float(np.clip(law.correlation[0] if law.correlation else 0.0, 0.0, 0.95))
    noise = np.random.default_rng((FIRST, seed)).standard_normal(scene.shape)
    noise[:, 1:] *= np.sqrt(1 - rho**2)
    noise = lfilter([1.0], [1.0, -rho], noise, axis=-1)
    sigma = np.asarray(law.sigma(np.clip(scene * 255, 0, 255))) / 255
    return np.round(np.clip(scene + sigma * noise, 0, 1) * 255) / 255


def halves(*images: np.ndarray) -> dict[str, np.ndarray]:
    inner = (slice(AROUND, -AROUND),) * 2
    names = ("scene", "noisy", "denoised")
    return {n: np.stack(np.split(v[inner], 2, axis=1)) for n, v in zip(names, images, strict=True)}


def banked(name: str, make: Any, count: int, size: int, workers: int) -> Profile:
    """The scores of `count` fields as one profile; parts of `size` fields are kept in build/ and not made again."""
    parts = [(name, make, i, min(i + size, count)) for i in range(0, count, size)]
    with ProcessPoolExecutor(workers) as pool:
        rows = [_read(place, name) for place in pool.map(_made, *zip(*parts, strict=True))]
    return Profile.concat(rows)


def _made(name: str, make: Any, first: int, last: int) -> Path:
    place = HERE.parent / "build" / f"conformal-{name}-{first}-{last}.npz"
    if place.is_file():
        return place
    torch.set_num_threads(1)
    columns: dict[str, list[np.ndarray]] = {}
    texts: dict[str, list[str]] = {k: [] for k in ("field", "pattern", "kind", "pair")}
    for row in make(first, last):
        found = measure(row["scene"], row["noisy"], row["denoised"], metrics=("psnr",))
        n = len(found)
        for column, values in {**found.columns, "dose": np.full(n, row["dose"])}.items():
            columns.setdefault(column, []).append(values)
        for key, kept in texts.items():
            kept += [str(row.get(key, ""))] * n
    place.parent.mkdir(exist_ok=True)
    numbers = {f"c_{k}": np.concatenate(v) for k, v in columns.items()}
    with atomic(place) as temporary, temporary.open("wb") as file:
        np.savez(file, **numbers, **{f"t_{k}": np.array(v) for k, v in texts.items()})
    return place


def _read(place: Path, name: str) -> Profile:
    with np.load(place) as kept:
        held = {k[2:]: kept[k].astype(np.float64) for k in kept.files if k.startswith("c_")}
        said = {k[2:]: tuple(map(str, kept[k])) for k in kept.files if k.startswith("t_")}
    n = len(said["field"])
    return Profile(tuple(f"{place.stem}-{i:05d}" for i in range(n)), held, 1.0, texts=said)


# --- the levels ---


def rows_of(bank: Profile, tiles: np.ndarray) -> Profile:
    return bank.take([int(i) for i in tiles])


def drawn(bank: Profile, draws: int, *, level: float, wafer_level: float) -> dict[str, Any]:
    """Share of false alarms over draws: other calibration fields, and a wafer of one dose, a field of each pattern."""
    kind, field = np.array(bank.texts["kind"]), np.array(bank.texts["field"])
    harmless = kind == "harmless"
    pairs = zip(bank.texts["pattern"], bank.column("dose"), strict=True)
    stratum = np.array([f"{pattern} {dose:g}" for pattern, dose in pairs])
    names = {s: list(dict.fromkeys(field[harmless & (stratum == s)])) for s in np.unique(stratum)}
    at = {name: np.flatnonzero(harmless & (field == name)) for name in np.unique(field)}
    count = max(needed(wafer_level, 1, len(PATTERNS)), needed(level))
    scaling = harmless & np.isin(field, [n for some in names.values() for n in some[:ASIDE]])
    terms, combined = conformal._terms(DEFAULT_RULES, [bank], scaling, np.full(len(bank), "all"))
    scores = conformal.scores_of(terms, combined, bank)[ALL]
    rng = np.random.default_rng(0)
    alarms: dict[str, list[float]] = {"tile": [], "field": [], "wafer": [], "discovery": []}
    for draw in range(draws):
        strongest, flagged, fields = [], [], []
        for pattern in PATTERNS:
            some = names[f"{pattern} {DOSES[draw % len(DOSES)]:g}"][ASIDE:]
            chosen = rng.permutation(len(some))
            old = np.concatenate([at[some[i]] for i in chosen[:count]])
            new = at[some[chosen[count]]]
            kept = Stratum.of({ALL: scores[old]}, field[old].tolist())
            flagged.append(float(np.mean(kept.tile_p(scores[new]) <= level)))
            largest = float(np.nanmax(scores[new]))
            fields.append(float(kept.field_p([largest])[0]))
            strongest.append(kept.wafer_p(largest, 1))
        alarms["tile"].append(float(np.mean(flagged)))
        alarms["field"].append(float(np.mean(np.array(fields) <= level)))
        alarms["wafer"].append(float(min(1.0, len(strongest) * min(strongest)) <= wafer_level))
        alarms["discovery"].append(float(discovered(fields, 0.1).any()))  # all are harmless: any is false
    asked = {"tile": level, "field": level, "wafer": wafer_level, "discovery": 0.1}
    found: dict[str, Any] = {}
    for name, row in alarms.items():
        share, error = float(np.mean(row)), float(np.std(row) / np.sqrt(draws))
        found[name] = {"level": asked[name], "share": share, "simulation_error": error, "draws": draws,
                       "held": share <= asked[name] + 2 * error}  # fmt: skip
    learning = np.concatenate([at[n] for some in names.values() for n in some])
    rule = learnt(bank, learning, level, wafer_level)
    return {"strata": len(names), "fields_a_stratum": count, "rules": list(combined),
            "unknown_tiles": float(np.isnan(scores[harmless]).mean()), "levels": found,
            "power": power(bank, rule)}  # fmt: skip


def learnt(bank: Profile, tiles: np.ndarray, level: float, wafer_level: float) -> Conformal:
    rule = calibrate(
        [rows_of(bank, tiles)], level=level, wafer_level=wafer_level, unit="field", strata=("pattern", "dose")
    )
    return rule


def power(bank: Profile, rule: Conformal) -> dict[str, Any]:
    """How many harmed tiles, of fields the rule may have seen unharmed, have a p at the level or below."""
    kind = np.array(bank.texts["kind"])
    out = {}
    for harm in HARMS:
        p = p_values(rows_of(bank, np.flatnonzero(kind == harm)), rule).tile
        known = ~np.isnan(p)
        hits = int((p[known] <= rule.level).sum())
        low, high = binomtest(hits, int(known.sum())).proportion_ci()
        out[harm] = {
            "tiles": len(p),
            "unknown": int((~known).sum()),
            "flagged": hits / int(known.sum()),
            "low": low,
            "high": high,
        }
    return out


def on_pairs(bank: Profile, level: float, seed: int) -> dict[str, Any]:
    """Real pairs by group: what was learnt of some, on others."""
    kind, field = np.array(bank.texts["kind"]), np.array(bank.texts["field"])
    of_pair = dict(zip(bank.texts["pair"], field, strict=True))
    used = {of_pair[name] for name in USED}
    groups = [g for g in dict.fromkeys(field) if g not in used]
    recorded, anew, blurred = (kind == k for k in ("recorded", "recorded anew", "recorded, Gaussian of 1.5 px"))
    scaling = recorded & np.isin(field, list(used))
    terms, combined = conformal._terms(DEFAULT_RULES, [bank], scaling, np.full(len(bank), "all"))
    scores = conformal.scores_of(terms, combined, bank)[ALL]

    def kept_of(chosen: np.ndarray) -> Stratum:
        return Stratum.of({ALL: scores[chosen]}, field[chosen].tolist())

    def told(of: np.ndarray, by: Any, level: float = level) -> dict[str, Any]:
        """Groups with a flagged tile share, and fields flagged, each judged by `by(group)`."""
        shares, fields, lacking = [], 0, 0
        for group in dict.fromkeys(field[of]):
            tiles = of & (field == group)
            kept = by(group)
            p = kept.tile_p(scores[tiles])
            if np.isnan(p).all():
                lacking += 1
                continue
            shares.append(float(np.mean(p[~np.isnan(p)] <= level)))
            fields += int(kept.field_p([np.nanmax(scores[tiles])])[0] <= level)
        low, high = binomtest(fields, len(shares)).proportion_ci()
        error = float(np.std(shares, ddof=1) / np.sqrt(len(shares)))
        return {"groups": len(shares), "unknown": lacking, "tiles_flagged": float(np.mean(shares)),
                "tiles_error": error,
                "fields_flagged": fields / len(shares), "low": low, "high": high, "level": level}  # fmt: skip

    unused = np.isin(field, groups)
    line = np.array([name.startswith("line") for name in bank.texts["pair"]])
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(groups)
    old = set(shuffled[: needed(level)])
    others = {g: kept_of(recorded & unused & (field != g)) for g in groups}
    rest = recorded & unused & ~np.isin(field, list(old))
    halves = kept_of(recorded & np.isin(field, list(old)))
    again = kept_of(anew & unused)
    times = kept_of(recorded & unused & ~line)
    least = 1 / (len(times.field) + 1)
    return {
        "groups": len(groups), "rules": list(combined), "lowest_level": 1 / len(groups),
        "each group by all others": told(recorded & unused, others.__getitem__),
        f"{needed(level)} groups learnt, the others judged": told(rest, lambda g: halves),
        "learnt of frames recorded anew, real frames judged": told(recorded & unused, lambda g: again),
        "harmed: Gaussian of 1.5 px, by all others": told(blurred & unused, others.__getitem__),
        "harmed: Gaussian of 1.5 px, by all others, at level 0.05": told(blurred & unused, others.__getitem__, 0.05),
        "learnt of dwell pairs, line pairs judged, at level 0.05": {
            **told(recorded & unused & line, lambda g: times, 0.05), "lowest_level": least,
            "learnt_groups": len(times.field)},
    }  # fmt: skip


# --- what a frame is worth ---


def worth(seeds: int) -> dict[str, Any]:
    """Coverage of the intervals of one image, and the bias, by patterns, denoisers and row noise."""
    out: dict[str, Any] = {}
    for name, how in (("gaussian 1.2", {"model": "gaussian", "sigma": 1.2}), ("wavelet", {"model": "wavelet"})):
        for row_noise in (0.0, 0.02):
            rows: dict[str, list[tuple[float, bool, float]]] = {"two frames": [], "three frames": []}
            for seed in range(seeds):
                made = tile(PATTERNS[seed % 3], 128, seed=FIRST + seed)
                x, a, b = (made.noisy(dose=60, frame=k, row_noise=row_noise).astype(np.float32) for k in range(3))
                d = np.asarray(denoise(x, data_range=1.0, **how))
                clean = np.clip(made.clean, 0, 1)
                truth = float(np.mean((x - clean) ** 2) / np.mean((d - clean) ** 2))
                for key, third in (("two frames", None), ("three frames", b)):
                    found = dose_equivalence(x, d, a, third)
                    rows[key].append((found.frames / truth, found.low <= truth <= found.high, truth))
            for key, some in rows.items():
                ratios, covered, truths = map(np.array, zip(*some, strict=True))
                low, high = binomtest(int(covered.sum()), len(covered)).proportion_ci()
                out[f"{name}, row noise {row_noise:g}, {key}"] = {
                    "images": len(some), "true_worth": float(np.mean(truths)),
                    "estimate_over_truth": float(np.mean(ratios)),
                    "scatter": float(np.std(ratios)), "covered": float(np.mean(covered)), "low": low, "high": high,
                }  # fmt: skip
    return out


def worth_of_pairs(folder: Path, most: int) -> dict[str, Any]:
    """Real pairs whose second frame is the slow scan: 50 lines or 300 times the dwell; groups are resampled."""
    out: dict[str, Any] = {}
    images: dict[str, dict[str, list[Any]]] = {}
    for row in real_frames(folder, most):
        for name, d in row["denoised"].items():
            kept = images.setdefault(
                f"{name}, {row['kind']} pairs", {"x": [], "d": [], "a": [], "g": [], "k": [row["dose"]]}
            )
            for key, image in (("x", row["noisy"]), ("d", d), ("a", row["scene"])):
                kept[key].append(image.astype(np.float32))
            kept["g"].append(row["field"])
    for name, kept in images.items():
        stack = [np.stack(kept[key])[:, None] for key in ("x", "d", "a")]
        found = dose_equivalence(*stack, second_dose=kept["k"][0], fields=kept["g"])
        out[name] = {
            "pairs": len(kept["g"]),
            "groups": found.units,
            "worth": found.frames,
            "low": found.low,
            "high": found.high,
        }
    return out


def real_frames(folder: Path, most: int) -> Iterator[dict[str, Any]]:
    """The first pairs of each kind."""
    seen = {"line": 0, "time": 0}
    for row in pairs_of(folder):
        seen[row["kind"]] += 1
        if seen[row["kind"]] > most:
            continue
        row |= {name: middle(row[name]) for name in ("noisy", "scene")}
        small, x = denoised_by(row["noisy"], REAL), row["noisy"]
        filters = {"semnr-small": small, "Gaussian of 1.5 px": ndimage.gaussian_filter(x, 1.5)}
        yield {**row, "denoised": filters}


# --- the tables of docs ---


def tables() -> None:
    """Put the figures of the record into docs/trust.md and docs/evidence.md."""
    found = records.read_tree(RESULTS)
    held = found["synthetic"]["levels"]
    names = {
        "tile": "a random tile of an unseen field",
        "field": "any tile of an unseen field",
        "wafer": "an unseen wafer of three fields",
        "discovery": "any field on the list of a harmless wafer (rate 0.1)",
    }
    count = found["synthetic"]["fields_a_stratum"]
    parts = [f"{count} calibration fields a stratum, {held['tile']['draws']} draws, ± error of the simulation:", ""]
    parts += ["| false alarm of | level | share | held |", "| --- | --- | --- | --- |"]
    parts += [
        f"| {names[key]} | {row['level']:g} | {row['share']:.4f} ± {row['simulation_error']:.4f} | "
        f"{'yes' if row['held'] else 'no'} |"
        for key, row in held.items()
    ]
    parts += ["", "| harmed tiles with p ≤ 0.01 | share, 95 % interval |", "| --- | --- |"]
    parts += [
        f"| {harm} | {row['flagged']:.1%} ({row['low']:.1%} to {row['high']:.1%}) of {row['tiles']} |"
        for harm, row in found["synthetic"]["power"].items()
    ]
    if "real pairs" in found:
        pairs = found["real pairs"]
        head = f"real pairs, `semnr-small`, level 0.03 ({pairs['groups']} unused groups)"
        parts += ["", f"| {head} | groups judged | tiles flagged | groups flagged, 95 % interval |"]
        parts += ["| --- | --- | --- | --- |"]
        parts += [
            f"| {name} | {row['groups']} | {row['tiles_flagged']:.1%} ± {row['tiles_error']:.1%} | "
            f"{row['fields_flagged']:.1%} ({row['low']:.1%} to {row['high']:.1%}) |"
            for name, row in pairs.items()
            if isinstance(row, dict)
        ]
    _into("trust.md", "conformal", parts)
    parts = ["| one image of 128², 95 % interval | true N | estimate over truth | interval holds it |"]
    parts += ["| --- | --- | --- | --- |"]
    parts = parts if "worth, synthetic" in found else []
    parts += [
        f"| {name} | {row['true_worth']:.1f} | {row['estimate_over_truth']:.3f} ± {row['scatter']:.3f} | "
        f"{row['covered']:.0%} of {row['images']} ({row['low']:.0%} to {row['high']:.0%}) |"
        for name, row in found.get("worth, synthetic", {}).items()
    ]
    if real_ones := found.get("worth, real pairs"):
        parts += [
            "",
            "| real pairs against their slow scan | pairs, groups or strips resampled | N, 95 % interval |",
            "| --- | --- | --- |",
        ]
        parts += [
            f"| {name} | {row['pairs']}, {row['groups']} | {row['worth']:.1f} ({row['low']:.1f} to {row['high']:.1f}) |"
            for name, row in real_ones.items()
        ]
    _into("evidence.md", "worth", parts)


def _into(page: str, name: str, lines: list[str]) -> None:
    place = HERE.parent / "docs" / page
    before, _, rest = place.read_text(encoding="utf-8").partition(f"<!-- {name} table -->\n")
    _, _, after = rest.partition(f"<!-- end of {name} table -->")
    text = "\n".join(lines)
    place.write_text(f"{before}<!-- {name} table -->\n{text}\n<!-- end of {name} table -->{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fields", type=int, default=720, help="synthetic fields of the bank")
    parser.add_argument("--workers", type=int, default=2, help="processes that make the bank")
    parser.add_argument("--draws", type=int, default=1000, help="calibrations that are drawn")
    parser.add_argument("--worth", type=int, default=60, help="images a setting of the dose equivalence, 0: none")
    parser.add_argument("--pairs", type=int, default=100, help="real pairs of each kind of the dose equivalence")
    parser.add_argument("--table", action="store_true", help="put the figures of the record into docs")
    args = parser.parse_args()
    if args.table:
        return tables()
    folder = Path(os.environ.get("SEMNR_DATA", HERE.parents[1] / "shared" / "data")) / "pairs"
    bank = banked("synthetic", synthetic, args.fields, FIELDS_A_PART, args.workers)
    found: dict[str, Any] = {"synthetic": drawn(bank, args.draws, level=0.01, wafer_level=0.05)}
    if folder.is_dir():
        pairs = banked("real", partial(real, folder), 60, PAIRS_A_PART, args.workers)
        found["real pairs"] = on_pairs(pairs, 0.03, 0)
        found["worth, real pairs"] = worth_of_pairs(folder, args.pairs)
    if args.worth:
        found["worth, synthetic"] = worth(args.worth)
    arguments = [f"--fields {args.fields}", f"--draws {args.draws}", f"--worth {args.worth}", f"--pairs {args.pairs}"]
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    records.write(RESULTS, records.record(__file__, found, versions=versions, arguments=arguments))
    for of, figures in ((row["of"], row["figures"]) for row in records.rows_of(found)):
        print(" / ".join(of), {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()})


if __name__ == "__main__":
    main()
