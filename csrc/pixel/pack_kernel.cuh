// Pixels as a thread takes them: N side by side by one load, kept as 32-bit words and unpacked in registers.
#pragma once
#include "../cuda/device.hpp"
#include "../image.hpp"

namespace semnr {

constexpr unsigned kAllLanes = 0xffffffffu;

template <int Bytes>
struct Words {
  static constexpr int kCount = Bytes < 4 ? 1 : Bytes / 4;
  std::uint32_t w[kCount];
};

template <int Bytes>
__device__ __forceinline__ Words<Bytes> no_words() {
  Words<Bytes> none;
#pragma unroll
  for (int i = 0; i < Words<Bytes>::kCount; ++i) none.w[i] = 0;
  return none;
}

// p is aligned to `Bytes`.
template <int Bytes>
__device__ __forceinline__ Words<Bytes> load_words(const void* p) {
  static_assert(Bytes == 1 || Bytes == 2 || Bytes == 4 || Bytes == 8 || Bytes == 16);
  Words<Bytes> words;
  if constexpr (Bytes == 16) {
    const u32x4 v = load_global<u32x4>(p);
#pragma unroll
    for (int i = 0; i < 4; ++i) words.w[i] = v[i];
  } else if constexpr (Bytes == 8) {
    const u32x2 v = load_global<u32x2>(p);
    words.w[0] = v[0];
    words.w[1] = v[1];
  } else if constexpr (Bytes == 4) {
    words.w[0] = load_global<std::uint32_t>(p);
  } else if constexpr (Bytes == 2) {
    words.w[0] = load_global<std::uint16_t>(p);
  } else {
    words.w[0] = load_global<std::uint8_t>(p);
  }
  return words;
}

// N pixels `step` bytes from each other; Straight: side by side and aligned, so that one load takes them.
template <class T, int N, bool Straight>
__device__ __forceinline__ Words<N* int(sizeof(T))> load_pixels(const char* p, std::int64_t step) {
  constexpr int kSize = int(sizeof(T));
  if constexpr (Straight || N == 1) {
    return load_words<N * kSize>(p);
  } else {
    Words<N * kSize> words = no_words<N * kSize>();
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const Words<kSize> one = load_words<kSize>(p + k * step);
      if constexpr (kSize >= 4) {
#pragma unroll
        for (int i = 0; i < kSize / 4; ++i) words.w[k * (kSize / 4) + i] = one.w[i];
      } else {
        words.w[k * kSize / 4] |= one.w[0] << (8 * (k * kSize % 4));
      }
    }
    return words;
  }
}

// Byte k of a mask; the masks are torch's bools, bytes of 0 and 1.
template <int N>
__device__ __forceinline__ bool inside(const Words<N>& mask, int k) {
  return (mask.w[k / 4] >> (8 * (k % 4)) & 1u) != 0;
}

template <int N>
__device__ __forceinline__ std::uint32_t count_inside(const Words<N>& mask) {
  std::uint32_t count = 0;
#pragma unroll
  for (int i = 0; i < Words<N>::kCount; ++i) count += __popc(mask.w[i]);
  return count;
}

// Word i of N pixels of type T, those outside the mask set to 0: T is 8 or 16 bits wide.
template <class T, int N>
__device__ __forceinline__ std::uint32_t only_inside(std::uint32_t pixels, const Words<N>& mask, int i) {
  if constexpr (sizeof(T) == 1) return pixels & (mask.w[i] * 255u);
  return pixels & __byte_perm(mask.w[i / 2] * 255u, 0, i % 2 == 0 ? 0x1100 : 0x3322);
}

// Pixel k, exact. k is known at compile time once loops are unrolled.
template <class T, int Bytes>
__device__ __forceinline__ double real_value(const Words<Bytes>& words, int k) {
  if constexpr (sizeof(T) == 8) {
    const std::uint64_t bits = std::uint64_t(words.w[2 * k + 1]) << 32 | words.w[2 * k];
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
  } else if constexpr (sizeof(T) == 4) {
    return double(__uint_as_float(words.w[k]));
  } else {
    const std::uint16_t bits = std::uint16_t(words.w[k / 2] >> (16 * (k % 2)));
    return double(std::is_same_v<T, Half> ? half_to_float(bits) : bfloat16_to_float(bits));
  }
}

// Sums and counts pass through memory as 64 bits, whatever they are.
template <class V>
__device__ __forceinline__ std::uint64_t as_bits(V value) {
  static_assert(sizeof(V) == 8);
  std::uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
template <class V>
__device__ __forceinline__ V from_bits(std::uint64_t bits) {
  V value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Σ over the lanes of a warp, in lane 0.
template <class V>
__device__ __forceinline__ V warp_sum(V value) {
#pragma unroll
  for (int by = 16; by > 0; by /= 2) value += __shfl_down_sync(kAllLanes, value, by);
  return value;
}

}  // namespace semnr
