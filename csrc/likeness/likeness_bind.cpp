// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "../evidence/planes_bind.hpp"
#include "likeness_cpu.hpp"

namespace semnr::likeness_bindings {

using Sides = std::array<std::vector<float>, 4>;  // fine down, fine right, coarse down, coarse right

inline LikenessBand band_of(const Sides& v) { return {{v[0], v[2]}, {v[1], v[3]}}; }

void rows(const PlanesArgument& x, const PlanesArgument& d, const PlanesArgument& r, bool denoised, bool reference,
          const LikenessPlan& plan, int threads, std::int64_t out) {
  py::gil_scoped_release unlocked;
  likeness_rows({planes_of(x), planes_of(d), planes_of(r), denoised, reference}, plan, threads, pointer<double>(out));
}

void bind(py::module_& m) {
  py::class_<LikenessPlan>(m, "LikenessPlan", py::module_local())
      .def(py::init([](std::int64_t rows, std::int64_t columns, const Sides& cosine, const Sides& band,
                       const std::vector<float>& taper_down, const std::vector<float>& taper_right,
                       const std::vector<LikenessBlocks>& blocks, double seen, double jpeg, std::int64_t few,
                       std::int64_t near) {
        LikenessPlan plan = {rows, columns, band_of(cosine), band_of(band), taper_down, taper_right, blocks, seen, jpeg,
                             few,  near,    nullptr};
        likeness_prepare(plan);
        return plan;
      }));
  m.def("likeness_rows", &rows, "How images lie against a noisy one: figures, a row a tile.");
  m.attr("LIKENESS_ROW") = kLikenessRow;
}

}  // namespace semnr::likeness_bindings
