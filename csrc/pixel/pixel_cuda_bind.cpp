// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "pixel_cuda.hpp"

namespace semnr {
namespace {

void errors(const ImageArgument& x, const ImageArgument& y, const MaskArgument& valid, int dtype, std::int64_t images,
            const std::array<std::int64_t, 7>& plan, std::int64_t partial, std::int64_t out, std::int64_t stream) {
  pixel_errors_cuda(image(x), image(y), mask(valid), Dtype(dtype), images,
                    {plan[0], plan[1], plan[2], plan[3], plan[4], plan[5] != 0, int(plan[6])},
                    pointer<std::uint64_t>(partial), pointer<double>(out), as_stream(stream));
}

}  // namespace
}  // namespace semnr

void bind_pixel_cuda(py::module_& m) {
  m.def("pixel_errors", &semnr::errors, semnr::WhileLaunching(),
        "MSE then MAE of each image, written to out (2 x N float64).");
  m.attr("PIXEL_THREADS") = semnr::kPixelThreads;
  m.attr("PIXEL_PARTIAL") = semnr::kPixelPartial;
}
