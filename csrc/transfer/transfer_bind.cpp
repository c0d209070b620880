// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "../evidence/planes_bind.hpp"
#include "transfer_cpu.hpp"

namespace semnr::transfer_bindings {

void rows(const PlanesArgument& x, const PlanesArgument& d, const PlanesArgument& r, std::int64_t valid,
          const std::pair<std::vector<float>, std::vector<float>>& taps, std::int64_t block, double least_z,
          bool noisy_reference, bool with_drop, int threads, std::int64_t out) {
  py::gil_scoped_release unlocked;
  transfer_rows({planes_of(x), planes_of(d), planes_of(r), pointer<std::uint8_t>(valid)},
                {taps.first, taps.second, block, least_z, noisy_reference, with_drop}, threads, pointer<double>(out));
}

void bind(py::module_& m) {
  m.def("transfer_rows", &rows, "Evidence transfer of a band, a row a tile.");
  m.attr("TRANSFER_ROW") = kTransferRow;
}

}  // namespace semnr::transfer_bindings
