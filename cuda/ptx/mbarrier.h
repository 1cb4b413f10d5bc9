// How do threads and copies wait for each other in phases? (sm_90)
#pragma once

#include "ptx/declarations_sm90.h"

namespace attnext {

PTX_FN void ptx::mbarrier_init(uint32_t barrier, uint32_t arrivals, const char*) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
PTX_FN void ptx::mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
PTX_FN void ptx::mbarrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
PTX_FN void ptx::mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
               "r"(bytes)
               : "memory");
}
PTX_FN bool ptx::mbarrier_try_wait(uint32_t barrier, uint32_t parity) {
  uint32_t is_complete;
  asm volatile(
      "{.reg .pred p; mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2; "
      "selp.u32 %0, 1, 0, p;}"
      : "=r"(is_complete)
      : "r"(barrier), "r"(parity)
      : "memory");
  return is_complete != 0;
}
PTX_FN void ptx::mbarrier_wait(uint32_t barrier, uint32_t parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}
PTX_FN bool ptx::elect_one() {
  uint32_t is_elected;
  asm volatile("{.reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 %0, 1, 0, p;}"
               : "=r"(is_elected));
  return is_elected != 0;
}

}  // namespace attnext
