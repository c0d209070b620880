// Planes as bindings take them.
#pragma once
#include "../bind.hpp"
#include "rows.hpp"

namespace semnr {

using PlanesArgument = std::array<std::int64_t, 5>;  // address, address of what is known of each; n, h, w

inline Planes planes_of(const PlanesArgument& v) {
  return {pointer<float>(v[0]), pointer<double>(v[1]), v[2], v[3], v[4], pitch_of(v[4]), span_of(v[4])};
}

}  // namespace semnr
