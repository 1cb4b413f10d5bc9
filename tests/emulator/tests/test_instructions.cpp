// Do single instructions mean what their documentation says? Against definitions written here.
#include <bit>
#include <cmath>

#include "check.h"
#include "ptx/bulk_copy.h"
#include "ptx/convert.h"
#include "ptx/launch.h"
#include "ptx/math.h"
#include "ptx/matrix.h"
#include "ptx/memory.h"
#include "ptx/thread.h"
#include "ptx/wgmma.h"

namespace {

namespace ptx = attnext::ptx;
using emulator_test::DeviceArray;
using emulator_test::outcome;

struct Params {
  uint32_t* words;
  float* floats;
};

std::string when(bool is_wrong) { return is_wrong ? "WRONG RESULT" : ""; }

// A float16 by its definition: (-1)^s 2^(e - 25) (1024 + m), or 2^-24 m where e is 0.
double f16_value(uint32_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double sign = bits >> 15 ? -1 : 1;
  if (exponent == 31) return mantissa != 0 ? NAN : sign * INFINITY;
  return sign *
         (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

std::string convert_every_f16() {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float x = ptx::f16_to_f32(static_cast<uint16_t>(bits));
    const double truth = f16_value(bits);
    if (std::isnan(truth) ? !std::isnan(x) : x != static_cast<float>(truth)) return "f16 -> f32";
    if (!std::isnan(truth) && ptx::f32_to_f16(x) != bits) return "f32 -> f16";
  }
  return {};
}

// Between two neighbours: the nearer one, at the middle the even one.
std::string round_between_f16() {
  for (uint32_t bits = 0; bits < 0x7BFF; ++bits) {
    const double low = f16_value(bits), high = f16_value(bits + 1), middle = (low + high) / 2;
    const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    const float below = std::nextafter(static_cast<float>(middle), 0.0f);
    const float above = std::nextafter(static_cast<float>(middle), INFINITY);
    if (ptx::f32_to_f16(static_cast<float>(middle)) != even) return "middle";
    if (ptx::f32_to_f16(below) != bits || ptx::f32_to_f16(above) != bits + 1) return "side";
  }
  return when(ptx::f32_to_f16(65519.0f) != 0x7BFF || ptx::f32_to_f16(65520.0f) != 0x7C00 ||
              ptx::f32_to_f16(-1e30f) != 0xFC00);
}

std::string convert_others() {
  const bool bf16 = ptx::f32_to_bf16(1.0f + 0x1p-8f) == 0x3F80 &&
                    ptx::f32_to_bf16(1.0f + 0x3p-8f) == 0x3F82 && ptx::f32_to_bf16(NAN) == 0x7FFF &&
                    ptx::f32_to_bf16(INFINITY) == 0x7F80;
  const bool pairs = ptx::pack_f16(1.0f, -2.0f) == 0xC0003C00u &&
                     ptx::unpack_bf16(ptx::pack_bf16(3.0f, 4.0f)).y == 4.0f &&
                     ptx::unpack_f16(ptx::pack_f16(3.0f, 4.0f)).x == 3.0f;
  const bool tf32 = ptx::f32_to_tf32(1.0f + 0x1p-11f) == std::bit_cast<uint32_t>(1.0f + 0x1p-10f) &&
                    ptx::f32_to_tf32(INFINITY) == 0x7F800000u;
  const bool maths = ptx::ex2(3.0f) == 8.0f && ptx::ex2(-130.0f) == 0.0f &&
                     ptx::lg2(0.25f) == -2.0f && ptx::rcp(4.0f) == 0.25f &&
                     ptx::rsqrt(4.0f) == 0.5f && ptx::ex2(-INFINITY) == 0.0f;
  return when(!bf16 || !pairs || !tf32 || !maths);
}

// Matrices pass through shared memory by stmatrix and ldmatrix, with and without transposing.
__global__ void move_matrices(const __grid_constant__ Params p) {
  const uint32_t lane = ptx::lane_index(), row = ptx::dyn_smem() + 16 * lane;
  uint32_t r[4], x4[4], trans[4], back[4], x2[2], x2_trans[2];
  for (uint32_t m = 0; m < 4; ++m) r[m] = (64 * m + 2 * lane) | (64 * m + 2 * lane + 1) << 16;
  ptx::stmatrix_x4(row, r);
  ptx::warp_sync();
  ptx::ldmatrix_x4(x4, row);
  ptx::ldmatrix_x4_trans(trans, row);
  ptx::ldmatrix_x2(x2, row);
  ptx::ldmatrix_x2_trans(x2_trans, row);
  ptx::warp_sync();
  ptx::stmatrix_x4_trans(row, trans);
  ptx::warp_sync();
  ptx::ldmatrix_x4(back, row);
  for (int m = 0; m < 4; ++m) {
    const bool is_same = x4[m] == r[m] && back[m] == r[m];
    const bool is_same2 = m >= 2 || (x2[m] == r[m] && x2_trans[m] == trans[m]);
    ptx::st_global(p.words + 32 * m + lane, is_same && is_same2 ? trans[m] : 0xDEADu);
  }
}

std::string run_matrices() {
  const DeviceArray<uint32_t> words(128);
  const std::string failure =
      outcome(ptx::launch(move_matrices, 1, 32, 512, nullptr, {words.data(), nullptr}));
  if (!failure.empty()) return failure;
  const std::vector<uint32_t> found = words.values();
  for (uint32_t i = 0; i < 256; ++i) {  // lane l of matrix m has column l / 4, rows 2 (l % 4) + e
    const uint32_t m = i / 64, lane = i % 64 / 2, e = i % 2;
    const uint32_t element = 64 * m + (2 * (lane % 4) + e) * 8 + lane / 4;
    if ((found[32 * m + lane] >> (16 * e) & 0xFFFF) != element) return "WRONG RESULT";
  }
  return {};
}

float value_a(uint32_t row, uint32_t k) { return static_cast<float>((row * 5 + k * 3) % 13) - 6; }
float value_b(uint32_t k, uint32_t column) { return static_cast<float>((k * 7 + column) % 11) - 5; }

// The fragments of declarations.h, written out for an 8-deep product of each kind.
template <bool kIsTf32>
__global__ void multiply_eight(const __grid_constant__ Params p) {
  const uint32_t g = ptx::lane_index() / 4, t = ptx::lane_index() % 4;
  float d[4] = {1, 1, 1, 1};
  if constexpr (kIsTf32) {
    uint32_t a[4], b[2];
    for (uint32_t i = 0; i < 2; ++i) {
      for (uint32_t j = 0; j < 2; ++j)
        a[i + 2 * j] = ptx::f32_to_tf32(value_a(g + 8 * i, t + 4 * j));
      b[i] = ptx::f32_to_tf32(value_b(t + 4 * i, g));
    }
    ptx::mma_m16n8k8_tf32(d, a, b);
  } else {
    uint32_t a[2];
    for (uint32_t i = 0; i < 2; ++i) {
      a[i] = ptx::pack_f16(value_a(g + 8 * i, 2 * t), value_a(g + 8 * i, 2 * t + 1));
    }
    ptx::mma_m16n8k8_f16(d, a, ptx::pack_f16(value_b(2 * t, g), value_b(2 * t + 1, g)));
  }
  for (uint32_t i = 0; i < 4; ++i) {
    ptx::st_global(p.floats + (g + 8 * (i / 2)) * 8 + 2 * t + i % 2, d[i]);
  }
}

// d [64, 64] = a b with a in registers, or a and b transposed in shared memory: b [k, n] and
// a [k, m] have rows of 64 elements, one slab of the swizzle.
template <bool kHasRegisters>
__global__ void multiply_transposed(const __grid_constant__ Params p) {
  const uint32_t b = (ptx::dyn_smem() + 1023) / 1024 * 1024, a = b + 2048;
  for (uint32_t i = ptx::thread_index().x; i < 16 * 64; i += 128) {
    const uint32_t k = i / 64, j = i % 64, plain = k * 128 + j * 2;
    const uint32_t place = plain ^ (plain >> 3 & 0x70);
    ptx::st_shared(b + place, ptx::f32_to_f16(value_b(k, j)));
    ptx::st_shared(a + place, ptx::f32_to_f16(value_a(j, k)));
  }
  ptx::fence_async_shared();
  ptx::block_sync();
  const uint32_t g = ptx::lane_index() / 4, t = ptx::lane_index() % 4, w = ptx::warp_index();
  const auto describe = [](uint32_t x) {
    return uint64_t{x >> 4} | uint64_t{64} << 32 | 1ull << 62;
  };
  float d[32];
  uint32_t r[4];
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t row = 16 * w + g + 8 * (i % 2), k = 8 * (i / 2) + 2 * t;
    r[i] = ptx::pack_f16(value_a(row, k), value_a(row, k + 1));
  }
  ptx::wgmma_fence();
  if constexpr (kHasRegisters) {
    ptx::wgmma_f16<64, true>(d, r, describe(b), false);
  } else {
    ptx::wgmma_f16<64, true, true>(d, describe(a), describe(b), false);
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  for (uint32_t i = 0; i < 32; ++i) {
    const uint32_t row = 16 * w + g + 8 * (i / 2 % 2), column = 8 * (i / 4) + 2 * t + i % 2;
    ptx::st_global(p.floats + row * 64 + column, d[i]);
  }
}

std::string run_product(void (*kernel)(Params), int threads, uint32_t rows, uint32_t columns,
                        uint32_t depth, float start) {
  const DeviceArray<float> d(rows * columns);
  const std::string failure =
      outcome(ptx::launch(kernel, 1, threads, 8192, nullptr, {nullptr, d.data()}));
  if (!failure.empty()) return failure;
  const std::vector<float> found = d.values();
  for (uint32_t i = 0; i < rows * columns; ++i) {
    float truth = start;
    for (uint32_t k = 0; k < depth; ++k) truth += value_a(i / columns, k) * value_b(k, i % columns);
    if (found[i] != truth) return "WRONG RESULT";
  }
  return {};
}

}  // namespace

int main() {
  return emulator_test::run_table(
      {
          {"every float16", convert_every_f16, ""},
          {"between float16", round_between_f16, ""},
          {"other conversions", convert_others, ""},
          {"matrices", run_matrices, ""},
          {"tf32", [] { return run_product(multiply_eight<true>, 32, 16, 8, 8, 1); }, ""},
          {"k8", [] { return run_product(multiply_eight<false>, 32, 16, 8, 8, 1); }, ""},
          {"wgmma registers",
           [] { return run_product(multiply_transposed<true>, 128, 64, 64, 16, 0); }, ""},
          {"wgmma transposed",
           [] { return run_product(multiply_transposed<false>, 128, 64, 64, 16, 0); }, ""},
      },
      2);
}
