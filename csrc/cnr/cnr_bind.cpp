// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "cnr_cpu.hpp"

namespace semnr {
namespace {

void moments(const ImageArgument& x, const MaskArgument& roi, int dtype, const ShapeArgument& shape,
             const std::array<std::int64_t, 6>& w, int threads, std::int64_t out) {
  const std::int64_t size = shape[0] * shape[1] * w[4] * w[5];
  double* pixels = pointer<double>(out);
  py::gil_scoped_release unlocked;
  window_moments(image(x), mask(roi), Dtype(dtype), sizes(shape), {w[0], w[1], w[2], w[3], w[4], w[5]}, threads,
                 pixels, pixels + size, pixels + 2 * size);
}

}  // namespace
}  // namespace semnr

void bind_cnr(py::module_& m) {
  m.def("window_moments", &semnr::moments,
        "3 x N x C x rows x columns float64: pixels, mean, variance of each window under the region.");
}
