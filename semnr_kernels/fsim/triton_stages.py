# mypy: disable-error-code="assignment"
"""The kernels of FSIM in Triton: what happens to an image before, between and after the transforms of torch.fft.

Planes lie in memory row after row, complex ones as pairs of numbers; an image of a batch is the grid's second axis.
"""

from __future__ import annotations

import triton
import triton.language as tl

BITS = 11  # of the median that a pass settles
BINS = 2**BITS
_BINS = tl.constexpr(BINS)
_PI = tl.constexpr(3.141592653589793)


@triton.jit
def _exact(v, WIDE: tl.constexpr):
    """A pixel as a number whose difference to a near one is exact."""
    if WIDE:
        number = v.to(tl.float64)
    elif v.dtype.is_int():
        number = v.to(tl.int32)
    else:
        number = v.to(tl.float32)
    return number


@triton.jit(do_not_specialize=[
    "first_image", "height", "width", "down", "across", "before", "sn", "sc", "sh", "vn", "vh", "vw", "fn", "fc",
])  # fmt: skip
def sample(
    image, valid, fill, scale, luma, base, chroma, first_image, height, width, down, across, factor, before,
    sn, sc, sh, sw, vn, vh, vw, fn, fc,
    CHANNELS: tl.constexpr, YIQ: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, WORK: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Luminance less that of the first pixel, which goes to base[image]; I and Q. Either output may be None.

    Images go to the places from `first_image` on, which are those of a batch of several tensors.

    Means over squares of factor² pixels, on the 0-255 scale; zeros beyond the border. Pixels that are not
    `valid` take those of `fill`.
    """
    n = tl.program_id(1).to(tl.int64)
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = lane < down * across
    top, left = (lane // across) * factor - before, (lane % across) * factor - before
    per_sample = tl.load(scale).to(WORK)
    zero = tl.zeros([BLOCK], WORK)
    y, i, q, origin = zero, zero, zero, per_sample * 0
    for c in tl.static_range(CHANNELS):
        plane = image + n * sn + c * sc
        first = _exact(tl.load(plane), WIDE)
        if MASKED:
            first = tl.where(tl.load(valid + n * vn) != 0, first, tl.load(fill + n * fn + c * fc))
        total = zero
        for a in range(factor):
            for b in range(factor):
                row, column = (top + a).to(tl.int64), (left + b).to(tl.int64)
                inside = live & (row >= 0) & (row < height) & (column >= 0) & (column < width)
                v = _exact(tl.load(plane + row * sh + column * sw, mask=inside, other=0), WIDE)
                if MASKED:
                    counts = tl.load(valid + n * vn + row * vh + column * vw, mask=inside, other=1) != 0
                    hidden = inside & (counts == 0)
                    v = tl.where(
                        hidden, tl.load(fill + n * fn + c * fc + row * width + column, mask=hidden, other=0), v
                    )
                total += (v - first).to(WORK)
        total, begun = total * per_sample, first.to(WORK) * (per_sample * (factor * factor))
        if CHANNELS == 1:
            y, origin = total, begun
        else:
            y, origin = y + YIQ[c] * total, origin + YIQ[c] * begun
            if chroma is not None:
                i += YIQ[3 + c] * (total + begun)
                q += YIQ[6 + c] * (total + begun)
    to = n + first_image
    if luma is not None:
        tl.store(luma + to * down * across + lane, y, mask=live)
        if tl.program_id(0) == 0:
            tl.store(base + to, origin)
    if chroma is not None:
        tl.store(chroma + to * 2 * down * across + lane, i, mask=live)
        tl.store(chroma + (to * 2 + 1) * down * across + lane, q, mask=live)


@triton.jit(do_not_specialize=["h", "w"])
def gradient(luma, base, out, h, w, BLOCK: tl.constexpr):
    """Modulus of Scharr's gradient; the pixel that was taken off comes back beyond the border, as −base."""
    n = tl.program_id(1).to(tl.int64) * h * w
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = lane < h * w
    row, column = lane // w, lane % w
    beyond = -tl.load(base + tl.program_id(1))
    gx, gy = tl.zeros([BLOCK], luma.dtype.element_ty), tl.zeros([BLOCK], luma.dtype.element_ty)
    for i in tl.static_range(-1, 2):
        for j in tl.static_range(-1, 2):
            if i * i + j * j > 0:
                inside = live & (row + i >= 0) & (row + i < h) & (column + j >= 0) & (column + j < w)
                v = tl.where(inside, tl.load(luma + n + lane + i * w + j, mask=inside, other=0), beyond)
                gx += v * (j * (10 - 7 * i * i) / 16)  # 3, 10, 3
                gy += v * (i * (10 - 7 * j * j) / 16)
    tl.store(out + n + lane, tl.sqrt(gx * gx + gy * gy), mask=live)


# --- log-Gabor filters ----------------------------------------------------------------------------------------


@triton.jit
def _frequency(i, n, WORK: tl.constexpr):
    """Cycles a pixel of bin `i` of `n`; the divisor is even, as in the definition."""
    return tl.where(i < (n + 1) // 2, i, i - n).to(WORK) * (1 / (n - n % 2).to(WORK))


@triton.jit
def _opposite(i, n):
    """The bin of the opposite frequency."""
    return tl.where(i == 0, 0, n - i)


@triton.jit
def _tile(rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Row and column numbers of a program's tile of a plane, and which of them are inside."""
    across = (columns + COLUMNS - 1) // COLUMNS
    i = ((tl.program_id(0) // across) * ROWS + tl.arange(0, ROWS))[:, None]
    j = ((tl.program_id(0) % across) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    return i, j, (i < rows) & (j < columns)


@triton.jit
def _radius(u, v, FILTERS: tl.constexpr):
    """1 / ρ and log2 ρ, any numbers where ρ is 0, and the low-pass filter, 0 there."""
    square = u * u + v * v
    there = square > 0
    square = tl.where(there, square, tl.zeros_like(square) + 1)
    log = tl.log2(square) / 2
    low = 1 / (1 + tl.exp2(FILTERS[5] * (log - FILTERS[4])))
    return tl.rsqrt(square), log, tl.where(there, low, tl.zeros_like(low))


@triton.jit
def _angle(u, v, inverse, cosine, sine, SERIES: tl.constexpr):
    """Square of the angle, 0 to π, between frequency (u, v) and the orientation (cosine, sine); inverse: 1 / ρ.

    No inverse function: acos²(1 − z/2) = Σ 2 z^k / (k² binomial(2k, k)), taken at half the angle to the nearer end of
    the orientation's line, where z is below 0.59.
    """
    along, aside = (u * cosine - v * sine) * inverse, (v * cosine + u * sine) * inverse
    c = tl.abs(along)
    # 2 (1 − cos δ/2), all of its digits: 1 − cos δ is sin² δ / (1 + cos δ)
    z = aside * aside / ((1 + c) * (1 + tl.sqrt(c / 2 + 0.5)))
    total = tl.zeros_like(z)
    for k in tl.static_range(len(SERIES)):  # the last coefficient comes first
        total = total * z + SERIES[k]
    total = total * (8 * z)
    back = _PI - tl.sqrt(total)
    return tl.where(along >= 0, total, back * back)


@triton.jit
def _gabor(log, scale, angle, FILTERS: tl.constexpr):
    """One filter, before the low-pass."""
    distance = log + (FILTERS[0] + scale * FILTERS[1])  # log2 of ρ over the filter's centre
    return tl.exp2(-(FILTERS[2] * distance * distance + FILTERS[3] * angle))


@triton.jit(do_not_specialize=["h", "w"])
def powers(
    partial, turns, h, w,
    SCALES: tl.constexpr, FILTERS: tl.constexpr, SERIES: tl.constexpr, WORK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """partial[orientation, program] = Σ (even part of all scales)², Σ (finest scale)². turns: cosine and sine each.

    Over half the plane: what stands in the other half is opposite.
    """
    turn = turns + tl.program_id(1) * 2
    cosine, sine = tl.load(turn).to(WORK), tl.load(turn + 1).to(WORK)
    i, j, inside = _tile(h, w // 2 + 1, ROWS, COLUMNS)
    u, v = _frequency(i, h, WORK), _frequency(j, w, WORK)
    inverse, log, low = _radius(u, v, FILTERS)
    low = tl.where(inside, low, tl.zeros_like(low))
    angle = _angle(u, v, inverse, cosine, sine, SERIES)
    u, v = _frequency(_opposite(i, h), h, WORK), _frequency(_opposite(j, w), w, WORK)
    opposite = _angle(u, v, inverse, cosine, sine, SERIES)
    total, first, second = tl.zeros_like(low), tl.zeros_like(low), tl.zeros_like(low)
    for s in tl.static_range(SCALES):
        here, there = _gabor(log, s, angle, FILTERS), _gabor(log, s, opposite, FILTERS)
        total += (here + there) / 2
        if s == 0:
            first, second = here, there
    total, first, second = (total * low).to(tl.float64), (first * low).to(tl.float64), (second * low).to(tl.float64)
    twice = (j > 0) & (j * 2 != w)  # the opposite lies in the other half
    both = total * total
    finest = first * first + tl.where(twice, second * second, tl.zeros_like(second))
    to = partial + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) * 2
    tl.store(to, tl.sum(tl.where(twice, both * 2, both)))
    tl.store(to + 1, tl.sum(finest))


@triton.jit(do_not_specialize=["programs"])
def gains(partial, out, programs, PER: tl.constexpr, BLOCK: tl.constexpr):
    """out[orientation] = the noise threshold of a median amplitude of 1, from what `powers` left."""
    rows = partial + tl.program_id(0) * programs * 2
    even, finest = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for start in range(0, programs, BLOCK):
        at = start + tl.arange(0, BLOCK)
        even += tl.load(rows + at * 2, mask=at < programs, other=0)
        finest += tl.load(rows + at * 2 + 1, mask=at < programs, other=0)
    one = tl.zeros([1], tl.float64)
    gain = tl.sqrt((one + tl.sum(even)) / (one + tl.sum(finest))) * PER
    tl.store(out + tl.program_id(0) + tl.arange(0, 1), gain)


@triton.jit(do_not_specialize=["h", "w", "orientation", "scale"])
def multiply(
    half, out, turns, h, w, orientation, scale,
    COUNT: tl.constexpr, FILTERS: tl.constexpr, SERIES: tl.constexpr, WORK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[o, k, image] = spectrum × filter of `orientation` + o and `scale` + k over the pixels, for COUNT scales.

    half: the spectrum of a real image, (images, h, w // 2 + 1): the rest mirrors it, conjugated. Over the pixels, as
    the inverse transform that follows leaves that out.
    """
    turn = turns + (orientation + tl.program_id(2)) * 2
    cosine, sine = tl.load(turn).to(WORK), tl.load(turn + 1).to(WORK)
    n = tl.program_id(1).to(tl.int64)
    i, j, inside = _tile(h, w, ROWS, COLUMNS)
    u, v = _frequency(i, h, WORK), _frequency(j, w, WORK)
    inverse, log, low = _radius(u, v, FILTERS)
    angle = _angle(u, v, inverse, cosine, sine, SERIES)
    kept = w // 2 + 1
    mirrored = j >= kept
    place = tl.where(mirrored, _opposite(i, h) * kept + w - j, i * kept + j)
    even, odd = complex_load(half + n * h * kept * 2, place, inside)
    even, odd = even / (h * w).to(WORK), tl.where(mirrored, -odd, odd) / (h * w).to(WORK)
    at = tl.expand_dims(i * w + j, -1) * 2 + tl.arange(0, 2)
    first = tl.program_id(2).to(tl.int64) * COUNT
    for k in tl.static_range(COUNT):
        gain = _gabor(log, (scale + k).to(WORK), angle, FILTERS) * low
        to = out + ((first + k) * tl.num_programs(1) + n) * h * w * 2 + at
        tl.store(to, tl.join(even * gain, odd * gain), mask=tl.expand_dims(inside, -1))


@triton.jit
def complex_load(plane, at, live):
    """Real and imaginary part, 0 where not live."""
    both = tl.expand_dims(at, -1) * 2 + tl.arange(0, 2)
    return tl.split(tl.load(plane + both, mask=tl.expand_dims(live, -1), other=0))


# --- the median of the finest scale's amplitudes --------------------------------------------------------------
# Squares of amplitudes order as their bits do, and as the amplitudes. A pass counts the values that share the bits
# found so far by their next 11 bits; a sum of integers is exact in any order, so atomics may add it up.


@triton.jit(do_not_specialize=["images", "apart", "tiles", "shift", "width"])
def count(response, medians, histogram, images, apart, pixels, tiles, shift, width, BLOCK: tl.constexpr):
    """histogram[n, bits] += number of squares |response|² whose bits begin with medians[n, 0].

    n counts the images of one orientation after another, which begin `apart` planes from one another.
    """
    WORK: tl.constexpr = response.dtype.element_ty
    BITS: tl.constexpr = tl.int64 if WORK.primitive_bitwidth == 64 else tl.int32
    n = tl.program_id(1).to(tl.int64)
    plane = (n // images) * apart + n % images
    begins = tl.load(medians + n * 2)
    counts = tl.zeros([_BINS], tl.int32)
    for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
        at = tile * BLOCK + tl.arange(0, BLOCK)
        even, odd = complex_load(response + plane * pixels * 2, at, at < pixels)
        # a NaN, whatever its sign, must stay within the histogram
        bits = tl.abs(tl.fma(even, even, odd * odd)).to(BITS, bitcast=True)
        same = (at < pixels) & ((bits >> (shift + width)) == begins)
        key = (bits >> shift) & ((1 << width) - 1)
        counts += tl.histogram(key.to(tl.int32), _BINS, mask=same)
    tl.atomic_add(histogram + n * _BINS + tl.arange(0, _BINS), counts, mask=counts > 0, sem="relaxed")


@triton.jit(do_not_specialize=["pixels", "width"])
def settle(histogram, medians, pixels, width):
    """medians[image] = the bits of the lower median up to this pass, number of values below them. Clears histogram."""
    n = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, _BINS)
    counts = tl.load(histogram + n * _BINS + lane)
    below = tl.load(medians + n * 2 + 1)
    settled = tl.sum((tl.cumsum(counts).to(tl.int64) + below <= (pixels - 1) // 2).to(tl.int32))
    tl.store(medians + n * 2, (tl.load(medians + n * 2) << width) + settled)
    tl.store(medians + n * 2 + 1, below + tl.sum(tl.where(lane < settled, counts, 0)))
    tl.store(histogram + n * _BINS + lane, tl.zeros([_BINS], tl.int32))


# --- phase congruency and similarity --------------------------------------------------------------------------


@triton.jit(do_not_specialize=["orientation"])
def accumulate(
    medians, gains, energy, amplitude, responses, pixels, orientation, EPS: tl.constexpr, SCALES: tl.constexpr,
    TOGETHER: tl.constexpr, COUNT: tl.constexpr, ORIENTATIONS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds the energy above the noise and the amplitudes of COUNT orientations; the last leaves phase congruency in
    energy. amplitude: None where there are no others.

    responses: planes (COUNT, TOGETHER scales, images), one tensor after another.
    """
    WORK: tl.constexpr = energy.dtype.element_ty
    n, images = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = at < pixels
    zero = tl.zeros([BLOCK], WORK)
    energies, amplitudes = zero, zero
    if amplitude is not None:
        begun = live & (orientation > 0)
        amplitudes = tl.load(amplitude + n * pixels + at, mask=begun, other=0)
        energies = tl.load(energy + n * pixels + at, mask=begun, other=0)
    for o in tl.static_range(COUNT):
        median = tl.load(medians + (o * images + n) * 2)
        if WORK.primitive_bitwidth == 32:
            median = median.to(tl.int32)
        threshold = tl.load(gains + orientation + o).to(WORK) * tl.sqrt(median.to(WORK, bitcast=True))
        sum_even, sum_odd = zero, zero
        parts = ()
        for s in tl.static_range(SCALES):
            plane = (o * TOGETHER + s % TOGETHER) * images + n
            even, odd = complex_load(responses[s // TOGETHER] + plane * pixels * 2, at, live)
            parts = parts + (even, odd)
            sum_even += even
            sum_odd += odd
            amplitudes += tl.sqrt(even * even + odd * odd)
        length = tl.sqrt(sum_even * sum_even + sum_odd * sum_odd) + EPS
        mean_even, mean_odd = sum_even / length, sum_odd / length
        above = sum_even * mean_even + sum_odd * mean_odd - threshold
        for s in tl.static_range(SCALES):
            above -= tl.abs(parts[2 * s] * mean_odd - parts[2 * s + 1] * mean_even)
        energies += tl.where(above < 0, zero, above)
    last = orientation + COUNT == ORIENTATIONS
    congruency = (energies + EPS) / (amplitudes + EPS)
    tl.store(energy + n * pixels + at, tl.where(last, congruency, energies), mask=live)
    if amplitude is not None:
        tl.store(amplitude + n * pixels + at, amplitudes, mask=live & (last == 0))


@triton.jit
def _similarity(a, b, CONSTANT: tl.constexpr):
    """(2ab + T) / (a² + b² + T), 1 for equal ones; the same both ways round."""
    total, apart = a + b, a - b
    apart = apart * apart
    return 1 - 2 * apart / (total * total + apart + 2 * CONSTANT)


@triton.jit(do_not_specialize=["tiles", "x_images", "y_images"])
def compare(
    pcx, pcy, gx, gy, cx, cy, sx, sy, partial, maps, pixels, tiles, x_images, y_images,
    T: tl.constexpr, WORK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """partial[image, program] = Σ similarity · weight, Σ weight; maps: similarity, weight and its factors, or None.

    pc, g, c, s: phase congruency, gradient, I and Q, share of valid pixels of x and y; the last two may be None.
    x_images, y_images: 1 or 0, whether an image of the one meets each of the other.
    """
    program, programs, n = tl.program_id(0), tl.num_programs(0), tl.program_id(1).to(tl.int64)
    plane = tl.num_programs(1).to(tl.int64) * pixels
    x, y = n * x_images * pixels, n * y_images * pixels
    top, bottom = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for tile in range(program, tiles, programs):
        at = tile * BLOCK + tl.arange(0, BLOCK)
        live = at < pixels
        a = tl.load(pcx + x + at, mask=live, other=0).to(WORK)
        b = tl.load(pcy + y + at, mask=live, other=0).to(WORK)
        weight = tl.where((a > b) | (a != a), a, b)
        s_pc = _similarity(a, b, T[0])
        s_g = _similarity(
            tl.load(gx + x + at, mask=live, other=0).to(WORK), tl.load(gy + y + at, mask=live, other=0).to(WORK), T[1]
        )
        local = s_pc * s_g
        s_c = local
        if cx is not None:
            s_c = tl.full([BLOCK], 1, WORK)
            for k in tl.static_range(2):
                a = tl.load(cx + (2 * x + k * pixels) + at, mask=live, other=0).to(WORK)
                b = tl.load(cy + (2 * y + k * pixels) + at, mask=live, other=0).to(WORK)
                s_c = s_c * _similarity(a, b, T[2 + k])
            s_c = tl.exp(T[4] * tl.log(tl.abs(s_c)))
            local = local * s_c
        share = live.to(WORK)
        if sx is not None:
            share = tl.minimum(share, tl.load(sx + x + at, mask=live, other=0).to(WORK))
        if sy is not None:
            share = tl.minimum(share, tl.load(sy + y + at, mask=live, other=0).to(WORK))
        weight = weight * share
        top += (local * weight).to(tl.float64)
        bottom += weight.to(tl.float64)
        if maps is not None:
            to = maps + n * pixels + at
            tl.store(to, local, mask=live)
            tl.store(to + plane, weight, mask=live)
            tl.store(to + 2 * plane, s_pc, mask=live)
            tl.store(to + 3 * plane, s_g, mask=live)
            if cx is not None:
                tl.store(to + 4 * plane, s_c, mask=live)
    to = partial + (n * programs + program) * 2
    tl.store(to, tl.sum(top))
    tl.store(to + 1, tl.sum(bottom))


@triton.jit(do_not_specialize=["programs"])
def pool(partial, out, programs, BLOCK: tl.constexpr):
    """out[image] = Σ similarity · weight over Σ weight, of all programs of `compare`, BLOCK or fewer."""
    at = tl.arange(0, BLOCK)
    rows = partial + (tl.program_id(0).to(tl.int64) * programs + at) * 2
    top = tl.sum(tl.load(rows, mask=at < programs, other=0))
    tl.store(out + tl.program_id(0), top / tl.sum(tl.load(rows + 1, mask=at < programs, other=0)))
