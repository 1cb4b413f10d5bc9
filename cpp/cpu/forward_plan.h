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

// The first `large_heads` (of all sequences, one after another) are cut into blocks of many panels,
// the others into smaller ones, so that all workers end at about the same time.
struct ForwardPlan {
  Schedule items;
  int64_t large_heads;
  bool has_splits;
  int workers;
};

// How many heads have large blocks: as many as leave each worker some smaller ones, or none. A
// row's bits are the same in any block of whole panels, so that this may depend on how many workers
// there are; but not under ALiBi, where a block's last row says in which order it goes over the
// keys.
template <class A>
static int64_t count_large_heads(const Problem& p) {
  int64_t blocks = 0, fewest = kLargeBlocksToShare;
  for (int64_t i = 0; i < p.batch; ++i) {
    const int64_t of_head = cut_forward<A>(p, i, kManyPanels).blocks;
    blocks += p.num_heads_kv * of_head;
    fewest = min_of(fewest, of_head);
  }
  const int64_t workers = num_workers(blocks, score_flops(p, 2));
  if (p.alibi_slopes || blocks < kLargeBlocksToShare * workers) return 0;
  return max_of(0, p.batch * p.num_heads_kv - divide_up(workers, max_of(fewest, 1)));
}

// Heads of a sequence with large blocks.
ATTNEXT_HD int64_t large_heads_of(const Problem& p, const ForwardPlan& plan, int64_t sequence) {
  return clamp_to(plan.large_heads - sequence * p.num_heads_kv, 0, p.num_heads_kv);
}

// `first` has room for batch + 1.
template <class A>
static ForwardPlan plan_forward(const Problem& p, int64_t* first) {
  ForwardPlan plan = {{first, p.num_heads_kv, p.batch}, count_large_heads<A>(p), false, 1};
  first[0] = 0;
  for (int64_t i = 0; i < p.batch; ++i) {
    const ForwardCut large = cut_forward<A>(p, i, kManyPanels),
                     small = cut_forward<A>(p, i, kMaxPanels);
    const int64_t num_large = large_heads_of(p, plan, i);
    first[i + 1] = first[i] + small.splits * (num_large * large.blocks +
                                              (p.num_heads_kv - num_large) * small.blocks);
    plan.has_splits = plan.has_splits || small.splits > 1;
  }
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
  const int64_t sequence = sequence_of(plan.items, item);
  int64_t within = item - plan.items.first[sequence], head = 0;
  ForwardCut cut = cut_forward<A>(p, sequence, kManyPanels);
  const int64_t num_large = large_heads_of(p, plan, sequence),
                large_items = num_large * cut.blocks * cut.splits;
  if (within >= large_items) {
    within -= large_items;
    head = num_large;
    cut = cut_forward<A>(p, sequence, kMaxPanels);
  }
  const int64_t per_head = cut.blocks * cut.splits, index = within % per_head;
  const Group g = group_of(p, sequence, head + within / per_head);
  const int64_t block = cut.blocks - 1 - index / cut.splits;
  const Span rows = {block * cut.block_rows, min_of((block + 1) * cut.block_rows, g.num_rows)};
  return {g, cut, rows, index % cut.splits, index == 0};
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
