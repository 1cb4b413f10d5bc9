// Is a pipelined matrix product right, and are the faults of such pipelines found?
#include <cmath>

#include "check.h"
#include "ptx/async_copy.h"
#include "ptx/convert.h"
#include "ptx/launch.h"
#include "ptx/matrix.h"
#include "ptx/memory.h"
#include "ptx/thread.h"

namespace {

namespace ptx = attnext::ptx;
using emulator_test::DeviceArray;
using emulator_test::outcome;

constexpr int kTile = 64, kDepth = 32, kThreads = 128;
constexpr int kRows = 100, kColumns = 80, kInner = 32 * 7;  // tails in both directions

enum Fault {
  kNone,
  kBf16,
  kNoWait,
  kWaitTooLittle,
  kNoCommit,
  kNoBarrierAfterWait,
  kNoBarrierBeforeReload,
  kOtherStage,
  kNoTranspose,
  kOtherSwizzle,
  kNoZeroFill,
  kSharedTooSmall,
  kRowMisaligned,
  kStoreBeyond,
  kHalfOfTheWarp,
};

struct Params {
  const uint16_t* a;  // [kRows, kInner]
  const uint16_t* b;  // [kInner, kColumns]
  float* d;           // [kRows, kColumns]
};

// Sixteen-byte chunks of a row change places with the row, so that eight rows lie in eight banks.
constexpr uint32_t chunk_address(uint32_t row, uint32_t chunk, uint32_t chunks) {
  return (row * chunks + (chunk ^ (row / (8 / chunks > 0 ? 8 / chunks : 1) % chunks))) * 16;
}

struct Stage {
  static constexpr uint32_t kA = kTile * kDepth * 2, kBytes = kA + kDepth * kTile * 2;
};

template <Fault kFault>
void load_stage(const Params& p, uint32_t stage, int step) {
  const int row0 = kTile * ptx::block_index().y, column0 = kTile * ptx::block_index().x;
  for (int i = ptx::thread_index().x; i < kTile * kDepth / 8; i += kThreads) {
    const int row = i / (kDepth / 8), chunk = i % (kDepth / 8);
    const bool exists = row0 + row < kRows;
    const uint16_t* from = p.a + int64_t{exists ? row0 + row : 0} * kInner + step * kDepth;
    ptx::cp_async<16>(stage + chunk_address(row, chunk, kDepth / 8), from + 8 * chunk,
                      exists ? 16 : 0);
  }
  for (int i = ptx::thread_index().x; i < kDepth * kTile / 8; i += kThreads) {
    const int row = i / (kTile / 8), chunk = i % (kTile / 8), column = column0 + 8 * chunk;
    const bool exists = column < kColumns || kFault == kNoZeroFill;
    const uint16_t* from = p.b + int64_t{step * kDepth + row} * kColumns + (exists ? column : 0);
    ptx::cp_async<16>(stage + Stage::kA + chunk_address(row, chunk, kTile / 8), from,
                      exists ? 16 : 0);
  }
}

template <Fault kFault>
void multiply_stage(uint32_t stage, float (&d)[8][4]) {
  const uint32_t lane = ptx::lane_index(), warp = ptx::warp_index();
  for (uint32_t k = 0; k < kDepth / 16; ++k) {
    uint32_t a[4];
    ptx::ldmatrix_x4(a, stage +
                            chunk_address(16 * warp + lane % 16, 2 * k + lane / 16, kDepth / 8) +
                            (kFault == kRowMisaligned ? 8 : 0));
    for (uint32_t j = 0; j < kTile / 16; ++j) {
      uint32_t b[4];
      const uint32_t chunk = (2 * j + lane / 16) ^ (kFault == kOtherSwizzle ? 1 : 0);
      const uint32_t row = stage + Stage::kA + chunk_address(16 * k + lane % 16, chunk, kTile / 8);
      if constexpr (kFault == kNoTranspose) {
        ptx::ldmatrix_x4(b, row);
      } else {
        ptx::ldmatrix_x4_trans(b, row);
      }
      const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
      if constexpr (kFault == kHalfOfTheWarp) {
        if (lane < 16) ptx::mma_m16n8k16_f16(d[2 * j], a, left);
      } else if constexpr (kFault == kBf16) {
        ptx::mma_m16n8k16_bf16(d[2 * j], a, left);
        ptx::mma_m16n8k16_bf16(d[2 * j + 1], a, right);
      } else {
        ptx::mma_m16n8k16_f16(d[2 * j], a, left);
        ptx::mma_m16n8k16_f16(d[2 * j + 1], a, right);
      }
    }
  }
}

template <Fault kFault>
void store_tile(const Params& p, const float (&d)[8][4]) {
  const int lane = ptx::lane_index(), row0 = kTile * ptx::block_index().y + 16 * ptx::warp_index();
  for (int j = 0; j < 8; ++j) {
    for (int i = 0; i < 4; ++i) {
      const int row = row0 + lane / 4 + 8 * (i / 2);
      const int column = kTile * ptx::block_index().x + 8 * j + 2 * (lane % 4) + i % 2;
      if ((row < kRows || kFault == kStoreBeyond) && column < kColumns) {
        ptx::st_global(p.d + int64_t{row} * kColumns + column, d[j][i]);
      }
    }
  }
}

// d = a b with two stages of cp.async.
template <Fault kFault>
__global__ void multiply(const __grid_constant__ Params p) {
  const uint32_t stages = ptx::dyn_smem();
  constexpr int kSteps = kInner / kDepth;
  load_stage<kFault>(p, stages, 0);
  ptx::cp_async_commit();
  float d[8][4] = {};
  for (int step = 0; step < kSteps; ++step) {
    if (step + 1 < kSteps) {
      load_stage<kFault>(p, stages + (step + 1) % 2 * Stage::kBytes, step + 1);
    }
    if constexpr (kFault != kNoCommit) ptx::cp_async_commit();
    if constexpr (kFault == kWaitTooLittle) {
      ptx::cp_async_wait<2>();
    } else if constexpr (kFault != kNoWait) {
      ptx::cp_async_wait<1>();
    }
    if constexpr (kFault != kNoBarrierAfterWait) ptx::block_sync();
    const int stage = kFault == kOtherStage ? (step + 1) % 2 : step % 2;
    multiply_stage<kFault>(stages + stage * Stage::kBytes, d);
    if constexpr (kFault != kNoBarrierBeforeReload) ptx::block_sync();
  }
  ptx::cp_async_wait<0>();
  store_tile<kFault>(p, d);
}

struct Problem {
  std::vector<uint16_t> a, b;
  std::vector<float> d;
};

// Small integers: exact in every type, so that the result must be exact too.
Problem make_problem(bool is_bf16) {
  Problem p{std::vector<uint16_t>(kRows * kInner), std::vector<uint16_t>(kInner * kColumns),
            std::vector<float>(kRows * kColumns)};
  const auto a = [](int row, int k) { return static_cast<float>((row * 7 + k * 3) % 11 - 5); };
  const auto b = [](int k, int column) { return static_cast<float>((k * 5 + column * 2) % 9 - 4); };
  const auto bits = [=](float x) { return is_bf16 ? ptx::f32_to_bf16(x) : ptx::f32_to_f16(x); };
  for (int row = 0; row < kRows; ++row) {
    for (int k = 0; k < kInner; ++k) p.a[row * kInner + k] = bits(a(row, k));
  }
  for (int k = 0; k < kInner; ++k) {
    for (int column = 0; column < kColumns; ++column) {
      p.b[k * kColumns + column] = bits(b(k, column));
      for (int row = 0; row < kRows; ++row)
        p.d[row * kColumns + column] += a(row, k) * b(k, column);
    }
  }
  return p;
}

template <Fault kFault>
std::string run() {
  const Problem problem = make_problem(kFault == kBf16);
  const DeviceArray<uint16_t> a(problem.a), b(problem.b);
  const DeviceArray<float> d(problem.d.size());
  const dim3 grid((kColumns + kTile - 1) / kTile, (kRows + kTile - 1) / kTile);
  const uint32_t shared = 2 * Stage::kBytes - (kFault == kSharedTooSmall ? 16 : 0);
  const std::string failure = outcome(ptx::launch(multiply<kFault>, grid, kThreads, shared, nullptr,
                                                  {a.data(), b.data(), d.data()}));
  if (!failure.empty()) return failure;
  return d.values() == problem.d ? "" : "WRONG RESULT";
}

}  // namespace

int main() {
  return emulator_test::run_table({
      {"float16", run<kNone>, ""},
      {"bfloat16", run<kBf16>, ""},
      {"no wait", run<kNoWait>, "RACE: ldmatrix|RACE: cp.async"},
      {"waits for too little", run<kWaitTooLittle>, "a cp.async not waited for|RACE"},
      {"no commit", run<kNoCommit>, "a cp.async not waited for|RACE"},
      {"no barrier after the wait", run<kNoBarrierAfterWait>, "RACE: ldmatrix|UNINITIALISED"},
      {"no barrier before reload", run<kNoBarrierBeforeReload>, "RACE: cp.async overwrites"},
      {"the other stage", run<kOtherStage>, "RACE: ldmatrix|UNINITIALISED"},
      {"no transpose", run<kNoTranspose>, "WRONG RESULT"},
      {"another swizzle", run<kOtherSwizzle>, "WRONG RESULT"},
      {"no zero fill", run<kNoZeroFill>, "OUT OF BOUNDS: cp.async|WRONG RESULT"},
      {"shared memory too small", run<kSharedTooSmall>, "OUT OF BOUNDS: cp.async"},
      {"misaligned row", run<kRowMisaligned>, "MISALIGNED: ldmatrix"},
      {"stores beyond", run<kStoreBeyond>, "OUT OF BOUNDS: st_global"},
      {"half of the warp", run<kHalfOfTheWarp>, "DIVERGENT WARP"},
  });
}
