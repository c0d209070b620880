// `semnr_kernels._cuda_kernels`, and from the same file the emulated module, and `_cuda_hosted`, whose kernels NVRTC
// compiles: SEMNR_OPS names the ops whose bindings were built.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#if defined(SEMNR_EMULATED)
void bind_emulation(pybind11::module_& m);
#elif defined(SEMNR_HOSTED)
#include <mutex>
#include <string>
#include <vector>

#include "hosted.hpp"
#include "sources.hpp"  // setup.py writes it: kSources, the text of each source for NVRTC

namespace {

// Of the CUDA driver, as its API declares them; a status of 0 is success.
using LaunchKernel = int (*)(void* function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                             unsigned shared, void* stream, void** parameters, void** extra);
using SetAttribute = int (*)(void* function, int attribute, int value);
constexpr int kMaxDynamicShared = 8;

LaunchKernel driver_launch = nullptr;
SetAttribute driver_attribute = nullptr;
PyObject* function_of = nullptr;  // (name, source, device, bytes of the parameters) -> address of the function
thread_local int current_device = 0;
std::mutex known_mutex;
std::vector<std::atomic<void*>*> known;  // what `forget` clears

void require(int status, const char* name, const char* what) {
  if (status != 0) {
    throw std::runtime_error(std::string(name) + ": " + what + " failed with CUDA error " + std::to_string(status));
  }
}

void use_driver(std::uintptr_t launch, std::uintptr_t attribute, pybind11::object resolve) {
  driver_launch = reinterpret_cast<LaunchKernel>(launch);
  driver_attribute = reinterpret_cast<SetAttribute>(attribute);
  PyObject* const before = function_of;
  function_of = resolve.release().ptr();
  Py_XDECREF(before);
  const std::lock_guard<std::mutex> lock(known_mutex);
  for (std::atomic<void*>* one : known) one->store(nullptr);
  known.clear();
}

void set_device(int device) {
  if (device < 0 || device >= semnr::hosted::kDevices) throw std::invalid_argument("set_device: device");
  current_device = device;
}

void* resolved(const semnr::hosted::Launch& asked) {
  const pybind11::gil_scoped_acquire lock;
  const std::vector<std::size_t> sizes(asked.sizes, asked.sizes + asked.count);
  const pybind11::object call = pybind11::reinterpret_borrow<pybind11::object>(function_of);
  return reinterpret_cast<void*>(call(asked.name, asked.source, current_device, sizes).cast<std::uintptr_t>());
}

}  // namespace

void semnr::hosted::launch(const Launch& asked, std::atomic<void*>* found) {
  if (driver_launch == nullptr) throw std::runtime_error("no CUDA driver was given");
  std::atomic<void*>& kept = found[current_device];
  void* function = kept.load();
  if (function == nullptr) {
    function = resolved(asked);
    const std::lock_guard<std::mutex> lock(known_mutex);
    kept.store(function);
    known.push_back(&kept);
  }
  if (asked.shared_bytes > 48 * 1024) {
    require(driver_attribute(function, kMaxDynamicShared, int(asked.shared_bytes)), asked.name,
            "asking for shared memory");
  }
  const unsigned *g = asked.grid, *b = asked.block;
  require(driver_launch(function, g[0], g[1], g[2], b[0], b[1], b[2], unsigned(asked.shared_bytes), asked.stream,
                        asked.parameters, nullptr),
          asked.name, "the launch");
}
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
  m.attr("ABI") = 4;  // semnr_kernels/cuda_support.py holds the same number
#if defined(SEMNR_EMULATED)
  bind_emulation(m);
#elif defined(SEMNR_HOSTED)
  pybind11::dict sources;
  for (const auto& one : kSources) sources[one.name] = one.text;
  m.attr("SOURCES") = sources;
  m.def("use_driver", &use_driver, "Addresses of cuLaunchKernel and cuFuncSetAttribute, and what finds a function.");
  m.def("set_device", &set_device, "Launches of this thread go to this device.");
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
