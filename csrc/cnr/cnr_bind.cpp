// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "cnr_cpu.hpp"
#include "histogram_cpu.hpp"
#include "otsu_cpu.hpp"

namespace semnr::cnr_bindings {

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

void pixels(const ImageArgument& x, int dtype, const ShapeArgument& shape, const MaskArgument& valid, int threads,
            std::int64_t pivot, std::int64_t bad) {
  py::gil_scoped_release unlocked;
  otsu_pixels(image(x), Dtype(dtype), sizes(shape), mask(valid), threads, pointer<double>(pivot),
              pointer<std::int64_t>(bad));
}

void smooth(const ImageArgument& x, int dtype, const ShapeArgument& shape, const MaskArgument& valid,
            std::int64_t pivot, const std::vector<double>& taps, int threads, std::int64_t out, std::int64_t low,
            std::int64_t high) {
  py::gil_scoped_release unlocked;
  otsu_smooth(image(x), Dtype(dtype), sizes(shape), mask(valid), pointer<const double>(pivot), taps, threads,
              pointer<double>(out), pointer<double>(low), pointer<double>(high));
}

void split(std::int64_t values, const MaskArgument& valid, const ShapeArgument& shape, std::int64_t at, int threads,
           std::int64_t bright, std::int64_t dark) {
  py::gil_scoped_release unlocked;
  otsu_split(pointer<const double>(values), mask(valid), sizes(shape), pointer<const double>(at), threads,
             pointer<std::uint8_t>(bright), pointer<std::uint8_t>(dark));
}

void guard(std::int64_t bright, std::int64_t dark, const ShapeArgument& shape, std::int64_t radius, int threads,
           std::int64_t out, std::int64_t pixels) {
  py::gil_scoped_release unlocked;
  guard_band(pointer<const std::uint8_t>(bright), pointer<const std::uint8_t>(dark), sizes(shape), radius, threads,
             pointer<std::uint8_t>(out), pointer<std::int64_t>(pixels));
}

void bind(py::module_& m) {
  m.def("cnr_moments", &moments,
        "Pixels, mean and variance of regions by windows: regions x 3 x N x C "
        "x rows x columns float64.");
  m.def("histogram", &count, "Counts of n float64 values between bins + 1 float64 edges, int64.");
  m.def("otsu_pixels", &pixels, "Lowest finite valid pixel and number of non-finite ones of N images.");
  m.def("otsu_smooth", &smooth, "Smoothed images around their pivots and their extremes: N x H x W float64.");
  m.def("otsu_split", &split, "Pixels above a threshold and the others: N x H x W bytes each.");
  m.def("guard_band", &guard, "Two regions, each without what is near the other: 2 x N x H x W bytes.");
}

}  // namespace semnr::cnr_bindings
