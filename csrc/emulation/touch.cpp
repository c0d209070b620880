// Every access of a kernel ends here: bounds, order, contents, counters.
#include <algorithm>
#include <cstdio>

#include "machine.hpp"

namespace semnr::emulation {

namespace {

std::string hex(std::uintptr_t value) {
  char text[32];
  std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::string bytes_text(std::size_t size) { return std::to_string(size) + (size == 1 ? " byte" : " bytes"); }

std::string who_text(const Touch& touch, const Now& now) {
  if (touch.stamp < now.block || touch.who == kSomeBlocks) return "another block";
  if (touch.who == kAtomic) return "an atomic operation";
  if (touch.who >= kSomeOfBlock) return "other threads too";
  if (touch.who & kSomeOfWarp) return "other lanes of the warp too";
  return "thread " + std::to_string(touch.who);
}

}  // namespace

Fault& Machine::report(const char* kind, std::string message, std::uintptr_t pc, std::uintptr_t other_pc) {
  for (Fault& old : faults) {
    if (pc != 0 && old.pc == pc && old.other_pc == other_pc && old.kind == kind && old.kernel == kernel_) {
      ++old.count;
      return old;
    }
  }
  Fault fault;
  fault.kind = kind;
  fault.message = std::move(message);
  fault.kernel = kernel_;
  fault.block = block_id;
  fault.thread = threads[current].index;
  fault.pc = pc;
  fault.other_pc = other_pc;
  faults.push_back(std::move(fault));
  return faults.back();
}

void Machine::touch(std::uintptr_t address, std::size_t size, bool write, std::uintptr_t pc) {
  if (address - stack_low_ < Stacks::kBytes) return;
  if (!write && address - reinterpret_cast<std::uintptr_t>(launched_->arguments) < launched_->argument_bytes) return;
  pc -= module;
  if (size <= 16 && (address & (size - 1)) != 0 && (size & (size - 1)) == 0) {
    report("misaligned access", bytes_text(size) + " at " + hex(address), pc).address = address;
    stop();
  }
  const std::intptr_t offset = static_cast<std::intptr_t>(address - reinterpret_cast<std::uintptr_t>(shared));
  if (offset >= -static_cast<std::intptr_t>(kGuard) && offset < static_cast<std::intptr_t>(kArena + kGuard)) {
    touch_shared(offset, size, write, pc);
  } else if (!touch_device(address, size, write, pc)) {
    bool allowed = false;
    for (const auto& [begin, end] : constants_) allowed = allowed || (!write && address - begin < end - begin);
    if (!allowed) {
      Fault& fault = report(
          "out of bounds",
          std::string(write ? "write" : "read") + " of " + bytes_text(size) + " that belong to no tensor of the launch",
          pc);
      fault.where = "device";
      fault.address = address;
      stop();
    }
  }
  if (faults.size() >= kMostFaults) stop();
}

void Machine::race(const Cell& cell, bool write, bool device, std::uintptr_t pc, std::uintptr_t address) {
  const bool by_write = !now.ordered(cell.write, device);
  const Touch& other = by_write ? cell.write : cell.read;
  Fault& fault = report("race",
                        std::string(write ? "writes" : "reads") + " what " + who_text(other, now) +
                            (by_write ? " wrote" : " read") + ", with nothing to order the two",
                        pc, other.pc);
  fault.where = device ? "device" : "shared";
  if (fault.count == 1) fault.address = address;
}

void Machine::touch_shared(std::intptr_t offset, std::size_t size, bool write, std::uintptr_t pc) {
  if (offset < 0 || offset + size > launched_->shared_bytes) {
    Fault& fault = report("out of bounds",
                          std::string(write ? "write" : "read") + " of " + bytes_text(size) + " at byte " +
                              std::to_string(offset) + " of " + std::to_string(launched_->shared_bytes) +
                              " bytes of shared memory",
                          pc);
    fault.where = "shared";
    fault.address = offset;
    stop();
  }
  logs_[current >> 5].add(current & 31,
                          {std::uint32_t(pc), std::uint32_t(offset), static_cast<std::uint16_t>(size), write});
  if (!checking) return;
  Cell* const first = shared_cells_.at(offset, size);
  Cell* const end = first + std::max<std::size_t>(1, size >> shared_cells_.shift());
  for (Cell* cell = first; cell < end; ++cell) {
    const std::uintptr_t at = offset + ((cell - first) << shared_cells_.shift());
    if (write) {
      if (!now.ordered(cell->write, false) || !now.ordered(cell->read, false)) race(*cell, true, false, pc, at);
      note_write(*cell, now, pc);
    } else {
      if (cell->write.stamp < now.block) {
        Fault& fault =
            report("uninitialised read", "byte " + std::to_string(at) + " of shared memory, which nothing wrote", pc);
        fault.where = "shared";
        if (fault.count == 1) fault.address = at;
      } else if (!now.ordered(cell->write, false)) {
        race(*cell, false, false, pc, at);
      }
      if (!now.atomic) note_read(*cell, now, false, pc);  // else it is a part of the write
    }
  }
}

// False: not device memory of this launch.
bool Machine::touch_device(std::uintptr_t address, std::size_t size, bool write, std::uintptr_t pc) {
  if (last_range_ == nullptr || address < last_range_->begin || address >= last_range_->end) {
    Range* found = nullptr;
    for (Range& range : ranges_) {
      if (range.begin <= address && address < range.end) found = &range;
    }
    if (found == nullptr) return false;
    last_range_ = found;
  }
  Range& range = *last_range_;
  if (address + size > range.end) return false;
  auto& seen = write ? range.written_by : range.read_by;
  for (std::size_t s = range.sector(address); s <= range.sector(address + size - 1); ++s) {
    if (seen[s] == serial_) continue;
    seen[s] = serial_;
    (write ? counted_->sectors_written : counted_->sectors_read) += 1;
  }
  (write ? counted_->bytes_written : counted_->bytes_read) += size;
  const std::uint8_t flags = range.flags_of(address, size);
  if (!(flags & kPresent)) return false;
  if (write && !(flags & kWritable)) {
    Fault& fault = report("write to an input", "a tensor that was registered to be read", pc);
    fault.where = "device";
    fault.address = address;
    stop();
  }
  if (!checking || !(flags & kWritable)) return true;
  Cell* const first = range.cells.at(address - range.begin, size);
  Cell* const end = first + std::max<std::size_t>(1, size >> range.cells.shift());
  for (Cell* cell = first; cell < end; ++cell) {
    const std::uintptr_t at = address + ((cell - first) << range.cells.shift());
    if (write) {
      if (!now.ordered(cell->write, true) || !now.ordered(cell->read, true)) race(*cell, true, true, pc, at);
      note_write(*cell, now, pc);
    } else {
      if (!(flags & kInitialised) && cell->write.stamp == 0) {
        Fault& fault = report("uninitialised read", "memory that nothing wrote", pc);
        fault.where = "device";
        if (fault.count == 1) fault.address = at;
      } else if (!now.ordered(cell->write, true)) {
        race(*cell, false, true, pc, at);
      }
      if (!now.atomic) note_read(*cell, now, true, pc);
    }
  }
  return true;
}

std::vector<Machine::Unwritten> Machine::unwritten() {
  std::vector<Unwritten> found;
  if (!checking || !only.empty()) return found;
  for (Range& range : ranges_) {
    for (std::size_t v : range.views) {
      const View& view = views[v];
      if (!view.writable || view.initialised || !view.whole) continue;
      Unwritten one{v, 0, 0};
      view.for_each([&](std::uintptr_t address) {
        for (std::size_t b = 0; b < view.item; ++b) {
          if (range.cells.begin(address - range.begin + b)->write.stamp != 0) continue;
          if (one.bytes++ == 0) one.first = address;
        }
      });
      if (one.bytes > 0) found.push_back(one);
    }
  }
  return found;
}

// --- the kernels' side ----------------------------------------------------------------------------------------

uint3 thread_index() { return machine().threads[machine().current].index; }
uint3 block_index() { return machine().block_id; }
dim3 block_size() { return machine().block; }
dim3 grid_size() { return machine().grid; }
unsigned char* shared_memory() { return machine().shared; }
int mutation() { return machine().mutation; }
int lane_index() { return machine().current & 31; }
void barrier(Site site) { machine().barrier(site); }
std::uint64_t collective(Collective kind, unsigned mask, std::uint64_t value, int source, Site site) {
  return machine().collective(kind, mask, value, source, site);
}
void launch(const Launch& wanted) { machine().launch(wanted); }

void atomic(void* address, std::size_t size, void* from) {
  Machine& m = machine();
  const auto pc = reinterpret_cast<std::uintptr_t>(from) - 1;
  m.running = false;
  m.now.atomic = true;
  m.touch(reinterpret_cast<std::uintptr_t>(address), size, false, pc);
  m.touch(reinterpret_cast<std::uintptr_t>(address), size, true, pc);
  m.now.atomic = false;
  m.running = true;
}

}  // namespace semnr::emulation
