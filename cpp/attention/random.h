// Which weights dropout keeps: Philox4x32-10 keyed by position, so that tiles, threads and devices
// draw the same bits.
#pragma once

#include "attention/portable.h"

namespace attnext {

// Multipliers and Weyl increments of Random123 (Salmon et al., SC11); any other value is another
// generator.
constexpr uint32_t kPhiloxMultiply0 = 0xD2511F53u, kPhiloxMultiply1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;

// The four words of counter (c0, c1, c2, c3) under the key `seed`. Straight-line on scalars, so
// that a loop over counters vectorises.
ATTNEXT_HD void philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3,
                       uint32_t out[4]) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{kPhiloxMultiply0} * c0,
                   product1 = uint64_t{kPhiloxMultiply1} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<uint32_t>(product0);
    key0 += kPhiloxWeyl0;
    key1 += kPhiloxWeyl1;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

// The words of keys 4 key_block .. 4 key_block + 3 of one query; positions are those within the
// sequence, and `head` is sequence * num_heads_q + query head. A key is kept if its word is at
// least drop_threshold().
ATTNEXT_HD void dropout_words(uint64_t seed, uint32_t stream, int64_t head, int64_t query,
                              int64_t key_block, uint32_t out[4]) {
  philox(seed, static_cast<uint32_t>(key_block), static_cast<uint32_t>(query),
         static_cast<uint32_t>(head), stream, out);
}

// round(probability 2^32), ties to even; 2^32 for probability 1, which no 32-bit word reaches:
// compare in 64 bits.
ATTNEXT_HD uint64_t drop_threshold(double probability) {
  const double scaled = probability * 4294967296.0;
  const uint64_t whole = static_cast<uint64_t>(scaled);
  const double rest = scaled - static_cast<double>(whole);
  return whole + (rest > 0.5 || (rest == 0.5 && whole % 2 == 1) ? 1 : 0);
}

}  // namespace attnext
