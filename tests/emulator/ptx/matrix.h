// How does a warp load, store and multiply small matrices?
#pragma once

#include "core/matrix.h"
#include "ptx/memory.h"
#include "ptx/thread.h"

namespace attnext {

PTX_FN void ptx::ldmatrix_x4(uint32_t (&r)[4], uint32_t row, const Site& site) {
  emulator::load_matrices(r, 4, row, false, site);
}
PTX_FN void ptx::ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t row, const Site& site) {
  emulator::load_matrices(r, 4, row, true, site);
}
PTX_FN void ptx::ldmatrix_x2(uint32_t (&r)[2], uint32_t row, const Site& site) {
  emulator::load_matrices(r, 2, row, false, site);
}
PTX_FN void ptx::ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t row, const Site& site) {
  emulator::load_matrices(r, 2, row, true, site);
}
PTX_FN void ptx::stmatrix_x4(uint32_t row, const uint32_t (&r)[4], const Site& site) {
  emulator::store_matrices(r, row, false, site);
}
PTX_FN void ptx::stmatrix_x4_trans(uint32_t row, const uint32_t (&r)[4], const Site& site) {
  emulator::store_matrices(r, row, true, site);
}

PTX_FN void ptx::mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                  const Site& site) {
  emulator::multiply_matrices({d, a, b}, emulator::Operand::kF16, 16, site);
}
PTX_FN void ptx::mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                   const Site& site) {
  emulator::multiply_matrices({d, a, b}, emulator::Operand::kBf16, 16, site);
}
PTX_FN void ptx::mma_m16n8k8_f16(float (&d)[4], const uint32_t (&a)[2], uint32_t b,
                                 const Site& site) {
  emulator::multiply_matrices({d, a, &b}, emulator::Operand::kF16, 8, site);
}
PTX_FN void ptx::mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                  const Site& site) {
  emulator::multiply_matrices({d, a, b}, emulator::Operand::kTf32, 8, site);
}

}  // namespace attnext
