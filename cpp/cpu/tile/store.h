// How a finished query block leaves: weights normalised, transposed back to rows, converted, and
// their lse.
#pragma once

#include "cpu/tile/softmax.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Turns a panel's state into what its accumulated o is multiplied by, and its lse.
template <class A>
static void finish_rows(const Group& g, const Panel<A>& panel, const RowState<A>& state,
                        int64_t head_dim_v, A* o_t, A* factor, A* lse) {
  const int lanes = lanes_of(panel);
  const double* sinks = g.problem->sinks;
  alignas(kVectorBytes) A sink[kPanelLanes<A>];
  for (int lane = 0; lane < lanes; ++lane)
    sink[lane] = static_cast<A>(sinks ? sinks[panel.head[lane]] * kLog2E : -__builtin_inf());
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const auto result = finish_row<VectorMath<A>>(
        load<A>(state.base + lane), load<A>(state.row_sum + lane), load<A>(sink + lane), A(kLn2));
    const Vec<A> rounded_sum = load<A>(state.rounded_sum + lane);
    store<A>(factor + lane,
             select<A>(rounded_sum == Vec<A>{}, result.factor,
                       result.factor * (load<A>(state.row_sum + lane) / rounded_sum)));
    store<A>(lse + lane, result.lse);
  }
  for (int lane = 0; lane < lanes; ++lane) {
    if (state.base[lane] != A(-__builtin_inf())) continue;
    const bool has_key = has_visible_key<A>(g, min_of(panel.rows.begin + lane, panel.rows.end - 1));
    factor[lane] = empty_row_factor<A>(has_key);
    if (has_key) lse[lane] = factor[lane];
    // 0 * infinity of a masked value must not reach a row that has no keys.
    for (int64_t d = 0; d < head_dim_v; ++d) o_t[d * lanes + lane] = A(0);
  }
}

template <class A>
static void store_panel(const Group& g, const Panel<A>& panel, const RowState<A>& state,
                        const ForwardParams& params, A* o_t) {
  alignas(kVectorBytes) A factor[kPanelLanes<A>], lse[kPanelLanes<A>];
  finish_rows<A>(g, panel, state, params.problem.head_dim_v, o_t, factor, lse);
  store_transposed<A>(panel, o_t, factor, params.problem.head_dim_v, params.out,
                      [&](int64_t row) { return row_pointer(g, params.out, row); });
  if (!is_present(params.lse)) return;
  for (int64_t row = panel.rows.begin; row < panel.rows.end; ++row)
    write_element<A>(row_pointer(g, params.lse, row), dtype_of(params.lse),
                     lse[row - panel.rows.begin]);
}

// Zeros for all `count` elements of a row: in every type they are zero bytes.
static void clear_row(char* row, const TensorView& t, int64_t count) {
  const int64_t size = size_of(dtype_of(t)), step = t.strides[3] * size;
  if (t.strides[3] == 1) {
    std::memset(row, 0, static_cast<size_t>(count * size));
    return;
  }
  for (int64_t i = 0; i < count; ++i) std::memset(row + i * step, 0, static_cast<size_t>(size));
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
