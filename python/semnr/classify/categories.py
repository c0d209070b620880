"""The ten categories of the published set, and what others have measured on it."""

from __future__ import annotations

from dataclasses import dataclass

# Folders of the published set (Aversa et al., Scientific Data 5:180172, 2018, doi 10.1038/sdata.2018.172), in order.
CATEGORIES = (
    "Biological",
    "Fibres",
    "Films_Coated_Surface",
    "MEMS_devices_and_electrodes",
    "Nanowires",
    "Particles",
    "Patterned_surface",
    "Porous_Sponge",
    "Powder",
    "Tips",
)
UNKNOWN = "unknown"


@dataclass(frozen=True)
class PublishedRow:
    """What somebody else published of the ten categories. None of it was measured here.

    Attributes
    ----------
    method : str
        Network and training.
    accuracy, precision, recall : float or None
        In per cent, as published.
    split : str
        How training and test images were divided, where that is said.
    source : str
        Where it is published.

    Examples
    --------
    >>> semnr.classify.PUBLISHED[0].accuracy
    90.0
    """

    method: str
    accuracy: float
    precision: float | None
    recall: float | None
    split: str
    source: str


PUBLISHED = (
    PublishedRow(
        "Inception-v3, transfer", 90.0, 80.0, 90.0, "random",
        "Modarres et al., Sci. Rep. 7:13282, 2017, doi 10.1038/s41598-017-13565-z; about",
    ),
    PublishedRow(
        "ResNet-50, augmentation, progressive resizing", 94.5, 94.2, 91.8, "not stated",
        "reference not found by us; figures as they were named to us",
    ),
    PublishedRow(
        "DenseNet-201 features of patches, SVM", 97.09, None, None, "random",
        "Barua et al., Neural Comput. Appl. 35:22253, 2023, doi 10.1007/s00521-023-08825-1",
    ),
)  # fmt: skip
