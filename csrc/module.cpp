// One module per instruction set, from the same sources. It only registers the ops.
#include <pybind11/pybind11.h>

#include "cpu_features.hpp"

void bind_cnr(pybind11::module_& m);
void bind_dists(pybind11::module_& m);
void bind_fsim(pybind11::module_& m);
void bind_gradient(pybind11::module_& m);
void bind_pixel(pybind11::module_& m);
void bind_profile(pybind11::module_& m);
void bind_ssim(pybind11::module_& m);

PYBIND11_MODULE(SEMNR_MODULE, m) {
  m.attr("ABI") = 4;  // semnr_kernels/_native.py holds the same number
  m.attr("ISA") = SEMNR_ISA;
  m.def("cpu_runs", &semnr::cpu_runs, "Whether this CPU (and its system) runs modules built for `isa`.");
  bind_cnr(m);
  bind_dists(m);
  bind_fsim(m);
  bind_gradient(m);
  bind_pixel(m);
  bind_profile(m);
  bind_ssim(m);
}
