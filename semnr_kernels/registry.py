"""The backends, the calls that each can run, and the choice between them.

A choice is made *before* launch from a cached probe of the machine and a pure
`supports(call)`; a launch that fails raises and never becomes a quiet fallback.
Override order: the `backend=` argument, `use_backend(...)`, the environment
variable SEMNR_BACKEND (read per call), then "auto".
"""

from __future__ import annotations

import contextvars
import functools
import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from . import cuda_support, native_support, op_names, tensor_kinds
from .device import shared_memory
from .errors import BackendUnavailable

# "auto" tries these in order; everything else (an instruction set, a test vehicle) must be named.
AUTO_ORDER: Mapping[str, tuple[str, ...]] = {
    "cuda": ("cuda", "triton", "torch", "reference"),
    "cpu": ("native", "reference"),
}
TEST_ONLY = ("triton-interpret", "cuda-emulated")
ANYWHERE = ("reference", "torch")  # made of torch's operations: on any device
# "native" takes the best instruction set of the CPU; these name one.
FORCED = tuple(f"native-{isa}" for isa in native_support.INSTRUCTION_SETS)


@dataclass(frozen=True)
class Call:
    """The facts about one call from which the backend is chosen. It holds no pixels.

    Attributes
    ----------
    op : str
        Name of the op, such as "ssim".
    device : str
        Type of the device: "cpu" or "cuda".
    dtype : torch.dtype
        Of the candidate.
    shape : tuple of int
        Of the candidate.
    needs_grad : bool
        Whether a gradient is asked for.
    settings : Settings, optional
        The frozen dataclass of the op, as its backends take it. None: the usual ones.
    masked : bool
        Whether there is a mask.
    index : int, optional
        Number of the device, where there are several.
    wrapped : bool
        Whether torch.func or forward-mode differentiation wraps the tensors. Only a backend that is made of torch's own
        operations can run such a call.

    Examples
    --------
    >>> call = kernels.Call.of("ssim", x, y)
    >>> call.dtype, call.shape, call.needs_grad, call.setting("window_size", 11)
    (torch.uint8, (192, 192), False, 11)
    """

    op: str
    device: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    needs_grad: bool
    settings: Any = None
    masked: bool = False
    index: int | None = None
    wrapped: bool = False

    @classmethod
    def of(
        cls, op: str, x: torch.Tensor, *others: torch.Tensor | None, settings: Any = None, masked: bool = False
    ) -> Call:
        """The call of an op on these tensors.

        Parameters
        ----------
        op : str
            Name of the op.
        x : Tensor
            The candidate.
        *others : Tensor, optional
            Other tensors for which a gradient may be asked.
        settings : Settings, optional
            The frozen dataclass of the op.
        masked : bool
            Whether there is a mask.

        Returns
        -------
        Call
        """
        some = [v for v in (x, *others) if v is not None]
        grad = torch.is_grad_enabled() and any(v.requires_grad for v in some)
        wrapped = not tensor_kinds.quiet() and tensor_kinds.needs_reference(some, grad)
        return cls(op, x.device.type, x.dtype, tuple(x.shape), grad, settings, masked, x.device.index, wrapped)

    def setting(self, name: str, usual: Any) -> Any:
        """One of the settings.

        Parameters
        ----------
        name : str
            Its name in the settings of the op.
        usual : value
            What is returned where the call has no settings.

        Returns
        -------
        value
        """
        return usual if self.settings is None else getattr(self.settings, name)


@dataclass(frozen=True)
class Backend:
    """A family of kernels and whether this machine can run it."""

    name: str
    probe: Callable[[], str | None]  # None: usable; else the reason why not
    remedy: str
    describe: Callable[[], str] = lambda: ""
    why_not_on: Callable[[int], str | None] = lambda device: None  # of one GPU among several


Refusal = Callable[[Call], str | None]  # why a call is not taken; None: it is


@dataclass(frozen=True)
class Implementation:
    """One op on one backend.

    `unsupported` is the table of what the backend declares not to do, and what `supports` asks. The suites hold one
    against the other: a refusal that the table does not list fails where SEMNR_REQUIRE names the backend.
    """

    op: str
    backend: str
    run: Callable[..., Any]
    supports: Refusal
    unsupported: Callable[[], tuple[Refusal, ...]] = tuple


def refusal(unsupported: tuple[Refusal, ...], call: Call) -> str | None:
    """The first reason of a table against `call`."""
    return next((reason for refuses in unsupported if (reason := refuses(call)) is not None), None)


def no_loop(call: Call) -> str | None:
    """Refuses what no kernel reads."""
    return None if call.dtype in native_support.DTYPE_CODES else f"has no {str(call.dtype).removeprefix('torch.')} loop"


def no_gradient(call: Call) -> str | None:
    """Refuses every call that wants one."""
    return "has no gradient" if call.needs_grad else None


def small_memory(call: Call, wanted: int) -> str | None:
    """Refuses a kernel whose blocks ask for more bytes of shared memory than the call's device has."""
    if call.index is None or wanted <= (here := shared_memory(torch.device(call.device, call.index))):
        return None
    return f"asks for {wanted // 1024} KiB of shared memory a block; the device has {here // 1024}"


def float64_values(call: Call) -> str | None:
    """Refuses the histogram of anything else."""
    return None if call.dtype == torch.float64 else "counts float64 values"


@dataclass(frozen=True)
class Candidate:
    """A row of the decision table."""

    backend: str
    chosen: bool
    reason: str  # why it is out, or "" where it could run
    remedy: str
    detail: str


@dataclass(frozen=True)
class Explanation:
    """Which backend a call takes, and why it does not take the others; `print` it for the table.

    Attributes
    ----------
    op : str
        Name of the op.
    requested : str
        The backend that was asked for, or "auto".
    requested_by : {"argument", "use_backend", "SEMNR_BACKEND", "default"}
        Where that was asked for.
    call : Call
        The facts of the call.
    candidates : tuple of Candidate
        The rows of the table, in the order of preference.

    Examples
    --------
    >>> table = kernels.explain(kernels.Call.of("ssim", x, y), backend="reference")
    >>> table.requested_by, table.chosen
    ('argument', 'reference')
    """

    op: str
    requested: str
    requested_by: str
    call: Call
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> str | None:
        """Name of the backend that the call takes; None where no backend can run it."""
        return next((c.backend for c in self.candidates if c.chosen), None)

    def __str__(self) -> str:
        shape = "x".join(map(str, self.call.shape))
        head = (
            f"{self.op}: {shape} {str(self.call.dtype).removeprefix('torch.')} on "
            f"{self.call.device}, backend={self.requested!r} ({self.requested_by})"
        )
        width = max((len(c.backend) for c in self.candidates), default=0)
        rows = []
        for c in self.candidates:
            mark = "->" if c.chosen else "  "
            say = c.detail if not c.reason else f"out: {c.reason}"
            if c.reason and c.remedy:
                say += f" ({c.remedy})"
            rows.append(f" {mark} {c.backend:<{width}}  {say}".rstrip())
        return "\n".join([head, *rows])


def _probe_native() -> str | None:
    return native_support.probe()


TRITON = (3, 4)  # masked histograms, knobs


def _why_no_triton() -> str | None:
    """None where triton imports and is new enough."""
    try:
        import triton
    except ImportError as error:
        return f"triton does not import ({error})"
    version = tuple(int(n) for n in re.findall(r"\d+", triton.__version__)[:2])
    if version < TRITON:
        return f"triton is {triton.__version__}, the kernels need {TRITON[0]}.{TRITON[1]} or later"
    return None


def _probe_triton() -> str | None:
    if (reason := _why_no_triton()) is not None:
        return reason
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET=1: this process interprets its kernels"
    return None if torch.cuda.is_available() else "no CUDA or ROCm device"


def _probe_cuda() -> str | None:
    return cuda_support.probe()


def _probe_interpreter() -> str | None:
    if os.environ.get("TRITON_INTERPRET") != "1":
        return "TRITON_INTERPRET=1 is not set"
    return _why_no_triton()


def _probe_emulated() -> str | None:
    return cuda_support.probe_emulated()


BACKENDS: dict[str, Backend] = {
    b.name: b
    for b in (
        Backend("reference", lambda: None, "", lambda: "torch, float64: the definition"),
        Backend("torch", lambda: None, "", lambda: "torch operations, a batch at once: for a GPU"),
        Backend(
            "native",
            _probe_native,
            "reinstall with a C++ compiler present: pip install --force-reinstall --no-deps .",
            native_support.describe,
        ),
        *(
            Backend(
                f"native-{isa}",
                functools.partial(native_support.probe, isa),
                "named only: 'native' takes the best instruction set of this CPU",
                functools.partial(native_support.describe, isa),
            )
            for isa in native_support.INSTRUCTION_SETS
        ),
        Backend("triton", _probe_triton, "needs a GPU and triton 3.4 or later: torch 2.8 or later brings it"),
        Backend(
            "cuda",
            _probe_cuda,
            "an NVIDIA GPU and torch's CUDA wheels, which bring NVRTC; or nvcc and SEMNR_CUDA=1 at the install",
            cuda_support.describe,
            lambda device: cuda_support.why_not_on(device),
        ),
        Backend("triton-interpret", _probe_interpreter, "tests only: TRITON_INTERPRET=1"),
        Backend("cuda-emulated", _probe_emulated, "tests only: python tests/support/emulated.py builds it"),
    )
}

_implementations: dict[str, dict[str, Implementation]] = {}
_record: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("semnr_record", default=None)
_override: contextvars.ContextVar[str | None] = contextvars.ContextVar("semnr_backend", default=None)


@functools.cache
def _probe(name: str) -> str | None:
    return BACKENDS[name].probe()


@functools.cache
def _probe_on(name: str, device: int) -> str | None:
    return BACKENDS[name].why_not_on(device)


def register(
    op: str,
    backend: str,
    run: Callable[..., Any],
    supports: Refusal = lambda call: None,
    unsupported: Callable[[], tuple[Refusal, ...]] = tuple,
) -> None:
    """Make `run` the implementation of `op` on `backend`; `unsupported` gives the table that `supports` asks."""
    _implementations.setdefault(op, {})[backend] = Implementation(op, backend, run, supports, unsupported)


def register_native(
    op: str,
    run: Callable[..., Any],
    supports: Refusal = lambda call: None,
    unsupported: tuple[Refusal, ...] = (),
) -> None:
    """Register `run(..., isa=None)` as "native" and once for each instruction set that can be named."""
    register(op, "native", run, supports, lambda: unsupported)
    for name, isa in zip(FORCED, native_support.INSTRUCTION_SETS, strict=True):
        register(op, name, functools.partial(run, isa=isa), supports, lambda: unsupported)


def register_triton(
    op: str, run: str, supports: str = "supports", folder: str | None = None, unsupported: str = "UNSUPPORTED"
) -> None:
    """Register functions of `folder`/triton_kernel.py as "triton" and as the test-only "triton-interpret".

    `folder` is that of the op unless given. The module, and triton with it, is imported when the backend is first
    chosen.
    """
    module = f"semnr_kernels.{folder or op}.triton_kernel"

    def later(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            return getattr(importlib.import_module(module), name)(*args, **options)

        return call

    for backend in ("triton", "triton-interpret"):
        register(
            op, backend, later(run), later(supports), lambda: getattr(importlib.import_module(module), unsupported)
        )


def register_cuda(op: str, run: Callable[..., Any], supports: Refusal, unsupported: tuple[Refusal, ...]) -> None:
    """Register `run(..., emulated=False)` as "cuda" and, on the host, as the test-only "cuda-emulated"."""
    register(op, "cuda", run, supports, lambda: unsupported)
    register(op, "cuda-emulated", functools.partial(run, emulated=True), supports, lambda: unsupported)


def ops() -> tuple[str, ...]:
    """Names of every op that has an implementation."""
    for name in op_names():  # an op registers itself when it is imported
        importlib.import_module(f"semnr_kernels.{name}")
    return tuple(sorted(_implementations))


def implementations(op: str) -> tuple[str, ...]:
    """Backends that implement `op`, in this build."""
    return tuple(_implementations[op])


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every op inside a `with` block on one backend.

    It holds for the thread (the context) that entered the block.

    Parameters
    ----------
    name : str
        A name of `backends()`; "auto" restores the default.

    Returns
    -------
    context manager

    Raises
    ------
    BackendUnavailable
        An unknown name.

    Examples
    --------
    >>> with semnr.use_backend("reference"):
    ...     print(f"{semnr.ssim(denoised, clean):.3f}")
    0.898
    """
    _known(name)
    token = _override.set(name)
    try:
        yield
    finally:
        _override.reset(token)


@contextmanager
def recording() -> Iterator[dict[str, str]]:
    """Collect {op: backend} of what runs inside the `with` block, for a run's provenance."""
    used: dict[str, str] = {}
    token = _record.set(used)
    try:
        yield used
    finally:
        _record.reset(token)


def _known(name: str) -> str:
    if name != "auto" and name not in BACKENDS:
        raise BackendUnavailable(f"backend={name!r} is unknown; accepted: 'auto', {', '.join(map(repr, BACKENDS))}")
    return name


def _requested(backend: str | None) -> tuple[str, str]:
    if backend not in (None, "auto"):
        return _known(str(backend)), "argument"
    if (override := _override.get()) is not None:
        return override, "use_backend"
    if name := os.environ.get("SEMNR_BACKEND"):
        return _known(name), "SEMNR_BACKEND"
    return "auto", "default"


def _why_not(call: Call, backend: str) -> str | None:
    """None where `backend` can run `call`, else the first reason against it."""
    reason = _why_never(call.op, call.device, backend)
    if reason is None and call.index is not None:
        reason = _probe_on(backend, call.index)
    if reason is None and backend != "reference" and call.wrapped:
        reason = "takes no tensors inside torch.func transforms or forward-mode differentiation"
    return reason if reason is not None else _implementations[call.op][backend].supports(call)


def _why_never(op: str, device: str, backend: str) -> str | None:
    """Why `backend` runs no call of `op` on this machine and device, whatever its pixels; else None."""
    if backend not in _implementations.get(op, {}):
        return f"has no {op} kernel"
    if (reason := _probe(backend)) is not None:
        return reason
    runs_on = "cpu" if backend.startswith("native") or backend in TEST_ONLY else "cuda"
    if backend not in ANYWHERE and device != runs_on:
        return f"runs on {runs_on} tensors, not on {device}"
    return None


def is_named(backend: str | None) -> bool:
    """Whether a backend was named: by the argument, `use_backend` or SEMNR_BACKEND."""
    return _requested(backend)[0] != "auto"


def check_named(backend: str | None, names: Iterable[str], device: str) -> None:
    """Refuse a named backend that can never run one of the ops `names` here, before any pixel is read.

    Raises
    ------
    BackendUnavailable
        An unknown backend, or the op that it cannot run and why.
    """
    name, by = _requested(backend)
    _known(name)
    for op in names if name != "auto" else ():
        importlib.import_module(f"semnr_kernels.{op}")
        if (reason := _why_never(op, device, name)) is not None:
            remedy = f" ({BACKENDS[name].remedy})" if _probe(name) is not None and BACKENDS[name].remedy else ""
            raise BackendUnavailable(f"backend={name!r} ({by}) cannot run {op}: {reason}{remedy}")


def choose(call: Call, backend: str | None = None) -> Implementation:
    """The implementation that `call` runs on.

    Raises
    ------
    BackendUnavailable
        The named backend cannot run the call (it never falls back), or none can.
    """
    name, _ = _requested(backend)
    table = _implementations.get(call.op, {})
    names = AUTO_ORDER.get(call.device, ("reference",)) if name == "auto" else (name,)
    for candidate in names:
        if candidate in table and _why_not(call, candidate) is None:
            if (record := _record.get()) is not None:
                record[call.op] = candidate
            return table[candidate]
    error = BackendUnavailable(f"no backend can run this call\n{explain(call, backend)}")
    error.call = call
    raise error


def native_by_default(op: str, backend: str | None) -> bool:
    """What `choose` would answer for a plain CPU call that names no backend: whether it runs on "native"."""
    if backend not in (None, "auto") or _override.get() not in (None, "auto") or os.environ.get("SEMNR_BACKEND"):
        return False
    if _probe("native") is not None:
        return False
    if (record := _record.get()) is not None:
        record[op] = "native"
    return True


def cuda_by_default(op: str, backend: str | None, index: int | None) -> bool:
    """What `choose` would answer for a plain call on a CUDA device that names no backend, or that names "cuda" in the
    argument: whether it runs on "cuda". `index`: of the device; None: a call on the CPU, which the emulation may take.
    """
    if index is None:
        return backend == "cuda-emulated" and _probe("cuda-emulated") is None
    if backend not in (None, "auto", "cuda"):
        return False
    if backend != "cuda" and (_override.get() not in (None, "auto") or os.environ.get("SEMNR_BACKEND")):
        return False
    if _probe("cuda") is not None or _probe_on("cuda", index) is not None:
        return False
    if (record := _record.get()) is not None:
        record[op] = "cuda"
    return True


def triton_by_default() -> bool:
    """Whether what a GPU does beside the ops may run on Triton: it is there and no other backend is named."""
    return _requested(None)[0] in ("auto", "triton") and _probe("triton") is None


def explain(call: Call, backend: str | None = None) -> Explanation:
    """The decision table of a call: which backend it takes, and why it does not take the others.

    Parameters
    ----------
    call : Call
        The facts of the call.
    backend : str, optional
        The argument `backend` of the call. None or "auto": the choice is free.

    Returns
    -------
    Explanation

    Raises
    ------
    BackendUnavailable
        There is no backend of this name.

    Examples
    --------
    >>> print(kernels.explain(kernels.Call.of("ssim", x, y), backend="reference"))
    ssim: 192x192 uint8 on cpu, backend='reference' (argument)
     -> reference  torch, float64: the definition...
    """
    name, by = _requested(backend)
    eligible = AUTO_ORDER.get(call.device, ("reference",)) if name == "auto" else (name,)
    order = dict.fromkeys((*eligible, *(b for b in BACKENDS if b not in (*TEST_ONLY, *FORCED)), name))
    order.pop("auto", None)
    rows, chosen = [], False
    for candidate in order:
        reason = _why_not(call, candidate)
        take = not chosen and reason is None and candidate in eligible
        chosen = chosen or take
        if reason is None and not take:
            reason_text = "" if chosen and name == "auto" else "not the backend that was named"
            detail = BACKENDS[candidate].describe() or "could run"
        else:
            reason_text, detail = reason or "", BACKENDS[candidate].describe()
        remedy = BACKENDS[candidate].remedy if _probe(candidate) is not None else ""
        rows.append(Candidate(candidate, take, reason_text, remedy, detail))
    return Explanation(call.op, name, by, call, tuple(rows))


def backends() -> dict[str, str]:
    """Every backend and its state on this machine.

    Returns
    -------
    dict of str to str
        "available", or the reason why not.

    Examples
    --------
    >>> semnr.backends()["reference"]
    'available'
    """
    return {name: _probe(name) or "available" for name in BACKENDS}
