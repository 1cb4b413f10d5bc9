// Do the instructions of sm_90a do on this device what cuda/ptx/declarations_sm90.h says? A probe
// each, by name; compiled by probes.py, by nvcc or over the emulator.
#include <ptx/bulk_copy.h>
#include <ptx/launch.h>
#include <ptx/mbarrier.h>
#include <ptx/memory.h>
#include <ptx/thread.h>
#include <ptx/wgmma.h>

#include <cmath>
#include <vector>

#include "hopper_tile.h"
#include "probe.h"

namespace ptx = attnext::ptx;
using probe::DeviceArray;

namespace {

PTX_FN uint32_t aligned_base() { return (ptx::dyn_smem() + 1023) / 1024 * 1024; }

PTX_FN void init_barrier(uint32_t barrier) {
  if (ptx::thread_index().x == 0) {
    ptx::mbarrier_init(barrier, 1, "full");
    ptx::mbarrier_init_fence();
  }
  ptx::block_sync();
}

// ---- products of a warpgroup ----

// D [64, 128] = A B over a depth of 64. An operand that is not transposed lies [m or n][k].
enum class First { kShared, kTransposed, kRegisters };

template <int kSlab_, First kFirst_, bool kTransposesB_, bool kIsHalf_>
struct Product {
  static constexpr int kSlab = kSlab_, kM = 64, kN = 128, kDepth = 64;
  static constexpr First kFirst = kFirst_;
  static constexpr bool kTransposesB = kTransposesB_, kIsHalf = kIsHalf_;
  using TileA = probe::Tile<64, kSlab>;  // rows: m, or k
  using TileB = probe::Tile<kTransposesB ? kDepth : kN, kSlab>;
  static constexpr uint32_t kBytesA = kM * kDepth * 2, kBytesB = kN * kDepth * 2;
  static constexpr uint32_t kShared = 1024 + kBytesA + kBytesB + 8;
};

struct ProductParams {
  CUtensorMap a, b;
  const uint16_t* rows;  // A [64, 64], for fragments from registers
  float* d;              // [64, 128]
};

template <class P>
PTX_FN void load_fragment(const uint16_t* rows, int step, uint32_t (&a)[4]) {
  const uint32_t lane = ptx::lane_index(), row = 16 * ptx::warp_index() + lane / 4;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const uint16_t* const pair =
        rows + (row + 8 * (j % 2)) * P::kDepth + 16 * step + 8 * (j / 2) + 2 * (lane % 4);
    a[j] = pair[0] | uint32_t{pair[1]} << 16;
  }
}

template <class P>
PTX_FN void issue(float (&d)[P::kN / 2], uint64_t a, uint64_t b, const uint32_t (&fragment)[4],
                  int step) {
  constexpr bool kTransposesA = P::kFirst == First::kTransposed;
  const uint64_t at_a = a + (kTransposesA ? P::TileA::row_step(step) : P::TileA::column_step(step));
  const uint64_t at_b =
      b + (P::kTransposesB ? P::TileB::row_step(step) : P::TileB::column_step(step));
  if constexpr (P::kFirst == First::kRegisters && P::kIsHalf)
    ptx::wgmma_f16<P::kN, P::kTransposesB>(d, fragment, at_b, step > 0);
  else if constexpr (P::kFirst == First::kRegisters)
    ptx::wgmma_bf16<P::kN, P::kTransposesB>(d, fragment, at_b, step > 0);
  else if constexpr (P::kIsHalf)
    ptx::wgmma_f16<P::kN, kTransposesA, P::kTransposesB>(d, at_a, at_b, step > 0);
  else
    ptx::wgmma_bf16<P::kN, kTransposesA, P::kTransposesB>(d, at_a, at_b, step > 0);
}

template <class P>
__global__ void __launch_bounds__(128) multiply(const __grid_constant__ ProductParams p) {
  const uint32_t a = aligned_base(), b = a + P::kBytesA, barrier = b + P::kBytesB;
  init_barrier(barrier);
  if (ptx::thread_index().x == 0) {
    ptx::mbarrier_arrive_expect(barrier, P::kBytesA + P::kBytesB);
    ptx::tensor_load(a, &p.a, barrier, {0, 0, 0, 0}, ptx::evict_first());
    ptx::tensor_load(b, &p.b, barrier, {0, 0, 0, 0}, ptx::evict_last());
  }
  ptx::mbarrier_wait(barrier, 0);
  float d[P::kN / 2];
  uint32_t fragments[4][4] = {};
  if constexpr (P::kFirst == First::kRegisters)
    for (int step = 0; step < 4; ++step) load_fragment<P>(p.rows, step, fragments[step]);
  ptx::keep(d);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step)
    issue<P>(d, P::TileA::descriptor(a), P::TileB::descriptor(b), fragments[step], step);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::keep(d);
  const uint32_t lane = ptx::lane_index(), row = 16 * ptx::warp_index() + lane / 4;
  for (int i = 0; i < P::kN / 2; ++i)
    p.d[(row + 8 * (i / 2 % 2)) * P::kN + 8 * (i / 4) + 2 * (lane % 4) + i % 2] = d[i];
}

// Small whole numbers have the same bits sums in every order, and no rounding hides a wrong place.
std::vector<uint16_t> small_numbers(int count, int seed, bool is_half) {
  std::vector<uint16_t> values(count);
  for (int i = 0; i < count; ++i) {
    const int x = (i * 7 + i / 64 * seed) % 9 - 4;
    const int magnitude = x < 0 ? -x : x;
    // 1, 2, 3, 4 as float16; bfloat16 has the upper half of a float's bits.
    constexpr uint16_t kHalf[] = {0, 0x3C00, 0x4000, 0x4200, 0x4400};
    values[i] = is_half ? kHalf[magnitude] | (x < 0 ? 0x8000 : 0) : probe::to_bf16(float(x));
  }
  return values;
}
double number(uint16_t bits, bool is_half) {
  if (!is_half) return probe::from_bf16(bits);
  const double magnitude =
      (bits & 0x7FFF) == 0 ? 0 : std::ldexp(1 + (bits & 0x3FF) / 1024.0, ((bits >> 10) & 31) - 15);
  return bits & 0x8000 ? -magnitude : magnitude;
}

template <class P>
void probe_product() {
  const bool transposes_a = P::kFirst == First::kTransposed;
  const std::vector<uint16_t> a = small_numbers(P::kM * P::kDepth, 5, P::kIsHalf),
                              b = small_numbers(P::kN * P::kDepth, 3, P::kIsHalf);
  const DeviceArray<uint16_t> device_a(a), device_b(b);
  const DeviceArray<float> d(std::vector<float>(P::kM * P::kN, NAN));
  const int rows_b = P::kTransposesB ? P::kDepth : P::kN, width_b = P::kN * P::kDepth / rows_b;
  const ProductParams params{probe::slab_map(device_a.data(), 1, 64, 64, 64, P::kSlab),
                             probe::slab_map(device_b.data(), 1, rows_b, width_b, rows_b, P::kSlab),
                             device_a.data(), d.data()};
  probe::require(ptx::launch(multiply<P>, dim3(1), dim3(128), P::kShared, nullptr, params),
                 "wgmma");
  const std::vector<float> found = d.values("wgmma");
  double worst = 0;
  for (int m = 0; m < P::kM; ++m) {
    for (int n = 0; n < P::kN; ++n) {
      double sum = 0;
      for (int k = 0; k < P::kDepth; ++k)
        sum += number(a[transposes_a ? k * P::kM + m : m * P::kDepth + k], P::kIsHalf) *
               number(b[P::kTransposesB ? k * P::kN + n : n * P::kDepth + k], P::kIsHalf);
      worst = probe::larger(worst, std::fabs(sum - found[m * P::kN + n]));
    }
  }
  probe::say(worst, 0);
}

// ---- copies ----

constexpr int kHeads = 2, kRows = 100, kWidth = 128, kBoxRows = 64;
constexpr uint32_t kBoxBytes = kBoxRows * kWidth * 2;

struct CopyParams {
  CUtensorMap from, to;
  uint16_t* seen;  // [kBoxBytes / 2] of the last box, as it lies in shared memory
};

// Every box of a tensor through shared memory; the last ones reach beyond its rows.
__global__ void __launch_bounds__(32) copy_boxes(const __grid_constant__ CopyParams p) {
  const uint32_t tile = aligned_base(), barrier = tile + kBoxBytes;
  init_barrier(barrier);
  int turn = 0;
  for (int head = 0; head < kHeads; ++head) {
    for (int row = 0; row < kRows; row += kBoxRows, ++turn) {
      if (ptx::thread_index().x == 0) {
        ptx::mbarrier_arrive_expect(barrier, kBoxBytes);
        ptx::tensor_load(tile, &p.from, barrier, {0, row, 0, head}, ptx::evict_first());
      }
      ptx::mbarrier_wait(barrier, turn % 2);
      if (ptx::thread_index().x == 0) {
        ptx::tensor_store(&p.to, tile, {0, row, 0, head});
        ptx::bulk_commit();
        ptx::bulk_wait<0>();
      }
      ptx::block_sync();
    }
  }
  for (uint32_t i = ptx::thread_index().x; i < kBoxBytes / 2; i += 32)
    p.seen[i] = ptx::ld_shared<uint16_t>(tile + 2 * i);
}

// Where element (row, column) of a box lies: the 16 bytes of a line are permuted by its number.
int swizzled(int row, int column) {
  return column / 64 * kBoxRows * 64 + row * 64 + ((column % 64 / 8) ^ (row % 8)) * 8 + column % 8;
}

void probe_tensor_copy() {
  constexpr size_t kCount = size_t{kHeads} * kRows * kWidth;
  const std::vector<uint16_t> values = probe::bf16_values(kCount, 7);
  const DeviceArray<uint16_t> from(values);
  // What lies behind the last head must stay as it is: stores are clipped too.
  const DeviceArray<uint16_t> to(std::vector<uint16_t>(kCount + kBoxBytes / 2, 0x1234));
  const DeviceArray<uint16_t> seen(std::vector<uint16_t>(kBoxBytes / 2));
  const CopyParams params{probe::slab_map(from.data(), kHeads, kRows, kWidth, kBoxRows),
                          probe::slab_map(to.data(), kHeads, kRows, kWidth, kBoxRows), seen.data()};
  probe::require(ptx::launch(copy_boxes, dim3(1), dim3(32), 1024 + kBoxBytes + 8, nullptr, params),
                 "copy");
  const std::vector<uint16_t> copied = to.values("copy"), box = seen.values("copy");
  int wrong = 0;
  for (size_t i = 0; i < copied.size(); ++i)
    wrong += copied[i] != (i < kCount ? values[i] : 0x1234);
  const int first = kRows / kBoxRows * kBoxRows;
  for (int row = 0; row < kBoxRows; ++row) {
    for (int column = 0; column < kWidth; ++column) {
      const size_t at = (size_t{kRows} * (kHeads - 1) + first + row) * kWidth + column;
      wrong += box[swizzled(row, column)] != (first + row < kRows ? values[at] : 0);
    }
  }
  probe::say(wrong, 0);
}

constexpr int kFloats = 256, kAdders = 64;
struct BulkParams {
  const float* from;      // [kFloats]
  float *copied, *added;  // [kAdders, kFloats], [kFloats]
};

__global__ void __launch_bounds__(32) copy_bulk(const __grid_constant__ BulkParams p) {
  const uint32_t tile = aligned_base(), barrier = tile + kFloats * 4;
  init_barrier(barrier);
  if (ptx::thread_index().x == 0) {
    ptx::mbarrier_arrive_expect(barrier, kFloats * 4);
    ptx::bulk_load(tile, p.from, kFloats * 4, barrier);
  }
  ptx::mbarrier_wait(barrier, 0);
  for (uint32_t i = ptx::thread_index().x; i < kFloats; i += 32)
    ptx::st_shared(tile + 4 * i, 2 * ptx::ld_shared<float>(tile + 4 * i));
  ptx::fence_async_shared();
  ptx::block_sync();
  if (ptx::thread_index().x != 0) return;
  ptx::bulk_store(p.copied + int64_t{ptx::block_index().x} * kFloats, tile, kFloats * 4);
  ptx::bulk_reduce_add(p.added, tile, kFloats * 4);
  ptx::bulk_commit();
  ptx::bulk_wait<0>();
}

void probe_bulk() {
  std::vector<float> values(kFloats);
  for (int i = 0; i < kFloats; ++i) values[i] = static_cast<float>(i - 100);
  const DeviceArray<float> from(values), copied(std::vector<float>(kAdders * kFloats)),
      added(std::vector<float>(kFloats, 1));
  const BulkParams params{from.data(), copied.data(), added.data()};
  probe::require(
      ptx::launch(copy_bulk, dim3(kAdders), dim3(32), 1024 + kFloats * 4 + 8, nullptr, params),
      "bulk");
  const std::vector<float> copies = copied.values("bulk"), sums = added.values("bulk");
  double worst = 0;
  for (int i = 0; i < kAdders * kFloats; ++i)
    worst = probe::larger(worst, std::fabs(copies[i] - 2 * values[i % kFloats]));
  for (int i = 0; i < kFloats; ++i)
    worst = probe::larger(worst, std::fabs(sums[i] - (1 + 2.0 * kAdders * values[i])));
  probe::say(worst, 0);
}

struct VectorParams {
  float* sums;  // [32, 4]
};
__global__ void __launch_bounds__(32) add_vectors(const __grid_constant__ VectorParams p) {
  const float lane = static_cast<float>(ptx::lane_index());
  ptx::red_add_v4(p.sums + 4 * ptx::lane_index(), make_float4(lane, lane + 1, lane + 2, lane + 3));
}

void probe_vector_add() {
  const DeviceArray<float> sums(std::vector<float>(128, 5));
  probe::require(
      ptx::launch(add_vectors, dim3(kAdders), dim3(32), 0, nullptr, VectorParams{sums.data()}),
      "red.v4");
  const std::vector<float> found = sums.values("red.v4");
  double worst = 0;
  for (int i = 0; i < 128; ++i)
    worst = probe::larger(worst, std::fabs(found[i] - (5 + kAdders * (i / 4 + i % 4))));
  probe::say(worst, 0);
}

// ---- registers that move from one warpgroup to others ----

constexpr int kHeld = 200;
struct HeldParams {
  const float* from;  // [kHeld]
  float* sums;        // [256]
};

// More values at once than 168 registers hold: each is read before the first is used.
__global__ void __launch_bounds__(384, 1) hold(const __grid_constant__ HeldParams p) {
  const int group = static_cast<int>(ptx::warp_index()) / 4;
  if (group == 0) {
    ptx::decrease_registers<24>();
    return;
  }
  ptx::increase_registers<240>();
  float values[kHeld], sum = 0;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) values[i] = p.from[i] + static_cast<float>(ptx::thread_index().x);
  ptx::keep(values);
#pragma unroll
  for (int i = 0; i < kHeld; ++i) sum = sum * 0.5f + values[i];
  p.sums[ptx::thread_index().x - 128] = sum;
}

void probe_registers() {
  std::vector<float> values(kHeld);
  for (int i = 0; i < kHeld; ++i) values[i] = std::sin(static_cast<float>(i));
  const DeviceArray<float> from(values), sums(std::vector<float>(256, NAN));
  probe::require(
      ptx::launch(hold, dim3(264), dim3(384), 0, nullptr, HeldParams{from.data(), sums.data()}),
      "setmaxnreg");
  const std::vector<float> found = sums.values("setmaxnreg");
  double worst = 0;
  for (int thread = 0; thread < 256; ++thread) {
    float sum = 0;
    for (int i = 0; i < kHeld; ++i) sum = sum * 0.5f + (values[i] + float(128 + thread));
    worst = probe::larger(worst, std::fabs(found[thread] - sum) / sum);
  }
  probe::say(worst, 1e-6);
}

constexpr First kShared = First::kShared, kTransposed = First::kTransposed,
                kRegisters = First::kRegisters;

const std::vector<probe::Probe> kProbes = {
    {"wgmma bf16", probe_product<Product<64, kShared, false, false>>},
    {"wgmma bf16, b transposed", probe_product<Product<64, kShared, true, false>>},
    {"wgmma bf16, both transposed", probe_product<Product<64, kTransposed, true, false>>},
    {"wgmma bf16, a in registers", probe_product<Product<64, kRegisters, false, false>>},
    {"wgmma bf16, a in registers, b transposed",
     probe_product<Product<64, kRegisters, true, false>>},
    {"wgmma bf16, lines of 64 bytes", probe_product<Product<32, kShared, false, false>>},
    {"wgmma bf16, lines of 64 bytes, both transposed",
     probe_product<Product<32, kTransposed, true, false>>},
    {"wgmma f16", probe_product<Product<64, kShared, false, true>>},
    {"wgmma f16, a in registers, b transposed", probe_product<Product<64, kRegisters, true, true>>},
    {"tensor load and store", probe_tensor_copy},
    {"bulk load, store and reduction", probe_bulk},
    {"red.add.v4", probe_vector_add},
    {"setmaxnreg", probe_registers},
};

}  // namespace

int main(int count, char** arguments) { return probe::run_named(kProbes, count, arguments); }
