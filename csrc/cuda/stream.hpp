// A CUDA stream as the bindings pass it: an opaque handle, so that they need no CUDA header. Null is the default
// stream.
#pragma once
#include <cstdint>

namespace semnr {

using Stream = void*;

inline Stream as_stream(std::int64_t handle) { return reinterpret_cast<Stream>(static_cast<std::intptr_t>(handle)); }

}  // namespace semnr
