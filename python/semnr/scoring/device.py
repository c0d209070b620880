"""Batches to a GPU: pinned buffers in turn and a stream of their own, so that one travels while another is scored.

Never ran on a GPU: none was at hand. The rotation of the buffers is tested with a device that is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from semnr_kernels.device import resolve

BUFFERS = 2
# A GPU wants more at a time than a core does: 64 tiles of 512 x 512 of 8 bit. The evidence holds some dozens of float32
# planes of each.
BATCH_BYTES = 2**24


@dataclass
class _Buffer:
    """Host memory that a batch travels from; free again when its copy is done."""

    pinned: torch.Tensor
    copied: Any = None  # event


class Upload:
    """Copies the parts of a batch to `device`; `with upload.arrived(...)` orders the reader behind the copy."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self._buffers: deque[_Buffer] = deque(
            _Buffer(torch.empty(0, dtype=torch.uint8, pin_memory=self._cuda)) for _ in range(BUFFERS)
        )

    def __call__(self, parts: dict[str, np.ndarray]) -> tuple[dict[str, torch.Tensor], Any]:
        """(tensors on the device, event of their arrival). Waits for the buffer's last copy, not for the device."""
        if not parts:
            return {}, None
        buffer = self._buffers[0]
        self._buffers.rotate(-1)
        if buffer.copied is not None:
            buffer.copied.synchronize()
        total = sum(_aligned(image.nbytes) for image in parts.values())
        if buffer.pinned.numel() < total:
            buffer.pinned = torch.empty(total, dtype=torch.uint8, pin_memory=self._cuda)
        sent, at = {}, 0
        with self._on_stream():
            for name, image in parts.items():
                host = buffer.pinned[at : at + image.nbytes]
                host.numpy()[:] = np.ascontiguousarray(image).reshape(-1).view(np.uint8)
                like = torch.from_numpy(np.empty(0, image.dtype)).dtype
                sent[name] = host.to(self.device, non_blocking=True, copy=True).view(like).reshape(image.shape)
                at += _aligned(image.nbytes)
            if self._stream is not None:
                buffer.copied = torch.cuda.Event()
                buffer.copied.record(self._stream)
        return sent, buffer.copied

    @contextmanager
    def arrived(self, tensors: dict[str, torch.Tensor], event: Any) -> Iterator[None]:
        """Make the current stream wait for the copy, and the memory live as long as that stream uses it."""
        if not self._cuda:
            yield
            return
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            if event is not None:
                current.wait_event(event)
            for tensor in tensors.values():
                tensor.record_stream(current)
            yield

    def _on_stream(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


def _aligned(nbytes: int) -> int:
    """Parts start at 256 bytes, as the kernels' wide loads like it."""
    return -(-nbytes // 256) * 256


def device_of(given: Any) -> torch.device | None:
    """None for the CPU, else the CUDA device with its number; see `resolve`."""
    device = resolve(given)
    return None if device.type == "cpu" else device


def devices_of(given: Any) -> list[torch.device | None]:
    """As `device_of`, of each device in a list or between commas.

    Raises
    ------
    ValueError
        No such device here, one that is named twice, or the CPU beside another.
    """
    several = [v.strip() for v in given.split(",")] if isinstance(given, str) else given
    if not isinstance(several, list | tuple):
        return [device_of(given)]
    found = [device_of(one) for one in several]
    if not found or (len(found) > 1 and (None in found or len(set(found)) < len(found))):
        raise ValueError(f"device is {given!r}; accepted: one device, or several CUDA devices, each named once")
    return found
