// What scratch memory is made of: one block for all workers of a pass, carved into aligned pieces.
#pragma once

#include "attention/params.h"
#include "cpu/memory.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Memory that is released when the pass is left, by an exception too.
class Memory {
 public:
  explicit Memory(int64_t bytes) : block_(allocate(bytes)) {}
  ~Memory() { release(block_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  char* data() const { return static_cast<char*>(block_.data); }

 private:
  Block block_;
};

// Hands out aligned pieces. Started from null it only counts: the same carving code says how much
// it needs.
struct Arena {
  char* base;
  int64_t used;
};

template <class T>
static T* take(Arena* arena, int64_t count) {
  constexpr int64_t kAlignment = 64;
  char* piece = arena->base + arena->used;
  arena->used += round_up(count * static_cast<int64_t>(sizeof(T)), kAlignment);
  return reinterpret_cast<T*>(piece);
}

// Scratch memory of all workers of a pass, carved for each on demand.
template <class Scratch, Scratch (*kCarve)(const Problem&, Arena*)>
class Scratches {
 public:
  Scratches(const Problem& problem, int workers)
      : problem_(problem), bytes_(bytes_of(problem)), memory_(bytes_ * workers) {}
  Scratch operator[](int worker) const {
    Arena arena{memory_.data() + worker * bytes_, 0};
    return kCarve(problem_, &arena);
  }

 private:
  static int64_t bytes_of(const Problem& problem) {
    Arena counter{nullptr, 0};
    kCarve(problem, &counter);
    return counter.used;
  }

  const Problem& problem_;
  int64_t bytes_;
  Memory memory_;
};

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
