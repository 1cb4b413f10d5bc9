// Where the scratch memory of passes comes from.
#pragma once

#include <cstdint>

namespace attnext::cpu {

struct Block {
  void* data;
  int64_t bytes;
};

// At least so many bytes, 64-byte aligned; throws std::bad_alloc. Not in the per-ISA objects, which
// must stay free of library templates.
Block allocate(int64_t bytes);
void release(Block block);

// How much lies ready for the next passes, and how much may.
int64_t kept_bytes();
int64_t most_kept_bytes();

}  // namespace attnext::cpu
