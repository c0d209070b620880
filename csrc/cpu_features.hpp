#pragma once
#include <string>
#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

namespace semnr {

// Compiled for any CPU, in every module: asked before the kernels beside it are called.
inline bool cpu_runs(const std::string& isa) {
  if (isa == "baseline") return true;
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == "avx2") return avx2;
  if (isa == "avx512") {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
#endif
  return false;
}

// Whether the CPU multiplies whole tiles of bfloat16 (AMX); GCC 12 cannot be asked for it by name.
inline bool multiplies_tiles() {
#if defined(__x86_64__) && defined(__GNUC__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d >> 22 & 1u) != 0;
#else
  return false;
#endif
}

}  // namespace semnr
