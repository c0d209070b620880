// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "../evidence/planes_bind.hpp"
#include "residual_cpu.hpp"

namespace semnr::residual_bindings {

std::vector<Cut> cuts(const std::vector<std::array<std::int64_t, 4>>& v) {
  std::vector<Cut> found;
  for (const auto& one : v) found.push_back({one[0], one[1], one[2], one[3]});
  return found;
}

void scan(const PlanesArgument& x, const PlanesArgument& d, std::int64_t valid, std::int64_t law, std::int64_t white,
          std::int64_t gain, std::int64_t limit, const ResidualPlan& plan, int threads, std::int64_t rows,
          std::int64_t marks, std::int64_t map) {
  py::gil_scoped_release unlocked;
  residual_scan({planes_of(x), planes_of(d), pointer<std::uint8_t>(valid), pointer<double>(law), pointer<float>(white),
                 pointer<double>(gain), pointer<double>(limit)},
                plan, threads, pointer<double>(rows), pointer<double>(marks), pointer<float>(map));
}

void bind(py::module_& m) {
  py::class_<ResidualPlan>(m, "ResidualPlan", py::module_local())
      .def(py::init([](const std::vector<std::array<std::int64_t, 4>>& down,
                       const std::vector<std::array<std::int64_t, 4>>& right,
                       const std::array<std::int64_t, 2>& padded) {
        ResidualPlan plan = {};
        plan.down = cuts(down);
        plan.right = cuts(right);
        plan.rows = padded[0];
        plan.columns = padded[1];
        return plan;
      }))
      .def_readwrite("surroundings_down", &ResidualPlan::surroundings_down)
      .def_readwrite("surroundings_right", &ResidualPlan::surroundings_right)
      .def_readwrite("smooth", &ResidualPlan::smooth)
      .def_readwrite("slope", &ResidualPlan::slope)
      .def_readwrite("radius", &ResidualPlan::radius)
      .def_readwrite("bumps", &ResidualPlan::bumps)
      .def_readwrite("size", &ResidualPlan::size)
      .def_readwrite("reach", &ResidualPlan::reach)
      .def_readwrite("level", &ResidualPlan::level)
      .def_readwrite("middle", &ResidualPlan::middle)
      .def_readwrite("step", &ResidualPlan::step)
      .def_readwrite("bounds", &ResidualPlan::bounds)
      .def_readwrite("within", &ResidualPlan::within)
      .def_readwrite("share", &ResidualPlan::share)
      .def_readwrite("quantile", &ResidualPlan::quantile)
      .def_readwrite("calmest", &ResidualPlan::calmest)
      .def_readwrite("block", &ResidualPlan::block)
      .def_readwrite("around", &ResidualPlan::around);
  m.def("residual_scan", &scan, "The residual tests of tiles: figures, marks and, where asked for, the map of |z|.");
  m.attr("RESIDUAL_ROW") = kResidualRow;
  m.attr("RESIDUAL_MARKS") = kResidualMarks;
  m.attr("RESIDUAL_MARK") = kResidualMark;
}

}  // namespace semnr::residual_bindings
