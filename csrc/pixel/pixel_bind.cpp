// Binding only: addresses and sizes in, no logic.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "pixel_cpu.hpp"

namespace py = pybind11;

namespace {

template <class T>
void call(std::uintptr_t x, std::uintptr_t y, std::int64_t images, std::int64_t pixels, std::uintptr_t out) {
  double* square = reinterpret_cast<double*>(out);
  py::gil_scoped_release unlocked;
  semnr::pixel_errors(reinterpret_cast<const T*>(x), reinterpret_cast<const T*>(y), images, pixels, square,
                      square + images);
}

void pixel_errors(std::uintptr_t x, std::uintptr_t y, const std::string& dtype, std::int64_t images,
                  std::int64_t pixels, std::uintptr_t out) {
  if (dtype == "uint8") {
    call<std::uint8_t>(x, y, images, pixels, out);
  } else if (dtype == "uint16") {
    call<std::uint16_t>(x, y, images, pixels, out);
  } else if (dtype == "float32") {
    call<float>(x, y, images, pixels, out);
  } else if (dtype == "float64") {
    call<double>(x, y, images, pixels, out);
  } else {
    throw std::invalid_argument("pixel_errors: dtype is " + dtype + "; accepted: uint8, uint16, float32, float64");
  }
}

}  // namespace

void bind_pixel(py::module_& m) {
  m.def("pixel_errors", &pixel_errors, py::arg("x"), py::arg("y"), py::arg("dtype"), py::arg("images"),
        py::arg("pixels"), py::arg("out"), "MSE then MAE of each image, written to out (2 x images float64).");
}
