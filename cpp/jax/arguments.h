// What XLA hands over, buffers known by name and attributes, as arguments of the C interface.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attnext/attnext.h"
#include "xla/ffi/api/ffi.h"

namespace attnext::jax {

namespace ffi = xla::ffi;

// Every argument of every pass; a pass uses some. Tensors not given stay absent.
struct Arguments {
  attnext_tensor q, k, v, out, lse, dout, dlse, rows, p, row_max, entropy, key_mass;
  attnext_tensor seed;  // (2), int32: the low and the high word
  attnext_options options;
  attnext_gradients gradients;
  int64_t q_offset;  // what options.q_offset points at where it is a single number
};

// What becomes of a tensor when a vmapped axis becomes the batch axis of the problem.
enum class Batching {
  kBatchFirst,   // the first of its axes is the batch
  kPairs,        // broadcastable to (batch, heads, seqlen_q, seqlen_k)
  kPerBatch,     // () or (batch)
  kPerHead,      // (heads) or (batch, heads)
  kNeverBatched  // the C interface has one for all of the batch
};

struct Slot {
  const char* name;
  Batching batching;
  bool has_layout;  // (batch, seqlen, heads, dim) where the layout says so
  attnext_tensor& (*of)(Arguments&);
};

// A tensor of the call and the buffer that it shows: the vmapped axes come first.
struct Operand {
  const Slot* slot;
  attnext_tensor* tensor;  // without the vmapped axes, at the first example
  bool is_result;
  std::vector<int64_t> lengths;  // of the vmapped axes: 1 where all examples share the tensor
  std::vector<int64_t> strides;  // in elements; 0 where they share it
};

struct Call {
  Arguments arguments;
  std::vector<Operand> operands;
};

// `call` stays where it is: its tensors are pointed into. An error names what is wrong.
ffi::Error read_call(ffi::RemainingArgs inputs, ffi::RemainingRets results,
                     ffi::Dictionary attributes, Call& call);

int64_t item_size(int32_t dtype);

}  // namespace attnext::jax
