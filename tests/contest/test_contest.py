"""The table of denoisers: frozen protocol, resumption, the referee, bad folders. Small, seeded, without real pairs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import cases
from semnr.cli import main
from semnr.contest import compare_denoisers, write_inputs
from semnr.contest import run as running
from semnr.contest.denoisers import Setup, Skipped, ready
from semnr.contest.fields import digest, fields
from semnr.contest.methods import TOP, as_output
from semnr.contest.protocol import FILE, load
from semnr.contest.scores import Truth, figures, invented_blank
from semnr.contest.store import TEXTS, Store, newest, read, write
from semnr.contest.submission import Unusable, submission
from semnr.contest.table import means, text

PROTOCOL = load()
PAIRS = cases.REPOSITORY.parent / "shared" / "data" / "pairs"


class AtOnce:
    """In place of a pool of processes: this one."""

    def __init__(self, *_: Any) -> None: ...
    def __enter__(self) -> AtOnce:
        return self

    def __exit__(self, *_: Any) -> None: ...
    def submit(self, function: Any, *arguments: Any) -> Any:
        from concurrent.futures import Future

        done: Future[Any] = Future()
        done.set_result(function(*arguments))
        return done


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "ProcessPoolExecutor", AtOnce)
    # the networks of DISTS and LPIPS are slow, and tested elsewhere
    monkeypatch.setattr("semnr.contest.scores.NETWORKS_NEEDED", ())


def test_the_protocol_has_a_version_and_twelve_denoisers_and_its_groups_stay_whole() -> None:
    assert PROTOCOL["version"] == 1
    assert len(PROTOCOL["denoisers"]) >= 12
    assert PROTOCOL["baseline"] in PROTOCOL["denoisers"]
    grouped = [pair for group in PROTOCOL["real"]["groups"] for pair in group]
    assert len(grouped) == len(set(grouped)) == 19
    for group in PROTOCOL["real"]["groups"]:
        assert len({PROTOCOL.split(pair) for pair in group}) == 1
    assert PROTOCOL.split("time_031") == PROTOCOL.split("line_010") == "development"
    assert PROTOCOL.split("time_001") == "table"


def test_fields_are_the_same_every_time_and_other_ones_for_development() -> None:
    first, again, other = (fields(PROTOCOL, None, split) for split in ("table", "table", "development"))
    assert list(first) == list(again)
    assert not set(first) & set(other)
    for name in ("wafer-001", "lines-000", "blank-002"):
        a, b = first[name](), again[name]()
        assert {k: digest(v) for k, v in a.images.items()} == {k: digest(v) for k, v in b.images.items()}
    made, wafer = first["wafer-001"](), other["wafer-1001"]()
    assert digest(made.frame) != digest(wafer.frame)
    # the marked frame differs by discs alone, whose places lie off the border that no score looks at
    assert made.marked is not None
    away = np.ones(made.frame.shape, bool)
    for disc in made.discs:
        away[disc.row - 8 : disc.row + 9, disc.col - 8 : disc.col + 9] = False
        assert PROTOCOL["border"] + 8 <= min(disc.row, disc.col)
    assert (made.marked == made.frame)[away].all()
    assert sorted({disc.contrast for disc in made.discs}) == PROTOCOL["discs"]["sigma"]


def test_the_hash_is_of_shape_depth_and_pixels() -> None:
    image = np.arange(6, dtype=np.uint16).reshape(2, 3)
    known = {digest(image), digest(image.T.copy()), digest(image.astype(np.uint8)), digest(image + 1)}
    assert len(known) == 4
    assert digest(image.astype(">u2")) == digest(image)


def test_a_perfect_output_scores_perfectly_and_each_harm_shows_in_its_own_column() -> None:
    made = fields(PROTOCOL, None)["wafer-001"]()
    truth = Truth(made, PROTOCOL)
    assert made.clean is not None
    assert made.marked is not None
    change = made.marked.astype(float) - made.frame

    def score(d: np.ndarray, kept: float = 1.0) -> dict[str, float]:
        return truth.score(as_output(d), as_output(d + kept * change))

    perfect = score(made.clean)
    assert perfect["psnr"] > 60
    assert perfect["ssim"] > 0.999
    assert abs(perfect["cnr_retention"] - 1) < 0.01
    assert all(abs(perfect[f"kept_{c:g}"] - 1) < 0.02 for c in PROTOCOL["discs"]["sigma"])
    half = score(made.clean, 0.5)
    assert all(abs(half[f"kept_{c:g}"] - 0.5) < 0.02 for c in PROTOCOL["discs"]["sigma"])
    # gain and offset are fitted for fidelity, and not forgiven where contrast is asked for
    dull = score(0.7 * made.clean + 30)
    assert abs(dull["psnr"] - perfect["psnr"]) < 15
    assert dull["psnr"] > 50
    assert abs(dull["cnr_retention"] - 0.7) < 0.02
    blurred = score(ndimage.gaussian_filter(made.clean, 3))
    assert blurred["transfer"] < 0.9
    assert blurred["ssim"] < perfect["ssim"]
    bumped = made.clean.copy()
    row, col = 60, 60
    bumped[row - 3 : row + 4, col - 3 : col + 4] += 60
    assert score(bumped)["invented"] >= 1
    assert perfect["invented"] == 0


def test_lines_are_measured_on_the_clean_edges() -> None:
    made = fields(PROTOCOL, None)["lines-000"]()
    truth = Truth(made, PROTOCOL)
    assert made.clean is not None
    right, moved = (truth.score(as_output(d), None) for d in (made.clean, made.frame.astype(float)))
    assert right["edge_error"] < 0.02 < 0.3 < moved["edge_error"]
    assert abs(right["cd_bias"]) < 0.02
    assert abs(right["edge_psd_32_16"] - 1) < 0.05
    assert moved["edge_psd_16_8"] > 2
    assert truth.score(np.full(made.frame.shape, 9000, np.uint16), None) == {}


def test_only_what_the_frame_does_not_show_counts_as_invented_in_noise() -> None:
    x = fields(PROTOCOL, None)["blank-000"]().frame.astype(float)
    assert invented_blank(x, x) == 0
    d = np.full(x.shape, x.mean())
    assert invented_blank(x, d) == 0
    for at in (40, 120):
        d[at - 2 : at + 3, at - 2 : at + 3] += 5 * x.std()
    assert invented_blank(x, d) == 2


def compare(out: Path, **options: Any) -> Any:
    return compare_denoisers(out, groups=1, workers=1, **options)


def test_a_run_goes_on_where_it_was_killed_and_its_rows_have_hashes(tmp_path: Path) -> None:
    first = compare(tmp_path / "out", denoisers=["noisy"])
    assert first.left == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out" / "scores").iterdir()}
    again = compare(tmp_path / "out", denoisers=["noisy", "gaussian"])
    after = {p.name: p.read_bytes() for p in (tmp_path / "out" / "scores").iterdir()}
    assert before.items() <= after.items()  # nothing was done twice
    assert {row["denoiser"] for row in again.rows} == {"noisy", "gaussian"}
    kept = [row for row in again.rows if row["denoiser"] == "noisy"]
    assert kept == first.rows
    made = fields(PROTOCOL, None)
    for row in again.rows:
        field = made[row["field"]]()
        assert row["protocol"] == PROTOCOL.sha256
        assert row["input_sha256"] == digest(field.frame)
        x = field.frame.astype(float)
        if row["denoiser"] == "gaussian":
            x = ndimage.gaussian_filter(x, PROTOCOL["denoisers"]["gaussian"]["sigma"])
        assert row["output_sha256"] == digest(as_output(x))
    there = {p.name for p in (tmp_path / "out").iterdir()}
    assert there == {"protocol.toml", "scores", "table.md", "table.parquet"}


def test_a_run_that_is_stopped_says_what_is_left_and_the_next_one_does_it(tmp_path: Path) -> None:
    stopped = compare(tmp_path / "out", denoisers=["noisy"], minutes=0.0)
    assert stopped.left == 3
    assert stopped.rows == []
    assert compare(tmp_path / "out", denoisers=["noisy"]).left == 0


def test_a_denoiser_that_raises_is_said_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no memory for this")

    with monkeypatch.context() as patched:
        patched.setattr("semnr.contest.methods.denoise", broken)
        found = compare(tmp_path / "out", denoisers=["noisy", "gaussian"])
    assert any("RuntimeError: no memory for this" in line for line in found.problems["gaussian"])
    assert {row["psnr"] is None for row in found.rows if row["kind"] == "wafer"} == {True, False}
    assert compare(tmp_path / "out", denoisers=["noisy", "gaussian"]).problems == {}


def test_a_metric_without_weights_is_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semnr.errors import WeightsUnavailable
    from semnr.profiles import Reference

    def absent(*_: Any, **__: Any) -> None:
        raise WeightsUnavailable("no weights here: semnr weights fetch alexnet lpips")

    monkeypatch.setattr("semnr.contest.scores.NETWORKS_NEEDED", ("lpips",))
    monkeypatch.setattr(Reference, "lpips", absent)
    found = compare(tmp_path / "out", denoisers=["noisy"])
    assert "semnr weights fetch" in found.skipped["lpips"]
    assert found.problems == {}
    assert all(row["lpips"] is None for row in found.rows)


def test_what_is_at_work_when_a_run_is_stopped_is_kept(tmp_path: Path) -> None:
    def stopped(line: str) -> None:
        if line.startswith("3 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path / "out", denoisers=["noisy"], say=stopped)
    assert len(Store(tmp_path / "out", PROTOCOL).rows()) == 3


def test_rows_of_a_denoiser_that_has_changed_are_made_anew(tmp_path: Path) -> None:
    compare(tmp_path / "out", denoisers=["noisy"])
    store = Store(tmp_path / "out", PROTOCOL)
    store.add([{**row, "made_by": "older", "psnr": 1.0} for row in store.rows()])
    assert all(row["made_by"] == "{}" for row in compare(tmp_path / "out", denoisers=["noisy"]).rows)


def test_nothing_that_is_not_ours_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds thesis\.txt and no comparison"):
        compare(tmp_path, denoisers=["noisy"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "protocol.toml").write_bytes(FILE.read_bytes() + b"# another\n")
    with pytest.raises(ValueError, match="another protocol than version 1"):
        compare(other, denoisers=["noisy"])
    with pytest.raises(FileExistsError, match="not empty"):
        write_inputs(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_the_referee_gives_a_folder_the_figures_that_the_denoiser_itself_has(tmp_path: Path) -> None:
    own = compare(tmp_path / "own", denoisers=["gaussian"], keep=True)
    referee = compare(tmp_path / "out", submissions={"theirs": tmp_path / "own" / "outputs" / "gaussian"})
    assert {row["denoiser"] for row in referee.rows} == {"theirs"}
    assert referee.problems == {}
    by_field = {row["field"]: row for row in own.rows}
    for row in referee.rows:
        mine = by_field[row["field"]]
        assert {k: row[k] for k in (*figures(), "input_sha256", "output_sha256")} == {
            k: mine[k] for k in (*figures(), "input_sha256", "output_sha256")
        }
        assert row["seconds"] is None
    assert "| theirs |" in str(referee)


def test_what_is_wrong_with_a_folder_is_said_and_the_rest_is_scored(tmp_path: Path) -> None:
    inputs, theirs = tmp_path / "inputs", tmp_path / "theirs"
    count = write_inputs(inputs, groups=3)
    images = {p.stem: np.asarray(Image.open(p)) for p in inputs.iterdir()}
    assert count == len(images)
    theirs.mkdir()
    names = sorted(name for name in images if name.startswith("wafer") and "marked" not in name)
    missing, small, coloured = names[0], names[1], names[2]
    for name, image in images.items():
        if name == missing:
            continue
        made = (
            image[:-1]
            if name == small
            else np.stack([image, image // 2, image // 3], -1)
            if name == coloured
            else image
        )
        if name.startswith("lines"):
            made = image.astype(np.uint16) * 16  # 12 bits, not spread
        Image.fromarray(made).save(theirs / f"{name}.png")
    Image.fromarray(images[names[0]]).save(theirs / "another.png")
    (theirs / "notes.txt").write_text("hello")
    found = compare_denoisers(tmp_path / "out", groups=3, workers=1, submissions={"theirs": theirs})
    told = "\n".join(found.problems["theirs"])
    assert f"1 missing, such as {missing}" in told
    assert "2 extra, such as another.png" in told
    assert f"{small}.png has 191 x 192 px; accepted: 192 x 192" in told
    assert "in colour; accepted: grey" in told
    assert "accepted: the input's scale" in told
    rows = {row["field"]: row for row in found.rows}
    assert rows[missing]["psnr"] is None
    assert "missing" in rows[missing]["reason"]
    assert all(rows[name]["invented_blank"] == 0 for name in rows if name.startswith("blank"))
    (one,) = [m for m in found.means if m["figure"] == "invented_blank"]
    assert one["fields"] == 3


@pytest.mark.parametrize(
    ("name", "folder", "says"),
    [
        ("semnr-small", ".", "has the name 'semnr-small'"),
        ("../up", ".", "has the name '../up'"),
        ("theirs", "absent", "accepted: a folder of images"),
        ("theirs", ".", "no image has the name of an input"),
    ],
)
def test_a_submission_that_cannot_be_one_is_refused(name: str, folder: str, says: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, NotADirectoryError), match=says.replace(".", r"\.")):
        submission(name, tmp_path / folder, ["wafer-000"], PROTOCOL["denoisers"])


def test_eight_and_sixteen_bits_are_one_image_and_floats_are_refused(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)
    Image.fromarray(x).save(tmp_path / "a.png")
    Image.fromarray(x.astype(np.uint16) * 257).save(tmp_path / "b.png")
    Image.fromarray(x.astype(np.float32)).save(tmp_path / "c.tif")
    found = submission("theirs", tmp_path, ["a", "b", "c"], [])
    assert (found.output("a", x) == found.output("b", x)).all()
    assert int(found.output("a", x).max()) == TOP / 255 * x.max()
    with pytest.raises(Unusable, match="is float32; accepted: 8 bit"):
        found.output("c", x)


def test_what_cannot_run_here_is_skipped_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    there = importlib.util.find_spec
    gone = ("bm3d", "careamics", "lightning")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in gone else there(name, *a))
    found = compare(tmp_path / "out", denoisers=["noisy", "bm3d tuned", "noise2void", "least error"])
    assert {row["denoiser"] for row in found.rows} == {"noisy"}
    assert "pip install 'semnr[bm3d]'" in found.skipped["bm3d tuned"]
    assert "--careamics PYTHON" in found.skipped["noise2void"]
    assert "pip install 'semnr[train]'" in found.skipped["least error"]
    with pytest.raises(ValueError, match="cannot be run"):
        ready("noise2noise", Setup(PROTOCOL, tmp_path / "n", {}, str(tmp_path / "no-python"), print))
    with pytest.raises(Skipped, match="not installed for /bin/false"):
        ready("noise2noise", Setup(PROTOCOL, tmp_path / "n", {}, "/bin/false", print))


def rows_of(values: dict[str, list[float]], name: str) -> list[dict[str, Any]]:
    return [
        {"denoiser": name, "kind": "real", "split": "table", "group": group, "field": f"{group}-{i}", "psnr": v}
        for group, found in values.items()
        for i, v in enumerate(found)
    ]


def test_a_group_counts_as_one_and_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    base = {f"g{i}": [float(20 + 5 * rng.standard_normal())] * (4 if i == 0 else 1) for i in range(30)}
    less = {group: [v - 0.5 for v in values] for group, values in base.items()}
    less["g1"] = []
    found = {m["denoiser"]: m for m in means([*rows_of(base, "semnr-small"), *rows_of(less, "other")], PROTOCOL)}
    own, other = found["semnr-small"], found["other"]
    assert own["mean"] == pytest.approx(np.mean([v[0] for v in base.values()]))
    assert own["fields"] == 33
    assert own["groups"] == 30
    assert own["low"] < own["mean"] < own["high"]
    assert own["difference"] is None
    assert other["paired_groups"] == 29
    assert other["difference"] == pytest.approx(-0.5)
    assert other["difference_high"] == pytest.approx(-0.5)  # the spread of the groups is not in it
    assert other["high"] - other["low"] > 1
    assert "**-0.50**" in text(list(found.values()), [])


def test_rows_survive_parquet_and_the_newest_wins(tmp_path: Path) -> None:
    row: dict[str, Any] = {**dict.fromkeys(TEXTS, "a"), "megapixels": 1.0, "psnr": 30.0, "fsim": float("nan")}
    write([row, {**row, "psnr": 31.0}], tmp_path / "a.parquet")
    back = read(tmp_path / "a.parquet")
    assert back[0]["fsim"] is None
    assert [r["psnr"] for r in newest(back)] == [31.0]


def test_the_command_writes_inputs_compares_and_says_what_is_wrong(tmp_path: Path, capsys: Any) -> None:
    assert main(["compare-denoisers", "--inputs", f"{tmp_path}/inputs", "--groups", "1"]) == 0
    assert "4 images written" in capsys.readouterr().out
    out = ["--out", f"{tmp_path}/out", "--groups", "1", "--workers", "1"]
    assert main(["compare-denoisers", *out, "--denoisers", "noisy,median", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {row["denoiser"] for row in told["means"]} == {"noisy", "median"}
    (tmp_path / "inputs" / "blank-000.png").unlink()
    assert main(["compare-denoisers", *out, "--submission", f"mine={tmp_path}/inputs"]) == 3
    assert "1 missing, such as blank-000" in capsys.readouterr().out
    assert main(["compare-denoisers", *out, "--denoisers", "magic"]) == 2
    assert "denoisers has 'magic'" in capsys.readouterr().err
    assert main(["compare-denoisers", *out, "--submission", "mine"]) == 2
    assert "accepted: NAME=DIR" in capsys.readouterr().err


@pytest.mark.skipif(not PAIRS.is_dir(), reason="the real pairs are not beside the repository")
def test_real_pairs_are_registered_and_grouped() -> None:
    made = fields(PROTOCOL, PAIRS)
    real = [name for name in made if name.startswith("real-")]
    development = [name for name in fields(PROTOCOL, PAIRS, "development") if name.startswith("real-")]
    assert (len(real), len(development)) == (52, 8)
    assert len({PROTOCOL.group(name.removeprefix("real-")) for name in real}) == 42
    field = made[real[0]]()
    assert field.clean is not None
    truth = Truth(field, PROTOCOL)
    score = truth.score(as_output(field.frame.astype(float)), as_output(np.asarray(field.marked, float)))
    assert score["transfer"] == pytest.approx(1, abs=1e-3)
    assert score["kept_3"] == pytest.approx(1, abs=1e-3)
    off = dataclasses.replace(field, clean=np.roll(field.clean, 2, axis=1))
    assert (
        Truth(off, PROTOCOL).score(as_output(ndimage.gaussian_filter(field.frame.astype(float), 1.5)), None)["psnr"]
        < (truth.score(as_output(ndimage.gaussian_filter(field.frame.astype(float), 1.5)), None)["psnr"])
    )


def test_the_folder_of_pairs_must_hold_pairs(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no pair"):
        fields(PROTOCOL, tmp_path)
