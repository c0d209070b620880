"""Metrics as torch.library ops: under torch.compile and torch.export a call is one node, `semnr::ssim` and so on.

Outside of them nothing changes: a contract marked with `op` runs as it stands. While tracing, and for tensors with
code, or without memory, of their own (FakeTensor, wrapper subclasses, "meta", dispatch modes), it becomes a call of
its op, whose schema is read off the contract's signature. The op runs the contract: checks, choice of backend and
NaN policy happen at run time, on any device. Its gradient is an op too, `semnr::ssim_backward`, which asks the contract
for the gradient; nothing is kept between the two but the inputs, so that metrics whose gradient needs their value
compute it again.

No op is known here by name. Each brings what only it can say, with its contract: the shapes of its outputs, the `Call`
that it makes of its arguments (which `explain` asks for, so that it tells what would run), and how an argument travels
for which schemas have no type.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch.autograd import forward_ad

from . import checks, registry, tensor_kinds
from .outputs import PARTS, Outputs, pick
from .registry import Call, Explanation
from .result import Result

F = TypeVar("F", bound=Callable[..., Any])
Tensors = list[torch.Tensor]

# How an argument of a contract, by its annotation, travels in a schema.
_TYPES = {
    "torch.Tensor": "Tensor",
    "torch.Tensor | None": "Tensor?",
    "bool": "bool",
    "bool | None": "bool?",
    "int": "int",
    "int | None": "int?",
    "float": "float",
    "float | None": "float?",
    "str": "str",
    "str | None": "str?",
    "int | str": "str",  # schemas have no unions: the number's digits
    "int | str | None": "str?",
    "int | tuple[int, int]": "int[]",
    "tuple[float, ...] | None": "float[]?",
    "torch.dtype | None": "ScalarType?",
}
_READS_DATA = "details=True: its flags are read off the data"
COMPILED = "compiled: flags are not evaluated"

_gradient_only: contextvars.ContextVar[bool] = contextvars.ContextVar("semnr_gradient_only", default=False)
_library = torch.library.Library("semnr", "DEF")
# Most calls read their score back to look for NaN, which a CUDA graph cannot hold: torch captures around them.
_TAGS = tuple(getattr(torch.Tag, name) for name in ("cudagraph_unsafe",) if hasattr(torch.Tag, name))


Arguments = Mapping[str, Any]  # of a contract, by name


@dataclass(frozen=True)
class Encoding:
    """How one argument travels in an op where schemas have no type for it: as tensors and options that they know."""

    tensors: tuple[str, ...]  # names; each may be None
    options: Mapping[str, str]  # name to schema type
    pack: Callable[[Any], dict[str, Any]]  # the argument as these
    unpack: Callable[[dict[str, Any]], Any]  # and back
    why_not: Callable[[Any], str | None] = lambda value: None  # why a value has no place in a graph


Short = Callable[[Any, Any, dict[str, Any]], Any]


@dataclass(frozen=True)
class Op:
    """A contract, its arguments as its op takes them, and what it says of itself."""

    name: str
    contract: Callable[..., Any]
    outputs: Callable[[Arguments], Outputs]
    call: Callable[[Arguments], Call]
    linear: bool
    no_gradient: Callable[[Arguments], str | None]
    encodings: Mapping[str, Encoding]
    defaults: Mapping[str, Any]
    needed: frozenset[str]  # arguments without a default
    tensors: Mapping[str, str]  # name to schema type, positional
    options: Mapping[str, str]  # name to schema type, by keyword
    numbers: frozenset[str]  # strings that may stand for an integer
    kinds: Mapping[str, str]  # option to annotation
    short: Short | None


ops: dict[str, Op] = {}  # by name, of those that are imported
callers: dict[str, Callable[..., Any]] = {}  # what `op` made of their contracts


def gradient_only() -> bool:
    """Whether only the gradient of what runs is wanted: an autograd function may return zeros as its value."""
    return _gradient_only.get()


@contextmanager
def _only_gradient(only: bool) -> Iterator[None]:
    token = _gradient_only.set(only)
    try:
        yield
    finally:
        _gradient_only.reset(token)


def op(
    *,
    outputs: Callable[[Arguments], Outputs],
    call: Callable[[Arguments], Call],
    linear: bool = False,
    no_gradient: Callable[[Arguments], str | None] = lambda arguments: None,
    encodings: Mapping[str, Encoding] | None = None,
    short: Short | None = None,
) -> Callable[[F], F]:
    """Make the contract below one node while torch traces, by its own name; in eager mode it runs as it is.

    Parameters
    ----------
    outputs
        Of the arguments: the name of each output, with what gives its shape and dtype (see `outputs.py`).
    call
        Of the arguments: the `Call` on which the contract itself chooses its backend.
    linear
        The gradient does not depend on the value: a kernel may leave its forward pass out (see `gradient_only`).
    no_gradient
        Of the arguments: why there is no gradient to them, or None.
    encodings
        Of arguments whose annotation no schema has.
    short
        Asked first in eager mode, with two images and the options as the caller wrote them: what the contract would
        return, or None where the contract has to take the call.
    """

    def decorate(contract: F) -> F:
        this = ops[contract.__name__] = _read(contract, outputs, call, linear, no_gradient, encodings or {}, short)
        _register(this)
        callers[this.name] = wrapped = _wrapped(this)
        return cast(F, wrapped)

    return decorate


def _wrapped(this: Op) -> Callable[..., Any]:
    positional, contract, short = tuple(this.defaults), this.contract, this.short

    @functools.wraps(contract)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.compiler.is_compiling():
            if short is not None and len(args) == 2 and (found := short(*args, kwargs)) is not None:
                return found
            if kwargs:
                kwargs = options_of(this, kwargs)
            if tensor_kinds.ordinary((*args, *kwargs.values())):
                return contract(*args, **kwargs)
            arguments = {**this.defaults, **dict(zip(positional, args, strict=False)), **kwargs}
            return _unusual(this, arguments)
        arguments = {**this.defaults, **dict(zip(positional, args, strict=False)), **kwargs}
        if (reason := _why_not(this, arguments)) is not None:
            return torch.compiler.disable(contract, reason=reason)(*args, **kwargs)
        return _as_op(this, arguments)

    return call


def explain(name: str, *images: Any, backend: str | None = "auto", **options: Any) -> Explanation:
    """Which backend the op `name` takes for these arguments, and why the others are out: of the very `Call` that it
    would make. A second image that is missing is taken as the first, a data_range that is missing as 1.

    Raises
    ------
    TypeError, ValueError
        An argument that the op does not have or would refuse.
    """
    this = ops[name]
    given = {**dict(zip(this.defaults, images, strict=False)), **options_of(this, {**options, "backend": backend})}
    arguments = {**this.defaults, **given}
    first = next(iter(this.tensors))
    for other in this.needed:
        arguments[other] = given.get(other, arguments[first])
    if arguments.get("data_range", 1.0) is None and arguments[first].is_floating_point():
        arguments["data_range"] = 1.0
    return registry.explain(this.call(arguments), backend)


def options_of(this: Op, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a call, options as Python's values: the one validation of names and kinds, for every op."""
    known = {}
    for name, value in given.items():  # as torch.compile traces it
        if name in this.kinds:
            known[name] = checks.option(name, this.kinds[name], value)
        elif name in this.defaults:
            known[name] = value
        else:
            raise TypeError(
                f"{this.name} has no argument {name!r} (an unexpected keyword argument); "
                f"accepted: {', '.join(this.defaults)}"
            )
    return known


def _as_op(this: Op, arguments: dict[str, Any]) -> Any:
    tensors, options = pack(this, arguments)
    outputs = getattr(torch.ops.semnr, this.name)(*tensors, **options)
    return _as_contract(this, outputs, arguments, options)


def _unusual(this: Op, arguments: dict[str, Any]) -> Any:
    """A call in eager mode for which torch is not quiet, or whose tensors have code or no memory of their own."""
    tensors = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    if torch._C._functorch.maybe_current_level() is not None:
        return _transformed(this, arguments, tensors)
    foreign = any(map(tensor_kinds.stands_in, tensors.values()))
    modes = torch._C._len_torch_dispatch_stack() or torch._C._get_tracing_state() is not None
    if not (foreign or modes) or any(map(tensor_kinds.is_wrapped, tensors.values())):
        return this.contract(**arguments)  # forward-mode differentiation: the registry picks what can
    dense = all(v.layout is torch.strided and not v.is_nested for v in tensors.values())
    if not dense:
        with _no_modes():
            return this.contract(**arguments)  # which says what is wrong
    if (reason := _why_not(this, arguments)) is None:
        with torch._C.DisableTorchFunctionSubclass():  # which refuses two subclasses that do not know each other
            return _as_op(this, arguments)
    if foreign or tensor_kinds.is_recorded():
        raise TypeError(f"{this.name} runs here as one op on tensors that may hold no pixels, and cannot: {reason}")
    with _no_modes():
        return this.contract(**arguments)


def _no_modes() -> Any:
    from torch.utils._python_dispatch import _disable_current_modes

    return _disable_current_modes()


def _transformed(this: Op, arguments: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> Any:
    """A call inside transforms of torch.func. vmap: image by image; grad, jvp and their kind: the definition."""
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter

    interpreter = retrieve_current_functorch_interpreter()
    level, levels = interpreter.level(), map(torch._C._functorch.maybe_get_level, tensors.values())
    again = callers[this.name]
    if level not in levels:  # the innermost transform holds none of the tensors
        with interpreter.lower():
            return again(**arguments)
    if interpreter.key() != torch._C._functorch.TransformType.Vmap:
        return this.contract(**arguments)
    unwrapped = {k: torch._C._functorch._unwrap_batched(v, level) for k, v in tensors.items()}
    count = next(v.shape[dim] for v, dim in unwrapped.values() if dim is not None)
    with interpreter.lower():
        results = [
            again(**arguments | {k: v if d is None else v.select(d, i) for k, (v, d) in unwrapped.items()})
            for i in range(count)
        ]
        return _stacked(results, lambda value: torch._C._functorch._add_batch_dim(value, 0, level))


def _stacked(results: Sequence[Any], batched: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """What the calls of one vmap returned, as one: tensors side by side, flags of all."""
    first = results[0]
    if isinstance(first, torch.Tensor):
        return batched(torch.stack(list(results)))
    if isinstance(first, Mapping):
        return {name: _stacked([one[name] for one in results], batched) for name in first}
    if isinstance(first, Result):
        parts = ("value", "map", "components", "coverage")
        return replace(
            first,
            **{name: _stacked([getattr(one, name) for one in results], batched) for name in parts},
            flags=tuple(dict.fromkeys(flag for one in results for flag in one.flags)),
            clipped_fraction=sum(one.clipped_fraction for one in results) / len(results),
        )
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(_stacked(list(parts), batched) for parts in zip(*results, strict=True)))
    return None if first is None else tuple(results)


def full_precision(function: F) -> F:
    """Run `function` outside autocast: no score depends on it."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _no_autocast(*args, *kwargs.values()):
            return function(*args, **kwargs)

    return cast(F, call)


def require_finite(rows: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """`rows`, or a ValueError that names the image with non-finite pixels, of x and y, that made a row so."""
    if torch.compiler.is_compiling():
        return cast(torch.Tensor, torch.ops.semnr.require_finite(rows, x, y))
    if tensor_kinds.stands_in(rows):
        return rows
    if not tensor_kinds.finite(rows):
        checks.raise_if_nonfinite(x=x, y=y)
    return rows


_library.define("require_finite(Tensor rows, Tensor x, Tensor y) -> Tensor", tags=_TAGS)
_library.impl("require_finite", lambda *images: require_finite(*images).clone(), "CompositeExplicitAutograd")
torch.library.register_fake("semnr::require_finite", lambda rows, x, y: torch.empty_like(rows), lib=_library)
torch.library.register_autograd("semnr::require_finite", lambda ctx, by: (by, None, None), lib=_library)


def _no_autocast(*arguments: Any) -> Any:
    """Autocast switched off for the device of the first tensor."""
    device = next((a.device.type for a in arguments if isinstance(a, torch.Tensor)), "cpu")
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _read(
    contract: Callable[..., Any],
    outputs: Callable[[Arguments], Outputs],
    call: Callable[[Arguments], Call],
    linear: bool,
    no_gradient: Callable[[Arguments], str | None],
    encodings: Mapping[str, Encoding],
    short: Short | None,
) -> Op:
    defaults: dict[str, Any] = {}
    tensors: dict[str, str] = {}
    options: dict[str, str] = {}
    numbers: set[str] = set()
    kinds: dict[str, str] = {}
    needed: set[str] = set()
    for name, parameter in inspect.signature(contract).parameters.items():
        defaults[name] = None if parameter.default is parameter.empty else parameter.default
        if parameter.default is parameter.empty:
            needed.add(name)
        if name == "details":
            kinds[name] = "bool"
            continue
        if (encoding := encodings.get(name)) is not None:
            tensors |= dict.fromkeys(encoding.tensors, "Tensor?")
            options |= encoding.options
            continue
        if (kind := _TYPES.get(parameter.annotation)) is None:
            raise TypeError(
                f"{contract.__name__}: {name} is annotated {parameter.annotation!r}; accepted: an Encoding, or "
                f"{', '.join(_TYPES)}"
            )
        (tensors if kind.startswith("Tensor") else options)[name] = kind
        if not kind.startswith("Tensor"):
            kinds[name] = parameter.annotation
        if parameter.annotation.startswith("int | str"):
            numbers.add(name)
    return Op(
        contract.__name__, contract, outputs, call, linear, no_gradient, encodings, defaults, frozenset(needed),
        tensors, options, frozenset(numbers), kinds, short,
    )  # fmt: skip


def _register(this: Op) -> None:
    """Define the op and its gradient, for real and for fake tensors."""
    name, backward = this.name, f"{this.name}_backward"
    images = ", ".join(f"{kind} {argument}" for argument, kind in this.tensors.items())
    options = ", ".join(f"{kind} {argument}" for argument, kind in this.options.items())
    _library.define(f"{name}({images}, *, {options}) -> Tensor[]", tags=_TAGS)
    _library.define(f"{backward}(Tensor?[] by, bool[] wanted, {images}, *, {options}) -> Tensor[]", tags=_TAGS)

    def forward(*tensors: Any, **given: Any) -> Tensors:
        return _run(this, tensors, given)

    def forward_fake(*tensors: Any, **given: Any) -> Tensors:
        shapes = [shape() for shape in this.outputs(_unpack(this, tensors, given)).values()]
        return [tensors[0].new_empty(shape, dtype=dtype) for shape, dtype in shapes]

    def gradient(by: Sequence[torch.Tensor | None], wanted: Sequence[bool], *tensors: Any, **given: Any) -> Tensors:
        return _run_backward(this, by, wanted, tensors, given)

    def gradient_fake(by: Any, wanted: Sequence[bool], *tensors: Any, **given: Any) -> Tensors:
        return [t.new_empty(t.shape) for t, w in zip(tensors, wanted, strict=True) if w]

    def setup(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.options = keyword_only_inputs

    def differentiate(ctx: Any, by: list[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
        tensors = ctx.saved_tensors
        wanted = [bool(w) for w in ctx.needs_input_grad[: len(tensors)]]
        gradients = iter(getattr(torch.ops.semnr, backward)(by, wanted, *tensors, **ctx.options))
        return tuple(next(gradients) if w else None for w in wanted)

    def refuse(ctx: Any, *by: Any) -> None:
        raise NotImplementedError(
            f"{name} has no second derivative inside torch.compile; accepted: to take it outside, where it has one"
        )

    for op, run, fake in ((name, forward, forward_fake), (backward, gradient, gradient_fake)):
        _library.impl(op, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"semnr::{op}", fake, lib=_library)
    torch.library.register_autograd(f"semnr::{name}", differentiate, setup_context=setup, lib=_library)
    torch.library.register_autograd(f"semnr::{backward}", refuse, lib=_library)


def _run(this: Op, tensors: Sequence[Any], given: Mapping[str, Any]) -> Tensors:
    arguments = _unpack(this, tensors, given)
    with _no_autocast(tensors[0]), forward_ad._set_fwd_grad_enabled(False):  # below autograd nothing has a tangent
        result = None
        if this.short is not None:
            options = dict(arguments)
            result = this.short(options.pop("x"), options.pop("y"), options)
        if result is None:
            result = this.contract(**arguments)
    outputs = []
    for label, output in this.outputs(arguments).items():
        (shape, dtype), value = output(), pick(result, label)
        if value is None:  # the coverage under nan="omit" without a pixel to omit
            value = tensors[0].new_ones(shape, dtype=dtype)
        outputs.append(value.detach().to(dtype).contiguous())
    return outputs


def _run_backward(
    this: Op,
    by: Sequence[torch.Tensor | None],
    wanted: Sequence[bool],
    tensors: Sequence[torch.Tensor | None],
    given: Mapping[str, Any],
) -> Tensors:
    # An op runs below autograd; inference_mode(False) brings autograd back.
    with torch.inference_mode(False), torch.enable_grad(), _only_gradient(this.linear):
        leaves = [
            t if t is None else t.detach().requires_grad_(w)  # type: ignore[no-untyped-call]
            for t, w in zip(tensors, wanted, strict=True)
        ]
        arguments = _unpack(this, leaves, given)
        with _no_autocast(tensors[0]):
            result = this.contract(**arguments)
        if (reason := this.no_gradient(arguments)) is not None:
            raise NotImplementedError(f"{this.name} {reason}")
        pairs = [
            (value, g.to(value.dtype))
            for value, g in ((pick(result, label), g) for label, g in zip(this.outputs(arguments), by, strict=True))
            if g is not None and value is not None and value.requires_grad
        ]
        inputs = [leaf for leaf, w in zip(leaves, wanted, strict=True) if w and leaf is not None]
        gradients: Sequence[torch.Tensor | None] = [None] * len(inputs)
        if pairs:
            gradients = torch.autograd.grad([v for v, _ in pairs], inputs, [g for _, g in pairs], allow_unused=True)
    return _own([torch.zeros_like(v) if g is None else g for g, v in zip(gradients, inputs, strict=True)])


def _own(gradients: Tensors) -> Tensors:
    """Contiguous, each in memory of its own, as an op's outputs must be."""
    seen: set[int] = set()
    owned = []
    for g in gradients:
        g = g.contiguous()
        g = g.clone() if g.untyped_storage().data_ptr() in seen else g
        seen.add(g.untyped_storage().data_ptr())
        owned.append(g)
    return owned


def _why_not(this: Op, arguments: Mapping[str, Any]) -> str | None:
    """Why a traced call breaks the graph and runs the contract outside it; None where it becomes a node."""
    if arguments.get("details"):
        return _READS_DATA
    for name, encoding in this.encodings.items():
        if (reason := encoding.why_not(arguments[name])) is not None:
            return reason
    return None


def pack(this: Op, arguments: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of the contract as those of its op."""
    arguments = options_of(this, arguments)
    for name, encoding in this.encodings.items():
        arguments |= encoding.pack(arguments[name])
    options = {name: _encode(kind, arguments[name]) for name, kind in this.options.items()}
    return [arguments[name] for name in this.tensors], options


def _encode(kind: str, value: Any) -> Any:
    if value is None or kind in ("bool", "bool?", "int", "int?", "ScalarType?"):
        return value
    if kind.startswith("str"):
        return str(value)
    if kind == "int[]":
        return list(value) if isinstance(value, tuple) else [value, value]
    return [float(v) for v in value] if kind == "float[]?" else float(value)


def _unpack(this: Op, tensors: Sequence[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the op as those of the contract."""
    arguments = dict(zip(this.tensors, tensors, strict=True))
    for name, value in given.items():
        if name in this.numbers and value is not None and value.lstrip("-").isdigit():
            value = int(value)
        arguments[name] = tuple(value) if isinstance(value, list) else value
    for name, encoding in this.encodings.items():
        arguments[name] = encoding.unpack(
            {part: arguments.pop(part) for part in (*encoding.tensors, *encoding.options)}
        )
    return arguments


def _as_contract(this: Op, outputs: Tensors, arguments: Arguments, options: Mapping[str, Any]) -> Any:
    """What the contract would have returned, from what its op did."""
    by_label = dict(zip(this.outputs(arguments), outputs, strict=True))
    if not (arguments.get("return_map") or arguments.get("components")):
        return outputs[0]
    components = {label: value for label, value in by_label.items() if label not in PARTS}
    return Result(
        by_label["value"],
        checks.as_data_range(arguments["x"].dtype, arguments["data_range"]),
        map=by_label.get("map"),
        components=components or None,
        coverage=by_label.get("coverage"),
        clipped_fraction=0.0 if arguments["overshoot"] == "keep" else math.nan,
        flags=(COMPILED,),
        settings=dict(options),
    )
