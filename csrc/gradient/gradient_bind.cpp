// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "gradient_cpu.hpp"

namespace semnr::gradient_bindings {

void forward(const ImageArgument& x, const ImageArgument& y, const ImageArgument& weight, int dtype,
             const ShapeArgument& shape, double constant, int threads, std::int64_t map, std::int64_t sums) {
  py::gil_scoped_release unlocked;
  gradient_forward({image(x), image(y), image(weight), constant}, Dtype(dtype), sizes(shape), threads,
                   pointer<void>(map), pointer<double>(sums));
}

void backward(const ImageArgument& x, const ImageArgument& y, const ImageArgument& weight, int dtype,
              const ShapeArgument& shape, double constant, int threads, const ImageArgument& by_map,
              std::int64_t by_sums, std::int64_t out_x, std::int64_t out_y, std::int64_t out_weight) {
  py::gil_scoped_release unlocked;
  gradient_backward({image(x), image(y), image(weight), constant}, Dtype(dtype), sizes(shape), threads, image(by_map),
                    pointer<double>(by_sums), pointer<void>(out_x), pointer<void>(out_y), pointer<void>(out_weight));
}

void bind(py::module_& m) {
  m.def("gradient_forward", &forward,
        "Similarity of Scharr gradients: its map, and its sums over weights (N "
        "x C float64); address 0: not wanted.");
  m.def("gradient_backward", &backward,
        "Gradient to x, y and weight (address 0: not wanted) from the "
        "derivatives by the map or by the sums.");
}

}  // namespace semnr::gradient_bindings
