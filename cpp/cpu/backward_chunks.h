// Which keys an item of backward owns, which blocks of query rows it goes over, and which items
// come before it.
#pragma once

#include "cpu/relay.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Whether a causal rule or a window makes some keys more work than others.
ATTNEXT_HD bool has_rule(const Problem& p) {
  return p.batch > 0 && p.sequences[0].mask.right < kOpen;
}

// How long a sequence's chunks are.
static int64_t chunk_keys_of(const BackwardParams& params, int64_t seqlen_k) {
  const Problem& p = params.problem;
  const int64_t sum_bytes = dtype_of(p.q) == DType::kFloat64 ? 8 : 4;
  return chunk_keys(seqlen_k * p.num_heads_kv, max_of(p.head_dim, p.head_dim_v) * sum_bytes,
                    has_rule(p));
}
static int64_t num_chunks(const BackwardParams& params, int64_t seqlen_k) {
  return max_of(1, divide_up(seqlen_k, chunk_keys_of(params, seqlen_k)));
}

// The keys of a sequence's chunk.
static Span chunk_of(const BackwardParams& params, int64_t seqlen_k, int64_t index) {
  const int64_t length = chunk_keys_of(params, seqlen_k), begin = index * length;
  return {begin, min_of(begin + length, seqlen_k)};
}

// The blocks of query rows that see a chunk. Those of the next chunk begin and end no earlier
// (visible_queries), so that the chunks a block sees follow each other.
template <class A>
static Span blocks_seeing(const BackwardParams& params, const Group& g, int64_t index) {
  const Span chunk = chunk_of(params, g.mask.seqlen_k, index);
  const Span queries = chunk.begin < chunk.end ? visible_queries(g.mask, chunk) : Span{0, 0};
  const int64_t rows_of_query = g.problem->group_size;
  return {queries.begin * rows_of_query / kTileQ<A>,
          divide_up(queries.end * rows_of_query, kTileQ<A>)};
}

// An item's part in the sums of a block's rows: the first one finds nothing there, the last one
// leaves them whole.
struct Part {
  bool is_first, is_last;
};

template <class A>
static Part part_of(const BackwardParams& params, const Group& g, int64_t index, int64_t block) {
  const auto goes_over = [&](int64_t other) {
    const Span blocks = blocks_seeing<A>(params, g, other);
    return block >= blocks.begin && block < blocks.end;
  };
  return {index == 0 || !goes_over(index - 1),
          index + 1 == num_chunks(params, g.mask.seqlen_k) || !goes_over(index + 1)};
}

// The item before `place` in the order of a shared bias gradient: in the nearest head or sequence
// before that its bias is shared with and that has the first of `keys`, the item of the last of
// them, or its last item. Those of its head with earlier keys are further along (relay.h), so that
// sequences may cut their keys at different places. The last item of a head also answers for keys
// that this sequence lacks: its `keys` have no end.
static int64_t bias_predecessor(const BackwardParams& params, const Schedule& items,
                                const Place& place, Span keys) {
  const Problem& p = params.problem;
  const TensorView& dbias = params.dbias;
  const bool shares_heads = dbias.shape[1] == 1, shares_batch = dbias.shape[0] == 1;
  int64_t sequence = place.sequence, head = place.head_kv;
  while (true) {
    if (shares_heads && head > 0) {
      --head;
    } else if (shares_batch && sequence > 0) {
      --sequence;
      if (shares_heads) head = p.num_heads_kv - 1;
    } else {
      return -1;
    }
    const int64_t seqlen = max_of(p.sequences[sequence].mask.seqlen_k, 1);
    if (keys.begin >= seqlen) continue;
    const int64_t last = min_of(keys.end, seqlen) - 1;
    return item_at(items, {sequence, head, last / chunk_keys_of(params, seqlen)});
  }
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
