// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "profile_cuda.hpp"

namespace semnr {
namespace {

void scores(const ImageArgument& x, const ImageArgument& y, const MaskArgument& signal, const MaskArgument& background,
            int dtype, const ShapeArgument& shape, const std::pair<std::vector<double>, double>& window,
            const std::array<double, 4>& numbers, const std::array<std::int64_t, 3>& walk,
            const std::array<std::int64_t, 3>& scratch, std::int64_t out, std::int64_t stream) {
  const Mask regions[] = {mask(signal), mask(background)};
  profile_scores_cuda(
      image(x), image(y), regions, Dtype(dtype), sizes(shape),
      {window.first, window.second, false, numbers[0], numbers[1], numbers[2], numbers[3]}, {walk[0], walk[1], walk[2]},
      {pointer<double>(scratch[0]), pointer<std::uint64_t>(scratch[1]), pointer<std::uint64_t>(scratch[2])},
      pointer<double>(out), as_stream(stream));
}

}  // namespace
}  // namespace semnr

void bind_profile_cuda(py::module_& m) {
  m.def("profile_scores", &semnr::scores, semnr::WhileLaunching(),
        "5 x N float64: MSE, MAE, pixels in both regions, SSIM, contrast·structure; and the moments of each block.");
}
