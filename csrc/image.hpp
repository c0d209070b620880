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
  const float rebased = as_float(magnitude) * as_float(0x77800000u);  // 2^112
  std::uint32_t bits;
  std::memcpy(&bits, &rebased, sizeof bits);
  const std::uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // inf and NaN keep their exponent
  return R(as_float(bits | special | (std::uint32_t(v.bits & 0x8000u) << 16)));
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
