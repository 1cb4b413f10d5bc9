// Which independent pieces a pass is cut into. Cuts depend on the shape of a sequence alone, never
// on threads or batch, so that bits do not either.
#pragma once

#include "cpu/arena.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "cpu/tile/rows.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// A list of items: of a sequence the first ones of all its key heads, then their second ones, and
// so on. Those of one head, which may have to wait for each other, are thus far apart, and heads
// whose items are in order of their size make a list that is.
struct Schedule {
  int64_t* first;  // [batch + 1]: the items before each sequence
  int64_t num_heads;
  int64_t batch;
};

struct Place {
  int64_t sequence, head_kv, index;  // the item's index within its head
};

ATTNEXT_HD int64_t num_items(const Schedule& s) { return s.first[s.batch]; }

// `first` has room for batch + 1; `per_head(sequence)` items each.
template <class F>
static Schedule make_schedule(const Problem& p, int64_t* first, F&& per_head) {
  first[0] = 0;
  for (int64_t i = 0; i < p.batch; ++i) first[i + 1] = first[i] + p.num_heads_kv * per_head(i);
  return {first, p.num_heads_kv, p.batch};
}

static int64_t sequence_of(const Schedule& s, int64_t item) {
  int64_t low = 0, high = s.batch;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (s.first[middle] <= item ? low : high) = middle;
  }
  return low;
}

static Place place_of(const Schedule& s, int64_t item) {
  const int64_t sequence = sequence_of(s, item), within = item - s.first[sequence];
  return {sequence, within % s.num_heads, within / s.num_heads};
}

ATTNEXT_HD int64_t item_at(const Schedule& s, const Place& place) {
  return s.first[place.sequence] + place.index * s.num_heads + place.head_kv;
}

// Results below the normal range become 0 while an item runs: a masked score's weight, 2^-infinity,
// would otherwise cost an x86 core a microcode assist of a hundred cycles, and it is 0 either way.
class FlushSubnormals {
 public:
#if defined(__x86_64__)
  FlushSubnormals() : saved_(__builtin_ia32_stmxcsr()) {
    __builtin_ia32_ldmxcsr(saved_ | kFlushToZero);
  }
  ~FlushSubnormals() { __builtin_ia32_ldmxcsr(saved_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 0x8000;
  unsigned saved_;
#endif
};

// Runs `work(item, worker)` over all items.
template <class F>
static void run_items(int64_t count, int workers, F&& work) {
  parallel_for(
      count, workers,
      [](void* context, int64_t item, int worker) {
        [[maybe_unused]] const FlushSubnormals mode;
        (*static_cast<F*>(context))(item, worker);
      },
      const_cast<void*>(static_cast<const void*>(&work)));
}

// Multiply-adds of one pass over all visible scores, counted twice as usual; masks by tensor are
// not looked into.
static double score_flops(const Problem& p, double products) {
  double pairs = 0;
  for (int64_t i = 0; i < p.batch; ++i) {
    const Mask& m = p.sequences[i].mask;
    if (m.seqlen_q == 0) continue;
    // Both ends of the visible interval are near enough linear in the query for an estimate from
    // three of them.
    const int64_t at[3] = {0, m.seqlen_q / 2, m.seqlen_q - 1};
    double visible = 0;
    for (int64_t query : at) {
      const Span keys = visible_keys(m, query);
      visible += static_cast<double>(keys.end - keys.begin) / 3;
    }
    pairs += visible * static_cast<double>(m.seqlen_q);
  }
  const double width = static_cast<double>(p.head_dim + p.head_dim_v) / 2 + 8;
  return 2 * products * pairs * static_cast<double>(p.num_heads_q) * width *
         (p.score == Score::kAdditive ? 10 : 1);
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
