// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "lpips_cpu.hpp"

namespace semnr::lpips_bindings {

void differences(const ImageArgument& x, const ImageArgument& y, const ShapeArgument& shape, std::int64_t linear,
                 double eps, std::int64_t each, int threads) {
  py::gil_scoped_release unlocked;
  lpips_differences(
      {image(x), image(y), sizes(shape), pointer<const float>(linear), float(eps), pointer<float>(each), threads});
}

void bind(py::module_& m) {
  m.def("lpips_differences", &differences,
        "The weighted squares of what two float32 maps, channels last, differ by at each position.");
}

}  // namespace semnr::lpips_bindings
