// From raw products to the scores a softmax sees: scale, softcap, bias, ALiBi, mask, in that order,
// to base 2.
#pragma once

#include "cpu/arena.h"
#include "cpu/tile/dense_ahead.h"
#include "cpu/tile/softcap.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// The scores of one panel against one key tile are [keys.end - keys.begin][lanes].
struct KeyTile {
  Span keys;  // of the sequence; begins at a multiple of 4 (a Philox block)
  TileKind kind;
};

// One step: s <- f(s, index of the vector, key within the tile, first lane).
template <class A, class F>
ATTNEXT_HD void for_scores(const Panel<A>& panel, const KeyTile& tile, F&& f) {
  const int lanes = lanes_of(panel);
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  for (int64_t key = 0; key < num_keys; ++key)
    for (int lane = 0; lane < lanes; lane += kLanes<A>) f(key * lanes + lane, key, lane);
}

// What backward wants kept on the way, [keys][lanes]; null: not.
template <class A>
struct ScoreTrace {
  A* raw;  // the finished sum over d, before scale
  A* softcap_slope;
};

// Bits of a tile's pairs, [kTileK / kWordKeys][lanes]: bit n of a lane's word is its key n. One
// test of a vector of words then tells a key's lanes apart.
constexpr int64_t kWordKeys = 32;
template <class A>
using BitWord = typename VectorOf<A>::IntegerScalar;
template <class A>
constexpr int64_t kBitWords = kTileK / kWordKeys * kPanelLanes<A>;

// All ones in the lanes whose bit of `key` is set; `words` are those of its vector.
template <class A>
ATTNEXT_HD IntVec<A> has_bit(const BitWord<A>* words, int64_t stride, int64_t key) {
  const IntVec<A> word = *reinterpret_cast<const IntVec<A>*>(words + key / kWordKeys * stride);
  return (word & static_cast<BitWord<A>>(int64_t{1} << key % kWordKeys)) != 0;
}

// Room for what the modifiers of one tile are prepared in.
template <class A>
struct ModifierScratch {
  A* bias;           // [kTileK][lanes]
  BitWord<A>* mask;  // [kBitWords]
  A* softcap;        // [kTileRows][lanes]
  alignas(kVectorBytes) A position[kPanelLanes<A>], begin[kPanelLanes<A>], end[kPanelLanes<A>];
  const char* ahead[kPanelLanes<A>];
};

template <class A>
static ModifierScratch<A>* take_modifiers(const Problem& p, Arena* arena) {
  const int64_t tile = kTileK * kPanelLanes<A>;
  ModifierScratch<A>* scratch = take<ModifierScratch<A>>(arena, 1);
  A* bias = take<A>(arena, is_present(p.bias) ? tile : 0);
  BitWord<A>* mask = take<BitWord<A>>(arena, is_present(p.mask) ? kBitWords<A> : 0);
  A* softcap = take<A>(arena, p.softcap > 0 ? kTileRows * kPanelLanes<A> : 0);
  if (arena->base) {
    scratch->bias = bias;
    scratch->mask = mask;
    scratch->softcap = softcap;
  }
  return scratch;
}

// Everything that happens to the raw products of one panel and one key tile; null or 0: does not.
template <class A>
struct Modifiers {
  const A* scale;          // [lanes]
  A cap;                   // to base 2
  A* softcap;              // [kTileRows][lanes], scratch
  const A* bias;           // [keys][lanes], natural
  DenseAhead ahead;        // the bias that comes next
  const A* slope;          // [lanes] of ALiBi, to base 2
  const A* position;       // [lanes], relative to the tile's first key
  const A *begin, *end;    // [lanes], the keys of the tile a rule lets a row see
  const BitWord<A>* mask;  // set: visible
  bool is_root;            // neg_l2
  bool sees_nothing;       // all of the tile is masked
  ScoreTrace<A> trace;
  int64_t stride;  // lanes of the panel
};

// From the panel's first lane to another.
template <class A>
ATTNEXT_HD void move_to(int64_t lane, Modifiers<A>* m) {
  for (const A** p : {&m->scale, &m->bias, &m->slope, &m->position, &m->begin, &m->end})
    if (*p) *p += lane;
  if (m->mask) m->mask += lane;
  for (A** p : {&m->trace.raw, &m->trace.softcap_slope})
    if (*p) *p += lane;
}

// Whether anything but a scale happens to them.
ATTNEXT_HD bool changes_scores(const auto& m) {
  return m.cap > 0 || m.bias || m.slope || m.begin || m.mask || m.is_root || m.trace.raw;
}

// The register tile of keys [key, key + kKeys) of the key tile, from raw sums to scores to base 2:
// scale, softcap, bias, ALiBi, mask, in that order.
template <class A, int kKeys, int kVectors>
ATTNEXT_HD void modify(const Modifiers<A>& m, int64_t key, Vec<A> (&s)[kKeys][kVectors]) {
  const int64_t stride = m.stride, at = key * stride;
  const Vec<A> masked = splat<A>(A(-__builtin_inf()));
  if (m.is_root)
    for_vectors<A>(s, [&](Vec<A>& x, int, int) { x = finish_neg_l2<VectorMath<A>>(x); });
  if (m.trace.raw) store_tile<A>(s, m.trace.raw + at, stride);
  if (m.scale) for_vectors<A>(s, [&](Vec<A>& x, int, int lane) { x *= load<A>(m.scale + lane); });
  if (m.cap > 0)
    apply_softcap<A>(m.cap, m.softcap, m.trace.softcap_slope ? m.trace.softcap_slope + at : nullptr,
                     stride, s);
  if (m.ahead.rows) prefetch_ahead(m.ahead, stride, key, kKeys);
  if (m.bias)  // one of -infinity masks its pair, whatever the score: NaN - infinity would not
    for_vectors<A>(s, [&](Vec<A>& x, int i, int lane) {
      const Vec<A> b = load<A>(m.bias + at + i * stride + lane);
      x = select<A>(b == masked, masked, x + b * A(kLog2E));
    });
  if (m.slope)
    for_vectors<A>(s, [&](Vec<A>& x, int i, int lane) {
      const Vec<A> distance =
          alibi_distance(load<A>(m.position + lane), splat<A>(static_cast<A>(key + i)));
      x -= load<A>(m.slope + lane) * distance;
    });
  if (m.begin)
    for_vectors<A>(s, [&](Vec<A>& x, int i, int lane) {
      const Vec<A> position = splat<A>(static_cast<A>(key + i));
      x = select<A>(position < load<A>(m.end + lane), x, masked);
      x = select<A>(position >= load<A>(m.begin + lane), x, masked);
    });
  if (m.mask)
    for_vectors<A>(s, [&](Vec<A>& x, int i, int lane) {
      x = select<A>(has_bit<A>(m.mask + lane, stride, key + i), x, masked);
    });
}

// A tensor's values for the tile's pairs, [keys][lanes].
template <class A>
static void load_dense(const Group& g, const Panel<A>& panel, const KeyTile& tile,
                       const TensorView& t, A* out) {
  load_transposed<A>(lane_rows(panel, t, 3, [&](int64_t row) { return dense_pointer(g, t, row); }),
                     panel.vectors, tile.keys.begin, tile.keys.end - tile.keys.begin, out);
}

// What a tile of a dense mask amounts to.
enum class MaskKind { kNothing, kSome, kEverything };

// The bits of one row's keys from `row` on, at most kWordKeys of them.
ATTNEXT_HD uint32_t mask_bits(const char* row, int64_t stride, int64_t count) {
  if (stride == 1 && count == kWordKeys) return nonzero_bytes(row);
  uint32_t bits = 0;
  for (int64_t i = 0; i < count; ++i) bits |= static_cast<uint32_t>(row[i * stride] != 0) << i;
  return bits;
}

template <class A>
static MaskKind load_mask(const Group& g, const Panel<A>& panel, const KeyTile& tile,
                          BitWord<A>* words) {
  const TensorView& mask = g.problem->mask;
  const int64_t num_keys = tile.keys.end - tile.keys.begin, stride = mask.strides[3];
  const int lanes = lanes_of(panel);
  const uint32_t beyond = num_keys % kWordKeys ? ~0u << num_keys % kWordKeys : 0;
  uint32_t some = 0, every = ~0u;
  for (int lane = 0; lane < lanes; ++lane) {
    const char* row =
        dense_pointer(g, mask, panel.head[lane], panel.query[lane]) + tile.keys.begin * stride;
    BitWord<A>* to = words + lane;
    for (int64_t key = 0; key < num_keys; key += kWordKeys, to += lanes) {
      const uint32_t bits =
          mask_bits(row + key * stride, stride, min_of(kWordKeys, num_keys - key));
      some |= bits;
      every &= key + kWordKeys > num_keys ? bits | beyond : bits;
      *to = static_cast<BitWord<A>>(bits);
    }
  }
  return some == 0 ? MaskKind::kNothing : ~every == 0 ? MaskKind::kEverything : MaskKind::kSome;
}

// Lane positions relative to the tile's first key: exact in float however long the sequence is.
template <class A>
ATTNEXT_HD void relative_positions(const Group& g, const Panel<A>& panel, const KeyTile& tile,
                                   A* out) {
  for (int lane = 0; lane < lanes_of(panel); ++lane)
    out[lane] = static_cast<A>(panel.query[lane] + g.mask.diagonal - tile.keys.begin);
}

template <class A>
ATTNEXT_HD void visible_positions(const Group& g, const Panel<A>& panel, const KeyTile& tile,
                                  A* begin, A* end) {
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  for (int lane = 0; lane < lanes_of(panel); ++lane) {
    const Span keys = visible_keys(g.mask, panel.query[lane]);
    begin[lane] = static_cast<A>(clamp_to(keys.begin - tile.keys.begin, 0, num_keys));
    end[lane] = static_cast<A>(clamp_to(keys.end - tile.keys.begin, 0, num_keys));
  }
}

// What `panel` and `keys`, which come after `tile`, need of the dense tensors.
template <class A>
ATTNEXT_HD void prefetch_modifiers(const Group& g, const KeyTile& tile, const Panel<A>& panel,
                                   Span keys, ModifierScratch<A>* scratch, Modifiers<A>* m) {
  const TensorView &bias = g.problem->bias, &mask = g.problem->mask;
  if (is_present(mask)) prefetch_dense(g, panel, keys, mask);
  if (!is_present(bias) || keys.begin >= keys.end) return;
  if (tile.kind != TileKind::kFull || bias.strides[3] != 1)
    return prefetch_dense(g, panel, keys, bias);
  m->ahead = dense_ahead(g, panel, keys.begin, bias, m->stride, scratch->ahead);
}

template <class A>
static Modifiers<A> prepare_modifiers(const Group& g, const Panel<A>& panel, const KeyTile& tile,
                                      ScaleOn scale_on, ScoreTrace<A> trace,
                                      ModifierScratch<A>* scratch) {
  const Problem& p = *g.problem;
  Modifiers<A> m{};
  m.is_root = p.score == Score::kNegL2;
  m.trace = trace;
  m.stride = lanes_of(panel);
  m.scale = scale_on == ScaleOn::kScores ? panel.scale : nullptr;
  m.cap = p.softcap > 0 ? effective_cap<A>(p.softcap * kLog2E) : A(0);
  m.softcap = scratch->softcap;
  if (is_present(p.bias)) {
    load_dense<A>(g, panel, tile, p.bias, scratch->bias);
    m.bias = scratch->bias;
  }
  if (p.alibi_slopes) {
    relative_positions<A>(g, panel, tile, scratch->position);
    m.slope = panel.slope;
    m.position = scratch->position;
  }
  if (tile.kind == TileKind::kPartial) {
    visible_positions<A>(g, panel, tile, scratch->begin, scratch->end);
    m.begin = scratch->begin;
    m.end = scratch->end;
  }
  if (is_present(p.mask)) {
    const MaskKind kind = load_mask<A>(g, panel, tile, scratch->mask);
    if (kind != MaskKind::kEverything) m.mask = scratch->mask;
    m.sees_nothing = kind == MaskKind::kNothing;
  }
  return m;
}

// A part of a key tile, and the vectors of a panel with a row that sees some of it.
struct Segment {
  Span keys;  // relative to the tile's first key, at multiples of kTileRows
  Vectors vectors;
  bool is_full;  // every row of them sees all of it
};
constexpr int kMaxSegments = kTileK / kTileRows;

ATTNEXT_HD bool overlaps(Span a, Span b) { return a.begin < b.end && b.begin < a.end; }
ATTNEXT_HD bool contains(Span whole, Span part) {
  return whole.begin <= part.begin && part.end <= whole.end;
}

// Cuts the tile where the vectors that see it change: what lies beyond a diagonal costs nothing.
// Both ends of what a row sees grow with the row, so that the vectors lie side by side.
template <class A>
static int cut_tile(const Group& g, const Panel<A>& panel, const KeyTile& tile, Segment* segments) {
  const int64_t num_keys = tile.keys.end - tile.keys.begin, lanes = lanes_of(panel);
  segments[0] = {{0, num_keys}, {0, panel.vectors, lanes}, true};
  if (tile.kind == TileKind::kFull) return 1;
  Span some[kPanelVectors], every[kPanelVectors];
  for (int j = 0; j < panel.vectors; ++j) {
    const Span first = visible_keys(g.mask, panel.query[j * kLanes<A>]),
               last = visible_keys(g.mask, panel.query[(j + 1) * kLanes<A> - 1]);
    some[j] = {first.begin - tile.keys.begin, last.end - tile.keys.begin};
    every[j] = {last.begin - tile.keys.begin, first.end - tile.keys.begin};
  }
  int count = 0;
  for (int64_t key = 0; key < num_keys; key += kTileRows) {
    const Span step = {key, min_of(key + kTileRows, num_keys)};
    int begin = 0, end = panel.vectors;
    while (begin < end && !overlaps(some[begin], step)) ++begin;
    while (begin < end && !overlaps(some[end - 1], step)) --end;
    if (begin == end) continue;
    bool is_full = true;
    for (int j = begin; j < end; ++j) is_full = is_full && contains(every[j], step);
    Segment* before = &segments[count - 1];
    if (count > 0 && before->keys.end == key && before->is_full == is_full &&
        before->vectors.first == begin && before->vectors.count == end - begin)
      before->keys.end = step.end;
    else
      segments[count++] = {step, {begin, end - begin, lanes}, is_full};
  }
  return count;
}

// Neighbours that the same vectors see become one: a sum over keys does not ask how much they see.
ATTNEXT_HD int join_segments(Segment* segments, int count) {
  int joined = 0;
  for (int i = 0; i < count; ++i) {
    Segment* before = &segments[joined - 1];
    const Segment& next = segments[i];
    if (joined > 0 && before->keys.end == next.keys.begin &&
        before->vectors.first == next.vectors.first && before->vectors.count == next.vectors.count)
      before->keys.end = next.keys.end;
    else
      segments[joined++] = next;
  }
  return joined;
}

// What a segment's scores are modified by.
template <class A>
ATTNEXT_HD Modifiers<A> modifiers_of(Modifiers<A> m, const Segment& segment) {
  if (segment.is_full) m.begin = m.end = nullptr;
  return m;
}

// The scores of a tile, modified and kept: [keys][lanes].
template <class A>
struct KeepScores {
  Modifiers<A> modifiers;
  A* s;
  inline __attribute__((always_inline)) void move_to(int64_t lane) {
    ATTNEXT_ISA_NAMESPACE::move_to<A>(lane, &modifiers);
    s += lane;
  }
  template <int kKeys, int kVectors>
  inline __attribute__((always_inline)) void finish(int64_t key, Vec<A> (&sum)[kKeys][kVectors]) {
    modify<A>(modifiers, key, sum);
    store_tile<A>(sum, s + key * modifiers.stride, modifiers.stride);
  }
};

// Raw products that were stored, modified in place.
template <class A>
static void modify_scores(const Modifiers<A>& m, int vectors, int64_t num_keys, A* s) {
  with_vectors(vectors, [&](auto v) {
    for (int64_t key = 0; key < num_keys; ++key) {
      Vec<A> row[1][v.value];
      A* at = s + key * m.stride;
      ATTNEXT_UNROLL for (int j = 0; j < v.value; ++j) row[0][j] = load<A>(at + j * kLanes<A>);
      modify<A>(m, key, row);
      store_tile<A>(row, at, m.stride);
    }
  });
}

// The part of a key tile some of the queries can see.
ATTNEXT_HD KeyTile key_tile(const Group& g, Span queries, Span keys) {
  const Span reachable = reachable_keys(g.mask, queries);
  const Span cut = {max_of(keys.begin, reachable.begin / 4 * 4), min_of(keys.end, reachable.end)};
  if (cut.begin >= cut.end) return {cut, TileKind::kSkip};
  return {cut, classify_tile(g.mask, queries, cut)};
}
template <class A>
ATTNEXT_HD KeyTile key_tile(const Group& g, const Panel<A>& panel, Span keys) {
  return key_tile(g, panel.queries, keys);
}

// s = all scores of a panel against the tile's keys `k`, to base 2.
template <class A, class Term>
static void compute_scores(const Panel<A>& panel, const KeyTile& tile, RowBlock<Operand<Term, A>> k,
                           const Operand<Term, A>* q_t, int64_t depth,
                           const Modifiers<A>& modifiers, A* s) {
  multiply_keys<A, Term>({0, panel.vectors, lanes_of(panel)}, k,
                         {0, tile.keys.end - tile.keys.begin}, q_t, panel.weight_t, depth,
                         KeepScores<A>{modifiers, s});
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
