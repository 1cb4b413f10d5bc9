// Which weights of a panel and a key tile dropout keeps: the draws of attention/random.h, a lane
// each.
#pragma once

#include "attention/random.h"
#include "cpu/tile/scores.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// What dropout multiplies a weight by: `factor` where the pair's bit is set, else 0.
template <class A>
struct Kept {
  BitWord<A>* words;  // [kBitWords], null: no dropout
  A factor;
};

template <class A>
ATTNEXT_HD Vec<A> kept_factor(const Kept<A>& kept, int64_t stride, int64_t key, int64_t lane) {
  return select<A>(has_bit<A>(kept.words + lane, stride, key), splat<A>(kept.factor), Vec<A>{});
}

// The same of a single lane.
template <class A>
ATTNEXT_HD A kept_factor_of(const Kept<A>& kept, int64_t stride, int64_t key, int64_t lane) {
  return kept.words[key / kWordKeys * stride + lane] >> key % kWordKeys & 1 ? kept.factor : A(0);
}

// The factors themselves, [keys][lanes], for a kernel that has no registers to spare for tests of
// bits: they cost backward 6 points of peak wherever something changes its scores.
template <class A>
static void spread_factors(const Kept<A>& kept, int lanes, int64_t num_keys, A* out) {
  for (int64_t key = 0; key < num_keys; ++key)
    for (int64_t lane = 0; lane < lanes; lane += kLanes<A>)
      store<A>(out + key * lanes + lane, kept_factor(kept, lanes, key, lane));
}

// The round keys of a seed.
struct PhiloxKeys {
  uint32_t round[10][2];
};

static PhiloxKeys philox_keys(uint64_t seed) {
  PhiloxKeys keys;
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (auto& round : keys.round) {
    round[0] = key0;
    round[1] = key1;
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  return keys;
}

// The counter of a draw is (block of four keys, query, head, stream). After two rounds each of its
// words depends on the block or on the row alone, or is a sum of both, so that these rounds are
// done once a block and once a row, and eight are left. Numbers lie in the low halves of 64-bit
// lanes, where a product is one instruction and needs no sorting; high halves hold anything.
constexpr int kDrawLanes = kLanes<double>;

struct RowDraws {
  alignas(kVectorBytes) uint64_t word0[kDrawLanes], word2[kDrawLanes], word3[kDrawLanes];
};

ATTNEXT_HD void start_row(const PhiloxKeys& keys, uint32_t head, uint32_t query, int lane,
                          RowDraws* row) {
  const uint64_t first = uint64_t{kPhiloxMultiply1} * head;
  const uint32_t word0 = static_cast<uint32_t>(first >> 32) ^ query ^ keys.round[0][0];
  const uint64_t second = uint64_t{kPhiloxMultiply0} * word0;
  row->word0[lane] = static_cast<uint32_t>(first) ^ keys.round[1][0];
  row->word2[lane] = (second >> 32) ^ keys.round[1][1];
  row->word3[lane] = second;
}

struct BlockDraws {
  uint64_t word0, word1, word2;
};

ATTNEXT_HD BlockDraws start_block(const PhiloxKeys& keys, uint32_t block, uint32_t stream) {
  const uint64_t first = uint64_t{kPhiloxMultiply0} * block;
  const uint32_t word2 = static_cast<uint32_t>(first >> 32) ^ stream ^ keys.round[0][1];
  const uint64_t second = uint64_t{kPhiloxMultiply1} * word2;
  return {second >> 32, second, first};
}

ATTNEXT_HD void draw(const PhiloxKeys& keys, const RowDraws& row, const BlockDraws& block,
                     DoubleWords (&words)[4]) {
  const auto read = [](const uint64_t* p) { return *reinterpret_cast<const DoubleWords*>(p); };
  words[0] = read(row.word0) ^ block.word0;
  words[1] = DoubleWords{} + block.word1;
  words[2] = read(row.word2) ^ block.word2;
  words[3] = read(row.word3);
  ATTNEXT_UNROLL for (int round = 2; round < 10; ++round) {
    const DoubleWords product0 = multiply_low(words[0], DoubleWords{} + kPhiloxMultiply0),
                      product1 = multiply_low(words[2], DoubleWords{} + kPhiloxMultiply1);
    words[0] = (product1 >> 32) ^ words[1] ^ keys.round[round][0];
    words[1] = product1;
    words[2] = (product0 >> 32) ^ words[3] ^ keys.round[round][1];
    words[3] = product0;
  }
}

// All ones where a draw is at least the threshold; lane i of a vector of float32 is lane i / 2 of
// half i % 2.
template <class A, int kHalves>
ATTNEXT_HD IntVec<A> is_at_least(uint32_t threshold, const DoubleWords (&halves)[kHalves][4],
                                 int word) {
  constexpr uint64_t kLow = 0xffffffff;
  if constexpr (kHalves == 1) {
    return reinterpret_cast<IntVec<A>>((halves[0][word] & kLow) >= threshold);
  } else {
    typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
    const DoubleWords both = (halves[0][word] & kLow) | (halves[1][word] << 32);
    return reinterpret_cast<IntVec<A>>(reinterpret_cast<Words>(both) >= threshold);
  }
}

// The bits of 32 keys from `block` of four on, a word a lane.
template <class A, int kHalves>
static void draw_words(const PhiloxKeys& keys, const RowDraws (&rows)[kHalves], uint32_t stream,
                       uint32_t threshold, int64_t block, BitWord<A>* out) {
  IntVec<A> bits{};
  for (int i = 0; i < kWordKeys / 4; ++i) {
    const BlockDraws begun = start_block(keys, static_cast<uint32_t>(block + i), stream);
    DoubleWords halves[kHalves][4];
    ATTNEXT_UNROLL for (int half = 0; half < kHalves; ++half)
        draw(keys, rows[half], begun, halves[half]);
    ATTNEXT_UNROLL for (int n = 0; n < 4; ++n) bits |=
        is_at_least<A>(threshold, halves, n) & static_cast<BitWord<A>>(int64_t{1} << (4 * i + n));
  }
  *reinterpret_cast<IntVec<A>*>(out) = bits;
}

template <class A>
static Kept<A> load_dropout(const Group& g, const Panel<A>& panel, const KeyTile& tile,
                            BitWord<A>* words) {
  const Dropout& dropout = g.problem->dropout;
  if (dropout.probability == 0) return {};
  constexpr int kHalves = static_cast<int>(sizeof(double) / sizeof(A));
  const uint64_t threshold = drop_threshold(dropout.probability);
  constexpr uint64_t kAll = uint64_t{1} << 32;  // more than any draw: nothing is kept
  const PhiloxKeys keys = philox_keys(dropout.seed);
  const int lanes = lanes_of(panel);
  for (int first = 0; first < lanes; first += kLanes<A>) {
    RowDraws rows[kHalves];
    for (int i = 0; i < kLanes<A>; ++i)
      start_row(keys,
                static_cast<uint32_t>(g.sequence * g.problem->num_heads_q + panel.head[first + i]),
                static_cast<uint32_t>(panel.query[first + i]), i / kHalves, &rows[i % kHalves]);
    for (int64_t key = 0; key < tile.keys.end - tile.keys.begin; key += kWordKeys)
      draw_words<A>(keys, rows, dropout.stream, static_cast<uint32_t>(min_of(threshold, kAll - 1)),
                    (tile.keys.begin + key) / 4, words + key / kWordKeys * lanes + first);
  }
  return {words, threshold < kAll ? static_cast<A>(1 / (1 - dropout.probability)) : A(0)};
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
