// The shadow of memory: who touched each byte last, and when. Time is a stamp that every barrier advances; two touches
// of a byte by two threads, one of them a write, race unless a barrier that orders the two lies between.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace semnr::emulation {

// Zeroed memory that costs nothing until it is touched.
template <class T>
class Lazy {
 public:
  Lazy() = default;
  explicit Lazy(std::size_t count) : count_(count) {
    if (count == 0) return;
    void* p = mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<T*>(p);
  }
  Lazy(Lazy&& other) noexcept : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  Lazy& operator=(Lazy&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~Lazy() {
    if (data_ != nullptr) munmap(data_, bytes());
  }
  T& operator[](std::size_t i) { return data_[i]; }
  bool empty() const { return data_ == nullptr; }

 private:
  std::size_t bytes() const { return count_ * sizeof(T); }
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

// Who: a thread's index, or one of these.
enum Who : std::uint16_t { kSomeOfWarp = 0x1000, kSomeOfBlock = 0x2000, kSomeBlocks = 0x3000, kAtomic = 0x4000 };

struct Touch {
  std::uint32_t stamp;  // 0: never
  std::uint32_t pc;     // offset in the module
  std::uint16_t who;
};

struct Cell {
  Touch write, read;
};

// The present, from the point of view of the thread that touches memory.
struct Now {
  std::uint32_t stamp = 1;       // advanced by every barrier
  std::uint32_t launch = 1;      // the stamp with which the launch began,
  std::uint32_t block = 1;       // the block,
  std::uint32_t barrier = 1;     // the block's last barrier
  std::uint32_t warp[32] = {1};  // and each warp's last full synchronisation
  std::uint16_t thread = 0;
  bool atomic = false;

  int warp_of(std::uint16_t who) const { return who & kSomeOfWarp ? who & 31 : who >> 5; }

  // Whether `past` is certain to come before what this thread does now. `device`: other blocks see that memory.
  bool ordered(const Touch& past, bool device) const {
    if (past.stamp < block) return !device || past.stamp < launch || (past.who == kAtomic && atomic);
    if (past.who == thread) return true;
    if (past.who == kSomeBlocks) return false;
    if (past.stamp < barrier) return true;
    if (past.who == kAtomic) return atomic;
    return past.who < kSomeOfBlock && warp_of(past.who) == (thread >> 5) && past.stamp < warp[thread >> 5];
  }
};

inline void note_write(Cell& cell, const Now& now, std::uint32_t pc) {
  cell.write = {now.stamp, pc, now.atomic ? std::uint16_t(kAtomic) : now.thread};
}

inline void note_read(Cell& cell, const Now& now, bool device, std::uint32_t pc) {
  Touch& last = cell.read;
  std::uint16_t who = now.thread;
  if (last.stamp >= now.launch && device && (last.stamp < now.block || last.who == kSomeBlocks)) {
    who = kSomeBlocks;  // kept to the end of the launch: nothing orders blocks
  } else if (last.stamp >= now.block && last.who != now.thread && !now.ordered(last, device)) {
    who = last.who < kSomeOfBlock && now.warp_of(last.who) == (now.thread >> 5)
              ? std::uint16_t(kSomeOfWarp | (now.thread >> 5))
              : std::uint16_t(kSomeOfBlock);
  }
  last = {now.stamp, pc, who};
}

// The cells of a stretch of memory: one for four bytes until an access is narrower or lies across, then one a byte.
class Cells {
 public:
  Cells() = default;
  Cells(std::size_t bytes, bool words) : bytes_(bytes), shift_(words ? 2 : 0), cells_((bytes >> shift_) + 1) {}

  Cell* at(std::size_t offset, std::size_t size) {
    if (((offset | size) & ((std::size_t(1) << shift_) - 1)) != 0) split();
    return &cells_[offset >> shift_];
  }
  Cell* begin(std::size_t offset) { return &cells_[offset >> shift_]; }
  int shift() const { return shift_; }

 private:
  void split() {
    Lazy<Cell> fine(bytes_ + 1);
    for (std::size_t i = 0; i < bytes_; ++i) {
      const Cell& cell = cells_[i >> shift_];
      if (cell.write.stamp != 0 || cell.read.stamp != 0) fine[i] = cell;
    }
    cells_ = std::move(fine);
    shift_ = 0;
  }

  std::size_t bytes_ = 0;
  int shift_ = 0;
  Lazy<Cell> cells_;
};

// --- device memory --------------------------------------------------------------------------------------------

// A tensor as it was registered: kernels may touch its elements and nothing between them.
struct View {
  std::string name;
  std::uintptr_t address = 0;
  std::size_t item = 1;
  std::vector<std::int64_t> shape, strides;  // strides in elements
  bool initialised = true, writable = false, whole = false;

  std::int64_t elements() const {
    std::int64_t n = 1;
    for (auto s : shape) n *= s;
    return n;
  }
  // First and one past the last byte.
  std::pair<std::uintptr_t, std::uintptr_t> span() const {
    std::intptr_t low = 0, high = 0;
    for (std::size_t d = 0; d < shape.size(); ++d) {
      const std::intptr_t reach = (shape[d] - 1) * strides[d] * static_cast<std::intptr_t>(item);
      (reach < 0 ? low : high) += reach;
    }
    return {address + low, address + high + item};
  }
  // Calls `each(address of an element)`.
  template <class F>
  void for_each(F each) const {
    std::vector<std::int64_t> index(shape.size(), 0);
    for (std::int64_t left = elements(); left > 0; --left) {
      std::intptr_t offset = 0;
      for (std::size_t d = 0; d < shape.size(); ++d) offset += index[d] * strides[d];
      each(address + offset * static_cast<std::intptr_t>(item));
      for (std::size_t d = shape.size(); d-- > 0;) {
        if (++index[d] < shape[d]) break;
        index[d] = 0;
      }
    }
  }
};

enum Flag : std::uint8_t { kPresent = 1, kInitialised = 2, kWritable = 4 };

// A stretch of device memory: one view, or several that share bytes.
struct Range {
  std::uintptr_t begin = 0, end = 0;
  std::vector<std::size_t> views;
  std::uint8_t flags = 0;                   // of every byte,
  Lazy<std::uint8_t> byte_flags;            // unless they differ
  Cells cells;                              // none for memory that is only read
  Lazy<std::uint32_t> read_by, written_by;  // 32-byte sectors: serial number of the last block

  // What holds for all of these bytes.
  std::uint8_t flags_of(std::uintptr_t address, std::size_t size) {
    if (byte_flags.empty()) return flags;
    std::uint8_t all = 0xff;
    for (std::size_t i = 0; i < size; ++i) all &= byte_flags[address - begin + i];
    return all;
  }
  std::size_t sector(std::uintptr_t address) const { return (address >> 5) - (begin >> 5); }
};

inline std::uint8_t flags_of(const View& view) {
  return kPresent | (view.initialised ? kInitialised : 0) | (view.writable ? kWritable : 0);
}

inline std::vector<Range> ranges_of(const std::vector<View>& views) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < views.size(); ++i) {
    if (views[i].elements() > 0) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return views[a].span() < views[b].span(); });
  std::vector<Range> ranges;
  for (std::size_t i : order) {
    const auto [begin, end] = views[i].span();
    if (ranges.empty() || begin >= ranges.back().end) {
      ranges.emplace_back();
      ranges.back().begin = begin;
      ranges.back().end = end;
    }
    ranges.back().end = std::max(ranges.back().end, end);
    ranges.back().views.push_back(i);
  }
  for (Range& range : ranges) {
    const std::size_t bytes = range.end - range.begin;
    const View& first = views[range.views[0]];
    if (range.views.size() == 1 && first.elements() * first.item == bytes) {
      range.flags = flags_of(first);
    } else {
      range.byte_flags = Lazy<std::uint8_t>(bytes);
      for (std::size_t i : range.views) {
        const std::uint8_t flags = flags_of(views[i]);
        views[i].for_each([&](std::uintptr_t address) {
          for (std::size_t b = 0; b < views[i].item; ++b) range.byte_flags[address - range.begin + b] |= flags;
        });
      }
    }
    bool written = false;
    std::size_t items = range.begin;
    for (std::size_t i : range.views) {
      written = written || views[i].writable;
      items |= views[i].item;
    }
    if (written) range.cells = Cells(bytes, items % 4 == 0);
    const std::size_t sectors = range.sector(range.end - 1) + 1;
    range.read_by = Lazy<std::uint32_t>(sectors);
    range.written_by = Lazy<std::uint32_t>(sectors);
  }
  return ranges;
}

}  // namespace semnr::emulation
