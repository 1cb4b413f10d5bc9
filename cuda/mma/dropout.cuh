// Which weights dropout keeps, drawn where they are: a Philox counter serves four keys of a row,
// which lie in two neighbouring lanes.
#pragma once

#include "mma/softmax.cuh"

namespace attnext::cuda::mma {

// The words of a lane's two keys in two rows. Each lane of a pair draws the counter of one of the
// rows and hands half of the words over.
struct LaneWords {
  uint32_t words[2][2];  // [half][e]
};

PTX_FN LaneWords draw_words(const Dropout& dropout, const int64_t (&head)[2],
                            const int64_t (&query)[2], int64_t key_block, int lane) {
  const int mine = lane & 1;
  uint32_t words[4];
  dropout_words(dropout.seed, dropout.stream, mine ? head[1] : head[0], mine ? query[1] : query[0],
                key_block, words);
  const uint32_t first = ptx::shuffle_xor(mine ? words[0] : words[2], 1);
  const uint32_t second = ptx::shuffle_xor(mine ? words[1] : words[3], 1);
  LaneWords r;
  r.words[0][0] = mine ? first : words[0];
  r.words[0][1] = mine ? second : words[1];
  r.words[1][0] = mine ? words[2] : first;
  r.words[1][1] = mine ? words[3] : second;
  return r;
}

PTX_FN uint32_t pick(const uint32_t (&words)[4], int i) {
  const uint32_t low = i & 1 ? words[1] : words[0], high = i & 1 ? words[3] : words[2];
  return i & 2 ? high : low;
}

// The same where fragments have keys for rows, their first a multiple of 4 and in `key_block`: of
// the words of a lane's two keys in two columns. A counter's keys lie in four lanes, which have
// four counters between them; each draws one and hands on what is the others'.
PTX_FN LaneWords draw_words_of_columns(const Dropout& dropout, const int64_t (&head)[2],
                                       const int64_t (&query)[2], int64_t key_block, int lane) {
  const int mine = lane / 4 % 4;  // the key in its block, and the counter: 2 half + column
  const bool second = mine & 1;
  uint32_t words[4], received[4];
  dropout_words(dropout.seed, dropout.stream, second ? head[1] : head[0],
                second ? query[1] : query[0], key_block + lane / 16 + mine / 2 * 2, words);
  received[0] = pick(words, mine);
#pragma unroll
  for (int distance = 1; distance < 4; ++distance)
    received[distance] =
        ptx::shuffle_xor(pick(words, mine ^ distance), static_cast<uint32_t>(4 * distance));
  LaneWords r;
#pragma unroll
  for (int i = 0; i < 4; ++i) r.words[i / 2][i % 2] = pick(received, mine ^ i);
  return r;
}

// `f(m, j, i, is_kept)` for every weight of the tile, i as in a fragment.
template <int kRowFragments, int kFragments, class F>
PTX_FN void for_kept(const Problem& p, const Group& g, const WarpTile& tile, F&& f) {
  const uint64_t threshold = drop_threshold(p.dropout.probability);
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m) {
    int64_t head[2], query[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Position at = position_of(g, row_of(g, tile, m, half));
      head[half] = g.sequence * p.num_heads_q + at.head;
      query[half] = at.query;
    }
#pragma unroll
    for (int j = 0; j < kFragments; ++j) {
      const int64_t block = tile.keys.begin / 4 + 2 * j + tile.lane % 4 / 2;
      const LaneWords drawn = draw_words(p.dropout, head, query, block, tile.lane);
#pragma unroll
      for (int i = 0; i < 4; ++i) f(m, j, i, drawn.words[i / 2][i % 2] >= threshold);
    }
  }
}

}  // namespace attnext::cuda::mma
