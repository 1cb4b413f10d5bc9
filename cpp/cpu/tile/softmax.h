// The online softmax over the panels of a query block: scores in, weights out, the running sums
// kept right.
#pragma once

#include "attention/softmax.h"
#include "cpu/tile/panel.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// One panel's rows so far, to base 2: weights and their sums are 2^(score - base). A base need not
// be the maximum: it only has to keep sums within the range of the type, and a row that has none
// yet (-infinity) begins with 0.
template <class A>
struct RowState {
  alignas(kVectorBytes) A base[kPanelLanes<A>];
  alignas(kVectorBytes) A row_sum[kPanelLanes<A>];
  // Of the weights that met the values, where those are rounded ones (paired terms, no dropout);
  // else 0. Rounding all weights of a row the same way must not scale its out.
  alignas(kVectorBytes) A rounded_sum[kPanelLanes<A>];
};

template <class A>
static void reset(RowState<A>* state) {
  for (int i = 0; i < kPanelLanes<A>; ++i) {
    state->base[i] = A(-__builtin_inf());
    state->row_sum[i] = state->rounded_sum[i] = A(0);
  }
}

// Four chains: one would wait out the latency of every maximum.
template <class A>
ATTNEXT_HD Vec<A> column_maximum(const A* s, int64_t stride, int64_t num_keys, Vec<A> start) {
  Vec<A> chains[4] = {start, start, start, start};
  int64_t key = 0;
  for (; key + 4 <= num_keys; key += 4)
    ATTNEXT_UNROLL for (int i = 0; i < 4; ++i) chains[i] =
        maximum<A>(chains[i], load<A>(s + (key + i) * stride));
  for (; key < num_keys; ++key) chains[0] = maximum<A>(chains[0], load<A>(s + key * stride));
  return maximum<A>(maximum<A>(chains[0], chains[1]), maximum<A>(chains[2], chains[3]));
}

// The lanes from `lane` on get a new base: their sum and o are rescaled to it.
template <class A>
static void change_base(int lanes, int lane, Vec<A> base, int64_t head_dim_v, A* o_t,
                        RowState<A>* state) {
  const Vec<A> rescale = state_weight<VectorMath<A>>(load<A>(state->base + lane), base);
  store<A>(state->base + lane, base);
  if (!any<A>(rescale != splat<A>(A(1)))) return;
  store<A>(state->row_sum + lane, load<A>(state->row_sum + lane) * rescale);
  store<A>(state->rounded_sum + lane, load<A>(state->rounded_sum + lane) * rescale);
  for (int64_t d = 0; d < head_dim_v; ++d)
    store<A>(o_t + d * lanes + lane, load<A>(o_t + d * lanes + lane) * rescale);
}

// s <- p = 2^(s - base) of the lanes from `lane` on, one key after another; returns the sums of p.
// While every score is masked the weights are 2^(-infinity - 0) = 0, not 2^(-infinity + infinity).
template <class A>
ATTNEXT_HD Vec<A> soften_lanes(int lanes, int lane, int64_t num_keys, Vec<A> base, A* s) {
  base = VectorMath<A>::finite_or_zero(base);
  Vec<A> sum{};
  for (int64_t key = 0; key < num_keys; ++key) {
    const Vec<A> p = exp2<A>(load<A>(s + key * lanes + lane) - base);
    store<A>(s + key * lanes + lane, p);
    sum += p;
  }
  return sum;
}

// The same of a whole panel, the base raised to the maximum before and the sums kept.
template <class A>
static void soften(int vectors, int64_t num_keys, int64_t head_dim_v, A* s, A* o_t,
                   RowState<A>* state) {
  const int lanes = vectors * kLanes<A>;
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const Vec<A> row_max =
        column_maximum<A>(s + lane, lanes, num_keys, load<A>(state->base + lane));
    change_base<A>(lanes, lane, row_max, head_dim_v, o_t, state);
    add_to<A>(state->row_sum + lane, soften_lanes<A>(lanes, lane, num_keys, row_max, s));
  }
}

// Joins `other`, of later keys, into `state`; both accumulated o likewise.
template <class A>
static void join_states(int lanes, int64_t head_dim_v, const RowState<A>& other, const A* other_o,
                        RowState<A>* state, A* o_t) {
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const Vec<A> my_base = load<A>(state->base + lane), their_base = load<A>(other.base + lane);
    const Vec<A> joined = maximum<A>(my_base, their_base);
    const Vec<A> mine = state_weight<VectorMath<A>>(my_base, joined);
    const Vec<A> theirs = state_weight<VectorMath<A>>(their_base, joined);
    store<A>(state->base + lane, joined);
    store<A>(state->row_sum + lane,
             load<A>(state->row_sum + lane) * mine + load<A>(other.row_sum + lane) * theirs);
    store<A>(state->rounded_sum + lane, load<A>(state->rounded_sum + lane) * mine +
                                            load<A>(other.rounded_sum + lane) * theirs);
    for (int64_t d = 0; d < head_dim_v; ++d) {
      const int64_t i = d * lanes + lane;
      store<A>(o_t + i, load<A>(o_t + i) * mine + load<A>(other_o + i) * theirs);
    }
  }
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
