// Arriving at barriers: counting, completing, and noticing warps that are not together.
#include "core/barrier.h"

#include "core/report.h"
#include "core/scheduler.h"
#include "core/warp.h"

namespace emulator {
namespace {

std::string progress(const Block& block, uint32_t id, uint32_t) {
  const NamedBarrier& b = block.barriers[id];
  return text(" of barrier ", id, ": ", b.arrived, " of ", b.expected, " threads have arrived");
}

void require_sound(const NamedBarrier& b, int id, int threads, const Site& site) {
  const int all = machine().num_threads;
  if (threads <= 0 || threads > all || threads % kWarpSize != 0) {
    fail(site, "BAD BARRIER: barrier ", id, " for ", threads, " of ", all, " threads");
  }
  if (b.arrived != 0 && b.expected != threads) {
    fail(site, "BAD BARRIER: barrier ", id, " is used for ", b.expected, " and for ", threads,
         " threads");
  }
}

// The lanes of a warp must be at the same place of the program.
void require_together(NamedBarrier& b, const Thread& me, const Site& site) {
  uint32_t& lanes = b.lanes[me.warp];
  Site& first = b.sites[me.warp];
  if (lanes == 0) first = site;
  if (first.line() != site.line() || first.file_name() != site.file_name()) {
    fail(site, "DIVERGENT WARP: lanes of warp ", me.warp, " are at a barrier here and at ",
         describe(first));
  }
  lanes |= 1u << me.lane;
}

void complete(NamedBarrier& b) {
  const int warps = machine().num_warps;
  std::vector<Knowledge*> members;
  for (Thread* t : b.waiting) {
    if (!b.released.empty()) t->knowledge.acquire(b.released, warps);
    t->barrier_value = b.any;
    members.push_back(&t->knowledge);
    if (t->is_at_barrier) make_ready(*t);
  }
  if (!members.empty()) exchange(members.data(), static_cast<int>(members.size()), warps);
  b.waiting.clear();
  b.arrived = 0;
  ++b.completed;
  b.any = false;
  b.released.clear();
  b.lanes.fill(0);
  machine().idle_spins = 0;
}

void count(NamedBarrier& b, Thread& t, bool waits) {
  ++b.arrived;
  if (waits) {
    b.waiting.push_back(&t);
  } else {
    if (b.released.empty()) b.released.assign(t.knowledge.clock.size(), 0);
    join(b.released, t.knowledge.release());
  }
}

// Until `b` has been completed once more than `completed` times.
void wait_for(const NamedBarrier& b, uint64_t completed, const Wait& wait) {
  if (b.completed != completed) return;
  Thread& me = self();
  me.is_at_barrier = true;
  wait_here(wait);
  me.is_at_barrier = false;
}

struct Arrival {
  int id, threads;
  bool waits;
  uint64_t completed;  // times, before this arrival
};

// A warp arrives as one at a named barrier: the instruction is an aligned one.
void arrive_together(Gathering& g) {
  const Arrival first = g.argument<Arrival>(0);
  NamedBarrier& b = g.block.barriers[first.id];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    auto& arrival = g.argument<Arrival>(lane);
    if (arrival.id != first.id || arrival.threads != first.threads) {
      fail(g.site, "DIVERGENT WARP: lanes name different barriers or counts");
    }
    arrival.completed = b.completed;
  }
  require_sound(b, first.id, first.threads, g.site);
  if (b.lanes[g.warp] != 0) {
    fail(g.site, "BAD BARRIER: warp ", g.warp, " arrives twice at barrier ", first.id,
         " before it is complete");
  }
  b.lanes[g.warp] = kAllLanes;
  b.expected = first.threads;
  for (int lane = 0; lane < kWarpSize; ++lane) count(b, g.thread(lane), first.waits);
  if (b.arrived == b.expected) complete(b);
}

}  // namespace

bool synchronise_block(bool value, const char* what, const Site& site) {
  maybe_yield();
  Thread& me = self();
  NamedBarrier& b = me.block->barriers[0];
  const uint64_t completed = b.completed;
  require_nobody_gathers(what, me, site);
  require_together(b, me, site);
  b.expected = machine().num_threads;
  b.any = b.any || value;
  count(b, me, true);
  if (b.arrived == b.expected) complete(b);
  wait_for(b, completed, {what, progress, 0, 0, site});
  return me.barrier_value;
}

void arrive_at_barrier(int id, int threads, bool waits, const char* what, const Site& site) {
  maybe_yield();
  if (id <= 0 || id >= kNamedBarriers) {
    fail(site, "BAD BARRIER: there is no named barrier ", id);
  }
  Arrival mine{id, threads, waits, 0};
  gather(what, &mine, arrive_together, site);
  if (!waits) return;
  wait_for(self().block->barriers[id], mine.completed,
           {what, progress, static_cast<uint32_t>(id), 0, site});
}

}  // namespace emulator
