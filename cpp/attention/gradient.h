// The backward identities of softmax attention, generic over the number type like score.h.
//
//   p = e^(score - lse);  dp = dout v^T;  delta = dout . out - dlse;  ds = p (m dp - delta),  m the dropout factor
#pragma once

#include "attention/portable.h"

namespace attnext {

// The lse a row's p is relative to, base 2. A row without keys has lse = -infinity: +infinity instead makes its p 0.
ATTNEXT_HD double row_lse_log2(double lse) { return lse == -__builtin_inf() ? __builtin_inf() : lse * kLog2E; }

template <class V>
ATTNEXT_HD V score_gradient(V p, V dropped_dp, V delta) {
  return p * (dropped_dp - delta);
}

// d lse / d sink = e^(sink - lse): the sink's share of the denominator, times what flows back through every out and lse.
ATTNEXT_HD double sink_gradient(double sink_share, double delta) { return -sink_share * delta; }

// x / |x|: the gradient by x of a function of the normalised row, from the gradient by that row, element by element.
template <class V>
ATTNEXT_HD V normalised_gradient(V gradient, V normalised, V projection, V inverse_norm) {
  return (gradient - projection * normalised) * inverse_norm;
}

}  // namespace attnext
