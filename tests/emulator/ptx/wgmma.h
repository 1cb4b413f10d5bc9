// How does a warpgroup multiply tiles? (sm_90a)
#pragma once

#include "core/hopper.h"
#include "ptx/declarations_sm90.h"

namespace attnext {

using emulator::Site;

PTX_FN void ptx::wgmma_fence(const Site& site) { emulator::fence_wgmma(site); }
PTX_FN void ptx::wgmma_commit(const Site& site) { emulator::commit_wgmma(site); }
template <int kPending>
PTX_FN void ptx::wgmma_wait(const Site& site) {
  emulator::wait_for_wgmma(kPending, site);
}

template <int kN, bool kTransposesA, bool kTransposesB>
PTX_FN void ptx::wgmma_f16(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulates,
                           const Site& site) {
  static_assert(kN % 16 == 0 && kN <= 256);
  emulator::issue_wgmma({d, nullptr, a, b, kN, true, accumulates, kTransposesA, kTransposesB},
                        site);
}
template <int kN, bool kTransposesA, bool kTransposesB>
PTX_FN void ptx::wgmma_bf16(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulates,
                            const Site& site) {
  static_assert(kN % 16 == 0 && kN <= 256);
  emulator::issue_wgmma({d, nullptr, a, b, kN, false, accumulates, kTransposesA, kTransposesB},
                        site);
}
template <int kN, bool kTransposesB>
PTX_FN void ptx::wgmma_f16(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b, bool accumulates,
                           const Site& site) {
  static_assert(kN % 16 == 0 && kN <= 256);
  emulator::issue_wgmma({d, a, 0, b, kN, true, accumulates, false, kTransposesB}, site);
}
template <int kN, bool kTransposesB>
PTX_FN void ptx::wgmma_bf16(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                            bool accumulates, const Site& site) {
  static_assert(kN % 16 == 0 && kN <= 256);
  emulator::issue_wgmma({d, a, 0, b, kN, false, accumulates, false, kTransposesB}, site);
}

template <int kCount>
PTX_FN void ptx::keep(float (&)[kCount]) {}
template <int kRegisters>
PTX_FN void ptx::increase_registers(const Site& site) {
  emulator::change_registers(kRegisters, true, site);
}
template <int kRegisters>
PTX_FN void ptx::decrease_registers(const Site& site) {
  emulator::change_registers(kRegisters, false, site);
}

}  // namespace attnext
