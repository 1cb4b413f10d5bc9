// What a score is: the terms of q and k, and the modifiers after them, each value beside its
// derivative. Generic over the number type: a float of a CUDA thread and a vector of SIMD lanes
// read the same lines. `Math` names tanh, its slope and sqrt of V.
//
// score = scale * finish(sum_d term(q_d, k_d));  softcap;  + bias;  + alibi;  then the mask
// (semantics: "order").
#pragma once

#include "attention/params.h"

namespace attnext {

// Dot and, on rows divided by their norm, cosine.
struct DotTerm {
  static constexpr bool kHasWeight = false, kIsBilinear = true;
  static constexpr int kSumBlock = 64;  // terms of either sign
  template <class Math, class V>
  ATTNEXT_HD V add(V sum, V q, V k, V) {
    return sum + q * k;
  }
  template <class V>
  ATTNEXT_HD V slope_q(V, V k) {
    return k;
  }
  template <class V>
  ATTNEXT_HD V slope_k(V q, V) {
    return q;
  }
};

// -|q - k|^2 from the differences themselves: 2q.k - |q|^2 - |k|^2 would cancel where q and k are
// close.
struct SquareTerm {
  static constexpr bool kHasWeight = false, kIsBilinear = false;
  static constexpr int kSumBlock = 32;  // terms of one sign: the sum outgrows them quickly
  template <class Math, class V>
  ATTNEXT_HD V add(V sum, V q, V k, V) {
    return add_difference(sum, q - k);
  }
  // Both slopes are the difference, by k this many times, by q less so many.
  static constexpr int kSlopeFactor = 2;
  template <class V>
  ATTNEXT_HD V add_difference(V sum, V difference) {
    return sum - difference * difference;
  }
  template <class V>
  ATTNEXT_HD V slope_q(V q, V k) {
    return (k - q) + (k - q);
  }
  template <class V>
  ATTNEXT_HD V slope_k(V q, V k) {
    return (q - k) + (q - k);
  }
};

// weight . tanh(q + k), Bahdanau, Cho, Bengio 2015 (arXiv:1409.0473); a bias has joined q before.
struct AdditiveTerm {
  static constexpr bool kHasWeight = true, kIsBilinear = false;
  static constexpr int kSumBlock = 32;
  template <class Math, class V>
  ATTNEXT_HD V add(V sum, V q, V k, V weight) {
    return sum + weight * Math::tanh(q + k);
  }
  // By q and by k; by the weight it is tanh(q + k) itself.
  template <class V>
  ATTNEXT_HD V slope(V tanh_slope, V weight) {
    return weight * tanh_slope;
  }
};

// neg_l2 = -sqrt(|q - k|^2) of a sum that holds -|q - k|^2.
template <class Math, class V>
ATTNEXT_HD V finish_neg_l2(V sum) {
  return -Math::sqrt(-sum);
}
// By the sum: 1 / (2 |q - k|), and 0 where q = k: there is no derivative, 0 is a subgradient.
template <class V>
ATTNEXT_HD V finish_neg_l2_slope(V finished) {
  return finished < V{} ? V{} - 1 / (finished + finished) : V{};
}

// Far beyond any score a cap changes no bit of it, and score / cap would be below the normal range.
template <class A>
ATTNEXT_HD A effective_cap(double cap) {
  const double largest = sizeof(A) == 4 ? 1e18 : 1e30;
  return static_cast<A>(cap < largest ? cap : largest);
}

template <class Math, class V, class A>
ATTNEXT_HD V softcap(V score, A cap) {
  return Math::tanh(score * (1 / cap)) * cap;
}
// 1 - tanh^2, taken of the score before the mask writes -infinity, and not from the tanh: 1 - t t
// would cancel where the cap bites.
template <class Math, class V, class A>
ATTNEXT_HD V softcap_slope(V score, A cap) {
  return Math::tanh_slope(score * (1 / cap));
}

// ALiBi, Press, Smith, Lewis 2022 (arXiv:2108.12409), |.| form: also for keys right of the
// diagonal.
template <class V>
ATTNEXT_HD V alibi_distance(V query_position, V key_position) {
  const V difference = query_position - key_position;
  return difference < V{} ? V{} - difference : difference;
}

}  // namespace attnext
