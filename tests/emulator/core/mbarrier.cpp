// Barriers in shared memory that count arrivals and bytes, phase after phase.
#include "core/hopper.h"
#include "core/report.h"
#include "core/scheduler.h"
#include "core/warp.h"

namespace emulator {
namespace {

constexpr uint32_t kBytes = 8;

std::string progress(const Block& block, uint32_t index, uint32_t parity) {
  const Mbarrier& b = *block.hopper->mbarriers[index];
  return text(" ", b.name, " (mbarrier at offset ", b.address - kSharedBase, ") of parity ", parity,
              ": ", b.phase, " phases are complete, ", b.pending, " of ", b.count, " arrivals and ",
              b.bytes, " bytes are missing");
}

void complete_if_done(Mbarrier& b, const Block& block) {
  if (b.pending != 0 || b.bytes != 0) return;
  ++b.phase;
  b.pending = b.count;
  join(b.completed, b.arriving);
  b.arriving.assign(b.arriving.size(), 0);
  b.completed[b.agent] = block.start + b.phase;
  advance_stamps(block.start + b.phase);
  for (Thread* t : b.waiting) make_ready(*t);
  b.waiting.clear();
}

void elect_first(Gathering& g) { g.argument<bool>(0) = true; }

}  // namespace

void init_mbarrier(uint32_t address, uint32_t arrivals, const char* name, const Site& site) {
  Block& block = *self().block;
  block.shadow.require_range(address, kBytes, kBytes, "mbarrier_init", site);
  for (const auto& known : block.hopper->mbarriers) {
    if (known->address == address) {
      fail(site, "BAD BARRIER: mbarrier ", name, " is initialised where ", known->name, " is");
    }
  }
  if (arrivals == 0) fail(site, "BAD BARRIER: mbarrier ", name, " for no arrivals");
  block.shadow.reserve(address, kBytes);
  auto barrier = std::make_unique<Mbarrier>();
  barrier->name = name;
  barrier->address = address;
  barrier->count = barrier->pending = arrivals;
  barrier->agent = block.new_engine(text("a copy completing on ", name));
  barrier->creator = self().id;
  barrier->created = self().knowledge.epoch;
  barrier->arriving.assign(self().knowledge.clock.size(), 0);
  barrier->completed = barrier->arriving;
  block.hopper->mbarriers.push_back(std::move(barrier));
}

void fence_mbarriers() {
  for (const auto& barrier : self().block->hopper->mbarriers) barrier->is_fenced = true;
}

Mbarrier& find_mbarrier(uint32_t address, const char* what, const Site& site) {
  for (const auto& barrier : self().block->hopper->mbarriers) {
    if (barrier->address != address) continue;
    if (!self().knowledge.knows(barrier->creator, barrier->created)) {
      fail(site, "RACE: ", what, " at mbarrier ", barrier->name, " which thread ", barrier->creator,
           " initialised; no barrier orders them");
    }
    return *barrier;
  }
  fail(site, "BAD BARRIER: ", what, " names shared memory at offset ",
       static_cast<int64_t>(address) - kSharedBase, ", where no mbarrier was initialised");
}

void arrive_at_mbarrier(uint32_t address, uint32_t bytes, const Site& site) {
  maybe_yield();
  Mbarrier& b = find_mbarrier(address, "mbarrier_arrive", site);
  if (b.pending == 0) {
    fail(site, "BAD BARRIER: more arrivals at mbarrier ", b.name, " than its count ", b.count);
  }
  join(b.arriving, self().knowledge.release());
  b.bytes += bytes;
  --b.pending;
  complete_if_done(b, *self().block);
}

void land_bytes(Block& block, Mbarrier& barrier, uint32_t bytes) {
  barrier.bytes -= bytes;
  complete_if_done(barrier, block);
}

bool try_mbarrier(uint32_t address, uint32_t parity, const Site& site) {
  Mbarrier& b = find_mbarrier(address, "mbarrier_try_wait", site);
  if (parity > 1) fail(site, "BAD BARRIER: a parity of ", parity);
  if ((b.phase & 1) == parity) {
    if (machine().random.one_in(8)) {  // the instruction may give up before the phase completes
      yield();
    } else {
      const auto& all = self().block->hopper->mbarriers;
      uint32_t index = 0;
      while (all[index].get() != &b) ++index;
      b.waiting.push_back(&self());
      wait_here({"", progress, index, parity, site});
    }
  } else {
    maybe_yield();
  }
  if ((b.phase & 1) == parity) return false;
  self().knowledge.acquire(b.completed, machine().num_warps);
  return true;
}

bool elect_lane(const Site& site) {
  bool is_elected = false;
  gather("elect_one", &is_elected, elect_first, site);
  return is_elected;
}

}  // namespace emulator
