#include "runtime.hpp"

namespace semnr::emulation {

float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = std::uint32_t(h & 0x8000u) << 16, rest = h & 0x7fffu;
  if (rest >= 0x7c00u) return unpack<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  const float magnitude = unpack<float>(rest << 13) * 0x1p112f;  // subnormal numbers too
  return unpack<float>(pack(magnitude) | sign);
}

// To nearest, ties to even.
std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = unpack<std::uint32_t>(pack(value));
  const std::uint16_t sign = (bits >> 16) & 0x8000u;
  std::uint32_t rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return sign | 0x7fffu;   // not a number, as the hardware writes it
  if (rest >= 0x477ff000u) return sign | 0x7c00u;  // rounds to 65536 and beyond
  if (rest < 0x38800000u) {                        // subnormal: 0.5f has the lowest bit that is left at 2^-24
    const float moved = unpack<float>(rest) + 0.5f;
    return sign | static_cast<std::uint16_t>(unpack<std::uint32_t>(pack(moved)) - 0x3f000000u);
  }
  rest += 0xfffu + ((rest >> 13) & 1u);
  return sign | static_cast<std::uint16_t>((rest - 0x38000000u) >> 13);
}

}  // namespace semnr::emulation
