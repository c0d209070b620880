"""Denoising with classical models and a learned one, tile by tile with the result of the whole."""

from __future__ import annotations

from semnr.denoising.frames import denoise_frames, drift, estimate_noise_frames, fuse
from semnr.denoising.lazy import denoised
from semnr.denoising.models import MODELS, Model
from semnr.denoising.onnx import export_onnx
from semnr.denoising.run import Denoised, denoise
from semnr.noise.model import NoiseModel, estimate_noise
from semnr.noise.stabilise import Stabiliser

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
