// Lines at half their resolution, and in the order that a cosine transform takes them.
#pragma once
#include <cstdint>
#include <utility>

#include "../simd.hpp"

namespace semnr {

template <int kFirst, std::size_t... I>
[[gnu::always_inline]] inline Vec<float> every_second(Vec<float> a, Vec<float> b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, (2 * int(I) + kFirst)...);
}

template <int kFirst>
[[gnu::always_inline]] inline Vec<float> every_second(Vec<float> a, Vec<float> b) {
  return every_second<kFirst>(a, b, std::make_index_sequence<std::size_t(kLanes<float>)>{});
}

template <std::size_t... I>
[[gnu::always_inline]] inline Vec<float> backwards(Vec<float> v, std::index_sequence<I...>) {
  return __builtin_shufflevector(v, v, (kLanes<float> - 1 - int(I))...);
}

// to[i] = scale (a[2i] + a[2i + 1] + b[2i] + b[2i + 1]), `count` of them and on to a whole vector.
inline void by_twos(const float* a, const float* b, float scale, std::int64_t count, float* to) {
  constexpr std::int64_t L = kLanes<float>;
  for (std::int64_t i = 0; i < count; i += L) {
    const Vec<float> first = load(a + 2 * i) + load(b + 2 * i), second = load(a + 2 * i + L) + load(b + 2 * i + L);
    store<float>(to + i, (every_second<0>(first, second) + every_second<1>(first, second)) * scale);
  }
}

// Even places upwards, then odd ones downwards.
inline void ordered(const float* from, std::int64_t count, float* to) {
  constexpr std::int64_t L = kLanes<float>;
  std::int64_t i = 0;
  for (; i + 2 * L <= count; i += 2 * L) {
    const Vec<float> first = load(from + i), second = load(from + i + L);
    store<float>(to + i / 2, every_second<0>(first, second));
    store<float>(to + count - i / 2 - L,
                 backwards(every_second<1>(first, second), std::make_index_sequence<std::size_t(L)>{}));
  }
  for (; i < count; ++i) to[i % 2 == 0 ? i / 2 : count - 1 - i / 2] = from[i];
}

}  // namespace semnr
