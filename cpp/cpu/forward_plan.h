// How forward shares out its work: blocks of rows, and the keys of few rows.
#pragma once

#include "cpu/schedule.h"
#include "cpu/tile/shape.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Rows of a key head that go over keys together and, of few rows, which part of the keys.
struct ForwardBlock {
  int64_t sequence, head_kv;
  Span rows;
  int64_t split, num_splits;  // parts of kSplitKeys
  int64_t state;              // where the part's result stays, in units of one
};

struct ForwardPlan {
  ForwardBlock* blocks;
  int64_t num_blocks, num_states;
  int64_t most_rows;  // of a block
  int workers;
};

template <class A>
ATTNEXT_HD int64_t num_panels_of(const Problem& p, int64_t sequence) {
  return divide_up(p.sequences[sequence].mask.seqlen_q * p.group_size, kPanelLanes<A>);
}

template <class A>
ATTNEXT_HD int64_t num_splits_of(const Problem& p, int64_t sequence) {
  const bool has_few_rows = num_panels_of<A>(p, sequence) == 1;
  return has_few_rows ? max_of(1, divide_up(p.sequences[sequence].mask.seqlen_k, kSplitKeys)) : 1;
}

// Panels of a head's next block, where the head has `of_head` left and the whole call `of_call`: at
// most a fixed part of each worker's share of what is left (Polychronopoulos and Kuck 1987, guided
// self-scheduling), so that all end at about the same time; and no last one much smaller than the
// others. A row's bits are the same in any block of whole panels, so that this may depend on how
// many workers there are; but not under ALiBi, where a block's last row says in which order it goes
// over the keys.
ATTNEXT_HD int64_t next_panels(const Problem& p, int64_t of_head, int64_t of_call, int workers) {
  if (p.alibi_slopes) return min_of(of_head, kMaxPanels);
  const int64_t most =
      workers == 1 ? kManyPanels : clamp_to(of_call / (2 * workers), 1, kManyPanels);
  return divide_up(of_head, max_of(1, divide_up(of_head, most)));
}

// Adds a key head's blocks to the plan. The last rows of a causal sequence have the most keys:
// first, so that the end is shared out evenly.
template <class A>
static void add_head(const Problem& p, int64_t sequence, int64_t head_kv, int64_t* panels_left,
                     ForwardPlan* plan) {
  const int64_t rows = p.sequences[sequence].mask.seqlen_q * p.group_size,
                num_splits = num_splits_of<A>(p, sequence);
  int64_t end = num_panels_of<A>(p, sequence);
  do {
    const int64_t size = next_panels(p, end, *panels_left, plan->workers);
    const Span block = {(end - size) * kPanelLanes<A>, min_of(end * kPanelLanes<A>, rows)};
    for (int64_t split = 0; split < num_splits; ++split) {
      if (plan->blocks)
        plan->blocks[plan->num_blocks] = {sequence, head_kv,    block,
                                          split,    num_splits, plan->num_states + split};
      ++plan->num_blocks;
    }
    plan->most_rows = max_of(plan->most_rows, block.end - block.begin);
    if (num_splits > 1) plan->num_states += num_splits;
    *panels_left -= max_of(size, 1) * num_splits;
    end -= size;
  } while (end > 0);
}

// With nowhere to put blocks, only counts them.
template <class A>
static ForwardPlan plan_forward(const Problem& p, ForwardBlock* blocks) {
  int64_t panels = 0;
  for (int64_t i = 0; i < p.batch; ++i)
    panels += p.num_heads_kv * max_of(1, num_panels_of<A>(p, i)) * num_splits_of<A>(p, i);
  ForwardPlan plan = {blocks, 0, 0, 0, num_workers(panels, score_flops(p, 2))};
  for (int64_t i = 0; i < p.batch; ++i)
    for (int64_t head = 0; head < p.num_heads_kv; ++head) add_head<A>(p, i, head, &panels, &plan);
  return plan;
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
