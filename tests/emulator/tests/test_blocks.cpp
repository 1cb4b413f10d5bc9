// Do blocks run together where they wait for each other, and is waiting for ever found?
#include "check.h"
#include "ptx/launch.h"
#include "ptx/memory.h"
#include "ptx/thread.h"

namespace {

namespace ptx = attnext::ptx;
using emulator_test::DeviceArray;
using emulator_test::outcome;

constexpr int kBlocks = 6, kThreads = 32;

enum Fault { kNone, kNoRelease, kNoWait };

struct Params {
  uint32_t* turn;  // [1]
  uint32_t* sum;   // [1]
};

// Blocks multiply-and-add in the order of their index: any other order gives another sum.
template <Fault kFault>
__global__ void relay(const __grid_constant__ Params p) {
  const uint32_t block = ptx::block_index().x;
  if (ptx::thread_index().x == 0 && kFault != kNoWait) {
    while (ptx::ld_acquire(p.turn) != block) {
    }
  }
  ptx::block_sync();
  if (ptx::thread_index().x == 0) {
    const uint32_t before = ptx::ld_global(p.sum);
    ptx::atomic_add(p.turn + 0, 0);
    ptx::st_global(p.sum, 3 * before + block);
    if (kFault != kNoRelease || block != 2) ptx::st_release(p.turn, block + 1);
  }
}

template <Fault kFault>
std::string run_relay() {
  const DeviceArray<uint32_t> turn(std::vector<uint32_t>{0}), sum(std::vector<uint32_t>{1});
  const std::string failure =
      outcome(ptx::launch(relay<kFault>, kBlocks, kThreads, 0, nullptr, {turn.data(), sum.data()}));
  if (!failure.empty()) return failure;
  uint32_t expected = 1;
  for (uint32_t block = 0; block < kBlocks; ++block) expected = 3 * expected + block;
  return sum.values()[0] == expected ? "" : "WRONG RESULT";
}

// Some order must differ from the index's, else blocks are not resident together.
std::string run_until_wrong() {
  for (int seed = 1; seed <= 20; ++seed) {
    setenv("ATTNEXT_EMULATOR_SEED", std::to_string(seed).c_str(), 1);
    if (!run_relay<kNoWait>().empty()) return "another order";
  }
  return {};
}

}  // namespace

int main() {
  return emulator_test::run_table(
             {
                 {"relay", run_relay<kNone>, ""},
                 {"no wait", run_until_wrong, "another order"},
             },
             20) +
         emulator_test::run_table({{"no release", run_relay<kNoRelease>, "NO PROGRESS"}}, 1);
}
