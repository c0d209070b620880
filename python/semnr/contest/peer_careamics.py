"""Noise2Void and Noise2Noise of CAREamics, run as a script by the interpreter of an environment that has it.

CAREamics wants other versions of packages than semnr, so it is never imported beside it. Arguments: an .npz with the
settings and the images, and the .npz to write. Noise2Void is trained on the images that it denoises, with its blind
spot stretched along the scan line (structN2V), whose pixels share their noise; Noise2Noise on pairs of frames.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from importlib.metadata import version

import numpy as np


def main(given: str, made: str) -> None:
    from careamics import CAREamist
    from careamics.config import create_advanced_n2n_config, create_advanced_n2v_config

    with np.load(given) as found:
        settings = json.loads(str(found["settings"]))
        train, images = found["train"].astype(np.float32), found["images"].astype(np.float32)
        target = found["target"].astype(np.float32) if "target" in found.files else None
    side = settings.get("tile", 128)
    common = {
        "data_type": "array", "axes": "SYX", "patch_size": (64, 64), "batch_size": 16,
        "num_epochs": settings["epochs"], "augmentations": ["x_flip", "y_flip"],  # never turned: noise runs along lines
        "num_workers": 0, "seed": settings["seed"],
    }  # fmt: skip
    if target is None:
        config = create_advanced_n2v_config("peer", struct_n2v_axes="horizontal", struct_n2v_span=5, **common)
    else:
        config = create_advanced_n2n_config("peer", **common)
    with tempfile.TemporaryDirectory() as folder:
        network = CAREamist(config, work_dir=folder, enable_progress_bar=False)
        network.train(train_data=train, **({} if target is None else {"train_data_target": target}))
        before = _seconds()
        predicted, _ = network.predict(images, tile_size=(side, side), tile_overlap=(48, 48))
        seconds = _seconds() - before
    out = np.concatenate([np.asarray(x).reshape(-1, *images.shape[1:]) for x in predicted])
    np.savez(made, denoised=out, version=version("careamics"), seconds=seconds)


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(*sys.argv[1:3])
