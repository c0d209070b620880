// Small kernels that can be told to go wrong in one way each; tests/kernels/emulation/test_emulation.py says what must then be found.
#pragma once
#include <cstdint>

#include "cuda/stream.hpp"

namespace semnr {

// The values are those of tests/kernels/emulation/test_emulation.py.
enum class Fault : int {
  None = 0,
  HaloPastTheEnd,
  HaloPastTheTile,
  MissingBarrier,
  SharedNotWritten,
  ExitBeforeBarrier,
  BarrierElsewhere,
  LaneLeavesShuffle,
  LaneNotInMask,
  ReadsLaneOutsideMask,
  BlocksWriteOneCell,
  BlockReadsAnothers,
  OutputNotWritten,
  ScratchNotWritten,
  WritesInput,
  Misaligned,
  NoWarpBarrier,
  AtomicAndPlain,
  WriteAfterRead,
  CopyPastTheEnd,
};

void blur_cuda(const float* in, float* out, int n, Fault fault, Stream stream);
void block_sums_cuda(const float* in, float* partial, float* out, int n, Fault fault, Stream stream);
void warp_transpose_cuda(const float* in, float* out, Fault fault, Stream stream);
void copy_cuda(const float* in, float* out, int n, Fault fault, Stream stream);
void count_cuda(int* out, Fault fault, Stream stream);
void bytes_cuda(const std::uint8_t* in, std::uint8_t* out, Stream stream);
void strided_cuda(float* out, int stride, Stream stream);
void strided16_cuda(float* out, int stride, Stream stream);
void diverged_cuda(float* out, Stream stream);
void halves_cuda(const std::uint16_t* in, float* wide, std::uint16_t* back, int n, bool bfloat16, Stream stream);
void integers_cuda(const std::uint32_t* in, std::uint32_t* out, Stream stream);

}  // namespace semnr
