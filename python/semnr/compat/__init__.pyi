from . import piq as piq
from . import pytorch_msssim as pytorch_msssim
from . import skimage as skimage
from . import torchmetrics as torchmetrics
