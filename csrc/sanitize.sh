#!/bin/sh
# Builds every module with AddressSanitizer and UndefinedBehaviorSanitizer, away from the sources, and runs the suites
# of the native kernels with them. About four minutes on two cores, with SEMNR_ISA=avx2 (that instruction set alone) two.
# Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
out=${TMPDIR:-/tmp}/semnr-sanitized
python=${PYTHON:-python}
SEMNR_SANITIZE=1 $python setup.py -q build --parallel 2 --build-base "$out/objects" --build-lib "$out/lib"

cxx=${CXX:-g++}
export LD_PRELOAD="$($cxx -print-file-name=libasan.so) $($cxx -print-file-name=libubsan.so) $($cxx -print-file-name=libstdc++.so.6)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export PYTHONPATH="$out/lib" PYTHONSAFEPATH=1 SEMNR_REQUIRE=native
$python - "$out" <<'CHECK'
import sys
from semnr_kernels import native_support
assert native_support.module().__file__.startswith(sys.argv[1]), f"not the sanitized module: {native_support.module().__file__}"
CHECK
exec $python -m pytest -q -p no:cacheprovider tests/kernels/test_native.py tests/kernels/test_convolution_cpu.py tests/kernels/ssim/test_ssim.py \
  tests/kernels/pixel tests/kernels/cnr tests/kernels/dists/test_dists_passes.py tests/kernels/profile \
  tests/kernels/noise tests/kernels/residual tests/kernels/transfer tests/kernels/changes \
  -k "(native or test_native or convolution_cpu or cnr_masks or together) and not two_to_the_31_pixels and not baseline_answers and not 32_bits_count" "$@"
