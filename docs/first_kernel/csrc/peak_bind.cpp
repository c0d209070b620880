// Binding only: addresses, strides and sizes in, no logic. In csrc/peak/ this file would be found by its name, and
// setup.py would call peak_bindings::bind; here the example is a module of its own.
#include "bind.hpp"
#include "peak_cpu.hpp"

namespace semnr::peak_bindings {

void errors(const ImageArgument& x, const ImageArgument& y, int dtype, const ShapeArgument& shape, int threads,
            std::int64_t largest) {
  py::gil_scoped_release unlocked;
  peak_errors(image(x), image(y), Dtype(dtype), sizes(shape), threads, pointer<double>(largest));
}

void bind(py::module_& m) { m.def("peak_errors", &errors, "max |x - y| of each image, N float64."); }

}  // namespace semnr::peak_bindings

PYBIND11_MODULE(first_kernel, m) { semnr::peak_bindings::bind(m); }
