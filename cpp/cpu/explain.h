// What forward would do with a problem, in words and numbers: JSON fields for attnext_explain.
#pragma once

#include <stdio.h>

#include "cpu/forward.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

template <class A, class Term>
static int run_explain(const Problem& p, char* text, int capacity) {
  int64_t items = 0, splits = 1;
  for (int64_t i = 0; i < p.batch; ++i) {
    const ForwardCut cut = cut_forward<A>(p, i);
    items += p.num_heads_kv * cut.blocks * cut.splits;
    splits = max_of(splits, cut.splits);
  }
  const char* product = Term::kHasWeight    ? "additive"
                        : Term::kIsBilinear ? "dot"
                                            : "squared difference";
  const bool in_place = is_readable_in_place<A>(p, p.k, p.head_dim) && p.score != Score::kCosine;
  return snprintf(
      text, static_cast<size_t>(capacity),
      "\"accumulator\": \"%s\", \"lanes\": %d, \"tile_q\": %d, \"tile_k\": %d, \"product\": "
      "\"%s\", "
      "\"keys\": \"%s\", \"items\": %lld, \"key_splits\": %lld",
      sizeof(A) == 4 ? "float32" : "float64", kLanes<A>, kTileQ<A>, kTileK, product,
      in_place ? "read in place" : "copied tile by tile (converted, strided, paged or normalised)",
      static_cast<long long>(items), static_cast<long long>(splits));
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
