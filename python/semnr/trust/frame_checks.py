"""Are noisy frames of a site what estimates need: on each other, of one gain, with noise of their own?"""

from __future__ import annotations

import torch

from semnr_kernels.transfer.bands import smooth
from semnr_kernels.transfer.blocks import block_sums
from semnr_kernels.transfer.reference import ratio

# A shift of δ adds about δ² · mean |∇s|² / 2 to the MSE: reported from here on, if it is 4 standard errors wide.
MAX_SHIFT, SURE = 0.1, 4.0
MAX_DEPENDENCE = 0.1  # correlation of the noise of two frames
MAX_GAIN = 0.02  # difference of gain between two frames
_CALM = 1.0  # px: Gaussian before gradients are taken
_HARM = 0.02  # share of the MSE that a shift must add to be spoken of: less than 0.1 dB
_FLAT = 0.3  # share of the pixels that count as free of edges


def fluctuation(v: torch.Tensor, w: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """`v` less its local mean, Gaussian of 8 px: brightness that drifts over the tile is not structure."""
    centre = (v * w).sum((2, 3), keepdim=True) / w.sum((2, 3), keepdim=True).clamp(min=1)
    v = (v - centre) * w
    return (v - smooth(v, (8.0,), valid)[0]) * w


def suspects(
    frames: list[torch.Tensor],
    fluctuations: list[torch.Tensor],
    d: torch.Tensor,
    w: torch.Tensor,
    valid: torch.Tensor | None,
    side: int,
    umse: torch.Tensor,
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Do the frames lie on each other, have one gain, and noise of their own?"""
    x, n = frames[0], len(d)
    texts: list[list[str]] = [[] for _ in range(n)]
    shifts, gains, dependences = [], [], []
    calm, calm_x = (smooth((v * w).mean(1, keepdim=True), (_CALM,), valid)[0] for v in (d, x))
    for k, frame in enumerate(frames[1:], start=1):
        name = ("second_frame", "third_frame")[k - 1]
        difference = calm_x - smooth((frame * w).mean(1, keepdim=True), (_CALM,), valid)[0]
        shift, shift_se, harm = _moved(calm, difference, w, side)
        gain, gain_se = _witnessed_gain(fluctuations[0], fluctuations[k], fluctuations[3 - k : 4 - k], side)
        dependence = _dependence(x, frame, calm, w)
        shifts.append(shift)
        gains.append(gain)
        dependences.append(dependence)
        for i in range(n):
            size, off = float(shift[i].norm()), abs(float(gain[i]) - 1)
            alike = float(dependence[i])
            if alike > MAX_DEPENDENCE:
                texts[i].append(f"the noise of {name} is that of noisy to {alike:.0%}: not independent")
            if size > MAX_SHIFT and size > SURE * float(shift_se[i]) and float(harm[i]) > _HARM * abs(float(umse[i])):
                texts[i].append(f"{name} is shifted by ({shift[i, 0]:.2f}, {shift[i, 1]:.2f}) px: register it first")
            elif off > MAX_GAIN and off > SURE * float(gain_se[i]) and not alike > MAX_DEPENDENCE:
                texts[i].append(f"{name} has {float(gain[i]):.3f} times the contrast of noisy")
    worst = torch.stack(shifts).norm(dim=2).argmax(0)
    at = torch.arange(n, device=worst.device)
    shift, gain = torch.stack(shifts)[worst, at], torch.stack(gains)
    checks = {"shift_y": shift[:, 0], "shift_x": shift[:, 1], "gain": gain[(gain - 1).abs().argmax(0), at]}
    return {**checks, "dependence": torch.stack(dependences).amax(0)}, ["; ".join(text) for text in texts]


def _witnessed_gain(
    x: torch.Tensor, frame: torch.Tensor, witness: list[torch.Tensor], side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrast of `frame` over that of `x` and its standard error. Against a third frame noise cancels; between two
    of one dose it is the same in both."""
    if witness:
        gain, se, _ = ratio((frame * witness[0]).sum(1), (x * witness[0]).sum(1), side)
        return gain, se
    square, se, _ = ratio(frame.square().sum(1), x.square().sum(1), side)
    gain = square.clamp(min=0).sqrt()
    return gain, se / (2 * gain)


def _moved(calm: torch.Tensor, difference: torch.Tensor, w: torch.Tensor, side: int) -> tuple[torch.Tensor, ...]:
    """(N, 2) shift in px (down, right) of a frame, from noisy − frame = shift · gradient by least squares, its
    standard error along it, and what it adds to the MSE. Along straight lines, where nothing tells, it is 0."""
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    gy = (calm[:, :, 2:, 1:-1] - calm[:, :, :-2, 1:-1]) / 2
    gx = (calm[:, :, 1:-1, 2:] - calm[:, :, 1:-1, :-2]) / 2
    weight, diff = w[inner], difference[inner]

    def sums(product: torch.Tensor) -> torch.Tensor:
        return block_sums((product * weight)[:, 0], side)

    normal = torch.stack([sums(gy * gy), sums(gy * gx), sums(gy * gx), sums(gx * gx)], -1)  # (N, blocks, 4)
    right = torch.stack([sums(gy * diff), sums(gx * diff)], -1)
    blocks = normal.shape[1]
    normal = normal.view(len(calm), blocks, 2, 2)
    inverse = torch.linalg.pinv(normal.sum(1), rtol=0.05, hermitian=True)
    shift = (inverse @ right.sum(1)[..., None])[..., 0]
    left = right - (normal @ shift[:, None, :, None])[..., 0]
    spread = torch.einsum("nbi,nbj->nij", left, left) * blocks / max(blocks - 1, 1)
    covariance = inverse @ spread @ inverse
    unit = shift / shift.norm(dim=1, keepdim=True).clamp(min=1e-300)
    harm = torch.einsum("ni,nij,nj->n", shift, normal.sum(1), shift) / weight.sum((1, 2, 3)).clamp(min=1)
    return shift, torch.einsum("ni,nij,nj->n", unit, covariance, unit).clamp(min=0).sqrt(), harm


def _dependence(x: torch.Tensor, frame: torch.Tensor, calm: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Correlation of the noise of two frames: second differences across the lines, away from edges."""
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    slope = (calm[:, :, 2:, 1:-1] - calm[:, :, :-2, 1:-1]).square()
    slope += (calm[:, :, 1:-1, 2:] - calm[:, :, 1:-1, :-2]).square()
    whole = torch.where(w[inner] > 0, slope, torch.inf)
    flat = (whole <= torch.quantile(whole.flatten(1)[:, ::7], _FLAT, dim=1)[:, None, None, None]).double()
    bend_x, bend_a = (v[:, :, :-2, 1:-1] - 2 * v[inner] + v[:, :, 2:, 1:-1] for v in (x, frame))
    dims = (1, 2, 3)
    both = (bend_x * bend_a * flat).sum(dims)
    each = 0.5 * ((bend_x.square() + bend_a.square()) * flat).sum(dims)
    error = SURE / (flat.sum(dims).clamp(min=1) / 3).sqrt()  # neighbours are not independent
    found = both / each.clamp(min=1e-300)
    return torch.where(found.abs() > error, found, 0.0)
