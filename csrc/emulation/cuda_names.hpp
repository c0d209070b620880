// CUDA's names for the host compiler. What is missing here, add: one line each, after the CUDA programming guide.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <type_traits>

#include "runtime.hpp"

#if defined(SEMNR_HOSTED)  // only names are wanted: what nobody calls is not compiled
#define __global__ inline
#else
#define __global__
#endif
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__

#define threadIdx (::semnr::emulation::thread_index())
#define blockIdx (::semnr::emulation::block_index())
#define blockDim (::semnr::emulation::block_size())
#define gridDim (::semnr::emulation::grid_size())
constexpr int warpSize = 32;

#if defined(SEMNR_HOSTED)
#include "../cuda/hosted.hpp"
#else
#define SEMNR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                       \
  do {                                                                                                     \
    (void)(stream);                                                                                        \
    ::semnr::emulation::launch(#kernel, dim3(grid), dim3(block), (shared_bytes), (kernel), ##__VA_ARGS__); \
  } while (false)
#endif

#define SEMNR_SHARED(name) unsigned char* const name = ::semnr::emulation::shared_memory()

using semnr_site = ::semnr::emulation::Site;

inline void __syncthreads(semnr_site site = semnr_site::here()) { ::semnr::emulation::barrier(site); }

// --- warp collectives -----------------------------------------------------------------------------------------

namespace semnr::emulation {
template <class T>
inline T shuffle(unsigned mask, T value, int source, Site site) {
  return unpack<T>(collective(Collective::Shuffle, mask, pack(value), source, site));
}
}  // namespace semnr::emulation

inline void __syncwarp(unsigned mask = 0xffffffffu, semnr_site site = semnr_site::here()) {
  ::semnr::emulation::collective(::semnr::emulation::Collective::Sync, mask, 0, 0, site);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, semnr_site site = semnr_site::here()) {
  const int self = ::semnr::emulation::lane_index();
  return ::semnr::emulation::shuffle(mask, value, (self & ~(width - 1)) + (lane & (width - 1)), site);
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, semnr_site site = semnr_site::here()) {
  const int self = ::semnr::emulation::lane_index();
  const bool inside = (self & (width - 1)) + static_cast<int>(by) < width;
  return ::semnr::emulation::shuffle(mask, value, inside ? self + static_cast<int>(by) : self, site);
}

template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, semnr_site site = semnr_site::here()) {
  const int self = ::semnr::emulation::lane_index();
  const bool inside = (self & (width - 1)) - static_cast<int>(by) >= 0;
  return ::semnr::emulation::shuffle(mask, value, inside ? self - static_cast<int>(by) : self, site);
}

template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32, semnr_site site = semnr_site::here()) {
  const int self = ::semnr::emulation::lane_index(), other = self ^ with;
  // a lane of a later segment of `width` lanes is out of reach, one of an earlier segment is not
  return ::semnr::emulation::shuffle(mask, value, other / width > self / width ? self : other, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, semnr_site site = semnr_site::here()) {
  using namespace ::semnr::emulation;
  return static_cast<unsigned>(collective(Collective::Ballot, mask, predicate != 0, 0, site));
}
inline int __any_sync(unsigned mask, int predicate, semnr_site site = semnr_site::here()) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, semnr_site site = semnr_site::here()) {
  return __ballot_sync(mask, predicate, site) == mask;
}

// --- arithmetic -----------------------------------------------------------------------------------------------

template <class A, class B>
inline constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmin(T(a), T(b));
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B>
inline constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmax(T(a), T(b));
  return T(a) < T(b) ? T(b) : T(a);
}

inline unsigned __float_as_uint(float x) { return ::semnr::emulation::unpack<unsigned>(::semnr::emulation::pack(x)); }
inline int __float_as_int(float x) { return ::semnr::emulation::unpack<int>(::semnr::emulation::pack(x)); }
inline float __uint_as_float(unsigned x) { return ::semnr::emulation::unpack<float>(::semnr::emulation::pack(x)); }
inline float __int_as_float(int x) { return ::semnr::emulation::unpack<float>(::semnr::emulation::pack(x)); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
// Rounded down: the rounded sum, and what it exceeds the exact one by (Knuth).
inline double __dadd_rd(double x, double y) {
  const double sum = x + y;
  if (!std::isfinite(sum)) return sum;
  const double part = sum - x, rest = (x - (sum - part)) + (y - part);
  return rest < 0 ? std::nextafter(sum, -HUGE_VAL) : sum;
}
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }  // NaN becomes 0
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rd(float x) { return static_cast<int>(std::floor(x)); }
inline unsigned __float2uint_rn(float x) { return static_cast<unsigned>(std::nearbyint(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>((static_cast<unsigned long long>(x) * y) >> 32);
}
inline unsigned __umul24(unsigned x, unsigned y) { return (x & 0xffffffu) * (y & 0xffffffu); }
inline unsigned __usad(unsigned x, unsigned y, unsigned z) { return (x > y ? x - y : y - x) + z; }

// Bytes of the eight of (x, y) that the four low nibbles of `selector` name; bit 3 of a nibble replicates the sign.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const std::uint64_t both = (static_cast<std::uint64_t>(y) << 32) | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned nibble = (selector >> (4 * i)) & 15u;
    unsigned byte = static_cast<unsigned>(both >> (8 * (nibble & 7u))) & 255u;
    if (nibble & 8u) byte = byte & 128u ? 255u : 0u;
    result |= byte << (8 * i);
  }
  return result;
}
inline unsigned __vabsdiffu4(unsigned x, unsigned y) {
  unsigned result = 0;
  for (int i = 0; i < 32; i += 8) result |= __usad((x >> i) & 255u, (y >> i) & 255u, 0) << i;
  return result;
}
inline unsigned __vsadu4(unsigned x, unsigned y) {
  unsigned sum = 0;
  for (int i = 0; i < 32; i += 8) sum = __usad((x >> i) & 255u, (y >> i) & 255u, sum);
  return sum;
}
inline unsigned __dp4a(unsigned x, unsigned y, unsigned sum) {
  for (int i = 0; i < 32; i += 8) sum += ((x >> i) & 255u) * ((y >> i) & 255u);
  return sum;
}
inline int __dp4a(int x, int y, int sum) {
  for (int i = 0; i < 32; i += 8) sum += static_cast<std::int8_t>(x >> i) * static_cast<std::int8_t>(y >> i);
  return sum;
}

// --- memory ---------------------------------------------------------------------------------------------------

template <class T>
inline T __ldg(const T* p) {
  return *p;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

#define SEMNR_ATOMIC(name, result)                                         \
  template <class T>                                                       \
  __attribute__((no_sanitize("thread"), noinline)) T name(T* p, T value) { \
    ::semnr::emulation::atomic(p, sizeof(T), __builtin_return_address(0)); \
    const T old = *p;                                                      \
    *p = (result);                                                         \
    return old;                                                            \
  }
SEMNR_ATOMIC(atomicAdd, old + value)
SEMNR_ATOMIC(atomicMin, value < old ? value : old)
SEMNR_ATOMIC(atomicMax, old < value ? value : old)
SEMNR_ATOMIC(atomicOr, old | value)

using std::abs;
