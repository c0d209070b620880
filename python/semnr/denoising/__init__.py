"""Denoising with honest classical models, tile by tile with the result of the whole."""

from __future__ import annotations

from semnr.denoising._lazy import denoised
from semnr.denoising._models import MODELS, Model
from semnr.denoising._noise import NoiseModel, estimate_noise
from semnr.denoising._run import Denoised, denoise
from semnr.denoising._vst import Stabiliser

__all__ = ["MODELS", "Denoised", "Model", "NoiseModel", "Stabiliser", "denoise", "denoised", "estimate_noise"]
