// `semnr_kernels._cuda_kernels`, and from the same file the emulated module: SEMNR_OPS names the ops whose bindings
// were built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#if defined(SEMNR_EMULATED)
void bind_emulation(pybind11::module_& m);
#else
#include <cuda_runtime_api.h>

namespace {

// (number of devices, "") or (0, the runtime's error): loading the module needs no driver, asking does.
pybind11::tuple devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return pybind11::make_tuple(0, static_cast<int>(status), cudaGetErrorString(status));
  return pybind11::make_tuple(count, 0, "");
}

int compute_capability(int device) {
  int major = 0, minor = 0;
  for (auto [value, which] :
       {std::pair{&major, cudaDevAttrComputeCapabilityMajor}, std::pair{&minor, cudaDevAttrComputeCapabilityMinor}}) {
    const cudaError_t status = cudaDeviceGetAttribute(value, which, device);
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
  }
  return 10 * major + minor;
}

void set_device(int device) {
  const cudaError_t status = cudaSetDevice(device);
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

}  // namespace
#endif

#define SEMNR_DECLARE(op) void bind_##op##_cuda(pybind11::module_& m);
SEMNR_OPS(SEMNR_DECLARE)

PYBIND11_MODULE(SEMNR_MODULE, m) {
  m.attr("ABI") = 3;  // semnr_kernels/cuda_support.py holds the same number
#if defined(SEMNR_EMULATED)
  bind_emulation(m);
#else
  m.attr("ARCHITECTURES") = pybind11::cast(SEMNR_ARCHITECTURES);
  m.attr("NVCC") = SEMNR_NVCC;
  m.def("devices", &devices, "(count, error code, error text) from the CUDA runtime.");
  m.def("compute_capability", &compute_capability, "10 x major + minor of a device.");
  m.def("set_device", &set_device, "Launches go to this device.");
#endif
#define SEMNR_BIND(op) bind_##op##_cuda(m);
  SEMNR_OPS(SEMNR_BIND)
}
