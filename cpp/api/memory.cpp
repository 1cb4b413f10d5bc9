// Host memory for results, from where passes have theirs.
#include "cpu/memory.h"

#include <cstring>

#include "api/guard.h"

namespace {

// In front of the memory, as wide as its alignment: what to give back.
constexpr size_t kHeader = 64;
static_assert(sizeof(attnext::cpu::Block) <= kHeader);

}  // namespace

attnext_status attnext_host_allocate(size_t bytes, void** memory) {
  return attnext::api::guarded("host_allocate", [&] {
    attnext::require(memory != nullptr, "memory must be given, found a null pointer");
    if (bytes > static_cast<size_t>(INT64_MAX) - 2 * kHeader) throw std::bad_alloc();
    const auto block = attnext::cpu::allocate(static_cast<int64_t>(bytes + kHeader));
    std::memcpy(block.data, &block, sizeof(block));
    *memory = static_cast<char*>(block.data) + kHeader;
  });
}

void attnext_host_free(void* memory) {
  if (memory == nullptr) return;
  attnext::cpu::Block block{};
  std::memcpy(&block, static_cast<char*>(memory) - kHeader, sizeof(block));
  attnext::cpu::release(block);
}
