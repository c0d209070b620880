// Shared-memory transactions. The accesses of a warp's lanes that one instruction makes together are served together;
// here a lane's n-th passage of an instruction since the last barrier meets the other lanes' n-th.
#pragma once
#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace semnr::emulation {

struct SharedAccess {
  std::uint32_t pc, offset;
  std::uint16_t size;
  bool write;
};

struct Traffic {
  std::uint64_t words = 0;         // 4-byte accesses of threads; a narrower access is one, a 16-byte access four
  std::uint64_t instructions = 0;  // of warps
  std::uint64_t transactions = 0;
  std::uint64_t ideal = 0;  // transactions without bank conflicts
};

struct BankCounters {
  Traffic loads, stores;
  std::uint32_t worst_ways_x100 = 0;  // of one instruction, transactions over ideal
  std::uint32_t worst_pc = 0;
};

// Transactions of one warp instruction: 32 banks of 4 bytes; 8-byte accesses are served half a warp at a time, 16-byte
// accesses a quarter. Lanes that touch one word share it.
struct Served {
  std::uint32_t transactions = 0, phases = 0;
};

// The usual case of it: no two lanes of a phase want different words of a bank.
inline bool serve_at_once(const std::uint32_t (&offset)[32], std::uint32_t lanes, int size, Served& served) {
  if (size != 4 && size != 8 && size != 16) return false;
  const int together = size == 4 ? 32 : 128 / size, shift = __builtin_ctz(size);
  served = {};
  for (int first = 0; first < 32; first += together) {
    std::uint32_t taken = 0, unit[32];
    for (int lane = first; lane < first + together; ++lane) {
      if (!(lanes >> lane & 1)) continue;
      const std::uint32_t u = offset[lane] >> shift, slot = u & (together - 1);
      if ((taken >> slot & 1) && unit[slot] != u) return false;
      taken |= 1u << slot;
      unit[slot] = u;
    }
    served.phases += taken != 0;
  }
  served.transactions = served.phases;
  return true;
}

inline Served serve(const std::uint32_t (&offset)[32], std::uint32_t lanes, int size) {
  Served quick;
  if (serve_at_once(offset, lanes, size, quick)) return quick;
  const int together = size <= 4 ? 32 : (size == 8 ? 16 : 8);
  Served served;
  for (int first = 0; first < 32; first += together) {
    std::uint32_t word[32];
    int count = 0;
    for (int lane = first; lane < first + together; ++lane) {
      if (!(lanes >> lane & 1)) continue;
      const std::uint32_t last = (offset[lane] + size - 1) / 4;
      for (std::uint32_t w = offset[lane] / 4; w <= last && count < 32; ++w) word[count++] = w;
    }
    if (count == 0) continue;
    std::sort(word, word + count);
    count = static_cast<int>(std::unique(word, word + count) - word);
    std::uint32_t load[32] = {}, most = 0;
    for (int i = 0; i < count; ++i) most = std::max(most, ++load[word[i] % 32]);
    served.transactions += most;
    served.phases += 1;
  }
  return served;
}

// The shared accesses of one warp since the last barrier.
class WarpLog {
 public:
  void add(int lane, const SharedAccess& access) { lanes_[lane].push_back(access); }

  void flush(BankCounters& counters) {
    if (aligned()) {
      std::uint32_t present = 0, offset[32];
      for (int lane = 0; lane < 32; ++lane) present |= std::uint32_t(!lanes_[lane].empty()) << lane;
      const std::size_t steps = present == 0 ? 0 : lanes_[__builtin_ctz(present)].size();
      for (std::size_t step = 0; step < steps; ++step) {
        for (int lane = 0; lane < 32; ++lane) {
          if (present >> lane & 1) offset[lane] = lanes_[lane][step].offset;
        }
        count(counters, lanes_[__builtin_ctz(present)][step], offset, present);
      }
    } else {
      flush_diverged(counters);
    }
    for (auto& lane : lanes_) lane.clear();
  }

 private:
  struct Group {
    SharedAccess access;
    std::uint32_t lanes = 0;
    std::uint32_t offset[32];
  };

  // Whether all lanes that made an access made the same ones.
  bool aligned() const {
    const std::vector<SharedAccess>* first = nullptr;
    for (const auto& lane : lanes_) {
      if (lane.empty()) continue;
      if (first == nullptr) first = &lane;
      if (lane.size() != first->size()) return false;
      for (std::size_t i = 0; i < lane.size(); ++i) {
        if (lane[i].pc != (*first)[i].pc || lane[i].size != (*first)[i].size) return false;
      }
    }
    return true;
  }

  void flush_diverged(BankCounters& counters) {
    std::unordered_map<std::uint64_t, Group> groups;
    for (int lane = 0; lane < 32; ++lane) {
      std::unordered_map<std::uint32_t, std::uint32_t> passages;
      for (const SharedAccess& access : lanes_[lane]) {
        Group& group = groups[(std::uint64_t(access.pc) << 32) | passages[access.pc]++];
        group.access = access;
        group.lanes |= 1u << lane;
        group.offset[lane] = access.offset;
      }
    }
    for (auto& [key, group] : groups) count(counters, group.access, group.offset, group.lanes);
  }

  static void count(BankCounters& counters, const SharedAccess& access, const std::uint32_t (&offset)[32],
                    std::uint32_t lanes) {
    const Served served = serve(offset, lanes, access.size);
    Traffic& traffic = access.write ? counters.stores : counters.loads;
    traffic.words += std::uint64_t(__builtin_popcount(lanes)) * ((access.size + 3) / 4);
    traffic.instructions += 1;
    traffic.transactions += served.transactions;
    traffic.ideal += served.phases;
    const std::uint32_t ways = 100 * served.transactions / std::max(1u, served.phases);
    if (ways > counters.worst_ways_x100) {
      counters.worst_ways_x100 = ways;
      counters.worst_pc = access.pc;
    }
  }

  std::vector<SharedAccess> lanes_[32];
};

}  // namespace semnr::emulation
