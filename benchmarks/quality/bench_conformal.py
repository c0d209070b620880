"""Whether the levels of a conformal rule are held: on synthetic fields in 1,000 draws, and on real pairs.

`python benchmarks/quality/bench_conformal.py` scores a bank of synthetic fields and of the real pairs once with the
real pipeline (a frame is drawn, denoised, measured; minutes, kept in build/ by its settings), then draws calibration
and test wafers from the bank and counts false alarms. Writes results/conformal.json.

Synthetic: fields of two tiles of 96², lines, holes and metal at 40 and 80 electrons a pixel. In each draw other
fields are calibration fields and test fields, without replacement: test fields are unseen. Strata: pattern and dose.
Real: the pairs of SEMNR_DATA, four tiles a pair, by the groups of its README, which are never split. Groups of the five
pairs that were used for choices set the scales and nothing else.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy import ndimage
from scipy.signal import lfilter
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import records
from bench_single_frame import BORDER, FIELDS

from semnr import Profile, denoise, dose_equivalence
from semnr.denoising import estimate_noise
from semnr.guarding import DEFAULT_RULES, Conformal, Stratum, calibrate, conformal, discovered, needed, p_values
from semnr.guarding.calibration import ALL
from semnr.stress.measure import measure
from semnr.synth import Detector, tile

HERE = Path(__file__).resolve().parents[1]
RESULTS = HERE / "results" / "conformal.json"
PATTERNS, DOSES = ("lines", "holes", "metal"), (40.0, 80.0)
SIDE, CUTS = 96, 2  # px of a tile; tiles of a synthetic field
FIRST = 4_100_000  # seeds of the fields: no threshold has seen them
SYNTHETIC, REAL = {"model": "wavelet", "strength": 0.6}, {"model": "semnr-small"}
USED = ("time_016", "time_025", "time_034", "line_010", "line_016")  # used for choices before
HARMS = ("blurred by 1 px", "disc of 3 σ invented", "disc of 3 σ erased")


# --- the bank ---


def synthetic(fields: int) -> Iterator[dict[str, Any]]:
    """One field after the other: its tiles' images on the 0-1 scale."""
    for i in range(fields):
        pattern, dose = PATTERNS[i % len(PATTERNS)], DOSES[i // len(PATTERNS) % len(DOSES)]
        made = tile(pattern, (SIDE, SIDE * CUTS), seed=FIRST + i, look={"texture": 0.03})
        scene = np.clip(made.clean, 0, 1)
        noisy = Detector(dose=dose).apply(scene, np.random.default_rng((FIRST + i, 1)))
        denoised = denoised_by(noisy, SYNTHETIC)
        about = {"field": f"field-{i}", "pattern": pattern, "dose": dose}
        yield {**about, "kind": "harmless", **cut(scene, noisy, denoised)}
        if i % 36 < 6:
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
        row, column = rng.integers(24, SIDE - 24, 2) + (0, k * SIDE)
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


def pairs_of(folder: Path) -> Iterator[dict[str, Any]]:
    """Noisy and registered clean image of each pair, gain and offset fitted, without the border."""
    from PIL import Image

    with (folder / "REGISTRATION.csv").open() as file:
        affine = {row["pair"]: [float(row[f"p{i}"]) for i in range(6)] for row in csv.DictReader(file)}
    groups = {name: field[0] for field in FIELDS for name in field}
    for number, name in enumerate(sorted(affine)):
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


def real(folder: Path) -> Iterator[dict[str, Any]]:
    """Each pair as it was recorded, blurred, and its clean image recorded anew by the noise law fitted to the frame."""
    for pair in pairs_of(folder):
        scene, x = pair["scene"], pair["noisy"]
        about = {"field": pair["field"], "pattern": pair["kind"], "dose": float("nan"), "pair": pair["pair"]}
        for kind, frame in (("recorded", x), ("recorded anew", anew(scene, pair["grey"], pair["number"]))):
            yield {**about, "kind": kind, **quarters(scene, frame, denoised_by(frame, REAL))}
        yield {**about, "kind": "recorded, Gaussian of 1.5 px", **quarters(scene, x, ndimage.gaussian_filter(x, 1.5))}


def anew(scene: np.ndarray, noisy: np.ndarray, seed: int) -> np.ndarray:
    """A new recording of a scene by the law of the noise of one frame, clipped as 8 bit are."""
    law = estimate_noise(noisy, data_range=255.0)
    rho = float(np.clip(law.correlation[0] if law.correlation else 0.0, 0.0, 0.95))
    noise = np.random.default_rng((FIRST, seed)).standard_normal(scene.shape)
    noise[:, 1:] *= np.sqrt(1 - rho**2)
    noise = lfilter([1.0], [1.0, -rho], noise, axis=-1)
    sigma = np.asarray(law.sigma(np.clip(scene * 255, 0, 255))) / 255
    return np.round(np.clip(scene + sigma * noise, 0, 1) * 255) / 255


def quarters(*images: np.ndarray) -> dict[str, np.ndarray]:
    h, w = (n // 2 for n in images[0].shape)
    boxes = [(slice(a, a + h), slice(b, b + w)) for a in (0, h) for b in (0, w)]
    return {n: np.stack([v[box] for box in boxes]) for n, v in zip(("scene", "noisy", "denoised"), images, strict=True)}


def banked(name: str, rows: Iterator[dict[str, Any]]) -> Profile:
    """The rows' scores as one profile, from build/ where it is there."""
    place = HERE.parent / "build" / f"conformal-{name}.npz"
    if not place.is_file():
        columns: dict[str, list[np.ndarray]] = {}
        texts: dict[str, list[str]] = {k: [] for k in ("field", "pattern", "kind", "pair")}
        for row in rows:
            found = measure(row["scene"], row["noisy"], row["denoised"], metrics=("psnr",))
            n = len(found)
            for column, values in {**found.columns, "dose": np.full(n, row["dose"])}.items():
                columns.setdefault(column, []).append(values)
            for key, kept in texts.items():
                kept += [str(row.get(key, ""))] * n
        place.parent.mkdir(exist_ok=True)
        np.savez(
            place,
            **{f"c_{k}": np.concatenate(v) for k, v in columns.items()},
            **{f"t_{k}": v for k, v in texts.items()},
        )
    with np.load(place) as kept:
        held = {k[2:]: kept[k].astype(np.float64) for k in kept.files if k.startswith("c_")}
        said = {k[2:]: tuple(map(str, kept[k])) for k in kept.files if k.startswith("t_")}
    n = len(said["field"])
    return Profile(tuple(f"t{i:05d}" for i in range(n)), held, 1.0, texts=said, auto_ids=True)


# --- the levels ---


def rows_of(bank: Profile, tiles: np.ndarray) -> Profile:
    return bank.take([int(i) for i in tiles])


def drawn(bank: Profile, draws: int, *, level: float, wafer_level: float) -> dict[str, Any]:
    """Share of false alarms over draws: new calibration fields and a new wafer of one field of each stratum."""
    kind, field = np.array(bank.texts["kind"]), np.array(bank.texts["field"])
    harmless = np.flatnonzero(kind == "harmless")
    stratum = np.array([f"{p} {d:g}" for p, d in zip(bank.texts["pattern"], bank.column("dose"), strict=True)])
    names = {s: list(dict.fromkeys(field[harmless][stratum[harmless] == s])) for s in np.unique(stratum)}
    at = {name: np.flatnonzero((kind == "harmless") & (field == name)) for name in np.unique(field[harmless])}
    need = needed(wafer_level, 1, len(names))
    count = max(need, needed(level))
    aside = 20  # fields of a stratum that set the scales, once: the scores of the bank are then the same in all draws
    first = {s: some[: aside + count] for s, some in names.items()}
    rule = learnt(bank, np.concatenate([at[n] for some in first.values() for n in some]), level, wafer_level)
    scaling = np.isin(field, [n for some in names.values() for n in some[:aside]]) & (kind == "harmless")
    terms, combined = conformal._terms(DEFAULT_RULES, [bank], scaling, np.full(len(bank), "all"))
    scores = conformal.scores_of(terms, combined, bank)[ALL]
    rng = np.random.default_rng(0)
    alarms = {"tile": [], "field": [], "wafer": [], "discovery": []}
    unseen = {s: some[aside:] for s, some in names.items()}
    for _ in range(draws):
        strongest, flagged, fields = [], [], []
        for some in unseen.values():
            chosen = rng.permutation(len(some))
            old = np.concatenate([at[some[i]] for i in chosen[:count]])
            new = [at[some[i]] for i in chosen[count : count + 4]]
            kept = Stratum.of({ALL: scores[old]}, field[old].tolist())
            flagged += [np.mean(kept.tile_p(scores[t]) <= level) for t in new]
            p = kept.field_p([scores[t].max() for t in new])
            fields += p.tolist()
            strongest.append(kept.wafer_p(scores[new[0]].max(), 1))
        alarms["tile"].append(float(np.mean(flagged)))
        alarms["field"].append(float(np.mean(np.array(fields) <= level)))
        alarms["wafer"].append(float(min(1.0, len(strongest) * min(strongest)) <= wafer_level))
        alarms["discovery"].append(float(discovered(fields, 0.1).any()))  # all are harmless: any is false
    found = {
        name: {"share": float(np.mean(v)), "simulation_error": float(np.std(v) / np.sqrt(draws))}
        for name, v in alarms.items()
    }
    asked = {"tile": level, "field": level, "wafer": wafer_level, "discovery": 0.1}
    for name, row in found.items():
        row |= {"level": asked[name], "draws": draws, "held": row["share"] <= asked[name] + 2 * row["simulation_error"]}
    return {"strata": len(names), "fields_a_stratum": count, "levels": found, "power": power(bank, rule)}


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
            "flagged": hits / known.sum(),
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

    def told(of: np.ndarray, by: Any) -> dict[str, Any]:
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
        "Gaussian of 1.5 px, by all others": told(blurred & unused, others.__getitem__),
        "learnt of dwell pairs, line pairs judged": {
            **told(recorded & unused & line, lambda g: times), "lowest_level": least,
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
                made = tile(PATTERNS[seed % 3], 256, seed=FIRST + seed)
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


def worth_of_pairs(folder: Path) -> dict[str, Any]:
    """Real pairs whose second frame is the slow scan: 50 lines or 300 times the dwell; groups are resampled."""
    out: dict[str, Any] = {}
    images: dict[str, dict[str, list[Any]]] = {}
    for row in real_frames(folder):
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


def real_frames(folder: Path) -> Iterator[dict[str, Any]]:
    for row in pairs_of(folder):
        filters = {
            "semnr-small": denoised_by(row["noisy"], REAL),
            "Gaussian of 1.5 px": ndimage.gaussian_filter(row["noisy"], 1.5),
        }
        yield {**row, "denoised": filters}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fields", type=int, default=1200, help="synthetic fields of the bank")
    parser.add_argument("--draws", type=int, default=1000, help="calibrations that are drawn")
    parser.add_argument("--worth", type=int, default=60, help="images a setting of the dose equivalence")
    args = parser.parse_args()
    folder = Path(os.environ.get("SEMNR_DATA", HERE.parents[1] / "shared" / "data")) / "pairs"
    bank = banked(f"synthetic-{args.fields}", synthetic(args.fields))
    found: dict[str, Any] = {"synthetic": drawn(bank, args.draws, level=0.01, wafer_level=0.05)}
    if folder.is_dir():
        found["real pairs"] = on_pairs(banked("real", real(folder)), 0.03, 0)
        found["worth, real pairs"] = worth_of_pairs(folder)
    found["worth, synthetic"] = worth(args.worth)
    arguments = [f"--fields {args.fields}", f"--draws {args.draws}", f"--worth {args.worth}"]
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    records.write(RESULTS, records.record(__file__, found, versions=versions, arguments=arguments))
    for of, figures in ((row["of"], row["figures"]) for row in records.rows_of(found)):
        print(" / ".join(of), {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()})


if __name__ == "__main__":
    main()
