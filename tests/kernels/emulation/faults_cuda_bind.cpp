#include <pybind11/pybind11.h>

#include "faults_cuda.hpp"

namespace {

template <class T>
T* at(std::int64_t address) {
  return reinterpret_cast<T*>(static_cast<std::intptr_t>(address));
}

}  // namespace

void bind_faults_cuda(pybind11::module_& m) {
  using namespace semnr;
  using Address = std::int64_t;
  m.def("blur", [](Address in, Address out, int n, int fault, Address stream) {
    blur_cuda(at<const float>(in), at<float>(out), n, Fault(fault), as_stream(stream));
  });
  m.def("block_sums", [](Address in, Address partial, Address out, int n, int fault, Address stream) {
    block_sums_cuda(at<const float>(in), at<float>(partial), at<float>(out), n, Fault(fault), as_stream(stream));
  });
  m.def("warp_transpose", [](Address in, Address out, int fault, Address stream) {
    warp_transpose_cuda(at<const float>(in), at<float>(out), Fault(fault), as_stream(stream));
  });
  m.def("copy", [](Address in, Address out, int n, int fault, Address stream) {
    copy_cuda(at<const float>(in), at<float>(out), n, Fault(fault), as_stream(stream));
  });
  m.def("count",
        [](Address out, int fault, Address stream) { count_cuda(at<int>(out), Fault(fault), as_stream(stream)); });
  m.def("bytes", [](Address in, Address out, Address stream) {
    bytes_cuda(at<const std::uint8_t>(in), at<std::uint8_t>(out), as_stream(stream));
  });
  m.def("strided",
        [](Address out, int stride, Address stream) { strided_cuda(at<float>(out), stride, as_stream(stream)); });
  m.def("strided16",
        [](Address out, int stride, Address stream) { strided16_cuda(at<float>(out), stride, as_stream(stream)); });
  m.def("diverged", [](Address out, Address stream) { diverged_cuda(at<float>(out), as_stream(stream)); });
  m.def("halves", [](Address in, Address wide, Address back, int n, bool bfloat16, Address stream) {
    halves_cuda(at<const std::uint16_t>(in), at<float>(wide), at<std::uint16_t>(back), n, bfloat16, as_stream(stream));
  });
  m.def("integers", [](Address in, Address out, Address stream) {
    integers_cuda(at<const std::uint32_t>(in), at<std::uint32_t>(out), as_stream(stream));
  });
}
