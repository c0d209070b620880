// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "../cpu_features.hpp"
#include "winograd_cpu.hpp"

namespace semnr::winograd_bindings {

void convolution(const ImageArgument& x, const ShapeArgument& shape, const ImageArgument& y, std::int64_t channels,
                 std::int64_t taps, const std::array<std::int64_t, 2>& padding, std::int64_t weights, std::int64_t bias,
                 bool rectified, int threads, int dtype) {
  py::gil_scoped_release unlocked;
  winograd({image(x), sizes(shape), image(y), channels, taps, padding[0], padding[1], pointer<const void>(weights),
            pointer<const float>(bias), rectified, threads, Dtype(dtype)});
}

void bind(py::module_& m) {
  m.def("winograd", &convolution,
        "A convolution of 3 x 3 or 5 x 5 with its bias and ReLU by Winograd's filtering; channels last, float32 or"
        " bfloat16.");
  m.attr("WINOGRAD_PANEL") = kWinogradPanel;
  m.attr("WINOGRAD_BFLOAT16") = winograd_takes_bfloat() && !multiplies_tiles();  // AMX makes the direct sum faster
}

}  // namespace semnr::winograd_bindings
