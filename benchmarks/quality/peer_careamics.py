"""Noise2Void of CAREamics as a peer of bench_denoise.py, run by the interpreter of an environment of its own.

CAREamics wants other versions of torch than semnr's tests have, so:
`python -m venv n2v && n2v/bin/pip install careamics`, then `bench_denoise.py --careamics n2v/bin/python`.
One network is trained on all the noisy images and on nothing else (as a user with single frames would), with the blind
spot stretched along the scan line (structN2V), whose pixels share their noise.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from careamics import CAREamist
from careamics.config import create_advanced_n2v_config

EPOCHS = 60


def main() -> None:
    images, out = np.load(sys.argv[1])["images"].astype(np.float32), Path(sys.argv[2])
    config = create_advanced_n2v_config(
        "peer",
        data_type="array",
        axes="SYX",
        patch_size=(64, 64),
        batch_size=16,
        num_epochs=int(sys.argv[3]) if len(sys.argv) > 3 else EPOCHS,
        augmentations=["x_flip", "y_flip"],  # never turned: the noise runs along the lines
        struct_n2v_axes="horizontal",
        struct_n2v_span=5,
        num_workers=0,
        seed=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        network = CAREamist(config, work_dir=folder, enable_progress_bar=False)
        network.train(train_data=images)
        found, _ = network.predict(images, tile_size=(256, 256), tile_overlap=(48, 48))
    denoised = np.concatenate([np.asarray(x).reshape(-1, *images.shape[1:]) for x in found])
    np.savez(out, denoised=denoised, version=version("careamics"))


if __name__ == "__main__":
    main()
