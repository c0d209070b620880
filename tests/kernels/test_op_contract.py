"""An op owns itself: a new one is a folder, `explain` tells what runs, options that an op does not have are refused."""

from __future__ import annotations

import importlib
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import backends
import cases
import semnr
import semnr_kernels as kernels
from semnr_kernels import library, registry

TOY = {
    "__init__.py": '''
    """Mean power of a difference: the smallest op that there can be."""

    from __future__ import annotations

    from collections.abc import Mapping
    from dataclasses import dataclass
    from typing import Any

    import torch

    from semnr_kernels import checks, library, outputs, registry


    @dataclass(frozen=True)
    class Settings:
        power: float = 2.0


    def reference(x: torch.Tensor, y: torch.Tensor, s: Settings) -> torch.Tensor:
        return (x.double() - y.double()).abs().pow(s.power).mean(dim=(1, 2, 3))  # [N]


    def native(x: torch.Tensor, y: torch.Tensor, s: Settings, *, isa: str | None = None) -> torch.Tensor:
        return reference(x, y, s)


    def _other_power(call: registry.Call) -> str | None:
        return "knows the square alone" if call.setting("power", 2.0) != 2.0 else None


    UNSUPPORTED = (_other_power, registry.no_gradient)
    registry.register("toy", "reference", reference)
    registry.register_native("toy", native, lambda call: registry.refusal(UNSUPPORTED, call), UNSUPPORTED)


    def _prepare(a: Mapping[str, Any]) -> tuple[checks.Pair, registry.Call]:
        checked = checks.pair_of(a, data_range=1.0)
        return checked, registry.Call.of("toy", checked.x, checked.y, settings=Settings(a["power"]))


    @library.op(outputs=outputs.scores_alone, call=lambda a: _prepare(a)[1])
    def toy(
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        power: float = 2.0,
        reduction: str = "mean",
        nan: str = "error",
        backend: str | None = "auto",
    ) -> torch.Tensor:
        checked, call = _prepare(locals())
        rows = registry.choose(call, backend).run(checked.x, checked.y, call.settings)
        checks.refuse_nonfinite(checked, rows)
        return checks.reduce(rows, reduction, checked)
    ''',
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A folder beside those of the other ops; nothing else knows of it."""
    folder = tmp_path_factory.mktemp("ops")
    (folder / "toy").mkdir()
    for name, text in TOY.items():
        (folder / "toy" / name).write_text(textwrap.dedent(text))
    kernels.__path__.append(str(folder))
    try:
        yield importlib.import_module("semnr_kernels.toy")
    finally:
        kernels.__path__.remove(str(folder))
        sys.modules.pop("semnr_kernels.toy", None)
        for table in (library.ops, library.callers, registry._implementations):
            table.pop("toy", None)


def pair(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = (torch.rand((count, 1, 8, 9), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    return x, y


# --- a new op -----------------------------------------------------------------------------------------------------


def test_an_op_is_found_by_its_folder_and_runs(toy: ModuleType) -> None:
    assert "toy" in kernels.op_names()
    assert "toy" in registry.ops()
    assert kernels.toy is toy
    x, y = pair()
    assert torch.equal(toy.toy(x, y), (x.double() - y.double()).square().mean())
    assert toy.toy(x, y, reduction="none").shape == (2,)
    with pytest.raises(ValueError, match="nan is 'no'; accepted: 'error'"):
        toy.toy(x, y, nan="no")


def test_an_op_of_its_own_folder_is_a_node_of_torch(toy: ModuleType) -> None:
    x, y = pair()
    node = library.ops["toy"]
    tensors, options = library.pack(node, {**node.defaults, "x": x.requires_grad_(), "y": y})
    torch.library.opcheck(torch.ops.semnr.toy.default, tuple(tensors), options)
    compiled = torch.compile(lambda a, b: toy.toy(a, b, power=3.0), backend="aot_eager", fullgraph=True)
    leaves = [x.detach().clone().requires_grad_() for _ in range(2)]
    values = compiled(leaves[0], y), toy.toy(leaves[1], y, power=3.0)
    torch.testing.assert_close(*values, rtol=0, atol=0)
    for value in values:
        value.backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


def test_explain_makes_the_call_that_a_new_op_makes(toy: ModuleType) -> None:
    backends.require("pixel", "native")
    x, y = pair()
    assert semnr.explain("toy", x, y).chosen == "native"
    cube = semnr.explain("toy", x, y, power=3.0)
    assert cube.chosen == "reference"
    assert "knows the square alone" in str(cube)
    assert semnr.explain("toy", x.requires_grad_(), y).chosen == "reference"


def test_the_shared_modules_know_no_op_by_name() -> None:
    """Neither by a string nor by an import."""
    folder = Path(kernels.__file__).parent
    names = {*kernels.op_names(), *library.ops} - {"profile"}  # the word of a dozen other things
    for path in (folder / name for name in ("library.py", "outputs.py", "registry.py", "checks.py")):
        text = path.read_text()
        code = re.sub(r'""".*?"""|#[^\n]*', "", text, flags=re.S)
        told = {name for name in names if re.search(rf"[\"'.]{name}\b[\"']?", code) and f'"{name}"' in code}
        assert told == set(), path.name
        assert not re.search(rf"^\s*from \.({'|'.join(kernels.op_names())})\b", code, re.M), path.name


# --- explain tells what runs --------------------------------------------------------------------------------------

REGIONS = {"signal": torch.arange(96) < 40, "background": torch.arange(96) >= 50}
REGIONS = {name: region.expand(96, 96) for name, region in REGIONS.items()}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("mse", {}),
    ("psnr", {"data_range": 1.0, "reduction": "none"}),
    ("ssim", {"data_range": 1.0}),
    ("ssim", {"data_range": 1.0, "window_size": 67}),
    ("ssim", {"data_range": 1.0, "components": True}),
    ("ssim", {"data_range": 1.0, "mask": torch.ones((96, 96), dtype=torch.bool)}),
    ("ssim", {"data_range": 1.0, "downsample": 2, "precision": "float64"}),
    ("ms_ssim", {"data_range": 1.0, "window_size": 5}),
    ("fsim", {"data_range": 1.0}),
    ("fsim", {"data_range": 1.0, "return_map": True}),
    ("dists", {"data_range": 1.0, "weights": "random"}),
    ("cnr", REGIONS),
    ("cnr", {**REGIONS, "kind": "rose"}),
    ("cnr_map", {**REGIONS, "window": 64, "stride": 16}),
]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("grad", [False, True], ids=["", "gradient"])
@pytest.mark.parametrize(("name", "options"), CALLS, ids=str)
def test_explain_names_the_backend_that_runs(
    name: str, options: dict[str, Any], grad: bool, dtype: torch.dtype
) -> None:
    if grad and not dtype.is_floating_point:
        pytest.skip("integers have no gradient")
    x, y = (torch.from_numpy(v).float() for v in cases.noisy_pair(96, 96))
    if not dtype.is_floating_point:
        x, y = ((v * 255).to(dtype) for v in (x, y))
        options = {k: v for k, v in options.items() if k != "data_range"}
    x.requires_grad_(grad)
    with registry.recording() as used:
        getattr(semnr, name)(x, y, **options)
    explained = semnr.explain(name, x, y, **options)
    assert explained.chosen == used[explained.op]


def test_explain_needs_neither_a_scale_nor_a_second_image_nor_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    x = torch.rand((64, 64))
    for name in ("ssim", "psnr", "fsim", "dists", "cnr"):
        assert semnr.explain(name, x).chosen is not None


@pytest.mark.parametrize(
    "call", [semnr.explain, lambda name, *a, **k: getattr(semnr, name)(*a, **k)], ids=["explain", ""]
)
@pytest.mark.parametrize(
    ("name", "option"), [("ssim", "windw_size"), ("fsim", "tile"), ("cnr", "noize"), ("mse", "details")]
)
def test_an_option_that_an_op_does_not_have_is_refused_with_those_that_it_has(
    call: Any, name: str, option: str
) -> None:
    x = torch.rand((64, 64))
    with pytest.raises(TypeError, match=rf"{name} has no argument '{option}'.*accepted: x, y, .*backend"):
        call(name, x, x, **{option: 3})


def test_explain_refuses_what_the_call_would_refuse() -> None:
    x = torch.rand((64, 64))
    with pytest.raises(ValueError, match="window_size is 10; accepted: an odd integer"):
        semnr.explain("ssim", x, x, window_size=10)
    with pytest.raises(ValueError, match=r"op is 'sim'; accepted: cnr, cnr_map, contrast_retention, dists, fsim"):
        semnr.explain("sim", x, x)
