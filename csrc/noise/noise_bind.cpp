// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "../pool.hpp"
#include "noise_cpu.hpp"

namespace semnr::noise_bindings {

using WindowArgument = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, double>;  // as NoiseWindow

void fit(const std::vector<std::vector<WindowArgument>>& models, const std::vector<std::array<double, 3>>& limits,
         int threads, std::int64_t rows) {
  std::vector<std::vector<NoiseWindow>> windows;
  for (const auto& model : models) {
    windows.emplace_back();
    for (const WindowArgument& v : model) {
      windows.back().push_back(
          {pointer<float>(std::get<0>(v)), std::get<1>(v), std::get<2>(v), std::get<3>(v), std::get<4>(v)});
    }
  }
  py::gil_scoped_release unlocked;
  parallel(threads, std::int64_t(windows.size()), [&](std::int64_t k) {
    const auto& v = limits[std::size_t(k)];
    noise_fit(windows[std::size_t(k)], {v[0], v[1], v[2]}, pointer<double>(rows) + k * kNoiseRow);
  });
}

void bind(py::module_& m) {
  m.def("noise_fit", &fit, "The noise law of sets of windows, a row a set.");
  m.attr("NOISE_BINS") = kNoiseBins;
  m.attr("NOISE_LAGS") = kNoiseLags;
  m.attr("NOISE_ROW") = kNoiseRow;
}

}  // namespace semnr::noise_bindings
