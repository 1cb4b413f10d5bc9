// Reading operands through descriptors or from registers, and multiplying them.
#include "core/descriptor.h"

#include <algorithm>
#include <cstring>

#include "core/floats.h"
#include "core/report.h"

namespace emulator {
namespace {

constexpr int kRows = 16, kDepth = 16, kMaxColumns = 256;

struct Operands {
  float a[kRows][kDepth], b[kDepth][kMaxColumns];
};

float element(uint16_t bits, bool is_f16) { return is_f16 ? from_f16(bits) : from_bf16(bits); }

void read_registers(const Wgmma& p, Operands& out) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < 4; ++i) {
      for (int half = 0; half < 2; ++half) {
        const auto bits = static_cast<uint16_t>(p.a_values[lane][i] >> (16 * half));
        out.a[lane / 4 + 8 * (i % 2)][8 * (i / 2) + 2 * (lane % 4) + half] =
            element(bits, p.is_f16);
      }
    }
  }
}

// set(row, k, value) for every element of the rows.
template <class Set>
void read_shared(Block& block, const Descriptor& d, bool transposes, int first, int last,
                 bool is_f16, Set set) {
  for_each_chunk(d, transposes, first, last, [&](uint32_t address, int row, int k) {
    uint16_t chunk[8];
    memcpy(chunk, block.shared_bytes(address), sizeof chunk);
    for (int i = 0; i < 8; ++i) {
      set(transposes ? row + i : row, transposes ? k : k + i, element(chunk[i], is_f16));
    }
  });
}

}  // namespace

Descriptor decode_descriptor(uint64_t bits, const Site& site) {
  const auto field = [bits](int low) { return static_cast<uint32_t>(bits >> low & 0x3FFF) << 4; };
  const auto swizzle = static_cast<uint32_t>(bits >> 62);
  constexpr uint64_t kReserved = 0x3FF1C000C000C000ull;
  if ((bits & kReserved) != 0) fail(site, "BAD WGMMA: a descriptor sets reserved bits");
  if ((bits >> 49 & 7) != 0) fail(site, "BAD WGMMA: a base offset, which is not modelled");
  if (swizzle == 0) fail(site, "BAD WGMMA: an operand without swizzle, which is not modelled");
  return {field(0), field(16), field(32), swizzle == 1 ? 128u : swizzle == 2 ? 64u : 32u};
}

void multiply_rows(Block& block, int warp, const Wgmma& p) {
  static Operands operands;  // one machine runs at a time
  const int first = kRows * (warp % 4);
  if (p.has_registers) {
    read_registers(p, operands);
  } else {
    read_shared(block, decode_descriptor(p.a, p.site), p.transposes_a, first, first + kRows,
                p.is_f16, [&](int row, int k, float x) { operands.a[row - first][k] = x; });
  }
  read_shared(block, decode_descriptor(p.b, p.site), p.transposes_b, 0, p.n, p.is_f16,
              [&](int column, int k, float x) { operands.b[k][column] = x; });
  std::vector<float>& value = p.d->value;
  if (!p.accumulates) std::fill(value.begin(), value.end(), 0.0f);
  for (int row = 0; row < kRows; ++row) {
    float* d = value.data() + static_cast<size_t>(row) * p.n;
    for (int k = 0; k < kDepth; ++k) {
      const float a = operands.a[row][k];
      for (int column = 0; column < p.n; ++column) d[column] += a * operands.b[k][column];
    }
  }
}

}  // namespace emulator
