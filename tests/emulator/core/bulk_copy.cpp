// Copies by an engine: they land, or read, some time after they were issued.
#include <algorithm>
#include <cstring>

#include "core/hopper.h"
#include "core/memory.h"
#include "core/report.h"
#include "core/scheduler.h"
#include "core/tensor_map.h"

namespace emulator {
namespace {

// A load has been issued: nobody may touch what it writes before its barrier's phase completes.
void issue_load(uint32_t shared, uint32_t bytes, uint32_t barrier_address, const char* what,
                std::function<void(Block&)> copy, const Site& site) {
  Thread& me = self();
  Block& block = *me.block;
  Mbarrier& barrier = find_mbarrier(barrier_address, what, site);
  if (!barrier.is_fenced) {
    fail(site, "BAD BARRIER: ", what, " uses mbarrier ", barrier.name,
         " before fence.mbarrier_init");
  }
  block.shadow.require_range(shared, bytes, 16, what, site);
  const Stamp stamp = block.start + barrier.phase + 1;
  advance_stamps(stamp);
  block.shadow.engine_write(me, shared, bytes, barrier.agent, stamp, what, site);
  memset(block.shared_bytes(shared), kPoison, bytes);
  machine().engine_work.push_back({&block,
                                   [&block, &barrier, bytes, copy = std::move(copy)] {
                                     copy(block);
                                     land_bytes(block, barrier, bytes);
                                   },
                                   nullptr, 0, what});
  maybe_yield();
}

// A store has been issued: what it reads may not be overwritten before its group is waited for.
void issue_store(uint32_t shared, uint32_t bytes, const char* what,
                 std::function<void(Block&)> copy, const Site& site) {
  Thread& me = self();
  Block& block = *me.block;
  if (me.bulk_agent == 0) {
    me.bulk_agent = block.new_engine(text("a bulk store of thread ", me.id));
  }
  const uint32_t group = me.bulk_groups + 1;
  block.shadow.require_range(shared, bytes, 16, what, site);
  advance_stamps(block.start + group);
  block.shadow.engine_read(me, shared, bytes, me.bulk_agent, block.start + group, what, site);
  me.has_open_bulk = true;
  machine().engine_work.push_back(
      {&block, [&block, copy = std::move(copy)] { copy(block); }, &me, group, what});
  maybe_yield();
}

void require_bulk(const void* global, uint32_t bytes, const char* what, const Site& site) {
  if (bytes % 16 != 0) fail(site, "MISALIGNED: ", what, " of ", bytes, " bytes");
  require_global(global, bytes, 16, what, site);
}

struct Coordinates {
  int32_t values[kMaxRank] = {};
  Coordinates(const int32_t* from, int rank) { memcpy(values, from, rank * sizeof *from); }
};

}  // namespace

void load_bulk(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier,
               const Site& site) {
  require_bulk(global, bytes, "bulk_load", site);
  issue_load(
      shared, bytes, barrier, "bulk_load",
      [=](Block& block) { memcpy(block.shared_bytes(shared), global, bytes); }, site);
}

void store_bulk(void* global, uint32_t shared, uint32_t bytes, bool adds, const Site& site) {
  const char* what = adds ? "bulk_reduce_add" : "bulk_store";
  require_bulk(global, bytes, what, site);
  issue_store(
      shared, bytes, what,
      [=](Block& block) {
        if (!adds) {
          memcpy(global, block.shared_bytes(shared), bytes);
          return;
        }
        for (uint32_t i = 0; i < bytes / sizeof(float); ++i) {
          float term;
          memcpy(&term, block.shared_bytes(shared) + i * sizeof(float), sizeof term);
          static_cast<float*>(global)[i] += term;
        }
      },
      site);
}

void load_tensor(uint32_t shared, const void* map, uint32_t barrier, const int32_t* coordinates,
                 int rank, const Site& site) {
  const TensorMap decoded = decode_map(map, rank, shared, site);
  issue_load(
      shared, decoded.box_bytes(), barrier, "tensor_load",
      [=, c = Coordinates(coordinates, rank)](Block& block) {
        copy_box(decoded, c.values, block.shared_bytes(0), shared, true);
      },
      site);
}

void store_tensor(const void* map, uint32_t shared, const int32_t* coordinates, int rank,
                  const Site& site) {
  const TensorMap decoded = decode_map(map, rank, shared, site);
  issue_store(
      shared, decoded.box_bytes(), "tensor_store",
      [=, c = Coordinates(coordinates, rank)](Block& block) {
        copy_box(decoded, c.values, block.shared_bytes(0), shared, false);
      },
      site);
}

void commit_bulk() {
  Thread& me = self();
  ++me.bulk_groups;
  me.has_open_bulk = false;
}

// Reading and writing are one step here, so both waits are this one.
void wait_for_bulk(uint32_t pending_groups) {
  maybe_yield();
  Thread& me = self();
  if (me.bulk_groups <= pending_groups) return;
  const uint32_t done = me.bulk_groups - pending_groups;
  finish_work(&me, done);
  if (me.bulk_agent == 0) return;
  Stamp& known = me.knowledge.clock[me.bulk_agent];
  known = std::max(known, me.block->start + done);
}

void fence_async_proxy() { ++self().proxy_fences; }

}  // namespace emulator
