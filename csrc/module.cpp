// One module per instruction set, from the same sources. It only registers the ops.
#include <pybind11/pybind11.h>

void bind_pixel(pybind11::module_& m);

PYBIND11_MODULE(SEMNR_MODULE, m) {
  m.attr("ABI") = 1;  // semnr_kernels/_native.py holds the same number
  m.attr("ISA") = SEMNR_ISA;
  bind_pixel(m);
}
