// How work runs on the threads of an OpenMP runtime that the process has anyway.
#include "cpu/openmp.h"

#include <pthread.h>

#include "cpu/call.h"

namespace attnext::cpu {
namespace {

thread_local OpenMpRegion shared_region = nullptr;

void forget_region() { shared_region = nullptr; }
[[maybe_unused]] const int region_fork_handler = pthread_atfork(nullptr, nullptr, forget_region);

void run_member(void* argument) {
  Call& call = *static_cast<Call*>(argument);
  const int slot = call.next_slot.fetch_add(1, std::memory_order_relaxed);
  if (slot < call.num_slots) run_items(call, slot);
}

}  // namespace

void share_openmp(OpenMpRegion region) { shared_region = region; }

bool shares_openmp() { return shared_region != nullptr; }

bool run_on_openmp(int64_t num_items, int workers, Job job, void* context) {
  if (shared_region == nullptr) return false;
  Call call(job, context, num_items, workers);
  call.next_slot = 0;  // the caller is one of the team
  // The whole team, also where fewer workers are worthwhile: threads that a smaller one does not
  // need would end, and the next region start them again.
  shared_region(run_member, &call, 0, 0);
  return true;
}

}  // namespace attnext::cpu
