"""Windows from many threads go through one network in batches, which a GPU needs and a CPU does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor


class Batches:
    """Callable from any thread: a window (h, w) float32 in, its result out, both on the host or both on the device.

    A thread that finds the device free takes all windows of its own size that wait by then, up to `limit`, its own
    among them at last; the others find their result made. `lanes` batches are under way at once, each on a stream of
    its own, so that one is copied while another is computed. *Never ran on a GPU.*
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], device: torch.device, limit: int, lanes: int) -> None:
        self._forward, self._device, self._limit = forward, device, limit
        self._waiting: list[tuple[Tensor, Future[Tensor]]] = []
        self._guard = threading.Lock()
        on_gpu = device.type == "cuda"
        self._streams: list[Any] = [torch.cuda.Stream(device) if on_gpu else None for _ in range(lanes)]
        self._free = threading.Semaphore(lanes)

    def __call__(self, window: Tensor) -> Tensor:
        own: Future[Tensor] = Future()
        with self._guard:
            self._waiting.append((window, own))
        while not own.done():
            with self._free:
                taken = self._take(window)
                if not taken:  # another thread has it under way
                    break
                with self._guard:
                    stream = self._streams.pop()
                try:
                    self._run(taken, stream)
                finally:
                    with self._guard:
                        self._streams.append(stream)
        return own.result()

    def _take(self, like: Tensor) -> list[tuple[Tensor, Future[Tensor]]]:
        with self._guard:
            kind = like.shape, like.is_cuda
            taken = [entry for entry in self._waiting if (entry[0].shape, entry[0].is_cuda) == kind][: self._limit]
            chosen = {id(entry) for entry in taken}
            self._waiting = [entry for entry in self._waiting if id(entry) not in chosen]
        return taken

    def _run(self, taken: list[tuple[Tensor, Future[Tensor]]], stream: Any) -> None:
        try:
            windows = [window for window, _ in taken]
            with torch.inference_mode(), _behind(stream, windows), on_stream(stream):
                batch = torch.stack(windows)[:, None]
                if self._device.type == "cuda" and not batch.is_cuda:
                    batch = batch.pin_memory().to(self._device, non_blocking=True)
                denoised = self._forward(batch.contiguous(memory_format=torch.channels_last))[:, 0].float()
                denoised = denoised if windows[0].is_cuda else denoised.cpu()
            if windows[0].is_cuda:
                current = torch.cuda.current_stream(self._device)
                current.wait_stream(stream)  # one stream for all threads: who reads a result is behind it
                denoised.record_stream(current)
        except BaseException as error:
            for _, future in taken:
                future.set_exception(error)
            return
        for (_, future), result in zip(taken, denoised, strict=True):
            future.set_result(result)


@contextmanager
def _behind(stream: Any, windows: list[Tensor]) -> Iterator[None]:
    """What is put on `stream` waits for the windows that lie on the device, and they live as long as it reads them."""
    if stream is not None and windows[0].is_cuda:
        stream.wait_stream(torch.cuda.current_stream(windows[0].device))
        for window in windows:
            window.record_stream(stream)
    yield


def on_stream(stream: Any) -> AbstractContextManager[Any]:
    return nullcontext() if stream is None else torch.cuda.stream(stream)
