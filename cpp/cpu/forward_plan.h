// How forward shares out its work: blocks of rows, and the keys of few rows.
#pragma once

#include "cpu/schedule.h"
#include "cpu/tile/shape.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// How the rows and keys of a sequence are cut.
struct ForwardCut {
  int64_t block_rows;
  int64_t blocks;  // of so many rows, at least one
  int64_t splits;  // of kSplitKeys keys
};

template <class A>
static ForwardCut cut_forward(const Problem& p, int64_t sequence, int64_t panels) {
  const Mask& m = p.sequences[sequence].mask;
  const int64_t rows = m.seqlen_q * p.group_size, block_rows = panels * kPanelLanes<A>;
  const bool has_few_rows = rows > 0 && rows <= kPanelLanes<A>;
  return {block_rows, max_of(1, divide_up(rows, block_rows)),
          has_few_rows ? max_of(1, divide_up(m.seqlen_k, kSplitKeys)) : 1};
}

// The panels of a block: many, unless workers would then run out of blocks. A row's bits are the
// same in any block of whole panels, so that this may depend on how many workers there are.
template <class A>
static int64_t panels_of_block(const Problem& p) {
  int64_t blocks = 0, most = 0;
  for (int64_t i = 0; i < p.batch; ++i) {
    const ForwardCut cut = cut_forward<A>(p, i, kManyPanels);
    blocks += p.num_heads_kv * cut.blocks;
    most = max_of(most, cut.blocks);
  }
  const bool is_long = most >= kBlocksToShare;
  return is_long && blocks >= kBlocksToShare * num_workers(blocks, score_flops(p, 2)) ? kManyPanels
                                                                                      : kMaxPanels;
}

struct ForwardPlan {
  Schedule items;
  int64_t panels;
  bool has_splits;
  int workers;
};

// `first` has room for batch + 1.
template <class A>
static ForwardPlan plan_forward(const Problem& p, int64_t* first) {
  ForwardPlan plan = {{}, panels_of_block<A>(p), false, 1};
  plan.items = make_schedule(p, first, [&](int64_t sequence) {
    const ForwardCut cut = cut_forward<A>(p, sequence, plan.panels);
    plan.has_splits = plan.has_splits || cut.splits > 1;
    return cut.blocks * cut.splits;
  });
  plan.workers = num_workers(num_items(plan.items), score_flops(p, 2));
  return plan;
}

// Where an item is: the rows of its block and, of few rows, which part of the keys. The last rows
// of a causal sequence have the most keys: first, so that the end is shared out evenly.
struct ForwardPlace {
  Group group;
  ForwardCut cut;
  Span rows;
  int64_t split;
  bool is_first;  // of its head
};

template <class A>
static ForwardPlace forward_place(const Problem& p, const ForwardPlan& plan, int64_t item) {
  const Place place = place_of(plan.items, item);
  const Group g = group_of(p, place.sequence, place.head_kv);
  const ForwardCut cut = cut_forward<A>(p, place.sequence, plan.panels);
  const int64_t block = cut.blocks - 1 - place.index / cut.splits;
  const Span rows = {block * cut.block_rows, min_of((block + 1) * cut.block_rows, g.num_rows)};
  return {g, cut, rows, place.index % cut.splits, place.index == 0};
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
