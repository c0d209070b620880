"""DISTS in bounded memory: VGG16 a band of rows at a time, nothing computed twice but a few rows at the seams.

Each stage holds the rows of its input that it still needs, runs its convolutions over what has arrived, a piece at a
time, adds the piece to the sums of each channel and hands the pooled rows on. The sums are those of the whole maps, so
the distance is that of the whole image, to rounding. An image that is too wide even so is cut into panels, which the
network sees with a margin beyond its receptive field.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import torch

from .local import LocalMap
from .network import Network, normalised
from .sums import CELL, Into, Sums
from .weights import CHANNELS, STAGES

MARGIN = 112  # the receptive field's radius is 105; whole cells of 16
PIECE = 2**22  # bytes of a convolution's output: what two cores keep in their second caches (2 to 8 MiB measure alike)
DEVICE_PIECE = 2**28  # on a GPU: a launch costs more than a piece that leaves the cache
_LEAST_ROWS, _LEAST_COLUMNS = 32, 128  # of the image that enter together; of a panel
_LAST = len(STAGES) - 1


@dataclass(frozen=True)
class Rectangle:
    """Outputs of a stage's convolutions: what counts, and where it lies in the tensor that holds it."""

    row: int  # the first row and column that count, 0 or 1; the one before enters the first pooling window
    column: int
    rows: int
    columns: int
    start: int  # the columns, of those, that the sums count
    stop: int


class Engine(Protocol):
    """What a backend does from two images to the sums; tensors of its device in and out."""

    memory_format: torch.memory_format

    def layer(
        self, network: Network, stage: int, layer: int, h: torch.Tensor, padding: tuple[int, int]
    ) -> torch.Tensor:
        """Convolution `layer` of `stage`, zeros beyond the border; with its ReLU, but for the last of the stage."""

    def finish(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None,
        at: Rectangle,
        share: torch.Tensor | None,
        into: Into | None,
        pooled: tuple[torch.Tensor | None, torch.Tensor | None],
        kept: torch.Tensor | None,
    ) -> None:
        """ReLU of what the last convolution gave for x and y; sums added, pooled rows and the map written."""

    def planes(
        self, x: torch.Tensor, y: torch.Tensor, share: torch.Tensor | None, into: Into, scale: float = 1.0
    ) -> None:
        """Sums of two images or maps as they are, (n, C, h, w), times `scale`."""


class Beside(Protocol):
    """Another metric that begins with the same two convolutions."""

    def first_maps(self, some: slice, row: int, column: int, x: torch.Tensor, y: torch.Tensor) -> None:
        """What the second convolution gave before its ReLU, of some pairs, from an even row and column on."""


@dataclass(frozen=True)
class Job:
    """Images or pairs on their way through the network. All tensors hold the same images in the same order."""

    x: torch.Tensor  # (n, 1 or 3, H, W), any dtype; on the network's scale once divided by `data_range`
    y: torch.Tensor | None  # the same, or None where `against` holds its maps or nothing is compared
    against: tuple[torch.Tensor, ...] | None  # (n, C, h, w) each
    shares: tuple[torch.Tensor, ...] | None  # (n, 1, h, w) each, float64
    data_range: float

    def part(self, some: slice) -> Job:
        def cut(tensors: tuple[torch.Tensor, ...] | None) -> tuple[torch.Tensor, ...] | None:
            return None if tensors is None else tuple(t[some] for t in tensors)

        y = None if self.y is None else self.y[some]
        return replace(self, x=self.x[some], y=y, against=cut(self.against), shares=cut(self.shares))


@dataclass(frozen=True)
class Plan:
    """How a budget of memory is shared out."""

    together: int  # pairs (or single images)
    rows: int  # of the image that enter together; its height: all
    columns: int  # of a panel; its width: no panels
    piece: int  # bytes of a convolution's output


def plan(
    height: int, width: int, images: int, network: Network, budget: int, mapped: bool = False, panels: bool = True
) -> Plan:
    """As much as fits into `budget` bytes; at least one pair (`images` 2) or image (1), a band at a time."""
    size, work = network.dtype.itemsize, network.work.itemsize
    piece = max(2**20, min(PIECE if network.device.type == "cpu" else DEVICE_PIECE, budget // 16))
    left = max(budget - 3 * piece, 0)  # a convolution's input, output and working memory
    cells = 3 * 6 * 8 * CHANNELS[-1] // CELL**2 if mapped else 0  # bytes a pixel, with copies
    # Whole: 3 values a pixel of the input and 64 / 4 of the first pooled map are held together.
    whole = height * width * (images * (20 * size + 6 * work) + cells)
    if whole <= left:
        return Plan(left // whole, height, width, piece)
    # A band: of each row that enters 3 values a pixel of the input and 32 of each pooled map, twice: what waits for a
    # stage grows to twice what it takes.
    pixel = images * (2 * (3 + 4 * 32) * size + 6 * work) + cells
    rows = left // (pixel * width) // CELL * CELL
    if rows >= _LEAST_ROWS or mapped or not panels:
        return Plan(1, min(max(rows, _LEAST_ROWS), height), width, piece)
    columns = (left // (pixel * _LEAST_ROWS) - 2 * MARGIN) // CELL * CELL
    return Plan(1, min(_LEAST_ROWS, height), min(max(columns, _LEAST_COLUMNS), width), piece)


def run(
    job: Job,
    network: Network,
    engine: Engine,
    shared: Plan,
    sums: tuple[Sums, ...] | None,
    kept: tuple[torch.Tensor, ...] | None = None,
    local: tuple[LocalMap, ...] | None = None,
    beside: Beside | None = None,
) -> None:
    """Send a job through the network.

    sums: one of the image and one of each stage, added to. kept: (n, C, h, w) of each stage, filled with the maps.
    local: as `sums`, fed with the sums of cells. beside: is shown the first stage's maps; pairs without panels alone.
    """
    height, width = job.x.shape[-2:]
    if sums is not None:
        step = height if shared.rows >= height else shared.rows
        for row in range(0, height, step):
            _image(job, engine, slice(row, min(row + step, height)), sums[0], None if local is None else local[0])
    for start in range(0, width, shared.columns):
        _Panel(job, network, engine, shared, sums, kept, local, start, beside).run()


def _image(job: Job, engine: Engine, rows: slice, sums: Sums, local: LocalMap | None) -> None:
    """Sums of rows of the images themselves."""
    y = job.y if job.against is None else job.against[0]
    assert y is not None
    x, share = job.x[:, :, rows], None if job.shares is None else job.shares[0][:, :, rows]
    cells = None if local is None else local.room(rows.start // CELL, -(-x.shape[2] // CELL))
    scale = 1 / job.data_range
    if job.against is not None:  # kept on the scale of the network
        x, scale = x.to(y.dtype) / job.data_range, 1.0
    engine.planes(x, y[:, :, rows], share, sums.of(slice(0, len(x)), cells, CELL), scale)
    if local is not None:
        local.advance(last=rows.stop == job.x.shape[-2])


class _Panel:
    """Columns [low, high) of a job's images, of which [start, stop) count."""

    def __init__(
        self,
        job: Job,
        network: Network,
        engine: Engine,
        shared: Plan,
        sums: tuple[Sums, ...] | None,
        kept: tuple[torch.Tensor, ...] | None,
        local: tuple[LocalMap, ...] | None,
        start: int,
        beside: Beside | None = None,
    ) -> None:
        self.job, self.network, self.engine, self.plan = job, network, engine, shared
        self.sums, self.kept, self.local, self.beside = sums, kept, local, beside
        height, width = job.x.shape[-2:]
        self.start, self.stop = start, min(start + shared.columns, width)
        self.low, self.high = max(0, start - MARGIN), min(width, self.stop + MARGIN)
        self.ends = self.stop == width
        self.pairs = job.y is not None
        self.images = job.x.shape[0] * (2 if self.pairs else 1)  # x and y in turn
        self.whole = shared.rows >= height
        self.stages: list[_Stage] = []
        width = self.high - self.low
        for number in range(_LAST + 1):
            self.stages.append(_Stage(self, number, height, width))
            height, width = -(-height // 2), -(-width // 2)

    def run(self) -> None:
        first, job = self.stages[0], self.job
        for row in range(0, first.height, self.plan.rows):
            some = slice(row, min(row + self.plan.rows, first.height))
            room = first.room(some.stop - some.start)
            for at, image in enumerate((job.x, job.y)):
                if image is not None:
                    part = image[:, :, some, self.low : self.high].to(self.network.work) / job.data_range
                    room[at :: 2 if self.pairs else 1].copy_(normalised(part))
            first.advance(some.stop - some.start)


class _Stage:
    """The convolutions of one stage, the rows that wait for them, and what follows."""

    def __init__(self, panel: _Panel, number: int, height: int, width: int) -> None:
        self.panel, self.number, self.height, self.width = panel, number, height, width
        self.layers, self.factor = len(STAGES[number]), 2 if number < _LAST else 1
        self.out_height, self.out_width = (-(-side // self.factor) for side in (height, width))
        self.channels = CHANNELS[number + 1]
        cell = CELL >> number
        self.cell = cell if panel.local is not None else 0
        self.align = cell // self.factor if panel.local is not None else 1  # rows that leave end where cells do
        stop = width if panel.ends else (panel.stop - panel.low) >> number
        self.counted = ((panel.start - panel.low) >> number, stop)  # columns
        self.held: torch.Tensor | None = None  # input, rows [top, bottom)
        self.top = self.bottom = self.done = 0  # done: rows that have left

    def room(self, rows: int) -> torch.Tensor:
        """Where `rows` more rows of input are to be written."""
        panel = self.panel
        if self.held is None:
            held = self.height if panel.whole else min(self.height, 2 * panel.plan.rows + 4 * CELL)
            self.held = torch.empty(
                (panel.images, STAGES[self.number][0][1], held, self.width),
                dtype=panel.network.dtype,
                device=panel.job.x.device,
                memory_format=panel.engine.memory_format,
            )
        return self.held[:, :, self.bottom - self.top : self.bottom - self.top + rows]

    def advance(self, rows: int) -> None:
        """`rows` more are there: where they are many, or the last, they go through the convolutions and on."""
        self.bottom += rows
        last = self.bottom == self.height
        waiting = self.bottom - self.done * self.factor
        if not last and waiting < self.panel.plan.rows:
            return
        # a convolution's last row needs one more of its input
        end = self.out_height if last else (self.bottom - self.layers) // self.factor // self.align * self.align
        if end <= self.done:
            return
        after = self.panel.stages[self.number + 1] if self.number < _LAST else None
        out = None if after is None else after.room(end - self.done)
        begin, self.done = self.done, end
        local = None if self.panel.local is None else self.panel.local[self.number + 1]
        cells = None
        if local is not None:
            rows = min(end * self.factor, self.height) - begin * self.factor
            cells = local.room(begin * self.factor // self.cell, -(-rows // self.cell))
        for some, top, bottom, left, right in self._pieces(begin, end):
            self._piece(some, top, bottom, left, right, begin, out, cells)
        if local is not None:
            local.advance(last=last)
        self._forget(last)
        if after is not None:
            after.advance(end - begin)

    def _forget(self, last: bool) -> None:
        """Drop the rows that no convolution needs again."""
        if last:
            self.held = None
            return
        assert self.held is not None
        first = max(0, self.done * self.factor - (self.factor - 1) - self.layers)
        stays = self.held[:, :, first - self.top : self.bottom - self.top].clone()
        self.held[:, :, : stays.shape[2]] = stays
        self.top = first

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[slice, int, int, int, int]]:
        """Images and rows and columns that leave, so that a convolution's output has the size of a piece."""
        panel, most = self.panel, self.panel.plan.piece
        values = self.channels * self.factor**2 * panel.network.dtype.itemsize  # bytes a position that leaves
        pair, count = 2 if panel.pairs else 1, panel.job.x.shape[0]
        image = (end - begin) * self.out_width * values
        if panel.whole and image * pair <= most:
            some = max(1, most // (image * pair))
            for first in range(0, count, some):
                yield slice(first, min(first + some, count)), begin, end, 0, self.out_width
            return
        rows = max(1, most // (self.out_width * values))
        columns = self.out_width
        if rows < 16 and rows < end - begin:
            rows = min(32, end - begin)
            columns = max(16, most // (rows * values))
        rows, columns = (
            _even(size, at_most, self.align) for size, at_most in ((end - begin, rows), (self.out_width, columns))
        )
        for first in range(count):
            for top in range(begin, end, rows):
                for left in range(0, self.out_width, columns):
                    right = min(left + columns, self.out_width)
                    yield slice(first, first + 1), top, min(top + rows, end), left, right

    def _piece(
        self,
        some: slice,
        top: int,
        bottom: int,
        left: int,
        right: int,
        begin: int,
        out: torch.Tensor | None,
        cells: torch.Tensor | None,
    ) -> None:
        """Rows [top, bottom) and columns [left, right) that leave, of some images; `out` begins at row `begin`."""
        panel, f = self.panel, self.factor
        row, column = top * f, left * f
        area = (
            max(row - (f - 1), 0),
            min(bottom * f, self.height),
            max(column - (f - 1), 0),
            min(right * f, self.width),
        )
        each = (2, 2 * some.start, 2 * some.stop) if panel.pairs else (1, some.start, some.stop)
        step, low, high = each
        made: list[torch.Tensor] = []
        if panel.pairs and (bottom - top, right - left) != (self.out_height, self.out_width):
            # one image at a time: rows of it lie side by side, and are not copied
            made = [self._convolved(slice(at, at + 1), area) for at in (low, low + 1)]
        else:
            both = self._convolved(slice(low, high), area)
            made = [both[at::step] for at in range(step)]
        inside = (slice(row, area[1]), slice(panel.low + column, panel.low + area[3]))
        start, stop = (min(max(v - column, 0), area[3] - column) for v in self.counted)
        at = Rectangle(row - area[0], column - area[2], area[1] - row, area[3] - column, start, stop)
        job, into, y, share, kept = panel.job, None, None, None, None
        if panel.sums is not None and stop > start:
            if cells is not None:
                q = self.cell
                cells = cells[
                    some, (row - begin * f) // q : -(-(area[1] - begin * f) // q), column // q : -(-area[3] // q)
                ]
            into = panel.sums[self.number + 1].of(some, cells, self.cell)
            y = made[1] if panel.pairs else None
            if job.against is not None:
                held = job.against[self.number + 1][some]
                y = held[:, :, area[0] : area[1], panel.low + area[2] : panel.low + area[3]]
            if job.shares is not None:
                share = job.shares[self.number + 1][(some, slice(None), *inside)]
        if panel.kept is not None:
            kept = panel.kept[self.number][(some, slice(None), *inside)]
        pooled: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
        if out is not None:
            leaves = out[low:high, :, top - begin : bottom - begin, left:right]
            pooled = (leaves[0::step], leaves[1::step] if panel.pairs else None)
            y = made[1] if panel.pairs else y
        if panel.beside is not None and self.number == 0:
            rows, columns = slice(at.row, at.row + at.rows), slice(at.column, at.column + at.columns)
            panel.beside.first_maps(some, row, column, *(m[:, :, rows, columns] for m in made))
        panel.engine.finish(made[0], y, at, share, into, pooled, kept)

    def _convolved(self, images: slice, area: tuple[int, int, int, int]) -> torch.Tensor:
        """The stage's convolutions of an area (rows, columns), from as much of the input as it needs."""
        assert self.held is not None
        areas = [area]
        for _ in range(self.layers):
            r0, r1, c0, c1 = areas[-1]
            areas.append((max(r0 - 1, 0), min(r1 + 1, self.height), max(c0 - 1, 0), min(c1 + 1, self.width)))
        areas.reverse()
        r0, r1, c0, c1 = areas[0]
        h = self.held[images, :, r0 - self.top : r1 - self.top, c0:c1]
        for layer, (was, now) in enumerate(pairwise(areas)):
            # zeros belong only where the image ends: on a side where it does not, what they spoil is cut off
            ends = [was[i] == now[i] for i in range(4)]
            padding = (int(ends[0] or ends[1]), int(ends[2] or ends[3]))
            h = self.panel.engine.layer(self.panel.network, self.number, layer, h, padding)
            cut = []
            for side in (0, 1):
                spoilt = padding[side] == 1
                first, beyond = int(spoilt and not ends[2 * side]), int(spoilt and not ends[2 * side + 1])
                cut.append(slice(first, h.shape[2 + side] - beyond))
            h = h[:, :, cut[0], cut[1]]
        return h


def _even(size: int, most: int, align: int) -> int:
    """The length of equal parts of `size`, none longer than `most`, but for `align`."""
    length = -(-size // max(1, -(-size // most)))
    return -(-length // align) * align
