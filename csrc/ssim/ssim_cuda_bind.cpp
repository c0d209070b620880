// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "ssim_cuda.hpp"

namespace semnr {
namespace {

using Numbers = std::array<double, 4>;  // C1, C2, L, n / (n - 1)
using Plan = std::array<std::int64_t, 4>;
using Walk = std::array<std::int64_t, 3>;               // threads, strips, blocks
using Apart = std::array<std::int64_t, 3>;              // addresses: partial, extents, out; 0: not wanted
using Window = std::pair<std::vector<double>, double>;  // taps, weight

SsimApart apart_of(const Apart& v) { return {pointer<double>(v[0]), pointer<float>(v[1]), pointer<double>(v[2])}; }

SsimPlan plan_of(const Plan& v) { return {v[0], v[1], v[2], v[3]}; }

SsimCudaOptions options(const Window& window, bool reflect, const Numbers& n) {
  return {window.first, window.second, reflect, n[0], n[1], n[2], n[3]};
}

void forward(const ImageArgument& x, const ImageArgument& y, int dtype, const ShapeArgument& shape,
             const Window& window, bool reflect, const Numbers& numbers, const Walk& walk, std::int64_t partial,
             std::int64_t out, std::int64_t map, const Apart& apart, std::int64_t extent, std::int64_t stream) {
  const Stream to = as_stream(stream);
  ssim_forward_cuda(image(x), image(y), Dtype(dtype), sizes(shape), options(window, reflect, numbers),
                    {walk[0], walk[1], walk[2]}, pointer<double>(partial), pointer<double>(out), pointer<float>(map),
                    apart_of(apart), to);
  if (extent == 0) return;
  SsimTold told{pointer<double>(extent), nullptr, true, pointer<float>(apart[1]), walk[2], true};
  told.extent = pointer<double>(extent) + 2;
  ssim_told_cuda(nullptr, nullptr, Dtype(dtype), sizes(shape), pointer<double>(out), told, to);
}

void backward(const ImageArgument& x, const ImageArgument& y, int dtype, const ShapeArgument& shape,
              const Window& window, const Numbers& numbers, const Plan& plan, std::int64_t slopes, std::int64_t map,
              bool absolute, std::int64_t out_x, std::int64_t out_y, std::int64_t stream) {
  const std::int64_t planes = shape[0] * shape[1];
  const double* const by = pointer<double>(slopes);
  ssim_backward_cuda(image(x), image(y), Dtype(dtype), sizes(shape), options(window, false, numbers), plan_of(plan), by,
                     by + planes, pointer<float>(map), absolute ? by + 2 * planes : nullptr, pointer<void>(out_x),
                     pointer<void>(out_y), as_stream(stream));
}

// Passes over contiguous images, of which only addresses change from call to call: the short path of ssim/cuda.py.
class Plain {
 public:
  Plain(int dtype, const ShapeArgument& shape, const Window& window, const Numbers& numbers, const Walk& walk,
        const Plan& plan, const std::array<double, 2>& weights)
      : dtype_(Dtype(dtype)),
        shape_(sizes(shape)),
        options_(options(window, false, numbers)),
        walk_{walk[0], walk[1], walk[2]},
        plan_(plan_of(plan)),
        weights_{weights[0], weights[1]} {}

  // rows: 2 x planes float64; told, loss: SsimTold; apart: SsimApart, of which the extents are SsimTold's too.
  void forward(std::int64_t x, std::int64_t y, std::int64_t partial, std::int64_t rows, std::int64_t told,
               std::int64_t loss, const Apart& apart, std::int64_t extent_blocks, std::int64_t stream) const {
    const Stream to = as_stream(stream);
    double* const out = pointer<double>(rows);
    const SsimApart beside = apart_of(apart);
    ssim_forward_cuda(at(x), at(y), dtype_, shape_, options_, walk_, pointer<double>(partial), out, nullptr, beside,
                      to);
    if (told == 0) return;
    SsimTold asked{pointer<double>(told), pointer<void>(loss), true, beside.extents, extent_blocks};
    asked.measured = beside.partial != nullptr;
    asked.absolute = beside.out;
    asked.weights = weights_;
    ssim_told_cuda(pointer<void>(x), pointer<void>(y), dtype_, shape_, out, asked, to);
  }

  // slope: one float32.
  void backward(std::int64_t x, std::int64_t y, std::int64_t slope, std::int64_t out_x, std::int64_t out_y,
                std::int64_t stream) const {
    ssim_loss_backward_cuda(at(x), at(y), dtype_, shape_, options_, plan_, weights_, pointer<void>(slope), true,
                            pointer<void>(out_x), pointer<void>(out_y), as_stream(stream));
  }

 private:
  Image at(std::int64_t address) const {
    const std::int64_t plane = shape_.h * shape_.w;
    return {pointer<void>(address), {shape_.c * plane, plane, shape_.w, 1}};
  }

  Dtype dtype_;
  Shape shape_;
  SsimCudaOptions options_;
  SsimWalk walk_;
  SsimPlan plan_;
  SsimWeights weights_;
};

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
        "Score and contrast·structure, 2 x N x C float64, and the map; `apart`: means of |x - y| and (x - y)², 2 x N x "
        "C; "
        "`extent`: mean score, range, least and greatest pixel.");
  m.def("ssim_backward", &semnr::backward, semnr::WhileLaunching(),
        "Gradient to x and y (address 0: not wanted) in one launch.");
  m.def("ssim_general", &semnr::general, semnr::WhileLaunching(),
        "Any window, mask, component and precision; or the fields of a gradient.");
  py::class_<semnr::Plain>(m, "SsimPlain", "Passes over contiguous images of one shape.")
      .def(py::init<int, const semnr::ShapeArgument&, const semnr::Window&, const semnr::Numbers&, const semnr::Walk&,
                    const semnr::Plan&, const std::array<double, 2>&>())
      .def("forward", &semnr::Plain::forward, semnr::WhileLaunching(), "Scores, their mean, the loss.")
      .def("backward", &semnr::Plain::backward, semnr::WhileLaunching(), "Gradient of the loss.");
  m.def("ssim_spread", &semnr::spread, semnr::WhileLaunching(), "Gradient to x and y from the fields.");
}
