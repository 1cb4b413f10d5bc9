// How does an engine copy whole tiles? (sm_90)
#pragma once

#include "ptx/declarations_sm90.h"

namespace attnext {

#define ATTNEXT_TENSOR_LOAD(rank, places)                                                         \
  "cp.async.bulk.tensor." rank                                                                    \
  "d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {" places \
  "}], [%2], %3;"
#define ATTNEXT_TENSOR_STORE(rank, places) \
  "cp.async.bulk.tensor." rank "d.global.shared::cta.tile.bulk_group [%0, {" places "}], [%1];"

template <int kRank>
PTX_FN void ptx::tensor_load(uint32_t shared, const CUtensorMap* map, uint32_t barrier,
                             const int32_t (&c)[kRank], uint64_t policy) {
  static_assert(2 <= kRank && kRank <= 5);
  if constexpr (kRank == 2) {
    asm volatile(ATTNEXT_TENSOR_LOAD("2", "%4, %5")::"r"(shared), "l"(map), "r"(barrier),
                 "l"(policy), "r"(c[0]), "r"(c[1])
                 : "memory");
  } else if constexpr (kRank == 3) {
    asm volatile(ATTNEXT_TENSOR_LOAD("3", "%4, %5, %6")::"r"(shared), "l"(map), "r"(barrier),
                 "l"(policy), "r"(c[0]), "r"(c[1]), "r"(c[2])
                 : "memory");
  } else if constexpr (kRank == 4) {
    asm volatile(ATTNEXT_TENSOR_LOAD("4", "%4, %5, %6, %7")::"r"(shared), "l"(map), "r"(barrier),
                 "l"(policy), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3])
                 : "memory");
  } else {
    asm volatile(ATTNEXT_TENSOR_LOAD("5", "%4, %5, %6, %7, %8")::"r"(shared), "l"(map),
                 "r"(barrier), "l"(policy), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]), "r"(c[4])
                 : "memory");
  }
}

template <int kRank>
PTX_FN void ptx::tensor_store(const CUtensorMap* map, uint32_t shared, const int32_t (&c)[kRank]) {
  static_assert(2 <= kRank && kRank <= 5);
  if constexpr (kRank == 2) {
    asm volatile(ATTNEXT_TENSOR_STORE("2", "%2, %3")::"l"(map), "r"(shared), "r"(c[0]), "r"(c[1])
                 : "memory");
  } else if constexpr (kRank == 3) {
    asm volatile(ATTNEXT_TENSOR_STORE("3", "%2, %3, %4")::"l"(map), "r"(shared), "r"(c[0]),
                 "r"(c[1]), "r"(c[2])
                 : "memory");
  } else if constexpr (kRank == 4) {
    asm volatile(ATTNEXT_TENSOR_STORE("4", "%2, %3, %4, %5")::"l"(map), "r"(shared), "r"(c[0]),
                 "r"(c[1]), "r"(c[2]), "r"(c[3])
                 : "memory");
  } else {
    asm volatile(ATTNEXT_TENSOR_STORE("5", "%2, %3, %4, %5, %6")::"l"(map), "r"(shared), "r"(c[0]),
                 "r"(c[1]), "r"(c[2]), "r"(c[3]), "r"(c[4])
                 : "memory");
  }
}

#undef ATTNEXT_TENSOR_LOAD
#undef ATTNEXT_TENSOR_STORE

PTX_FN void ptx::tensor_prefetch(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
PTX_FN void ptx::bulk_load(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared),
      "l"(global), "r"(bytes), "r"(barrier)
      : "memory");
}
PTX_FN void ptx::bulk_store(void* global, uint32_t shared, uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global),
               "r"(shared), "r"(bytes)
               : "memory");
}
PTX_FN void ptx::bulk_reduce_add(float* global, uint32_t shared, uint32_t bytes) {
  asm volatile(
      "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(global),
      "r"(shared), "r"(bytes)
      : "memory");
}
PTX_FN void ptx::red_add_v4(float* address, float4 values) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(address),
               "f"(values.x), "f"(values.y), "f"(values.z), "f"(values.w)
               : "memory");
}
PTX_FN void ptx::bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int kPending>
PTX_FN void ptx::bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
template <int kPending>
PTX_FN void ptx::bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
}
PTX_FN void ptx::fence_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
PTX_FN uint64_t ptx::evict_first() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
PTX_FN uint64_t ptx::evict_last() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

}  // namespace attnext
