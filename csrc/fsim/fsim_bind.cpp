// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "fsim_cpu.hpp"

namespace semnr::fsim_bindings {

using KindArgument = std::tuple<int, int, double, double, double, double>;  // as LogGabor

LogGabor kind(const KindArgument& v) {
  return {std::get<0>(v), std::get<1>(v), std::get<2>(v), std::get<3>(v), std::get<4>(v), std::get<5>(v)};
}

FilterTables tables(const KindArgument& v, const std::array<std::int64_t, 2>& size, bool doubled, std::int64_t memory) {
  return {kind(v), size[0], size[1], doubled, pointer<void>(memory)};
}

std::int64_t bytes(const KindArgument& v, const std::array<std::int64_t, 2>& size, bool doubled) {
  return filter_bytes(kind(v), size[0], size[1], doubled);
}

std::vector<double> filters(const KindArgument& v, const std::array<std::int64_t, 2>& size, bool doubled,
                            std::int64_t memory, int threads) {
  py::gil_scoped_release unlocked;
  return make_filters(tables(v, size, doubled, memory), threads);
}

void features(const std::vector<ImageArgument>& images, int dtype, const ShapeArgument& shape, double scale,
              std::int64_t factor, bool authors, const KindArgument& v, const std::array<std::int64_t, 2>& size,
              bool doubled, std::int64_t memory, const std::vector<double>& gains, int threads,
              const std::array<std::int64_t, 4>& out) {
  FsimImages in{{}, Dtype(dtype), sizes(shape), scale, factor, authors};
  for (const ImageArgument& one : images) in.images.push_back(image(one));
  py::gil_scoped_release unlocked;
  fsim_features(in, tables(v, size, doubled, memory), gains, threads,
                {pointer<void>(out[0]), pointer<void>(out[1]), pointer<void>(out[2]), pointer<void>(out[3])});
}

void features_backward(const ImageArgument& images, const ShapeArgument& shape, const KindArgument& v,
                       std::int64_t memory, const std::vector<double>& gains, int threads,
                       const std::array<std::int64_t, 5>& d) {
  py::gil_scoped_release unlocked;
  fsim_features_backward({{image(images)}, Dtype::f64, sizes(shape), 1, 1, false},
                         tables(v, {shape[2], shape[3]}, true, memory), gains, threads,
                         {pointer<double>(d[0]), pointer<double>(d[1]), pointer<double>(d[2]), pointer<double>(d[3]),
                          pointer<double>(d[4])});
}

using SideArgument = std::tuple<std::int64_t, std::int64_t, std::int64_t, bool>;

FsimSide side(const SideArgument& v) {
  return {pointer<void>(std::get<0>(v)), pointer<void>(std::get<1>(v)), pointer<void>(std::get<2>(v)), std::get<3>(v)};
}

FsimPair pair(const SideArgument& x, const SideArgument& y, const std::pair<std::int64_t, bool>& share, bool doubled,
              std::int64_t n, std::int64_t pixels) {
  return {side(x), side(y), pointer<void>(share.first), share.second, doubled, n, pixels};
}

void compare(const SideArgument& x, const SideArgument& y, const std::pair<std::int64_t, bool>& share, bool doubled,
             std::int64_t n, std::int64_t pixels, int threads, std::int64_t rows,
             const std::array<std::int64_t, 5>& maps) {
  void* out[5];
  for (int i = 0; i < 5; ++i) out[i] = pointer<void>(maps[std::size_t(i)]);
  py::gil_scoped_release unlocked;
  fsim_compare(pair(x, y, share, doubled, n, pixels), threads, pointer<double>(rows), out);
}

void compare_backward(const SideArgument& x, const SideArgument& y, const std::pair<std::int64_t, bool>& share,
                      bool doubled, std::int64_t n, std::int64_t pixels, int threads, std::int64_t by,
                      const std::array<std::int64_t, 6>& gradients) {
  void* out[6];
  for (int i = 0; i < 6; ++i) out[i] = pointer<void>(gradients[std::size_t(i)]);
  py::gil_scoped_release unlocked;
  fsim_compare_backward(pair(x, y, share, doubled, n, pixels), threads, pointer<double>(by), out);
}

void bind(py::module_& m) {
  m.def("fsim_filter_bytes", &bytes, "Memory that the filter tables of one size take.");
  m.def("fsim_filters", &filters, "Fills the filter tables; an orientation's share of noise energy each.");
  m.def("fsim_features", &features, "Phase congruency, gradient and chroma of images of one size.");
  m.def("fsim_features_backward", &features_backward, "Derivatives by the images from those by the features.");
  m.def("fsim_compare", &compare,
        "Similarity of features: a score an image, and its maps (address 0: "
        "not wanted).");
  m.def("fsim_compare_backward", &compare_backward, "Derivatives of the scores by the features.");
}

}  // namespace semnr::fsim_bindings
