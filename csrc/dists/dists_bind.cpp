// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "dists_cpu.hpp"

namespace semnr::dists_bindings {

using Region = std::array<std::int64_t, 7>;  // row, column, rows, columns, from, to, cell
using Totals = std::array<std::int64_t, 6>;  // fresh, addresses of near, sums
                                             // and cells, cells' strides

void stage(const ImageArgument& x, const ImageArgument& y, const std::array<int, 3>& dtypes, const ShapeArgument& shape,
           const Region& region, const ImageArgument& share, const Totals& totals, const ImageArgument& pooled_x,
           const ImageArgument& pooled_y, const ImageArgument& kept, double eps, int threads) {
  const auto& [row, column, rows, columns, from, to, cell] = region;
  py::gil_scoped_release unlocked;
  dists_stage({image(x),
               image(y),
               Dtype(dtypes[0]),
               Dtype(dtypes[1]),
               sizes(shape),
               row,
               column,
               rows,
               columns,
               from,
               to,
               image(share),
               cell,
               totals[0] != 0,
               pointer<double>(totals[1]),
               pointer<double>(totals[2]),
               pointer<double>(totals[3]),
               totals[4],
               totals[5],
               image(pooled_x),
               image(pooled_y),
               image(kept),
               Dtype(dtypes[2]),
               eps,
               threads});
}

void planes(const ImageArgument& x, const ImageArgument& y, const std::array<int, 2>& dtypes,
            const ShapeArgument& shape, const ImageArgument& share, double scale, std::int64_t cell,
            const Totals& totals, int threads) {
  py::gil_scoped_release unlocked;
  dists_planes({image(x), image(y), Dtype(dtypes[0]), Dtype(dtypes[1]), sizes(shape), image(share), scale, cell,
                totals[0] != 0, pointer<double>(totals[1]), pointer<double>(totals[2]), pointer<double>(totals[3]),
                totals[4], totals[5], threads});
}

void bind(py::module_& m) {
  m.def("dists_stage", &stage,
        "ReLU, sums of both images, L2 pooling and a copy to keep, of "
        "channels-last convolution outputs, in one pass.");
  m.def("dists_planes", &planes, "The same sums of two images or maps in any layout and dtype.");
}

}  // namespace semnr::dists_bindings
