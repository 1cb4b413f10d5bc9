// Is a Hopper pipeline (tensor copies, mbarriers, wgmma, bulk stores) right, and are its faults
// found?
#include <cuda.h>

#include "check.h"
#include "ptx/bulk_copy.h"
#include "ptx/convert.h"
#include "ptx/launch.h"
#include "ptx/mbarrier.h"
#include "ptx/memory.h"
#include "ptx/thread.h"
#include "ptx/wgmma.h"

namespace {

namespace ptx = attnext::ptx;
using emulator_test::DeviceArray;
using emulator_test::outcome;

// d [rows, 64] = a [rows, depth] bᵀ [64, depth]: two warpgroups of 64 rows a tile, two stages.
constexpr int kColumns = 64, kDepth = 64 * 5, kStep = 64, kTileRows = 128, kTiles = 5;
constexpr int kRows = kTiles * kTileRows - 30, kBlocks = 2, kThreads = 384;
constexpr uint32_t kBytesA = kTileRows * kStep * 2, kBytesB = kColumns * kStep * 2;
constexpr uint32_t kStage = kBytesA + kBytesB, kBytesD = kTileRows * kColumns * 4;
constexpr uint32_t kBarriers = 2 * kStage + kBytesD;  // full, empty of each stage
constexpr uint32_t kShared = 1024 + kBarriers + 4 * 8;

enum Fault {
  kNone,
  kNoFullWait,
  kNoEmptyWait,
  kEarlyRelease,
  kTooManyBytes,
  kTooFewBytes,
  kNoFence,
  kNoWait,
  kTouchesD,
  kNoProxyFence,
  kNoStoreWait,
  kNoStoreBarrier,
  kWrongParity,
  kNoInitFence,
  kAllLanesLoad,
  kNoBlockSync,
  kTooManyRegisters,
  kOtherSwizzle,
  kMisalignedTile,
  kOtherStride,
  kSharedTooSmall,
};

struct Params {
  CUtensorMap a, b;
  float *stored, *added;  // [kTiles kTileRows, kColumns]
};

constexpr uint64_t descriptor(uint32_t address, uint32_t stride, uint64_t swizzle = 1) {
  return (address & 0x3FFFF) >> 4 | uint64_t{stride >> 4} << 32 | swizzle << 62;
}

struct Pipeline {
  uint32_t base;
  uint32_t stage(int i) const { return base + (i % 2) * kStage; }
  uint32_t full(int i) const { return base + kBarriers + (i % 2) * 8; }
  uint32_t empty(int i) const { return base + kBarriers + 16 + (i % 2) * 8; }
};

template <Fault kFault>
void produce(const Params& p, const Pipeline& pipe) {
  const bool is_producer = ptx::warp_index() == 0 && (kFault == kAllLanesLoad || ptx::elect_one());
  if (!is_producer) return;
  int i = 0;
  for (int tile = ptx::block_index().x; tile < kTiles; tile += kBlocks) {
    for (int step = 0; step < kDepth / kStep; ++step, ++i) {
      if constexpr (kFault != kNoEmptyWait) {
        ptx::mbarrier_wait(pipe.empty(i), (i / 2 + (kFault == kWrongParity ? 0 : 1)) % 2);
      }
      const int extra = kFault == kTooManyBytes ? 16 : kFault == kTooFewBytes ? -16 : 0;
      ptx::mbarrier_arrive_expect(pipe.full(i), kStage + extra);
      const uint32_t stage = pipe.stage(i) + (kFault == kMisalignedTile ? 128 : 0);
      ptx::tensor_load(stage, &p.a, pipe.full(i), {step * kStep, tile * kTileRows},
                       ptx::evict_first());
      ptx::tensor_load(pipe.stage(i) + kBytesA, &p.b, pipe.full(i), {step * kStep, 0},
                       ptx::evict_last());
    }
  }
}

template <Fault kFault>
void multiply_tile(const Pipeline& pipe, int group, int& i, float (&d)[kColumns / 2]) {
  for (int step = 0; step < kDepth / kStep; ++step, ++i) {
    if constexpr (kFault != kNoFullWait) ptx::mbarrier_wait(pipe.full(i), i / 2 % 2);
    const uint32_t a = pipe.stage(i) + group * 64 * 128, b = pipe.stage(i) + kBytesA;
    if constexpr (kFault != kNoFence) ptx::wgmma_fence();
    for (int k = 0; k < kStep / 16; ++k) {
      ptx::wgmma_bf16<kColumns, false, false>(
          d, descriptor(a + 32 * k, kFault == kOtherStride ? 512 : 1024),
          descriptor(b + 32 * k, 1024, kFault == kOtherSwizzle ? 2 : 1), step + k > 0);
    }
    ptx::wgmma_commit();
    if constexpr (kFault == kEarlyRelease) ptx::mbarrier_arrive(pipe.empty(i));
    if constexpr (kFault == kTouchesD) d[3] = 0;
    if constexpr (kFault != kNoWait) ptx::wgmma_wait<0>();
    if constexpr (kFault != kEarlyRelease) ptx::mbarrier_arrive(pipe.empty(i));
  }
}

template <Fault kFault>
void store_tile(const Params& p, const Pipeline& pipe, int group, int tile,
                const float (&d)[kColumns / 2]) {
  constexpr uint32_t kHalf = kBytesD / 2;
  const uint32_t buffer = pipe.base + 2 * kStage + group * kHalf, lane = ptx::lane_index();
  const uint32_t row = 16 * (ptx::warp_index() % 4) + lane / 4;
  for (int j = 0; j < kColumns / 2; j += 2) {
    const uint32_t column = 8 * (j / 4) + 2 * (lane % 4);
    ptx::st_shared(buffer + ((row + 8 * (j / 2 % 2)) * kColumns + column) * 4,
                   make_float2(d[j], d[j + 1]));
  }
  if constexpr (kFault != kNoProxyFence) ptx::fence_async_shared();
  if constexpr (kFault != kNoStoreBarrier) ptx::barrier_sync(1 + group, 128);
  if (ptx::thread_index().x % 128 == 0) {
    const int64_t first = (int64_t{tile} * kTileRows + 64 * group) * kColumns;
    ptx::bulk_store(p.stored + first, buffer, kHalf);
    ptx::bulk_reduce_add(p.added + first, buffer, kHalf);
    ptx::bulk_commit();
    if constexpr (kFault != kNoStoreWait) ptx::bulk_wait_read<0>();
  }
  ptx::barrier_sync(1 + group, 128);
}

template <Fault kFault>
__global__ void multiply(const __grid_constant__ Params p) {
  const Pipeline pipe{(ptx::dyn_smem() + 1023) / 1024 * 1024};
  if (ptx::thread_index().x == 0) {
    ptx::mbarrier_init(pipe.full(0), 1, "full 0");
    ptx::mbarrier_init(pipe.full(1), 1, "full 1");
    ptx::mbarrier_init(pipe.empty(0), 256, "empty 0");
    ptx::mbarrier_init(pipe.empty(1), 256, "empty 1");
    if constexpr (kFault != kNoInitFence) ptx::mbarrier_init_fence();
  }
  if constexpr (kFault != kNoBlockSync) ptx::block_sync();
  const int group = static_cast<int>(ptx::warp_index()) / 4 - 1;
  if (group < 0) {
    ptx::decrease_registers<24>();
    produce<kFault>(p, pipe);
    return;
  }
  ptx::increase_registers<kFault == kTooManyRegisters ? 248 : 240>();
  int i = 0;
  for (int tile = ptx::block_index().x; tile < kTiles; tile += kBlocks) {
    float d[kColumns / 2];
    multiply_tile<kFault>(pipe, group, i, d);
    store_tile<kFault>(p, pipe, group, tile, d);
  }
  if (ptx::thread_index().x % 128 == 0) ptx::bulk_wait<0>();
}

CUtensorMap make_map(void* base, uint64_t rows, uint32_t box_rows) {
  CUtensorMap map;
  const cuuint64_t extents[] = {kDepth, rows}, strides[] = {kDepth * 2};
  const cuuint32_t box[] = {kStep, box_rows}, ones[] = {1, 1};
  const CUresult result =
      cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, base, extents, strides, box,
                             ones, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) std::printf("no tensor map\n");
  return map;
}

float value_of(int row, int k) { return static_cast<float>((row * 7 + k * 3) % 11 - 5); }

std::vector<uint16_t> make_matrix(int rows) {
  std::vector<uint16_t> values(rows * kDepth);
  for (int i = 0; i < rows * kDepth; ++i) {
    values[i] = ptx::f32_to_bf16(value_of(i / kDepth, i % kDepth));
  }
  return values;
}

std::vector<float> expected() {
  std::vector<float> d(kTiles * kTileRows * kColumns);
  for (int row = 0; row < kRows; ++row) {
    for (int column = 0; column < kColumns; ++column) {
      for (int k = 0; k < kDepth; ++k) {
        d[row * kColumns + column] += value_of(row, k) * value_of(column, k);
      }
    }
  }
  return d;
}

template <Fault kFault>
std::string run() {
  static const std::vector<float> truth = expected();
  const DeviceArray<uint16_t> a(make_matrix(kRows)), b(make_matrix(kColumns));
  const DeviceArray<float> stored(truth.size()), added(std::vector<float>(truth.size(), 1));
  const Params params{make_map(a.data(), kRows, kTileRows), make_map(b.data(), kColumns, kColumns),
                      stored.data(), added.data()};
  const std::string failure =
      outcome(ptx::launch(multiply<kFault>, kBlocks, kThreads,
                          kShared - (kFault == kSharedTooSmall ? 1024 : 0), nullptr, params));
  if (!failure.empty()) return failure;
  const std::vector<float> sums = added.values();
  for (size_t i = 0; i < sums.size(); ++i) {
    if (sums[i] != truth[i] + 1) return "WRONG RESULT";
  }
  return stored.values() == truth ? "" : "WRONG RESULT";
}

}  // namespace

int main() {
  return emulator_test::run_table(
      {
          {"pipeline", run<kNone>, ""},
          {"no wait for full", run<kNoFullWait>, "RACE: wgmma|UNINITIALISED: wgmma"},
          {"no wait for empty", run<kNoEmptyWait>, "RACE: tensor_load|more arrivals"},
          {"released early", run<kEarlyRelease>, "RACE: tensor_load overwrites"},
          {"too many bytes", run<kTooManyBytes>, "16 bytes are missing"},
          {"too few bytes", run<kTooFewBytes>, "DEADLOCK|RACE"},
          {"no wgmma_fence", run<kNoFence>, "MISSING wgmma_fence"},
          {"no wgmma_wait", run<kNoWait>, "TOUCHED IN FLIGHT|RACE: tensor_load"},
          {"d touched in flight", run<kTouchesD>, "TOUCHED IN FLIGHT: register d[3]"},
          {"no fence.proxy.async", run<kNoProxyFence>, "MISSING fence.proxy.async: bulk_store"},
          {"no wait for the store", run<kNoStoreWait>, "RACE: st_shared overwrites"},
          {"no barrier before the store", run<kNoStoreBarrier>, "RACE: bulk|UNINITIALISED: bulk"},
          {"wrong parity", run<kWrongParity>, "DEADLOCK"},
          {"no fence of mbarriers", run<kNoInitFence>, "before fence.mbarrier_init"},
          {"all lanes load", run<kAllLanesLoad>, "more arrivals at mbarrier|RACE: tensor_load"},
          {"no block_sync", run<kNoBlockSync>, "RACE: mbarrier|where no mbarrier"},
          {"too many registers", run<kTooManyRegisters>, "more registers"},
          {"another swizzle", run<kOtherSwizzle>, "WRONG RESULT"},
          {"misaligned tile", run<kMisalignedTile>, "MISALIGNED: a tensor copy"},
          {"another stride", run<kOtherStride>, "WRONG RESULT"},
          {"shared memory too small", run<kSharedTooSmall>, "OUT OF BOUNDS"},
      },
      3);
}
