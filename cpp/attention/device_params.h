// What the passes that are no attention pass are asked to do on a device: plain data like params.h.
#pragma once

#include "attention/params.h"

namespace attnext {

// Partial results over disjoint keys: see attnext_merge.
struct MergeParams {
  const TensorView* outs;  // [count], each [batch, num_heads_q, seqlen_q, head_dim_v]
  const TensorView* lses;  // [count], each [batch, num_heads_q, seqlen_q]
  int64_t count;
  TensorView out, lse;  // lse may be absent
};

// Which pairs dropout keeps: keep[row * shape[3] + key], row counting (batch, head, query).
struct KeepMaskParams {
  int64_t shape[4];  // [batch, num_heads_q, seqlen_q, seqlen_k]
  double probability;
  uint64_t seed;
  uint32_t stream;
  uint8_t* keep;
};

}  // namespace attnext
