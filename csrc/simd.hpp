// Vectors of the native width of the instruction set that this translation unit is built for.
// One source for AVX-512, AVX2, SSE2 and NEON: GCC and Clang vector types, no intrinsics.
#pragma once
#include <cstdint>
#include <cstring>

namespace semnr {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class R>
struct Vector {
  typedef R type __attribute__((vector_size(kVectorBytes)));
};
template <class R>
using Vec = typename Vector<R>::type;

template <class R>
constexpr int kLanes = kVectorBytes / int(sizeof(R));

template <class R>
inline Vec<R> load(const R* p) {
  Vec<R> v;
  std::memcpy(&v, p, sizeof v);  // any alignment
  return v;
}

template <class R>
inline void store(R* p, Vec<R> v) {
  std::memcpy(p, &v, sizeof v);
}

template <class R>
inline Vec<R> splat(R value) {
  return value - Vec<R>{};
}

// max(v, 0) that lets NaN through.
template <class R>
inline Vec<R> not_negative(Vec<R> v) {
  return v < Vec<R>{} ? Vec<R>{} : v;
}

template <class R>
inline R sum(Vec<R> v) {
  R total = 0;
  for (int i = 0; i < kLanes<R>; ++i) total += v[i];
  return total;
}

// Sum of a float vector's lanes pairs into doubles: same lane order on every call.
inline Vec<double> widened_sum(Vec<float> v) {
  typedef float Half __attribute__((vector_size(kVectorBytes / 2)));
  Half low, high;
  std::memcpy(&low, &v, sizeof low);
  std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
  return __builtin_convertvector(low, Vec<double>) + __builtin_convertvector(high, Vec<double>);
}
inline Vec<double> widened_sum(Vec<double> v) { return v; }

// Lanes 0 .. count-1 keep their value, the others become 0.
template <class R>
inline Vec<R> first(Vec<R> v, std::int64_t count) {
  alignas(kVectorBytes) R lanes[kLanes<R>];
  store(lanes, v);
  for (int i = 0; i < kLanes<R>; ++i) lanes[i] = i < count ? lanes[i] : R(0);
  return load(lanes);
}

}  // namespace semnr
