// Are shuffles, votes and named barriers what they are on a device, and are their misuses found?
#include "check.h"
#include "ptx/launch.h"
#include "ptx/memory.h"
#include "ptx/thread.h"

namespace {

namespace ptx = attnext::ptx;
using emulator_test::DeviceArray;
using emulator_test::outcome;

constexpr int kThreads = 64;

enum Fault {
  kNone,
  kHalfShuffles,
  kOneLaneLess,
  kOtherOperation,
  kOtherLine,
  kNoArrival,
  kOtherCount,
  kOddCount,
  kBadId,
  kArrivesTwice,
  kMissingStep,
  kOneLaneAsks,
};

struct Params {
  const float* in;  // [64]
  float* out;       // [64]
};

// out[t] = the sum of the warp's inputs, by a butterfly; votes must agree with it.
template <Fault kFault>
__global__ void sum_warps(const __grid_constant__ Params p) {
  const uint32_t t = ptx::thread_index().x, lane = ptx::lane_index();
  float sum = ptx::ld_global(p.in + t);
  for (uint32_t mask = kFault == kMissingStep ? 8 : 16; mask > 0; mask /= 2) {
    if constexpr (kFault == kHalfShuffles) {
      if (lane < 16) sum += ptx::shuffle_xor(sum, mask);
    } else if constexpr (kFault == kOneLaneLess) {
      if (lane != 5) sum += ptx::shuffle_xor(sum, mask);
    } else if constexpr (kFault == kOtherOperation) {
      sum += lane == 3 ? ptx::shuffle_down(sum, mask) : ptx::shuffle_xor(sum, mask);
    } else if constexpr (kFault == kOtherLine) {
      if (lane < 8) {
        sum += ptx::shuffle_xor(sum, mask);
      } else {
        sum += ptx::shuffle_xor(sum, mask);
      }
    } else {
      sum += ptx::shuffle_xor(sum, mask);
    }
  }
  const bool votes_agree = ptx::ballot(lane % 2 == 0) == 0x55555555u && ptx::warp_any(lane == 7) &&
                           !ptx::warp_all(lane == 7) && ptx::shuffle(lane, 9) == 9 &&
                           ptx::shuffle_up(lane, 1) == (lane == 0 ? 0 : lane - 1) &&
                           ptx::shuffle_down(lane, 2) == (lane < 30 ? lane + 2 : lane);
  ptx::st_global(p.out + t, votes_agree ? sum : -1.0f);
}

// A lane of each warp writes one number for it, which the other warp reads.
template <Fault kFault>
__global__ void exchange_numbers(const __grid_constant__ Params p) {
  const uint32_t t = ptx::thread_index().x, lane = ptx::lane_index();
  const float x = ptx::ld_global(p.in + t);
  if constexpr (kFault == kOneLaneAsks) {
    if (lane == 0) ptx::st_shared(ptx::dyn_smem() + 4 * ptx::warp_index(), x);
  } else {
    const uint32_t warp = ptx::warp_index();
    if (lane == 0) ptx::st_shared(ptx::dyn_smem() + 4 * warp, x);
  }
  ptx::block_sync();
  ptx::st_global(p.out + t, ptx::ld_shared<float>(ptx::dyn_smem() + 4 * (1 - t / 32)));
}

// Warp 0 writes, warp 1 reads, twice, over barriers 1 (full) and 2 (empty).
template <Fault kFault>
__global__ void hand_over(const __grid_constant__ Params p) {
  const uint32_t t = ptx::thread_index().x, lane = ptx::lane_index();
  const uint32_t slot = ptx::dyn_smem() + 4 * lane;
  constexpr int kFull = kFault == kBadId ? 16 : 1, kEmpty = 2;
  constexpr int kCount = kFault == kOddCount ? 48 : kThreads;
  if (t < 32) {
    for (int round = 0; round < 2; ++round) {
      if (kFault != kMissingStep && round > 0) ptx::barrier_sync(kEmpty, kThreads);
      ptx::st_shared(slot, ptx::ld_global(p.in + 32 * round + lane));
      if constexpr (kFault != kNoArrival) ptx::barrier_arrive(kFull, kCount);
      if constexpr (kFault == kArrivesTwice) ptx::barrier_arrive(kFull, kCount);
    }
  } else {
    for (int round = 0; round < 2; ++round) {
      ptx::barrier_sync(kFull, kFault == kOtherCount ? 32 : kCount);
      ptx::st_global(p.out + 32 * round + lane,
                     ptx::ld_shared<float>(ptx::dyn_smem() + 4 * (31 - lane)));
      if (round == 0) ptx::barrier_arrive(kEmpty, kThreads);
    }
  }
}

template <class Expected>
std::string run(void (*kernel)(Params), Expected expected) {
  std::vector<float> values(kThreads);
  for (int i = 0; i < kThreads; ++i) values[i] = static_cast<float>(i);
  const DeviceArray<float> in(values), out(kThreads);
  const std::string failure =
      outcome(ptx::launch(kernel, 1, kThreads, 256, nullptr, {in.data(), out.data()}));
  if (!failure.empty()) return failure;
  const std::vector<float> found = out.values();
  for (int t = 0; t < kThreads; ++t) {
    if (found[t] != expected(t)) return "WRONG RESULT";
  }
  return {};
}

template <Fault kFault>
std::string run_sum() {
  return run(sum_warps<kFault>, [](int t) { return t < 32 ? 496.0f : 1520.0f; });
}
template <Fault kFault>
std::string run_exchange() {
  return run(exchange_numbers<kFault>, [](int t) { return t < 32 ? 32.0f : 0.0f; });
}
template <Fault kFault>
std::string run_hand_over() {
  return run(hand_over<kFault>,
             [](int t) { return static_cast<float>(t / 32 * 32 + 31 - t % 32); });
}

}  // namespace

int main() {
  return emulator_test::run_table({
      {"butterfly", run_sum<kNone>, ""},
      {"half of the lanes shuffle", run_sum<kHalfShuffles>, "DIVERGENT WARP"},
      {"a lane less shuffles", run_sum<kOneLaneLess>, "DIVERGENT WARP"},
      {"another shuffle", run_sum<kOtherOperation>, "DIVERGENT WARP: shuffle"},
      {"another line", run_sum<kOtherLine>, "DIVERGENT WARP: shuffle_xor here"},
      {"a step less", run_sum<kMissingStep>, "WRONG RESULT"},
      {"a number for each warp", run_exchange<kNone>, ""},
      {"one lane asks for its warp", run_exchange<kOneLaneAsks>,
       "DIVERGENT WARP: block_sync here|DIVERGENT WARP: warp_index here"},
      {"hand over", run_hand_over<kNone>, ""},
      {"no arrival", run_hand_over<kNoArrival>, "wait for barrier_sync of barrier 1"},
      {"another count", run_hand_over<kOtherCount>, "is used for|RACE: ld_shared"},
      {"an odd count", run_hand_over<kOddCount>, "barrier 1 for 48 of 64"},
      {"no such barrier", run_hand_over<kBadId>, "there is no named barrier 16"},
      {"arrives twice", run_hand_over<kArrivesTwice>, "arrives twice at barrier 1|RACE"},
      {"no wait for empty", run_hand_over<kMissingStep>, "RACE|arrives twice"},
  });
}
