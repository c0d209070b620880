// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "pixel_cpu.hpp"

namespace semnr::pixel_bindings {

void errors(const ImageArgument& x, const ImageArgument& y, const MaskArgument& valid, int dtype,
            const ShapeArgument& shape, int threads, std::uintptr_t out) {
  double* square = pointer<double>(out);
  py::gil_scoped_release unlocked;
  pixel_errors(image(x), image(y), mask(valid), Dtype(dtype), sizes(shape), threads, square, square + shape[0]);
}

// One image of n pixels side by side: the usual call, with as little around it as there can be.
double flat(std::int64_t x, std::int64_t y, std::int64_t n, int dtype, int threads, bool absolute) {
  double square = 0, distance = 0;
  py::gil_scoped_release unlocked;
  pixel_errors({pointer<void>(x), {n, n, n, 1}}, {pointer<void>(y), {n, n, n, 1}}, {}, Dtype(dtype), {1, 1, 1, n},
               threads, &square, absolute ? &distance : nullptr);
  return absolute ? distance : square;
}

void gradient(const ImageArgument& x, const ImageArgument& y, const MaskArgument& valid, int dtype,
              const ShapeArgument& shape, int threads, std::uintptr_t weights, std::uintptr_t out_x,
              std::uintptr_t out_y) {
  py::gil_scoped_release unlocked;
  pixel_gradient(image(x), image(y), mask(valid), Dtype(dtype), sizes(shape), threads, pointer<double>(weights),
                 pointer<double>(weights) + shape[0], pointer<void>(out_x), pointer<void>(out_y));
}

void bind(py::module_& m) {
  m.def("pixel_errors", &errors, "MSE then MAE of each image, written to out (2 x N float64).");
  m.def("pixel_flat", &flat, "MSE, or MAE where `absolute`, of one image of n pixels side by side.");
  m.def("pixel_gradient", &gradient,
        "Gradient of Σ weights[0]·MSE + weights[1]·MAE (weights: 2 x N float64) to x and y; address 0: not wanted.");
}

}  // namespace semnr::pixel_bindings
