// Which rows a block handles: the queries of one (sequence, key head), the heads of the group
// interleaved, so that grouped-query attention reads each key once and decoding fills tiles. Row r
// is query r / num_heads, head first_head + r % num_heads.
#pragma once

#include "common/element.cuh"

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

// The rows of a single query head.
PTX_FN Group head_of_group(const Problem& p, int64_t sequence, int64_t head) {
  Group g = group_of(p, sequence, head / p.group_size);
  g.first_head = head;
  g.num_heads = 1;
  g.num_rows = g.mask.seqlen_q;
  return g;
}

// A 64-bit division a row is worth avoiding.
PTX_FN int64_t query_of(const Group& g, int64_t row) {
  const int64_t index = g.num_heads == 1 ? row : row / g.num_heads;
  return g.queries ? g.queries[index] : index;
}
PTX_FN int64_t head_of(const Group& g, int64_t row) {
  return g.first_head + (g.num_heads == 1 ? 0 : row % g.num_heads);
}
// The queries of rows [begin, end).
PTX_FN Span queries_of(const Group& g, Span rows) {
  return {query_of(g, rows.begin), query_of(g, rows.end - 1) + 1};
}

PTX_FN char* element_pointer(const TensorView& t, int64_t index) {
  return static_cast<char*>(t.data) + index * size_of(dtype_of(t));
}

// Of q, out, dout, dq (element [query, head, 0]), lse and dlse (element [query, head]).
PTX_FN char* row_pointer(const Problem& p, const Group& g, const TensorView& t, int64_t row) {
  const int64_t batch = p.is_packed ? 0 : g.sequence, position = g.q_begin + query_of(g, row);
  return element_pointer(
      t, batch * t.strides[0] + head_of(g, row) * t.strides[1] + position * t.strides[2]);
}

PTX_FN int64_t page_of(const TensorView& table, int64_t entry) {
  return dtype_of(table) == DType::kInt32 ? static_cast<const int32_t*>(table.data)[entry]
                                          : static_cast<const int64_t*>(table.data)[entry];
}

// Of k, v, dk, dv: element [key, head, 0], through the block table where there is one.
PTX_FN char* key_pointer(const Problem& p, const Group& g, const TensorView& t, int64_t key) {
  int64_t batch = p.is_packed ? 0 : g.sequence, position = g.k_begin + key;
  if (p.page_size > 0) {
    const TensorView& table = p.block_table;
    batch = page_of(table, g.sequence * table.strides[0] + key / p.page_size * table.strides[1]);
    position = key % p.page_size;
  }
  return element_pointer(t,
                         batch * t.strides[0] + g.head_kv * t.strides[1] + position * t.strides[2]);
}

// Of mask and bias, broadcast to [batch, num_heads_q, seqlen_q, seqlen_k]: element [query, 0].
PTX_FN char* dense_pointer(const Group& g, const TensorView& t, int64_t row) {
  return element_pointer(t, g.sequence * t.strides[0] + head_of(g, row) * t.strides[1] +
                                query_of(g, row) * t.strides[2]);
}

// Rows of a tensor like lse lie together in workspace, group by group: where those of this one
// begin.
PTX_FN int64_t row_base(const Problem& p, const Group& g) {
  const int64_t queries_before = p.is_packed ? g.q_begin : g.sequence * p.seqlen_q;
  return queries_before * p.num_heads_q + g.head_kv * p.group_size * g.mask.seqlen_q;
}
// A row's place there: by query and head, also where a block has chosen queries or one head.
PTX_FN int64_t workspace_row(const Problem& p, const Group& g, int64_t row) {
  return row_base(p, g) + query_of(g, row) * p.group_size + head_of(g, row) -
         g.head_kv * p.group_size;
}
// Likewise keys: [sequence, head_kv, key].
PTX_FN int64_t key_base(const Problem& p, const Group& g) {
  const int64_t keys_before = p.is_packed ? g.k_begin : g.sequence * p.seqlen_k;
  return keys_before * p.num_heads_kv + g.head_kv * g.mask.seqlen_k;
}

// Asked only where a row's scores are all -infinity: whether the masks did that, which logits
// cannot tell.
PTX_FN bool has_visible_key(const Problem& p, const Group& g, int64_t row) {
  const Span keys = visible_keys(g.mask, query_of(g, row));
  const char* mask = is_present(p.mask) ? dense_pointer(g, p.mask, row) : nullptr;
  const char* bias = is_present(p.bias) ? dense_pointer(g, p.bias, row) : nullptr;
  const DType bias_dtype = dtype_of(p.bias);
  for (int64_t key = keys.begin; key < keys.end; ++key) {
    const bool is_masked = mask && mask[key * p.mask.strides[3]] == 0;
    const bool is_biased_away =
        bias && read_element<double>(bias + key * p.bias.strides[3] * size_of(bias_dtype),
                                     bias_dtype) == negative_infinity<double>();
    if (!is_masked && !is_biased_away) return true;
  }
  return false;
}

}  // namespace attnext::cuda
