// Gathering a warp's lanes, and the operations that only move values between them.
#include "core/warp.h"

#include <bit>

#include "core/report.h"
#include "core/scheduler.h"

namespace emulator {
namespace {

std::string progress(const Block& block, uint32_t warp, uint32_t) {
  return text(" of warp ", warp, ": ", std::popcount(block.meetings[warp].arrived),
              " of 32 lanes have arrived");
}

void exchange_values(Gathering& g) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    auto& e = g.argument<Exchange>(lane);
    e.out = g.argument<Exchange>(static_cast<int>(e.source)).in;
  }
}

void collect_votes(Gathering& g) {
  uint64_t votes = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) votes |= g.argument<Exchange>(lane).in << lane;
  for (int lane = 0; lane < kWarpSize; ++lane) g.argument<Exchange>(lane).out = votes;
}

void exchange_knowledge(Gathering& g) {
  Knowledge* members[kWarpSize];
  for (int lane = 0; lane < kWarpSize; ++lane) members[lane] = &g.thread(lane).knowledge;
  exchange(members, kWarpSize, g.block.num_warps);
}

// Who waits for the block's barrier cannot come here, nor who is here to the barrier.
void require_nobody_at_barrier(const char* name, const Thread& me, const Site& site) {
  const NamedBarrier& barrier = me.block->barriers[0];
  if (barrier.lanes[me.warp] == 0) return;
  fail(site, "DIVERGENT WARP: ", name, " here, while other lanes are at a barrier (",
       describe(barrier.sites[me.warp]), ")");
}

}  // namespace

void require_nobody_gathers(const char* name, const Thread& me, const Site& site) {
  const Meeting& meeting = me.block->meetings[me.warp];
  if (meeting.arrived == 0) return;
  fail(site, "DIVERGENT WARP: ", name, " here, while other lanes are at ", meeting.name, " (",
       describe(meeting.site), ")");
}

void gather(const char* name, void* argument, void (*act)(Gathering&), const Site& site) {
  Thread& me = self();
  Block& block = *me.block;
  Meeting& meeting = block.meetings[me.warp];
  require_nobody_at_barrier(name, me, site);
  if (meeting.arrived == 0) {
    meeting.name = name;
    meeting.site = site;
  } else if (meeting.name != name || meeting.site.line() != site.line() ||
             meeting.site.file_name() != site.file_name()) {
    require_nobody_gathers(name, me, site);
  }
  meeting.arrived |= 1u << me.lane;
  meeting.arguments[me.lane] = argument;
  if (meeting.arrived != kAllLanes) {
    wait_here({name, progress, static_cast<uint32_t>(me.warp), 0, site});
    return;
  }
  Gathering all{block, me.warp, meeting.arguments, site};
  act(all);
  meeting.arrived = 0;
  machine().idle_spins = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (lane != me.lane) make_ready(all.thread(lane));
  }
}

uint64_t shuffle_bits(const char* name, uint64_t value, uint32_t source, const Site& site) {
  Exchange mine{value, 0, source};
  gather(name, &mine, exchange_values, site);
  return mine.out;
}

uint32_t ballot_bits(const char* name, bool value, const Site& site) {
  Exchange mine{value, 0, 0};
  gather(name, &mine, collect_votes, site);
  return static_cast<uint32_t>(mine.out);
}

void synchronise_warp(const Site& site) { gather("warp_sync", nullptr, exchange_knowledge, site); }

}  // namespace emulator
