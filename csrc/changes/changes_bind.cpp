// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "../evidence/planes_bind.hpp"
#include "changes_cpu.hpp"

namespace semnr::changes_bindings {

using Pair = std::array<double, 2>;

void rows(const PlanesArgument& against, const PlanesArgument& d, const PlanesArgument& r, bool noisy, bool reference,
          std::int64_t span, std::int64_t weight_down, std::int64_t weight_right, bool lines_down,
          const ChangesPlan& plan, int threads, std::int64_t out, std::int64_t lines) {
  py::gil_scoped_release unlocked;
  changes_rows({planes_of(against), planes_of(d), planes_of(r), noisy, reference, pointer<double>(span),
                pointer<float>(weight_down), pointer<float>(weight_right), lines_down},
               plan, threads, pointer<double>(out), pointer<double>(lines));
}

void bind(py::module_& m) {
  py::class_<ChangesPlan>(m, "ChangesPlan", py::module_local())
      .def(py::init([](const std::vector<float>& down, const std::vector<float>& right, std::int64_t groups,
                       const std::array<Pair, 3>& bands, double inflation, double least_z,
                       const std::vector<float>& smooth, const std::vector<float>& slope, std::int64_t calm) {
        ChangesPlan plan = {down, right, {}, {}, {}, {}, inflation, least_z, smooth, slope, calm, nullptr};
        const std::uint8_t* const from = pointer<std::uint8_t>(groups);
        plan.groups.assign(from, from + down.size() * (right.size() / 2 + 1));
        for (std::size_t i = 0; i < 2; ++i) {
          plan.band[i] = bands[0][i];
          plan.high[i] = bands[1][i];
          plan.texture[i] = bands[2][i];
        }
        changes_prepare(plan);
        return plan;
      }));
  m.def("changes_rows", &rows, "What changed beside noise: figures and means of lines, a row a tile.");
  m.attr("CHANGES_ROW") = kChangesRow;
  m.attr("CHANGES_RINGS") = kChangesRings;
}

}  // namespace semnr::changes_bindings
