"""The mean of the weights of several trainings that began with the same weights.

M. Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", arXiv 2203.05482. Trainings at a low rate end in one basin, and their mean has a lower error than each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..denoising import weights as files
from ..denoising.network import SemDenoiser


def average(weights: Sequence[str | Path], out: str | Path) -> str:
    """Write the mean of the weights of several denoisers.

    Parameters
    ----------
    weights : sequence of str or Path
        Shipped names or .safetensors files of one layout; at least two.
    out : str or Path
        The .safetensors file that is written. Its noise family spans theirs.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    ValueError
        Fewer than two weights, layouts that differ, or an `out` that exists.
    WeightsUnavailable
        As `semnr.denoise(model=...)`.

    Examples
    --------
    >>> digest = semnr.training.average(["semnr-base-1", "semnr-base"], tmp / "mean.safetensors")
    >>> len(digest)
    64
    """
    loaded = [files.load(name) for name in weights]
    if len(loaded) < 2:
        raise ValueError(f"weights has {len(loaded)} entries; accepted: at least 2")
    layout = loaded[0].network.layout
    for name, other in zip(weights, loaded, strict=True):
        if other.network.layout != layout:
            raise ValueError(
                f"weights has {str(name)!r}, of layout {other.network.layout}; accepted: {layout}, as the first has it"
            )
    if Path(out).exists():
        raise ValueError(f"out is {out}, which exists; accepted: a new file")
    states = [one.network.state_dict() for one in loaded]
    mean = SemDenoiser(layout)
    mean.load_state_dict({key: sum(state[key].double() for state in states) / len(states) for key in states[0]})
    family = {
        key: (min(one.family[key][0] for one in loaded), max(one.family[key][1] for one in loaded))
        for key in loaded[0].family
        if all(key in one.family for one in loaded)
    }
    about = {**loaded[0].about, "name": Path(out).stem, "mean_of": [one.sha256 for one in loaded]}
    return files.save(mean, Path(out), family=family, about=about)
