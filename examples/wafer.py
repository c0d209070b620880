# %% [markdown]
# # A wafer, from KLARF to report
#
# An inspection tool writes a KLARF file: a list of defects with their places on the wafer, and an image of each. The
# images are denoised before somebody classifies the defects. Did the denoiser keep the defects?
#
# This example makes such a lot (KLARF 1.2, one TIFF a defect, a clean image of each site), denoises it, scores it,
# and writes the verdict, the report, and a KLARF file of the flagged sites for the review tool.

# %%
import tempfile
from pathlib import Path

import numpy as np
import tifffile

import semnr
from common import need, row, settings, show
from semnr.klarf import Defect, ImageRef, InspectedWafer, Klarf, read_klarf, write_klarf

need("matplotlib")
given = settings()
dies, side = (6, 128) if given.small else (12, 192)
folder = Path(tempfile.mkdtemp(prefix="semnr-wafer-"))
lot, clean = folder / "lot", folder / "clean"
lot.mkdir()
clean.mkdir()

# %%
# the lot as the inspection tool left it
wafer = semnr.synth.SyntheticWafer(dies, 2, side, pattern=("lines", "holes"), defect_rate=0.6, seed=5)
width, height = (1000 * s for s in wafer.die_size_mm)
layout = semnr.wafers.Wafer(pitch_um=(width, height), center_um=(width / 2, height / 2))
defects = []
for tile in wafer.tiles():
    place, name = tile.key.meta, f"site{tile.key.index:03d}.tif"
    tifffile.imwrite(lot / name, tile.noisy)
    tifffile.imwrite(clean / name, tile.reference)
    at = {"die_x": place["die_x"], "die_y": place["die_y"], "x_um": place["x_um"], "y_um": place["y_um"]}
    defects.append(Defect(tile.key.index + 1, **at, class_number=0, images=(ImageRef(name),)))
inspected = InspectedWafer("W01", layout, defects=tuple(defects))
found = Klarf("1.2", lot_id="LOT1", wafers=(inspected,), classes={0: "unclassified"})
write_klarf(lot / "lot.klarf", found)
print(f"{len(defects)} sites on {dies} dies in lot.klarf")

# %%
# two denoisers, each judged: the verdict, a report, and the flagged sites
for model, options in (("semnr-small", {"texture": 1.0}), ("gaussian", {"sigma": 2.0})):
    run = folder / model
    denoised = semnr.denoising.denoised(lot / "lot.klarf", model=model, **options)
    scored = semnr.score(
        denoised, noisy=lot / "lot.klarf", reference=clean, out=run, label=model,
        metrics=("psnr", "ssim", "fsim", "cnr"), rules=semnr.guarding.alone(), wafer=layout,
    )  # fmt: skip
    report = semnr.report(scored, run / "report.html")
    scored.write_klarf(run / "flagged.klarf")
    flagged = len(scored.flagged())
    verdict = scored.verdict
    fired = ", ".join(signal.name for signal in verdict.fired) or "nothing"
    print(f"{model}: {verdict.outcome}; fired: {fired}; {flagged} sites flagged")
    transfer = np.nanmean(scored.profile().column("transfer"))
    print(f"  mean T {transfer:.2f}; {report.name} has {report.stat().st_size // 1024} KiB")

# %%
# the first flagged site of the Gaussian, as the review tool would find it
back = read_klarf(folder / "gaussian" / "flagged.klarf")
site = back.wafers[0].defects[0]
why = back.classes[site.class_number]
print(f"first flagged: die ({site.die_x}, {site.die_y}) at {site.x_um:.0f}, {site.y_um:.0f} µm, class {why!r}")
source = semnr.open_tiles(lot / "lot.klarf")
key = next(k for k in source if (k.meta["die_x"], k.meta["die_y"]) == (site.die_x, site.die_y))
noisy = source.read(key)
blurred = semnr.denoise(noisy, model="gaussian", sigma=2.0)
show(row({"noisy": noisy, "gaussian": blurred, "removed": noisy.astype(float) - blurred}), "wafer", given.out)
assert scored.verdict.outcome == "failed"
