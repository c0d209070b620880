// What the emulation finds wrong, in the words of the report.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime.hpp"

namespace semnr::emulation {

struct Fault {
  std::string kind;     // "race", "out of bounds", "uninitialised read", ...
  std::string message;  // the rest of it, without place
  std::string kernel;
  uint3 block{}, thread{};
  std::uintptr_t pc = 0, other_pc = 0;  // offsets in the module, 0: unknown
  std::string site, other_site;         // file:line where the runtime knows it itself
  std::string where;                    // "shared" or "device", "" for none
  std::uintptr_t address = 0;           // byte offset in shared memory, or an address
  std::uint64_t count = 1;              // how often it happened at this place
};

// Ends a launch: what would come next has no meaning (or would touch memory that is not ours).
struct Stop : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace semnr::emulation
