// Images as addresses and strides, and the conversion of their pixels in registers.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace semnr {

enum class Dtype : int { u8 = 0, u16 = 1, f16 = 2, bf16 = 3, f32 = 4, f64 = 5 };

// (N, C, H, W); strides count elements, may be 0 (an expanded view); 64 bits throughout.
struct Image {
  const void* data;
  std::int64_t stride[4];
};

struct Shape {
  std::int64_t n, c, h, w;
};

// Validity of pixels, one byte each, shared by the channels. data == nullptr: every pixel is valid.
struct Mask {
  const std::uint8_t* data = nullptr;
  std::int64_t stride[3] = {0, 0, 0};  // n, h, w

  const std::uint8_t* row(std::int64_t n, std::int64_t h) const { return data + n * stride[0] + h * stride[1]; }
};

// Storage types of the 16-bit floats.
struct Half {
  std::uint16_t bits;
};
struct BFloat {
  std::uint16_t bits;
};

inline float as_float(std::uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}
inline std::uint32_t bits_of(float f) {
  std::uint32_t bits;
  std::memcpy(&bits, &f, sizeof bits);
  return bits;
}

template <class R>
inline R real(std::uint8_t v) {
  return R(v);
}
template <class R>
inline R real(std::uint16_t v) {
  return R(v);
}
template <class R>
inline R real(float v) {
  return R(v);
}
template <class R>
inline R real(double v) {
  return R(v);
}
template <class R>
inline R real(BFloat v) {
  return R(as_float(std::uint32_t(v.bits) << 16));
}
template <class R>
inline R real(Half v) {
  // The exponent is rebased by a multiplication, which also normalises subnormals; no branch, so loops vectorise.
  const std::uint32_t magnitude = std::uint32_t(v.bits & 0x7fffu) << 13;
  const std::uint32_t bits = bits_of(as_float(magnitude) * as_float(0x77800000u));  // times 2^112
  const std::uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;        // inf and NaN keep their exponent
  return R(as_float(bits | special | (std::uint32_t(v.bits & 0x8000u) << 16)));
}

// To the nearest, halves to even; NaN stays NaN.
inline std::uint16_t bfloat_bits(float value) {
  const std::uint32_t bits = bits_of(value);
  if (value != value) return std::uint16_t((bits >> 16) | 0x40u);
  return std::uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline std::uint16_t half_bits(float value) {
  const std::uint32_t all = bits_of(value), sign = (all >> 16) & 0x8000u, bits = all & 0x7fffffffu;
  if (bits >= 0x7f800000u) return std::uint16_t(sign | 0x7c00u | (bits > 0x7f800000u ? 0x200u : 0u));
  if (bits >= 0x477ff000u) return std::uint16_t(sign | 0x7c00u);  // rounds beyond 65504
  if (bits < 0x38800000u) {                                       // below 2^-14: the addition rounds to a subnormal
    return std::uint16_t(sign | (bits_of(as_float(bits) + 0.5f) - 0x3f000000u));
  }
  return std::uint16_t(sign | ((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13));
}

// Calls f(T{}) with the pixel type of `dtype`.
template <class F>
auto with_type(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::u8:
      return f(std::uint8_t{});
    case Dtype::u16:
      return f(std::uint16_t{});
    case Dtype::f16:
      return f(Half{});
    case Dtype::bf16:
      return f(BFloat{});
    case Dtype::f32:
      return f(float{});
    case Dtype::f64:
      return f(double{});
  }
  throw std::invalid_argument("unknown dtype code");
}

}  // namespace semnr
