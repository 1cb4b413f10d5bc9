// Which rows a work item handles: the queries of one (sequence, key head), all heads of the group
// interleaved, so that grouped-query attention reads each key once and decoding fills lanes. Row r
// is query r / group_size, head r % group_size.
#pragma once

#include "cpu/tile/element.h"
#include "cpu/tile/shape.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

struct Group {
  const Problem* problem;
  int64_t sequence, head_kv;
  Mask mask;
  const int64_t* queries;  // the queries looked at, non-decreasing; null: all, in order
  int64_t num_rows;
};

static Group group_of(const Problem& problem, int64_t sequence, int64_t head_kv) {
  const Mask& mask = problem.sequences[sequence].mask;
  return {&problem, sequence, head_kv, mask, nullptr, mask.seqlen_q * problem.group_size};
}

// A 64-bit division a row, several times over, would be the larger part of a small call.
ATTNEXT_HD int64_t query_of(const Group& g, int64_t row) {
  const int64_t index = g.problem->group_size == 1 ? row : row / g.problem->group_size;
  return g.queries ? g.queries[index] : index;
}
ATTNEXT_HD int64_t head_of(const Group& g, int64_t row) {
  return g.problem->group_size == 1
             ? g.head_kv
             : g.head_kv * g.problem->group_size + row % g.problem->group_size;
}
// The queries of rows [begin, end).
ATTNEXT_HD Span queries_of(const Group& g, Span rows) {
  return {query_of(g, rows.begin), query_of(g, rows.end - 1) + 1};
}

// Of q, out, dout, dq (element [query, head, 0]), lse and dlse (element [query, head]) of this
// sequence.
ATTNEXT_HD char* row_pointer(const Group& g, const TensorView& t, int64_t row) {
  const int64_t batch = g.problem->is_packed ? 0 : g.sequence;
  const int64_t position = g.problem->sequences[g.sequence].q_begin + query_of(g, row);
  const int64_t index =
      batch * t.strides[0] + head_of(g, row) * t.strides[1] + position * t.strides[2];
  return static_cast<char*>(t.data) + index * size_of(dtype_of(t));
}

// Of k, v, dk, dv: element [key, head, 0] of this sequence, through the block table where there is
// one.
ATTNEXT_HD char* key_pointer(const Group& g, const TensorView& t, int64_t key) {
  const Problem& p = *g.problem;
  int64_t batch = p.is_packed ? 0 : g.sequence;
  int64_t position = p.sequences[g.sequence].k_begin + key;
  if (p.page_size > 0) {
    const TensorView& table = p.block_table;
    const int64_t entry = g.sequence * table.strides[0] + key / p.page_size * table.strides[1];
    batch = dtype_of(table) == DType::kInt32 ? static_cast<const int32_t*>(table.data)[entry]
                                             : static_cast<const int64_t*>(table.data)[entry];
    position = key % p.page_size;
  }
  const int64_t index = batch * t.strides[0] + g.head_kv * t.strides[1] + position * t.strides[2];
  return static_cast<char*>(t.data) + index * size_of(dtype_of(t));
}

// Of mask and bias, broadcast to [batch, num_heads_q, seqlen_q, seqlen_k]: element [query, 0].
ATTNEXT_HD char* dense_pointer(const Group& g, const TensorView& t, int64_t head, int64_t query) {
  const int64_t index = g.sequence * t.strides[0] + head * t.strides[1] + query * t.strides[2];
  return static_cast<char*>(t.data) + index * size_of(dtype_of(t));
}
ATTNEXT_HD char* dense_pointer(const Group& g, const TensorView& t, int64_t row) {
  return dense_pointer(g, t, head_of(g, row), query_of(g, row));
}

// Asked only where a row's scores are all -infinity: whether the masks did that, which logits
// cannot tell.
template <class A>
static bool has_visible_key(const Group& g, int64_t row) {
  const TensorView &mask = g.problem->mask, &bias = g.problem->bias;
  const char* mask_row = is_present(mask) ? dense_pointer(g, mask, row) : nullptr;
  const char* bias_row = is_present(bias) ? dense_pointer(g, bias, row) : nullptr;
  const Span keys = visible_keys(g.mask, query_of(g, row));
  for (int64_t begin = keys.begin; begin < keys.end; begin += kLanes<A>) {
    const int64_t count = min_of(kLanes<A>, keys.end - begin);
    Vec<A> x{};
    if (bias_row) x = load_elements<A>(bias_row, dtype_of(bias), bias.strides[3], begin, count);
    if (bias_row && count == kLanes<A> && !any<A>(x != splat<A>(A(-__builtin_inf())))) continue;
    for (int64_t i = 0; i < count; ++i) {
      const bool is_masked = mask_row && mask_row[(begin + i) * mask.strides[3]] == 0;
      if (!is_masked && x[i] != A(-__builtin_inf())) return true;
    }
  }
  return false;
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
