// What a row of scores becomes: the running state of an online softmax (Milakov, Gimelshein 2018, arXiv:1805.02867), how
// states join, and what a row with no visible key yields. Scores are to base 2: score * log2(e).
#pragma once

#include <math.h>

#include "attention/portable.h"

namespace attnext {

template <class A>
struct RowResult {
  A factor;  // out = factor * accumulated p v
  A lse;     // natural
};

// `has_key`: whether the masks left the row a key; logits cannot tell, they may be NaN or -infinity themselves.
// `sink`: a natural logit that joins the denominator only, null for none.
template <class A>
ATTNEXT_HD RowResult<A> finish_row(A row_max_log2, A row_sum, bool has_key, const double* sink) {
  const double none = -static_cast<double>(INFINITY);
  if (!has_key) return {A(0), static_cast<A>(sink ? *sink : none)};
  if (row_max_log2 == static_cast<A>(none)) return {static_cast<A>(NAN), static_cast<A>(NAN)};  // 0 / 0
  const double row_max = static_cast<double>(row_max_log2) * kLn2;
  const double lse = row_max + log(static_cast<double>(row_sum));
  if (!sink) return {A(1) / row_sum, static_cast<A>(lse)};
  const double larger = *sink > lse ? *sink : lse, smaller = *sink > lse ? lse : *sink;
  const double joined = larger + log1p(exp(smaller - larger));
  return {static_cast<A>(exp(lse - joined) / row_sum), static_cast<A>(joined)};
}

// What a state relative to `row_max_log2` is multiplied by to be relative to a larger `joined_max_log2`; 0 for an empty one.
template <class A>
ATTNEXT_HD A state_weight(A row_max_log2, A joined_max_log2) {
  if (row_max_log2 == -static_cast<A>(INFINITY)) return A(0);
  return static_cast<A>(exp2(static_cast<double>(row_max_log2) - static_cast<double>(joined_max_log2)));
}

}  // namespace attnext
