// What NVRTC lacks of the standard headers and of cuda_fp16.h, as far as kernels and the headers that they include use
// it. Only NVRTC reads this file: setup.py puts it in front of each source.
#pragma once
using uint32_t = unsigned;
namespace std {
using size_t = decltype(sizeof(0));
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned;
using uint64_t = unsigned long;
using intptr_t = long;
using uintptr_t = unsigned long;
template <class T, T V>
struct integral_constant {
  static constexpr T value = V;
  __host__ __device__ constexpr operator T() const { return V; }
};
using true_type = integral_constant<bool, true>;
using false_type = integral_constant<bool, false>;
template <class A, class B>
inline constexpr bool is_same_v = false;
template <class A>
inline constexpr bool is_same_v<A, A> = true;
template <class T>
inline constexpr bool is_integral_v = false;
#define SEMNR_INTEGRAL(T) \
  template <>             \
  inline constexpr bool is_integral_v<T> = true;
SEMNR_INTEGRAL(bool)
SEMNR_INTEGRAL(signed char)
SEMNR_INTEGRAL(unsigned char)
SEMNR_INTEGRAL(short)
SEMNR_INTEGRAL(unsigned short)
SEMNR_INTEGRAL(int)
SEMNR_INTEGRAL(unsigned)
SEMNR_INTEGRAL(long)
SEMNR_INTEGRAL(unsigned long)
SEMNR_INTEGRAL(long long)
SEMNR_INTEGRAL(unsigned long long)
#undef SEMNR_INTEGRAL
template <bool Condition, class A, class B>
struct conditional {
  using type = A;
};
template <class A, class B>
struct conditional<false, A, B> {
  using type = B;
};
template <bool Condition, class A, class B>
using conditional_t = typename conditional<Condition, A, B>::type;
using ::memcpy;
template <class T>
class vector {  // of the host's options, which kernels never see
  T* part_[3];
};
struct invalid_argument {
  invalid_argument(const char*);
};
}  // namespace std

struct semnr_half {
  unsigned short bits;
};
__device__ __forceinline__ semnr_half __ushort_as_half(unsigned short bits) { return {bits}; }
__device__ __forceinline__ unsigned short __half_as_ushort(semnr_half h) { return h.bits; }
__device__ __forceinline__ float __half2float(semnr_half h) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(h.bits));
  return value;
}
__device__ __forceinline__ semnr_half __float2half_rn(float value) {
  semnr_half h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h.bits) : "f"(value));
  return h;
}

#define SEMNR_SHARED(name)                                       \
  extern __shared__ __align__(16) unsigned char semnr_shared_[]; \
  unsigned char* const name = semnr_shared_
