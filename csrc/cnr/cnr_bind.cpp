// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "cnr_cpu.hpp"
#include "histogram_cpu.hpp"

namespace semnr {
namespace {

void moments(const ImageArgument& x, int dtype, const ShapeArgument& shape, const std::vector<ImageArgument>& regions,
             const std::array<std::int64_t, 2>& window, const std::array<std::int64_t, 2>& stride, int threads,
             std::int64_t out) {
  std::vector<Image> of;
  for (const ImageArgument& region : regions) of.push_back(image(region));
  py::gil_scoped_release unlocked;
  cnr_moments(image(x), Dtype(dtype), sizes(shape), of, {{window[0], window[1]}, {stride[0], stride[1]}}, threads,
              pointer<double>(out));
}

void count(std::int64_t values, std::int64_t n, std::int64_t edges, std::int64_t bins, int threads, std::int64_t out) {
  py::gil_scoped_release unlocked;
  histogram(pointer<const double>(values), n, pointer<const double>(edges), bins, threads, pointer<std::int64_t>(out));
}

}  // namespace
}  // namespace semnr

void bind_cnr(py::module_& m) {
  m.def("cnr_moments", &semnr::moments,
        "Pixels, mean and variance of regions by windows: regions x 3 x N x C "
        "x rows x columns float64.");
  m.def("histogram", &semnr::count, "Counts of n float64 values between bins + 1 float64 edges, int64.");
}
