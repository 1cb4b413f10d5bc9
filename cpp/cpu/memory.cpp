// Where the scratch memory of passes comes from: what one leaves is kept for the next. The C
// library may give pages back to the system whenever the end of its heap is free, and once it has
// begun, it does so call after call; each page is then faulted in anew. In a virtual machine on Zen
// 4 that takes 2.5 microseconds a page: 8 % of a backward pass of S512, 2 % of S2048.
#include "cpu/memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <new>

#include "cpu/parallel.h"

namespace attnext::cpu {
namespace {

constexpr std::align_val_t kAlignment{64};

// Less comes from parts of the heap that stay. The address sanitizer is to see where a block ends
// and what is used after its release.
#if defined(__has_feature)
#define ATTNEXT_HAS_FEATURE(name) __has_feature(name)
#else
#define ATTNEXT_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || ATTNEXT_HAS_FEATURE(address_sanitizer)
constexpr int64_t kLeastKept = INT64_MAX;
#else
constexpr int64_t kLeastKept = 32 << 10;
#endif
// So that a block still serves a call that is a little longer than the last one.
constexpr int64_t kGranularity = 64 << 10;
// The C library's heap may hold as much of what was freed: 64 MiB.
constexpr int64_t kMost = 64 << 20, kMostPerThread = 4 << 20;
constexpr int kMostBlocks = 16;

// Large blocks are asked for in huge pages, as NumPy asks for its own: 512 times fewer are faulted
// in.
constexpr int64_t kLeastHuge = 4 << 20;
constexpr std::align_val_t kHugePage{2 << 20};

std::align_val_t alignment_of(int64_t bytes) { return bytes < kLeastHuge ? kAlignment : kHugePage; }

Block fresh(int64_t bytes) {
  void* const data = ::operator new(static_cast<size_t>(bytes), alignment_of(bytes));
#if defined(__linux__)
  if (bytes >= kLeastHuge) madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
  return {data, bytes};
}
void free_block(Block block) { ::operator delete(block.data, alignment_of(block.bytes)); }

// Oldest first.
class Shelf {
 public:
  bool try_lock() { return !is_locked_.test_and_set(std::memory_order_acquire); }
  void unlock() { is_locked_.clear(std::memory_order_release); }

  int64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

  // The smallest that is large enough; no data where there is none.
  Block take(int64_t bytes) {
    const Block* best = nullptr;
    for (const Block* b = blocks_; b < blocks_ + count_; ++b) {
      if (b->bytes >= bytes && (best == nullptr || b->bytes < best->bytes)) best = b;
    }
    return best == nullptr ? Block{} : remove(static_cast<int>(best - blocks_));
  }

  void put(Block block, int64_t most) {
    while (count_ == kMostBlocks || (count_ > 0 && bytes() + block.bytes > most)) {
      free_block(remove(0));
    }
    blocks_[count_++] = block;
    add(block.bytes);
  }

 private:
  Block remove(int index) {
    const Block block = blocks_[index];
    std::copy(blocks_ + index + 1, blocks_ + count_, blocks_ + index);
    --count_;
    add(-block.bytes);
    return block;
  }
  void add(int64_t bytes) { bytes_.fetch_add(bytes, std::memory_order_relaxed); }

  std::atomic_flag is_locked_ = ATOMIC_FLAG_INIT;
  Block blocks_[kMostBlocks] = {};
  int count_ = 0;
  std::atomic<int64_t> bytes_{0};
};
Shelf shelf;  // needs no constructor, and has no destructor: threads may outlive static objects

// Nobody waits for the shelf: who finds it locked does without. So does a child process for good
// that inherits it locked.
template <class F>
bool with_shelf(F&& use) {
  if (!shelf.try_lock()) return false;
  use();
  shelf.unlock();
  return true;
}

}  // namespace

int64_t kept_bytes() { return shelf.bytes(); }

int64_t most_kept_bytes() { return kMost + kMostPerThread * get_num_threads(); }

Block allocate(int64_t bytes) {
  if (bytes < kLeastKept) return fresh(bytes);
  const int64_t rounded = (bytes + kGranularity - 1) / kGranularity * kGranularity;
  Block block{};
  with_shelf([&] { block = shelf.take(rounded); });
  return block.data == nullptr ? fresh(rounded) : block;
}

void release(Block block) {
  const int64_t most = most_kept_bytes();
  if (block.bytes < kLeastKept || block.bytes > most ||
      !with_shelf([&] { shelf.put(block, most); }))
    free_block(block);
}

}  // namespace attnext::cpu
