// ldmatrix, stmatrix and mma.sync: what a warp does with small matrices.
#pragma once

#include "core/machine.h"

namespace emulator {

enum class Operand { kF16, kBf16, kTf32 };

struct Product {
  float* d;  // [4]
  const uint32_t *a, *b;
};

void load_matrices(uint32_t* r, int count, uint32_t row, bool transposes, const Site& site);
void store_matrices(const uint32_t* r, uint32_t row, bool transposes, const Site& site);
// d += a b for m16n8k; a and b have k / 4 and k / 8 words of 16-bit elements, tf32 4 and 2.
void multiply_matrices(const Product& mine, Operand type, int k, const Site& site);

}  // namespace emulator
