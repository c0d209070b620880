// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "ssim_cuda.hpp"

namespace semnr {
namespace {

using Numbers = std::array<double, 4>;  // C1, C2, L, n / (n - 1)
using Plan = std::array<std::int64_t, 4>;
using Window = std::pair<std::vector<double>, double>;  // taps, weight

SsimPlan plan_of(const Plan& v) { return {v[0], v[1], v[2], v[3]}; }

SsimCudaOptions options(const Window& window, bool reflect, const Numbers& n) {
  return {window.first, window.second, reflect, n[0], n[1], n[2], n[3]};
}

void forward(const ImageArgument& x, const ImageArgument& y, int dtype, const ShapeArgument& shape,
             const Window& window, bool reflect, const Numbers& numbers, const Plan& plan, std::int64_t partial,
             std::int64_t out, std::int64_t map, std::int64_t stream) {
  ssim_forward_cuda(image(x), image(y), Dtype(dtype), sizes(shape), options(window, reflect, numbers), plan_of(plan),
                    pointer<double>(partial), pointer<double>(out), pointer<float>(map), as_stream(stream));
}

void backward(const ImageArgument& x, const ImageArgument& y, int dtype, const ShapeArgument& shape,
              const Window& window, const Numbers& numbers, const Plan& plan, std::int64_t slopes, std::int64_t map,
              std::int64_t out_x, std::int64_t out_y, std::int64_t stream) {
  const double* const by = pointer<double>(slopes);
  ssim_backward_cuda(image(x), image(y), Dtype(dtype), sizes(shape), options(window, false, numbers), plan_of(plan), by,
                     by + shape[0] * shape[1], pointer<float>(map), pointer<void>(out_x), pointer<void>(out_y),
                     as_stream(stream));
}

// flags: float64 moments; masks or components. outputs: partial, out, map, fields; slopes: by rows, by map.
void general(const ImageArgument& x, const ImageArgument& y, const MaskArgument& valid, int dtype,
             const ShapeArgument& shape, const Window& window, bool reflect, const std::array<bool, 2>& flags,
             const Numbers& numbers, const Plan& plan, const std::array<std::int64_t, 2>& slopes,
             const std::array<std::int64_t, 4>& outputs, std::int64_t stream) {
  ssim_general_cuda(image(x), image(y), mask(valid), Dtype(dtype), sizes(shape), options(window, reflect, numbers),
                    flags[0], plan_of(plan), pointer<double>(slopes[0]), pointer<double>(slopes[1]),
                    {flags[1], pointer<double>(outputs[0]), pointer<double>(outputs[1]), pointer<void>(outputs[2]),
                     pointer<double>(outputs[3])},
                    as_stream(stream));
}

void spread(const ImageArgument& x, const ImageArgument& y, int dtype, const ShapeArgument& shape, const Window& window,
            const Numbers& numbers, const Plan& plan, std::int64_t fields, std::int64_t out_x, std::int64_t out_y,
            std::int64_t stream) {
  ssim_spread_cuda(image(x), image(y), Dtype(dtype), sizes(shape), options(window, false, numbers), plan_of(plan),
                   pointer<double>(fields), pointer<void>(out_x), pointer<void>(out_y), as_stream(stream));
}

}  // namespace
}  // namespace semnr

void bind_ssim_cuda(py::module_& m) {
  m.def("ssim_forward", &semnr::forward, semnr::WhileLaunching(),
        "Score and contrast·structure, 2 x N x C float64, and the map.");
  m.def("ssim_backward", &semnr::backward, semnr::WhileLaunching(),
        "Gradient to x and y (address 0: not wanted) in one launch.");
  m.def("ssim_general", &semnr::general, semnr::WhileLaunching(),
        "Any window, mask, component and precision; or the fields of a gradient.");
  m.def("ssim_spread", &semnr::spread, semnr::WhileLaunching(), "Gradient to x and y from the fields.");
}
