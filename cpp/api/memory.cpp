// Host memory for results, from where passes have theirs.
#include "cpu/memory.h"

#include <atomic>
#include <cstring>

#include "api/guard.h"

namespace {

// In front of the memory: what to give back.
constexpr size_t kHeader = 64;
static_assert(sizeof(attnext::cpu::Block) <= kHeader);

// Large blocks begin at multiples of a huge page. Arrays of one shape would then meet in the same
// sets of the caches, row by row, so that each begins some lines after the last one.
constexpr size_t kStep = 17 * 64, kNumSteps = 16;
std::atomic<size_t> num_allocated{0};

}  // namespace

attnext_status attnext_host_allocate(size_t bytes, void** memory) {
  return attnext::api::guarded("host_allocate", [&] {
    attnext::require(memory != nullptr, "memory must be given, found a null pointer");
    const size_t begin = kHeader + num_allocated.fetch_add(1) % kNumSteps * kStep;
    if (bytes > static_cast<size_t>(INT64_MAX) - 2 * begin) throw std::bad_alloc();
    const auto block = attnext::cpu::allocate(static_cast<int64_t>(bytes + begin));
    *memory = static_cast<char*>(block.data) + begin;
    std::memcpy(static_cast<char*>(*memory) - kHeader, &block, sizeof(block));
  });
}

void attnext_host_free(void* memory) {
  if (memory == nullptr) return;
  attnext::cpu::Block block{};
  std::memcpy(&block, static_cast<char*>(memory) - kHeader, sizeof(block));
  attnext::cpu::release(block);
}
