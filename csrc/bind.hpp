// What the binding files share: Python's numbers to images, masks and shapes.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>

#include "image.hpp"

namespace py = pybind11;

namespace semnr {

using ImageArgument = std::array<std::int64_t, 5>;  // address, strides of n, c, h, w
using MaskArgument = std::array<std::int64_t, 4>;   // address or 0, strides of n, h, w
using ShapeArgument = std::array<std::int64_t, 4>;

template <class T>
T* pointer(std::int64_t address) {
  return reinterpret_cast<T*>(static_cast<std::uintptr_t>(address));
}

inline Image image(const ImageArgument& v) { return {pointer<void>(v[0]), {v[1], v[2], v[3], v[4]}}; }

inline Mask mask(const MaskArgument& v) { return {pointer<std::uint8_t>(v[0]), {v[1], v[2], v[3]}}; }

inline Shape sizes(const ShapeArgument& v) { return {v[0], v[1], v[2], v[3]}; }

// Of the CUDA bindings: a launch may wait for room in the device's queue, and other threads go on meanwhile. The
// emulation is one for the process and keeps them out.
#if defined(SEMNR_EMULATED)
using WhileLaunching = py::call_guard<>;
#else
using WhileLaunching = py::call_guard<py::gil_scoped_release>;
#endif

}  // namespace semnr
