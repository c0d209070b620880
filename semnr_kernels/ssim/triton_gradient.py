# mypy: disable-error-code="assignment,var-annotated"
"""The gradient of SSIM in Triton, second pass: four fields of the windows, spread back over their pixels.

gx(p) = Σ w (Kx + B x(p) + D e(p)), gy(p) = Σ w (Ky + B y(p) − D e(p)), e = x − y, over the windows that hold p.
The first pass (`triton_windows.walk`) recomputes the moments and stores Kx, Ky, B, D; all of it is float64.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import triton_support


@triton.jit
def fields(m, sx, sy, c1, c2, scale, by_index, by_structure):
    """Kx, Ky, B, D of a window from its moments and the slopes of the loss by its l·c·s and by its c·s."""
    ma, mb = m[0].to(tl.float64), m[1].to(tl.float64)
    mean_e = ma - mb
    total, apart = (m[2].to(tl.float64) - ma * ma - mb * mb, m[3].to(tl.float64) - mean_e * mean_e)
    total, apart = (tl.where(total < 0, 0.0, total) * scale, tl.where(apart < 0, 0.0, apart) * scale)
    ux, uy, ue = (sx.to(tl.float64) + ma, sy.to(tl.float64) + mb, sx.to(tl.float64) - sy.to(tl.float64) + mean_e)
    light, spread = ux * ux + uy * uy + c1, total + c2
    luminance, structure = 1 - ue * ue / light, 1 - apart / spread
    by_luminance, by_both = by_index * structure, by_index * luminance + by_structure
    # luminance by its means; c·s = 1 − apart / spread by the two sums of variances
    slope, bend = 2 * ue / light, 2 * ue * ue / (light * light)
    b = 2 * scale * by_both * apart / (spread * spread)
    d = -2 * scale * by_both / spread
    kx = by_luminance * (bend * ux - slope) - b * ux - d * ue
    ky = by_luminance * (bend * uy + slope) - b * uy + d * ue
    return kx, ky, b, d


# that no kernel is compiled for: see triton_windows.walk
SIZES = ["height", "width", "down", "across", "segments", "rows", "xn", "xc", "xh", "yn", "yc", "yh"]


@triton.jit(do_not_specialize=SIZES)
def _spread(
    x, y, windows, by_absolute, gx, gy, channels, height, width, down, across, segments, rows,
    xn, xc, xh, xw, yn, yc, yh, yw,
    TAPS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A lane walks down one column of pixels; ring[k] holds the pixel that its first window reached k rows ago.

    by_absolute: planes, the loss's slope by |x − y| of each pixel, or None.
    """
    block, plane = tl.program_id(0), tl.program_id(1)
    n, c = (plane // channels).to(tl.int64), (plane % channels).to(tl.int64)
    x, y = x + n * xn + c * xc, y + n * yn + c * yc
    field = tl.num_programs(1).to(tl.int64) * down * across
    lane = block * BLOCK + tl.arange(0, BLOCK)
    active = lane < segments * width
    top, column = (lane // width) * rows, lane % width
    zero = tl.zeros([BLOCK], tl.float64)
    ring = (zero,) * (SIZE * 4)
    for step in range(rows + SIZE - 1):
        row = top + step - (SIZE - 1)
        base = windows + (plane.to(tl.int64) * down + row) * across
        live = active & (row >= 0) & (row < down)
        k0, k1, k2, k3 = zero, zero, zero, zero
        for j in tl.static_range(SIZE):
            at = column - j
            inside = live & (at >= 0) & (at < across)
            k0 += tl.load(base + at, mask=inside, other=0) * TAPS[j]
            k1 += tl.load(base + at + field, mask=inside, other=0) * TAPS[j]
            k2 += tl.load(base + at + 2 * field, mask=inside, other=0) * TAPS[j]
            k3 += tl.load(base + at + 3 * field, mask=inside, other=0) * TAPS[j]
        h = (k0, k1, k2, k3)
        moved = ()
        for k in tl.static_range(SIZE * 4):
            if k < 4:
                moved = moved + (h[k] * TAPS[SIZE - 1],)
            else:
                moved = moved + (ring[k - 4] + h[k % 4] * TAPS[SIZE - 1 - k // 4],)
        ring = moved
        whole = active & (row >= top) & (row < height)
        at = column.to(tl.int64)
        a = tl.load(x + row.to(tl.int64) * xh + at * xw, mask=whole, other=0).to(tl.float64)
        b = tl.load(y + row.to(tl.int64) * yh + at * yw, mask=whole, other=0).to(tl.float64)
        kx, ky = ring[SIZE * 4 - 4], ring[SIZE * 4 - 3]
        kb, kd = ring[SIZE * 4 - 2], ring[SIZE * 4 - 1]
        to_x, to_y = kx + kb * a + kd * (a - b), ky + kb * b - kd * (a - b)
        if by_absolute is not None:
            slope = ((a > b).to(tl.float64) - (a < b).to(tl.float64)) * tl.load(by_absolute + plane)
            to_x += slope
            to_y -= slope
        place = (plane.to(tl.int64) * height + row) * width + column
        if gx is not None:
            tl.store(gx + place, triton_support.narrow(to_x, gx.dtype.element_ty), mask=whole)
        if gy is not None:
            tl.store(gy + place, triton_support.narrow(to_y, gy.dtype.element_ty), mask=whole)


def spread(
    x: torch.Tensor,
    y: torch.Tensor,
    windows: torch.Tensor,
    by_absolute: torch.Tensor | None,
    taps: tuple[float, ...],
    wanted: tuple[bool, bool],
    most: int,
) -> list[torch.Tensor | None]:
    """Gradients by x and y, (N, C, H, W) contiguous, from `windows`, (4, N · C, h, w): Kx, Ky, B, D.

    by_absolute: (N, C) contiguous, the slope by |x − y| of each pixel, or None.

    most: pixels that a lane walks down, about.
    """
    _, c, height, width = x.shape
    _, planes, down, across = windows.shape
    out: list[Any] = [torch.empty(x.shape, dtype=x.dtype, device=x.device) if w else None for w in wanted]
    rows = triton.cdiv(height, triton.cdiv(height, most))
    segments = triton.cdiv(height, rows)
    block = triton_support.lanes(segments * width, 256, 8192)
    triton_support.launch(
        _spread, (triton.cdiv(segments * width, block), planes), x, y, windows, by_absolute, *out, c, height, width,
        down, across, segments, rows, *x.stride(), *y.stride(), TAPS=taps, SIZE=len(taps), BLOCK=block, threads=block,
    )  # fmt: skip
    return out
