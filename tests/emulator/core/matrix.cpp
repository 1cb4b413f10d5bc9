// Fragments: which lane holds which element, for 8x8 matrices and for products.
#include "core/matrix.h"

#include <cmath>
#include <cstring>

#include "core/floats.h"
#include "core/report.h"
#include "core/warp.h"

namespace emulator {
namespace {

constexpr int kRows = 8, kRowBytes = 16;

struct Transfer {
  uint32_t row;
  uint32_t r[4];
  int count;
  bool transposes;
};

// Calls f(lane that names the row, matrix, lane and half of the register that hold the element,
// element of the row).
template <class F>
void for_each_element(const Transfer& t, F f) {
  for (int matrix = 0; matrix < t.count; ++matrix) {
    for (int row = 0; row < kRows; ++row) {
      for (int column = 0; column < kRows; ++column) {
        const int r = t.transposes ? column : row, c = t.transposes ? row : column;
        f(kRows * matrix + row, matrix, 4 * r + c / 2, c % 2, column);
      }
    }
  }
}

void load(Gathering& g) {
  const auto& first = g.argument<Transfer>(0);
  uint16_t rows[kWarpSize][kRows];
  for (int lane = 0; lane < kRows * first.count; ++lane) {
    const uint32_t address = g.argument<Transfer>(lane).row;
    g.block.shadow.require_range(address, kRowBytes, kRowBytes, "ldmatrix", g.site);
    g.block.shadow.read(g.thread(lane), address, kRowBytes, "ldmatrix", g.site);
    memcpy(rows[lane], g.block.shared_bytes(address), kRowBytes);
  }
  for_each_element(first, [&](int row, int matrix, int lane, int half, int column) {
    g.argument<Transfer>(lane).r[matrix] |= uint32_t{rows[row][column]} << (16 * half);
  });
}

void store(Gathering& g) {
  const auto& first = g.argument<Transfer>(0);
  uint16_t rows[kWarpSize][kRows];
  for_each_element(first, [&](int row, int matrix, int lane, int half, int column) {
    rows[row][column] = static_cast<uint16_t>(g.argument<Transfer>(lane).r[matrix] >> (16 * half));
  });
  for (int lane = 0; lane < kRows * first.count; ++lane) {
    const uint32_t address = g.argument<Transfer>(lane).row;
    g.block.shadow.require_range(address, kRowBytes, kRowBytes, "stmatrix", g.site);
    g.block.shadow.write(g.thread(lane), address, kRowBytes, "stmatrix", g.site);
    memcpy(g.block.shared_bytes(address), rows[lane], kRowBytes);
  }
}

constexpr int kM = 16, kN = 8, kMaxK = 16;

float element(uint32_t word, int half, bool is_f16) {
  const auto bits = static_cast<uint16_t>(word >> (16 * half));
  return is_f16 ? from_f16(bits) : from_bf16(bits);
}

// The unit reads 19 bits of a tf32 operand.
float tf32(uint32_t word) { return std::bit_cast<float>(word & 0xFFFFE000u); }

struct Operands {
  float a[kM][kMaxK], b[kMaxK][kN];
};

void unpack_pairs(Gathering& g, int k, bool is_f16, Operands& out) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto& p = g.argument<Product>(lane);
    const int group = lane / 4, pair = 2 * (lane % 4);
    for (int half = 0; half < 2; ++half) {
      for (int j = 0; j < k / 8; ++j) {
        const int column = 8 * j + pair + half;
        out.a[group][column] = element(p.a[2 * j], half, is_f16);
        out.a[group + 8][column] = element(p.a[2 * j + 1], half, is_f16);
        out.b[column][group] = element(p.b[j], half, is_f16);
      }
    }
  }
}

void unpack_tf32(Gathering& g, Operands& out) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto& p = g.argument<Product>(lane);
    const int group = lane / 4, t = lane % 4;
    for (int j = 0; j < 2; ++j) {
      out.a[group][t + 4 * j] = tf32(p.a[2 * j]);
      out.a[group + 8][t + 4 * j] = tf32(p.a[2 * j + 1]);
      out.b[t + 4 * j][group] = tf32(p.b[j]);
    }
  }
}

// How a sum ends. Of tf32, from which float32's accuracy is asked, towards zero, as units do; of 16
// bits, where that does not show, as additions of float32 leave it.
float cut(float x) { return x; }
float cut(double x) {
  const auto rounded = static_cast<float>(x);
  const bool is_beyond = std::isfinite(rounded) && std::fabs(double{rounded}) > std::fabs(x);
  return is_beyond ? std::nextafter(rounded, 0.0f) : rounded;
}

template <class Sum>
void accumulate(Gathering& g, int k, const Operands& in) {
  Sum d[kM][kN];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const float* own = g.argument<Product>(lane).d;
    for (int i = 0; i < 4; ++i) d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2] = own[i];
  }
  for (int row = 0; row < kM; ++row) {
    for (int step = 0; step < k; ++step) {
      for (int column = 0; column < kN; ++column) {
        d[row][column] += Sum{in.a[row][step]} * Sum{in.b[step][column]};
      }
    }
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    float* own = g.argument<Product>(lane).d;
    for (int i = 0; i < 4; ++i) own[i] = cut(d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2]);
  }
}

template <Operand kType, int kK>
void multiply(Gathering& g) {
  Operands operands;
  if constexpr (kType == Operand::kTf32) {
    unpack_tf32(g, operands);
    accumulate<double>(g, kK, operands);
  } else {
    unpack_pairs(g, kK, kType == Operand::kF16, operands);
    accumulate<float>(g, kK, operands);
  }
}

}  // namespace

void load_matrices(uint32_t* r, int count, uint32_t row, bool transposes, const Site& site) {
  Transfer mine{row, {}, count, transposes};
  gather(transposes ? "ldmatrix.trans" : "ldmatrix", &mine, load, site);
  memcpy(r, mine.r, count * sizeof(uint32_t));
}

void store_matrices(const uint32_t* r, uint32_t row, bool transposes, const Site& site) {
  Transfer mine{row, {r[0], r[1], r[2], r[3]}, 4, transposes};
  gather(transposes ? "stmatrix.trans" : "stmatrix", &mine, store, site);
}

void multiply_matrices(const Product& mine, Operand type, int k, const Site& site) {
  Product copy = mine;
  switch (type) {
    case Operand::kF16:
      gather("mma f16", &copy, k == 16 ? multiply<Operand::kF16, 16> : multiply<Operand::kF16, 8>,
             site);
      break;
    case Operand::kBf16:
      gather("mma bf16", &copy, multiply<Operand::kBf16, 16>, site);
      break;
    case Operand::kTf32:
      gather("mma tf32", &copy, multiply<Operand::kTf32, 8>, site);
      break;
  }
}

}  // namespace emulator
