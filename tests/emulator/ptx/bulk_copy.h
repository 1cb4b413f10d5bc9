// How does an engine copy whole tiles? (sm_90)
#pragma once

#include "core/hopper.h"
#include "core/memory.h"
#include "core/scheduler.h"
#include "ptx/declarations_sm90.h"

namespace attnext {

using emulator::Site;

template <int kRank>
PTX_FN void ptx::tensor_load(uint32_t shared, const CUtensorMap* map, uint32_t barrier,
                             const int32_t (&coordinates)[kRank], uint64_t, const Site& site) {
  static_assert(2 <= kRank && kRank <= 5);
  emulator::load_tensor(shared, map, barrier, coordinates, kRank, site);
}
template <int kRank>
PTX_FN void ptx::tensor_store(const CUtensorMap* map, uint32_t shared,
                              const int32_t (&coordinates)[kRank], const Site& site) {
  static_assert(2 <= kRank && kRank <= 5);
  emulator::store_tensor(map, shared, coordinates, kRank, site);
}
PTX_FN void ptx::tensor_prefetch(const CUtensorMap*, const Site&) {}
PTX_FN void ptx::bulk_load(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier,
                           const Site& site) {
  emulator::load_bulk(shared, global, bytes, barrier, site);
}
PTX_FN void ptx::bulk_store(void* global, uint32_t shared, uint32_t bytes, const Site& site) {
  emulator::store_bulk(global, shared, bytes, false, site);
}
PTX_FN void ptx::bulk_reduce_add(float* global, uint32_t shared, uint32_t bytes, const Site& site) {
  emulator::store_bulk(global, shared, bytes, true, site);
}
PTX_FN void ptx::red_add_v4(float* address, float4 values, const Site& site) {
  emulator::require_global(address, 16, 16, "red_add_v4", site);
  emulator::maybe_yield();
  address[0] += values.x;
  address[1] += values.y;
  address[2] += values.z;
  address[3] += values.w;
}
PTX_FN void ptx::bulk_commit(const Site&) { emulator::commit_bulk(); }
template <int kPending>
PTX_FN void ptx::bulk_wait_read(const Site&) {
  emulator::wait_for_bulk(kPending);
}
template <int kPending>
PTX_FN void ptx::bulk_wait(const Site&) {
  emulator::wait_for_bulk(kPending);
}
PTX_FN void ptx::fence_async_shared(const Site&) { emulator::fence_async_proxy(); }
PTX_FN uint64_t ptx::evict_first() { return 1; }
PTX_FN uint64_t ptx::evict_last() { return 2; }

}  // namespace attnext
