// The backward identities of softmax attention, generic over the number type like score.h.
//
//   p = e^(score - lse);  dp = dout v^T;  delta = dout . out - dlse;  ds = p (m dp - delta),  m the
//   dropout factor
#pragma once

#include "attention/portable.h"

namespace attnext {

// The lse a row's p is relative to, base 2. A row without keys has lse = -infinity: +infinity
// instead makes its p 0.
ATTNEXT_HD double row_lse_log2(double lse) {
  return lse == -__builtin_inf() ? __builtin_inf() : lse * kLog2E;
}

template <class V>
ATTNEXT_HD V score_gradient(V p, V dropped_dp, V delta) {
  return p * (dropped_dp - delta);
}

// What the sums over a row's keys say that p, rebuilt from a stored lse and out, says only to their
// rounding. Kept in float64.
struct RowBalance {
  double sink_share;  // of the denominator, 0 without a sink
  double mass;        // the keys' share: the two add up to 1
  double out_dot;     // dout . out, before out was rounded
  double delta;
  double excess;  // the delta that was used, less this one
};

// `mass` = sum p, `ds` = sum ds, found with `used_delta`; sink_share = e^(sink - lse). A rounded
// lse scales every p of a row and its sink alike, so that dividing by what they add up to undoes
// it: a sum over many rows of ds times something far from 0 would show it.
ATTNEXT_HD RowBalance balance_row(double mass, double ds, double used_delta, double dlse,
                                  double sink_share) {
  const double whole = mass + sink_share;
  if (whole == 0) return {0, 0, 0, -dlse, used_delta + dlse};
  const double out_dot = (ds + used_delta * mass) / whole;
  return {sink_share / whole, mass / whole, out_dot, out_dot - dlse, used_delta - (out_dot - dlse)};
}

// sum over keys of ds x, from the sum with the delta that was used and the sum of p x.
ATTNEXT_HD double balanced_sum(const RowBalance& row, double ds_x, double p_x) {
  return ds_x + row.excess * p_x;
}

// x = 1: what a bias shared by all keys of a row gets. Without a sink only dlse remains.
ATTNEXT_HD double bias_row_gradient(const RowBalance& row, double dlse) {
  return row.sink_share * row.out_dot + row.mass * dlse;
}

// d lse / d sink = sink_share, times what flows back through every out and lse.
ATTNEXT_HD double sink_gradient(const RowBalance& row) { return -row.sink_share * row.delta; }

// x / |x|: the gradient by x of a function of the normalised row, from the gradient by that row,
// element by element.
template <class V>
ATTNEXT_HD V normalised_gradient(V gradient, V normalised, V projection, V inverse_norm) {
  return (gradient - projection * normalised) * inverse_norm;
}

}  // namespace attnext
