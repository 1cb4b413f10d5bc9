// Are faults of loads, stores and barriers found, and right kernels left alone?
#include "check.h"
#include "ptx/async_copy.h"
#include "ptx/launch.h"
#include "ptx/memory.h"
#include "ptx/thread.h"

namespace {

namespace ptx = attnext::ptx;
using emulator_test::DeviceArray;
using emulator_test::outcome;

constexpr int kThreads = 96;

enum Fault {
  kNone,
  kNoBarrier,
  kNoBarrierBeforeReuse,
  kHalfWrites,
  kBeyondShared,
  kMisaligned,
  kBeyondGlobal,
  kHostPointer,
  kPlainBeyondGlobal,
  kSomeSkipBarrier,
  kTwoBarriers,
  kSomeExit,
  kStackOverflow,
  kWritesTwice,
  kNoWarpSync,
  kRightWarpSync,
  kCopyUnwaited,
  kCopyNotShared,
  kCopyForgotten,
  kCopyTooFewGroups,
  kCopyBeyond,
  kCopyMisaligned,
};

struct Params {
  const float* in;  // [threads of the grid]
  float* out;       // likewise
};

template <Fault kFault>
void store_inputs(const Params& p, uint32_t row, uint32_t t, uint32_t global) {
  const uint32_t slot = row + 4 * t;
  if constexpr (kFault == kHalfWrites) {
    if (t % 2 == 0) ptx::st_shared(slot, ptx::ld_global(p.in + global));
  } else if constexpr (kFault == kMisaligned) {
    ptx::st_shared(slot + 2, ptx::ld_global(p.in + global));
  } else if constexpr (kFault == kBeyondShared) {
    ptx::st_shared(slot + 4, ptx::ld_global(p.in + global));
  } else if constexpr (kFault == kHostPointer) {
    float local = 0;
    ptx::st_shared(slot, ptx::ld_global(&local));
  } else if constexpr (kFault == kWritesTwice) {
    ptx::st_shared(row + 4 * (t / 2), ptx::ld_global(p.in + global));
  } else {
    ptx::st_shared(slot, ptx::ld_global(p.in + global));
  }
}

template <Fault kFault>
float overflow_stack(int depth) {
  volatile float local[4096];
  local[depth % 4096] = 1;
  return depth == 0 ? local[0] : overflow_stack<kFault>(depth - 1) + local[depth % 4096];
}

// out = in with the elements of each block reversed, twice through shared memory.
template <Fault kFault>
__global__ void reverse(const __grid_constant__ Params p) {
  const uint32_t t = ptx::thread_index().x, row = ptx::dyn_smem();
  const uint32_t global = ptx::block_index().x * kThreads + t;
  if constexpr (kFault == kSomeExit) {
    if (t >= 64) return;
  }
  if constexpr (kFault == kStackOverflow) overflow_stack<kFault>(40);
  store_inputs<kFault>(p, row, t, global);
  if constexpr (kFault == kSomeSkipBarrier) {
    if (t < 32) ptx::block_sync();
  } else if constexpr (kFault == kTwoBarriers) {
    if (t % 2 == 0) {
      ptx::block_sync();
    } else {
      ptx::block_sync();
    }
  } else if constexpr (kFault != kNoBarrier) {
    ptx::block_sync();
  }
  float value = ptx::ld_shared<float>(row + 4 * (kThreads - 1 - t));
  if constexpr (kFault != kNoBarrierBeforeReuse) ptx::block_sync();
  ptx::st_shared(row + 4 * t, value);
  ptx::block_sync();
  value = ptx::ld_shared<float>(row + 4 * t);
  if constexpr (kFault == kBeyondGlobal) {
    ptx::st_global(p.out + global + kThreads, value);
  } else if constexpr (kFault == kPlainBeyondGlobal) {
    p.out[global + 100000] = value;
  } else {
    ptx::st_global(p.out + global, value);
  }
}

// Within a warp, lane l hands its value to lane l ^ 1 through shared memory.
template <Fault kFault>
__global__ void swap_neighbours(const __grid_constant__ Params p) {
  const uint32_t t = ptx::thread_index().x, row = ptx::dyn_smem();
  const uint32_t global = ptx::block_index().x * kThreads + t;
  ptx::st_shared(row + 4 * t, ptx::ld_global(p.in + global));
  if constexpr (kFault != kNoWarpSync) ptx::warp_sync();
  ptx::st_global(p.out + global, ptx::ld_shared<float>(row + 4 * (t ^ 1)));
}

// The same reversal, with cp.async in two groups.
template <Fault kFault>
__global__ void reverse_copies(const __grid_constant__ Params p) {
  const uint32_t t = ptx::thread_index().x, row = ptx::dyn_smem();
  const uint32_t global = ptx::block_index().x * kThreads + t;
  const uint32_t first = row + (kFault == kCopyMisaligned ? 2 : 0) + 4 * t;
  ptx::cp_async<4>(first, p.in + global + (kFault == kCopyBeyond ? 1000 : 0), 4);
  ptx::cp_async_commit();
  ptx::cp_async<4>(row + 4 * (kThreads + t), p.in + global, t % 2 == 0 ? 4 : 0);
  ptx::cp_async_commit();
  if constexpr (kFault == kCopyTooFewGroups) {
    ptx::cp_async_wait<1>();
  } else if constexpr (kFault != kCopyUnwaited && kFault != kCopyForgotten) {
    ptx::cp_async_wait<0>();
  }
  if constexpr (kFault != kCopyNotShared) ptx::block_sync();
  float value = 0;
  if constexpr (kFault != kCopyForgotten) {
    value = ptx::ld_shared<float>(row + 4 * (kThreads - 1 - t)) +
            ptx::ld_shared<float>(row + 4 * (2 * kThreads - 1 - t));
  }
  ptx::st_global(p.out + global, value);
}

std::vector<float> inputs(int blocks) {
  std::vector<float> values(blocks * kThreads);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return values;
}

// Runs the kernel over five blocks and compares with `expected(block, thread)`.
template <class Expected>
std::string run(void (*kernel)(Params), int words, Expected expected) {
  constexpr int kBlocks = 5;
  const DeviceArray<float> in(inputs(kBlocks)), out(kBlocks * kThreads);
  const std::string failure =
      outcome(ptx::launch(kernel, kBlocks, kThreads, 4 * words, nullptr, {in.data(), out.data()}));
  if (!failure.empty()) return failure;
  const std::vector<float> found = out.values();
  for (int i = 0; i < kBlocks * kThreads; ++i) {
    if (found[i] != expected(i / kThreads, i % kThreads)) return "WRONG RESULT";
  }
  return {};
}

template <Fault kFault>
std::string run_reverse() {
  return run(reverse<kFault>, kThreads,
             [](int block, int t) { return static_cast<float>((block + 1) * kThreads - 1 - t); });
}
template <Fault kFault>
std::string run_swap() {
  return run(swap_neighbours<kFault>, kThreads,
             [](int block, int t) { return static_cast<float>(block * kThreads + (t ^ 1)); });
}
template <Fault kFault>
std::string run_copies() {
  return run(reverse_copies<kFault>, 2 * kThreads, [](int block, int t) {
    const int source = kThreads - 1 - t;
    return static_cast<float>((block * kThreads + source) * (source % 2 == 0 ? 2 : 1));
  });
}

}  // namespace

int main() {
  return emulator_test::run_table({
      {"reverse", run_reverse<kNone>, ""},
      {"no barrier", run_reverse<kNoBarrier>, "RACE: ld_shared reads|UNINITIALISED"},
      {"no barrier before reuse", run_reverse<kNoBarrierBeforeReuse>,
       "RACE: st_shared overwrites|RACE: ld_shared reads"},
      {"half of the slots written", run_reverse<kHalfWrites>, "UNINITIALISED: ld_shared"},
      {"beyond shared memory", run_reverse<kBeyondShared>, "OUT OF BOUNDS: st_shared of 4 bytes"},
      {"misaligned store", run_reverse<kMisaligned>, "MISALIGNED: st_shared"},
      {"beyond global memory", run_reverse<kBeyondGlobal>, "OUT OF BOUNDS: st_global of 4 bytes"},
      {"a pointer of the host", run_reverse<kHostPointer>, "no memory of the device"},
      {"plain store beyond", run_reverse<kPlainBeyondGlobal>, "MEMORY FAULT: a plain access"},
      {"some skip a barrier", run_reverse<kSomeSkipBarrier>, "RACE: ld_shared|UNINITIALISED"},
      {"two barriers in a warp", run_reverse<kTwoBarriers>, "DIVERGENT WARP: lanes of warp"},
      {"some exit before a barrier", run_reverse<kSomeExit>, "DEADLOCK"},
      {"stack overflow", run_reverse<kStackOverflow>, "STACK OVERFLOW"},
      {"two threads write one slot", run_reverse<kWritesTwice>, "RACE: st_shared overwrites"},
      {"swap within a warp", run_swap<kRightWarpSync>, ""},
      {"no warp_sync", run_swap<kNoWarpSync>, "RACE: ld_shared|UNINITIALISED"},
      {"copies", run_copies<kNone>, ""},
      {"copies not waited for", run_copies<kCopyUnwaited>, "a cp.async not waited for|RACE"},
      {"copies not shared", run_copies<kCopyNotShared>, "RACE: ld_shared|UNINITIALISED"},
      {"copies forgotten", run_copies<kCopyForgotten>, "UNFINISHED: a thread exits with 2"},
      {"one group too few", run_copies<kCopyTooFewGroups>, "a cp.async not waited for"},
      {"copies beyond global memory", run_copies<kCopyBeyond>, "OUT OF BOUNDS: cp.async"},
      {"misaligned copies", run_copies<kCopyMisaligned>, "MISALIGNED: cp.async"},
  });
}
