#pragma once
#include <vector>

#include "../image.hpp"

namespace semnr {

// Of each image: the lowest finite valid pixel of the mean over channels (0 where there is none), and how many valid
// pixels are not finite.
void otsu_pixels(const Image& x, Dtype dtype, const Shape& shape, const Mask& valid, int threads, double* pivot,
                 std::int64_t* bad);

// The mean over channels less the pivot, convolved with a separable filter and divided by the filter's weight inside
// the image and the mask; taps[j] weighs the two pixels j away. out: N x H x W, 0 where invalid; low, high: extremes of
// its valid values. Valid pixels must be finite. The order of operations is that of the definition, no product and sum
// are fused: the values are its to the last bit on every instruction set.
void otsu_smooth(const Image& x, Dtype dtype, const Shape& shape, const Mask& valid, const double* pivot,
                 const std::vector<double>& taps, int threads, double* out, double* low, double* high);

// The valid pixels of N x H x W above the image's threshold, and those that are not; bytes of 0 and 1.
void otsu_split(const double* values, const Mask& valid, const Shape& shape, const double* at, int threads,
                std::uint8_t* bright, std::uint8_t* dark);

// Two regions of bytes of 0 and 1, N x H x W, each without its pixels within `radius`, in a square, of the other.
// out: both regions; pixels: 2 x N, how many each has.
void guard_band(const std::uint8_t* bright, const std::uint8_t* dark, const Shape& shape, std::int64_t radius,
                int threads, std::uint8_t* out, std::int64_t* pixels);

}  // namespace semnr
