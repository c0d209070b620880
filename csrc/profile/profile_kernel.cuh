// Pixel errors, the moments of two regions of x and those of y, beside SSIM: from the pixels that its walk holds.
//
// A thread's sums lie in shared memory between batches: the walk leaves no registers for them.
#pragma once
#include "../cnr/cnr_kernel.cuh"
#include "../pixel/pixel_kernel.cuh"
#include "../ssim/ssim_kernel.cuh"
#include "profile_cuda.hpp"

namespace semnr {

constexpr int kProfileRegions = 2;

struct ProfileRegion {
  const char* data;
  std::int64_t image, row, pixel;
};

struct ProfileJob {
  ProfileRegion region[kProfileRegions];
  int planes, rows, columns;  // segments and strips of a plane
  ProfileScratch scratch;
};

// A thread's sums in shared memory: number after number, a bank a thread.
class ProfileSlots {
 public:
  __device__ __forceinline__ explicit ProfileSlots(unsigned char* at) : at_(at) {}
  template <class N>
  __device__ __forceinline__ void get(N& number) {
    number = load<N>(at_ + threadIdx.x * sizeof(N));
    at_ += kSsimThreads * sizeof(N);
  }
  template <class N>
  __device__ __forceinline__ void put(const N& number) {
    store(at_ + threadIdx.x * sizeof(N), number);
    at_ += kSsimThreads * sizeof(N);
  }

 private:
  unsigned char* at_;
};

// One after another, each taken up and laid down on its own: the walk leaves few registers.
template <class T>
struct ProfileErrors {
  static constexpr int kBytes = (2 * sizeof(decltype(PixelSums<T>{}.square)) + 8) * kSsimThreads;
  PixelSums<T> of;
  std::uint32_t both = 0;  // pixels that both regions hold

  __device__ __forceinline__ void get(unsigned char* at) {
    ProfileSlots from(at);
    from.get(of.square);
    from.get(of.absolute);
    from.get(both);
  }
  __device__ __forceinline__ void put(unsigned char* at) const {
    ProfileSlots to(at);
    to.put(of.square);
    to.put(of.absolute);
    to.put(both);
  }
};

template <class T>
struct ProfileMoments {
  static constexpr int kBytes =
      (std::is_integral_v<T> ? 8 + sizeof(decltype(CnrSumsOf<T>{}.square)) : 28) * kSsimThreads;
  CnrSumsOf<T> of;

  __device__ __forceinline__ void get(unsigned char* at) {
    ProfileSlots from(at);
    if constexpr (!std::is_integral_v<T>) from.get(of.pivot);
    from.get(of.square);
    from.get(of.sum);
    from.get(of.n);
  }
  __device__ __forceinline__ void put(unsigned char* at) const {
    ProfileSlots to(at);
    if constexpr (!std::is_integral_v<T>) to.put(of.pivot);
    to.put(of.square);
    to.put(of.sum);
    to.put(of.n);
  }

  template <int N>
  __device__ __forceinline__ void add(const Words<N* int(sizeof(T))>& x, const Words<N>& inside) {
    if constexpr (std::is_integral_v<T>) {
      of.template add<N>(x, inside);
    } else {
      double v[N];
#pragma unroll
      for (int k = 0; k < N; ++k) v[k] = real_value<T>(x, k);
      of.template add<N>(v, inside);
    }
  }
};

template <class T, int Size>
struct ProfileLayout : SsimForwardLayout<Size> {
  static constexpr int kErrors = SsimForwardLayout<Size>::kBytes;
  static constexpr int kRegions = kErrors + ProfileErrors<T>::kBytes;
  static constexpr int kBytes = kRegions + kProfileTallies * ProfileMoments<T>::kBytes;
};

// Goes down a strip with SSIM's walk. Packed: the regions too lie side by side and aligned to eight pixels.
template <class T, int Size, bool Packed>
class ProfileTally {
  using V = typename CnrSumsOf<T>::Value;
  using Layout = ProfileLayout<T, Size>;
  static_assert(kSsimThreads == kCnrThreads && kBatch == 8);
  static constexpr bool kAhead = Packed ? sizeof(T) < 4 : sizeof(T) > 1;  // where registers are left for it

 public:
  static constexpr bool kOneLoop = true;  // two copies of `take` would not fit the registers

  __device__ __forceinline__ ProfileTally(const ProfileJob& job, const Strip& strip, unsigned char* shared)
      : job_(job), strip_(strip), own_(strip), shared_(shared) {
    ProfileErrors<T>{}.put(errors());
#pragma unroll
    for (int r = 0; r < kProfileTallies; ++r) ProfileMoments<T>{}.put(moments(r));
  }

  template <class Reader>
  __device__ __forceinline__ void ask(const Reader& reader, int first) {
    if constexpr (kAhead) fetch(reader, first);
  }

  template <class Reader>
  __device__ __forceinline__ void take(const Reader& reader, int first) {
    if (first >= own_.share().rows) return;
    if constexpr (!kAhead) fetch(reader, first);
    const Words<8> owned = owned_by(reader, first);
    const bool tail = own_.tail(own_.share(), reader, first);
    ProfileErrors<T> e;
    e.get(errors());
    each(reader, [&](auto n, const auto& x, const auto& y, int i) {
      constexpr int kN = decltype(n)::value;
      e.of.template add<true, kN>(x, y, part_of<kN>(owned, i));
    });
#pragma unroll
    for (int i = 0; i < 2; ++i) e.both += __popc(inside_[0].w[i] & inside_[1].w[i]);
    if (tail) {
      e.of.template add<false, 1>(one(reader.tail_x()), one(reader.tail_y()), {});
      e.both += at_tail(reader, 0, first).w[0] & at_tail(reader, 1, first).w[0];
    }
    e.put(errors());
    // floats: a loop, not unrolled, so that pixels are converted anew for each; kept, conversions would fill the
    // registers
    [[maybe_unused]] constexpr int kUnrolled = Packed && std::is_integral_v<T> ? kProfileTallies : 1;
#pragma unroll(kUnrolled)
    for (int r = 0; r < kProfileTallies; ++r) {
      const bool of_x = r < kProfileRegions;
      const Words<8> mask = either(of_x, either(r == 0, inside_[0], inside_[1]), owned);
      ProfileMoments<T> m;
      m.get(moments(r));
      each(reader, [&](auto n, const auto& x, const auto& y, int i) {
        constexpr int kN = decltype(n)::value;
        m.template add<kN>(either(of_x, x, y), part_of<kN>(mask, i));
      });
      if (tail) {
        Words<1> at = {{1u}};
        if (of_x) at = r == 0 ? at_tail(reader, 0, first) : at_tail(reader, 1, first);
        m.template add<1>(one(of_x ? reader.tail_x() : reader.tail_y()), at);
      }
      m.put(moments(r));
    }
    if (first + kBatch >= own_.share().rows) {
      flush(reader);
      put_errors();
    }
  }

  __device__ __forceinline__ void leave() {}  // `take` did

 private:
  // As a mask: which of the thread's eight pixels are the block's.
  template <class Reader>
  __device__ __forceinline__ Words<8> owned_by(const Reader& reader, int first) const {
    const auto share = own_.share();
    Words<8> owned = no_words<8>();
    if (!own_.row(share, first + reader.row())) return owned;
    if constexpr (Packed) {
      if (8 * reader.group() < share.columns) owned.w[0] = owned.w[1] = 0x01010101u;
    } else {
      const int step = 1 << strip_.shift, group = reader.group();
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (i * step + group < share.columns) owned.w[i / 4] |= 1u << (8 * (i % 4));
      }
    }
    return owned;
  }

  // Which of the thread's eight pixels the regions hold.
  template <class Reader>
  __device__ __forceinline__ void fetch(const Reader& reader, int first) {
    const Words<8> owned = owned_by(reader, first);
    const int row = first + reader.row(), group = reader.group(), step = 1 << strip_.shift;
#pragma unroll
    for (int r = 0; r < kProfileRegions; ++r) {
      inside_[r] = no_words<8>();
      const char* const line = region_at(r, row);
      if constexpr (Packed) {
        if (owned.w[0] != 0) inside_[r] = load_words<8>(line + 8 * group);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          if (inside(owned, i)) {
            const std::uint32_t one = load_global<std::uint8_t>(line + (i * step + group) * job_.region[r].pixel);
            inside_[r].w[i / 4] |= one << (8 * (i % 4));
          }
        }
      }
    }
  }

  // Whether a region holds the thread's pixel of the tail.
  template <class Reader>
  __device__ __forceinline__ Words<1> at_tail(const Reader& reader, int r, int first) const {
    return load_words<1>(region_at(r, first + reader.tail_row()) + reader.tail_column() * job_.region[r].pixel);
  }

  __device__ __forceinline__ unsigned char* errors() const { return shared_ + Layout::kErrors; }
  __device__ __forceinline__ unsigned char* moments(int r) const {
    return shared_ + Layout::kRegions + r * ProfileMoments<T>::kBytes;
  }

  static __device__ __forceinline__ Words<int(sizeof(T))> one(std::uint32_t word) { return {{word}}; }

  template <int Bytes>
  static __device__ __forceinline__ Words<Bytes> either(bool which, const Words<Bytes>& a, const Words<Bytes>& b) {
    Words<Bytes> words;
#pragma unroll
    for (int i = 0; i < Words<Bytes>::kCount; ++i) words.w[i] = which ? a.w[i] : b.w[i];
    return words;
  }

  // N of a mask's eight pixels, from i on.
  template <int N>
  static __device__ __forceinline__ Words<N> part_of(const Words<8>& mask, int i) {
    if constexpr (N == 1) return {{mask.w[i / 4] >> (8 * (i % 4)) & 1u}};
    if constexpr (N == 2) return {{mask.w[i / 4] >> (8 * (i % 4)) & 0xffffu}};
    if constexpr (N == 4) return {{mask.w[i / 4]}};
    if constexpr (N == 8) return mask;
  }

  // f(number of pixels, x, y, the first's place among the eight) over the thread's eight pixels.
  template <class Reader, class F>
  __device__ __forceinline__ void each(const Reader& reader, F&& f) const {
    if constexpr (Packed) {
      constexpr int kN = std::is_integral_v<T> ? 8 : sizeof(T) == 4 ? 2 : 4, kWords = kN * int(sizeof(T)) / 4;
#pragma unroll
      for (int i = 0; i < 8; i += kN) {
        Words<kN* int(sizeof(T))> x, y;
#pragma unroll
        for (int k = 0; k < kWords; ++k) {
          x.w[k] = reader.x()[i / kN * kWords + k];
          y.w[k] = reader.y()[i / kN * kWords + k];
        }
        f(std::integral_constant<int, kN>{}, x, y, i);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        f(std::integral_constant<int, 1>{}, one(reader.x()[i]), one(reader.y()[i]), i);
      }
    }
  }

  // The block's moments, to memory. They are put together where the moments of the batch before lay.
  template <class Reader>
  __device__ __forceinline__ void flush(const Reader& reader) const {
    std::uint64_t* const found = reinterpret_cast<std::uint64_t*>(shared_ + Layout::kMoments);
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kProfileTallies; ++r) {
      ProfileMoments<T> m;
      m.get(moments(r));
      put_cell(found + r * 3 * kCnrThreads + int(threadIdx.x), kCnrThreads, m.of.cell());
    }
    const int groups = 1 << strip_.shift;
    fold_cells<V, kProfileTallies>(found, kProfileTallies,
                                   {int(threadIdx.x), reader.row(), kBatch, groups, reader.group(), groups, groups});
    if (threadIdx.x == 0) {
      const std::int64_t apart = std::int64_t(job_.rows) * job_.columns;
      const int row = strip_.begin, column = strip_.left / (8 * groups);
#pragma unroll
      for (int r = 0; r < kProfileTallies; ++r) {
        put_cell(job_.scratch.cells + (std::int64_t(r) * job_.planes + strip_.plane) * 3 * apart + row * job_.columns +
                     column,
                 apart, get_cell<V>(found + r * 3 * kCnrThreads, kCnrThreads));
      }
    }
  }

  // The block's pixel errors, to memory: the sums of all warps, where the threads kept theirs.
  __device__ __forceinline__ void put_errors() const {
    using Sum = typename PixelSums<T>::Sum;
    std::uint64_t* const of_warp = reinterpret_cast<std::uint64_t*>(errors());
    ProfileErrors<T> e;
    e.get(errors());
    const Sum square = warp_sum(Sum(e.of.square)), absolute = warp_sum(Sum(e.of.absolute));
    const std::uint32_t both = warp_sum(e.both);
    __syncthreads();
    put_warp(of_warp, square, absolute, both);
    __syncthreads();
    fold_warps<Sum>(of_warp, int(blockDim.x) / 32, job_.scratch.pixels + std::int64_t(blockIdx.x) * kPixelPartial);
  }

  __device__ __forceinline__ const char* region_at(int r, int row) const {
    const ProfileRegion& region = job_.region[r];
    return region.data + strip_.plane * region.image + (strip_.top + row) * region.row + strip_.left * region.pixel;
  }

  const ProfileJob& job_;
  const Strip& strip_;
  OwnPixels<Size> own_;
  unsigned char* shared_;
  Words<8> inside_[kProfileRegions];
};

template <class T, int Size, bool Packed>
__global__ void __launch_bounds__(kSsimThreads, 2) profile_scores(const SsimJob<Size> job, const ProfileJob profile) {
  SEMNR_SHARED(shared);
  ssim_walk<T, Size, Packed>(job, profile.scratch.ssim, nullptr, shared,
                             [&](const Strip& strip) { return ProfileTally<T, Size, Packed>(profile, strip, shared); });
}

}  // namespace semnr
