// Which rows a block handles: the queries of one (sequence, key head), all heads of the group
// interleaved, so that grouped-query attention reads each key once and decoding fills fragments.
// Row r is query r / num_heads, head first_head + r % num_heads.
#pragma once

#include "mma/element.cuh"
#include "ptx/thread.h"

namespace attnext::cuda::mma {

struct Group {
  const Problem* problem;
  int64_t sequence, head_kv;
  int64_t first_head, num_heads;  // query heads: all of the group, or one of it
  Mask mask;
  int64_t q_begin, k_begin;  // of Sequence
  int64_t num_rows;
};

PTX_FN Group group_of(const Problem& problem, int64_t sequence, int64_t head_kv) {
  const Sequence& s = problem.sequences[sequence];
  return {&problem, sequence,  head_kv,   head_kv * problem.group_size,        problem.group_size,
          s.mask,   s.q_begin, s.k_begin, s.mask.seqlen_q * problem.group_size};
}

// The rows of a single query head.
PTX_FN Group head_of_group(const Problem& problem, int64_t sequence, int64_t head) {
  Group g = group_of(problem, sequence, head / problem.group_size);
  g.first_head = head;
  g.num_heads = 1;
  g.num_rows = g.mask.seqlen_q;
  return g;
}

struct Position {
  int64_t query, head;
};

// 32-bit division where it is enough: a 64-bit one takes a hundred instructions.
PTX_FN Position position_of(const Group& g, int64_t row) {
  const int64_t size = g.num_heads;
  if (size == 1) return {row, g.first_head};
  if (row < INT32_MAX && size < INT32_MAX) {
    const uint32_t query = static_cast<uint32_t>(row) / static_cast<uint32_t>(size);
    return {query, g.first_head + static_cast<uint32_t>(row) - query * static_cast<uint32_t>(size)};
  }
  return {row / size, g.first_head + row % size};
}

// The queries of rows [begin, end), not empty.
PTX_FN Span queries_of(const Group& g, Span rows) {
  return {position_of(g, rows.begin).query, position_of(g, rows.end - 1).query + 1};
}

// Element offsets. Of q, out, dout, dq ([query, head, 0]), lse and dlse ([query, head]).
PTX_FN int64_t row_offset(const Group& g, const TensorView& t, Position at) {
  const int64_t batch = g.problem->is_packed ? 0 : g.sequence;
  return batch * t.strides[0] + at.head * t.strides[1] + (g.q_begin + at.query) * t.strides[2];
}

// Of k, v, dk, dv ([key, head, 0]), through the block table where there is one.
PTX_FN int64_t key_offset(const Group& g, const TensorView& t, int64_t key) {
  const Problem& p = *g.problem;
  int64_t batch = p.is_packed ? 0 : g.sequence, position = g.k_begin + key;
  if (p.page_size > 0) {
    const bool is_short = key < INT32_MAX && p.page_size < INT32_MAX;
    const int64_t entry = is_short ? static_cast<uint32_t>(key) / static_cast<uint32_t>(p.page_size)
                                   : key / p.page_size;
    const int64_t at = g.sequence * p.block_table.strides[0] + entry * p.block_table.strides[1];
    batch = dtype_of(p.block_table) == DType::kInt32
                ? ptx::ld_global(static_cast<const int32_t*>(p.block_table.data) + at)
                : ptx::ld_global(static_cast<const int64_t*>(p.block_table.data) + at);
    position = key - entry * p.page_size;
  }
  return batch * t.strides[0] + g.head_kv * t.strides[1] + position * t.strides[2];
}

// Of mask and bias, broadcast to [batch, num_heads_q, seqlen_q, seqlen_k]: [query, 0].
PTX_FN int64_t dense_offset(const Group& g, const TensorView& t, Position at) {
  return g.sequence * t.strides[0] + at.head * t.strides[1] + at.query * t.strides[2];
}

// Rows beyond a sequence's q_lengths, and keys beyond its kv_lengths, exist in memory only.
PTX_FN int64_t rows_in_memory(const Group& g) {
  return g.problem->is_packed ? g.num_rows : g.problem->seqlen_q * g.problem->group_size;
}

PTX_FN int64_t keys_in_memory(const Group& g) {
  return g.problem->is_packed ? g.mask.seqlen_k : g.problem->seqlen_k;
}

// Numbers per query row lie in workspace in the order of common/rows.cuh: the rows of a group
// together.
PTX_FN int64_t workspace_row(const Group& g, Position at) {
  const Problem& p = *g.problem;
  const int64_t queries_before = p.is_packed ? g.q_begin : g.sequence * p.seqlen_q;
  const int64_t head = at.head - g.head_kv * p.group_size;
  return queries_before * p.num_heads_q + g.head_kv * p.group_size * g.mask.seqlen_q +
         at.query * p.group_size + head;
}

// What a block works on, from its place in the grid: items vary fastest, so that neighbours share
// keys.
struct Place {
  int64_t sequence, head_kv, index;
};

PTX_FN Place place_of(const Problem& p, int64_t items) {
  const int64_t block =
      static_cast<int64_t>(ptx::block_index().y) * ptx::grid_size().x + ptx::block_index().x;
  const int64_t head = block / items;
  return {head / p.num_heads_kv, head % p.num_heads_kv, block % items};
}

}  // namespace attnext::cuda::mma
