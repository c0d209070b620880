"""Which tiles hold what normal tiles do not: a model of normal tiles, its threshold, and its scores over a wafer.

`fit` makes a model of normal tiles, `calibrate` chooses its threshold, `score` flags the tiles of a stream. `METHODS`
holds the ways in which a threshold can be chosen, `BACKBONES` the networks of the feature models.
"""

from .backbones import BACKBONES
from .calibrating import Calibration, calibrate
from .export import export_onnx
from .fitting import fit
from .measured import Measured
from .model import AnomalyModel, load
from .thresholds import (
    METHODS,
    Threshold,
    auroc,
    average_precision,
    choose_threshold,
    generalisation,
    precision_recall,
)
from .wafer_run import score

__all__ = [
    "BACKBONES",
    "METHODS",
    "AnomalyModel",
    "Calibration",
    "Measured",
    "Threshold",
    "auroc",
    "average_precision",
    "calibrate",
    "choose_threshold",
    "export_onnx",
    "fit",
    "generalisation",
    "load",
    "precision_recall",
    "score",
]
