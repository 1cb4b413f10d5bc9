// Which keys a query may attend by rule (causal, window, lengths), and what that means for a tile:
// the only mask rule.
#pragma once

#include "attention/portable.h"

namespace attnext {

struct Span {
  int64_t begin, end;
};

// The rule of one sequence. Dense masks are inputs, not rules: they are applied on top.
struct Mask {
  int64_t seqlen_q;  // rows at or beyond it do not exist
  int64_t seqlen_k;
  int64_t diagonal;  // key position of query 0
  int64_t left;      // visible keys left of the diagonal, inclusive; kOpen: all
  int64_t right;
};

// Far beyond any sequence, and three of them still add up without overflow.
constexpr int64_t kOpen = int64_t{1} << 60;

enum class TileKind { kSkip, kPartial, kFull };

// The keys a query may attend. Both ends never decrease with q: classify_tile relies on it.
ATTNEXT_HD Span visible_keys(const Mask& m, int64_t q) {
  const int64_t centre = q + m.diagonal;
  const int64_t begin = clamp_to(centre - m.left, 0, m.seqlen_k);
  const int64_t end = clamp_to(centre + m.right + 1, 0, m.seqlen_k);
  return {begin, max_of(begin, end)};
}

// The keys that some query of `q` (not empty) may attend: an interval, as both ends grow with q.
ATTNEXT_HD Span reachable_keys(const Mask& m, Span q) {
  return {visible_keys(m, q.begin).begin, visible_keys(m, q.end - 1).end};
}

// The queries that may attend a key of `k`: from the same two inequalities, solved for q.
ATTNEXT_HD Span visible_queries(const Mask& m, Span k) {
  const int64_t begin = clamp_to(k.begin - m.diagonal - m.right, 0, m.seqlen_q);
  const int64_t end = clamp_to(k.end - m.diagonal + m.left, 0, m.seqlen_q);
  return {begin, max_of(begin, end)};
}

ATTNEXT_HD TileKind classify_tile(const Mask& m, Span q, Span k) {
  const Span first = visible_keys(m, q.begin), last = visible_keys(m, q.end - 1);
  if (k.begin >= last.end || k.end <= first.begin) return TileKind::kSkip;
  if (k.begin >= last.begin && k.end <= first.end) return TileKind::kFull;
  return TileKind::kPartial;
}

}  // namespace attnext
