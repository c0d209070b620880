"""The noise law of SEM images: fitted, stabilised, and held against those that a network was trained on."""

from .model import NoiseModel, estimate_noise, fit_noise
from .stabilise import Stabiliser

__all__ = ["NoiseModel", "Stabiliser", "estimate_noise", "fit_noise"]
