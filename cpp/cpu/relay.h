// How items that add to the same memory keep one order without waiting for each other's end: each
// says how far along the queries it is, last ones first, and the next follows behind. Sums come out
// in the same order whatever the number of threads.
#pragma once

#include <sched.h>

#include "cpu/schedule.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Query blocks have turns, the last block the first one, the same in all sequences. Progress of an
// item: the blocks of turns before this one have all that it and its predecessors add; of those it
// goes over, that is, once it has finished and shares no bias.
constexpr int64_t kFinished = int64_t{1} << 62;
ATTNEXT_HD int64_t turn_of(int64_t block) { return kFinished / 2 - block; }

ATTNEXT_HD void publish(int64_t* progress, int64_t turn) {
  __atomic_store_n(progress, turn, __ATOMIC_RELEASE);
}

// Never blocks for good: predecessors have lower indices, and claimed items are all running
// (parallel.h).
static void wait_until(const int64_t* progress, int64_t turn) {
  constexpr int kSpins = 2000;
  for (int spin = 0; __atomic_load_n(progress, __ATOMIC_ACQUIRE) < turn; ++spin) {
    if (spin > kSpins) sched_yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

// The items whose sums come before mine: the one before it in its own head (dq), and the one of the
// same keys in the head before it that shares its bias. -1: none.
struct Predecessors {
  int64_t same_head, same_bias;
};

static void wait_for(const Predecessors& before, const int64_t* progress, int64_t turn) {
  if (before.same_head >= 0) wait_until(progress + before.same_head, turn);
  if (before.same_bias >= 0) wait_until(progress + before.same_bias, turn);
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
