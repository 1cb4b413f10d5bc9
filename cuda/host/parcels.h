// How small arrays of the host reach the device while nothing waits and the host's memory changes.
#pragma once

#include "kernels.h"

namespace attnext::cuda {

// `bytes` from `source`, which may change when this returns, to `target` on the device, in stream
// order. Both are multiples of 16 bytes.
void send_small(const char* source, int64_t bytes, char* target, Launch& launch);

}  // namespace attnext::cuda
