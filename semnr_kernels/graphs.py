"""A batch of small operations as one launch: captured in a CUDA graph when a shape comes for the second time.

Never ran on a GPU. What can be held without one is: the functions that are captured wait for nothing, copy nothing from
the host and do the same operations whatever the pixels are.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

Inputs = Mapping[str, torch.Tensor]
KEPT = 4  # shapes; each keeps the memory that its operations need


class Replay:
    """Runs `function(inputs)`: as it is for the first batch of a kind, which also makes its tables; captured with the
    second, replayed from then on.

    capture: (call) -> (what it returned, a function that does it again on the same memory); None: a CUDA graph.
    """

    def __init__(self, capture: Callable[[Callable[[], Any]], tuple[Any, Callable[[], None]]] | None = None) -> None:
        self._capture = capture or _graph
        self._lock = threading.Lock()
        self._seen: OrderedDict[Hashable, tuple[Inputs, Any, Callable[[], None]] | None] = OrderedDict()

    @contextmanager
    def results(self, kind: Hashable, inputs: Inputs, function: Callable[[Inputs], Any]) -> Iterator[Any]:
        """What the function returns of these inputs; a later call overwrites it, so that others wait until the block
        ends. `kind` says whatever else the operations depend on."""
        key = (kind, *((name, v.dtype, v.shape, v.device) for name, v in inputs.items()))
        with self._lock:
            if key not in self._seen:
                self._keep(key, None)
                yield function(inputs)
                return
            held = self._seen[key]
            if held is None:
                own = {name: v.clone() for name, v in inputs.items()}
                held = (own, *self._capture(lambda: function(own)))
            else:
                for name, v in inputs.items():
                    held[0][name].copy_(v)
            self._keep(key, held)
            held[2]()
            yield held[1]

    def _keep(self, key: Hashable, held: Any) -> None:
        self._seen[key] = held
        self._seen.move_to_end(key)
        while len(self._seen) > KEPT:
            self._seen.popitem(last=False)


def _graph(call: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads go on copying meanwhile
        found = call()
    return found, graph.replay
