// Arriving at barriers: counting, completing, and noticing warps that are not together.
#include "core/barrier.h"

#include "core/report.h"
#include "core/scheduler.h"

namespace emulator {
namespace {

std::string progress(const Block& block, uint32_t id, uint32_t) {
  const NamedBarrier& b = block.barriers[id];
  return text(" of barrier ", id, ": ", b.arrived, " of ", b.expected, " threads have arrived");
}

void require_sound(const NamedBarrier& b, int id, int threads, const Site& site) {
  const int all = machine().num_threads;
  if (id < 0 || id >= kNamedBarriers) fail(site, "BAD BARRIER: there is no barrier ", id);
  if (threads <= 0 || threads > all || (id != 0 && threads % kWarpSize != 0)) {
    fail(site, "BAD BARRIER: barrier ", id, " for ", threads, " of ", all, " threads");
  }
  if (b.arrived != 0 && b.expected != threads) {
    fail(site, "BAD BARRIER: barrier ", id, " is used for ", b.expected, " and for ", threads,
         " threads");
  }
}

// bar.sync is an aligned instruction: the lanes of a warp execute the same one.
void require_together(NamedBarrier& b, const Thread& me, int id, const Site& site) {
  uint32_t& lanes = b.lanes[me.warp];
  Site& first = b.sites[me.warp];
  if (lanes == 0) first = site;
  if (first.line() != site.line() || first.file_name() != site.file_name()) {
    fail(site, "DIVERGENT WARP: lanes of warp ", me.warp, " are at barrier ", id, " here and at ",
         describe(first));
  }
  if (lanes >> me.lane & 1) {
    fail(site, "BAD BARRIER: a thread arrives twice at barrier ", id, " before it is complete");
  }
  lanes |= 1u << me.lane;
}

void complete(NamedBarrier& b, const Thread& last) {
  const int warps = machine().num_warps;
  std::vector<Knowledge*> members;
  for (Thread* t : b.waiting) {
    t->knowledge.acquire(b.released, warps);
    t->barrier_value = b.any;
    members.push_back(&t->knowledge);
    if (t != &last) make_ready(*t);
  }
  if (!members.empty()) exchange(members.data(), static_cast<int>(members.size()), warps);
  b.waiting.clear();
  b.arrived = 0;
  b.any = false;
  b.released.clear();
  b.lanes.fill(0);
}

}  // namespace

bool arrive_at_barrier(int id, int threads, bool waits, bool value, const char* what,
                       const Site& site) {
  maybe_yield();
  Thread& me = self();
  NamedBarrier& b = me.block->barriers[id < 0 || id >= kNamedBarriers ? 0 : id];
  require_sound(b, id, threads, site);
  require_together(b, me, id, site);
  b.expected = threads;
  ++b.arrived;
  b.any = b.any || value;
  if (waits) {
    b.waiting.push_back(&me);
  } else {
    if (b.released.empty()) b.released.assign(me.knowledge.clock.size(), 0);
    join(b.released, me.knowledge.release());
  }
  if (b.arrived == threads) {
    complete(b, me);
  } else if (waits) {
    wait_here({what, progress, static_cast<uint32_t>(id), 0, site});
  }
  return me.barrier_value;
}

}  // namespace emulator
