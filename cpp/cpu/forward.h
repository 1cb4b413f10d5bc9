// Forward: tiled attention with an online softmax (Dao et al. 2022, arXiv:2205.14135) in the
// transposed formulation, lanes are queries. Few rows over many keys (decoding) are split over keys
// at fixed positions and joined in order.
#pragma once

#include "cpu/forward_plan.h"
#include "cpu/forward_tile.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

template <class A, class Term>
static RowBlock<Operand<Term, A>> load_key_operands(const Group& g, Span keys,
                                                    ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  if constexpr (kIsPaired<Term>) {
    return load_row_pairs(g, p.k, p.head_dim, keys, operands<Term>(w.k));
  } else {
    return load_keys<A>(g, keys, Padding::kNone, w.k);
  }
}

template <class A, class Term>
static RowBlock<Operand<Term, A>> load_value_operands(const Group& g, Span keys,
                                                      ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  if constexpr (kIsPaired<Term>) {
    return load_interleaved_rows(g, p.v, p.head_dim_v, keys, operands<Term>(w.v));
  } else {
    return load_values<A>(g, keys, Padding::kNone, w.v);
  }
}

// A block of few rows attends `keys`, which `rows(tensor, row elements, keys, buffer)` finds.
template <class A, class E, class F>
static void attend_few(const Group& g, Span keys, ForwardScratch<A>& w, F&& rows) {
  const Problem& p = *g.problem;
  const Panel<A>& panel = w.block->panels[0];
  const Span range = reachable_tiles(g, *w.block, keys);
  for (int64_t begin = range.begin; begin < range.end; begin += kFewTileK) {
    const KeyTile tile = key_tile(g, panel, {begin, min_of(begin + kFewTileK, range.end)});
    if (tile.kind == TileKind::kSkip) continue;
    const RowBlock<E> k = rows(p.k, tile.keys), v = rows(p.v, tile.keys);
    const int64_t num_keys = tile.keys.end - tile.keys.begin;
    const bool has_next = tile.keys.end + num_keys <= range.end;  // and where: rows are in place
    attend_tile_few<A, E>(g, tile, k, v,
                          has_next ? RowBlock<E>{k.data + num_keys * k.stride, k.stride} : k, w);
  }
}

// The same, by how the rows are stored.
template <class A>
static void attend_few(const Group& g, Span keys, ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const bool is_contiguous = p.k.strides[3] == 1 && p.v.strides[3] == 1 && p.page_size == 0 &&
                             p.head_dim % kLanes<A> == 0 && p.head_dim_v % kLanes<A> == 0;
  const auto in_place = [&](auto zero) {
    using E = decltype(zero);
    attend_few<A, E>(g, keys, w, [&](const TensorView& t, Span tile) {
      return RowBlock<E>{reinterpret_cast<const E*>(key_pointer(g, t, tile.begin)), t.strides[2]};
    });
  };
  if (is_contiguous && p.score != Score::kCosine) {
    if (dtype_of(p.k) == kAccumulatorDType<A>) return in_place(A{});
    if constexpr (sizeof(A) == 4) {
      if (dtype_of(p.k) == DType::kBFloat16) return in_place(BFloat16{});
      if (dtype_of(p.k) == DType::kFloat16) return in_place(Float16{});
    }
  }
  attend_few<A, A>(g, keys, w, [&](const TensorView& t, Span tile) {
    const bool is_key = &t == &p.k;
    return is_key ? load_keys<A>(g, tile, Padding::kZeros, w.k)
                  : load_values<A>(g, tile, Padding::kZeros, w.v);
  });
}

// The tile of `range` that a block looks at first; then those before it, backwards, then those
// after it. ALiBi makes scores grow towards the diagonal: from far away, each tile would outgrow
// the base that the one before it gave (needs_base), and the weights of most are 0 beside those
// near by.
template <class A>
static int64_t first_tile(const Group& g, const QueryBlock<A>& block, Span range) {
  if (!g.problem->alibi_slopes || range.begin >= range.end) return 0;
  const int64_t last_query = block.panels[block.num_panels - 1].queries.end - 1;
  return (clamp_to(last_query + g.mask.diagonal, range.begin, range.end - 1) - range.begin) /
         kTileK;
}

// The block's rows attend `keys`.
template <class A, class Term>
static void attend(const Group& g, Span keys, ForwardScratch<A>& w) {
  if (w.few_rows) return attend_few<A>(g, keys, w);
  const Problem& p = *g.problem;
  const QueryBlock<A>& block = *w.block;
  const Span range = reachable_tiles(g, block, keys);
  const int64_t first = first_tile(g, block, range);
  for (int64_t n = 0; n < divide_up(range.end - range.begin, kTileK); ++n) {
    const int64_t begin = range.begin + (n <= first ? first - n : n) * kTileK;
    const Span tile_keys = {begin, min_of(begin + kTileK, range.end)};
    const Span next = {tile_keys.end, min_of(tile_keys.end + kTileK, range.end)};
    const bool has_next = next.begin < next.end;
    // In half the time there is: panels on a diagonal have less to do.
    const int64_t times = block.num_panels * (tile_keys.end - begin) / (2 * kScoreKeys);
    w.ahead[0] = spread(has_next ? keys_ahead(g, p.k, p.head_dim, next) : w.after_keys[0], times);
    w.ahead[1] = spread(has_next ? keys_ahead(g, p.v, p.head_dim_v, next) : w.after_keys[1], times);
    const auto k = load_key_operands<A, Term>(g, tile_keys, w);
    const auto v = load_value_operands<A, Term>(g, tile_keys, w);
    for (int i = 0; i < block.num_panels; ++i) {
      const KeyTile tile = key_tile(g, block.panels[i], tile_keys);
      if (tile.kind == TileKind::kSkip) continue;
      const int64_t skipped = tile.keys.begin - begin;
      const RowBlock<Operand<Term, A>> tile_k = {k.data + skipped * k.stride, k.stride},
                                       tile_v = {v.data + skipped / kPack<Term> * v.stride,
                                                 v.stride};
      attend_tile<A, Term>(g, tile, tile_k, tile_v, i, w);
    }
  }
}

// The state a split leaves behind: a RowState, then o_t of the group's lanes.
template <class A>
static int64_t split_bytes(const Problem& p) {
  Arena counter{nullptr, 0};
  take<RowState<A>>(&counter, 1);
  take<A>(&counter, p.head_dim_v * kPanelLanes<A>);
  return counter.used;
}

template <class A>
struct SplitState {
  RowState<A>* state;
  A* o_t;
};

template <class A>
static SplitState<A> split_at(const Problem& p, char* memory, int64_t index) {
  Arena arena{memory + index * split_bytes<A>(p), 0};
  RowState<A>* state = take<RowState<A>>(&arena, 1);
  return {state, take<A>(&arena, p.head_dim_v * kPanelLanes<A>)};
}

// Rows beyond a sequence's q_lengths exist in memory only.
template <class A>
static void fill_padding(const ForwardParams& params, const Group& g) {
  const Problem& p = params.problem;
  if (p.is_packed) return;
  for (int64_t row = g.num_rows; row < p.seqlen_q * p.group_size; ++row) {
    clear_row(row_pointer(g, params.out, row), params.out, p.head_dim_v);
    if (is_present(params.lse))
      write_element<A>(row_pointer(g, params.lse, row), dtype_of(params.lse), A(-__builtin_inf()));
  }
}

template <class A>
static void store_block(const ForwardParams& params, const Group& g, ForwardScratch<A>& w) {
  for (int i = 0; i < w.block->num_panels; ++i)
    store_panel<A>(g, w.block->panels[i], w.block->states[i], params, w.block->o_t[i]);
}

// What the block's last tile asks for: its own out, and the q of the block that this worker is
// likely to go to from here.
template <class A>
static void look_ahead(const ForwardParams& params, const Group& g, const ForwardBlock& block,
                       const ForwardBlock* next, ForwardScratch<A>& w) {
  const Problem& p = params.problem;
  w.after_keys[0] = {};
  w.after_keys[1] = rows_ahead(g, params.out, p.head_dim_v, block.rows);
  if (next)
    w.after_keys[0] =
        rows_ahead(group_of(p, next->sequence, next->head_kv), p.q, p.head_dim, next->rows);
}

template <class A, class Term>
static void attend_block(const ForwardParams& params, const ForwardBlock& block,
                         const ForwardBlock* next, char* split_memory, ForwardScratch<A>& w) {
  const Problem& p = params.problem;
  const Group g = group_of(p, block.sequence, block.head_kv);
  const bool is_first = block.rows.end == g.num_rows && block.split == 0;
  if (is_first) fill_padding<A>(params, g);
  if (block.rows.begin >= block.rows.end) return;
  load_block<A, Term>(g, block.rows, w);
  if (block.num_splits == 1) {
    look_ahead(params, g, block, next, w);
    attend<A, Term>(g, {0, g.mask.seqlen_k}, w);
    return store_block<A>(params, g, w);
  }
  const int64_t begin = block.split * kSplitKeys;
  attend<A, Term>(g, {begin, min_of(begin + kSplitKeys, g.mask.seqlen_k)}, w);
  const SplitState<A> out = split_at<A>(p, split_memory, block.state);
  *out.state = w.block->states[0];
  std::memcpy(out.o_t, w.block->o_t[0], sizeof(A) * p.head_dim_v * lanes_of(w.block->panels[0]));
}

// Few rows flip lanes (few_rows.h), which pairs would not make faster: memory is the limit there.
template <class A>
ATTNEXT_HD bool has_few_rows(const Problem& p, int64_t sequence) {
  return p.sequences[sequence].mask.seqlen_q * p.group_size <= kFewRows<A>;
}

template <class A, class Term>
static void forward_item(const ForwardParams& params, const ForwardPlan& plan, char* split_memory,
                         int64_t item, ForwardScratch<A>& w) {
  const ForwardBlock& block = plan.blocks[item];
  const int64_t after = item + plan.workers;
  const ForwardBlock* const next = after < plan.num_blocks ? plan.blocks + after : nullptr;
  if (kIsPaired<Term> && has_few_rows<A>(params.problem, block.sequence))
    attend_block<A, DotTerm>(params, block, next, split_memory, w);
  else
    attend_block<A, Term>(params, block, next, split_memory, w);
}

// Joins the splits of a block, in the order of their keys.
template <class A, class Term>
static void join_splits(const ForwardParams& params, const ForwardBlock& first, char* split_memory,
                        ForwardScratch<A>& w) {
  const Problem& p = params.problem;
  const Group g = group_of(p, first.sequence, first.head_kv);
  load_block<A, Term>(g, first.rows, w);
  for (int64_t split = 0; split < first.num_splits; ++split) {
    const SplitState<A> part = split_at<A>(p, split_memory, first.state + split);
    join_states<A>(lanes_of(w.block->panels[0]), p.head_dim_v, *part.state, part.o_t,
                   &w.block->states[0], w.block->o_t[0]);
  }
  store_block<A>(params, g, w);
}

template <class A, class Term>
static void run_forward(const ForwardParams& params) {
  const Problem& p = params.problem;
  const int64_t count = plan_forward<A>(p, nullptr).num_blocks;
  const Memory blocks(static_cast<int64_t>(sizeof(ForwardBlock)) * count);
  const ForwardPlan plan = plan_forward<A>(p, reinterpret_cast<ForwardBlock*>(blocks.data()));
  const Scratches<ForwardScratch<A>, carve_forward<A>> scratch(p, plan.workers);
  const Memory splits(split_bytes<A>(p) * plan.num_states);
  run_items(count, plan.workers, [&](int64_t item, int worker) {
    ForwardScratch<A> w = scratch[worker];
    forward_item<A, Term>(params, plan, splits.data(), item, w);
  });
  if (plan.num_states == 0) return;
  run_items(count, plan.workers, [&](int64_t item, int worker) {
    const ForwardBlock& block = plan.blocks[item];
    if (block.num_splits == 1 || block.split > 0) return;
    ForwardScratch<A> w = scratch[worker];
    join_splits<A, Term>(params, block, splits.data(), w);
  });
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
