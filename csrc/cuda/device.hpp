// The one header that every kernel includes: plain CUDA under nvcc and NVRTC, the host emulation under
// -DSEMNR_EMULATED, and names alone where the host compiles nothing but launches (-DSEMNR_HOSTED, hosted.hpp).
//
// Kernels use dynamic shared memory only (SEMNR_SHARED), no inline PTX, no cooperative groups, no __constant__; warp
// collectives get explicit masks; launches go through SEMNR_LAUNCH on the caller's stream and neither allocate nor
// synchronise, so that a CUDA graph can capture them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "stream.hpp"

#if defined(SEMNR_EMULATED) || defined(SEMNR_HOSTED)
#define SEMNR_ON_HOST
#include "../emulation/cuda_names.hpp"
#elif !defined(__CUDACC_RTC__)
#include "launch.hpp"
#endif

namespace semnr {

// --- vectors: one load or store each --------------------------------------------------------------------------

#if defined(SEMNR_ON_HOST)  // the compiler's own vectors: the instrumentation sees one access, not one a lane
template <class T, int N>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * N)));
};
template <class T, int N>
using Vector = typename VectorOf<T, N>::type;
#else
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  T lane[N];
  __host__ __device__ T& operator[](int i) { return lane[i]; }
  __host__ __device__ const T& operator[](int i) const { return lane[i]; }
};
#endif

using f32x4 = Vector<float, 4>;
using u32x4 = Vector<std::uint32_t, 4>;
using i32x4 = Vector<std::int32_t, 4>;
using f64x2 = Vector<double, 2>;
using u64x2 = Vector<std::uint64_t, 2>;
using u16x8 = Vector<std::uint16_t, 8>;
using u8x16 = Vector<std::uint8_t, 16>;
using f32x2 = Vector<float, 2>;
using u32x2 = Vector<std::uint32_t, 2>;
using u16x4 = Vector<std::uint16_t, 4>;
using u8x8 = Vector<std::uint8_t, 8>;

#if defined(SEMNR_ON_HOST)

// V is a vector or a number; p is aligned to its size. One access.
template <class V>
inline V load(const void* p) {
  return *static_cast<const V*>(p);
}
template <class V>
inline V load_global(const void* p) {
  return *static_cast<const V*>(p);
}
template <class V>
inline void store(void* p, const V& value) {
  *static_cast<V*>(p) = value;
}

#else

namespace detail {
template <std::size_t Bytes>
struct Raw;
template <>
struct Raw<1> {
  using type = unsigned char;
};
template <>
struct Raw<2> {
  using type = unsigned short;
};
template <>
struct Raw<4> {
  using type = unsigned int;
};
template <>
struct Raw<8> {
  using type = uint2;
};
template <>
struct Raw<16> {
  using type = uint4;
};
template <class To, class From>
__device__ __forceinline__ To bits(const From& from) {
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}
}  // namespace detail

// V is a vector or a number; p is aligned to its size. One access.
template <class V>
__device__ __forceinline__ V load(const void* p) {
  return detail::bits<V>(*static_cast<const typename detail::Raw<sizeof(V)>::type*>(p));
}
// From device memory that the kernel never writes: the read-only path.
template <class V>
__device__ __forceinline__ V load_global(const void* p) {
  return detail::bits<V>(__ldg(static_cast<const typename detail::Raw<sizeof(V)>::type*>(p)));
}
template <class V>
__device__ __forceinline__ void store(void* p, const V& value) {
  using Raw = typename detail::Raw<sizeof(V)>::type;
  *static_cast<Raw*>(p) = detail::bits<Raw>(value);
}

#endif

// --- 16-bit floats as torch stores them -----------------------------------------------------------------------

__device__ __forceinline__ float bfloat16_to_float(std::uint16_t h) {
  return __uint_as_float(static_cast<std::uint32_t>(h) << 16);
}

// To nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ std::uint16_t float_to_bfloat16(float value) {
  const std::uint32_t u = __float_as_uint(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

__device__ __forceinline__ float half_to_float(std::uint16_t h) {
#if defined(SEMNR_ON_HOST)
  return emulation::half_to_float(h);
#else
  return __half2float(__ushort_as_half(h));
#endif
}

__device__ __forceinline__ std::uint16_t float_to_half(float value) {
#if defined(SEMNR_ON_HOST)
  return emulation::float_to_half(value);
#else
  return __half_as_ushort(__float2half_rn(value));
#endif
}

}  // namespace semnr
