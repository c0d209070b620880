"""Denoising with classical models and a learned one: tile by tile, with the result of the whole image.

`MODELS` holds the classical models by name; learned ones are named by their weights ("semnr-small", or a path).
"""

from __future__ import annotations

from ..noise.model import NoiseModel, estimate_noise
from ..noise.stabilise import Stabiliser
from .frames import drift, estimate_noise_frames, fuse
from .fused import denoise_frames
from .lazy import denoised
from .model import Model
from .models import MODELS
from .onnx import export_onnx
from .result import Denoised
from .run import denoise

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
