// The online softmax over the panels of a query block: scores in, weights out, the running sums
// kept right.
#pragma once

#include "attention/softmax.h"
#include "cpu/tile/panel.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// One panel's rows so far. Scores to base 2; sums are relative to row_max.
template <class A>
struct RowState {
  alignas(kVectorBytes) A row_max[kPanelLanes<A>];
  alignas(kVectorBytes) A row_sum[kPanelLanes<A>];
};

template <class A>
static void reset(RowState<A>* state) {
  for (int i = 0; i < kPanelLanes<A>; ++i) {
    state->row_max[i] = A(-__builtin_inf());
    state->row_sum[i] = A(0);
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

// Makes `row_max` the maximum of the lanes from `lane` on: their sum and o are rescaled to it.
template <class A>
static void raise_maximum(int lanes, int lane, Vec<A> row_max, int64_t head_dim_v, A* o_t,
                          RowState<A>* state) {
  const Vec<A> rescale = state_weight<VectorMath<A>>(load<A>(state->row_max + lane), row_max);
  store<A>(state->row_max + lane, row_max);
  if (!any<A>(rescale != splat<A>(A(1)))) return;
  store<A>(state->row_sum + lane, load<A>(state->row_sum + lane) * rescale);
  for (int64_t d = 0; d < head_dim_v; ++d)
    store<A>(o_t + d * lanes + lane, load<A>(o_t + d * lanes + lane) * rescale);
}

// s <- p = 2^(s - row_max), the maximum raised before and the sums after.
template <class A>
static void soften(int vectors, int64_t num_keys, int64_t head_dim_v, A* s, A* o_t,
                   RowState<A>* state) {
  const int lanes = vectors * kLanes<A>;
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const Vec<A> row_max =
        column_maximum<A>(s + lane, lanes, num_keys, load<A>(state->row_max + lane));
    raise_maximum<A>(lanes, lane, row_max, head_dim_v, o_t, state);
    // While every score is masked the weights are 2^(-infinity - 0) = 0, not
    // 2^(-infinity + infinity).
    const Vec<A> base = VectorMath<A>::finite_or_zero(row_max);
    Vec<A> sum{};
    for (int64_t key = 0; key < num_keys; ++key) {
      const Vec<A> p = exp2<A>(load<A>(s + key * lanes + lane) - base);
      store<A>(s + key * lanes + lane, p);
      sum += p;
    }
    add_to<A>(state->row_sum + lane, sum);
  }
}

// Joins `other`, of later keys, into `state`; both accumulated o likewise.
template <class A>
static void join_states(int lanes, int64_t head_dim_v, const RowState<A>& other, const A* other_o,
                        RowState<A>* state, A* o_t) {
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const Vec<A> my_max = load<A>(state->row_max + lane), their_max = load<A>(other.row_max + lane);
    const Vec<A> joined = maximum<A>(my_max, their_max);
    const Vec<A> mine = state_weight<VectorMath<A>>(my_max, joined);
    const Vec<A> theirs = state_weight<VectorMath<A>>(their_max, joined);
    store<A>(state->row_max + lane, joined);
    store<A>(state->row_sum + lane,
             load<A>(state->row_sum + lane) * mine + load<A>(other.row_sum + lane) * theirs);
    for (int64_t d = 0; d < head_dim_v; ++d) {
      const int64_t i = d * lanes + lane;
      store<A>(o_t + i, load<A>(o_t + i) * mine + load<A>(other_o + i) * theirs);
    }
  }
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
