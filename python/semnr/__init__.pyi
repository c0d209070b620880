"""The public names of semnr and the module that each comes from.

`__init__.py` reads this file: what stands here is what type checkers and editors see and what is imported on first
use, one list for both. lazy_loader takes relative imports alone; a name of `semnr_kernels` comes by a module of ours.
"""

from . import anomaly as anomaly
from . import classify as classify
from . import compat as compat
from . import denoising as denoising
from . import errors as errors
from . import guarding as guarding
from . import klarf as klarf
from . import leakage as leakage
from . import losses as losses
from . import metrics as metrics
from . import metrology as metrology
from . import stress as stress
from . import synth as synth
from . import tiles as tiles
from . import torchmetrics as torchmetrics
from . import wafers as wafers
from . import weights as weights
from .checking import check as check
from .errors import BackendUnavailable as BackendUnavailable
from .errors import SemnrError as SemnrError
from .errors import TileError as TileError
from .errors import WeightsUnavailable as WeightsUnavailable
from .guarding import DEFAULT_RULES as DEFAULT_RULES
from .guarding import Signal as Signal
from .guarding import Verdict as Verdict
from .guarding import guard as guard
from .metrics import Result as Result
from .metrics import Sigma as Sigma
from .metrics import backends as backends
from .metrics import cnr as cnr
from .metrics import cnr_map as cnr_map
from .metrics import dists as dists
from .metrics import explain as explain
from .metrics import fsim as fsim
from .metrics import lpips as lpips
from .metrics import mae as mae
from .metrics import ms_ssim as ms_ssim
from .metrics import mse as mse
from .metrics import otsu_masks as otsu_masks
from .metrics import psnr as psnr
from .metrics import ssim as ssim
from .metrics import use_backend as use_backend
from .metrics import worst_windows as worst_windows
from .pipeline import denoise as denoise
from .profiles import Profile as Profile
from .profiles import Reference as Reference
from .profiles import profile as profile
from .reporting import report as report
from .runs.comparison import compare as compare
from .scoring import Run as Run
from .scoring import score as score
from .stress import learn_rules as learn_rules
from .stress import stress_test as stress_test
from .tiles import open_tiles as open_tiles
from .trust.dose import dose_equivalence as dose_equivalence
from .trust.residual import ResidualTests as ResidualTests
from .trust.residual import residual_tests as residual_tests
from .trust.single_frame import TransferBound as TransferBound
from .trust.single_frame import transfer_bound as transfer_bound
from .trust.transfer import evidence as evidence
from .trust.two_frames import NoReference as NoReference
from .trust.two_frames import without_reference as without_reference
from .trust.worth import DoseEquivalence as DoseEquivalence

__version__: str
__all__: list[str]
