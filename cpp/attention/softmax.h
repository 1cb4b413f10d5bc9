// What a row of scores becomes: how states of an online softmax (Milakov, Gimelshein 2018,
// arXiv:1805.02867) join, and what they finish as. Scores are to base 2: score * log2(e). Generic
// over the number type like score.h; `Math` names maximum (the second operand where either is NaN),
// exp2, log and finite_or_zero (0 for -infinity) of V.
#pragma once

#include "attention/portable.h"

namespace attnext {

template <class V>
struct RowResult {
  V factor;  // out = factor * accumulated p v
  V lse;     // natural
};

// What a state relative to `row_max_log2` is multiplied by to be relative to the larger
// `base_log2`: 0 for an empty one, even if the base is empty too.
template <class Math, class V>
ATTNEXT_HD V state_weight(V row_max_log2, V base_log2) {
  return Math::exp2(row_max_log2 - Math::finite_or_zero(base_log2));
}

// `sink_log2`: a logit that joins the denominator only, -infinity for none. A row without keys
// (row_max_log2 = -infinity, row_sum = 0) has the sink, or -infinity, as its lse, and a factor that
// means nothing: see empty_row_factor.
template <class Math, class V, class A>
ATTNEXT_HD RowResult<V> finish_row(V row_max_log2, V row_sum, V sink_log2, A ln2) {
  const V base = Math::maximum(sink_log2, row_max_log2);
  const V mine = state_weight<Math>(row_max_log2, base);
  const V whole = row_sum * mine + state_weight<Math>(sink_log2, base);
  return {mine / whole, Math::finite_or_zero(base) * ln2 + Math::log(whole)};
}

// Asked where row_max_log2 = -infinity. The masks may have left no key: out = 0. Or the scores
// themselves are all -infinity, and their softmax is 0 / 0: only the masks can tell, logits may be
// NaN or -infinity on their own.
template <class A>
ATTNEXT_HD A empty_row_factor(bool has_visible_key) {
  return has_visible_key ? static_cast<A>(__builtin_nan("")) : A(0);
}

}  // namespace attnext
