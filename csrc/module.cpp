// What Python sees of the CPU kernels. Compiled once, without the flags of any instruction set, and linked into the
// module of each: pybind11's headers cost more than all that is written here, so all bindings are one translation unit.
#include "bind.hpp"
#include "bindings.hpp"  // which setup.py writes: every csrc/NAME/NAME_bind.cpp, and bind_ops(m), which calls NAME_bindings::bind(m)
#include "cpu_features.hpp"

namespace semnr {

void bind_all(py::module_& m, const char* isa) {
  m.attr("ABI") = 11;  // semnr_kernels/native_support.py holds the same number
  m.attr("ISA") = isa;
  m.def("cpu_runs", &cpu_runs, "Whether this CPU (and its system) runs modules built for `isa`.");
  bind_ops(m);
}

}  // namespace semnr

// Each module has all three entries; Python calls the one of the file's name.
PYBIND11_MODULE(_cpu_baseline, m) { semnr::bind_all(m, "baseline"); }
PYBIND11_MODULE(_cpu_avx2, m) { semnr::bind_all(m, "avx2"); }
PYBIND11_MODULE(_cpu_avx512, m) { semnr::bind_all(m, "avx512"); }
