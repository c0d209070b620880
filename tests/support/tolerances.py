"""Every bound of the suites, with its reason. Judge: the float64 reference, unless a test says otherwise."""

# SSIM of a backend against the float64 reference, mean and map.
SSIM_MEAN = 1e-7  # float32 arithmetic on shifted moments; pedestal, random, flat and gradient images
SSIM_MAP = 1e-5
SSIM_MEAN_ANY = 1e-5  # noise-free two-level lines: float32 error grows as (local range)² / C2
SSIM_MAP_ANY = 2e-4
SSIM_GRADIENT_BIAS = 2e-7  # of the gradient's length: float32 arithmetic, averaged over the pixels
SSIM_MEAN_FLOAT64 = 1e-9  # precision="float64": only the order of summation differs

# Our definitions against independent libraries.
PEER_FLOAT64 = 1e-9  # same formula in float64: rounding only
PEER_PRESET = 1e-6  # presets by name

# Pixel errors.
MSE_FLOAT_RELATIVE = 1e-12  # float64 accumulation, another order
# Gradients against the float64 reference.
GRADIENT_RELATIVE = 1e-5  # of the largest reference gradient, float32 arithmetic
GRADIENT_ZERO = 1e-7  # absolute, where the reference gradient is zero

# A map of DISTS from bands: the same sums over a window of 48² positions in another order, so an ulp of float64
# for each term (2304), times 8 for the cancellation in variance = E[v*v] - E[v]**2. Convolutions of another CPU
# add up otherwise.
DISTS_MAP_ORDER = 8 * 48**2 * 2.0**-52
