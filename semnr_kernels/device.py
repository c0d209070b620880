"""Which device a caller means, said once for every thread of a run."""

from __future__ import annotations

from typing import Any

import torch


def resolve(given: Any) -> torch.device:
    """`given` as the CPU or one CUDA device. A bare "cuda" is the calling thread's current one, by its number: each
    thread has a current device of its own. "auto": CUDA where there is one.

    Raises
    ------
    ValueError
        No such device here.
    """
    if given == "auto":
        given = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(given)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device is {given!r}: {error}; accepted: 'auto', 'cpu', 'cuda' or 'cuda:N'") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda" or not torch.cuda.is_available():
        raise ValueError(f"device is {given!r}; accepted here: 'auto' or 'cpu' (torch sees no CUDA device)")
    index, count = torch.cuda.current_device() if device.index is None else device.index, torch.cuda.device_count()
    if index >= count:
        last = f" to 'cuda:{count - 1}'" if count > 1 else ""
        raise ValueError(f"device is {given!r}; accepted here: 'auto', 'cpu', 'cuda' or 'cuda:0'{last}")
    return torch.device("cuda", index)


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a block may ask for: 64 KiB on sm_75, 99 on sm_86, 89 and 120, 227 on sm_90."""
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)


def lanes_of(device: torch.device) -> int:
    """Threads of a warp: 32, on AMD's CDNA 64."""
    return int(getattr(torch.cuda.get_device_properties(device), "warp_size", 64 if torch.version.hip else 32))
