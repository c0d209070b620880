// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "ssim_cpu.hpp"

namespace semnr::ssim_bindings {

// reflect, float64 / c1, c2, range, unbiased
SsimOptions options(const std::vector<double>& taps, const std::array<bool, 2>& flags,
                    const std::array<double, 4>& numbers, int threads) {
  return {taps.data(), int(taps.size()), flags[0], flags[1], numbers[0], numbers[1], numbers[2], numbers[3], threads};
}

void forward(const ImageArgument& x, const ImageArgument& y, const MaskArgument& valid, int dtype,
             const ShapeArgument& shape, const std::vector<double>& taps, const std::array<bool, 2>& flags,
             const std::array<double, 4>& numbers, int threads, std::int64_t rows, bool components, std::int64_t map,
             std::int64_t coverage, std::int64_t absolute) {
  const std::int64_t planes = shape[0] * shape[1];
  double* row = pointer<double>(rows);
  const SsimOutputs out{row,
                        row + planes,
                        components ? row + 2 * planes : nullptr,
                        components ? row + 3 * planes : nullptr,
                        components ? row + 4 * planes : nullptr,
                        pointer<void>(map),
                        pointer<double>(coverage),
                        pointer<double>(absolute),
                        absolute == 0 ? nullptr : pointer<double>(absolute) + planes,
                        absolute == 0 ? nullptr : pointer<double>(absolute) + 2 * planes};
  py::gil_scoped_release unlocked;
  ssim_forward(image(x), image(y), mask(valid), Dtype(dtype), sizes(shape), options(taps, flags, numbers, threads),
               out);
}

// The score of one image of h x w pixels side by side: the usual call, with as little around it as there can be.
double flat(std::int64_t x, std::int64_t y, std::int64_t h, std::int64_t w, int dtype, const std::vector<double>& taps,
            const std::array<bool, 2>& flags, const std::array<double, 4>& numbers, int threads) {
  double score = 0, contrast_structure = 0;
  const SsimOutputs out{&score, &contrast_structure, nullptr, nullptr, nullptr, nullptr, nullptr};
  py::gil_scoped_release unlocked;
  ssim_forward({pointer<void>(x), {h * w, h * w, w, 1}}, {pointer<void>(y), {h * w, h * w, w, 1}}, {}, Dtype(dtype),
               {1, 1, h, w}, options(taps, flags, numbers, threads), out);
  return score;
}

void backward(const ImageArgument& x, const ImageArgument& y, int dtype, const ShapeArgument& shape,
              const std::vector<double>& taps, const std::array<bool, 2>& flags, const std::array<double, 4>& numbers,
              int threads, std::int64_t by_rows, std::int64_t by_map, bool absolute, std::int64_t out_x,
              std::int64_t out_y) {
  const double* by = pointer<double>(by_rows);
  py::gil_scoped_release unlocked;
  ssim_backward(image(x), image(y), Dtype(dtype), sizes(shape), options(taps, flags, numbers, threads), by,
                by + shape[0] * shape[1], pointer<void>(by_map), absolute ? by + 2 * shape[0] * shape[1] : nullptr,
                pointer<void>(out_x), pointer<void>(out_y));
}

void bind(py::module_& m) {
  m.def("ssim_forward", &forward,
        "Rows (2 or, with components, 5) x N x C float64: score, contrast·structure, luminance, contrast, structure. "
        "`absolute` (0: not wanted): N x C mean |x - y|, N x C mean (x - y)², the smallest and the largest "
        "pixel.");
  m.def("ssim_flat", &flat, "Score of one h x w image whose pixels lie side by side.");
  m.def("ssim_backward", &backward,
        "Gradient to x and y (address 0: not wanted) from the derivatives by each window's score and structure, and, "
        "with `absolute`, by each pixel's |x - y|: 2 or 3 x N x C float64.");
  m.attr("SSIM_BACKWARD_SIZE") = semnr::kSsimBackwardSize;
}

}  // namespace semnr::ssim_bindings
