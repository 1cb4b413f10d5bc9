// The life of a cp.async: issued, landed, waited for.
#include "core/async_copy.h"

#include <cstring>

#include "core/memory.h"
#include "core/report.h"
#include "core/scheduler.h"

namespace emulator {
namespace {

void land(Block& block, Copy& copy) {
  if (copy.has_landed) return;
  copy.has_landed = true;
  uint8_t* to = block.shared_bytes(copy.shared);
  memset(to, 0, copy.bytes);
  if (copy.source_bytes != 0) memcpy(to, copy.global, copy.source_bytes);
}

}  // namespace

void start_copy(uint32_t shared, const void* global, uint32_t bytes, uint32_t source_bytes,
                const Site& site) {
  Thread& me = self();
  Block& block = *me.block;
  if (source_bytes > bytes) {
    fail(site, "BAD COPY: cp.async of ", bytes, " bytes from ", source_bytes, " source bytes");
  }
  block.shadow.require_range(shared, bytes, bytes, "cp.async", site);
  if (source_bytes != 0) require_global(global, source_bytes, bytes, "cp.async", site);
  block.shadow.begin_copy(me, shared, bytes, site);
  memset(block.shared_bytes(shared), kPoison, bytes);
  me.copies.push_back({shared, bytes, source_bytes, global, me.copy_groups, false, site});
}

void commit_copies() { ++self().copy_groups; }

void wait_for_copies(uint32_t pending_groups) {
  maybe_yield();
  Thread& me = self();
  if (me.copy_groups < pending_groups) return;
  const uint32_t groups_done = me.copy_groups - pending_groups;
  size_t done = 0;
  for (; done < me.copies.size() && me.copies[done].group < groups_done; ++done) {
    Copy& copy = me.copies[done];
    land(*me.block, copy);
    me.block->shadow.end_copy(me, copy.shared, copy.bytes);
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

void land_some_copy(Block& block) {
  Random& random = machine().random;
  Thread& thread = block.threads[random.below(static_cast<uint32_t>(block.threads.size()))];
  if (thread.copies.empty()) return;
  land(block, thread.copies[random.below(static_cast<uint32_t>(thread.copies.size()))]);
}

}  // namespace emulator
