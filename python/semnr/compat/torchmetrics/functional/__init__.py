"""The functions of `torchmetrics.functional` that semnr has; see `.image`."""

from .image import (
    deep_image_structure_and_texture_similarity,
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

__all__ = [
    "deep_image_structure_and_texture_similarity",
    "multiscale_structural_similarity_index_measure",
    "peak_signal_noise_ratio",
    "structural_similarity_index_measure",
]
