"""Loops of compiled kernels, from nvdisasm's SASS or from amdgcn assembly: what an instruction count rests on.

A loop is what lies between a label and the last branch back to it. The hot loop of a kernel is the one that moves the
most bytes from and to device and shared memory outside the loops inside it (that has the most instructions, where that
decides nothing); a kernel without a loop is its whole body. All instructions of the hot loop count, each as one
whatever it costs and once however often it runs: cold paths and inner loops too, but no padding `NOP`s.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# What an opcode does, by its first letters; the first match holds.
SASS = {
    "float32": ("FFMA", "FADD", "FMUL", "FMNMX", "FSETP", "FSEL", "FSET", "FCHK", "MUFU", "F2", "I2F", "H"),
    "float64": ("DFMA", "DADD", "DMUL", "DSETP", "DMNMX"),
    "shared": ("LDS", "STS", "ATOMS"),
    "device": ("LDG", "STG", "ATOMG", "RED", "LD.", "ST."),
    "spill": ("LDL", "STL"),
    "shuffle": ("SHFL", "REDUX", "VOTE", "MATCH"),
    "barrier": ("BAR", "WARPSYNC", "BSSY", "BSYNC", "MEMBAR", "DEPBAR"),
    "branch": ("BRA", "EXIT", "CALL", "RET", "JMP", "BRX", "BMOV", "BREAK", "YIELD"),
}  # fmt: skip
AMD = {
    "float64": ("v_fma_f64", "v_add_f64", "v_mul_f64", "v_fmac_f64", "v_max_f64", "v_min_f64"),
    "float32": (
        "v_fma_f32", "v_fmac_f32", "v_add_f32", "v_sub_f32", "v_mul_f32", "v_pk_fma", "v_pk_add", "v_pk_mul",
        "v_max_f32", "v_min_f32", "v_rcp_f32", "v_div", "v_cvt_f", "v_sqrt",
    ),
    "shared": ("ds_read", "ds_write", "ds_add"),
    "device": ("global_", "flat_", "buffer_load", "buffer_store", "s_load", "s_buffer"),
    "spill": ("scratch_",),
    "shuffle": ("ds_bpermute", "ds_permute", "ds_swizzle", "v_readlane", "v_readfirstlane", "v_permlane"),
    "barrier": ("s_barrier", "s_waitcnt", "s_nop"),
    "branch": ("s_cbranch", "s_branch", "s_endpgm", "s_setpc", "s_swappc"),
}  # fmt: skip

_SASS_LINE = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)")
_SASS_LABEL = re.compile(r"^(\.L_x_\d+|\.L_\w+):")
_SASS_TARGET = re.compile(r"`\((\.L\w+)\)")
_AMD_LINE = re.compile(r"^\s+([a-z]\w+)(.*)")
_AMD_LABEL = re.compile(r"^(\.L\w+):")
_AMD_TARGET = re.compile(r"(\.LBB\w+)")


@dataclass(frozen=True)
class Code:
    """Instructions of a loop, or of a whole kernel."""

    instructions: int
    kinds: dict[str, int]  # of SASS or AMD; "integer" is everything else
    loaded: int  # bytes that a thread's loads from device memory fetch
    loop: bool  # False: the kernel has no loop

    @property
    def float_share(self) -> float:
        return (self.kinds.get("float32", 0) + self.kinds.get("float64", 0)) / max(1, self.instructions)


@dataclass
class _Body:
    opcodes: list[str]
    labels: dict[str, int]  # label -> index of the instruction that follows
    jumps: list[tuple[int, str]]  # index of a branch, its target


def sass(text: str) -> dict[str, Code]:
    """Kernel (mangled) -> its hot loop, from `nvdisasm -c`."""
    return {name: _hot(body, SASS, _sass_bytes, ("LDG",)) for name, body in _sass_bodies(text)}


def amdgcn(text: str) -> Code:
    """The hot loop of the one kernel in an assembly file."""
    body = _Body([], {}, [])
    for line in text.splitlines():
        if line.startswith(".Lfunc_end"):
            break
        if label := _AMD_LABEL.match(line):
            body.labels[label[1]] = len(body.opcodes)
        elif (found := _AMD_LINE.match(line)) and not line.lstrip().startswith("."):
            _add(body, found[1], found[2], _AMD_TARGET, ("s_cbranch", "s_branch"))
    return _hot(body, AMD, _amd_bytes, ("global_load", "flat_load", "buffer_load"))


def _sass_bodies(text: str) -> Iterator[tuple[str, _Body]]:
    name, body = "", _Body([], {}, [])
    for line in text.splitlines():
        if (label := _SASS_LABEL.match(line)) is not None:
            body.labels[label[1]] = len(body.opcodes)
        elif line.startswith(".text."):
            name, body = line.strip()[6:].rstrip(":"), _Body([], {}, [])
        elif found := _SASS_LINE.match(line):
            if found[1] != "NOP":
                _add(body, found[1], found[2], _SASS_TARGET, ("BRA",))
        elif line.startswith("\t.section") and name:
            yield name, body
            name = ""
    if name:
        yield name, body


def _add(body: _Body, opcode: str, rest: str, target: re.Pattern[str], branches: tuple[str, ...]) -> None:
    if opcode.startswith(branches) and (to := target.search(rest)):
        body.jumps.append((len(body.opcodes), to[1]))
    body.opcodes.append(opcode)


def _loops(body: _Body) -> list[tuple[int, int]]:
    """First and last instruction of each loop; an endless jump to itself, which ends every kernel, is none."""
    ends: dict[int, int] = {}
    for at, label in body.jumps:
        begin = body.labels.get(label, len(body.opcodes))
        if begin < at:
            ends[begin] = max(at, ends.get(begin, at))
    return sorted(ends.items())


def _hot(body: _Body, kinds: dict[str, tuple[str, ...]], moved: Callable[[str], int], loads: tuple[str, ...]) -> Code:
    loops = _loops(body)
    owner = [-1] * len(body.opcodes)  # the innermost loop of each instruction
    for number, (begin, end) in sorted(enumerate(loops), key=lambda n: n[1][0] - n[1][1]):
        owner[begin : end + 1] = [number] * (end + 1 - begin)
    heat = [[0, 0] for _ in loops]
    for opcode, number in zip(body.opcodes, owner, strict=True):
        if number >= 0:
            heat[number][0] += moved(opcode)
            heat[number][1] += 1
    hottest = max(range(len(loops)), key=heat.__getitem__, default=None)
    begin, end = (0, len(body.opcodes) - 1) if hottest is None else loops[hottest]
    opcodes = body.opcodes[begin : end + 1]
    counted = Counter(next((k for k, starts in kinds.items() if op.startswith(starts)), "integer") for op in opcodes)
    loaded = sum(moved(opcode) for opcode in opcodes if opcode.startswith(loads))
    return Code(len(opcodes), dict(sorted(counted.items())), loaded, bool(loops))


@functools.cache
def _sass_bytes(opcode: str) -> int:
    """Bytes of an access to device or shared memory, 0 for anything else."""
    if not opcode.startswith(SASS["device"] + SASS["shared"]):
        return 0
    wide = re.search(r"\.(U8|S8|U16|S16|64|128)\b", opcode)
    return {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}[wide[1]] if wide else 4


@functools.cache
def _amd_bytes(opcode: str) -> int:
    """As `_sass_bytes`; scalar loads, which bring addresses, do not count."""
    if opcode.startswith(AMD["shuffle"]) or not opcode.startswith((*AMD["shared"], "global_", "flat_", "buffer_")):
        return 0
    if found := re.search(r"dwordx(\d)|_b(\d+)", opcode):
        return 4 * int(found[1]) if found[1] else int(found[2]) // 8
    return next((n for text, n in (("byte", 1), ("short", 2), ("_u8", 1), ("_i8", 1), ("16", 2)) if text in opcode), 4)


def resources(text: str) -> dict[str, dict[str, int]]:
    """Kernel (mangled) -> REG, STACK, SHARED, LOCAL, from `cuobjdump -res-usage`."""
    found = re.findall(r"Function (\S+):\n\s+(.*)", text)
    return {name: {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", used)} for name, used in found}
