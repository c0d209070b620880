// The emulated device: its memory, its clock, the launch that runs, what was counted and what was found.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "banks.hpp"
#include "faults.hpp"
#include "fiber.hpp"
#include "shadow.hpp"

namespace semnr::emulation {

struct Counters {
  std::uint64_t launches = 0, blocks = 0, threads = 0, barriers = 0, collectives = 0;
  std::uint64_t sectors_read = 0, sectors_written = 0;  // distinct 32-byte sectors of a block, summed over blocks
  std::uint64_t bytes_read = 0, bytes_written = 0;      // device memory, as threads asked for them
  std::uint64_t shared_bytes = 0;                       // the largest launch's
  BankCounters banks;
};

// A launch as it was asked for, whatever of it ran.
struct Launched {
  std::string kernel;
  std::uintptr_t function;  // offset in the module
  dim3 grid, block;
  std::size_t shared_bytes;
};

enum class State { Ready, Barrier, Collective, Done };

struct Thread {
  void* stack = nullptr;  // saved stack pointer
  State state = State::Done;
  Site site{"", 0};
  uint3 index{};
  Collective kind{};
  unsigned mask = 0;
  int source = 0;
  std::uint64_t value = 0, result = 0;
};

class Machine {
 public:
  static constexpr std::size_t kArena = 228 * 1024;  // the largest shared memory of a multiprocessor in use
  static constexpr std::size_t kGuard = 256 * 1024;
  static constexpr int kThreads = 1024;
  static constexpr std::size_t kMostFaults = 20;

  Machine();

  void begin(std::vector<View> views);
  void launch(const Launch& launch);
  // Bytes of writable views that no kernel wrote: (view, how many, address of the first).
  struct Unwritten {
    std::size_t view;
    std::uint64_t bytes;
    std::uintptr_t first;
  };
  std::vector<Unwritten> unwritten();

  // One access by the running thread. `pc`: where in the kernel.
  void touch(std::uintptr_t address, std::size_t size, bool write, std::uintptr_t pc);
  void barrier(Site site);
  std::uint64_t collective(Collective kind, unsigned mask, std::uint64_t value, int source, Site site);

  bool running = false;  // a kernel's thread has the processor
  int current = 0;
  dim3 grid, block;
  uint3 block_id{};
  unsigned char* shared = nullptr;
  Now now;
  Thread threads[kThreads];

  std::vector<View> views;
  std::vector<Fault> faults;
  std::map<std::string, Counters> counters;
  std::vector<Launched> launches;
  std::vector<std::uint64_t> only;  // blocks to run (by linear index); empty: all
  int mutation = 0;
  bool checking = true;       // false: bounds and counters alone, for counting large grids
  std::uintptr_t module = 0;  // its address

 private:
  void run_block();
  bool run_warp(int warp);
  bool resolve(int warp);
  void enter(int thread);
  void yield(State state);
  void touch_shared(std::intptr_t offset, std::size_t size, bool write, std::uintptr_t pc);
  bool touch_device(std::uintptr_t address, std::size_t size, bool write, std::uintptr_t pc);
  void race(const Cell& cell, bool write, bool device, std::uintptr_t pc, std::uintptr_t address);
  Fault& report(const char* kind, std::string message, std::uintptr_t pc, std::uintptr_t other_pc = 0);
  [[noreturn]] void stop();
  static void entry();

  Stacks stacks_{kThreads};
  void* scheduler_ = nullptr;  // saved stack pointer
  unsigned char* arena_ = nullptr;
  std::uintptr_t stack_low_ = 0;
  Cells shared_cells_{kArena, true};
  WarpLog logs_[32];
  std::vector<Range> ranges_;
  Range* last_range_ = nullptr;
  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> constants_;  // read-only segments of this module
  const Launch* launched_ = nullptr;
  Counters* counted_ = nullptr;
  std::string kernel_;
  int size_ = 0;  // threads of a block
  std::uint32_t serial_ = 0;
  bool stopped_ = false;
};

extern Machine instance;
inline Machine& machine() { return instance; }

}  // namespace semnr::emulation
