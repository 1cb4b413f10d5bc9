// Which rows a block handles: the queries of one (sequence, key head), the heads of the group
// interleaved, so that grouped-query attention reads each key once and decoding fills tiles. Row r
// is query r / num_heads, head first_head + r % num_heads.
#pragma once

#include "common/element.cuh"
#include "ptx/thread.h"

namespace attnext::cuda {

struct Group {
  int64_t sequence, head_kv;
  int64_t first_head, num_heads;  // query heads: all of the group, or one of it
  int64_t q_begin, k_begin;
  Mask mask;
  const int64_t* queries;  // the queries looked at, non-decreasing; null: all, in order
  int64_t num_rows;
};

PTX_FN Group group_of(const Problem& p, int64_t sequence, int64_t head_kv) {
  const Sequence& s = p.sequences[sequence];
  return {sequence, head_kv, head_kv * p.group_size,        p.group_size, s.q_begin, s.k_begin,
          s.mask,   nullptr, s.mask.seqlen_q * p.group_size};
}

// The rows of a single query head of a group.
PTX_FN Group head_of_group(Group g, int64_t head) {
  g.first_head = head;
  g.num_heads = 1;
  g.num_rows = g.mask.seqlen_q;
  return g;
}
PTX_FN Group head_of_group(const Problem& p, int64_t sequence, int64_t head) {
  return head_of_group(group_of(p, sequence, head / p.group_size), head);
}

struct Position {
  int64_t query, head;
};

PTX_FN int64_t chosen_query(const Group& g, int64_t index) {
  return g.queries ? g.queries[index] : index;
}

// 32-bit division where it is enough: a 64-bit one takes a hundred instructions.
PTX_FN Position position_of(const Group& g, int64_t row) {
  const int64_t size = g.num_heads;
  if (size == 1) return {chosen_query(g, row), g.first_head};
  if (row < INT32_MAX && size < INT32_MAX) {
    const uint32_t query = static_cast<uint32_t>(row) / static_cast<uint32_t>(size);
    return {chosen_query(g, query),
            g.first_head + static_cast<uint32_t>(row) - query * static_cast<uint32_t>(size)};
  }
  return {chosen_query(g, row / size), g.first_head + row % size};
}
PTX_FN int64_t query_of(const Group& g, int64_t row) { return position_of(g, row).query; }
PTX_FN int64_t head_of(const Group& g, int64_t row) { return position_of(g, row).head; }
// The queries of rows [begin, end), not empty.
PTX_FN Span queries_of(const Group& g, Span rows) {
  return {query_of(g, rows.begin), query_of(g, rows.end - 1) + 1};
}

PTX_FN char* element_pointer(const TensorView& t, int64_t index) {
  return static_cast<char*>(t.data) + index * size_of(dtype_of(t));
}

// Offsets count elements. Of q, out, dout, dq ([query, head, 0]), lse and dlse ([query, head]).
PTX_FN int64_t row_offset(const Problem& p, const Group& g, const TensorView& t, Position at) {
  const int64_t batch = p.is_packed ? 0 : g.sequence;
  return batch * t.strides[0] + at.head * t.strides[1] + (g.q_begin + at.query) * t.strides[2];
}
PTX_FN char* row_pointer(const Problem& p, const Group& g, const TensorView& t, int64_t row) {
  return element_pointer(t, row_offset(p, g, t, position_of(g, row)));
}

PTX_FN int64_t page_of(const TensorView& table, int64_t entry) {
  return dtype_of(table) == DType::kInt32 ? static_cast<const int32_t*>(table.data)[entry]
                                          : static_cast<const int64_t*>(table.data)[entry];
}

// Of k, v, dk, dv ([key, head, 0]), through the block table where there is one.
PTX_FN int64_t key_offset(const Problem& p, const Group& g, const TensorView& t, int64_t key) {
  int64_t batch = p.is_packed ? 0 : g.sequence, position = g.k_begin + key;
  if (p.page_size > 0) {
    const bool is_short = key < INT32_MAX && p.page_size < INT32_MAX;
    const int64_t entry = is_short ? static_cast<uint32_t>(key) / static_cast<uint32_t>(p.page_size)
                                   : key / p.page_size;
    const TensorView& table = p.block_table;
    batch = page_of(table, g.sequence * table.strides[0] + entry * table.strides[1]);
    position = key - entry * p.page_size;
  }
  return batch * t.strides[0] + g.head_kv * t.strides[1] + position * t.strides[2];
}
PTX_FN char* key_pointer(const Problem& p, const Group& g, const TensorView& t, int64_t key) {
  return element_pointer(t, key_offset(p, g, t, key));
}

// Of mask and bias, broadcast to [batch, num_heads_q, seqlen_q, seqlen_k]: [query, 0].
PTX_FN int64_t dense_offset(const Group& g, const TensorView& t, Position at) {
  return g.sequence * t.strides[0] + at.head * t.strides[1] + at.query * t.strides[2];
}
PTX_FN char* dense_pointer(const Group& g, const TensorView& t, Position at) {
  return element_pointer(t, dense_offset(g, t, at));
}

// Rows beyond a sequence's q_lengths, and keys beyond its kv_lengths, exist in memory only.
PTX_FN int64_t rows_in_memory(const Problem& p, const Group& g) {
  return p.is_packed ? g.num_rows : p.seqlen_q * g.num_heads;
}
PTX_FN int64_t keys_in_memory(const Problem& p, const Group& g) {
  return p.is_packed ? g.mask.seqlen_k : p.seqlen_k;
}

// Rows of a tensor like lse lie together in workspace, group by group: where those of this one
// begin.
PTX_FN int64_t row_base(const Problem& p, const Group& g) {
  const int64_t queries_before = p.is_packed ? g.q_begin : g.sequence * p.seqlen_q;
  return queries_before * p.num_heads_q + g.head_kv * p.group_size * g.mask.seqlen_q;
}
// A row's place there: by query and head, also where a block has chosen queries or one head.
PTX_FN int64_t workspace_row(const Problem& p, const Group& g, Position at) {
  return row_base(p, g) + at.query * p.group_size + at.head - g.head_kv * p.group_size;
}
// Likewise keys: [sequence, head_kv, key].
PTX_FN int64_t key_base(const Problem& p, const Group& g) {
  const int64_t keys_before = p.is_packed ? g.k_begin : g.sequence * p.seqlen_k;
  return keys_before * p.num_heads_kv + g.head_kv * g.mask.seqlen_k;
}

// Asked only where a row's scores are all -infinity: whether the masks did that, which logits
// cannot tell. Looks at every `step`th key, from the `first` on.
PTX_FN bool has_visible_key(const Problem& p, const Group& g, Position at, int64_t first,
                            int64_t step) {
  const Span keys = visible_keys(g.mask, at.query);
  const char* mask = is_present(p.mask) ? dense_pointer(g, p.mask, at) : nullptr;
  const char* bias = is_present(p.bias) ? dense_pointer(g, p.bias, at) : nullptr;
  const DType bias_dtype = dtype_of(p.bias);
  for (int64_t key = keys.begin + first; key < keys.end; key += step) {
    const bool is_masked = mask && mask[key * p.mask.strides[3]] == 0;
    const bool is_biased_away =
        bias && read_element<double>(bias + key * p.bias.strides[3] * size_of(bias_dtype),
                                     bias_dtype) == negative_infinity<double>();
    if (!is_masked && !is_biased_away) return true;
  }
  return false;
}

// Blocks are counted in 64 bits, over the two axes of a grid.
PTX_FN int64_t block_number() {
  return int64_t{ptx::block_index().y} * ptx::grid_size().x + ptx::block_index().x;
}

// What number `number` of a grid works on, `items` of them for each (sequence, key head): they vary
// fastest, so that neighbours share keys.
struct Place {
  int64_t sequence, head_kv, index;
};
PTX_FN Place place_of(const Problem& p, int64_t number, int64_t items) {
  const int64_t head = number / items;
  return {head / p.num_heads_kv, head % p.num_heads_kv, number % items};
}

}  // namespace attnext::cuda
