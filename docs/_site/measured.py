"""The tables of docs/performance.md, made from the raw rows under benchmarks/results/.

A table lies between `<!-- measured: NAME -->` and `<!-- end -->`, so that the page can be read where it lies. The site
makes each table anew when it is built, and a test compares the page with the records.

python docs/_site/measured.py    # writes the tables into the page
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "static"))
import counted_table
import records

PAGE = records.REPOSITORY / "docs" / "performance.md"
_BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", flags=re.S)
HEAD = ("work", "measured", "beside it", "bar", "")
PEERS = {"frame_analytics": "frame-analytics", "fast_ssim": "fast-ssim"}


@dataclass(frozen=True)
class Bar:
    """A bar of one row: times faster than a peer, times the time of another call, or a time of our own."""

    of: str
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        return value >= self.least if self.least is not None else value <= self.most  # type: ignore[operator]

    def __str__(self) -> str:
        if self.of == "time":
            return f"≤ {_time(self.most or 0)}"
        return f"≥ {self.least:g} ×" if self.least is not None else f"≤ {self.most:g} ×"


def faster(of: str, least: float) -> Bar:
    return Bar(of, least=least)


def costs(of: str, most: float) -> Bar:
    return Bar(of, most=most)


FFTS = "the 34 FFTs a pair alone"
# Bars of timed works: record -> work (as the record has it) -> bars. The kind of a bar says how its ratio is written.
BARS: dict[str, dict[str, list[Bar]]] = {
    "ssim": {
        **{
            f"ssim {d} float32 {n}": [faster("frame_analytics", 3.3)] for d in ("float32", "uint8") for n in (512, 1024)
        },
        **{f"ssim {d} float32 2048": [faster("frame_analytics", 3.3)] for d in ("float32", "uint8")},
        **{f"ssim {d} float32 4096": [faster("frame_analytics", 3.0)] for d in ("float32", "uint8")},
        **{f"ssim float32 float64 {n}": [faster("frame_analytics", 1.3)] for n in (1024, 2048)},
        **{f"ssim uint8 uniform 7x7 {n}": [faster("fast_ssim", 2.0)] for n in (512, 1024, 2048, 4096)},
        "ssim forward + backward 2048": [faster("frame_analytics", 15.0), faster("piq", 150.0)],
        "ssim call 64": [costs("time", 40e-6)],
        "ssim call 64 with grad": [costs("time", 70e-6)],
    },
    "pixel": {
        **{f"psnr float32 {n}": [faster("frame_analytics", 2.0)] for n in (512, 1024)},
        **{f"psnr float32 {n}": [faster("torch.dot", 0.95)] for n in (2048, 4096)},
        **{f"psnr uint8 {n}": [faster("frame_analytics", 1.0)] for n in (512, 1024, 2048, 4096)},
    },
    "profile": {
        f"psnr + ssim + cnr {d} {n}": [costs("ssim alone", 1.25)]
        for d in ("float32", "uint8")
        for n in (1024, 2048, 4096)
    },
    "cnr": {f"cnr_map 64/32, {d}, 4096²": [faster("SciPy uniform filter", 20.0)] for d in ("float32", "uint8")},
    "fsim": {
        "FSIM, 16 x 256², float32": [faster("piq", 9.0), costs(FFTS, 1.5)],
        "FSIM, 4 x 1024², float32, downsampled by 4": [faster("piq", 5.0)],
        "FSIM, 16 x 512², float32, downsampled by 2": [faster("piq", 5.0)],
        "FSIM, 16 x 256², a candidate of a cached reference": [faster("piq", 16.0)],
        **{f"FSIM, {n}², float32, native resolution": [costs(FFTS, 1.5)] for n in (512, 1024, 2048)},
    },
    "compat": {
        "compat.piq.ssim(downsample=False) 2048": [faster("piq", 100.0)],
        "SSIMLoss step 8 x 1 x 512": [costs("the bare kernels", 1.3)],
        "L1SSIMLoss step 8 x 1 x 512": [costs("SSIM alone", 1.15)],
        "U-Net step 8 x 1 x 256, 4 levels, 32 channels, L1 + SSIM": [costs("L1 alone", 1.1)],
    },
}
# Calls that ours is a part of, or is made of: the ratio is our time over theirs.
PARTS = ("ssim alone", "three calls", FFTS, "the bare kernels", "SSIM alone", "SSIM + torch's L1", "L1 alone")
PARTS += ("without the range check", "semnr.profile")
ALONE = ("its SSIM loss",)  # a part of ours: its own time is shown
# Works as a reader names them, by the words of the scripts.
WORDS = (
    (r"^ssim (\w+) float32 (\d+)$", r"SSIM \1, \2²"),
    (r"^ssim (\w+) float64 (\d+)$", r'SSIM \1, `precision="float64"`, \2²'),
    (r"^ssim uint8 uniform 7x7 (\d+)$", r"SSIM uint8, uniform 7×7, \1²"),
    (r"^ssim forward \+ backward (\d+)$", r"SSIM forward + backward, \1²"),
    (r"^ssim call 64(.*)$", r"one `semnr.ssim` call, 64²\1"),
    (r"^psnr (\w+) (\d+)$", r"PSNR \1, \2²"),
    (r"^psnr \+ ssim \+ cnr (\w+) (\d+)$", r"PSNR + SSIM + CNR in one read, \1, \2²"),
    (r"^(compat\.piq\.ssim\(.*\)) (\d+)$", r"`semnr.\1`, \2²"),
    (r"^(\w*SSIMLoss) step 8 x 1 x 512$", r"`\1`, forward + backward, 8 × 1 × 512²"),
    (r" x (\d)", r" × \1"),
)


def tables() -> dict[str, Callable[[], str]]:
    """What each name of a block makes."""
    return {name: lambda name=name: timed(name) for name in BARS} | {  # type: ignore[misc]
        "job": job,
        "pass": one_pass,
        "guarded": guarded,
        "dists": dists,
        "lpips": lpips,
        "stream": stream,
        "report": report,
        "denoise": denoise,
        "accuracy": accuracy,
        "backends": backends,
        "counted": counted,
        "compiled": compiled,
    }


def filled(text: str) -> str:
    """The text with every block made from the records of now."""
    known = tables()
    if unknown := {name for _, name, _ in _BLOCK.findall(text)} - set(known):
        raise ValueError(f"measured: {', '.join(sorted(unknown))}; accepted: {', '.join(known)}")
    return _BLOCK.sub(lambda m: f"{m[1]}\n{known[m[2]]()}\n{m[3]}", text)


def timed(name: str) -> str:
    """The records of a script that times calls beside their peers: NAME.json, and NAME-MACHINE.json."""
    return "\n".join(_timed(name, path) for path in _records(name))


def _timed(name: str, path: Path) -> str:
    lines = []
    for row in records.read_tree(path)["rows"]:
        took = {who: median(seconds) for who, seconds in row["seconds"].items()}
        own = took.pop("semnr")
        bars = {bar.of: bar for bar in BARS[name].get(row["work"], [])}
        beside, asked, held = [], [], []
        for who, seconds in {**took, **({"time": own} if "time" in bars else {})}.items():
            bar = next((bar for of, bar in bars.items() if who.startswith(of)), None)
            value = own if who == "time" else own / seconds if who.startswith(PARTS) else seconds / own
            if who.startswith(ALONE):
                beside.append(f"{who}: {_time(seconds)}")
            elif who.startswith(PARTS):
                beside.append(f"{_ratio(value)} × the time {'' if who.startswith('without') else 'of '}{who}")
            elif who != "time":
                beside.append(f"{_ratio(value)} × as fast as {PEERS.get(who, who)}")
            if bar is not None:
                asked.append(str(bar))
                held.append(bar.met(value))
        lines.append((_words(row["work"]), _time(own), "; ".join(beside), "; ".join(asked), _held(held)))
    return f"{_source(path)}\n\n{_table(HEAD, lines)}"


def job() -> str:
    """The whole job, now and before, in processor time a tile."""
    parts = []
    for path in _records("job"):
        rows = {row["work"]: row for row in records.read_tree(path)["rows"]}
        small = {name: median(row["now_cpu_ms"]) / row["side"] ** 2 for name, row in rows.items()}
        lines = []
        for name, row in rows.items():
            now, wall = median(row["now_cpu_ms"]), median(row["now_wall_ms"])
            before = median(row["before_cpu_ms"]) if "before_cpu_ms" in row else None
            ratio = None if before is None else before / now
            bars, held = [], []
            least = {"job, reference": 6.5, "job, reference, large": 6.5, "job, no reference": 10.0}
            least["trust, reference"] = 12.0
            if ratio is not None and name in least:
                bars.append(f"≥ {least[name]:g} ×")
                held.append(ratio >= least[name])
            if name == "trust, reference":
                bars.append("≤ 28 ms")
                held.append(now <= 28)
            beside = "" if before is None else f"{_ratio(before / now)} × less than before ({before:.3g} ms)"
            if name == "trust, reference, large" and "trust, reference" in small:
                grown = small[name] / small["trust, reference"]
                beside += f"; {grown:.2f} × a pixel of that at 512²"
                bars.append("≤ 2 × a pixel")
                held.append(grown <= 2)
            measured = f"{now:.3g} ms (wall {wall:.3g} ms)"
            lines.append((f"{row['what']}, {row['side']}²", measured, beside, "; ".join(bars), _held(held)))
        parts.append(f"{_source(path)}\n\n{_table(HEAD, lines)}")
    return "\n".join(parts)


def one_pass() -> str:
    """The noisy image in the same read, and denoise, score and guard in one pass, in processor time."""
    path = records.RESULTS / "pass.json"
    lines = []
    for row in records.read_tree(path)["rows"]:
        took = {name.removesuffix("_cpu_ms"): median(v) for name, v in row.items() if name.endswith("_cpu_ms")}
        if row["work"] == "noise":
            ratio = took["with"] / took["without"]
            what = f"PSNR + SSIM + CNR with `noise=`, {row['dtype']}, {row['side']}², regions {row['regions']}"
            cells = (f"{took['with']:.3g} ms", f"{ratio:.2f} × without ({took['without']:.3g} ms)", "≤ 1.4 ×")
            lines.append((what, *cells, _held([ratio <= 1.4])))
        elif row["work"] == "pass":
            parts = took["denoise"] + took["score"]
            each = took["together"] / row["tiles"]
            what = f"`semnr-small` in {row['precision']}, all scores and trust columns, and guard in one pass, 512²"
            ratio = took["together"] / parts
            cells = (f"{each:.3g} ms a tile", f"{ratio:.2f} × denoise alone + score alone", "≤ 1.05 ×")
            lines.append((what, *cells, _held([ratio <= 1.05])))
        elif row["work"] == "edges":
            ratio = took["one by one"] / took["together"]
            cells = (f"{took['together']:.3g} ms", f"{ratio:.2f} × less than one by one", "≥ 4 ×")
            lines.append((f"places of {row['edges']} edges, noisy, {row['side']}²", *cells, _held([ratio >= 4])))
        elif row["work"] == "demo":
            took_s = {name: v for name, v in row.items() if name not in ("work", "dists")}
            told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took_s.items())
            kind = "with DISTS" if row["dists"] else "without DISTS"
            held = [] if row["dists"] else [max(took_s.values()) <= 2]
            bar = "" if row["dists"] else "≤ 2 s"
            lines.append((f"the demo's scoring, {kind}, by candidate", told, "", bar, _held(held)))
    return f"{_source(path)}\n\n{_table(HEAD, lines)}"


def guarded() -> str:
    """Memory of score and guard as the run grows."""
    path = records.RESULTS / "guarded.json"
    (row,) = records.read_tree(path)["rows"]
    what = "resident memory of score and guard, all trust columns"
    return f"{_source(path)}\n\n{_table(HEAD, [_memory(what, 'synthetic tiles of 32²', row)])}"


def _memory(what: str, tiles: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """The peaks of a short and a long run."""
    peaks = {int(count): mib for count, mib in row["peaks_mib"].items()}
    least, most = min(peaks), max(peaks)
    grown = peaks[most] / peaks[least] - 1
    return (
        f"{what} at {least:,} and {most:,} {tiles}",
        f"{peaks[least]:.0f} and {peaks[most]:.0f} MiB",
        f"{100 * grown:+.1f} %",
        "≤ + 5 %",
        _held([grown <= 0.05]),
    )


def dists() -> str:
    """DISTS beside the network alone; a pair of 8192²."""
    tree = records.read_tree(records.RESULTS / "dists.json")
    (row,) = tree["rows"]
    took = {who: median(seconds) for who, seconds in row["seconds"].items()}
    errors, large = tree["errors"], tree["large"][-1] if isinstance(tree["large"], list) else tree["large"]
    network = min(seconds for who, seconds in took.items() if who.startswith("VGG16 float32"))
    whole, kept = took["semnr float32"], took["semnr float32, kept reference"]
    half = took["semnr bfloat16"]
    wrong = errors["torch.bfloat16 against float32"]
    before = large["GiB before, images and libraries included"]
    lines = [
        (
            "DISTS float32, 16 × 256²",
            _time(whole),
            f"{_ratio(whole / network)} × the time of VGG16's forward pass alone; "
            f"{_ratio(took['piq float32'] / whole)} × as fast as piq",
            "≤ 1.1 ×",
            _held([whole / network <= 1.1]),
        ),
        (
            "the same, a kept reference",
            _time(kept),
            f"{_ratio(kept / network)} × the time of VGG16's forward pass alone",
            "≤ 0.56 ×",
            _held([kept / network <= 0.56]),
        ),
        (
            "the same in bfloat16",
            _time(half),
            f"{_ratio(half / whole)} × the time of float32; error {wrong:.1g}",
            "≤ 0.55 ×; error ≤ 2e-3",
            _held([half / whole <= 0.55, wrong <= 2e-3]),
        ),
        (
            f"DISTS of a pair of {large['side']}², {large['dtype']}",
            _time(large["seconds"]),
            f"peak memory {large['peak GiB']:.2f} GiB, {before:.2f} of it before",
            "≤ 3 GiB",
            _held([large["peak GiB"] <= 3]),
        ),
    ]
    return f"{_source(records.RESULTS / 'dists.json')}\n\n{_table(HEAD, lines)}"


def lpips() -> str:
    """LPIPS and DISTS by their ratios, in processor time."""
    tree = records.read_tree(records.RESULTS / "lpips.json")
    took = {who: median(s) for row in tree["rows"] for who, s in row["seconds"].items()}
    ratios = tree["ratios"]
    alex, together = ratios["lpips 0.1.4 over LPIPS-Alex"], ratios["together over DISTS"]
    half = ratios["DISTS over DISTS in bfloat16"]
    lines = [
        (
            "LPIPS-Alex, 16 × 256²",
            _time(took["LPIPS-Alex"]),
            f"{_ratio(alex)} × as fast as lpips 0.1.4",
            "≥ 1.5 ×",
            _held([alex >= 1.5]),
        ),
        (
            "the same, a kept reference",
            _time(took["LPIPS-Alex, kept reference"]),
            f"{_ratio(took['lpips 0.1.4, AlexNet'] / took['LPIPS-Alex, kept reference'])} × as fast as lpips 0.1.4",
            "",
            "",
        ),
        (
            "DISTS and LPIPS-VGG together, 4 × 256²",
            _time(took["DISTS and LPIPS-VGG together"]),
            f"{_ratio(together)} × the time of DISTS alone",
            "≤ 1.95 ×",
            _held([together <= 1.95]),
        ),
        (
            "DISTS in bfloat16, 4 × 256²",
            _time(took["DISTS, bfloat16"]),
            f"{_ratio(half)} × as fast as in float32",
            "≥ 1.6 ×",
            _held([half >= 1.6]),
        ),
        (
            "DISTS by Winograd's filtering, 4 × 256²",
            _time(took["DISTS"]),
            f"{_ratio(ratios[_WINOGRAD])} × as fast as by direct convolutions",
            "",
            "",
        ),
    ]
    return f"{_source(records.RESULTS / 'lpips.json', tree['clock'])}\n\n{_table(HEAD, lines)}"


_WINOGRAD = "direct convolutions over Winograd's, DISTS"


def stream() -> str:
    """What `semnr score` costs beside its kernels."""
    rows = {row["work"]: row for row in records.read_tree(records.RESULTS / "stream.json")["rows"]}
    flow, few, pair, held = (rows[name] for name in ("throughput", "overhead", "cluster", "memory"))
    rate = {who: flow["tiles"] / median(s) for who, s in flow["seconds"].items()}
    extra = (median(few["seconds"]["engine"]) - median(few["seconds"]["kernel"])) / few["tiles"]
    two = median(pair["seconds"]["one"]) / median(pair["seconds"]["two"])
    lines = [
        (
            f"`semnr score`, PSNR + SSIM + CNR, {flow['tiles']:,} tiles of 1024² uint8, uncompressed Zarr, warm",
            f"{rate['engine']:.0f} tiles/s",
            f"{rate['engine'] / rate['kernel']:.2f} × the speed of the kernels on tiles in memory",
            "≥ 0.85 ×",
            _held([rate["engine"] / rate["kernel"] >= 0.85]),
        ),
        (
            "the same by two dask workers",
            f"{pair['tiles'] / median(pair['seconds']['two']):.0f} tiles/s",
            f"{two:.2f} × the speed of this process; rows {'identical' if pair['identical'] else 'differ'}",
            "≥ 0.9 ×",
            _held([two >= 0.9, pair["identical"]]),
        ),
        (
            "a 64² tile beyond its kernels (PSNR + SSIM, in memory)",
            _time(extra),
            "",
            "≤ 150 µs",
            _held([extra <= 150e-6]),
        ),
        _memory("resident memory", "synthetic tiles", held),
    ]
    return f"{_source(records.RESULTS / 'stream.json')}\n\n{_table(HEAD, lines)}"


def report() -> str:
    """What a report costs."""
    path = records.RESULTS / "report.json"
    lines = [
        (f"report of {row['runs']} run{'s' if row['runs'] > 1 else ''}", _time(median(row["seconds"])), size, "", "")
        for row in records.read_tree(path)["rows"]
        for size in (f"{row['megabytes']:.1f} MB of HTML",)
    ]
    return f"{_source(path)}\n\n{_table(HEAD, lines)}"


def denoise() -> str:
    """semnr-small: speed, and its scores beside BM3D's."""
    path = records.RESULTS / "denoise.json"
    tree = records.read_tree(path)
    speed, real = tree["speed"]["megapixels_per_second"], tree["real"]["mean"]
    macs = tree["speed"]["macs_per_pixel"]
    best = max(value for name, value in speed.items() if name.startswith("semnr-small, tiles"))
    ours, bm3d = real["semnr-small"], real["bm3d tuned"]
    lines = [
        (
            f"`semnr-small`, {tree['speed']['side']}², float32",
            f"{best:.2f} MP/s",
            f"{best / speed['bm3d tuned']:.0f} × as fast as bm3d; {macs / 1e3:.0f} kMAC a pixel",
            "≥ 25 ×",
            _held([best / speed["bm3d tuned"] >= 25]),
        ),
        (
            "the same in bfloat16",
            f"{speed['semnr-small, bfloat16']:.2f} MP/s",
            f"{speed['semnr-small, bfloat16'] / best:.1f} × as fast as float32",
            "",
            "",
        ),
        (
            f"{tree['real']['pairs']} real pairs, registered: PSNR; SSIM; FSIM",
            f"{ours['psnr']:.2f} dB; {ours['ssim']:.4f}; {ours['fsim']:.4f}",
            f"bm3d (variance-stabilised, line spectrum) {bm3d['psnr']:.2f} dB; {bm3d['ssim']:.4f}; {bm3d['fsim']:.4f}",
            "≥ 33.0 dB; no lower",
            _held([ours["psnr"] >= 33.0, ours["ssim"] >= bm3d["ssim"], ours["fsim"] >= bm3d["fsim"]]),
        ),
    ]
    for family in ("trained", "held out"):
        ours, bm3d = (tree["synthetic"][family][who] for who in ("semnr-small", "bm3d tuned"))
        gain = ours["psnr"] - bm3d["psnr"]
        lines += [
            (
                f"synthetic wafers, noise family {family}: PSNR over bm3d's",
                f"{gain:+.2f} dB",
                f"{ours['psnr']:.2f} and {bm3d['psnr']:.2f} dB",
                "≥ + 1.5 dB",
                _held([gain >= 1.5]),
            ),
            (
                "FSIM there; evidence transfer T",
                f"{ours['fsim']:.4f}; {ours['transfer']:.3f}",
                f"bm3d {bm3d['fsim']:.4f}; {bm3d['transfer']:.3f}",
                "above bm3d's; 0.97 to 1.03",
                _held([ours["fsim"] > bm3d["fsim"], 0.97 <= ours["transfer"] <= 1.03]),
            ),
        ]
    spots, lines_, made = tree["defects"]["semnr-small"], tree["lines"], tree["invented"]["semnr-small"]
    edge, peer = lines_["semnr-small"]["edge_rms"], lines_["bm3d tuned"]["edge_rms"]
    lines += [
        (
            f"defects of 4 px and 5 σ that keep 80 % of their contrast, of {spots['n']}",
            f"{100 * spots['kept_5_sigma']:.1f} %",
            f"bm3d {100 * tree['defects']['bm3d tuned']['kept_5_sigma']:.0f} % of {tree['defects']['bm3d tuned']['n']}",
            "≥ 95 %",
            _held([spots["kept_5_sigma"] >= 0.95]),
        ),
        (
            "lines at SNR 2: error of the edges",
            f"{edge:.4f} px",
            f"bm3d {peer:.4f} px",
            "below bm3d's",
            _held([edge < peer]),
        ),
        (
            f"discs above 2 σ, made in {made['n']:,} tiles without structure",
            f"{made['made']}",
            f"95 % bound {100 * made['made_up_to']:.2f} %",
            "none",
            _held([made["made"] == 0]),
        ),
    ]
    return f"{_source(path)}\n\n{_table(HEAD, lines)}"


def accuracy() -> str:
    """Largest errors against the float64 definition, by instruction set."""
    path = records.RESULTS / "accuracy.json"
    names = {"native-avx512": "AVX-512", "native-avx2": "AVX2", "native-baseline": "baseline (SSE2)"}
    heads = ("", "SSIM: score, map", "two-level lines: score, map", "gradient, of its maximum; lines")
    lines = []
    for backend, found in records.read_tree(path)["ssim"].items():
        cells = [f"{found['score']:.1e}, {found['map']:.1e}"]
        cells.append(f"{found['lines score']:.1e}, {found['lines map']:.1e}")
        cells.append(f"{found['gradient']:.1e}; {found['lines gradient']:.1e}")
        lines.append((names.get(backend, backend), *cells))
    other = [
        (op, *(f"{found[backend]:.1e}" if backend in found else "" for backend in names))
        for op, found in records.read_tree(path)["others"].items()
    ]
    parts = [_source(path), _table(heads, lines), _table(("largest difference of the score", *names.values()), other)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def backends() -> str:
    """Which op has which code, by the registry of the kernels."""
    from semnr_kernels import registry

    codes = ("reference", "native", "torch", "triton", "cuda")
    groups: dict[tuple[str, ...], list[str]] = {}
    for op in registry.ops():
        groups.setdefault(tuple(code for code in codes if code in registry.implementations(op)), []).append(f"`{op}`")
    lines = [
        (", ".join(ops), *("yes" if code in there else "" for code in codes))
        for there, ops in sorted(groups.items(), key=lambda one: -len(one[0]))
    ]
    return _table(("op", *(f"`{code}`" for code in codes)), lines)


def counted() -> str:
    """Device memory and shared memory of the CUDA kernels, counted on the emulation."""
    lines = []
    for row in counted_table.stored():
        found = counted_table.summary(row)
        over, words = found["bytes_over_floor"], found["words_a_pixel"]
        bars = [f"≤ {row['bytes_bar']:g}; ≤ {row['words_bar']:g}"] if row["bytes_bar"] is not None else []
        held = [over <= row["bytes_bar"], words <= row["words_bar"]] if bars else []
        images, _, height, width = row["shape"]
        work = f"{row['job']}, {row['dtype']}, {images} × {height}²" if height == width else str(row["shape"])
        cells = (f"{over:.2f}", f"{words:.1f}", f"{found['conflicts']:.2f}", f"{found['blocks']:.0f}")
        lines.append((work, *cells, "".join(bars), _held(held)))
    heads = ("work", "device memory over the floor", "shared accesses a pixel", "bank conflicts", "blocks", "bar", "")
    return f"{_source(counted_table.RESULTS)}\n\n{_table(heads, lines)}"


def compiled() -> str:
    """Triton's kernels as they compile for each target: what varies most in an op."""
    path = records.RESULTS / "aot.json"
    rows = records.read_tree(path)["kernels"]
    targets = list(dict.fromkeys(row["target"] for row in rows))
    lines = []
    for op in dict.fromkeys(row["kernel"].split()[0] for row in rows):
        of = [row for row in rows if row["kernel"].split()[0] == op]
        cells = []
        for target in targets:
            here = [row for row in of if row["target"] == target]
            cells.append(f"{min(r['registers'] for r in here)} to {max(r['registers'] for r in here)}")
        kernels = {row["kernel"] for row in of}
        lines.append((f"`{op}`", f"{len(kernels)}", *cells, f"{sum(row['spills'] for row in of)}"))
    heads = ("op", "kernels", *(f"registers, {target}" for target in targets), "spills")
    return f"{_source(path)}\n\n{_table(heads, lines)}"


def _records(name: str) -> Iterator[Path]:
    """NAME.json, then NAME-*.json: the same script on other machines, or at other times."""
    yield records.RESULTS / f"{name}.json"
    yield from sorted(records.RESULTS.glob(f"{name}-*.json"))


def _source(path: Path, *more: str) -> str:
    """Where the figures of a record come from, as a line."""
    made = records.read(path)
    parts = list(more)
    if machine := made["machine"]:
        cpu = machine.get("cpu") or machine.get("processor")
        parts += [f"{cpu}, {machine['cores']} cores"]
        parts += [str(machine["instruction_set"]).replace("C++, ", "")] if "instruction_set" in machine else []
        parts += [f"{machine['threads']} thread{'s' if machine['threads'] != 1 else ''}"]
        parts += [f"load {machine['load']:.1f}"] if machine.get("load") is not None else []
    versions = [f"{name} {value}" for name, value in made["versions"].items() if value not in (None, "not installed")]
    made_by = f"`{made['command']}`, {made['when'][:10]}, commit {made['commit']}"
    return f"*{'; '.join([', '.join(parts), ', '.join(versions), made_by]).lstrip('; ')}.*"


def _words(work: str) -> str:
    for pattern, by in WORDS:
        work = re.sub(pattern, by, work)
    return work


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{_ratio(seconds / size)} {unit}"
    return f"{_ratio(seconds * 1e6)} µs"


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _held(held: list[bool]) -> str:
    return "" if not held else "met" if all(held) else "**missed**"


def _table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [list(heads)]
    lines += [["---"] * len(lines[0])]
    lines += [[str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def blocks(text: str) -> list[str]:
    """The names of the blocks of a page."""
    return [match[2] for match in _BLOCK.finditer(text)]


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
