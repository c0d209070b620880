"""Theoretical occupancy: how many warps of a kernel a multiprocessor holds at once, from what the kernel uses.

The limits are the vendors': CUDA programming guide, table of technical specifications per compute capability, and the
occupancy calculator's granularities; AMD CDNA3 instruction set guide and LLVM's AMDGPU usage guide. Nothing is run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One multiprocessor (NVIDIA) or compute unit (AMD)."""

    lanes: int  # of a warp
    warps: int
    blocks: int
    registers: int  # 32-bit words a lane-column holds, all warps together: see `_by_registers`
    register_unit: int
    most_registers: int  # of a thread
    shared: int  # bytes
    shared_block: int  # the most that one block may take
    shared_unit: int
    shared_system: int  # bytes that the system keeps of each block's shared memory
    partitions: int  # warps are dealt out to as many schedulers, each with its part of the registers


CHIPS = {
    "sm_80": Chip(32, 64, 32, 2048, 8, 255, 164 * 1024, 163 * 1024, 128, 1024, 4),
    "sm_90": Chip(32, 64, 32, 2048, 8, 255, 228 * 1024, 227 * 1024, 128, 1024, 4),
    "sm_100": Chip(32, 64, 32, 2048, 8, 255, 228 * 1024, 227 * 1024, 128, 1024, 4),
    # 512 vector registers a lane in each of 4 SIMDs, at most 8 waves each; 64 KiB of LDS in units of 512 bytes
    "gfx942": Chip(64, 32, 32, 2048, 8, 512, 64 * 1024, 64 * 1024, 512, 0, 4),
}


@dataclass(frozen=True)
class Occupancy:
    """Warps at once, as a share of what the chip could hold, and what keeps it from more."""

    share: float
    blocks: int
    warps: int
    limit: str  # "registers", "shared memory", "threads" or "blocks"


def occupancy(target: str, threads: int, registers: int, shared: int) -> Occupancy:
    """Of blocks of `threads` threads with `registers` a thread and `shared` bytes a block (static and dynamic)."""
    chip = CHIPS[target]
    warps = -(-threads // chip.lanes)
    most = {
        "threads": chip.warps // warps,
        "blocks": chip.blocks,
        "registers": _by_registers(chip, warps, registers),
        "shared memory": _by_shared(chip, shared),
    }
    limit = min(most, key=lambda name: most[name])
    blocks = most[limit]
    return Occupancy(blocks * warps / chip.warps, blocks, blocks * warps, limit)


def _by_registers(chip: Chip, warps: int, registers: int) -> int:
    """A warp's registers lie in one partition; a block's warps are spread over the partitions."""
    if registers > chip.most_registers:
        return 0
    each = _up(max(registers, 1), chip.register_unit)
    at_once = chip.registers // chip.partitions // each * chip.partitions
    return at_once // warps


def _by_shared(chip: Chip, shared: int) -> int:
    taken = _up(shared + chip.shared_system, chip.shared_unit)
    if shared > chip.shared_block:
        return 0
    return chip.shared // taken if taken else chip.blocks


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
