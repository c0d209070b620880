#pragma once
#include <cstdint>
#include <type_traits>

namespace semnr {

// x, y: `images` contiguous images of `pixels` values each (channels included); square, absolute: `images` means.
template <class T>
void pixel_errors(const T* x, const T* y, std::int64_t images, std::int64_t pixels, double* square, double* absolute);

}  // namespace semnr
