// Binding only: addresses, strides and sizes in, no logic.
#include "../bind.hpp"
#include "planes_cpu.hpp"
#include "rows.hpp"

namespace semnr::evidence_bindings {

void planes(const ImageArgument& one, int dtype, const ShapeArgument& shape, int threads, std::int64_t out,
            std::int64_t stats) {
  py::gil_scoped_release unlocked;
  evidence_planes(image(one), Dtype(dtype), sizes(shape), threads, pointer<float>(out), pointer<double>(stats));
}

void bind(py::module_& m) {
  m.def("evidence_planes", &planes, "Planes of float32 of images, channels averaged, less a level of their own.");
  m.def("evidence_pitch", &pitch_of, "Values from row to row of a plane of that width.");
  m.attr("EVIDENCE_STATS") = kPlaneStats;
}

}  // namespace semnr::evidence_bindings
