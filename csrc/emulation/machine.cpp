// Scheduling: warps run until every lane waits or is done; collectives resolve within the warp, barriers in the block.
#include "machine.hpp"

#include <link.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

namespace semnr::emulation {

namespace {

std::string lanes_text(unsigned mask) {
  std::ostringstream text;
  text << (mask & (mask - 1) ? "lanes " : "lane ");
  const char* separator = "";
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    int last = lane;
    while (last + 1 < 32 && (mask >> (last + 1) & 1)) ++last;
    text << separator << lane;
    if (last > lane) text << (last == lane + 1 ? ", " : "-") << last;
    separator = ", ";
    lane = last;
  }
  return text.str();
}

std::string site_text(const Site& site) {
  const std::string file = site.file;
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line);
}

bool same(const Site& a, const Site& b) { return a.line == b.line && std::string(a.file) == b.file; }

// "(ssim_forward<float, 11>)" and "semnr::ssim_forward" are both "ssim_forward".
std::string base_name(std::string text) {
  text.erase(std::remove_if(text.begin(), text.end(), [](char c) { return c == '(' || c == ')' || c == ' '; }),
             text.end());
  text = text.substr(0, text.find('<'));
  const auto colon = text.rfind(':');
  return colon == std::string::npos ? text : text.substr(colon + 1);
}

const char* text_of(State state) {
  switch (state) {
    case State::Barrier:
      return "waits at a barrier";
    case State::Collective:
      return "waits at another warp collective";
    case State::Done:
      return "has left the kernel";
    default:
      return "runs";
  }
}

}  // namespace

Machine instance;

Machine::Machine() {
  const std::size_t size = kArena + 2 * kGuard;
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  arena_ = static_cast<unsigned char*>(p);
  shared = arena_ + kGuard;
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* self) {
        auto& m = *static_cast<Machine*>(self);
        std::vector<std::pair<std::uintptr_t, std::uintptr_t>> constants;
        bool ours = false;
        const auto here = reinterpret_cast<std::uintptr_t>(&semnr_switch);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD) continue;
          const std::uintptr_t begin = info->dlpi_addr + segment.p_vaddr, end = begin + segment.p_memsz;
          ours = ours || (begin <= here && here < end);
          if (!(segment.p_flags & PF_W)) constants.emplace_back(begin, end);
        }
        if (!ours) return 0;
        m.module = info->dlpi_addr;
        m.constants_ = constants;
        return 1;
      },
      this);
}

void Machine::begin(std::vector<View> registered) {
  views = std::move(registered);
  ranges_ = ranges_of(views);
  last_range_ = nullptr;
  faults.clear();
  counters.clear();
  launches.clear();
  now = Now();
  serial_ = 0;
  shared_cells_ = Cells(kArena, true);
}

void Machine::launch(const Launch& wanted) {
  const std::uint64_t blocks = std::uint64_t(wanted.grid.x) * wanted.grid.y * wanted.grid.z;
  if (blocks == 0) return;
  const std::uint64_t size = std::uint64_t(wanted.block.x) * wanted.block.y * wanted.block.z;
  kernel_ = base_name(wanted.kernel);
  if (size == 0 || size > kThreads) throw Stop(kernel_ + ": a block of " + std::to_string(size) + " threads");
  if (wanted.grid.y > 65535 || wanted.grid.z > 65535) throw Stop(kernel_ + ": a grid beyond 65535 in y or z");
  if (wanted.shared_bytes > kArena) {
    throw Stop(kernel_ + ": " + std::to_string(wanted.shared_bytes) + " bytes of shared memory");
  }
  counted_ = &counters[kernel_];
  counted_->launches += 1;
  counted_->shared_bytes = std::max<std::uint64_t>(counted_->shared_bytes, wanted.shared_bytes);
  launches.push_back({kernel_, reinterpret_cast<std::uintptr_t>(wanted.function) - module, wanted.grid, wanted.block,
                      wanted.shared_bytes});
  launched_ = &wanted;
  grid = wanted.grid;
  block = wanted.block;
  size_ = static_cast<int>(size);
  stopped_ = false;
  for (int t = 0; t < size_; ++t) {
    const unsigned u = t;
    threads[t].index = {u % block.x, u / block.x % block.y, u / block.x / block.y};
  }
  now.launch = ++now.stamp;
  const std::uint64_t run = only.empty() ? blocks : only.size();
  for (std::uint64_t i = 0; i < run; ++i) {
    const std::uint64_t b = only.empty() ? i : only[i];
    if (b >= blocks) continue;
    block_id = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    run_block();
  }
  ++now.stamp;
}

void Machine::run_block() {
  ++serial_;
  now.block = now.barrier = ++now.stamp;
  std::fill(std::begin(now.warp), std::end(now.warp), now.stamp);
  std::memset(shared, 0xff, launched_->shared_bytes);  // not a number, in every floating type
  counted_->blocks += 1;
  counted_->threads += size_;
  for (int t = 0; t < size_; ++t) {
    threads[t].state = State::Ready;
    threads[t].stack = stacks_.begin(t, &Machine::entry);
  }
  const int warps = (size_ + 31) / 32;
  for (;;) {
    for (int w = 0; w < warps; ++w) {
      if (!run_warp(w)) throw Stop(faults.back().kernel + ": " + faults.back().kind);
    }
    for (int w = 0; w < warps; ++w) logs_[w].flush(counted_->banks);
    int first = -1, elsewhere = -1, done = 0;
    for (int t = 0; t < size_; ++t) {
      if (threads[t].state == State::Done) {
        ++done;
        elsewhere = t;
      } else if (first < 0) {
        first = t;
      } else if (!same(threads[t].site, threads[first].site)) {
        elsewhere = t;
      }
    }
    if (done == size_) return;
    if (elsewhere >= 0) {
      const Thread& other = threads[elsewhere];
      current = first;
      std::ostringstream text;
      text << "thread " << first << " waits at " << site_text(threads[first].site) << ", thread " << elsewhere << " ";
      if (other.state == State::Done) {
        text << "has left the kernel";
      } else {
        text << "waits at " << site_text(other.site);
      }
      report("divergent barrier", text.str(), 0).site = site_text(threads[first].site);
      throw Stop(kernel_ + ": divergent barrier");
    }
    counted_->barriers += 1;
    now.barrier = ++now.stamp;
    for (int t = 0; t < size_; ++t) threads[t].state = State::Ready;
  }
}

// False: a fault ended the launch.
bool Machine::run_warp(int warp) {
  const int begin = 32 * warp, end = std::min(size_, begin + 32);
  for (;;) {
    bool waits = false;
    for (int t = begin; t < end; ++t) {
      if (threads[t].state == State::Ready) enter(t);
      if (stopped_) return false;
      waits = waits || threads[t].state == State::Collective;
    }
    if (!waits) return true;
    if (!resolve(warp)) return false;
  }
}

// Completes every collective whose lanes have all arrived; false where none has.
bool Machine::resolve(int warp) {
  const int begin = 32 * warp;
  bool progress = false;
  unsigned waiting = 0;
  for (int lane = 0; lane < 32 && begin + lane < size_; ++lane) {
    waiting |= unsigned(threads[begin + lane].state == State::Collective) << lane;
  }
  for (unsigned left = waiting; left != 0;) {
    const Thread& first = threads[begin + __builtin_ctz(left)];
    unsigned together = 0, ballot = 0;
    for (int lane = 0; lane < 32; ++lane) {
      const Thread& t = threads[begin + lane];
      if (!(left >> lane & 1) || t.mask != first.mask || t.kind != first.kind || !same(t.site, first.site)) continue;
      together |= 1u << lane;
      ballot |= unsigned(t.value != 0) << lane;
    }
    left &= ~together;
    if (together != first.mask) continue;
    progress = true;
    counted_->collectives += 1;
    ++now.stamp;
    if (together == 0xffffffffu && first.kind == Collective::Sync) now.warp[warp] = now.stamp;
    for (int lane = 0; lane < 32; ++lane) {
      if (!(together >> lane & 1)) continue;
      Thread& t = threads[begin + lane];
      if (t.kind == Collective::Ballot) {
        t.result = ballot;
      } else if (t.kind == Collective::Shuffle) {
        if (t.source < 0 || t.source > 31 || !(together >> t.source & 1)) {
          current = begin + lane;
          report("shuffle with a missing lane", "reads lane " + std::to_string(t.source) + ", which does not take part",
                 0)
              .site = site_text(t.site);
          return false;
        }
        t.result = threads[begin + t.source].value;
      }
      t.state = State::Ready;
    }
  }
  if (progress) return true;
  const int lane = __builtin_ctz(waiting);
  const Thread& t = threads[begin + lane];
  current = begin + lane;
  unsigned missing = 0;
  int example = -1;
  for (int other = 0; other < 32; ++other) {
    if (!(t.mask >> other & 1)) continue;
    const bool exists = begin + other < size_;
    const Thread& o = threads[begin + other];
    if (exists && o.state == State::Collective && o.mask == t.mask && o.kind == t.kind && same(o.site, t.site))
      continue;
    missing |= 1u << other;
    if (example < 0) example = other;
  }
  std::string text = "the mask names " + lanes_text(missing) + ": ";
  if (begin + example >= size_) {
    text += "the block has no such thread";
  } else {
    const Thread& o = threads[begin + example];
    text += "lane " + std::to_string(example) + " " + text_of(o.state);
    if (o.state != State::Done) text += " (" + site_text(o.site) + ")";
  }
  report("shuffle with a missing lane", text, 0).site = site_text(t.site);
  return false;
}

void Machine::enter(int thread) {
  current = thread;
  now.thread = static_cast<std::uint16_t>(thread);
  stack_low_ = reinterpret_cast<std::uintptr_t>(stacks_.low(thread));
  running = true;
  semnr_switch(&scheduler_, threads[thread].stack);
  running = false;
}

void Machine::yield(State state) {
  threads[current].state = state;
  semnr_switch(&threads[current].stack, scheduler_);
}

void Machine::entry() {
  Machine& m = machine();
  m.launched_->thread(m.launched_->arguments);
  m.yield(State::Done);
  __builtin_unreachable();
}

void Machine::barrier(Site site) {
  threads[current].site = site;
  yield(State::Barrier);
}

std::uint64_t Machine::collective(Collective kind, unsigned mask, std::uint64_t value, int source, Site site) {
  running = false;  // until the scheduler enters this thread again
  Thread& t = threads[current];
  t.kind = kind;
  t.mask = mask;
  t.value = value;
  t.source = source;
  t.site = site;
  if (!(mask >> (current & 31) & 1)) {
    report("shuffle with a missing lane", "is not in the mask that it names", 0).site = site_text(site);
    stop();
  }
  yield(State::Collective);
  return t.result;
}

void Machine::stop() {
  stopped_ = true;
  yield(State::Done);
  __builtin_unreachable();
}

}  // namespace semnr::emulation
