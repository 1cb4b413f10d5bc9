// How do threads and copies wait for each other in phases? (sm_90)
#pragma once

#include "core/hopper.h"
#include "ptx/declarations_sm90.h"

namespace attnext {

using emulator::Site;

PTX_FN void ptx::mbarrier_init(uint32_t barrier, uint32_t arrivals, const char* name,
                               const Site& site) {
  emulator::init_mbarrier(barrier, arrivals, name, site);
}
PTX_FN void ptx::mbarrier_init_fence(const Site&) { emulator::fence_mbarriers(); }
PTX_FN void ptx::mbarrier_arrive(uint32_t barrier, const Site& site) {
  emulator::arrive_at_mbarrier(barrier, 0, site);
}
PTX_FN void ptx::mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes, const Site& site) {
  emulator::arrive_at_mbarrier(barrier, bytes, site);
}
PTX_FN bool ptx::mbarrier_try_wait(uint32_t barrier, uint32_t parity, const Site& site) {
  return emulator::try_mbarrier(barrier, parity, site);
}
PTX_FN void ptx::mbarrier_wait(uint32_t barrier, uint32_t parity, const Site& site) {
  while (!emulator::try_mbarrier(barrier, parity, site)) {
  }
}
PTX_FN bool ptx::elect_one(const Site& site) { return emulator::elect_lane(site); }

}  // namespace attnext
