// Binding only: addresses, strides and sizes in, no logic.
#include <optional>

#include "../bind.hpp"
#include "profile_cpu.hpp"

namespace semnr::profile_bindings {

void scores(const ImageArgument& x, const ImageArgument& y, const MaskArgument& signal, const MaskArgument& background,
            int dtype, const ShapeArgument& shape, const std::vector<double>& taps, const std::array<bool, 2>& flags,
            const std::array<double, 4>& numbers, int threads, std::int64_t out,
            const std::optional<ImageArgument>& noisy, double least, std::int64_t noisy_out) {
  const SsimOptions options{taps.data(), int(taps.size()), flags[0],   flags[1], numbers[0],
                            numbers[1],  numbers[2],       numbers[3], threads};
  const Mask regions[kProfileRegions] = {mask(signal), mask(background)};
  NoisyProfile beside{{}, least, pointer<double>(noisy_out)};
  if (noisy) beside.image = image(*noisy);
  py::gil_scoped_release unlocked;
  profile_scores(image(x), image(y), regions, Dtype(dtype), sizes(shape), options, pointer<double>(out),
                 noisy ? &beside : nullptr);
}

void bind(py::module_& m) {
  m.def(
      "profile_scores", &scores,
      "N x 12 float64: MSE, MAE, SSIM, pixels in both regions, mean and variance of y, then pixels, mean and variance "
      "of each region. With a noisy image N x 5 beside: its MSE, contrast over its noise, retention, the lowest of "
      "both.");
  m.attr("PROFILE_ROW") = semnr::kProfileRow;
  m.attr("PROFILE_NOISY_ROW") = semnr::kProfileNoisyRow;
  m.attr("PROFILE_CELL") = semnr::kProfileCell;
}

}  // namespace semnr::profile_bindings
