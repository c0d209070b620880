"""Denoising with classical models and a learned one, tile by tile with the result of the whole."""

from __future__ import annotations

from semnr.denoising._frames import denoise_frames, drift, estimate_noise_frames, fuse
from semnr.denoising._lazy import denoised
from semnr.denoising._models import MODELS, Model
from semnr.denoising._noise import NoiseModel, estimate_noise
from semnr.denoising._onnx import export_onnx
from semnr.denoising._run import Denoised, denoise
from semnr.denoising._vst import Stabiliser

__all__ = [
    "MODELS",
    "Denoised",
    "Model",
    "NoiseModel",
    "Stabiliser",
    "denoise",
    "denoise_frames",
    "denoised",
    "drift",
    "estimate_noise",
    "estimate_noise_frames",
    "export_onnx",
    "fuse",
]
